// What the kernel's bench needs of a kind of IOMMU.

import type { MachineOptions } from "../../host/kernel/machine.ts";

/** What a kind's guest hands over. */
export interface KernelKind {
  readonly name: string;
  readonly machine: MachineOptions;
  readonly viommu: number;
  readonly veventq: number;
  readonly invalidation: number;
  readonly data: number;
  readonly bypass: Uint8Array;
  readonly stage1: Uint8Array;
  /** Under it a transaction ends in a record that the guest is told of. */
  readonly faulting: Uint8Array;
  /** Invalidates one page. */
  readonly command: readonly [bigint, bigint];
}
