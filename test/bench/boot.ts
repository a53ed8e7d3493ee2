// The Debian fixture: boot to userland, and an NVMe drive behind the guest's own IOMMU. Wall time is taken when a line of the guest's arrives,
// virtual time from the guest's own clock. Says why it skips where the fixture has not been fetched (npm run fixture:debian).

import { bootFixture, type FixtureRun, summaryOf } from "../../guest-fixtures/debian/boot-fixture.ts";
import { cachedFixture } from "../../guest-fixtures/debian/recipe.ts";

type Emit = (line: Record<string, unknown>) => void;
const ROUNDS = 3;

export const about = "the Debian fixture, to userland and reading from a drive";
export async function bench(emit: Emit): Promise<void> {
  const fixture = cachedFixture();
  if (fixture === null) {
    emit({ bench: "boot", skipped: "the Debian fixture is not cached; npm run fixture:debian fetches it" });
    return;
  }
  for (const cpus of ["1", "4"]) {
    const runs: { seconds: number; instructions: number }[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      const run = await bootFixture({ fixture, words: "nestbox.poweroff", cpus, more: ["--report", "json"] });
      const seconds = at(run, /^nestbox: userland$/).ms / 1000;
      runs.push({ seconds, instructions: Number(summaryOf(run).instructions) });
    }
    const { seconds, instructions } = runs.toSorted((a, b) => a.seconds - b.seconds)[ROUNDS >> 1]!;
    // The instruction count is that of the whole run; powering off at once is the least part of it.
    emit({ bench: "boot to userland", harts: Number(cpus), seconds: round(seconds), instructions });
  }
  const run = await bootFixture({ fixture, words: "nestbox.bench", more: ["--report", "json"] });
  const random = interval(run, "random");
  emit({
    ...{ bench: "NVMe direct reads of 4 KiB, one at a time, runs of 256 at scattered places", harts: 1 },
    iops: Math.round(4096 / random.wallSeconds),
    iopsVirtual: Math.round(4096 / random.virtualSeconds),
  });
  const sequential = interval(run, "sequential");
  emit({
    ...{ bench: "NVMe direct sequential reads of 1 MiB", harts: 1 },
    mibPerSecond: Math.round(64 / sequential.wallSeconds),
    mibPerSecondVirtual: Math.round(64 / sequential.virtualSeconds),
  });
}

function at(run: FixtureRun, pattern: RegExp): { readonly text: string; readonly ms: number } {
  const line = run.lines.find(({ text }) => pattern.test(text));
  if (line === undefined) throw new Error(`the guest never printed ${pattern} (exit status ${run.status})`);
  return line;
}

/** Between "nestbox-bench: NAME begins at T" and "… ends at T". The guest's clock here has hundredths of a second. */
function interval(run: FixtureRun, name: string): { wallSeconds: number; virtualSeconds: number } {
  const [from, to] = [at(run, new RegExp(`${name} begins at`)), at(run, new RegExp(`${name} ends at`))];
  const virtual = (text: string): number => Number(/ at ([\d.]+)/.exec(text)?.[1]);
  const virtualSeconds = Math.max(0.01, virtual(to.text) - virtual(from.text));
  return { wallSeconds: (to.ms - from.ms) / 1000, virtualSeconds };
}

const round = (seconds: number): number => Math.round(seconds * 100) / 100;
