/**
 * `nestbox fuzz smmuv3-caches`: random sequences of table changes, invalidations and requests, the SMMUv3 hardware model with its caches against the
 * oracle that knows which stale answers §7's scopes allow.
 */
import type { Fuzzer } from "../../vmm/cli/fuzzer.ts";
import { hardware } from "../oracle/smmuv3/hardware-adapter.ts";
import { hunt } from "../oracle/smmuv3/harness/hunt.ts";

export const fuzzer: Fuzzer = {
  about: "random changes and invalidations: the SMMUv3's caches against an oracle",
  round: (seed, count) => hunt("sequences", seed, hardware, count),
};
