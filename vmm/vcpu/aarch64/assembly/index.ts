// The core's exports.
import * as engine from "../../engine/assembly/run";
import * as time from "../../engine/assembly/time";
import { AArch64 } from "./aarch64";
import { CONTINUE } from "../../engine/assembly/isa";
import { flagsOfDifference, flagsOfLogic, flagsOfSum, flagsWithCarry, flagsWithCarryWord } from "./arithmetic";
import { pending } from "./exceptions";
import { executeSimd } from "./simd";
import { vectorsOpen } from "./system-registers";

export { refetchInstructions } from "../../engine/assembly/decode-cache";
export { markTlbs } from "../../engine/assembly/debug";
export { forgetJumps } from "../../engine/assembly/jumps";
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

/** Flags of a sum (2), a difference (1) or a logical result (3) of 64 bits, for translated code (translator/flags.ts). */
export function packFlags(kind: u64, a: u64, b: u64): u64 {
  return kind == 1 ? flagsOfDifference(a, b) : kind == 2 ? flagsOfSum(a, b) : flagsOfLogic(a);
}

/** Flags of a + b + carry, 64 bits or 32. */
export function packCarry(a: u64, b: u64, carry: u64, wide: u32): u64 {
  return wide ? flagsWithCarry(a, b, carry) : flagsWithCarryWord(<u32>a, <u32>b, <u32>carry);
}

/** The vector instruction `code`, where vectors may be used; 0 where they may not, or it does not exist: nothing has happened then. */
export function executeVector(code: u32): u32 {
  return vectorsOpen() && executeSimd(code) == CONTINUE ? 1 : 0;
}

/** True if the selected CPU is signalled an interrupt, masked or not. */
export function interruptPending(): bool {
  return pending();
}
