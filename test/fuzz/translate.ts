/**
 * `nestbox fuzz translate`: random configurations and requests, the RISC-V IOMMU hardware model against the oracle of
 * `test/oracle/riscv-iommu`: result, fault record, A/D updates, message delivery. No caches: every answer must be fresh.
 */
import type { Fuzzer } from "../../vmm/cli/fuzzer.ts";
import { hardware } from "../oracle/riscv-iommu/hardware-adapter.ts";
import { hunt } from "../oracle/riscv-iommu/harness/hunt.ts";

export const fuzzer: Fuzzer = {
  about: "random tables and requests: the IOMMU against an oracle",
  round: (seed, count) => hunt("configurations", seed, hardware, count),
};
