// Loads and stores the interpreter's inline path gives up on: TLB misses, accesses across a page, MMIO, faults. Also lr, sc and the AMOs.
import {
  F, LEFT, MMIO_VALUE, PC, PHYSICAL, RESERVATION, RESERVED_VALUE, VALUE, X,
} from "./layout";
import { CONTINUE, RESUME } from "./csr";
import { synchronise, trap } from "./hart-state";
import { mmio } from "./imports";
import {
  FLD, FLH, FLW, FSD, FSH, FSW, LB, LBU, LH, LHU, LW, LWU, SB, SD, SH, SW,
} from "./opcodes";
import { ACCESS_LOAD, ACCESS_STORE, fillData, hostAddress, translate } from "./translate";

/** An access left the machine's memory: interrupts, time or the budget may have changed, the interpreter must look. */
const OUTSIDE: u32 = 3;

/** Reads `size` bytes at va into VALUE, zero-extended. CONTINUE, OUTSIDE, or RESUME with a trap taken. */
function read(va: u64, size: u32): u32 {
  if ((<u32>va & 0xfff) + size > 4096) return readAcross(va, size);
  const fault = translate(va, ACCESS_LOAD);
  if (fault) {
    trap(fault, va);
    return RESUME;
  }
  const host = hostAddress(load<u64>(PHYSICAL));
  if (host == 0) return device(va, size, false, 0);
  fillData(va, host, ACCESS_LOAD);
  switch (size) {
    case 1: store<u64>(VALUE, load<u8>(host)); break;
    case 2: store<u64>(VALUE, load<u16>(host)); break;
    case 4: store<u64>(VALUE, load<u32>(host)); break;
    default: store<u64>(VALUE, load<u64>(host)); break;
  }
  return CONTINUE;
}

/** Writes the low `size` bytes of `value`. */
function write(va: u64, size: u32, value: u64): u32 {
  if ((<u32>va & 0xfff) + size > 4096) return writeAcross(va, size, value);
  const fault = translate(va, ACCESS_STORE);
  if (fault) {
    trap(fault, va);
    return RESUME;
  }
  const host = hostAddress(load<u64>(PHYSICAL));
  if (host == 0) return device(va, size, true, value);
  fillData(va, host, ACCESS_STORE);
  switch (size) {
    case 1: store<u8>(host, <u8>value); break;
    case 2: store<u16>(host, <u16>value); break;
    case 4: store<u32>(host, <u32>value); break;
    default: store<u64>(host, value); break;
  }
  return CONTINUE;
}

/** MMIO at PHYSICAL: naturally aligned accesses leave through the import, others are access faults. */
function device(va: u64, size: u32, isStore: bool, value: u64): u32 {
  const address = load<u64>(PHYSICAL);
  if (!(address & (size - 1))) {
    synchronise(load<u32>(LEFT));
    store<u64>(MMIO_VALUE, 0);
    const mask = size == 8 ? <u64>-1 : (<u64>1 << (size * 8)) - 1;
    const sent = value & mask;
    const refused = mmio(<u32>address, <u32>(address >> 32), size, isStore ? 1 : 0, <u32>sent, <u32>(sent >> 32));
    if (!refused) {
      store<u64>(VALUE, load<u64>(MMIO_VALUE) & mask);
      return OUTSIDE;
    }
  }
  trap(isStore ? 7 : 5, va);
  return RESUME;
}

/** The two RAM pages of an access across a page: both must translate before a byte moves. Returns the second host address, 0 if trapped. */
function across(va: u64, access: u32): usize {
  const second = (va | 0xfff) + 1;
  for (let part = 0; part < 2; part++) {
    const address = part == 0 ? va : second;
    const fault = translate(address, access);
    const host: usize = fault ? <usize>0 : hostAddress(load<u64>(PHYSICAL));
    if (host == 0) {
      trap(fault ? fault : access == ACCESS_STORE ? 7 : 5, address);
      return 0;
    }
    if (part == 0) store<u64>(VALUE, <u64>host);
    else return host;
  }
  return 0;
}

function readAcross(va: u64, size: u32): u32 {
  const second = across(va, ACCESS_LOAD);
  if (second == 0) return RESUME;
  const first = <usize>load<u64>(VALUE);
  const split: u32 = 4096 - (<u32>va & 0xfff);
  let value: u64 = 0;
  for (let i: u32 = 0; i < size; i++) {
    value |= <u64>load<u8>(i < split ? first + i : second + (i - split)) << (8 * i);
  }
  store<u64>(VALUE, value);
  return CONTINUE;
}

function writeAcross(va: u64, size: u32, value: u64): u32 {
  const second = across(va, ACCESS_STORE);
  if (second == 0) return RESUME;
  const first = <usize>load<u64>(VALUE);
  const split: u32 = 4096 - (<u32>va & 0xfff);
  for (let i: u32 = 0; i < size; i++) store<u8>(i < split ? first + i : second + (i - split), <u8>(value >> (8 * i)));
  return CONTINUE;
}

/**
 * Executes the load or store in `slot`. PC is its address and LEFT the countdown. CONTINUE, or RESUME: trapped, or PC moved past it because it
 * left for a device.
 */
export function slowAccess(slot: usize): u32 {
  const va = load<u64>(<usize>load<u8>(slot, 3), X) + <u64>(<i64>load<i32>(slot, 4));
  const operation = <i32>load<u16>(slot) & 0xfffe;
  const register = <usize>load<u8>(slot, 2);
  let status: u32;
  switch (operation) {
    case SB: status = write(va, 1, load<u64>(<usize>X + register)); break;
    case SH: status = write(va, 2, load<u64>(<usize>X + register)); break;
    case SW: status = write(va, 4, load<u64>(<usize>X + register)); break;
    case SD: status = write(va, 8, load<u64>(<usize>X + register)); break;
    case FSH: status = write(va, 2, load<u64>(<usize>F + register)); break;
    case FSW: status = write(va, 4, load<u64>(<usize>F + register)); break;
    case FSD: status = write(va, 8, load<u64>(<usize>F + register)); break;
    default:
      status = read(va, sizeOf(operation));
      if (status != RESUME) deliver(operation, register, load<u64>(VALUE));
  }
  return settleAccess(status, load<u16>(slot) & 1 ? 2 : 4);
}

@inline
function settleAccess(status: u32, length: u32): u32 {
  if (status != OUTSIDE) return status;
  store<u64>(PC, load<u64>(PC) + length);
  return RESUME;
}

function sizeOf(operation: i32): u32 {
  switch (operation) {
    case LB: case LBU: return 1;
    case LH: case LHU: case FLH: return 2;
    case LW: case LWU: case FLW: return 4;
    default: return 8;
  }
}

function deliver(operation: i32, register: usize, value: u64): void {
  switch (operation) {
    case LB: value = <u64>(<i64><i8>value); break;
    case LH: value = <u64>(<i64><i16>value); break;
    case LW: value = <u64>(<i64><i32>value); break;
    case FLH: store<u64>(<usize>F + register, value | 0xffffffffffff0000); return;
    case FLW: store<u64>(<usize>F + register, value | 0xffffffff00000000); return;
    case FLD: store<u64>(<usize>F + register, value); return;
  }
  store<u64>(<usize>X + register, value);
}

/** A load into x0: faults and device reads happen, the value goes nowhere. */
export function loadAway(code: u32): u32 {
  const va = load<u64>(X + ((code >> 15) & 31) * 8) + <u64>(<i64>(<i32>code >> 20));
  return settleAccess(read(va, 1 << ((code >> 12) & 3)), 4);
}

/** lr, sc and AMOs (A extension) on naturally aligned RAM; misaligned ones raise address-misaligned, others access faults. */
export function executeAtomic(code: u32): u32 {
  const rd = (code >> 7) & 31;
  const va = load<u64>(X + ((code >> 15) & 31) * 8);
  const operand = load<u64>(X + ((code >> 20) & 31) * 8);
  const wide = (code & 0x1000) != 0;
  const operation = code >> 27;
  const access = operation == 2 ? ACCESS_LOAD : ACCESS_STORE;
  if (va & (wide ? 7 : 3)) {
    trap(access == ACCESS_LOAD ? 4 : 6, va);
    return RESUME;
  }
  const fault = translate(va, access);
  const host: usize = fault ? <usize>0 : hostAddress(load<u64>(PHYSICAL));
  if (host == 0) {
    trap(fault ? fault : access == ACCESS_LOAD ? 5 : 7, va);
    return RESUME;
  }
  const old: u64 = wide ? load<u64>(host) : <u64>(<i64>load<i32>(host));
  let result = old;
  if (operation == 2) { // lr
    store<u64>(RESERVATION, <u64>host | (wide ? 1 : 0));
    store<u64>(RESERVED_VALUE, old);
  } else if (operation == 3) { // sc
    const held =
      load<u64>(RESERVATION) == (<u64>host | (wide ? 1 : 0)) && load<u64>(RESERVED_VALUE) == old;
    store<u64>(RESERVATION, <u64>-1);
    result = held ? 0 : 1;
    if (held) put(host, wide, operand);
  } else put(host, wide, wide ? combine64(operation, old, operand) : <u64>combine32(operation, <u32>old, <u32>operand));
  if (rd) store<u64>(X + rd * 8, result);
  return CONTINUE;
}

@inline
function put(host: usize, wide: bool, value: u64): void {
  if (wide) store<u64>(host, value);
  else store<u32>(host, <u32>value);
}

function combine64(operation: u32, old: u64, operand: u64): u64 {
  switch (operation) {
    case 0x00: return old + operand;
    case 0x01: return operand;
    case 0x04: return old ^ operand;
    case 0x08: return old | operand;
    case 0x0c: return old & operand;
    case 0x10: return <i64>old < <i64>operand ? old : operand;
    case 0x14: return <i64>old > <i64>operand ? old : operand;
    case 0x18: return old < operand ? old : operand;
    default: return old > operand ? old : operand;
  }
}

function combine32(operation: u32, old: u32, operand: u32): u32 {
  switch (operation) {
    case 0x00: return old + operand;
    case 0x01: return operand;
    case 0x04: return old ^ operand;
    case 0x08: return old | operand;
    case 0x0c: return old & operand;
    case 0x10: return <i32>old < <i32>operand ? old : operand;
    case 0x14: return <i32>old > <i32>operand ? old : operand;
    case 0x18: return old < operand ? old : operand;
    default: return old > operand ? old : operand;
  }
}
