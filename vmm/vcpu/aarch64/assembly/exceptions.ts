// Exceptions to EL1 (DDI 0487, D1.3 and D24.2.40): what happens between instructions. EL1 is the highest level there is; HVC leaves to the firmware.
import { PC } from "../../engine/assembly/layout";
import { ticks } from "../../engine/assembly/time";
import {
  CNTV_CTL_EL0, CNTV_CVAL_EL0, DAIF, EL, ELR_EL1, ESR_EL1, FAR_EL1, IRQ, MONITOR, NZCV, SP, SPSEL, SPSR_EL1, SP_EL0, SP_EL1, TIMER_ROUTED, VBAR_EL1,
} from "./layout";

export const EC_UNKNOWN: u32 = 0x00;
export const EC_WFX: u32 = 0x01;
export const EC_FP: u32 = 0x07;
export const EC_ILLEGAL_STATE: u32 = 0x0e;
export const EC_SVC: u32 = 0x15;
export const EC_SYSTEM_REGISTER: u32 = 0x18;
export const EC_INSTRUCTION_ABORT: u32 = 0x20; // from EL0; + 1 from EL1
export const EC_PC_ALIGNMENT: u32 = 0x22;
export const EC_DATA_ABORT: u32 = 0x24; // from EL0; + 1 from EL1
export const EC_SP_ALIGNMENT: u32 = 0x26;
export const EC_BRK: u32 = 0x3c;

const VECTOR_SYNCHRONOUS: u64 = 0;
const VECTOR_IRQ: u64 = 0x80;
const DAIF_I: u32 = 2;
const SPSR_IL: u64 = 1 << 20;

/** Makes SP the stack pointer of level `el` with SPSel `select`. */
export function useStack(el: u32, select: u32): void {
  const was = load<u32>(EL) && load<u32>(SPSEL);
  const is = el && select;
  if (!was == !is) return;
  store<u64>(was ? SP_EL1 : SP_EL0, load<u64>(SP));
  store<u64>(SP, load<u64>(is ? SP_EL1 : SP_EL0));
}

/** PSTATE as SPSR_EL1 holds it. */
export function packState(): u64 {
  const mode: u64 = load<u32>(EL) ? 4 | load<u32>(SPSEL) : 0;
  return (<u64>load<u32>(NZCV) << 28) | (<u64>load<u32>(DAIF) << 6) | mode;
}

function enter(vector: u64, state: u64): void {
  const from = load<u32>(EL) == 0 ? <u64>0x400 : load<u32>(SPSEL) ? <u64>0x200 : 0;
  store<u64>(SPSR_EL1, state);
  store<u64>(ELR_EL1, load<u64>(PC));
  useStack(1, 1);
  store<u32>(EL, 1);
  store<u32>(SPSEL, 1);
  store<u32>(DAIF, 15);
  store<u64>(PC, load<u64>(VBAR_EL1) + from + vector);
}

/** A synchronous exception at PC: class and ISS, an instruction of 32 bits. */
export function exception(ec: u32, iss: u32): void {
  store<u64>(ESR_EL1, (<u64>ec << 26) | (1 << 25) | <u64>iss);
  enter(VECTOR_SYNCHRONOUS, packState());
}

/** The same with an address. */
export function addressException(ec: u32, iss: u32, address: u64): void {
  store<u64>(FAR_EL1, address);
  exception(ec, iss);
}

/** Sets PC; where no instruction can begin the exception is taken at once, with that as its pc. */
export function goTo(address: u64): void {
  store<u64>(PC, address);
  if (address & 3) addressException(EC_PC_ALIGNMENT, 0, address);
}

/** ERET. A state that cannot be returned to leaves the level as it is and is an exception of its own at the address (D1.4.3). */
export function returnFromException(): void {
  const state = load<u64>(SPSR_EL1);
  const mode = <u32>state & 31;
  const legal = mode == 0 || mode == 4 || mode == 5;
  store<u32>(NZCV, <u32>(state >> 28) & 15);
  store<u32>(DAIF, <u32>(state >> 6) & 15);
  store<u64>(MONITOR, <u64>-1);
  if (legal) {
    const el = mode >> 2;
    const select: u32 = el ? mode & 1 : 0;
    useStack(el, select);
    store<u32>(EL, el);
    store<u32>(SPSEL, select);
  }
  const to = load<u64>(ELR_EL1);
  store<u64>(PC, to);
  if (!legal || state & SPSR_IL) {
    store<u64>(ESR_EL1, (<u64>EC_ILLEGAL_STATE << 26) | (1 << 25));
    enter(VECTOR_SYNCHRONOUS, packState() | SPSR_IL);
  } else if (to & 3) addressException(EC_PC_ALIGNMENT, 0, to);
}

/** The virtual timer's condition; its interrupt is that unless it is masked or the timer is off. */
export function timerFires(): bool {
  return (load<u64>(CNTV_CTL_EL0) & 3) == 1 && ticks() >= load<u64>(CNTV_CVAL_EL0);
}

/** What the interrupt controller signals to this CPU, the timer's share counted here: that is exact to the instruction. */
export function pending(): bool {
  return load<u32>(IRQ) != 0 || (load<u32>(TIMER_ROUTED) != 0 && timerFires());
}

/** Takes an interrupt if one is pending and not masked; exact only right after synchronise(). */
export function takeInterrupt(): void {
  if (load<u32>(DAIF) & DAIF_I || !pending()) return;
  enter(VECTOR_IRQ, packState());
}
