import { describe, expect, it } from "vitest";
import { hostileSeed } from "./smmuv3-registers.ts";

describe("hostile registers, tables and queues of an SMMUv3", () => {
  it.each([1, 100, 200, 300])("bring nothing down, seeds from %d", (first) => {
    for (let seed = first; seed < first + 12; seed++) expect([seed, hostileSeed(seed)]).toEqual([seed, null]);
  });
});
