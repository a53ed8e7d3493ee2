// What walks of the RISC-V IOMMU load from, for whoever watches them (host/base/walk-observer.ts). Level 0 is that of leaves.

export type { WalkObserver } from "../../base/walk-observer.ts";

export const TABLE_DDT = 0;
export const TABLE_PDT = 1;
export const TABLE_FIRST_STAGE = 2;
export const TABLE_SECOND_STAGE = 3;
export const TABLE_MSI = 4;
export type WalkTable = 0 | 1 | 2 | 3 | 4;

/** As trace events call them. */
export const TABLE_NAMES = ["DDT", "PDT", "stage1", "stage2", "MSI"] as const;
