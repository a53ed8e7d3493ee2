// Advanced SIMD on floating-point lanes of 32 and 64 bits (DDI 0487, C4.1.96). A scalar form is a vector of one lane.
import { DOUBLE, HALF, infinity, magnitude, RDN, RMM, RNE, RTZ, RUP, SINGLE } from "../../engine/assembly/float-format";
import {
  fixedReciprocal, fixedReciprocalRoot, reciprocalEstimate, reciprocalExponent, reciprocalRootEstimate, step,
} from "./float-estimates";
import {
  convert, convertRounding, floatAdd, floatCompare, floatDivide, floatExtremum, floatMultiply, floatMultiplyAdd, floatMultiplyExtended,
  flushesDenormals,
  floatSquareRoot, floatSubtract, fromFixed, negate, roundingMode, roundToIntegral, toFixed,
} from "./float-rules";
import { finish, lane, result, signedLane, vector } from "./lanes";
import { LANES } from "./layout";

/** Comparisons as floatCompare has them. */
const EQUAL: u32 = 6;
const GREATER: u32 = 2;

@inline
function absolute(bits: u64, format: u32): u64 {
  return magnitude(bits, format);
}

@inline
function mask(holds: bool): u64 {
  return holds ? <u64>-1 : 0;
}

/** Three same, opcodes from 11000 on. False: reserved. */
export function threeSameFloat(code: u32, scalar: bool): bool {
  const wide = (code >> 22) & 1;
  const size = 2 + wide;
  const q = (code >> 30) & 1;
  if (!scalar && wide && !q) return false;
  const bytes: u32 = scalar ? 1 << size : 8 << q;
  const unsigned = (code >> 29) & 1;
  const operation = ((code >> 11) & 7) | (((code >> 23) & 1) << 3) | (unsigned << 4);
  const format = wide ? DOUBLE : SINGLE;
  const d = vector(code);
  const n = vector(code >> 5);
  const m = vector(code >> 16);
  const count = bytes >> size;
  // FMAXNMP, FADDP, FMAXP, FMINNMP, FMINP
  const pairs = unsigned && (operation == 16 || operation == 18 || operation == 22 || operation == 24 || operation == 30);
  if (pairs && scalar) return false;
  if (scalar) {
    switch (operation) {
      case 3: case 4: case 7: case 15: case 20: case 21: case 26: case 28: case 29: break; // FMULX, FCM…, FRECPS, FRSQRTS, FAC…, FABD
      default: return false;
    }
  }
  for (let i: u32 = 0; i < count; i++) {
    let a = lane(n, size, i);
    let b = lane(m, size, i);
    if (pairs) {
      const from = i < count / 2 ? n : m;
      const pair = (i % (count / 2)) * 2;
      a = lane(from, size, pair);
      b = lane(from, size, pair + 1);
    }
    let value: u64 = 0;
    switch (operation) {
      case 0: case 16: value = floatExtremum(a, b, true, true, format); break; // FMAXNM, FMAXNMP
      case 8: case 24: value = floatExtremum(a, b, false, true, format); break;
      case 1: value = floatMultiplyAdd(lane(d, size, i), a, b, format); break; // FMLA
      case 9: value = floatMultiplyAdd(lane(d, size, i), negate(a, format), b, format); break; // FMLS
      case 2: case 18: value = floatAdd(a, b, format); break; // FADD, FADDP
      case 10: value = floatSubtract(a, b, format); break; // FSUB
      case 26: value = absolute(floatSubtract(a, b, format), format); break; // FABD
      case 3: value = floatMultiplyExtended(a, b, format); break; // FMULX
      case 19: value = floatMultiply(a, b, format); break; // FMUL
      case 4: value = mask(floatCompare(a, b, false, format) == EQUAL); break; // FCMEQ
      case 20: { // FCMGE
        const order = floatCompare(a, b, true, format);
        value = mask(order == GREATER || order == EQUAL);
        break;
      }
      case 28: value = mask(floatCompare(a, b, true, format) == GREATER); break; // FCMGT
      case 21: { // FACGE
        const order = floatCompare(absolute(a, format), absolute(b, format), true, format);
        value = mask(order == GREATER || order == EQUAL);
        break;
      }
      case 29: value = mask(floatCompare(absolute(a, format), absolute(b, format), true, format) == GREATER); break; // FACGT
      case 6: case 22: value = floatExtremum(a, b, true, false, format); break; // FMAX, FMAXP
      case 14: case 30: value = floatExtremum(a, b, false, false, format); break;
      case 7: value = step(a, b, false, format); break; // FRECPS
      case 15: value = step(a, b, true, format); break; // FRSQRTS
      case 23: value = floatDivide(a, b, format); break; // FDIV
      default: return false;
    }
    result(size, i, value);
  }
  finish(code, bytes);
  return true;
}

/** Two-register miscellaneous on floats. False: reserved, or not one of these. */
export function twoMiscellaneousFloat(code: u32, scalar: bool): bool {
  const opcode = (code >> 12) & 31;
  const unsigned = (code >> 29) & 1;
  const high = (code >> 23) & 1;
  const wide = (code >> 22) & 1;
  const q = (code >> 30) & 1;
  if (opcode == 22 || opcode == 23) return changeWidth(code, scalar, opcode, unsigned, high, wide, q);
  const fixed = opcode == 28 && high; // URECPE, URSQRTE
  if (!scalar && wide && !q && !fixed) return false;
  if (fixed && (wide || scalar)) return false;
  const size = 2 + wide;
  const format = wide ? DOUBLE : SINGLE;
  const bytes: u32 = scalar ? 1 << size : 8 << q;
  const n = vector(code >> 5);
  for (let i: u32 = 0; i < bytes >> size; i++) {
    const a = lane(n, size, i);
    let value: u64 = 0;
    switch ((opcode << 2) | (high << 1) | unsigned) {
      case 0b0110010: value = mask(floatCompare(a, 0, true, format) == GREATER); break; // FCMGT 0
      case 0b0110011: { // FCMGE
        const order = floatCompare(a, 0, true, format);
        value = mask(order == GREATER || order == EQUAL);
        break;
      }
      case 0b0110110: value = mask(floatCompare(a, 0, false, format) == EQUAL); break; // FCMEQ
      case 0b0110111: { // FCMLE
        const order = floatCompare(a, 0, true, format);
        value = mask(order == 8 || order == EQUAL);
        break;
      }
      case 0b0111010: value = mask(floatCompare(a, 0, true, format) == 8); break; // FCMLT
      case 0b0111110: if (scalar) return false; value = absolute(a, format); break; // FABS
      case 0b0111111: if (scalar) return false; value = negate(a, format); break;
      case 0b1111111: if (scalar) return false; value = floatSquareRoot(a, format); break;
      case 0b1100000: if (scalar) return false; value = roundToIntegral(a, format, RNE, false); break;
      case 0b1100010: if (scalar) return false; value = roundToIntegral(a, format, RUP, false); break;
      case 0b1100100: if (scalar) return false; value = roundToIntegral(a, format, RDN, false); break;
      case 0b1100110: if (scalar) return false; value = roundToIntegral(a, format, RTZ, false); break;
      case 0b1100001: if (scalar) return false; value = roundToIntegral(a, format, RMM, false); break;
      case 0b1100101: if (scalar) return false; value = roundToIntegral(a, format, roundingMode(), true); break;
      case 0b1100111: if (scalar) return false; value = roundToIntegral(a, format, roundingMode(), false); break;
      case 0b1101000: case 0b1101001: value = toFixed(a, format, 0, unsigned != 0, wide != 0, RNE); break;
      case 0b1101010: case 0b1101011: value = toFixed(a, format, 0, unsigned != 0, wide != 0, RUP); break;
      case 0b1101100: case 0b1101101: value = toFixed(a, format, 0, unsigned != 0, wide != 0, RDN); break;
      case 0b1101110: case 0b1101111: value = toFixed(a, format, 0, unsigned != 0, wide != 0, RTZ); break;
      case 0b1110000: case 0b1110001: value = toFixed(a, format, 0, unsigned != 0, wide != 0, RMM); break;
      case 0b1110100: case 0b1110101:
        value = fromFixed(unsigned ? a : <u64>signedLane(n, size, i), 0, unsigned != 0, format, roundingMode());
        break;
      case 0b1110010: value = fixedReciprocal(a); break;
      case 0b1110011: value = fixedReciprocalRoot(a); break;
      case 0b1110110: value = reciprocalEstimate(a, format); break;
      case 0b1110111: value = reciprocalRootEstimate(a, format); break;
      case 0b1111110: if (!scalar) return false; value = reciprocalExponent(a, format); break;
      default: return false;
    }
    result(size, i, value);
  }
  finish(code, bytes);
  return true;
}

/** FCVTN, FCVTXN 22; FCVTL 23. */
function changeWidth(code: u32, scalar: bool, opcode: u32, unsigned: u32, high: u32, wide: u32, q: u32): bool {
  if (high) return false;
  const n = vector(code >> 5);
  const narrow: u32 = wide ? 2 : 1;
  const narrowFormat = wide ? SINGLE : HALF;
  const wideFormat = wide ? DOUBLE : SINGLE;
  const count: u32 = scalar ? 1 : 8 >> narrow;
  if (opcode == 23) {
    if (unsigned || scalar) return false;
    for (let i: u32 = 0; i < count; i++) result(narrow + 1, i, convert(lane(n, narrow, q * count + i), narrowFormat, wideFormat));
    finish(code, 16);
    return true;
  }
  if (unsigned ? !wide : scalar) return false;
  for (let i: u32 = 0; i < count; i++) {
    const value = lane(n, narrow + 1, i);
    result(narrow, i, unsigned ? convertToOdd(value) : convert(value, wideFormat, narrowFormat));
  }
  if (!scalar && q) store<u64>(vector(code), load<u64>(LANES), 8);
  else finish(code, scalar ? 4 : 8);
  return true;
}

/** FCVTXN: rounded to odd: truncated, and the last bit set if that was inexact. */
function convertToOdd(value: u64): u64 {
  const truncated = convertRounding(value, DOUBLE, SINGLE, RTZ);
  if (flushesDenormals() && magnitude(truncated, SINGLE) == 0) return truncated;
  const back = convertRounding(truncated, SINGLE, DOUBLE, RTZ);
  const exact = back == value || magnitude(value, DOUBLE) >= infinity(0, DOUBLE);
  return exact ? truncated : truncated | 1;
}

/** FMLA, FMLS, FMUL, FMULX by an element. False: reserved, or not one of these. */
export function byElementFloat(code: u32, scalar: bool): bool {
  if (!((code >> 23) & 1)) return false;
  const wide = (code >> 22) & 1;
  const size = 2 + wide;
  const q = (code >> 30) & 1;
  const l = (code >> 21) & 1;
  const h = (code >> 11) & 1;
  if ((wide && l) || (!scalar && wide && !q)) return false;
  const opcode = (code >> 12) & 15;
  const unsigned = (code >> 29) & 1;
  if (opcode == 9 ? false : unsigned != 0 || (opcode != 1 && opcode != 5)) return false;
  const format = wide ? DOUBLE : SINGLE;
  const b = lane(vector((code >> 16) & 31), size, wide ? h : (h << 1) | l);
  const bytes: u32 = scalar ? 1 << size : 8 << q;
  const d = vector(code);
  const n = vector(code >> 5);
  for (let i: u32 = 0; i < bytes >> size; i++) {
    const a = lane(n, size, i);
    let value: u64;
    if (opcode == 9) value = unsigned ? floatMultiplyExtended(a, b, format) : floatMultiply(a, b, format);
    else value = floatMultiplyAdd(lane(d, size, i), opcode == 5 ? negate(a, format) : a, b, format);
    result(size, i, value);
  }
  finish(code, bytes);
  return true;
}

/** SCVTF, UCVTF 28, FCVTZS, FCVTZU 31 with a scale, among the shifts by an immediate. */
export function fixedPointLanes(code: u32, scalar: bool): bool {
  const field = (code >> 16) & 127;
  const wide = field >> 6;
  const q = (code >> 30) & 1;
  if (field < 32 || (!scalar && wide && !q)) return false;
  const size = 2 + wide;
  const scale = (wide ? 128 : 64) - field;
  const format = wide ? DOUBLE : SINGLE;
  const unsigned = ((code >> 29) & 1) != 0;
  const bytes: u32 = scalar ? 1 << size : 8 << q;
  const n = vector(code >> 5);
  for (let i: u32 = 0; i < bytes >> size; i++) {
    const a = lane(n, size, i);
    if (((code >> 11) & 31) == 31) result(size, i, toFixed(a, format, scale, unsigned, wide != 0, RTZ));
    else result(size, i, fromFixed(unsigned ? a : <u64>signedLane(n, size, i), scale, unsigned, format, roundingMode()));
  }
  finish(code, bytes);
  return true;
}

/** FMAXNMV, FMINNMV, FMAXV, FMINV: by halves, as the pseudocode's Reduce. */
export function acrossLanesFloat(code: u32): bool {
  const opcode = (code >> 12) & 31;
  if (!((code >> 29) & 1) || !((code >> 30) & 1) || (code >> 22) & 1) return false;
  const greater = !((code >> 23) & 1);
  const number = opcode == 12;
  const n = vector(code >> 5);
  const low = floatExtremum(lane(n, 2, 0), lane(n, 2, 1), greater, number, SINGLE);
  const high = floatExtremum(lane(n, 2, 2), lane(n, 2, 3), greater, number, SINGLE);
  result(2, 0, floatExtremum(low, high, greater, number, SINGLE));
  finish(code, 4);
  return true;
}

/** Scalar pairwise: FMAXNMP, FADDP, FMAXP, FMINNMP, FMINP of a vector of two. ADDP is not here. */
export function scalarPairFloat(code: u32): bool {
  const opcode = (code >> 12) & 31;
  if (!((code >> 29) & 1)) return false;
  const size = 2 + ((code >> 22) & 1);
  const format = size == 3 ? DOUBLE : SINGLE;
  const least = ((code >> 23) & 1) != 0;
  const n = vector(code >> 5);
  const a = lane(n, size, 0);
  const b = lane(n, size, 1);
  let value: u64;
  switch (opcode) {
    case 12: value = floatExtremum(a, b, !least, true, format); break;
    case 13:
      if (least) return false;
      value = floatAdd(a, b, format);
      break;
    case 15: value = floatExtremum(a, b, !least, false, format); break;
    default: return false;
  }
  result(size, 0, value);
  finish(code, 1 << size);
  return true;
}
