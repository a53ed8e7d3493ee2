// The core's exports.
import * as engine from "../../engine/assembly/run";
import * as time from "../../engine/assembly/time";
import { AArch64 } from "./aarch64";
import { pending } from "./exceptions";

export { dropDecodePages, refetchInstructions } from "../../engine/assembly/decode-cache";
export { reset } from "../../engine/assembly/run";
export { flushAll } from "../../engine/assembly/tlb";
export { timerFires } from "./exceptions";

export function run(budget: u32): u32 {
  return engine.run<AArch64>(budget);
}

export function resume(): u32 {
  return engine.resume<AArch64>();
}

export function selectHart(index: u32): void {
  time.selectHart<AArch64>(index);
}

/** True if the selected CPU is signalled an interrupt, masked or not. */
export function interruptPending(): bool {
  return pending();
}
