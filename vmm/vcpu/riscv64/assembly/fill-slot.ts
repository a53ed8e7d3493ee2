// From code in a decode page's copies to its slots: compressed and 4-byte instructions, and the 4-byte one whose second half is in the next page.
import { copyLine, fetchPage } from "../../engine/assembly/decode-cache";
import { PAGE_MASK } from "../../engine/assembly/isa";
import { DECODE_CODE, PAGE_BASE, PAGE_VA, PC, REFETCH, SPARE_DECODE_PAGE } from "../../engine/assembly/layout";
import { decode, illegal } from "./decode";
import { expand } from "./expand";
import { STRADDLE } from "./opcodes";
import { Rv64 } from "./rv64";

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
 * decoded into the spare page, whose other slots look up where pc is. Returns the slot, or 0 with a trap taken (stval: the second half's address).
 */
export function straddle(page: usize): usize {
  const pc = load<u64>(PC);
  const first = <u32>load<u16>(page + 0xffe, DECODE_CODE); // before fetchPage, which may drop this page
  const next = fetchPage<Rv64>(pc + 2);
  if (next == 0) return 0;
  copyLine(next, 0);
  const code = first | (<u32>load<u16>(next, DECODE_CODE) << 16);
  const slot: usize = SPARE_DECODE_PAGE + 0xffe * 4;
  // most often it is the same loop that comes here again
  if (load<u32>(SPARE_DECODE_PAGE + 0xffe, DECODE_CODE) != code) {
    if (load<u64>(SPARE_DECODE_PAGE) != REFETCH) fillSpare();
    decode(slot, code, 0xffe, 0);
    store<u32>(SPARE_DECODE_PAGE + 0xffe, code, DECODE_CODE);
  }
  store<u64>(PAGE_VA, pc & PAGE_MASK);
  store<u32>(PAGE_BASE, SPARE_DECODE_PAGE);
  return slot;
}

/** Slots that are never filled, so once is enough. */
function fillSpare(): void {
  for (let slot: usize = 0; slot < 2050; slot++) store<u64>(<usize>SPARE_DECODE_PAGE + slot * 8, REFETCH);
}

/** The instruction bits at `slot` of `page`, for stval. */
export function instructionAt(slot: usize, page: usize): u64 {
  const offset = (slot - page) >> 2;
  const low = <u64>load<u16>(page + offset, DECODE_CODE);
  return (low & 3) == 3 ? low | (<u64>load<u16>(page + offset, DECODE_CODE + 2) << 16) : low;
}
