// AArch64 as the engine sees it (engine/assembly/isa.ts).
import { untilTicks } from "../../engine/assembly/time";
import { takeInterrupt } from "./exceptions";
import { execute } from "./execute";
import { abort, externalAbort } from "./faults";
import { CNTV_CTL_EL0, CNTV_CVAL_EL0, EL, MONITOR, TIMER_ROUTED, UNPRIVILEGED } from "./layout";
import { slowAccess } from "./memory-instructions";
import { ZVA } from "./opcodes";
import { step } from "./step";
import { translate } from "./translate";

@unmanaged
export class AArch64 {
  @inline offsetMask(): u32 {
    return 0xffc;
  }

  /** Contexts are the exception levels. */
  @inline dataContext(): u32 {
    return load<u32>(UNPRIVILEGED) ? 0 : load<u32>(EL);
  }

  @inline fetchContext(): u32 {
    return load<u32>(EL);
  }

  @inline translate(va: u64, access: u32): u32 {
    return translate(va, access);
  }

  @inline fault(number: u32, va: u64, access: u32): void {
    abort(number, va, access);
  }

  @inline busError(va: u64, access: u32): void {
    externalAbort(va, access);
  }

  @inline takeInterrupt(): void {
    takeInterrupt();
  }

  @inline untilTimer(): u32 {
    if (load<u32>(TIMER_ROUTED) == 0 || (load<u64>(CNTV_CTL_EL0) & 3) != 1) return 0xffffffff;
    return untilTicks(load<u64>(CNTV_CVAL_EL0));
  }

  /** The monitor is lost, as if the CPUs before had stored to the reserved bytes. */
  @inline switched(): void {
    store<u64>(MONITOR, <u64>-1);
  }

  @inline execute(slot: usize, n: u32): u32 {
    return execute(slot, n);
  }

  @inline isAccess(operation: u32): bool {
    return operation >= <u32>ZVA;
  }

  @inline access(slot: usize): u32 {
    return slowAccess(slot);
  }

  @inline slotBytes(slot: usize): u32 {
    return 16;
  }

  step(): u32 {
    return step();
  }
}
