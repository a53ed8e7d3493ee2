/**
 * `npm run fuzz -- caches`: random sequences of table changes, invalidations and requests, the RISC-V IOMMU hardware model with its caches against the
 * oracle that knows which stale answers §3.8 allows.
 */
import { hardware } from "../oracle/riscv-iommu/hardware-adapter.ts";
import { huntFor } from "../oracle/riscv-iommu/harness/hunt.ts";

export async function fuzz(options: { seed: number; seconds: number; log: (line: string) => void }): Promise<boolean> {
  return huntFor("sequences", hardware, options);
}
