// What walks of VT-d load from, for whoever watches them (host/base/walk-observer.ts). Levels of page tables are counted from 0, the level of 4 KiB
// leaves (the specification counts from 1); structures have level 0.

export type { WalkObserver } from "../../base/walk-observer.ts";

export const TABLE_ROOT = 0;
export const TABLE_CONTEXT = 1;
export const TABLE_PASID_DIRECTORY = 2;
export const TABLE_PASID = 3;
export const TABLE_FIRST_STAGE = 4;
export const TABLE_SECOND_STAGE = 5;
export type WalkTable = 0 | 1 | 2 | 3 | 4 | 5;

/** As trace events call them. */
export const TABLE_NAMES = ["root", "context", "PASID directory", "PASID", "stage1", "stage2"] as const;
