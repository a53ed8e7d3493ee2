// From an instruction to a slot: the top of the A64 encoding table (DDI 0487, C4.1), branches, and what only step() executes.
import { decodeImmediate } from "./decode-immediate";
import { decodeMemory } from "./decode-memory";
import { decodeRegister } from "./decode-register";
import {
  B, BL, BLR, BR, B_COND, CBNZ, CBNZ_W, CBZ, CBZ_W, MRS_EL0, MRS_EL1, NOP, RAW, TBNZ, TBZ, ZVA,
} from "./opcodes";
import { conditionBits, illegal, put, signedField, source, target } from "./slot";
import { directWord } from "./system-registers";

/** Decodes the instruction `code` at `offset` of its page. */
export function decode(slot: usize, code: u32, offset: u32): void {
  switch ((code >> 25) & 15) {
    case 0b1000: case 0b1001: decodeImmediate(slot, code, offset); return;
    case 0b1010: case 0b1011: decodeControl(slot, code, offset); return;
    case 0b0101: case 0b1101: decodeRegister(slot, code); return;
    case 0b0100: case 0b0110: case 0b1100: case 0b1110: decodeMemory(slot, code, offset); return;
    case 0b0111: case 0b1111: put(slot, RAW, 0, 0, 0, code); return; // floating point and Advanced SIMD
  }
  illegal(slot, code);
}

/** A branch of `distance` bytes; the operation behind `near` is the one for targets out of the page. */
function branch(slot: usize, near: u32, d: u32, n: u32, m: u32, offset: u32, distance: i64): void {
  const to = <i64>offset + distance;
  if (to >= 0 && to < 4096) put(slot, near, d, n, m, <u64>(distance << 2));
  else put(slot, near + 1, d, n, m, <u64>distance);
}

function decodeControl(slot: usize, code: u32, offset: u32): void {
  if ((code & 0x7c000000) == 0x14000000) {
    branch(slot, code >> 31 ? BL : B, 0, 0, 0, offset, signedField(code, 25, 0) << 2);
    return;
  }
  if ((code & 0x7e000000) == 0x34000000) {
    const zero: u32 = code >> 31 ? CBZ : CBZ_W;
    const other: u32 = code >> 31 ? CBNZ : CBNZ_W;
    branch(slot, code & (1 << 24) ? other : zero, 0, source(code), 0, offset, signedField(code, 23, 5) << 2);
    return;
  }
  if ((code & 0x7e000000) == 0x36000000) {
    const bit = ((code >> 19) & 31) | ((code >> 26) & 32);
    branch(slot, code & (1 << 24) ? TBNZ : TBZ, 0, source(code), bit, offset, signedField(code, 18, 5) << 2);
    return;
  }
  if ((code & 0xff000010) == 0x54000000) {
    branch(slot, B_COND, conditionBits(code & 15), 0, 0, offset, signedField(code, 23, 5) << 2);
    return;
  }
  if ((code & 0xff000000) == 0xd4000000) { // SVC, HVC, SMC, BRK, HLT
    put(slot, RAW, 0, 0, 0, code);
    return;
  }
  if ((code & 0xfe000000) == 0xd6000000) {
    decodeIndirect(slot, code);
    return;
  }
  if ((code & 0xff000000) == 0xd5000000) {
    decodeSystem(slot, code);
    return;
  }
  illegal(slot, code);
}

/** BR, BLR, RET; ERET is step()'s. */
function decodeIndirect(slot: usize, code: u32): void {
  const n = source(code >> 5);
  switch (code & 0xfffffc1f) {
    case 0xd61f0000: case 0xd65f0000: put(slot, BR, 0, n, 0, 0); return;
    case 0xd63f0000: put(slot, BLR, 0, n, 0, 0); return;
  }
  if (code == 0xd69f03e0) put(slot, RAW, 0, 0, 0, code);
  else illegal(slot, code);
}

function decodeSystem(slot: usize, code: u32): void {
  // hints: all but WFE and WFI do nothing here (C6.2: those without the feature are NOP)
  if ((code & 0xfffff01f) == 0xd503201f) {
    const hint = (code >> 5) & 127;
    put(slot, hint == 2 || hint == 3 ? RAW : NOP, 0, 0, 0, code);
    return;
  }
  // DSB, DMB, SB: memory is sequentially consistent. ISB: whatever changes translation or mode takes effect at once
  if ((code & 0xfffff09f) == 0xd503309f && ((code >> 5) & 3) != 3) {
    put(slot, NOP, 0, 0, 0, 0);
    return;
  }
  if ((code & 0xfffff0ff) == 0xd50330df) {
    put(slot, NOP, 0, 0, 0, 0);
    return;
  }
  if ((code & 0xffffffe0) == 0xd50b7420) { // DC ZVA
    put(slot, ZVA, 0, source(code), 0, code);
    return;
  }
  if (code >> 20 == 0xd53) { // MRS
    const word = directWord(code);
    if (word) {
      put(slot, (code & 0x70000) == 0x30000 ? MRS_EL0 : MRS_EL1, target(code), 0, 0, <u64>word | (<u64>code << 32));
      return;
    }
  }
  put(slot, RAW, 0, 0, 0, code);
}

