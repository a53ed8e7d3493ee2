// Advanced SIMD on integer lanes: "three same", "two-register miscellaneous", "across lanes", pairwise (DDI 0487, C4.1.96). A scalar form is a vector of one lane.
import { countSigns } from "./arithmetic";
import { finish, lane, result, signedLane, signedOf, vector } from "./lanes";
import { LANES } from "./layout";
import {
  addSigned, addSignedToUnsigned, addUnsigned, addUnsignedToSigned, doublingHigh, shiftSigned, shiftUnsigned, signedToUnsigned,
  subtractSigned, subtractUnsigned, toSigned, toUnsigned,
} from "./saturate";

/** Bytes of the operands, and thus of the result: 8 << Q, or one lane. */
@inline
function bytesOf(code: u32, scalar: bool, size: u32): u32 {
  return scalar ? 1 << size : 8 << ((code >> 30) & 1);
}

/** AND, BIC, ORR, ORN; EOR, BSL, BIT, BIF. */
function logical(code: u32): void {
  const d = vector(code);
  const n = vector(code >> 5);
  const m = vector(code >> 16);
  const which = ((code >> 27) & 4) | ((code >> 22) & 3);
  for (let half: usize = 0; half < 16; half += 8) {
    const a = load<u64>(n + half);
    const b = load<u64>(m + half);
    const c = load<u64>(d + half);
    let r: u64 = 0;
    switch (which) {
      case 0: r = a & b; break;
      case 1: r = a & ~b; break;
      case 2: r = a | b; break;
      case 3: r = a | ~b; break;
      case 4: r = a ^ b; break;
      case 5: r = b ^ ((b ^ a) & c); break;
      case 6: r = c ^ ((c ^ a) & b); break;
      case 7: r = c ^ ((c ^ a) & ~b); break;
    }
    store<u64>(<usize>LANES + half, r);
  }
  finish(code, 8 << ((code >> 30) & 1));
}

/** Three same, opcodes below 11000. False: reserved. */
export function threeSame(code: u32, scalar: bool): bool {
  const opcode = (code >> 11) & 31;
  if (opcode == 3) {
    if (scalar) return false;
    logical(code);
    return true;
  }
  const unsigned = (code >> 29) & 1;
  const size = (code >> 22) & 3;
  const bytes = bytesOf(code, scalar, size);
  if (scalar) {
    // of 64 bits only, but for saturating ones
    const any = opcode == 1 || opcode == 5 || opcode == 9 || opcode == 11;
    const only64 = opcode == 6 || opcode == 7 || opcode == 8 || opcode == 10 || opcode == 16 || opcode == 17;
    if (!any && opcode != 22 && !(only64 && size == 3)) return false;
  } else if (size == 3 && bytes == 8) return false;
  // widths that do not exist
  switch (opcode) {
    case 0: case 2: case 4: case 12: case 13: case 14: case 15: case 18: case 20: case 21:
      if (size == 3) return false;
      break;
    case 19:
      if (unsigned ? size != 0 : size == 3) return false;
      break;
    case 22:
      if (size == 0 || size == 3) return false;
      break;
    case 23:
      if (unsigned) return false;
      break;
  }
  const n = vector(code >> 5);
  const m = vector(code >> 16);
  const count = bytes >> size;
  if (opcode == 20 || opcode == 21 || opcode == 23) {
    pairwise(opcode, unsigned, size, n, m, count);
    finish(code, bytes);
    return true;
  }
  const d = vector(code);
  for (let i: u32 = 0; i < count; i++) {
    const value = unsigned
      ? unsignedOperation(opcode, size, lane(n, size, i), lane(m, size, i), lane(d, size, i))
      : signedOperation(opcode, size, signedLane(n, size, i), signedLane(m, size, i), signedLane(d, size, i));
    result(size, i, value);
  }
  finish(code, bytes);
  return true;
}

function signedOperation(opcode: u32, size: u32, a: i64, b: i64, d: i64): u64 {
  switch (opcode) {
    case 0: return <u64>((a + b) >> 1); // SHADD
    case 1: return addSigned(a, b, size);
    case 2: return <u64>((a + b + 1) >> 1);
    case 4: return <u64>((a - b) >> 1);
    case 5: return subtractSigned(a, b, size);
    case 6: return a > b ? <u64>-1 : 0;
    case 7: return a >= b ? <u64>-1 : 0;
    case 8: return shiftSigned(a, <i32><i8>b, size, false, false);
    case 9: return shiftSigned(a, <i32><i8>b, size, false, true);
    case 10: return shiftSigned(a, <i32><i8>b, size, true, false);
    case 11: return shiftSigned(a, <i32><i8>b, size, true, true);
    case 12: return <u64>(a > b ? a : b);
    case 13: return <u64>(a < b ? a : b);
    case 14: return <u64>(a > b ? a - b : b - a);
    case 15: return <u64>(d + (a > b ? a - b : b - a));
    case 16: return <u64>(a + b);
    case 17: return a & b ? <u64>-1 : 0; // CMTST
    case 18: return <u64>(d + a * b);
    case 19: return <u64>(a * b);
  }
  return doublingHigh(a, b, size, false); // SQDMULH
}

function unsignedOperation(opcode: u32, size: u32, a: u64, b: u64, d: u64): u64 {
  switch (opcode) {
    case 0: return (a + b) >> 1;
    case 1: return addUnsigned(a, b, size);
    case 2: return (a + b + 1) >> 1;
    case 4: return <u64>((<i64>a - <i64>b) >> 1);
    case 5: return subtractUnsigned(a, b);
    case 6: return a > b ? <u64>-1 : 0;
    case 7: return a >= b ? <u64>-1 : 0;
    case 8: return shiftUnsigned(a, <i32><i8>b, size, false, false);
    case 9: return shiftUnsigned(a, <i32><i8>b, size, false, true);
    case 10: return shiftUnsigned(a, <i32><i8>b, size, true, false);
    case 11: return shiftUnsigned(a, <i32><i8>b, size, true, true);
    case 12: return a > b ? a : b;
    case 13: return a < b ? a : b;
    case 14: return a > b ? a - b : b - a;
    case 15: return d + (a > b ? a - b : b - a);
    case 16: return a - b;
    case 17: return a == b ? <u64>-1 : 0;
    case 18: return d - a * b;
    case 19: return carryless(a, b);
  }
  return doublingHigh(signedOf(a, size), signedOf(b, size), size, true); // SQRDMULH
}

/** PMUL of bytes, and PMULL's 16-bit product. */
export function carryless(a: u64, b: u64): u64 {
  let product: u64 = 0;
  for (let i: u64 = 0; i < 8; i++) if ((b >> i) & 1) product ^= a << i;
  return product;
}

/** SMAXP, UMAXP 20, SMINP, UMINP 21, ADDP 23: pairs of n, then pairs of m. */
function pairwise(opcode: u32, unsigned: u32, size: u32, n: usize, m: usize, count: u32): void {
  for (let i: u32 = 0; i < count; i++) {
    const from = i < count / 2 ? n : m;
    const pair = (i % (count / 2)) * 2;
    result(size, i, combine(opcode, unsigned, size, lane(from, size, pair), lane(from, size, pair + 1)));
  }
}

function combine(opcode: u32, unsigned: u32, size: u32, a: u64, b: u64): u64 {
  if (opcode == 23) return a + b;
  const less = unsigned ? a < b : signedOf(a, size) < signedOf(b, size);
  return less == (opcode == 20) ? b : a;
}

/** Two-register miscellaneous on integers. False: reserved, or not one of these. */
export function twoMiscellaneous(code: u32, scalar: bool): bool {
  const opcode = (code >> 12) & 31;
  const unsigned = (code >> 29) & 1;
  const size = (code >> 22) & 3;
  const bytes = bytesOf(code, scalar, size);
  const n = vector(code >> 5);
  const d = vector(code);
  const count = bytes >> size;
  if (scalar && opcode < 3) return false;
  switch (opcode) {
    case 0: case 1: { // REV64, REV32, REV16: by bytes of elements within containers
      const container: u32 = opcode ? 1 : unsigned ? 2 : 3;
      if (size >= container || (opcode == 1 && unsigned)) return false;
      const flip = (1 << (container - size)) - 1;
      for (let i: u32 = 0; i < count; i++) result(size, i, lane(n, size, i ^ flip));
      break;
    }
    case 2: case 6: { // SADDLP, UADDLP, SADALP, UADALP
      if (size == 3 || scalar) return false;
      for (let i: u32 = 0; i < count / 2; i++) {
        const sum = unsigned
          ? lane(n, size, 2 * i) + lane(n, size, 2 * i + 1)
          : <u64>(signedLane(n, size, 2 * i) + signedLane(n, size, 2 * i + 1));
        result(size + 1, i, opcode == 6 ? sum + lane(d, size + 1, i) : sum);
      }
      break;
    }
    case 3: // SUQADD, USQADD
      if (!scalar && size == 3 && bytes == 8) return false;
      for (let i: u32 = 0; i < count; i++) {
        const value = unsigned
          ? addSignedToUnsigned(lane(d, size, i), signedLane(n, size, i), size)
          : addUnsignedToSigned(signedLane(d, size, i), lane(n, size, i), size);
        result(size, i, value);
      }
      break;
    case 4: // CLS, CLZ
      if (size == 3 || scalar) return false;
      for (let i: u32 = 0; i < count; i++) {
        const below = 64 - (8 << size);
        result(size, i, unsigned ? clz<u64>(lane(n, size, i)) - below : countSigns(<u64>signedLane(n, size, i)) - below);
      }
      break;
    case 5: // CNT, NOT, RBIT
      if (scalar || size > unsigned) return false;
      for (let i: u32 = 0; i < bytes; i++) {
        const byte = <u64>load<u8>(n + i);
        result(0, i, !unsigned ? popcnt<u64>(byte) : size ? reverseByte(byte) : ~byte);
      }
      break;
    case 7: case 11: // SQABS, SQNEG; ABS, NEG
      if (scalar ? opcode == 11 && size != 3 : size == 3 && bytes == 8) return false;
      for (let i: u32 = 0; i < count; i++) {
        const value = signedLane(n, size, i);
        const flips = unsigned != 0 || value < 0;
        if (opcode == 11) result(size, i, <u64>(flips ? 0 - value : value));
        else result(size, i, flips ? subtractSigned(0, value, size) : <u64>value);
      }
      break;
    case 8: case 9: case 10: // against zero: CMGT, CMGE; CMEQ, CMLE; CMLT
      if ((opcode == 10 && unsigned) || (scalar ? size != 3 : size == 3 && bytes == 8)) return false;
      for (let i: u32 = 0; i < count; i++) {
        const value = signedLane(n, size, i);
        const holds = opcode == 8 ? (unsigned ? value >= 0 : value > 0) : opcode == 9 ? (unsigned ? value <= 0 : value == 0) : value < 0;
        result(size, i, holds ? <u64>-1 : 0);
      }
      break;
    case 18: case 20: return narrow(code, scalar, opcode, unsigned, size, n);
    case 19: { // SHLL
      if (!unsigned || size == 3 || scalar) return false;
      const first = ((code >> 30) & 1) * (8 >> size);
      for (let i: u32 = 0; i < (8 >> size); i++) result(size + 1, i, lane(n, size, first + i) << (8 << size));
      finish(code, 16);
      return true;
    }
    default: return false;
  }
  finish(code, bytes);
  return true;
}

@inline
function reverseByte(byte: u64): u64 {
  return (((byte * 0x0202020202) & 0x010884422010) % 1023) & 0xff;
}

/** XTN, SQXTUN 18; SQXTN, UQXTN 20: to half the width, into the lower or the upper half of Vd. */
function narrow(code: u32, scalar: bool, opcode: u32, unsigned: u32, size: u32, n: usize): bool {
  if (size == 3 || (scalar && opcode == 18 && !unsigned)) return false;
  const count: u32 = scalar ? 1 : 8 >> size;
  for (let i: u32 = 0; i < count; i++) {
    let value: u64;
    if (opcode == 18) value = unsigned ? signedToUnsigned(signedLane(n, size + 1, i), size) : lane(n, size + 1, i);
    else value = unsigned ? toUnsigned(lane(n, size + 1, i), size) : toSigned(signedLane(n, size + 1, i), size);
    result(size, i, value);
  }
  finishNarrow(code, scalar, size);
  return true;
}

/** Half a vector of results: with Q into the upper half of Vd, whose lower half stays. */
export function finishNarrow(code: u32, scalar: bool, size: u32): void {
  if (!scalar && (code >> 30) & 1) store<u64>(vector(code), load<u64>(LANES), 8);
  else finish(code, scalar ? 1 << size : 8);
}

/** SADDLV, UADDLV, SMAXV, UMAXV, SMINV, UMINV, ADDV. */
export function acrossLanes(code: u32): bool {
  const opcode = (code >> 12) & 31;
  const unsigned = (code >> 29) & 1;
  const size = (code >> 22) & 3;
  const bytes: u32 = 8 << ((code >> 30) & 1);
  if (size == 3 || (size == 2 && bytes == 8)) return false;
  const n = vector(code >> 5);
  let value = unsigned ? lane(n, size, 0) : <u64>signedLane(n, size, 0);
  for (let i: u32 = 1; i < bytes >> size; i++) {
    const next = unsigned ? lane(n, size, i) : <u64>signedLane(n, size, i);
    switch (opcode) {
      case 3: value += next; break;
      case 10: value = combine(20, unsigned, 3, value, next); break;
      case 26: value = combine(21, unsigned, 3, value, next); break;
      case 27:
        if (unsigned) return false;
        value += next;
        break;
      default: return false;
    }
  }
  const width = opcode == 3 ? size + 1 : size;
  result(width, 0, value);
  finish(code, 1 << width);
  return true;
}

