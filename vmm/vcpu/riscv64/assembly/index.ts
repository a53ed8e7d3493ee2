// The core's exports.
import * as engine from "../../engine/assembly/run";
import * as time from "../../engine/assembly/time";
import { SIE } from "./layout";
import { Rv64 } from "./rv64";
import { pending } from "./traps";

export { refetchInstructions } from "../../engine/assembly/decode-cache";
export { markTlbs } from "../../engine/assembly/debug";
export { forgetJumps } from "../../engine/assembly/jumps";
export { reset } from "../../engine/assembly/run";
export { flushAll } from "../../engine/assembly/tlb";
export { executeFloat } from "./float-instructions";
export { raiseIdentity } from "./imsic";
export { carrylessMultiply } from "./integer";

export function run(budget: u32): u32 {
  return engine.run<Rv64>(budget);
}

export function resume(): u32 {
  return engine.resume<Rv64>();
}

export function selectHart(index: u32): void {
  time.selectHart<Rv64>(index);
}

/** True if the selected hart has an interrupt pending that sie enables. */
export function interruptPending(): bool {
  return (pending() & load<u64>(SIE)) != 0;
}
