// Floating point as FPCR and the manual's shared pseudocode want it (DDI 0487, J1: FPProcessNaNs, FPRound, …), on the engine's arithmetic: which NaN comes out,
// flush to zero, rounding modes. Formats are the engine's: SINGLE, DOUBLE, HALF.
import { fusedMultiplyAdd } from "../../engine/assembly/float-arithmetic";
import { ADD, arithmetic, DIVIDE, MULTIPLY, root } from "../../engine/assembly/float-native";
import {
  canonicalNaN, DOUBLE, exponentOf, HALF, infinity, isInfinite, isNaN, isSignaling, isZero, magnitude, NV, NX, precision, raise, RDN, RMM, RNE, round,
  RTZ, RUP, shiftRightJam, signOf, significandOf, UF, zero,
} from "../../engine/assembly/float-format";
import { FPCR, QC } from "./layout";
import { FLOAT_FLAGS } from "../../engine/assembly/layout";

const FPCR_AHP: u64 = 1 << 26;
const FPCR_DN: u64 = 1 << 25;
const FPCR_FZ: u64 = 1 << 24;

/** FPCR.RMode in the engine's numbers. */
@inline
export function roundingMode(): u32 {
  const mode = <u32>(load<u64>(FPCR) >> 22) & 3;
  return mode == 0 ? RNE : mode == 1 ? RUP : mode == 2 ? RDN : RTZ;
}

@inline
export function flushesDenormals(): bool {
  return (load<u64>(FPCR) & FPCR_FZ) != 0;
}

/** FPSR: the engine's flags in the manual's order, IDC and QC. */
export function readStatus(): u64 {
  const flags = load<u32>(FLOAT_FLAGS);
  return <u64>(((flags >> 4) & 1) | ((flags >> 2) & 2) | (flags & 4) | ((flags << 2) & 8) | ((flags << 4) & 16) | (flags & 0x80) | (load<u32>(QC) << 27));
}

export function writeStatus(value: u64): void {
  const v = <u32>value;
  store<u32>(FLOAT_FLAGS, ((v & 1) << 4) | ((v & 2) << 2) | (v & 4) | ((v & 8) >> 2) | ((v & 16) >> 4) | (v & 0x80));
  store<u32>(QC, (v >> 27) & 1);
}

/** FPUnpack's flush of a denormal operand; binary16 is not flushed by FZ. */
export function operand(bits: u64, format: u32): u64 {
  if (!flushesDenormals() || format == HALF) return bits;
  const m = magnitude(bits, format);
  if (m == 0 || m >> (precision(format) - 1)) return bits;
  raise(0x80); // IDC
  return zero(signOf(bits, format), format);
}

/** FPProcessNaN: quieted, or the default NaN. */
export function oneNaN(bits: u64, format: u32): u64 {
  if (isSignaling(bits, format)) raise(NV);
  if (load<u64>(FPCR) & FPCR_DN) return canonicalNaN(format);
  return bits | (<u64>1 << (precision(format) - 2));
}

/** FPProcessNaNs: the first signaling one, or else the first quiet one. */
export function twoNaNs(a: u64, b: u64, format: u32): u64 {
  if (isSignaling(a, format)) return oneNaN(a, format);
  if (isSignaling(b, format)) return oneNaN(b, format);
  return oneNaN(isNaN(a, format) ? a : b, format);
}

@inline
function anyNaN(a: u64, b: u64, format: u32): bool {
  return isNaN(a, format) || isNaN(b, format);
}

/** Under FZ an operation runs with flags of its own, so that what it alone raised is seen. */
@inline
function begin(): u32 {
  const before = load<u32>(FLOAT_FLAGS);
  if (flushesDenormals()) store<u32>(FLOAT_FLAGS, 0);
  return before;
}

/** Under FZ a result that was denormal before it was rounded is a zero and an underflow, nothing else. */
function end(bits: u64, format: u32, before: u32): u64 {
  if (!flushesDenormals()) return bits;
  const m = magnitude(bits, format);
  const least = <u64>1 << (precision(format) - 1);
  const underflows = (load<u32>(FLOAT_FLAGS) & UF) != 0;
  const tiny = m < least ? m != 0 || underflows : m == least && underflows;
  store<u32>(FLOAT_FLAGS, before | (tiny ? UF : load<u32>(FLOAT_FLAGS)));
  return tiny ? zero(signOf(bits, format), format) : bits;
}

export function floatAdd(x: u64, y: u64, format: u32): u64 {
  const a = operand(x, format);
  const b = operand(y, format);
  if (anyNaN(a, b, format)) return twoNaNs(a, b, format);
  const before = begin();
  return end(arithmetic(ADD, a, b, format == DOUBLE, roundingMode()), format, before);
}

export function floatSubtract(x: u64, y: u64, format: u32): u64 {
  const a = operand(x, format);
  const b = operand(y, format);
  if (anyNaN(a, b, format)) return twoNaNs(a, b, format);
  const before = begin();
  return end(arithmetic(ADD, a, negate(b, format), format == DOUBLE, roundingMode()), format, before);
}

export function floatMultiply(x: u64, y: u64, format: u32): u64 {
  const a = operand(x, format);
  const b = operand(y, format);
  if (anyNaN(a, b, format)) return twoNaNs(a, b, format);
  const before = begin();
  return end(arithmetic(MULTIPLY, a, b, format == DOUBLE, roundingMode()), format, before);
}

/** FMULX: zero times infinity is two. */
export function floatMultiplyExtended(x: u64, y: u64, format: u32): u64 {
  const a = operand(x, format);
  const b = operand(y, format);
  const special = (isZero(a, format) && isInfinite(b, format)) || (isInfinite(a, format) && isZero(b, format));
  if (!special) return floatMultiply(a, b, format);
  return zero(signOf(a, format) ^ signOf(b, format), format) | (format == DOUBLE ? 0x4000000000000000 : 0x40000000);
}

export function floatDivide(x: u64, y: u64, format: u32): u64 {
  const a = operand(x, format);
  const b = operand(y, format);
  if (anyNaN(a, b, format)) return twoNaNs(a, b, format);
  const before = begin();
  return end(arithmetic(DIVIDE, a, b, format == DOUBLE, roundingMode()), format, before);
}

export function floatSquareRoot(x: u64, format: u32): u64 {
  const a = operand(x, format);
  if (isNaN(a, format)) return oneNaN(a, format);
  const before = begin();
  return end(root(a, format == DOUBLE, roundingMode()), format, before);
}

/** FPMulAdd: c + a × b, rounded once; NaNs in the order c, a, b. */
export function floatMultiplyAdd(z: u64, x: u64, y: u64, format: u32): u64 {
  const c = operand(z, format);
  const a = operand(x, format);
  const b = operand(y, format);
  const noProduct = (isZero(a, format) && isInfinite(b, format)) || (isInfinite(a, format) && isZero(b, format));
  if (isNaN(c, format) || anyNaN(a, b, format)) {
    if (isNaN(c, format) && !isSignaling(c, format) && noProduct) {
      raise(NV);
      return canonicalNaN(format);
    }
    if (isSignaling(c, format)) return oneNaN(c, format);
    if (isSignaling(a, format) || isSignaling(b, format)) return twoNaNs(a, b, format);
    return isNaN(c, format) ? oneNaN(c, format) : twoNaNs(a, b, format);
  }
  const before = begin();
  return end(fusedMultiplyAdd(a, b, c, format == DOUBLE, roundingMode()), format, before);
}

@inline
export function negate(bits: u64, format: u32): u64 {
  return bits ^ (zero(1, format));
}

/** FMAX, FMIN; `number`: FMAXNM, FMINNM, to which a quiet NaN is less than nothing. */
export function floatExtremum(x: u64, y: u64, greater: bool, number: bool, format: u32): u64 {
  let a = operand(x, format);
  let b = operand(y, format);
  if (number) {
    const least = infinity(greater ? 1 : 0, format);
    const quietA = isNaN(a, format) && !isSignaling(a, format);
    const quietB = isNaN(b, format) && !isSignaling(b, format);
    if (quietA && !quietB && !isNaN(b, format)) a = least;
    else if (quietB && !quietA && !isNaN(a, format)) b = least;
  }
  if (anyNaN(a, b, format)) return twoNaNs(a, b, format);
  const signA = signOf(a, format);
  const aLess = signA != signOf(b, format) ? signA != 0 : signA ? a > b : a < b;
  return aLess == greater ? b : a;
}

/** FCMP as NZCV: less 8, equal 6, greater 2, unordered 3. `signals`: FCMPE. */
export function floatCompare(x: u64, y: u64, signals: bool, format: u32): u32 {
  const a = operand(x, format);
  const b = operand(y, format);
  if (anyNaN(a, b, format)) {
    if (signals || isSignaling(a, format) || isSignaling(b, format)) raise(NV);
    return 3;
  }
  if (a == b || (magnitude(a, format) | magnitude(b, format)) == 0) return 6;
  const signA = signOf(a, format);
  const less = signA != signOf(b, format) ? signA != 0 : signA ? a > b : a < b;
  return less ? 8 : 2;
}

/** FCVT between formats; the rounding of FPConvert, with AHP's half precision. */
export function convert(x: u64, from: u32, to: u32): u64 {
  return convertRounding(x, from, to, roundingMode());
}

export function convertRounding(x: u64, from: u32, to: u32, mode: u32): u64 {
  const alternative = (load<u64>(FPCR) & FPCR_AHP) != 0;
  const bits = operand(x, from);
  const sign = signOf(bits, from);
  if (from == HALF && alternative && magnitude(bits, HALF) >= 0x7c00) return round(sign, 16, significandOfAlternative(bits), to, mode);
  if (isNaN(bits, from)) return convertNaN(bits, from, to, alternative);
  if (isInfinite(bits, from)) {
    if (to == HALF && alternative) {
      raise(NV);
      return zero(sign, HALF) | 0x7fff;
    }
    return infinity(sign, to);
  }
  if (isZero(bits, from)) return zero(sign, to);
  if (to == HALF && alternative) return roundAlternative(sign, exponentOf(bits, from), significandOf(bits, from), mode);
  const before = begin();
  const value = round(sign, exponentOf(bits, from), significandOf(bits, from), to, mode);
  if (to == HALF) {
    store<u32>(FLOAT_FLAGS, load<u32>(FLOAT_FLAGS) | before);
    return value;
  }
  return end(value, to, before);
}

@inline
function significandOfAlternative(bits: u64): u64 {
  return ((bits & 0x3ff) << 53) | (<u64>1 << 63);
}

/** Alternative half precision: no infinities, no NaNs, one binade more. */
function roundAlternative(sign: u64, exponent: i32, significand: u64, mode: u32): u64 {
  if (exponent < 15) return round(sign, exponent, significand, HALF, mode);
  const flags = load<u32>(FLOAT_FLAGS);
  // two binades down it is an ordinary number
  const value = exponent > 17 ? 0x7fff : round(sign, exponent - 4, significand, HALF, mode);
  const raised = (magnitude(value, HALF) >> 10) + 4;
  if (exponent > 17 || raised > 31) {
    store<u32>(FLOAT_FLAGS, flags | NV);
    return zero(sign, HALF) | 0x7fff;
  }
  return value + (4 << 10);
}

/** A NaN's payload keeps its top bits. */
function convertNaN(bits: u64, from: u32, to: u32, alternative: bool): u64 {
  if (isSignaling(bits, from)) raise(NV);
  if (to == HALF && alternative) {
    raise(NV);
    return zero(signOf(bits, from), HALF);
  }
  if (load<u64>(FPCR) & FPCR_DN) return canonicalNaN(to);
  const fraction = precision(from) - 1;
  const wanted = precision(to) - 1;
  const payload = bits & ((<u64>1 << fraction) - 1);
  const moved = wanted > fraction ? payload << (wanted - fraction) : payload >> (fraction - wanted);
  return canonicalNaN(to) | zero(signOf(bits, from), to) | moved;
}

/** Float, times 2^scale, to an integer of `bits` bits: saturated, NaN is zero. */
export function toFixed(x: u64, format: u32, scale: u32, unsigned: bool, wide: bool, mode: u32): u64 {
  const value = operand(x, format);
  const bits: u64 = wide ? 64 : 32;
  const top: u64 = unsigned ? <u64>-1 >> (64 - bits) : <u64>-1 >> (65 - bits);
  if (isNaN(value, format)) {
    raise(NV);
    return 0;
  }
  if (isZero(value, format)) return 0;
  const sign = signOf(value, format);
  const bottom: u64 = unsigned ? 0 : top + 1; // magnitude of the least value
  const exponent = isInfinite(value, format) ? 64 : exponentOf(value, format) + <i32>scale;
  const mask = <u64>-1 >> (64 - bits);
  if (exponent < 64) {
    const significand = significandOf(value, format);
    let integer: u64 = 0;
    let rest: u64 = 0; // the fraction, its half at bit 63
    if (exponent == 63) integer = significand;
    else if (exponent >= 0) {
      integer = significand >> <u64>(63 - exponent);
      rest = significand << <u64>(exponent + 1);
    } else rest = exponent == -1 ? significand : shiftRightJam(significand, <u64>(-1 - exponent));
    const up = roundsUp(sign, integer, rest, mode);
    const overflow = up && integer == <u64>-1;
    if (up) integer++;
    if (!overflow && integer <= (sign ? bottom : top)) {
      if (rest) raise(NX);
      return (sign ? 0 - integer : integer) & mask;
    }
  }
  raise(NV);
  return (sign ? 0 - bottom : top) & mask;
}

function roundsUp(sign: u64, integer: u64, rest: u64, mode: u32): bool {
  const half: u64 = 1 << 63;
  switch (mode) {
    case RNE: return rest > half || (rest == half && (integer & 1) != 0);
    case RMM: return rest >= half;
    case RDN: return sign != 0 && rest != 0;
    case RUP: return sign == 0 && rest != 0;
  }
  return false;
}

/** An integer over 2^scale to a float. `value`: sign-extended, or zero-extended where unsigned. */
export function fromFixed(value: u64, scale: u32, unsigned: bool, format: u32, mode: u32): u64 {
  if (value == 0) return 0;
  const sign: u64 = !unsigned && <i64>value < 0 ? 1 : 0;
  const size = sign ? 0 - value : value;
  const zeros = clz(size);
  return round(sign, 63 - <i32>zeros - <i32>scale, size << zeros, format, mode);
}

/** FRINT: to an integral value of the same format. `exact`: FRINTX raises inexact. */
export function roundToIntegral(x: u64, format: u32, mode: u32, exact: bool): u64 {
  const value = operand(x, format);
  if (isNaN(value, format)) return oneNaN(value, format);
  if (isInfinite(value, format) || isZero(value, format)) return value;
  const exponent = exponentOf(value, format);
  const fraction = <i32>precision(format) - 1;
  if (exponent >= fraction) return value;
  const sign = signOf(value, format);
  const significand = significandOf(value, format);
  let integer: u64 = 0;
  let rest: u64;
  if (exponent >= 0) {
    integer = significand >> <u64>(63 - exponent);
    rest = significand << <u64>(exponent + 1);
  } else rest = exponent == -1 ? significand : shiftRightJam(significand, <u64>(-1 - exponent));
  if (roundsUp(sign, integer, rest, mode)) integer++;
  if (rest && exact) raise(NX);
  if (integer == 0) return zero(sign, format);
  const zeros = clz(integer);
  return round(sign, 63 - <i32>zeros, integer << zeros, format, RTZ);
}

