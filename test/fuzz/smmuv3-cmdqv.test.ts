/** Fixed seeds; `nestbox fuzz smmuv3-cmdqv` runs as many as one likes. */
import { expect, it } from "vitest";
import { hostileQueues } from "./smmuv3-cmdqv.ts";

it("a CMDQV under hostile input does what the model says and leaves the SMMU alone: 15 machines, 300 operations each", () => {
  for (let seed = 1; seed <= 15; seed++) expect([seed, hostileQueues(seed)]).toEqual([seed, null]);
});
