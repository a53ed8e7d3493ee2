// Decoded code, kept by physical page. A decode page has a slot per halfword, filled when first executed, and copies of the 128-byte lines of
// code that slots were filled from. The copies are what keeps it honest: fence.i only counts EPOCH up and empties the fetch TLB; a page of an older
// epoch is compared with RAM, line by line, when it is entered next, and emptied if it differs. So neither stores nor device DMA need to know about
// decoded code, and, as on a machine with an instruction cache of its own, nothing between two fence.i has to notice a store.
import {
  DECODE_CODE, DECODE_EPOCH, DECODE_HEAT, DECODE_LINES, DECODE_PAGES, DECODE_PAGE_BYTES, DECODE_PHYSICAL, DECODE_POOL, DECODE_SLOTS, DECODE_USED, EPOCH, HARTS,   PAGE_BASE, PAGE_MAP, PAGE_VA, PC, PHYSICAL, RAM_BYTES, RAM_OFFSET, STRADDLE_PAGE, TLBS, TLB_BYTES, TLB_FETCH, TLB_STORE,
} from "./layout";
import { decode, illegal } from "./decode";
import { expand } from "./expand";
import { REFETCH, STRADDLE } from "./opcodes";
import { trap } from "./hart-state";
import { ACCESS_FETCH, fetchTlb, fillFetch, hostAddress, PAGE_MASK, translate } from "./translate";

function empty(page: usize): void {
  memory.fill(page, 0, 2048 * 8);
  store<u64>(page, REFETCH, 2048 * 8);
  store<u64>(page, REFETCH, 2049 * 8);
  memory.fill(page + DECODE_HEAT, 0, 32);
  store<u32>(page, 0, DECODE_LINES);
  store<u32>(page, load<u32>(EPOCH), DECODE_EPOCH);
}

/** Address of a line in RAM. */
@inline
function lineInRam(page: usize, line: u32): usize {
  return load<u32>(RAM_OFFSET) + (load<u32>(page, DECODE_PHYSICAL) << 12) + line * 128;
}

/** Copies a line unless the page holds it already. */
function copyLine(page: usize, line: u32): void {
  const held = load<u32>(page, DECODE_LINES);
  if ((held >> line) & 1) return;
  store<u32>(page, held | (1 << line), DECODE_LINES);
  const from = lineInRam(page, line);
  const to = page + DECODE_CODE + line * 128;
  for (let i: usize = 0; i < 128; i += 8) store<u64>(to + i, load<u64>(from + i));
}

/** True if a line that was decoded from is not what RAM holds. */
function differs(page: usize): bool {
  let held = load<u32>(page, DECODE_LINES);
  while (held) {
    const line: u32 = ctz(held);
    held &= held - 1;
    const now = lineInRam(page, line);
    const copy = page + DECODE_CODE + line * 128;
    for (let i: usize = 0; i < 128; i += 16) {
      if ((load<u64>(now + i) ^ load<u64>(copy + i)) | (load<u64>(now + i, 8) ^ load<u64>(copy + i, 8))) return true;
    }
  }
  return false;
}

/** Forgets all decoded code, on every hart. */
export function dropDecodePages(): void {
  memory.fill(PAGE_MAP, 0, (load<u32>(RAM_BYTES) >> 12) * 2);
  store<u32>(DECODE_USED, 0);
  for (let hart: u32 = 0; hart < load<u32>(HARTS); hart++) {
    memory.fill(TLBS + hart * TLB_BYTES + TLB_FETCH, 0xff, TLB_STORE * 2);
  }
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

/** The decode page of the virtual page of `va`, or 0 with a trap taken (PC must be where the fault is reported). */
function fetchPage(va: u64, faultAddress: u64): usize {
  const entry = fetchTlb() + (<u32>(va >> 8) & 0xff0);
  if (load<u64>(entry) == (va & PAGE_MASK)) return load<u32>(entry, 8);
  const fault = translate(va, ACCESS_FETCH);
  const host: usize = fault ? <usize>0 : hostAddress(load<u64>(PHYSICAL) & PAGE_MASK);
  if (host == 0) {
    trap(fault ? fault : 1, faultAddress);
    return 0;
  }
  const page = decodePage(host);
  fillFetch(va, page);
  return page;
}

/** Goes to PC: sets PAGE_VA and PAGE_BASE and returns the slot, or 0 with a trap taken. */
export function enter(): usize {
  const pc = load<u64>(PC);
  const page = fetchPage(pc, pc);
  if (page == 0) return 0;
  store<u64>(PAGE_VA, pc & PAGE_MASK);
  store<u32>(PAGE_BASE, page);
  return page + ((<u32>pc & 0xffe) << 2);
}

/** Fills the slot `slot` of `page`. */
export function fillSlot(slot: usize, page: usize): void {
  const offset = <u32>(slot - page) >> 2;
  copyLine(page, offset >> 7);
  if (offset < 4094) copyLine(page, (offset + 2) >> 7);
  const halfword = <u32>load<u16>(page + offset, DECODE_CODE);
  if ((halfword & 3) != 3) {
    const code = expand(halfword);
    if (code == 0) illegal(slot, halfword);
    else decode(slot, code, offset, 1);
  } else if (offset == 0xffe) store<u64>(slot, STRADDLE);
  else decode(slot, load<u32>(page + offset, DECODE_CODE), offset, 0);
}

/**
 * The 4-byte instruction at PC begins in the last halfword of a page: its second half depends on today's translation of the next page. It is
 * decoded into a spare page whose other slots look up where pc is. Returns the slot, or 0 with a trap taken (stval: the second half's address).
 */
export function straddle(page: usize): usize {
  const pc = load<u64>(PC);
  const first = <u32>load<u16>(page + 0xffe, DECODE_CODE); // before fetchPage, which may drop this page
  const next = fetchPage(pc + 2, pc + 2);
  if (next == 0) return 0;
  copyLine(next, 0);
  const code = first | (<u32>load<u16>(next, DECODE_CODE) << 16);
  for (let slot: usize = 0; slot < <usize>DECODE_SLOTS; slot++) store<u64>(<usize>STRADDLE_PAGE + slot * 8, REFETCH);
  const slot: usize = STRADDLE_PAGE + 0xffe * 4;
  decode(slot, code, 0xffe, 0);
  store<u32>(STRADDLE_PAGE + 0xffe, code, DECODE_CODE);
  store<u64>(PAGE_VA, pc & PAGE_MASK);
  store<u32>(PAGE_BASE, STRADDLE_PAGE);
  return slot;
}

/** The instruction bits at `slot` of `page`, for stval. */
export function instructionAt(slot: usize, page: usize): u64 {
  const offset = (slot - page) >> 2;
  const low = <u64>load<u16>(page + offset, DECODE_CODE);
  return (low & 3) == 3 ? low | (<u64>load<u16>(page + offset, DECODE_CODE + 2) << 16) : low;
}
