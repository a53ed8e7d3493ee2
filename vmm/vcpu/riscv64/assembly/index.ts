// The core's exports. The VMM prepares memory (layout.ts), calls reset() once, then run() in slices.
import { dropDecodePages, enter } from "./decode-cache";
import { execute, STEP } from "./execute";
import { pending, synchronise, takeInterrupt, untilTimer } from "./hart-state";
import { CHUNK, EXIT_BUDGET, EXIT_STOP, HARTS, LEFT, REMAINING, SIE, SLOT, STOP, TLBS, TLB_BYTES } from "./layout";
import { CONTINUE } from "./csr";
import { step } from "./step";
import { LEAVE } from "./system";

export { raiseIdentity } from "./imsic";
export { selectHart } from "./hart-state";
export { flushAll } from "./translate";
export { refetchInstructions } from "./system";

/** True if the selected hart has an interrupt pending that sie enables. */
export function interruptPending(): bool {
  return (pending() & load<u64>(SIE)) != 0;
}

/** An engine moves a function to its better compiler when it is called: no call of execute() is longer than this. */
const LONGEST: u32 = 1 << 16;

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
  store<u32>(CHUNK, 0);
  for (;;) {
    takeInterrupt();
    if (load<u32>(STOP)) return EXIT_STOP;
    const remaining = load<u32>(REMAINING);
    if (remaining == 0) return EXIT_BUDGET;
    const chunk = min(min(remaining, untilTimer()), LONGEST);
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
    synchronise(load<u32>(LEFT));
    if (result >= LEAVE) return result - LEAVE;
  }
  return EXIT_STOP;
}
