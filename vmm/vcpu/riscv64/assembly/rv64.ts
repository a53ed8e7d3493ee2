// RV64 as the engine sees it (engine/assembly/isa.ts).
import { untilTicks } from "../../engine/assembly/time";
import { execute } from "./execute";
import { MODE, RESERVATION, STIMECMP } from "./layout";
import { slowAccess } from "./memory-instructions";
import { LB, SD } from "./opcodes";
import { step } from "./step";
import { accessFault, dataContext, translate } from "./translate";
import { takeInterrupt, trap } from "./traps";

@unmanaged
export class Rv64 {
  /** Instructions begin at even addresses. */
  @inline offsetMask(): u32 {
    return 0xffe;
  }

  @inline dataContext(): u32 {
    return dataContext();
  }

  @inline fetchContext(): u32 {
    return load<u32>(MODE);
  }

  @inline translate(va: u64, access: u32): u32 {
    return translate(va, access);
  }

  /** A fault's number is its exception code. */
  @inline fault(code: u32, va: u64, access: u32): void {
    trap(code, va);
  }

  @inline busError(va: u64, access: u32): void {
    trap(accessFault(access), va);
  }

  @inline takeInterrupt(): void {
    takeInterrupt();
  }

  @inline untilTimer(): u32 {
    return untilTicks(load<u64>(STIMECMP));
  }

  /** The hart's reservation is lost, as if the harts before it had stored to the reserved word. */
  @inline switched(): void {
    store<u64>(RESERVATION, <u64>-1);
  }

  @inline execute(slot: usize, n: u32): u32 {
    return execute(slot, n);
  }

  @inline isAccess(operation: u32): bool {
    return operation - <u32>LB < <u32>(SD + 2 - LB);
  }

  @inline access(slot: usize): u32 {
    return slowAccess(slot);
  }

  @inline slotBytes(slot: usize): u32 {
    return load<u16>(slot) & 1 ? 8 : 16;
  }

  step(): u32 {
    return step();
  }
}
