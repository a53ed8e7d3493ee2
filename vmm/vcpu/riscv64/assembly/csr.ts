// Control and status registers of a supervisor without a machine or hypervisor level beneath it that it could see (privileged specification,
// "Supervisor-Level ISA"; AIA "Supervisor-level CSRs"). Everything that is not here raises illegal-instruction: machine and hypervisor CSRs,
// vector state, seed.
import { CONTINUE, RESUME } from "../../engine/assembly/isa";
import { FLOAT_FLAGS, INSTRET, PC, VALUE } from "../../engine/assembly/layout";
import { synchronise, ticks } from "../../engine/assembly/time";
import { flushAll } from "../../engine/assembly/tlb";
import {
  FEATURES, FEATURE_SV48, FEATURE_SV57, FRM, MODE, SATP, SCAUSE, SCOUNTEREN, SENVCFG, SEPC, SIE, SISELECT, SSCRATCH, SSIP, SSTATUS,
  STIMECMP, STVAL, STVEC, X,
} from "./layout";
import { claimTop, readSelected, readTop, writeSelected } from "./imsic";
import { firstInterrupt, pending } from "./traps";
import {
  SSTATUS_FS, SSTATUS_MXR, SSTATUS_SIE, SSTATUS_SPIE, SSTATUS_SPP, SSTATUS_SUM,
} from "./translate";

/** A result beside the engine's (isa.ts): raise illegal-instruction. */
export const UNDEFINED: u32 = 2;

const SSTATUS_WRITABLE: u64 = SSTATUS_SIE | SSTATUS_SPIE | SSTATUS_SPP | SSTATUS_FS | SSTATUS_SUM | SSTATUS_MXR;
const SSTATUS_UXL: u64 = 2 << 32;
const SIE_WRITABLE: u64 = 0x222;

@inline
function floatsOff(): bool {
  return (load<u64>(SSTATUS) & SSTATUS_FS) == 0;
}

@inline
function dirtyFloats(): void {
  store<u64>(SSTATUS, load<u64>(SSTATUS) | SSTATUS_FS);
}

function put(value: u64): bool {
  store<u64>(VALUE, value);
  return true;
}

/** A user-level counter: bit `bit` of scounteren opens it to U-mode. */
function counter(bit: u32, value: u64): bool {
  if (load<u32>(MODE) == 0 && !((load<u32>(SCOUNTEREN) >> bit) & 1)) return false;
  return put(value);
}

function read(number: u32): bool {
  switch (number) {
    case 0x001: return !floatsOff() && put(load<u32>(FLOAT_FLAGS));
    case 0x002: return !floatsOff() && put(load<u32>(FRM));
    case 0x003: return !floatsOff() && put((load<u32>(FRM) << 5) | load<u32>(FLOAT_FLAGS));
    case 0x100: {
      const status = load<u64>(SSTATUS);
      return put(status | SSTATUS_UXL | ((status & SSTATUS_FS) == SSTATUS_FS ? <u64>1 << 63 : 0));
    }
    case 0x104: return put(load<u64>(SIE));
    case 0x105: return put(load<u64>(STVEC));
    case 0x106: return put(load<u32>(SCOUNTEREN));
    case 0x10a: return put(load<u32>(SENVCFG));
    case 0x140: return put(load<u64>(SSCRATCH));
    case 0x141: return put(load<u64>(SEPC));
    case 0x142: return put(load<u64>(SCAUSE));
    case 0x143: return put(load<u64>(STVAL));
    case 0x144: return put(pending());
    case 0x14d: return put(load<u64>(STIMECMP));
    case 0x150: return put(load<u32>(SISELECT));
    case 0x151: return readSelected(load<u32>(SISELECT));
    case 0x15c: return put(readTop());
    case 0x180: return put(load<u64>(SATP));
    case 0xc00: return counter(0, load<u64>(INSTRET));
    case 0xc01: return counter(1, ticks());
    case 0xc02: return counter(2, load<u64>(INSTRET));
    case 0xc03: case 0xc04: case 0xc05: case 0xc06: case 0xc07: case 0xc08: case 0xc09: case 0xc0a: case 0xc0b: case 0xc0c: case 0xc0d: case 0xc0e:
    case 0xc0f: case 0xc10: case 0xc11: case 0xc12: case 0xc13: case 0xc14: case 0xc15: case 0xc16: case 0xc17: case 0xc18: case 0xc19: case 0xc1a:
    case 0xc1b: case 0xc1c: case 0xc1d: case 0xc1e: case 0xc1f:
      return counter(number & 31, 0); // Zihpm: hpmcounter3 … 31 count nothing
    case 0xdb0: { // stopi: identity in 27:16, priority 1
      const code = firstInterrupt(pending() & load<u64>(SIE));
      return put(code ? (code << 16) | 1 : 0);
    }
  }
  return false;
}

/** Writes a CSR that read() accepted. */
function write(number: u32, value: u64): u32 {
  switch (number) {
    case 0x001: store<u32>(FLOAT_FLAGS, <u32>value & 31); dirtyFloats(); return CONTINUE;
    case 0x002: store<u32>(FRM, <u32>value & 7); dirtyFloats(); return CONTINUE;
    case 0x003:
      store<u32>(FLOAT_FLAGS, <u32>value & 31);
      store<u32>(FRM, (<u32>value >> 5) & 7);
      dirtyFloats();
      return CONTINUE;
    case 0x100: return writeStatus(value & SSTATUS_WRITABLE);
    case 0x104: store<u64>(SIE, value & SIE_WRITABLE); return RESUME;
    case 0x105: // modes 2 and 3 are reserved: WARL keeps the old mode
      store<u64>(STVEC, value & 2 ? (value & ~3) | (load<u64>(STVEC) & 1) : value);
      return CONTINUE;
    case 0x106: store<u32>(SCOUNTEREN, <u32>value); return CONTINUE;
    case 0x10a: { // CBIE = 2 is reserved
      let next = <u32>value & 0xf1;
      if ((next & 0x30) == 0x20) next = (next & ~0x30) | (load<u32>(SENVCFG) & 0x30);
      store<u32>(SENVCFG, next);
      return CONTINUE;
    }
    case 0x140: store<u64>(SSCRATCH, value); return CONTINUE;
    case 0x141: store<u64>(SEPC, value & ~1); return CONTINUE;
    case 0x142: store<u64>(SCAUSE, value); return CONTINUE;
    case 0x143: store<u64>(STVAL, value); return CONTINUE;
    case 0x144: store<u32>(SSIP, <u32>value & 2); return RESUME;
    case 0x14d: store<u64>(STIMECMP, value); return RESUME;
    case 0x150: store<u32>(SISELECT, <u32>value & 0xfff); return CONTINUE;
    case 0x151: writeSelected(load<u32>(SISELECT), value); return RESUME;
    case 0x15c: claimTop(); return RESUME;
    case 0x180: return writeSatp(value);
  }
  return CONTINUE;
}

function writeStatus(next: u64): u32 {
  const old = load<u64>(SSTATUS);
  store<u64>(SSTATUS, next);
  const changed = old ^ next;
  if (changed & SSTATUS_MXR) flushAll();
  // SUM selects a TLB context; SIE may let an interrupt in
  if (changed & (SSTATUS_SUM | SSTATUS_MXR)) return RESUME;
  return next & SSTATUS_SIE && pending() & load<u64>(SIE) ? RESUME : CONTINUE;
}

/** An unsupported MODE leaves satp as it was; ASID is read-only zero. */
function writeSatp(value: u64): u32 {
  const scheme = <u32>(value >> 60);
  const features = load<u32>(FEATURES);
  const supported =
    scheme == 0 || scheme == 8 || (scheme == 9 && features & FEATURE_SV48) || (scheme == 10 && features & FEATURE_SV57);
  if (!supported) return CONTINUE;
  store<u64>(SATP, value & 0xf0000fffffffffff);
  flushAll();
  return RESUME;
}

/** csrrw, csrrs, csrrc and their immediate forms (Zicsr). `left` is the interpreter's countdown; PC is moved past it on RESUME. */
export function executeCsr(code: u32, left: u32): u32 {
  const number = code >> 20;
  const source = (code >> 15) & 31;
  const rd = (code >> 7) & 31;
  const funct3 = (code >> 12) & 7;
  const writes = (funct3 & 3) == 1 || source != 0;
  if (((number >> 8) & 3) > load<u32>(MODE)) return UNDEFINED;
  if (writes && number >> 10 == 3) return UNDEFINED;
  synchronise(left);
  if (!read(number)) return UNDEFINED;
  const old = load<u64>(VALUE);
  let result = CONTINUE;
  if (writes) {
    const operand = funct3 & 4 ? <u64>source : load<u64>(X + source * 8);
    let next = operand;
    if ((funct3 & 3) == 2) next = old | operand;
    else if ((funct3 & 3) == 3) next = old & ~operand;
    result = write(number, next);
  }
  if (rd) store<u64>(X + rd * 8, old);
  if (result == RESUME) store<u64>(PC, load<u64>(PC) + 4);
  return result;
}
