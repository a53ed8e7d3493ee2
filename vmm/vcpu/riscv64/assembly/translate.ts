// Address translation: satp's Bare, Sv39, Sv48, Sv57 (privileged specification, "Virtual Address Translation Process"), with hardware updating of
// A and D (Svadu), Svpbmt and Svnapot where offered. No ASIDs are implemented (satp.ASID reads 0); a TLB therefore holds one address space.
//
// A TLB entry maps a 4 KiB virtual page to RAM in one context (user, supervisor, supervisor with SUM; loads and stores apart). MMIO never
// enters a TLB. The interpreter compares the page of the *last* byte accessed with the entry of the first: an access across a page misses.
import {
  CONTEXTS, FEATURES, FEATURE_SVNAPOT, FEATURE_SVPBMT, LEAF_BITS, MODE, PHYSICAL, RAM_BASE_PAGE, RAM_BYTES,
  RAM_OFFSET, SATP, SSTATUS, SUPERPAGES, SUPERPAGE_LIST, TLB, TLB_CONTEXT_BYTES, TLB_FETCH, TLB_STORE,
} from "./layout";

export const ACCESS_LOAD: u32 = 0;
export const ACCESS_STORE: u32 = 1;
export const ACCESS_FETCH: u32 = 2;

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

export const PAGE_MASK: u64 = ~0xfff;

/** Host address of guest-physical `address`, or 0 if the byte is not RAM. RAM is whole pages: valid to the end of its page. */
export function hostAddress(address: u64): usize {
  const offset = address - (<u64>RAM_BASE_PAGE << 12);
  if (offset >= <u64>load<u32>(RAM_BYTES)) return 0;
  return <usize>offset + load<u32>(RAM_OFFSET);
}

/** Exception codes: 1/5/7 access fault, 12/13/15 page fault. */
@inline
function accessFault(access: u32): u32 {
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
  return load<u32>(TLB) + dataContext() * TLB_CONTEXT_BYTES;
}

@inline
export function fetchTlb(): usize {
  return load<u32>(TLB) + TLB_FETCH + load<u32>(MODE) * TLB_STORE;
}

/** Remembers a RAM translation (of LEAF_BITS) for loads or stores. */
export function fillData(va: u64, host: usize, access: u32): void {
  const context = dataContext();
  const entry = load<u32>(TLB) + context * TLB_CONTEXT_BYTES + access * TLB_STORE + (<u32>(va >> 8) & 0xff0);
  store<u64>(entry, va & PAGE_MASK);
  store<u32>(entry, <u32>host - <u32>va, 8);
  store<u32>(CONTEXTS, load<u32>(CONTEXTS) | (1 << context));
  noteSuperpage(va);
}

export function fillFetch(va: u64, decodePage: usize): void {
  const entry = fetchTlb() + (<u32>(va >> 8) & 0xff0);
  store<u64>(entry, va & PAGE_MASK);
  store<u32>(entry, decodePage, 8);
  store<u32>(CONTEXTS, load<u32>(CONTEXTS) | (8 << load<u32>(MODE)));
  noteSuperpage(va);
}

/** A TLB holds superpages in 4 KiB fragments; remembers in which GiB, for invalidation by address. */
function noteSuperpage(va: u64): void {
  if (load<u32>(LEAF_BITS) == 12) return;
  const key = va >> 30;
  const count = load<u32>(SUPERPAGES);
  if (count > 8) return;
  for (let i: u32 = 0; i < count; i++) if (load<u64>(SUPERPAGE_LIST + i * 8) == key) return;
  if (count < 8) store<u64>(SUPERPAGE_LIST + count * 8, key);
  store<u32>(SUPERPAGES, count + 1);
}

/** Forgets every translation of the running hart. */
export function flushAll(): void {
  flushFetch();
  const used = load<u32>(CONTEXTS);
  const tlb = load<u32>(TLB);
  for (let context: u32 = 0; context < 3; context++) {
    if (used & (1 << context)) memory.fill(tlb + context * TLB_CONTEXT_BYTES, 0xff, TLB_CONTEXT_BYTES);
  }
  store<u32>(CONTEXTS, 0);
  store<u32>(SUPERPAGES, 0);
}

/** Forgets where code is. */
export function flushFetch(): void {
  const used = load<u32>(CONTEXTS);
  const tlb = load<u32>(TLB) + TLB_FETCH;
  for (let mode: u32 = 0; mode < 2; mode++) {
    if (used & (8 << mode)) memory.fill(tlb + mode * TLB_STORE, 0xff, TLB_STORE);
  }
  store<u32>(CONTEXTS, used & 7);
}

/** Forgets the translations of one virtual address, all fragments of its superpage included. */
export function flushAddress(va: u64): void {
  const count = load<u32>(SUPERPAGES);
  let all = count > 8;
  for (let i: u32 = 0; !all && i < count; i++) all = load<u64>(SUPERPAGE_LIST + i * 8) == va >> 30;
  if (all) return flushAll();
  const first = load<u32>(TLB) + (<u32>(va >> 8) & 0xff0);
  for (let table: u32 = 0; table < 8; table++) store<u64>(first + table * TLB_STORE, <u64>-1);
}
