// TLBs: 256 entries a table, direct-mapped by virtual page. An entry maps a 4 KiB page to RAM in one context; loads, stores and fetches apart, so that a
// hit needs no permission check. Contexts are the instruction set's: whatever decides about permissions without a flush selects one. MMIO never enters a
// TLB. The interpreter compares the page of the *last* byte accessed with the entry of the first: an access across a page misses.
//
// A TLB holds one address space. With ASIDs, a change of ASID is a flush (an entry holds no ASID); larger pages are held in 4 KiB fragments.
import {
  CONTEXTS, HART, HARTS, HART_STATE, HART_STATE_BYTES, LEAF_BITS, RAM_BASE_PAGE, RAM_BYTES, RAM_OFFSET, SAVED_HARTS, SUPERPAGES, SUPERPAGE_LIST, TLB,
  TLBS, TLB_BYTES, TLB_CONTEXT_BYTES, TLB_FETCH, TLB_STORE,
} from "./layout";
import { PAGE_MASK } from "./isa";

/** Host address of guest-physical `address`, or 0 if the byte is not RAM. RAM is whole pages: valid to the end of its page. */
export function hostAddress(address: u64): usize {
  const offset = address - (<u64>RAM_BASE_PAGE << 12);
  if (offset >= <u64>load<u32>(RAM_BYTES)) return 0;
  return <usize>offset + load<u32>(RAM_OFFSET);
}

/** The table of loads in a context; that of stores is TLB_STORE behind it. */
@inline
export function dataTable(context: u32): usize {
  return load<u32>(TLB) + context * TLB_CONTEXT_BYTES;
}

@inline
export function fetchTable(context: u32): usize {
  return load<u32>(TLB) + TLB_FETCH + context * TLB_STORE;
}

/** Remembers a RAM translation (of LEAF_BITS) for loads or stores. */
export function fillData(context: u32, va: u64, host: usize, access: u32): void {
  const entry = dataTable(context) + access * TLB_STORE + (<u32>(va >> 8) & 0xff0);
  store<u64>(entry, va & PAGE_MASK);
  store<u32>(entry, <u32>host - <u32>va, 8);
  store<u32>(CONTEXTS, load<u32>(CONTEXTS) | (1 << context));
  noteSuperpage(va);
}

export function fillFetch(context: u32, va: u64, decodePage: usize): void {
  const entry = fetchTable(context) + (<u32>(va >> 8) & 0xff0);
  store<u64>(entry, va & PAGE_MASK);
  store<u32>(entry, decodePage, 8);
  store<u32>(CONTEXTS, load<u32>(CONTEXTS) | (8 << context));
  noteSuperpage(va);
}

/** Remembers in which GiB there are fragments of superpages, for invalidation by address. */
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
  for (let context: u32 = 0; context < 3; context++) {
    if (used & (1 << context)) memory.fill(dataTable(context), 0xff, TLB_CONTEXT_BYTES);
  }
  store<u32>(CONTEXTS, 0);
  store<u32>(SUPERPAGES, 0);
}

/** Forgets the translations of addresses whose top bit is 0, and all of contexts 0: another address space has come in under the same kernel. */
export function flushLower(): void {
  const used = load<u32>(CONTEXTS);
  for (let context: u32 = 1; context < 3; context++) {
    if (used & (1 << context)) forgetLower(dataTable(context), TLB_CONTEXT_BYTES);
  }
  if (used & (8 << 1)) forgetLower(fetchTable(1), TLB_STORE);
  if (used & 1) memory.fill(dataTable(0), 0xff, TLB_CONTEXT_BYTES);
  if (used & 8) memory.fill(fetchTable(0), 0xff, TLB_STORE);
  store<u32>(CONTEXTS, used & ~9);
}

function forgetLower(table: usize, bytes: usize): void {
  for (let entry = table; entry < table + bytes; entry += 16) if (load<i64>(entry) >= 0) store<u64>(entry, <u64>-1);
}

/** Forgets where code is. */
export function flushFetch(): void {
  const used = load<u32>(CONTEXTS);
  for (let context: u32 = 0; context < 2; context++) {
    if (used & (8 << context)) memory.fill(fetchTable(context), 0xff, TLB_STORE);
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

/** The same on every hart. */
export function flushAddressEverywhere(va: u64): void {
  flushAddress(va);
  const running = load<u32>(HART);
  for (let hart: u32 = 0; hart < load<u32>(HARTS); hart++) {
    if (hart == running) continue;
    // what the hart knows of its superpages is in its saved state
    const state = SAVED_HARTS + hart * HART_STATE_BYTES - HART_STATE;
    if (load<u32>(state + CONTEXTS) == 0) continue;
    const count = load<u32>(state + SUPERPAGES);
    let all = count > 8;
    for (let i: u32 = 0; !all && i < count; i++) all = load<u64>(state + SUPERPAGE_LIST + i * 8) == va >> 30;
    const tables = TLBS + hart * TLB_BYTES;
    if (all) {
      memory.fill(tables, 0xff, TLB_BYTES);
      store<u32>(state + CONTEXTS, 0);
      store<u32>(state + SUPERPAGES, 0);
    } else {
      const first = tables + (<u32>(va >> 8) & 0xff0);
      for (let table: u32 = 0; table < 8; table++) store<u64>(first + table * TLB_STORE, <u64>-1);
    }
  }
}

/** Forgets every translation of every hart. */
export function flushEverywhere(): void {
  flushAll();
  const running = load<u32>(HART);
  for (let hart: u32 = 0; hart < load<u32>(HARTS); hart++) {
    if (hart == running) continue;
    const state = SAVED_HARTS + hart * HART_STATE_BYTES - HART_STATE;
    // one that holds nothing costs nothing: a guest may flush all the others as often as it likes
    if (load<u32>(state + CONTEXTS) == 0) continue;
    memory.fill(TLBS + hart * TLB_BYTES, 0xff, TLB_BYTES);
    store<u32>(state + CONTEXTS, 0);
    store<u32>(state + SUPERPAGES, 0);
  }
}
