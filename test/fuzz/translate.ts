/**
 * `npm run fuzz -- translate`: random configurations and requests, the RISC-V IOMMU hardware model against the oracle of
 * `test/oracle/riscv-iommu`: result, fault record, A/D updates, message delivery. No caches: every answer must be fresh.
 */
import { hardware } from "../oracle/riscv-iommu/hardware-adapter.ts";
import { huntFor } from "../oracle/riscv-iommu/harness/hunt.ts";

export async function fuzz(options: { seed: number; seconds: number; log: (line: string) => void }): Promise<boolean> {
  return huntFor("configurations", hardware, options);
}
