/** The oracle against the tables of hand-made cases. `cases/all.ts` puts other SMMUs to them. */
import { describe, expect, it } from "vitest";
import { word } from "../memory.ts";
import { wrongStores } from "../stores.ts";
import { allowedOutcomes } from "./allowed.ts";
import { CASES, scenarioOfCase } from "./cases/all.ts";
import type { Case } from "./cases/expected.ts";
import { request } from "./cases/scene.ts";
import { wrongRecord } from "./harness/compare.ts";
import { oracleSubject } from "./harness/oracle-subject.ts";
import { run } from "./harness/scenario.ts";
import type { Outcome } from "./outcome.ts";

/** What an outcome lacks of what the case expects, or null. Every permitted outcome must be the expected one, in what the case says of it. */
function complaint({ expected }: Case, outcome: Outcome, memory: ReturnType<Case["scene"]>["memory"]): string | null {
  const { result } = outcome;
  if (typeof expected.result === "bigint") {
    if (result.kind !== "translated") return `a translation, not ${result.kind}`;
    if (result.address !== expected.result) return `address 0x${result.address.toString(16)}`;
  } else if (typeof expected.result === "string") {
    const kind = { abort: "aborted", "raz-wi": "raz-wi", stall: "stalled" }[expected.result];
    if (result.kind !== kind) return `${kind}, not ${result.kind}`;
  } else if (result.kind !== "ats") return `an ATS completion, not ${result.kind}`;
  const wrong =
    expected.event === null
      ? wrongRecord([], outcome.record)
      : outcome.record === null
        ? "an event"
        : wrongRecord([expected.event], outcome.record);
  if (wrong !== null) return wrong;
  const stored = expected.stored?.filter(([at, value]) => word(memory, at) !== value) ?? [];
  return expected.stored === undefined ? null : wrongStores(memory, outcome.updates, stored);
}

describe("the oracle on hand-made cases", () => {
  it.each(CASES.map((each) => [each.name, each] as const))("%s", (_name, each) => {
    const { identification, programming, memory } = each.scene();
    const outcomes = allowedOutcomes(identification, programming, memory, request(each.request))!;
    expect(outcomes.length).toBeGreaterThan(0);
    const { result } = each.expected;
    if (typeof result === "object") {
      // Where the specification leaves a choice, the expected answer is one of several.
      expect(outcomes.map((outcome) => outcome.result.kind === "ats" && outcome.result.completion)).toContainEqual(
        expect.objectContaining(result),
      );
    }
    for (const outcome of outcomes) expect(complaint(each, outcome, memory)).toBeNull();
    expect(run(scenarioOfCase(each), oracleSubject())).toBeNull();
  });

  it("names each case once", () => {
    expect(new Set(CASES.map(({ name }) => name)).size).toBe(CASES.length);
  });
});
