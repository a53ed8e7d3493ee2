// First-stage page tables in words that hold for every format: pages of 4 KiB, readable or readable and writable. A format (sv39.ts, vmsa.ts) lays
// them out. Changes need an invalidation by whoever makes them.

import { allocatePages } from "./pages";

export const READ: u64 = 1;
export const READ_WRITE: u64 = 3;

export abstract class PageTable {
  /** Pointer to the root table. */
  readonly root: usize = allocatePages();

  /** Maps one page; `rights` is READ or READ_WRITE. */
  abstract map(iova: u64, gpa: u64, rights: u64): void;
  abstract unmap(iova: u64): void;

  /** Maps [gpa, gpa + size) one to one. */
  mapIdentity(gpa: u64, size: u64): void {
    for (let at: u64 = 0; at < size; at += 4096) this.map(gpa + at, gpa + at, READ_WRITE);
  }
}
