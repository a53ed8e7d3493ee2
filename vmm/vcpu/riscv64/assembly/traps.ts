// Traps and interrupts: what happens between instructions (privileged specification, "Supervisor Trap Setup", "Supervisor Trap Handling").
import { PC } from "../../engine/assembly/layout";
import { ticks } from "../../engine/assembly/time";
import { EIDELIVERY, MODE, SCAUSE, SEPC, SIE, SSIP, SSTATUS, STIMECMP, STVAL, STVEC, TOPEI } from "./layout";
import { SSTATUS_SIE, SSTATUS_SPIE, SSTATUS_SPP } from "./translate";

const INTERRUPT: u64 = 1 << 63;

/** sip: SSIP, STIP (time ≥ stimecmp), SEIP (the IMSIC file delivers). */
export function pending(): u64 {
  let bits = <u64>load<u32>(SSIP);
  if (ticks() >= load<u64>(STIMECMP)) bits |= 1 << 5;
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
