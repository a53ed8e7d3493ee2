// Running translated code: what step() does at a slot marked TRANSLATED. Loads and stores that translated code leaves (a missed TLB, a device) are done
// here, too, and it goes on behind them if a block begins there: a guest that waits for a device does little else.
import { CONTINUE, PAGE_MASK, RESUME, STEP } from "./isa";
import { isJump, jumpIn, jumpRecord, keepJump } from "./jumps";
import {
  CHUNK, ENTRIES, ENTRY_BYTES, LEFT, PAGE_BASE, PAGE_VA, PC, REMAINING, SAMPLE, SLOT, STOP, TAIL, TRANSLATED, UNDONE, UNDONE_BITS,
  WATCH_HIT,
} from "./layout";
import { synchronise } from "./time";
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
    let slot: usize = load<u32>(SLOT);
    let record: usize = 0;
    if (after == left) {
      if (!wasLeft() || !isa.isAccess(<u32>load<u16>(entryOf(slot)))) return interpretOriginal<Isa>(slot, left);
      const mark = load<u64>(slot);
      const original = load<u64>(entryOf(slot));
      store<u64>(slot, original);
      const next = access<Isa>(slot, left, tlb, fetch);
      if (load<u64>(slot) == original) store<u64>(slot, mark);
      if (next == 0) return RESUME;
      slot = next;
      left = load<u32>(LEFT);
    } else if (slot != 0) {
      left = after;
      if (left != 0 && wasLeft() && isa.isAccess(<u32>load<u16>(slot))) {
        slot = access<Isa>(slot, left, tlb, fetch);
        if (slot == 0) return RESUME;
        left = load<u32>(LEFT);
      }
    } else {
      left = after;
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

/** Whether the region ended before an instruction that it would have done, rather than where it has none, or a budget. */
@inline
function wasLeft(): bool {
  return (load<u32>(UNDONE) & ((1 << UNDONE_BITS) - 1)) != 0;
}

@inline
function entryOf(slot: usize): usize {
  return ENTRIES + load<u32>(slot, 4) * ENTRY_BYTES;
}

/**
 * The load or store in `slot`, with `left` instructions left, it included. The slot to go on at, which is SLOT, with LEFT, PAGE_VA and PAGE_BASE as they are
 * there; 0: where is to be asked (RESUME).
 */
function access<Isa>(slot: usize, left: u32, tlb: usize, fetch: usize): usize {
  const isa = changetype<Isa>(0);
  const bytes = isa.slotBytes(slot);
  store<u64>(PC, load<u64>(PAGE_VA) + ((slot - load<u32>(PAGE_BASE)) >> 2));
  store<u32>(LEFT, left - 1);
  let next = slot + bytes;
  if (isa.access(slot) != CONTINUE) next = goOn<Isa>(tlb, fetch);
  if (next) store<u32>(SLOT, <u32>next);
  return next;
}

/**
 * What resume() (run.ts) does where something may have changed, for the case that nothing has: the slot at PC, in the same TLBs; 0 where that is for
 * resume() to find, which begins with the same and finds it done.
 */
function goOn<Isa>(tlb: usize, fetch: usize): usize {
  const isa = changetype<Isa>(0);
  synchronise(load<u32>(LEFT));
  if (load<u32>(STOP) | load<u32>(WATCH_HIT)) return 0;
  isa.takeInterrupt();
  const chunk = min(min(load<u32>(REMAINING), load<u32>(SAMPLE)), isa.untilTimer());
  if (chunk == 0) return 0;
  if (dataTable(isa.dataContext()) != tlb || fetchTable(isa.fetchContext()) != fetch) return 0;
  const pc = load<u64>(PC);
  const translation = fetch + place(pc);
  if (load<u64>(translation) != (pc & PAGE_MASK)) return 0;
  const page = load<u32>(translation, 8);
  store<u32>(CHUNK, chunk);
  store<u32>(LEFT, chunk);
  store<u64>(PAGE_VA, pc & PAGE_MASK);
  store<u32>(PAGE_BASE, page);
  return page + ((<u32>pc & isa.offsetMask()) << 2);
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
