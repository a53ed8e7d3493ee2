// Who watches a walk: told of every load of a table entry, with the address it was loaded from. One nullable observer in one
// walker, so that a traced walk and a fast one are the same code.

/** Tables a walk loads from. */
export const TABLE_DDT = 0;
export const TABLE_PDT = 1;
export const TABLE_FIRST_STAGE = 2;
export const TABLE_SECOND_STAGE = 3;
export const TABLE_MSI = 4;
export type WalkTable = 0 | 1 | 2 | 3 | 4;

export interface WalkObserver {
  /**
   * One entry was loaded. `level` 0 is the leaf level; `pfn` and `offset` are where it lies in the memory walked (host-physical for
   * hardware); `lo`, `hi` its value after byte order was undone; `serves` is the level of the first-stage or process-directory
   * entry an implicit second-stage load works for, -1 otherwise.
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
