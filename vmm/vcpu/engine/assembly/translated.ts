// Running translated code: what step() does at a slot marked TRANSLATED.
import { CONTINUE, PAGE_MASK, RESUME, STEP } from "./isa";
import { isJump, jumpIn, jumpRecord, keepJump } from "./jumps";
import { CHUNK, ENTRIES, ENTRY_BYTES, LEFT, PAGE_BASE, PAGE_VA, PC, SAMPLE, SLOT, TAIL, TRANSLATED } from "./layout";
import { dataTable, fetchTable, place } from "./tlb";

/**
 * Runs translated code from its entry in `slot`, and on from region to region; `counted` instructions are left, the one at `slot` included.
 */
export function runTranslated<Isa>(first: usize, counted: u32): u32 {
  const isa = changetype<Isa>(0);
  const tlb = dataTable(isa.dataContext());
  const fetch = fetchTable(isa.fetchContext());
  jumpIn(fetch);
  let left = counted;
  let entry = entryOf(first);
  let functionIndex = load<u32>(entry, 8);
  let block = load<u32>(entry, 12);
  let base = load<u64>(PAGE_VA) - load<u64>(entry, 16);
  for (;;) {
    const after = call_indirect<u32>(functionIndex, left, block, tlb, fetch, base);
    if (after == left) return interpretOriginal<Isa>(load<u32>(SLOT), left);
    left = after;
    let slot: usize = load<u32>(SLOT);
    let record: usize = 0;
    if (slot == 0) {
      const target = load<u64>(PC);
      record = jumpRecord(target);
      if (left && isJump(record, target)) {
        functionIndex = load<u32>(record, 16);
        block = load<u32>(record, 20);
        base = load<u64>(record, 24);
        continue;
      }
      const translation = fetch + place(target);
      if (load<u64>(translation) != (target & PAGE_MASK)) {
        store<u32>(LEFT, left);
        return RESUME;
      }
      const page = load<u32>(translation, 8);
      store<u64>(PAGE_VA, target & PAGE_MASK);
      store<u32>(PAGE_BASE, page);
      slot = page + ((<u32>target & isa.offsetMask()) << 2);
      store<u32>(SLOT, <u32>slot);
    }
    if (left == 0 || load<u16>(slot) != TRANSLATED) break;
    entry = entryOf(slot);
    functionIndex = load<u32>(entry, 8);
    block = load<u32>(entry, 12);
    base = load<u64>(PAGE_VA) - load<u64>(entry, 16);
    if (record) keepJump(record, load<u64>(PC), functionIndex, block, base);
  }
  store<u32>(LEFT, left);
  return CONTINUE;
}

@inline
function entryOf(slot: usize): usize {
  return ENTRIES + load<u32>(slot, 4) * ENTRY_BYTES;
}

/** A budget as small as that is why most blocks do not run that don't: if it ends where the next sample is due, that would say nothing. */
const FEW_LEFT: u32 = 64;

/** The instruction that the translated block at `slot` begins with, when that cannot run: its budget is too small, or the instruction is slow. */
function interpretOriginal<Isa>(slot: usize, left: u32): u32 {
  const isa = changetype<Isa>(0);
  if (left < FEW_LEFT && load<u32>(CHUNK) == load<u32>(SAMPLE)) store<u32>(TAIL, 1);
  const mark = load<u64>(slot);
  const original = load<u64>(entryOf(slot));
  store<u64>(slot, original);
  let result = isa.execute(slot, 1);
  store<u32>(LEFT, left - 1);
  if (result == STEP) result = isa.step();
  // code that the instruction changed (or dropped) is not marked again
  if (load<u64>(slot) == original) store<u64>(slot, mark);
  return result;
}
