// A core's exports in terms of the engine: the VMM prepares memory (layout.ts), calls reset() once, then run() in slices.
import { breaksHere } from "./debug";
import { dropDecodePages, enter } from "./decode-cache";
import { CONTINUE, LEAVE, STEP } from "./isa";
import {
  CHUNK, DECODE_HEAT, EXIT_BREAK, EXIT_BUDGET, EXIT_STOP, EXIT_TRANSLATE, FETCH_TABLE, HARTS, INTERVAL, LEFT, MARKED, PAGE_BASE, REMAINING, SAMPLE, SLOT, SPARE_DECODE_PAGE,
  STOP, TAIL, TLBS, TLB_BYTES, TRANSLATE, TRANSLATED, WATCH_HIT,
} from "./layout";
import { synchronise } from "./time";
import { fetchTable } from "./tlb";

/** Empties TLBs and decode cache of all harts. */
export function reset(): void {
  for (let hart: u32 = 0; hart < load<u32>(HARTS); hart++) memory.fill(TLBS + hart * TLB_BYTES, 0xff, TLB_BYTES);
  dropDecodePages();
}

/** A sample of where time goes: true when the code around SLOT has been met often enough to be translated. */
function isHot(): bool {
  const enough = load<u32>(TRANSLATE);
  if (!enough) return false;
  const page: usize = load<u32>(PAGE_BASE);
  const slot: usize = load<u32>(SLOT);
  const place = slot - page;
  if (load<u32>(TAIL) || page == SPARE_DECODE_PAGE || place >= 4096 * 4 || load<u16>(slot) == TRANSLATED) return false;
  const heat = page + DECODE_HEAT + (place >> 9);
  const count: u32 = <u32>load<u8>(heat) + 1;
  if (count > 255) return false;
  store<u8>(heat, count);
  // again, with what was decoded since or another place in the line, at 4, 16 and 64 times as many; not more often: what stays outside cannot be translated
  return count == enough || count == enough * 4 || count == enough * 16 || count == enough * 64;
}

/**
 * Runs the selected hart for at most `budget` instructions; returns an EXIT_ reason. A trap taken on a failed fetch counts as one instruction, so a
 * hart without a usable trap vector still uses up its budget.
 */
export function run<Isa>(budget: u32): u32 {
  store<u32>(REMAINING, budget);
  store<u32>(STOP, 0);
  store<u32>(WATCH_HIT, 0);
  return resume<Isa>();
}

/** Goes on after EXIT_TRANSLATE. */
export function resume<Isa>(): u32 {
  const isa = changetype<Isa>(0);
  store<u32>(CHUNK, 0);
  for (;;) {
    isa.takeInterrupt();
    if (load<u32>(STOP)) return EXIT_STOP;
    const remaining = load<u32>(REMAINING);
    if (remaining == 0) return EXIT_BUDGET;
    // What ends a chunk early (an access outside RAM, an interrupt, the budget) does not put the next sample off: code that often does is as hot as other code.
    if (load<u32>(SAMPLE) - 1 >= load<u32>(INTERVAL)) {
      store<u32>(SAMPLE, load<u32>(INTERVAL));
      store<u32>(TAIL, 0);
    }
    let chunk = min(min(remaining, isa.untilTimer()), load<u32>(SAMPLE));
    store<u32>(CHUNK, chunk);
    store<u32>(LEFT, chunk);
    const slot = enter<Isa>();
    if (slot == 0) {
      synchronise(chunk - 1);
      continue;
    }
    const marked = load<u32>(MARKED) != 0;
    if (marked) {
      if (breaksHere()) return EXIT_BREAK;
      chunk = 1;
      store<u32>(CHUNK, chunk);
      store<u32>(LEFT, chunk);
    }
    store<u32>(SLOT, slot);
    let result = CONTINUE;
    while (result == CONTINUE) {
      result = isa.execute(load<u32>(SLOT), load<u32>(LEFT));
      if (result == STEP) result = isa.step();
    }
    const left = load<u32>(LEFT);
    synchronise(left);
    if (result >= LEAVE) return result - LEAVE;
    if (load<u32>(WATCH_HIT)) return EXIT_BREAK;
    if (load<u32>(SAMPLE) == 0 && !marked && isHot()) {
      store<u32>(FETCH_TABLE, <u32>fetchTable(isa.fetchContext()));
      return EXIT_TRANSLATE;
    }
  }
  return EXIT_STOP;
}
