/** The hardware model against the oracle, on the hand-made cases, on random worlds without caches and on random sequences of changes and invalidations with them. */
import { describe, expect, it } from "vitest";
import { CASES, scenarioOfCase } from "./cases/all.ts";
import { hardware } from "./hardware-adapter.ts";
import { huntSeed } from "./harness/hunt.ts";
import { emptyTally, run } from "./harness/scenario.ts";

describe("the VT-d unit agrees with the oracle", () => {
  it.each(CASES.map((each) => [each.name, each] as const))("%s", (_name, each) => {
    const tally = emptyTally();
    expect(run(scenarioOfCase(each), hardware, tally)).toBeNull();
    expect(tally.notMade + tally.requests).toBe(1);
  });

  it.each([1, 251, 501, 751])("on result, record and every word stored: 250 worlds from seed %i", (first) => {
    const tally = emptyTally();
    for (let seed = first; seed < first + 250; seed++) {
      expect(huntSeed("worlds", seed, hardware, console.log, tally)).toBe(true);
    }
    expect(tally.notMade).toBe(0);
    expect(tally.open).toBe(0);
  });

  it.each([1, 51])("on what it may still know after changes: 50 sequences from seed %i", (first) => {
    const tally = emptyTally();
    for (let seed = first; seed < first + 50; seed++) {
      expect(huntSeed("sequences", seed, hardware, console.log, tally)).toBe(true);
    }
    expect(tally.notMade).toBe(0);
  });
});
