// System registers by MRS and MSR (DDI 0487, D24): what they read as, what writing them does. A register's name is bits 19:5 of the instruction.
import { CONTINUE, RESUME } from "../../engine/assembly/isa";
import { NS_PER_TICK, PC } from "../../engine/assembly/layout";
import { synchronise, ticks } from "../../engine/assembly/time";
import { flushAll, flushLower } from "../../engine/assembly/tlb";
import { EC_FP, EC_SYSTEM_REGISTER, exception, pending, useStack } from "./exceptions";
import { UNDEFINED } from "./faults";
import {
  AFSR0_EL1, AFSR1_EL1, AMAIR_EL1, CNTKCTL_EL1, CNTP_CTL_EL0, CNTP_CVAL_EL0, CNTV_CTL_EL0, CNTV_CVAL_EL0, CONTEXTIDR_EL1, CPACR_EL1, CSSELR_EL1, DAIF,
  EL, ELR_EL1, ESR_EL1, FAR_EL1, FEATURES, FEATURE_CRC32, FEATURE_FP, FPCR, MAIR_EL1, MDSCR_EL1, MPIDR_EL1, NZCV, OSLSR_EL1, PAR_EL1,
  SCTLR_EL1, SP, SPSEL, SPSR_EL1, SP_EL0, TCR_EL1, TLB_HALVES, TPIDRRO_EL0, TPIDR_EL0, TPIDR_EL1, TTBR0_EL1, TTBR1_EL1, VBAR_EL1, X,
} from "./layout";
import { readStatus, writeStatus } from "./float-rules";
import { source, target } from "./slot";
import { TTBR0_HALF, TTBR1_HALF_OF_ASID } from "./translate";

/** op0 (2, 3), op1, CRn, CRm, op2. */
@inline
function name(op0: u32, op1: u32, crn: u32, crm: u32, op2: u32): u32 {
  return ((op0 & 1) << 14) | (op1 << 11) | (crn << 7) | (crm << 3) | op2;
}

@inline
function nameOf(code: u32): u32 {
  return (code >> 5) & 0x7fff;
}

/** TTBRn_EL1 without ASID and CnP. */
const TTBR_TABLE: u64 = 0x0000fffffffffffe;
const SCTLR_UMA: u64 = 1 << 9;
const SCTLR_UCT: u64 = 1 << 15;
/** Bits of SCTLR_EL1 that exist here as they are written; RES1 where no feature gives them a meaning. */
const SCTLR_WRITABLE: u64 = 0x040dd21f;
const SCTLR_RES1: u64 = 0x30d00800;

/** The word of the state that is all there is to reading the register an MRS names; 0 if more is to be done or checked than the level. */
export function directWord(code: u32): u32 {
  switch (nameOf(code)) {
    case name(3, 0, 4, 1, 0): return SP_EL0; // with SPSel = 1, which the loop looks at
    case name(3, 0, 13, 0, 4): return TPIDR_EL1;
    case name(3, 3, 13, 0, 2): return TPIDR_EL0;
    case name(3, 3, 13, 0, 3): return TPIDRRO_EL0;
  }
  return plainWord(nameOf(code));
}

/** Registers of EL1 that are read and written as they stand. */
function plainWord(register: u32): u32 {
  switch (register) {
    case name(3, 0, 4, 0, 0): return SPSR_EL1;
    case name(3, 0, 4, 0, 1): return ELR_EL1;
    case name(3, 0, 5, 2, 0): return ESR_EL1;
    case name(3, 0, 6, 0, 0): return FAR_EL1;
    case name(3, 0, 1, 0, 2): return CPACR_EL1;
    case name(3, 0, 2, 0, 0): return TTBR0_EL1;
    case name(3, 0, 2, 0, 1): return TTBR1_EL1;
    case name(3, 0, 2, 0, 2): return TCR_EL1;
    case name(3, 0, 1, 0, 0): return SCTLR_EL1;
    case name(3, 0, 5, 1, 0): return AFSR0_EL1;
    case name(3, 0, 5, 1, 1): return AFSR1_EL1;
    case name(3, 0, 7, 4, 0): return PAR_EL1;
    case name(3, 0, 10, 2, 0): return MAIR_EL1;
    case name(3, 0, 10, 3, 0): return AMAIR_EL1;
    case name(3, 0, 12, 0, 0): return VBAR_EL1;
    case name(3, 0, 13, 0, 1): return CONTEXTIDR_EL1;
    case name(3, 0, 13, 0, 4): return TPIDR_EL1;
    case name(3, 0, 14, 1, 0): return CNTKCTL_EL1;
    case name(3, 2, 0, 0, 0): return CSSELR_EL1;
    case name(2, 0, 0, 2, 2): return MDSCR_EL1;
  }
  return 0;
}

/** Traps to EL1 with the instruction's description (EC 0x18). */
export function trapSystem(code: u32): u32 {
  const iss = (((code >> 19) & 3) << 20) | (((code >> 5) & 7) << 17) | (((code >> 16) & 7) << 14) | (((code >> 12) & 15) << 10) |
    ((code & 31) << 5) | (((code >> 8) & 15) << 1) | ((code >> 21) & 1);
  exception(EC_SYSTEM_REGISTER, iss);
  return RESUME;
}

/** CPACR_EL1.FPEN lets the current level use vectors; it reads as 0 where there are none. */
export function vectorsOpen(): bool {
  const enabled = <u32>(load<u64>(CPACR_EL1) >> 20) & 3;
  return enabled == 3 || (enabled == 1 && load<u32>(EL) != 0);
}

/** CONTINUE where floating point may be used now; else the exception is taken, or it does not exist. */
export function openFloats(): u32 {
  if (!(load<u32>(FEATURES) & FEATURE_FP)) return UNDEFINED;
  if (vectorsOpen()) return CONTINUE;
  exception(EC_FP, 0x1e00000);
  return RESUME;
}

/** A counter or timer register at EL0 that CNTKCTL_EL1 has to allow. */
@inline
function timerRefused(bit: u64): bool {
  return load<u32>(EL) == 0 && !((load<u64>(CNTKCTL_EL1) >> bit) & 1);
}

export function executeMrs(code: u32, left: u32): u32 {
  const register = nameOf(code);
  const privileged = load<u32>(EL) != 0;
  let value: u64 = 0;
  switch (register) {
    case name(3, 3, 4, 2, 0): value = <u64>load<u32>(NZCV) << 28; break;
    case name(3, 3, 4, 2, 1):
      if (!privileged && !(load<u64>(SCTLR_EL1) & SCTLR_UMA)) return trapSystem(code);
      value = <u64>load<u32>(DAIF) << 6;
      break;
    case name(3, 3, 4, 4, 0): case name(3, 3, 4, 4, 1): {
      const open = openFloats();
      if (open != CONTINUE) return open;
      value = register & 1 ? readStatus() : load<u64>(FPCR);
      break;
    }
    case name(3, 3, 0, 0, 1):
      if (!privileged && !(load<u64>(SCTLR_EL1) & SCTLR_UCT)) return trapSystem(code);
      value = 0x9444c004; // lines of 64 bytes, PIPT; IDC; no DIC: decoded code hears of changes by IC IVAU
      break;
    case name(3, 3, 0, 0, 7):
      value = 4 | (!privileged && !((load<u64>(SCTLR_EL1) >> 14) & 1) ? 16 : 0); // blocks of 64 bytes; DZP
      break;
    case name(3, 3, 13, 0, 2): value = load<u64>(TPIDR_EL0); break;
    case name(3, 3, 13, 0, 3): value = load<u64>(TPIDRRO_EL0); break;
    case name(3, 3, 14, 0, 0):
      if (timerRefused(0) && timerRefused(1)) return trapSystem(code);
      value = 1_000_000_000 / <u64>load<u32>(NS_PER_TICK);
      break;
    case name(3, 3, 14, 0, 1): case name(3, 3, 14, 0, 2):
      if (timerRefused(register & 1 ? 0 : 1)) return trapSystem(code);
      synchronise(left);
      value = ticks();
      break;
    case name(3, 3, 14, 3, 0): case name(3, 3, 14, 2, 0): // TVAL
      if (timerRefused(isVirtual(register) ? 8 : 9)) return trapSystem(code);
      synchronise(left);
      value = (load<u64>(isVirtual(register) ? CNTV_CVAL_EL0 : CNTP_CVAL_EL0) - ticks()) & 0xffffffff;
      break;
    case name(3, 3, 14, 3, 1): case name(3, 3, 14, 2, 1): { // CTL
      if (timerRefused(isVirtual(register) ? 8 : 9)) return trapSystem(code);
      synchronise(left);
      const control = load<u64>(isVirtual(register) ? CNTV_CTL_EL0 : CNTP_CTL_EL0);
      const due = ticks() >= load<u64>(isVirtual(register) ? CNTV_CVAL_EL0 : CNTP_CVAL_EL0);
      value = control | (control & 1 && due ? 4 : 0);
      break;
    }
    case name(3, 3, 14, 3, 2): case name(3, 3, 14, 2, 2): // CVAL
      if (timerRefused(isVirtual(register) ? 8 : 9)) return trapSystem(code);
      value = load<u64>(isVirtual(register) ? CNTV_CVAL_EL0 : CNTP_CVAL_EL0);
      break;
    default:
      if (!privileged) return UNDEFINED;
      if (!readPrivileged(register, left)) return UNDEFINED;
      value = load<u64>(RESULT);
  }
  store<u64>(X + target(code), value);
  return CONTINUE;
}

/** TVAL, CTL, CVAL of the virtual timer have CRm 3, of the physical one 2. */
@inline
function isVirtual(register: u32): bool {
  return ((register >> 3) & 15) == 3;
}

/** Where readPrivileged leaves what it read: in the sink of the register file. */
const RESULT: usize = 0x1108;

function readPrivileged(register: u32, left: u32): bool {
  const word = plainWord(register);
  let value: u64 = 0;
  if (word) value = load<u64>(word);
  else {
    switch (register) {
      case name(3, 0, 4, 1, 0): // SP_EL0
        if (!load<u32>(SPSEL)) return false;
        value = load<u64>(SP_EL0);
        break;
      case name(3, 0, 4, 2, 0): value = load<u32>(SPSEL); break;
      case name(3, 0, 4, 2, 2): value = load<u32>(EL) << 2; break;
      case name(3, 0, 0, 0, 5): value = load<u64>(MPIDR_EL1); break;
      case name(3, 0, 12, 1, 0): // ISR_EL1
        synchronise(left);
        value = pending() ? 0x80 : 0;
        break;
      case name(2, 0, 1, 1, 4): value = load<u64>(OSLSR_EL1) | 8; break;
      case name(3, 0, 1, 0, 1): case name(2, 0, 1, 3, 4): case name(2, 0, 1, 0, 0): break; // ACTLR, OSDLR, MDRAR
      case name(3, 1, 0, 0, 0): value = 0x700fe01a; break; // CCSIDR: 32 KiB, 4 ways
      case name(3, 1, 0, 0, 1): value = 0x0a200023; break; // CLIDR: separate level 1, unified level 2
      case name(3, 1, 0, 0, 7): break; // AIDR
      default:
        if (register >> 7 == name(2, 0, 0, 0, 0) >> 7 && (register & 7) >= 4) break; // DBGBVR…DBGWCR: read as zero
        if (register >> 7 != name(3, 0, 0, 0, 0) >> 7) return false;
        value = identification((register >> 3) & 15, register & 7);
    }
  }
  store<u64>(RESULT, value);
  return true;
}

/** The identification space, CRn = 0: what is not named reads as zero (D24.2). */
function identification(crm: u32, op2: u32): u64 {
  const features = load<u32>(FEATURES);
  switch ((crm << 3) | op2) {
    case 0: return 0x000f0001; // MIDR: software
    case 0x20: // PFR0: CSV3, CSV2; EL1, EL0 in AArch64 only
      return 0x1100000000000011 | (features & FEATURE_FP ? 0 : 0xff0000);
    case 0x28: return 0x10101006; // DFR0: two breakpoints, two watchpoints; no PMU
    case 0x30: return features & FEATURE_CRC32 ? 0x10000 : 0; // ISAR0
    case 0x38: return 0x0f000022; // MMFR0: 4 KiB granule, 16-bit ASIDs, 40-bit addresses
  }
  return 0;
}

/** An access of translation that has changed: nothing that was cached holds. */
function changed(): u32 {
  flushAll();
  return next();
}

/**
 * TTBR0 and TTBR1. TLB entries hold no ASID: a new table or ASID makes those of TTBR0's half void, and those of TTBR1's that are not global. What is global there
 * holds as long as TTBR1's table does.
 */
function changeTables(word: u32, value: u64): u32 {
  const before = load<u64>(word);
  if (before == value) return CONTINUE;
  store<u64>(word, value);
  const held = load<u32>(TLB_HALVES);
  const otherKernel = word == TTBR1_EL1 && ((before ^ value) & TTBR_TABLE) != 0;
  if (otherKernel || held & TTBR1_HALF_OF_ASID) {
    store<u32>(TLB_HALVES, 0);
    flushAll();
  } else if (held & TTBR0_HALF) {
    store<u32>(TLB_HALVES, 0);
    flushLower();
  }
  return next();
}

/** Goes on behind the instruction, looking at interrupts, mode and time. */
export function next(): u32 {
  store<u64>(PC, load<u64>(PC) + 4);
  return RESUME;
}

export function executeMsr(code: u32, left: u32): u32 {
  const register = nameOf(code);
  const privileged = load<u32>(EL) != 0;
  const value = load<u64>(X + source(code));
  switch (register) {
    case name(3, 3, 4, 2, 0): store<u32>(NZCV, <u32>(value >> 28) & 15); return CONTINUE;
    case name(3, 3, 4, 2, 1):
      if (!privileged && !(load<u64>(SCTLR_EL1) & SCTLR_UMA)) return trapSystem(code);
      store<u32>(DAIF, <u32>(value >> 6) & 15);
      return next();
    case name(3, 3, 4, 4, 0): case name(3, 3, 4, 4, 1): {
      const open = openFloats();
      if (open != CONTINUE) return open;
      if (register & 1) writeStatus(value);
      else store<u64>(FPCR, value & 0x07c00000);
      return CONTINUE;
    }
    case name(3, 3, 13, 0, 2): store<u64>(TPIDR_EL0, value); return CONTINUE;
    case name(3, 3, 14, 3, 0): case name(3, 3, 14, 2, 0):
      if (timerRefused(isVirtual(register) ? 8 : 9)) return trapSystem(code);
      synchronise(left);
      store<u64>(isVirtual(register) ? CNTV_CVAL_EL0 : CNTP_CVAL_EL0, ticks() + <u64>(<i64><i32>value));
      return next();
    case name(3, 3, 14, 3, 1): case name(3, 3, 14, 2, 1):
      if (timerRefused(isVirtual(register) ? 8 : 9)) return trapSystem(code);
      synchronise(left);
      store<u64>(isVirtual(register) ? CNTV_CTL_EL0 : CNTP_CTL_EL0, value & 3);
      return next();
    case name(3, 3, 14, 3, 2): case name(3, 3, 14, 2, 2):
      if (timerRefused(isVirtual(register) ? 8 : 9)) return trapSystem(code);
      synchronise(left);
      store<u64>(isVirtual(register) ? CNTV_CVAL_EL0 : CNTP_CVAL_EL0, value);
      return next();
  }
  return privileged ? writePrivileged(register, value) : UNDEFINED;
}

function writePrivileged(register: u32, value: u64): u32 {
  switch (register) {
    case name(3, 0, 4, 1, 0): // SP_EL0
      if (!load<u32>(SPSEL)) return UNDEFINED;
      store<u64>(SP_EL0, value);
      return CONTINUE;
    case name(3, 0, 4, 2, 0): selectStack(<u32>value & 1); return CONTINUE;
    case name(3, 3, 13, 0, 3): store<u64>(TPIDRRO_EL0, value); return CONTINUE;
    case name(3, 0, 2, 0, 0): case name(3, 0, 2, 0, 1): return changeTables(plainWord(register), value);
    case name(3, 0, 2, 0, 2): case name(3, 0, 10, 2, 0): {
      const word = plainWord(register);
      if (load<u64>(word) == value) return CONTINUE;
      store<u64>(word, value);
      return changed();
    }
    case name(3, 0, 1, 0, 0):
      store<u64>(SCTLR_EL1, (value & SCTLR_WRITABLE) | SCTLR_RES1);
      return changed();
    case name(3, 0, 12, 0, 0): store<u64>(VBAR_EL1, value & ~0x7ff); return CONTINUE;
    case name(3, 0, 1, 0, 2): store<u64>(CPACR_EL1, value & (load<u32>(FEATURES) & FEATURE_FP ? 0x300000 : 0)); return next();
    case name(2, 0, 1, 0, 4): store<u64>(OSLSR_EL1, (value & 1) << 1); return CONTINUE; // OSLAR
    case name(3, 0, 1, 0, 1): case name(2, 0, 1, 3, 4): return CONTINUE; // ACTLR, OSDLR
  }
  const word = plainWord(register);
  if (word) {
    store<u64>(word, value);
    return CONTINUE;
  }
  return register >> 7 == name(2, 0, 0, 0, 0) >> 7 && (register & 7) >= 4 ? CONTINUE : UNDEFINED; // DBGBVR…DBGWCR: writes are ignored
}

export function selectStack(select: u32): void {
  useStack(load<u32>(EL), select);
  store<u32>(SPSEL, select);
}

