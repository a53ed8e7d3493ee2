// First-stage page tables in VMSAv8-64 format (DDI 0487 D8.3): granules of 4 KiB, addresses of 39 bits, so that a walk has three levels. Pages are for
// unprivileged requests, not global, never executable, AF set by software.

import { gpaOf, pointerTo } from "./machine";
import { PageTable, READ } from "./page-table";
import { allocatePages } from "./pages";

/** CD.T0SZ for these tables: 64 minus the bits of an address. */
export const VMSA_T0SZ: u64 = 25;

const VALID: u64 = 1 << 0;
/** A table, or at level 3 a page. */
const TABLE_OR_PAGE: u64 = 1 << 1;
/** AttrIndx 1 of the MAIR that the driver writes: write-back memory. */
const NORMAL: u64 = 1 << 2;
const UNPRIVILEGED: u64 = 1 << 6;
const READ_ONLY: u64 = 1 << 7;
const INNER_SHAREABLE: u64 = 3 << 8;
const AF: u64 = 1 << 10;
const NOT_GLOBAL: u64 = 1 << 11;
const NEVER_EXECUTE: u64 = (<u64>3) << 53;
const OUTPUT: u64 = 0xfffffffff000;

export class VmsaTable extends PageTable {
  map(iova: u64, gpa: u64, rights: u64): void {
    const attributes = NORMAL | UNPRIVILEGED | INNER_SHAREABLE | AF | NOT_GLOBAL | NEVER_EXECUTE | TABLE_OR_PAGE | VALID;
    store<u64>(this.page(iova), (gpa & OUTPUT) | attributes | (rights == READ ? READ_ONLY : 0));
  }

  unmap(iova: u64): void {
    store<u64>(this.page(iova), 0);
  }

  /** Pointer to the page descriptor of `iova`; makes the tables on the way from level 1. */
  private page(iova: u64): usize {
    let table = this.root;
    for (let level = 1; level < 3; level++) {
      const entry = table + <usize>(((iova >> (12 + 9 * (3 - level))) & 511) << 3);
      const value = load<u64>(entry);
      if ((value & VALID) != 0) {
        table = pointerTo(value & OUTPUT);
      } else {
        table = allocatePages();
        store<u64>(entry, gpaOf(table) | TABLE_OR_PAGE | VALID);
      }
    }
    return table + <usize>(((iova >> 12) & 511) << 3);
  }
}
