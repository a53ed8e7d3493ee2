// Who watches a walk: told of every load of a structure or table entry, with the address it was loaded from. One nullable observer in one
// walker, so that a traced walk and a fast one are the same code.

export interface WalkObserver {
  /**
   * One entry was loaded. `table` and `level` are the architecture's own numbers; `pfn` and `offset` are where the entry lies in the memory
   * walked (host-physical for hardware); `lo`, `hi` its value after byte order was undone (structures: their first doubleword); `serves` is
   * the level of the entry of another table that an implicit second-stage load works for, -1 otherwise. Where table and level do not say what an
   * entry covers: `covers`, log2 of its bytes, and `inputPfn`, the page that the walk through these tables is for. `cached`: it was not loaded, but remembered from an
   * earlier walk, and the walk begins behind it.
   */
  tableLoaded(
    table: number,
    level: number,
    pfn: number,
    offset: number,
    lo: number,
    hi: number,
    serves: number,
    covers?: number,
    inputPfn?: number,
    cached?: boolean,
  ): void;
}

/** Loads of a walk that may yet be given up and begun again: whoever watches is told of them once it has come to its end. */
// Not state: of one walk
export class PendingLoads implements WalkObserver {
  readonly #loads: Parameters<WalkObserver["tableLoaded"]>[] = [];

  tableLoaded(...load: Parameters<WalkObserver["tableLoaded"]>): void {
    this.#loads.push(load);
  }

  forget(): void {
    this.#loads.length = 0;
  }

  tell(observer: WalkObserver): void {
    for (const load of this.#loads) observer.tableLoaded(...load);
    this.forget();
  }
}
