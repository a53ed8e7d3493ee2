// Who watches a walk: told of every load of a structure or table entry, with the address it was loaded from. One nullable observer in one walker, so
// that a traced walk and a fast one are the same code.

/** What a walk loads from. Structures (STE, CD) are told of by their first doubleword. */
export const TABLE_STREAM_L1 = 0;
export const TABLE_STREAM = 1;
export const TABLE_CONTEXT_L1 = 2;
export const TABLE_CONTEXT = 3;
export const TABLE_STAGE_1 = 4;
export const TABLE_STAGE_2 = 5;
export type WalkTable = 0 | 1 | 2 | 3 | 4 | 5;

/** As trace events call them. */
export const TABLE_NAMES = ["L1STD", "STE", "L1CD", "CD", "stage1", "stage2"] as const;

export interface WalkObserver {
  /**
   * One entry was loaded. `level` is the architecture's (0 to 3; 0 for structures); `pfn` and `offset` are where it lies in the memory walked; `lo`,
   * `hi` its value in little-endian order; `serves` is the stage-1 level that a stage-2 load works for, -1 otherwise.
   */
  tableLoaded(
    table: WalkTable,
    level: number,
    pfn: number,
    offset: number,
    lo: number,
    hi: number,
    serves: number,
  ): void;
}
