// Decoded code, kept by physical page. A decode page has a slot for every place an instruction can begin at, filled when first executed, and copies of
// the 128-byte lines of code that slots were filled from. The copies are what keeps it honest: refetchInstructions() only counts EPOCH up and empties
// the fetch TLB; a page of an older epoch is compared with RAM, line by line, when it is entered next, and emptied if it differs. So neither stores nor
// device DMA need to know about decoded code, and, as on a machine with an instruction cache of its own, nothing between two of the guest's fences has
// to notice a store. refetchLine() is the same for one line, at a cost that does not depend on how much is decoded.
import {
  DECODE_CODE, DECODE_EPOCH, DECODE_HEAT, DECODE_LINES, DECODE_PAGES, DECODE_PAGE_BYTES, DECODE_PHYSICAL, DECODE_POOL, DECODE_USED, DECODE_VERSION, EPOCH,
  MARKED, PAGE_BASE, PAGE_MAP, PAGE_VA, PC, PHYSICAL, RAM_BYTES, RAM_OFFSET, REFETCH, TLB_MARK,
} from "./layout";
import { codeMark } from "./debug";
import { ACCESS_FETCH, PAGE_MASK } from "./isa";
import { forgetJumps } from "./jumps";
import { fetchTable, fillFetch, flushFetch, flushFetchEverywhere, hostAddress, place } from "./tlb";

function empty(page: usize): void {
  memory.fill(page, 0, 4096 * 4);
  store<u64>(page, REFETCH, 4096 * 4);
  store<u64>(page, REFETCH, 4096 * 4 + 8);
  memory.fill(page + DECODE_HEAT, 0, 32);
  store<u32>(page, 0, DECODE_LINES);
  store<u32>(page, load<u32>(EPOCH), DECODE_EPOCH);
  store<u32>(page, load<u32>(page, DECODE_VERSION) + 1, DECODE_VERSION);
  forgetJumps();
}

/** Address of a line in RAM. */
@inline
function lineInRam(page: usize, line: u32): usize {
  return load<u32>(RAM_OFFSET) + (load<u32>(page, DECODE_PHYSICAL) << 12) + line * 128;
}

/** Copies a line unless the page holds it already: before a slot is filled from it. */
export function copyLine(page: usize, line: u32): void {
  const held = load<u32>(page, DECODE_LINES);
  if ((held >> line) & 1) return;
  store<u32>(page, held | (1 << line), DECODE_LINES);
  const from = lineInRam(page, line);
  const to = page + DECODE_CODE + line * 128;
  for (let i: usize = 0; i < 128; i += 8) store<u64>(to + i, load<u64>(from + i));
}

function lineDiffers(page: usize, line: u32): bool {
  const now = lineInRam(page, line);
  const copy = page + DECODE_CODE + line * 128;
  for (let i: usize = 0; i < 128; i += 16) {
    if ((load<u64>(now + i) ^ load<u64>(copy + i)) | (load<u64>(now + i, 8) ^ load<u64>(copy + i, 8))) return true;
  }
  return false;
}

/** True if a line that was decoded from is not what RAM holds. */
function differs(page: usize): bool {
  let held = load<u32>(page, DECODE_LINES);
  while (held) {
    const line: u32 = ctz(held);
    held &= held - 1;
    if (lineDiffers(page, line)) return true;
  }
  return false;
}

/** Forgets all decoded code, on every hart. */
export function dropDecodePages(): void {
  memory.fill(PAGE_MAP, 0, (load<u32>(RAM_BYTES) >> 12) * 2);
  store<u32>(DECODE_USED, 0);
  flushFetchEverywhere();
}

/** From here on, decode pages are compared with RAM before this hart enters them again: a fence of all code. */
export function refetchInstructions(): void {
  store<u32>(EPOCH, load<u32>(EPOCH) + 1);
  flushFetch();
}

/**
 * The code in the 128 bytes around guest-physical `address` may have changed, on every hart: if it has and was decoded, its page is emptied. The page
 * that is being executed must be entered again then (RESUME).
 */
export function refetchLine(address: u64): void {
  const host = hostAddress(address);
  if (host == 0) return;
  const index = (<u32>host - load<u32>(RAM_OFFSET)) >> 12;
  const known = <u32>load<u16>(PAGE_MAP + index * 2);
  if (!known) return;
  const page: usize = DECODE_POOL + (known - 1) * DECODE_PAGE_BYTES;
  const line = (<u32>address >> 7) & 31;
  if ((load<u32>(page, DECODE_LINES) >> line) & 1 && lineDiffers(page, line)) empty(page);
}

/** The decode page of the RAM page at host address `host`. */
function decodePage(host: usize): usize {
  const index = (<u32>host - load<u32>(RAM_OFFSET)) >> 12;
  const known = <u32>load<u16>(PAGE_MAP + index * 2);
  if (known) {
    const page: usize = DECODE_POOL + (known - 1) * DECODE_PAGE_BYTES;
    if (load<u32>(page, DECODE_EPOCH) != load<u32>(EPOCH)) {
      if (differs(page)) empty(page);
      else store<u32>(page, load<u32>(EPOCH), DECODE_EPOCH);
    }
    return page;
  }
  if (load<u32>(DECODE_USED) >= load<u32>(DECODE_PAGES)) dropDecodePages();
  const used = load<u32>(DECODE_USED) + 1;
  store<u32>(DECODE_USED, used);
  store<u16>(PAGE_MAP + index * 2, used);
  const page: usize = DECODE_POOL + (used - 1) * DECODE_PAGE_BYTES;
  store<u32>(page, index, DECODE_PHYSICAL);
  empty(page);
  return page;
}

/** The decode page of the virtual page of `va`, or 0 with a fault taken that names `va` (PC must be where it is reported). */
export function fetchPage<Isa>(va: u64): usize {
  const isa = changetype<Isa>(0);
  const entry = fetchTable(isa.fetchContext()) + place(va);
  if ((load<u64>(entry) & ~<u64>TLB_MARK) == (va & PAGE_MASK)) return load<u32>(entry, 8);
  const fault = isa.translate(va, ACCESS_FETCH);
  if (fault) {
    isa.fault(fault, va, ACCESS_FETCH);
    return 0;
  }
  const host = hostAddress(load<u64>(PHYSICAL) & PAGE_MASK);
  if (host == 0) {
    isa.busError(va, ACCESS_FETCH);
    return 0;
  }
  const page = decodePage(host);
  fillFetch(isa.fetchContext(), va, page);
  return page;
}

/** Goes to PC: sets PAGE_VA and PAGE_BASE and returns the slot, or 0 with a fault taken. */
export function enter<Isa>(): usize {
  const pc = load<u64>(PC);
  const page = fetchPage<Isa>(pc);
  if (page == 0) return 0;
  store<u32>(MARKED, <u32>codeMark(pc));
  store<u64>(PAGE_VA, pc & PAGE_MASK);
  store<u32>(PAGE_BASE, page);
  return page + ((<u32>pc & changetype<Isa>(0).offsetMask()) << 2);
}
