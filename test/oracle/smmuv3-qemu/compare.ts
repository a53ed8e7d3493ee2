/**
 * `npm run compare:smmuv3-qemu [-- --worlds N --seed S]`: see comparison.ts. 77 where QEMU cannot be had.
 */
import { parseArgs } from "node:util";
import { MissingHere } from "../../../guest-fixtures/debian/debian-packages.ts";
import { findQemu } from "../../../guest-fixtures/qemu-on-host/qemu.ts";
import { QemuEnded } from "../qtest.ts";
import { Comparison } from "./comparison.ts";

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: { worlds: { type: "string", default: "100" }, seed: { type: "string", default: "1" } },
  });
  const worlds = Number(values.worlds);
  const first = Number(values.seed);
  if (!Number.isInteger(worlds) || worlds < 1 || !Number.isInteger(first)) {
    console.error("compare:smmuv3-qemu: --worlds takes a number from 1, --seed a whole number");
    return 2;
  }
  const qemu = findQemu((line) => console.error(line));
  console.log(qemu.version);
  const comparison = new Comparison(qemu);
  try {
    for (let seed = first; seed < first + worlds; seed++) {
      await comparison.world(seed);
      await comparison.sequence(seed);
    }
  } finally {
    await comparison.stop();
  }
  for (const [what, count] of [...comparison.counts].sort()) console.log(`${String(count).padStart(8)}  ${what}`);
  console.log(`${comparison.findings} disagreements that nothing explains`);
  return comparison.findings === 0 ? 0 : 1;
}

try {
  process.exitCode = await main();
} catch (error) {
  // Some builds of QEMU come without qtest.
  const withoutQtest = error instanceof QemuEnded && error.said.includes("invalid accelerator");
  if (!(error instanceof MissingHere) && !withoutQtest) throw error;
  console.error(`compare:smmuv3-qemu: ${error.message.trim()}`);
  process.exitCode = 77;
}
