// The core's exports. The VMM prepares memory (layout.ts), calls reset() once, then run() in slices.
import { dropDecodePages, enter } from "./decode-cache";
import { execute, STEP } from "./execute";
import { pending, synchronise, takeInterrupt, untilTimer } from "./hart-state";
import {
  CHUNK, DECODE_HEAT, EXIT_BUDGET, EXIT_STOP, EXIT_TRANSLATE, HARTS, INTERVAL, LEFT, PAGE_BASE, REMAINING, SIE, SLOT, STOP, STRADDLE_PAGE, TLBS, TLB_BYTES,
  TRANSLATE,
} from "./layout";
import { TRANSLATED } from "./opcodes";
import { CONTINUE } from "./csr";
import { step } from "./step";
import { LEAVE } from "./system";

export { raiseIdentity } from "./imsic";
export { selectHart } from "./hart-state";
export { flushAll } from "./translate";
export { dropDecodePages } from "./decode-cache";
export { executeFloat } from "./float-instructions";
export { carrylessMultiply } from "./integer";
export { refetchInstructions } from "./system";

/** True if the selected hart has an interrupt pending that sie enables. */
export function interruptPending(): bool {
  return (pending() & load<u64>(SIE)) != 0;
}

/** Where a chunk of instructions ends is a sample of where time goes: true when the code around SLOT has been met often enough to be translated. */
function isHot(): bool {
  const enough = load<u32>(TRANSLATE);
  if (!enough) return false;
  const page: usize = load<u32>(PAGE_BASE);
  const slot: usize = load<u32>(SLOT);
  const place = slot - page;
  if (page == STRADDLE_PAGE || place >= 2048 * 8 || load<u16>(slot) == TRANSLATED) return false;
  const heat = page + DECODE_HEAT + (place >> 9);
  const count: u32 = <u32>load<u8>(heat) + 1;
  if (count > 255) return false;
  store<u8>(heat, count);
  // again, with what was decoded since, at 4 and 16 times as many samples
  return count == enough || count == enough * 4 || count == enough * 16;
}


/** Empties TLBs and decode cache of all harts. */
export function reset(): void {
  for (let hart: u32 = 0; hart < load<u32>(HARTS); hart++) memory.fill(TLBS + hart * TLB_BYTES, 0xff, TLB_BYTES);
  dropDecodePages();
}

/**
 * Runs the selected hart for at most `budget` instructions; returns an EXIT_ reason. A trap taken on a failed fetch counts as one instruction, so a
 * hart without a usable trap vector still uses up its budget.
 */
export function run(budget: u32): u32 {
  store<u32>(REMAINING, budget);
  store<u32>(STOP, 0);
  return resume();
}

/** Goes on after EXIT_TRANSLATE. */
export function resume(): u32 {
  store<u32>(CHUNK, 0);
  for (;;) {
    takeInterrupt();
    if (load<u32>(STOP)) return EXIT_STOP;
    const remaining = load<u32>(REMAINING);
    if (remaining == 0) return EXIT_BUDGET;
    const chunk = min(min(remaining, untilTimer()), load<u32>(INTERVAL));
    store<u32>(CHUNK, chunk);
    store<u32>(LEFT, chunk);
    const slot = enter();
    if (slot == 0) {
      synchronise(chunk - 1);
      continue;
    }
    store<u32>(SLOT, slot);
    let result = CONTINUE;
    while (result == CONTINUE) {
      result = execute(load<u32>(SLOT), load<u32>(LEFT));
      if (result == STEP) result = step();
    }
    const left = load<u32>(LEFT);
    synchronise(left);
    if (result >= LEAVE) return result - LEAVE;
    if (left == 0 && isHot()) return EXIT_TRANSLATE;
  }
  return EXIT_STOP;
}
