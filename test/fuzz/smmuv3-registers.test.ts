import { describe, expect, it } from "vitest";
import { growth } from "./hardware/live-bytes.ts";
import { hostileSeed } from "./smmuv3-registers.ts";

describe("hostile registers, tables and queues of an SMMUv3", () => {
  it.each([1, 100, 200, 300])("bring nothing down, seeds from %d", (first) => {
    for (let seed = first; seed < first + 12; seed++) expect([seed, hostileSeed(seed)]).toEqual([seed, null]);
  });

  it.each([1, 2, 3])("hold no more memory after 12,000 operations than after 2,000 (seed %i)", (seed) => {
    expect(growth((operations, pause) => expect(hostileSeed(seed, operations, pause)).toBeNull())).toBeLessThan(
      1_000_000,
    );
  });
});
