import { describe, expect, it } from "vitest";
import { huntQueue } from "../oracle/vtd/harness/queue-hunt.ts";
import { hostileStates } from "./vtd-states.ts";

describe("invalidation queues of a VT-d unit", () => {
  it("stop where and as the specification says, and go on from there: 300 of them", () => {
    for (let seed = 1; seed <= 300; seed++) expect([seed, huntQueue(seed)]).toEqual([seed, null]);
  });
});

describe("a VT-d unit's state, spoiled", () => {
  it("is taken or refused in words, 20 seeds", () => {
    const restored = { taken: 0, refused: 0 };
    for (let seed = 1; seed <= 20; seed++) expect([seed, hostileStates(seed, restored)]).toEqual([seed, null]);
    expect(restored.taken).toBeGreaterThan(50);
    expect(restored.refused).toBeGreaterThan(50);
  });
});
