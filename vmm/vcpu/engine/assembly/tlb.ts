// TLBs: 1024 entries a table, direct-mapped by a fold of the virtual page's number. An entry maps a 4 KiB page to RAM in one context; loads, stores and fetches apart, so that
// a hit needs no permission check. Contexts are the instruction set's: whatever decides about permissions without a flush selects one. MMIO never enters
// a TLB. The interpreter compares the page of the *last* byte accessed with the entry of the first: an access across a page misses.
//
// A TLB holds one address space. With ASIDs, a change of ASID is a flush (an entry holds no ASID); larger pages are held in 4 KiB fragments. TLB_USED
// says which groups of entries were filled since: a flush costs what has been filled, not what there is.
import {
  HART, HARTS, HART_STATE, HART_STATE_BYTES, LEAF_BITS, RAM_BASE_PAGE, RAM_BYTES, RAM_OFFSET, SAVED_HARTS, SUPERPAGES, SUPERPAGE_LIST, TLB, TLBS,
  TLB_BYTES, TLB_CONTEXT_BYTES, TLB_FETCH, TLB_FOLD, TLB_INDEX, TLB_STORE, TLB_TABLES, TLB_USED,
} from "./layout";
import { codeMark, dataMark } from "./debug";
import { PAGE_MASK } from "./isa";
import { forgetJumps } from "./jumps";

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

/**
 * Where a virtual page's entry is in its table. Bits 23 to 31 are folded in: a stack and a heap that are the same distance from multiples of 4 MiB are
 * mostly not in each other's way. Bit 21 is what it is, so that two neighbours never share a place, whatever carries between their numbers: else an access
 * across them would hit by its last byte's page alone.
 */
@inline
export function place(va: u64): u32 {
  const low = <u32>va;
  return ((low ^ (low >> TLB_FOLD)) >> 8) & TLB_INDEX;
}

const TABLE_FETCH: u32 = 6;
const GROUP_BYTES: u32 = 256;

@inline
function fill(table: u32, va: u64, target: u32, mark: u64): void {
  const entry = load<u32>(TLB) + table * TLB_STORE + place(va);
  store<u64>(entry, (va & PAGE_MASK) | mark);
  store<u32>(entry, target, 8);
  const used = TLB_USED + table * 8;
  store<u64>(used, load<u64>(used) | (<u64>1 << <u64>(place(va) >> 8)));
  noteSuperpage(va);
}

/** Remembers a RAM translation (of LEAF_BITS) for loads or stores. */
export function fillData(context: u32, va: u64, host: usize, access: u32): void {
  fill(context * 2 + access, va, <u32>host - <u32>va, dataMark(host));
}

export function fillFetch(context: u32, va: u64, decodePage: usize): void {
  if (load<u64>(fetchTable(context) + place(va)) != <u64>-1) forgetJumps();
  fill(TABLE_FETCH + context, va, <u32>decodePage, codeMark(va));
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

/** Empties a table; `tables` and `used` are a hart's TLBs and TLB_USED. */
function empty(tables: usize, used: usize, table: u32): void {
  let groups = load<u64>(used + table * 8);
  if (table >= TABLE_FETCH && groups) forgetJumps();
  const first = tables + table * TLB_STORE;
  while (groups) {
    const group = first + <u32>ctz(groups) * GROUP_BYTES;
    groups &= groups - 1;
    for (let entry = group; entry < group + GROUP_BYTES; entry += 16) store<u64>(entry, <u64>-1);
  }
  store<u64>(used + table * 8, 0);
}

function emptyAll(tables: usize, used: usize): void {
  for (let table: u32 = 0; table < <u32>TLB_TABLES; table++) empty(tables, used, table);
}

/** TLB_USED and its like in the saved state of another hart. */
@inline
function saved(hart: u32, field: u32): usize {
  return SAVED_HARTS + hart * HART_STATE_BYTES + field - HART_STATE;
}

function holdsNothing(used: usize): bool {
  let any: u64 = 0;
  for (let table: u32 = 0; table < <u32>TLB_TABLES; table++) any |= load<u64>(used + table * 8);
  return any == 0;
}

/** Forgets every translation of the running hart. */
export function flushAll(): void {
  emptyAll(load<u32>(TLB), TLB_USED);
  store<u32>(SUPERPAGES, 0);
}

/** Forgets the translations of addresses whose top bit is 0, and all of contexts 0: another address space has come in under the same kernel. */
export function flushLower(): void {
  const tables: usize = load<u32>(TLB);
  empty(tables, TLB_USED, 0);
  empty(tables, TLB_USED, 1);
  for (let table: u32 = 2; table < TABLE_FETCH; table++) emptyLower(tables, table);
  empty(tables, TLB_USED, TABLE_FETCH);
  emptyLower(tables, TABLE_FETCH + 1);
}

function emptyLower(tables: usize, table: u32): void {
  const used = TLB_USED + table * 8;
  let groups = load<u64>(used);
  if (table >= TABLE_FETCH && groups) forgetJumps();
  let left: u64 = 0;
  while (groups) {
    const bit = ctz(groups);
    groups &= groups - 1;
    const group = tables + table * TLB_STORE + <u32>bit * GROUP_BYTES;
    for (let entry = group; entry < group + GROUP_BYTES; entry += 16) {
      const page = load<u64>(entry);
      if (<i64>page >= 0) store<u64>(entry, <u64>-1);
      else if (page != <u64>-1) left |= <u64>1 << bit;
    }
  }
  store<u64>(used, left);
}

/** Forgets where code is. */
export function flushFetch(): void {
  const tables: usize = load<u32>(TLB);
  empty(tables, TLB_USED, TABLE_FETCH);
  empty(tables, TLB_USED, TABLE_FETCH + 1);
}

/** The same on every hart. */
export function flushFetchEverywhere(): void {
  flushFetch();
  const running = load<u32>(HART);
  for (let hart: u32 = 0; hart < load<u32>(HARTS); hart++) {
    if (hart == running) continue;
    const tables = TLBS + hart * TLB_BYTES;
    empty(tables, saved(hart, TLB_USED), TABLE_FETCH);
    empty(tables, saved(hart, TLB_USED), TABLE_FETCH + 1);
  }
}

/** Whether fragments of superpages are held in the GiB of `va`, by a hart's list. */
function inSuperpages(va: u64, superpages: usize, list: usize): bool {
  const count = load<u32>(superpages);
  if (count > 8) return true;
  for (let i: u32 = 0; i < count; i++) if (load<u64>(list + i * 8) == va >> 30) return true;
  return false;
}

function emptyPage(tables: usize, va: u64): void {
  const first = tables + place(va);
  const code = first + TABLE_FETCH * TLB_STORE;
  if ((load<u64>(code) & load<u64>(code, TLB_STORE)) != <u64>-1) forgetJumps();
  for (let table: u32 = 0; table < <u32>TLB_TABLES; table++) store<u64>(first + table * TLB_STORE, <u64>-1);
}

/** Forgets the translations of one virtual address, all fragments of its superpage included. */
export function flushAddress(va: u64): void {
  if (inSuperpages(va, SUPERPAGES, SUPERPAGE_LIST)) flushAll();
  else emptyPage(load<u32>(TLB), va);
}

/** The same on every hart. */
export function flushAddressEverywhere(va: u64): void {
  flushAddress(va);
  const running = load<u32>(HART);
  for (let hart: u32 = 0; hart < load<u32>(HARTS); hart++) {
    if (hart == running || holdsNothing(saved(hart, TLB_USED))) continue;
    if (inSuperpages(va, saved(hart, SUPERPAGES), saved(hart, SUPERPAGE_LIST))) flushOther(hart);
    else emptyPage(TLBS + hart * TLB_BYTES, va);
  }
}

function flushOther(hart: u32): void {
  emptyAll(TLBS + hart * TLB_BYTES, saved(hart, TLB_USED));
  store<u32>(saved(hart, SUPERPAGES), 0);
}

/** Forgets every translation of every hart. */
export function flushEverywhere(): void {
  flushAll();
  const running = load<u32>(HART);
  for (let hart: u32 = 0; hart < load<u32>(HARTS); hart++) {
    // one that holds nothing costs next to nothing: a guest may flush all the others as often as it likes
    if (hart != running && !holdsNothing(saved(hart, TLB_USED))) flushOther(hart);
  }
}
