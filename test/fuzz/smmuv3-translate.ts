/**
 * `nestbox fuzz smmuv3-translate`: random stream tables, contexts, tables and requests, the SMMUv3 hardware model against the oracle of
 * `test/oracle/smmuv3`: answer, event record, every word stored. No caches: every answer must be fresh.
 */
import type { Fuzzer } from "../../vmm/cli/fuzzer.ts";
import { hardware } from "../oracle/smmuv3/hardware-adapter.ts";
import { hunt } from "../oracle/smmuv3/harness/hunt.ts";

export const fuzzer: Fuzzer = {
  about: "random tables and requests: the SMMUv3 against an oracle",
  round: (seed, count) => hunt("worlds", seed, hardware, count),
};
