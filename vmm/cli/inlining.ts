// How much of what a function calls V8 compiles into it. A fence of a guest's IOMMU passes some seventy functions, from the store that traps to the hardware's
// queue and back; V8 compiles at most 920 bytes of bytecode into one function, so that forty of them remain calls, which are a third of the fence's time
// (each costs more than the call: its code is a few lines of the processor's cache that nothing else uses).
//
// Compiling ten times as much into one another takes half a second of a processor beside the guest. So it is for guests that have shown that they
// wait for their IOMMU over and over (KernelMachine.onManyCommands), which a boot never does: 1.2 to 1.5 times as many fences.
// What was compiled before then stays. Asked for at the start, it made a boot 1.1 to 1.3 times as long, for the translator is JavaScript, too.

import { setFlagsFromString } from "node:v8";

/** V8's flags, in bytes of bytecode: compiled into one function, with the smallest that it calls, and of one that it calls. */
export const INLINING = {
  "max-inlined-bytecode-size-cumulative": 10_000,
  "max-inlined-bytecode-size-absolute": 30_000,
  "max-inlined-bytecode-size": 2_000,
} as const;

let asked = false;

export function inlineMore(): void {
  if (asked) return;
  asked = true;
  for (const [flag, bytes] of Object.entries(INLINING)) setFlagsFromString(`--${flag}=${bytes}`);
}
