// `npm run check:debian`: the demo with everything checked that can be: what the guest's kernel says of its drivers, the verified checksum, the
// run's report; then short boots to userland whose traces must be the same for the same seed, and a run that is saved and taken back.
// `check.js state [WORDS]` does that last part alone.

import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { SeededRandom } from "../../host/base/seeded-random.ts";
import { bootFixture, summaryOf } from "./boot-fixture.ts";
import { type DebianFixture, debianFixture, MissingHere } from "./recipe.ts";
import { savedRun } from "./saved-run.ts";

const failures: string[] = [];
function check(holds: boolean, what: string): void {
  console.log(`${holds ? "ok    " : "FAILED"} ${what}`);
  if (!holds) failures.push(what);
}

/** Lines that the guest must print, and what each shows. */
const WANTED: readonly (readonly [RegExp, string])[] = [
  [/riscv,iommu 3010000\.iommu: using MSIs/, "the guest's riscv-iommu driver is up, with MSIs"],
  [/pci 0000:00:10\.0: Adding to iommu group \d+/, "the drive is in an IOMMU group"],
  [/nestbox-demo: iommus: riscv-iommu@3010000/, "sysfs shows the IOMMU"],
  [/nestbox-demo: group \d+ type \S+ devices .*0000:00:10\.0/, "sysfs shows the drive in its group"],
  [/nvme nvme0: pci function 0000:00:10\.0/, "the guest's nvme driver has the drive"],
  [/EXT4-fs \(nvme0n1p1\): mounted filesystem/, "a file system on the drive's partition is mounted"],
  [/nestbox-demo: checksum verified: [0-9a-f]{64}/, "the file's checksum is verified after dropping caches"],
];
const COMMANDS = ["IODIR.INVAL_DDT", "IOTINVAL.VMA", "IOFENCE.C"];

async function checkDemo(fixture: DebianFixture): Promise<void> {
  const run = await bootFixture({ fixture, words: "nestbox.script", more: ["--report", "json"], echo: true });
  const summary = summaryOf(run);
  check(run.status === 0, `the demo ends with exit status 0 (${run.status})`);
  for (const [pattern, what] of WANTED)
    check(
      run.lines.some(({ text }) => pattern.test(text)),
      what,
    );
  check(!run.lines.some(({ text }) => /FAILED|Oops|BUG:|WARNING:/.test(text)), "the guest complains of nothing");
  const dma = (summary.dma ?? {}) as Record<string, number>;
  const commands = (summary.commands ?? {}) as Record<string, number>;
  check(summary.result === "pass" && summary.detail === "powered off", "the report says that the guest powered off");
  check(summary.faults === 0, "no fault reached the guest");
  check(Number(summary.bypassDomains) >= 1, `bypass contexts were installed (${summary.bypassDomains})`);
  for (const name of COMMANDS) check((commands[name] ?? 0) > 0, `the guest's ${name} was trapped`);
  // The file alone is 4 MiB, written once and read once.
  check((dma.bytes ?? 0) >= 8 * 2 ** 20 && dma.aborted === 0, `DMA moved the data, none aborted (${dma.bytes} bytes)`);
  check((dma.messages ?? 0) > 0, `the drive's interrupts came as MSIs (${dma.messages})`);
}

async function checkDeterminism(fixture: DebianFixture): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "nestbox-trace-"));
  const boot = async (seed: string): Promise<string> => {
    const trace = join(folder, "trace.jsonl");
    const more = ["--trace", trace, "--seed", seed];
    const run = await bootFixture({ fixture, words: "nestbox.poweroff", cpus: "2", more });
    const userland = run.lines.some(({ text }) => text === "nestbox: userland");
    check(run.status === 0 && userland, `two harts with seed ${seed} reach userland and power off`);
    return createHash("sha256").update(readFileSync(trace)).digest("hex");
  };
  const [first, second, other] = [await boot("7"), await boot("7"), await boot("8")];
  rmSync(folder, { recursive: true, force: true });
  check(first === second, `the same seed gives the same trace (${first})`);
  check(first !== other, "another seed gives another trace");
}

/** Two harts, the drive in use: saved and taken back at random instants, and never. */
function checkState(fixture: DebianFixture, words: string): void {
  const options = { fixture, words, cpus: 2, farthest: 100, seed: 1 };
  const plain = savedRun({ ...options, saves: new Set() });
  check(plain.poweredOff, `a machine in this process powers off (${plain.slices} slices)`);
  const random = new SeededRandom(1);
  const saves = new Set(Array.from({ length: 4 }, () => random.below(plain.slices)));
  const saved = savedRun({ ...options, saves });
  check(saved.taken >= 2 && saved.rewound >= 1, `it was taken back ${saved.taken} times, ${saved.rewound} over events`);
  check(saved.trace === plain.trace, `saved and taken back, its trace is the same (${saved.trace})`);
  check(saved.ram === plain.ram && saved.console === plain.console, "and so are RAM and console");
}

try {
  const fixture = debianFixture({ log: (line) => console.error(line) });
  if (process.argv[2] === "state") {
    checkState(fixture, process.argv[3] ?? "nestbox.script");
  } else {
    await checkDemo(fixture);
    await checkDeterminism(fixture);
    checkState(fixture, "nestbox.script");
  }
  if (failures.length > 0) {
    console.error(`check:debian: ${failures.length} failed: ${failures.join("; ")}`);
    process.exitCode = 1;
  }
} catch (error) {
  if (!(error instanceof MissingHere)) throw error;
  console.error(`check:debian: ${error.message}`);
  process.exitCode = 77;
}
