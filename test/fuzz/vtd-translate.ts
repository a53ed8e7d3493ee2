/**
 * `nestbox fuzz vtd-translate`: random units, tables and requests, the VT-d hardware model against the oracle of `test/oracle/vtd`: answer, fault record,
 * every word stored, interrupts. No caches: every answer must be fresh.
 */
import type { Fuzzer } from "../../vmm/cli/fuzzer.ts";
import { hardware } from "../oracle/vtd/hardware-adapter.ts";
import { hunt } from "../oracle/vtd/harness/hunt.ts";

export const fuzzer: Fuzzer = {
  about: "random tables and requests: VT-d against an oracle",
  round: (seed, count) => hunt("worlds", seed, hardware, count),
};
