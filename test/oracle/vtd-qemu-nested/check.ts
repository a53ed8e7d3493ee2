/**
 * `npm run check:vtd-qemu-nested`: QEMU's intel-iommu as a client of the host model, driven without a guest. Each story (stories.ts) ends as the specification has it,
 * or with the gap of QEMU's that is named there; anything else is a failure. 77 where QEMU cannot be had.
 */
import { MissingHere } from "../../../guest-fixtures/debian/debian-packages.ts";
import { findQemu, type Qemu } from "../../../guest-fixtures/qemu-on-host/qemu.ts";
import { QemuEnded } from "../qtest.ts";
import { type Ended, NestedMachine } from "./machine.ts";
import { type Seen, STORIES, type Story } from "./stories.ts";

const OLDEST = 11;
/** The length of the list is asked for first, the migration feature probed. */
const ASKED = ["IOMMU_IOAS_IOVA_RANGES -90", "VFIO_DEVICE_FEATURE -25"];

async function told(qemu: Qemu, story: Story): Promise<Seen & { readonly said: string }> {
  const machine = await NestedMachine.start(qemu, story.machine ?? {});
  let arrived: Seen["arrived"];
  let recorded: boolean;
  let ended: Ended;
  try {
    arrived = await story.tell(machine);
    recorded = await machine.recorded();
  } finally {
    ended = await machine.end();
  }
  const { said, refused } = ended;
  const stale = /^nestbox: stale: /m.test(said);
  if (!/^nestbox: host: left over: nothing$/m.test(said)) throw new Error(`something is left in the host: ${said}`);
  return { arrived, recorded, stale, refused: refused.filter((one) => !ASKED.includes(one)), said };
}

const same = (one: Seen, other: Seen): boolean =>
  one.arrived === other.arrived &&
  one.recorded === other.recorded &&
  one.stale === other.stale &&
  one.refused.join() === other.refused.join();

function inWords({ arrived, recorded, stale, refused }: Seen): string {
  const parts = [arrived === "nowhere" ? "arrives nowhere" : `arrives ${arrived}`];
  parts.push(recorded ? "recorded" : "no record");
  if (stale) parts.push("stale");
  return [...parts, ...refused].join(", ");
}

async function main(): Promise<number> {
  const qemu = findQemu((line) => console.error(line), "x86_64", OLDEST);
  console.log(qemu.version);
  let failed = 0;
  for (const story of STORIES) {
    const seen = await told(qemu, story);
    const asSpecified = same(seen, story.specified);
    const asListed = story.gap !== undefined && same(seen, story.gap);
    if (!asSpecified && !asListed) failed++;
    const verdict = asSpecified ? "ok    " : asListed ? "gap   " : "FAILED";
    console.log(`${verdict} ${story.name}: ${inWords(seen)}`);
    if (!asSpecified) console.log(`       specified (${story.section}): ${inWords(story.specified)}`);
    for (const line of seen.said.split("\n"))
      if (/^qemu-system|^nestbox: stale: /.test(line)) console.log(`       ${line}`);
  }
  console.log(`${STORIES.length} stories, ${failed} that nothing explains`);
  return failed === 0 ? 0 : 1;
}

try {
  process.exitCode = await main();
} catch (error) {
  // Some builds of QEMU come without qtest.
  const withoutQtest = error instanceof QemuEnded && error.said.includes("invalid accelerator");
  if (!(error instanceof MissingHere) && !withoutQtest) throw error;
  console.error(`check:vtd-qemu-nested: ${error.message.trim()}`);
  process.exitCode = 77;
}
