// First-stage page tables in x86's long-mode format (VT-d §9.8): four levels, addresses of 48 bits, pages of 4 KiB. Pages are a user's, A and D set by
// software; there is no way to say that what is present cannot be read.

import { gpaOf, pointerTo } from "./machine";
import { PageTable, READ } from "./page-table";
import { allocatePages } from "./pages";

const P: u64 = 1 << 0;
const RW: u64 = 1 << 1;
const US: u64 = 1 << 2;
const A: u64 = 1 << 5;
const D: u64 = 1 << 6;
const ADDR: u64 = 0xffffffffff000;

export class LongModeTable extends PageTable {
  map(iova: u64, gpa: u64, rights: u64): void {
    store<u64>(this.leaf(iova), (gpa & ADDR) | P | US | A | (rights == READ ? 0 : RW | D));
  }

  unmap(iova: u64): void {
    store<u64>(this.leaf(iova), 0);
  }

  /** Pointer to the leaf entry of `iova`; makes the tables on the way. */
  private leaf(iova: u64): usize {
    let table = this.root;
    for (let level = 3; level > 0; level--) {
      const entry = table + <usize>(((iova >> (12 + 9 * level)) & 511) << 3);
      const value = load<u64>(entry);
      if ((value & P) != 0) {
        table = pointerTo(value & ADDR);
      } else {
        table = allocatePages();
        store<u64>(entry, gpaOf(table) | P | RW | US | A);
      }
    }
    return table + <usize>(((iova >> 12) & 511) << 3);
  }
}
