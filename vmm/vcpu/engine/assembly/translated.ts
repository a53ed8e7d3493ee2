// Running translated code: what step() does at a slot marked TRANSLATED.
import { CONTINUE, PAGE_MASK, RESUME, STEP } from "./isa";
import { CHUNK, ENTRIES, ENTRY_BYTES, LEFT, PAGE_BASE, PAGE_VA, PC, SAMPLE, SLOT, TAIL, TRANSLATED } from "./layout";
import { dataTable, fetchTable, place } from "./tlb";

/**
 * Runs translated code from its entry in `slot`, and on from region to region; `counted` instructions are left, the one at `slot` included.
 */
export function runTranslated<Isa>(first: usize, counted: u32): u32 {
  const isa = changetype<Isa>(0);
  const tlb = dataTable(isa.dataContext());
  const fetch = fetchTable(isa.fetchContext());
  let slot = first;
  let left = counted;
  for (;;) {
    const entry = ENTRIES + load<u32>(slot, 4) * ENTRY_BYTES;
    const after = call_indirect<u32>(load<u32>(entry, 8), left, load<u32>(entry, 12), tlb, fetch, load<u64>(PAGE_VA) - load<u64>(entry, 16));
    if (after == left) return interpretOriginal<Isa>(slot, entry, left);
    left = after;
    slot = load<u32>(SLOT);
    if (slot == 0) {
      const target = load<u64>(PC);
      const translation = fetch + place(target);
      if (load<u64>(translation) != (target & PAGE_MASK)) {
        store<u32>(LEFT, left);
        return RESUME;
      }
      const page = load<u32>(translation, 8);
      store<u64>(PAGE_VA, target & PAGE_MASK);
      store<u32>(PAGE_BASE, page);
      slot = page + ((<u32>target & isa.offsetMask()) << 2);
    }
    if (left == 0 || load<u16>(slot) != TRANSLATED) break;
  }
  store<u32>(LEFT, left);
  store<u32>(SLOT, slot);
  return CONTINUE;
}

/** A budget as small as that is why most blocks do not run that don't: if it ends where the next sample is due, that would say nothing. */
const FEW_LEFT: u32 = 64;

/** The instruction that a translated block begins with, when that cannot run: its budget is too small, or the instruction is slow. */
function interpretOriginal<Isa>(slot: usize, entry: usize, left: u32): u32 {
  const isa = changetype<Isa>(0);
  if (left < FEW_LEFT && load<u32>(CHUNK) == load<u32>(SAMPLE)) store<u32>(TAIL, 1);
  const mark = load<u64>(slot);
  const original = load<u64>(entry);
  store<u64>(slot, original);
  let result = isa.execute(slot, 1);
  store<u32>(LEFT, left - 1);
  if (result == STEP) result = isa.step();
  // code that the instruction changed (or dropped) is not marked again
  if (load<u64>(slot) == original) store<u64>(slot, mark);
  return result;
}
