// Address translation: satp's Bare, Sv39, Sv48, Sv57 (privileged specification, "Virtual Address Translation Process"), with hardware updating of
// A and D (Svadu), Svpbmt and Svnapot where offered. No ASIDs are implemented (satp.ASID reads 0); a TLB therefore holds one address space.
import { ACCESS_FETCH, ACCESS_LOAD, ACCESS_STORE } from "../../engine/assembly/isa";
import { LEAF_BITS, PHYSICAL } from "../../engine/assembly/layout";
import { dataTable, fetchTable, hostAddress } from "../../engine/assembly/tlb";
import { FEATURES, FEATURE_SVNAPOT, FEATURE_SVPBMT, MODE, SATP, SSTATUS } from "./layout";

export const SSTATUS_SIE: u64 = 1 << 1;
export const SSTATUS_SPIE: u64 = 1 << 5;
export const SSTATUS_SPP: u64 = 1 << 8;
export const SSTATUS_FS: u64 = 3 << 13;
export const SSTATUS_SUM: u64 = 1 << 18;
export const SSTATUS_MXR: u64 = 1 << 19;

const PTE_V: u64 = 1;
const PTE_R: u64 = 2;
const PTE_W: u64 = 4;
const PTE_X: u64 = 8;
const PTE_U: u64 = 16;
const PTE_A: u64 = 64;
const PTE_D: u64 = 128;
const PTE_PBMT: u64 = 3 << 61;
const PTE_N: u64 = 1 << 63;
const PTE_RESERVED: u64 = 0x7f << 54;

/** Exception codes: 1/5/7 access fault, 12/13/15 page fault. */
@inline
export function accessFault(access: u32): u32 {
  return access == ACCESS_FETCH ? 1 : access == ACCESS_STORE ? 7 : 5;
}

@inline
function pageFault(access: u32): u32 {
  return access == ACCESS_FETCH ? 12 : access == ACCESS_STORE ? 15 : 13;
}

/** Translates in the hart's current mode: 0 with PHYSICAL and LEAF_BITS set, or the exception code. */
export function translate(va: u64, access: u32): u32 {
  const satp = load<u64>(SATP);
  const scheme = <u32>(satp >> 60);
  if (scheme == 0) {
    store<u64>(PHYSICAL, va);
    store<u32>(LEAF_BITS, 12);
    return 0;
  }
  const fault = pageFault(access);
  const levels: i32 = scheme - 5; // 8: 3, 9: 4, 10: 5
  const unused: i64 = 64 - 12 - 9 * levels;
  if (((<i64>va << unused) >> unused) != <i64>va) return fault;
  const features = load<u32>(FEATURES);
  let reserved = PTE_RESERVED;
  if (!(features & FEATURE_SVPBMT)) reserved |= PTE_PBMT;
  if (!(features & FEATURE_SVNAPOT)) reserved |= PTE_N;
  let table = (satp & 0xfffffffffff) << 12;
  for (let level = levels - 1; level >= 0; level--) {
    const shift: u64 = 12 + 9 * level;
    const entry = hostAddress(table + (((va >> shift) & 511) << 3));
    if (entry == 0) return accessFault(access);
    const pte = load<u64>(entry);
    if (!(pte & PTE_V) || (pte & (PTE_R | PTE_W)) == PTE_W || (pte & reserved)) return fault;
    const page = (pte >> 10) & 0xfffffffffff;
    if (!(pte & (PTE_R | PTE_X))) {
      if (pte & (PTE_D | PTE_A | PTE_U | PTE_PBMT | PTE_N)) return fault;
      table = page << 12;
      continue;
    }
    return leaf(va, access, pte, page, level, entry);
  }
  return fault;
}

/** Checks a leaf's permissions, sets A and D, and composes the address. */
function leaf(va: u64, access: u32, pte: u64, page: u64, level: i32, entry: usize): u32 {
  const fault = pageFault(access);
  const status = load<u64>(SSTATUS);
  if (load<u32>(MODE) == 0) {
    if (!(pte & PTE_U)) return fault;
  } else if (pte & PTE_U) {
    if (access == ACCESS_FETCH || !(status & SSTATUS_SUM)) return fault;
  }
  if (access == ACCESS_LOAD) {
    if (!(pte & (status & SSTATUS_MXR ? PTE_R | PTE_X : PTE_R))) return fault;
  } else if (!(pte & (access == ACCESS_STORE ? PTE_W : PTE_X))) return fault;
  if ((pte & PTE_PBMT) == PTE_PBMT) return fault;
  let bits: u64 = 12 + 9 * level;
  if (pte & PTE_N) {
    if (level != 0 || (page & 15) != 8) return fault;
    bits = 16;
    page &= ~15;
  } else if (page & ((1 << (bits - 12)) - 1)) return fault;
  const used = pte | PTE_A | (access == ACCESS_STORE ? PTE_D : 0);
  if (used != pte) store<u64>(entry, used);
  store<u64>(PHYSICAL, (page << 12) | (va & ((1 << bits) - 1)));
  store<u32>(LEAF_BITS, <u32>bits);
  return 0;
}

/** The TLB context of loads and stores in the current mode: 0 user, 1 supervisor, 2 supervisor with SUM. */
@inline
export function dataContext(): u32 {
  return load<u32>(MODE) == 0 ? 0 : load<u64>(SSTATUS) & SSTATUS_SUM ? 2 : 1;
}

@inline
export function dataTlb(): usize {
  return dataTable(dataContext());
}

@inline
export function fetchTlb(): usize {
  return fetchTable(load<u32>(MODE));
}
