// Advanced SIMD shifts by an immediate, and vectors of an immediate (DDI 0487, C4.1.96).
import { finish, full, lane, result, signedLane, vector } from "./lanes";
import { LANES } from "./layout";
import {
  shiftRightSigned, shiftRightUnsigned, shiftSigned, shiftSignedToUnsigned, shiftUnsigned, signedToUnsigned, toSigned, toUnsigned,
} from "./saturate";
import { finishNarrow } from "./simd-integer";

/** SSHR … UQRSHRN; the conversions among them (opcodes 28, 31) are not here. False: reserved. */
export function shiftByImmediate(code: u32, scalar: bool): bool {
  const immh = (code >> 19) & 15;
  const field = (code >> 16) & 127;
  const opcode = (code >> 11) & 31;
  const unsigned = (code >> 29) & 1;
  const q = (code >> 30) & 1;
  if (immh == 0) return false;
  const size: u32 = 31 - clz<u32>(immh);
  const bits: u32 = 8 << size;
  const right = 2 * bits - field;
  const left = field - bits;
  const n = vector(code >> 5);
  const d = vector(code);
  if (opcode >= 16) return lengthening(code, scalar, opcode, unsigned, size, right, left);
  if (scalar) {
    const saturating = opcode == 12 || opcode == 14;
    if (!saturating && size != 3) return false;
  } else if (size == 3 && !q) return false;
  const count: u32 = scalar ? 1 : (8 << q) >> size;
  for (let i: u32 = 0; i < count; i++) {
    let value: u64 = 0;
    switch (opcode) {
      case 0: case 2: case 4: case 6: { // SSHR, SSRA, SRSHR, SRSRA and unsigned
        const rounds = opcode >= 4;
        value = unsigned ? shiftRightUnsigned(lane(n, size, i), right, rounds) : <u64>shiftRightSigned(signedLane(n, size, i), right, rounds);
        if (opcode & 2) value += lane(d, size, i);
        break;
      }
      case 8: { // SRI
        if (!unsigned) return false;
        const mask = right == 64 ? 0 : full(size) >> <u64>right;
        value = (lane(d, size, i) & ~mask) | (shiftRightUnsigned(lane(n, size, i), right, false) & mask);
        break;
      }
      case 10: { // SHL, SLI
        const moved = lane(n, size, i) << <u64>left;
        value = unsigned ? moved | (lane(d, size, i) & ((<u64>1 << <u64>left) - 1)) : moved;
        break;
      }
      case 12: // SQSHLU
        if (!unsigned) return false;
        value = shiftSignedToUnsigned(signedLane(n, size, i), left, size);
        break;
      case 14: // SQSHL, UQSHL
        value = unsigned ? shiftUnsigned(lane(n, size, i), left, size, false, true) : shiftSigned(signedLane(n, size, i), left, size, false, true);
        break;
      default: return false;
    }
    result(size, i, value);
  }
  finish(code, scalar ? 1 << size : 8 << q);
  return true;
}

/** SHRN, RSHRN, SQSHRUN, SQRSHRUN 16, 17; SQSHRN, SQRSHRN and unsigned 18, 19; SSHLL, USHLL 20. */
function lengthening(code: u32, scalar: bool, opcode: u32, unsigned: u32, size: u32, right: u32, left: u32): bool {
  if (size == 3) return false;
  const n = vector(code >> 5);
  const count: u32 = scalar ? 1 : 8 >> size;
  if (opcode == 20) {
    if (scalar) return false;
    const upper = ((code >> 30) & 1) * count;
    for (let i: u32 = 0; i < count; i++) {
      result(size + 1, i, (unsigned ? lane(n, size, upper + i) : <u64>signedLane(n, size, upper + i)) << <u64>left);
    }
    finish(code, 16);
    return true;
  }
  if (opcode > 19 || (scalar && opcode < 18 && !unsigned)) return false;
  const rounds = (opcode & 1) != 0;
  for (let i: u32 = 0; i < count; i++) {
    let value: u64;
    if (opcode < 18) {
      value = unsigned
        ? signedToUnsigned(shiftRightSigned(signedLane(n, size + 1, i), right, rounds), size)
        : shiftRightUnsigned(lane(n, size + 1, i), right, rounds);
    } else {
      value = unsigned
        ? toUnsigned(shiftRightUnsigned(lane(n, size + 1, i), right, rounds), size)
        : toSigned(shiftRightSigned(signedLane(n, size + 1, i), right, rounds), size);
    }
    result(size, i, value);
  }
  finishNarrow(code, scalar, size);
  return true;
}

@inline
function repeated(value: u64, bits: u64): u64 {
  for (let width = bits; width < 64; width <<= 1) value |= value << width;
  return value;
}

/** An 8-bit floating-point immediate (VFPExpandImm) in 32 or 64 bits. */
export function expandFloat(imm8: u64, double: bool): u64 {
  const sign = imm8 >> 7;
  const b = (imm8 >> 6) & 1;
  const rest = imm8 & 63;
  if (double) return (sign << 63) | ((b ? 0x3fc : 0x400) << 52) | (rest << 48);
  return (sign << 31) | ((b ? 0x3e0 : 0x400) << 20) | (rest << 19);
}

/** MOVI, MVNI, ORR, BIC, FMOV with an immediate (AdvSIMDExpandImm). False: reserved. */
export function modifiedImmediate(code: u32): bool {
  if ((code >> 11) & 1) return false; // half precision
  const imm8 = <u64>(((code >> 11) & 0xe0) | ((code >> 5) & 31));
  const cmode = (code >> 12) & 15;
  const inverted = (code >> 29) & 1;
  const q = (code >> 30) & 1;
  let value: u64 = 0;
  if (cmode < 8) value = repeated(imm8 << <u64>((cmode >> 1) * 8), 32);
  else if (cmode < 12) value = repeated(imm8 << <u64>(((cmode >> 1) & 1) * 8), 16);
  else if (cmode < 14) value = repeated(cmode == 12 ? (imm8 << 8) | 0xff : (imm8 << 16) | 0xffff, 32);
  else if (cmode == 14) {
    if (!inverted) value = repeated(imm8, 8);
    else for (let i: u64 = 0; i < 8; i++) if ((imm8 >> i) & 1) value |= <u64>0xff << (i * 8);
  } else {
    if (inverted && !q) return false;
    value = inverted ? expandFloat(imm8, true) : repeated(expandFloat(imm8, false), 32);
  }
  const merges = (cmode & 1) != 0 && cmode < 12;
  if (inverted && cmode < 14) value = ~value;
  const d = vector(code);
  for (let half: usize = 0; half < 16; half += 8) {
    const before = load<u64>(d + half);
    store<u64>(<usize>LANES + half, !merges ? value : inverted ? before & value : before | value);
  }
  finish(code, 8 << q);
  return true;
}
