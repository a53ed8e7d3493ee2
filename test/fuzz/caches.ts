/**
 * `nestbox fuzz caches`: random sequences of table changes, invalidations and requests, the RISC-V IOMMU hardware model with its caches against the
 * oracle that knows which stale answers §3.8 allows.
 */
import type { Fuzzer } from "../../vmm/cli/fuzzer.ts";
import { hardware } from "../oracle/riscv-iommu/hardware-adapter.ts";
import { hunt } from "../oracle/riscv-iommu/harness/hunt.ts";

export const fuzzer: Fuzzer = {
  about: "random changes and invalidations: the IOMMU's caches against an oracle",
  round: (seed, count) => hunt("sequences", seed, hardware, count),
};
