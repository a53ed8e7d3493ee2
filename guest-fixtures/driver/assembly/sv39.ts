// First-stage page tables in Sv39 format (RISC-V privileged specification §4.4; the RISC-V IOMMU walks them with U = 1, A and D set
// by software). Only 4 KiB leaves. Changes need an IOTINVAL.VMA by whoever makes them.

import { gpaOf, pointerTo } from "./machine";
import { PageTable, READ } from "./page-table";
import { allocatePages } from "./pages";

export const PTE_V: u64 = 1 << 0;
export const PTE_R: u64 = 1 << 1;
export const PTE_W: u64 = 1 << 2;
export const PTE_U: u64 = 1 << 4;
export const PTE_A: u64 = 1 << 6;
export const PTE_D: u64 = 1 << 7;

export class Sv39Table extends PageTable {
  /** iosatp / fsc of a device context: MODE 8 (Sv39) and the root's page-frame number. */
  get fsc(): u64 {
    return ((<u64>8) << 60) | (gpaOf(this.root) >> 12);
  }

  map(iova: u64, gpa: u64, rights: u64): void {
    const allowed = rights == READ ? PTE_R : PTE_R | PTE_W;
    store<u64>(this.leaf(iova), ((gpa >> 12) << 10) | allowed | PTE_V | PTE_U | PTE_A | PTE_D);
  }

  unmap(iova: u64): void {
    store<u64>(this.leaf(iova), 0);
  }

  /** Pointer to the leaf entry of `iova`; makes the tables on the way. */
  leaf(iova: u64): usize {
    let table = this.root;
    for (let level = 2; level > 0; level--) {
      const entry = table + <usize>(((iova >> (12 + 9 * level)) & 511) << 3);
      const value = load<u64>(entry);
      if ((value & PTE_V) != 0) {
        table = pointerTo(((value >> 10) & 0xfffffffffff) << 12);
      } else {
        table = allocatePages();
        store<u64>(entry, ((gpaOf(table) >> 12) << 10) | PTE_V);
      }
    }
    return table + <usize>(((iova >> 12) & 511) << 3);
  }
}
