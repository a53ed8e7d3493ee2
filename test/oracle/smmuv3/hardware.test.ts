/** The hardware model against the oracle, on the hand-made cases, on random worlds without caches and on random sequences of changes and invalidations with them. */
import { describe, expect, it } from "vitest";
import { CASES, scenarioOfCase } from "./cases/all.ts";
import { hardware } from "./hardware-adapter.ts";
import { huntSeed } from "./harness/hunt.ts";
import { describeScenario, emptyTally, run } from "./harness/scenario.ts";

/** Of an SMMU that the model does not offer (hardware-adapter.ts). */
const NOT_OFFERED: readonly string[] = [
  "TR: C_BAD_STREAMID wants RECINVSID as well (§3.9.1.2)",
  "Translated: C_BAD_STREAMID is recorded with REC_CFG_ATS, whatever RECINVSID says (§3.9.1.3)",
];

describe("the SMMUv3 agrees with the oracle", () => {
  it.each(CASES.map((each) => [each.name, each] as const))("%s", (_name, each) => {
    const scenario = scenarioOfCase(each);
    const tally = emptyTally();
    expect(run(scenario, hardware, tally), describeScenario(scenario).join("\n")).toBeNull();
    expect(tally.requests).toBe(NOT_OFFERED.includes(each.name) ? 0 : 1);
  });

  it.each([1, 251, 501, 751])("on result, record and every word stored: 250 worlds from seed %i", (first) => {
    const tally = emptyTally();
    for (let seed = first; seed < first + 250; seed++) {
      expect(huntSeed("worlds", seed, hardware, console.log, tally)).toBe(true);
    }
    // 24 requests each; some worlds are of an SMMU that the model is not.
    expect(tally.requests).toBeGreaterThan(250 * 12);
    expect(tally.open).toBe(0);
  });

  it.each([1, 101])("on what it may still know after changes: 100 sequences from seed %i", (first) => {
    const tally = emptyTally();
    for (let seed = first; seed < first + 100; seed++) {
      expect(huntSeed("sequences", seed, hardware, console.log, tally)).toBe(true);
    }
    expect(tally.requests).toBeGreaterThan(100 * 10);
  });
});
