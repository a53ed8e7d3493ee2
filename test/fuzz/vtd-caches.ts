/**
 * `nestbox fuzz vtd-caches`: random sequences of table changes, invalidations and requests, the VT-d hardware model with its caches against the
 * oracle that knows which stale answers §6 allows.
 */
import type { Fuzzer } from "../../vmm/cli/fuzzer.ts";
import { hardware } from "../oracle/vtd/hardware-adapter.ts";
import { hunt } from "../oracle/vtd/harness/hunt.ts";

export const fuzzer: Fuzzer = {
  about: "random changes and invalidations: VT-d's caches against an oracle",
  round: (seed, count) => hunt("sequences", seed, hardware, count),
};
