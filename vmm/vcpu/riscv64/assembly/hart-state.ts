// Traps, interrupts, time and the switch between harts: what happens between instructions.
//
// Time is virtual and global: NOW + instructions executed since the last synchronisation × NS_PER_INSTRUCTION. The interpreter counts down;
// synchronise() turns the countdown into time. A guest's `time` CSR is that in ticks.
import {
  CHUNK, EIDELIVERY, EXECUTED, HART, HART_STATE, HART_STATE_BYTES, INSTRET, MODE, NOW, NS_PER_INSTRUCTION, NS_PER_TICK, PC, REMAINING,
  RESERVATION, SAVED_HARTS, SCAUSE, SEPC, SIE, SSIP, SSTATUS, STIMECMP, STVAL, STVEC, TLB, TLBS, TLB_BYTES, TOPEI,
} from "./layout";
import { SSTATUS_SIE, SSTATUS_SPIE, SSTATUS_SPP } from "./translate";

const INTERRUPT: u64 = 1 << 63;

/** Brings NOW, the counters and the budget up to date; `left` is the interpreter's countdown. */
export function synchronise(left: u32): void {
  const executed = load<u32>(CHUNK) - left;
  store<u32>(CHUNK, left);
  const remaining = load<u32>(REMAINING);
  store<u32>(REMAINING, remaining > executed ? remaining - executed : 0);
  store<u64>(NOW, load<u64>(NOW) + <u64>executed * <u64>load<u32>(NS_PER_INSTRUCTION));
  store<u64>(INSTRET, load<u64>(INSTRET) + executed);
  store<u64>(EXECUTED, load<u64>(EXECUTED) + executed);
}

/** The `time` CSR as of the last synchronisation. */
export function time(): u64 {
  return load<u64>(NOW) / <u64>load<u32>(NS_PER_TICK);
}

/** Instructions until stimecmp is reached, at least 1; 2³² − 1 if it has been reached already or is further away than that. */
export function untilTimer(): u32 {
  const compare = load<u64>(STIMECMP);
  const tick = <u64>load<u32>(NS_PER_TICK);
  if (compare > <u64>-1 / tick) return 0xffffffff;
  const due = compare * tick;
  const now = load<u64>(NOW);
  if (due <= now) return 0xffffffff;
  const step = <u64>load<u32>(NS_PER_INSTRUCTION);
  const count = (due - now - 1) / step + 1;
  return count < 0xffffffff ? <u32>count : 0xffffffff;
}

/** sip: SSIP, STIP (time ≥ stimecmp), SEIP (the IMSIC file delivers). */
export function pending(): u64 {
  let bits = <u64>load<u32>(SSIP);
  if (time() >= load<u64>(STIMECMP)) bits |= 1 << 5;
  if (load<u32>(TOPEI) && load<u32>(EIDELIVERY) == 1) bits |= 1 << 9;
  return bits;
}

/** The code of the interrupt that comes first among `bits`: external 9, software 1, timer 5; 0 if none. */
@inline
export function firstInterrupt(bits: u64): u64 {
  if (bits & (1 << 9)) return 9;
  if (bits & (1 << 1)) return 1;
  return bits & (1 << 5) ? 5 : 0;
}

function enterSupervisor(cause: u64, value: u64, target: u64): void {
  const status = load<u64>(SSTATUS);
  let next = status & ~(SSTATUS_SIE | SSTATUS_SPIE | SSTATUS_SPP);
  if (status & SSTATUS_SIE) next |= SSTATUS_SPIE;
  if (load<u32>(MODE)) next |= SSTATUS_SPP;
  store<u64>(SSTATUS, next);
  store<u64>(SEPC, load<u64>(PC));
  store<u64>(SCAUSE, cause);
  store<u64>(STVAL, value);
  store<u32>(MODE, 1);
  store<u64>(PC, target);
}

/** Takes an exception at PC. */
export function trap(cause: u32, value: u64): void {
  enterSupervisor(cause, value, load<u64>(STVEC) & ~3);
}

/** Takes an interrupt if one is pending and enabled; exact only right after synchronise(). */
export function takeInterrupt(): void {
  const enabled = pending() & load<u64>(SIE);
  if (!enabled) return;
  if (load<u32>(MODE) && !(load<u64>(SSTATUS) & SSTATUS_SIE)) return;
  const code = firstInterrupt(enabled);
  const vector = load<u64>(STVEC);
  enterSupervisor(INTERRUPT | code, 0, (vector & ~3) + (vector & 1 ? code * 4 : 0));
}

/** Makes hart `index` the running one. Its reservation is lost, as if the harts before it had stored to the reserved word. */
export function selectHart(index: u32): void {
  const current = load<u32>(HART);
  if (current == index) return;
  memory.copy(SAVED_HARTS + current * HART_STATE_BYTES, HART_STATE, HART_STATE_BYTES);
  memory.copy(HART_STATE, SAVED_HARTS + index * HART_STATE_BYTES, HART_STATE_BYTES);
  store<u32>(HART, index);
  store<u32>(TLB, TLBS + index * TLB_BYTES);
  store<u64>(RESERVATION, <u64>-1);
}
