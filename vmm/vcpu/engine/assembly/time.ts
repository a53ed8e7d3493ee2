// Virtual time, budgets, and the switch between harts.
//
// Time is global: NOW + instructions executed since the last synchronisation × NS_PER_INSTRUCTION. The interpreter counts down; synchronise() turns
// the countdown into time. The architecture's timer counts that in ticks.
import {
  CHUNK, EXECUTED, HART, HART_STATE, HART_STATE_BYTES, INSTRET, NOW, NS_PER_INSTRUCTION, NS_PER_TICK, REMAINING, SAMPLE, SAVED_HARTS, TLB, TLBS, TLB_BYTES,
} from "./layout";

/** Brings NOW, the counters and the budget up to date; `left` is the interpreter's countdown. */
export function synchronise(left: u32): void {
  const executed = load<u32>(CHUNK) - left;
  store<u32>(CHUNK, left);
  const remaining = load<u32>(REMAINING);
  store<u32>(REMAINING, remaining > executed ? remaining - executed : 0);
  store<u32>(SAMPLE, load<u32>(SAMPLE) - executed);
  store<u64>(NOW, load<u64>(NOW) + <u64>executed * <u64>load<u32>(NS_PER_INSTRUCTION));
  store<u64>(INSTRET, load<u64>(INSTRET) + executed);
  store<u64>(EXECUTED, load<u64>(EXECUTED) + executed);
}

/** Ticks of the timer as of the last synchronisation. */
export function ticks(): u64 {
  return load<u64>(NOW) / <u64>load<u32>(NS_PER_TICK);
}

/** Instructions until ticks() reaches `compare`, at least 1; 2³² − 1 if it has been reached already or is further away than that. */
export function untilTicks(compare: u64): u32 {
  const tick = <u64>load<u32>(NS_PER_TICK);
  // a product of more bits than there are; divisions take longer than the rest of it
  const spare = clz(compare) + clz(tick);
  if (spare < 63 || (spare == 63 && compare > <u64>-1 / tick)) return 0xffffffff;
  const due = compare * tick;
  const now = load<u64>(NOW);
  if (due <= now) return 0xffffffff;
  const step = <u64>load<u32>(NS_PER_INSTRUCTION);
  const away = due - now - 1;
  if (away >= step * 0xfffffffe) return 0xffffffff;
  return <u32>(away / step) + 1;
}

/** Makes hart `index` the running one. */
export function selectHart<Isa>(index: u32): void {
  const current = load<u32>(HART);
  if (current == index) return;
  memory.copy(SAVED_HARTS + current * HART_STATE_BYTES, HART_STATE, HART_STATE_BYTES);
  memory.copy(HART_STATE, SAVED_HARTS + index * HART_STATE_BYTES, HART_STATE_BYTES);
  store<u32>(HART, index);
  store<u32>(TLB, TLBS + index * TLB_BYTES);
  changetype<Isa>(0).switched();
}
