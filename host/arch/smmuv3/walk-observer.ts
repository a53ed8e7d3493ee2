// What walks of the SMMUv3 load from, for whoever watches them (host/base/walk-observer.ts). Levels are the architecture's (0 to 3), 0 for structures.

export type { WalkObserver } from "../../base/walk-observer.ts";

/** Structures (STE, CD) are told of by their first doubleword. */
export const TABLE_STREAM_L1 = 0;
export const TABLE_STREAM = 1;
export const TABLE_CONTEXT_L1 = 2;
export const TABLE_CONTEXT = 3;
export const TABLE_STAGE_1 = 4;
export const TABLE_STAGE_2 = 5;
export type WalkTable = 0 | 1 | 2 | 3 | 4 | 5;

/** As trace events call them. */
export const TABLE_NAMES = ["L1STD", "STE", "L1CD", "CD", "stage1", "stage2"] as const;
