// Loads and stores that the interpreter's inline path gives up on.
import { RESUME } from "../../engine/assembly/isa";
import { PC, VALUE } from "../../engine/assembly/layout";
import { OUTSIDE, readMemory, writeMemory } from "../../engine/assembly/memory-access";
import { F, X } from "./layout";
import {
  FLD, FLH, FLW, FSD, FSH, FSW, LB, LBU, LH, LHU, LW, LWU, SB, SD, SH, SW,
} from "./opcodes";
import { Rv64 } from "./rv64";

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
    case SB: status = writeMemory<Rv64>(va, 1, load<u64>(<usize>X + register)); break;
    case SH: status = writeMemory<Rv64>(va, 2, load<u64>(<usize>X + register)); break;
    case SW: status = writeMemory<Rv64>(va, 4, load<u64>(<usize>X + register)); break;
    case SD: status = writeMemory<Rv64>(va, 8, load<u64>(<usize>X + register)); break;
    case FSH: status = writeMemory<Rv64>(va, 2, load<u64>(<usize>F + register)); break;
    case FSW: status = writeMemory<Rv64>(va, 4, load<u64>(<usize>F + register)); break;
    case FSD: status = writeMemory<Rv64>(va, 8, load<u64>(<usize>F + register)); break;
    default:
      status = readMemory<Rv64>(va, sizeOf(operation));
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
  return settleAccess(readMemory<Rv64>(va, 1 << ((code >> 12) & 3)), 4);
}
