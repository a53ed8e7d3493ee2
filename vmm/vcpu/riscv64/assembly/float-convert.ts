// Conversions between the formats, and between binary32, binary64 and the four integer types, and the comparisons (F and D extensions, "Conversion and Move" and
// "Compare" sections).
import {
  canonicalNaN, exponentOf, infinity, isInfinite, isNaN, isSignaling, isZero, magnitude, NV, NX, raise, RDN, RMM, RNE, round, RUP,
  shiftRightJam, significandOf, signOf, zero,
} from "../../engine/assembly/float-format";

/** Integer types as instructions number them: 0 w, 1 wu, 2 l, 3 lu. */
@inline
function greatest(type: u32): u64 {
  return type == 0 ? 0x7fffffff : type == 1 ? 0xffffffff : type == 2 ? 0x7fffffffffffffff : <u64>-1;
}

/** Magnitude of the least value. */
@inline
function least(type: u32): u64 {
  return type == 0 ? 0x80000000 : type == 2 ? <u64>1 << 63 : 0;
}

/** A 32-bit result is sign-extended, wu's too. */
@inline
function extend(value: u64, type: u32): u64 {
  return type < 2 ? <u64>(<i64><i32>value) : value;
}

/** Float to integer: out of range saturates and raises NV, NaN becomes the greatest value. */
export function toInteger(bits: u64, type: u32, double: bool, mode: u32): u64 {
  if (isNaN(bits, double)) {
    raise(NV);
    return extend(greatest(type), type);
  }
  const sign = signOf(bits, double);
  if (isZero(bits, double)) return 0;
  const exponent = isInfinite(bits, double) ? 64 : exponentOf(bits, double);
  if (exponent < 64) {
    const significand = significandOf(bits, double);
    let integer: u64 = 0;
    let rest: u64; // the fraction, its half at bit 63
    if (exponent == 63) {
      integer = significand;
      rest = 0;
    } else if (exponent >= 0) {
      integer = significand >> (63 - exponent);
      rest = significand << (exponent + 1);
    } else rest = exponent == -1 ? significand : shiftRightJam(significand, <u64>(-1 - exponent));
    const half: u64 = 1 << 63;
    let up = false;
    if (mode == RNE) up = rest > half || (rest == half && (integer & 1) != 0);
    else if (mode == RMM) up = rest >= half;
    else if (mode == RDN) up = sign != 0 && rest != 0;
    else if (mode == RUP) up = sign == 0 && rest != 0;
    const overflow = up && integer == <u64>-1;
    if (up) integer++;
    if (!overflow && integer <= (sign ? least(type) : greatest(type))) {
      if (rest) raise(NX);
      return extend(sign ? 0 - integer : integer, type);
    }
  }
  raise(NV);
  return extend(sign ? 0 - least(type) : greatest(type), type);
}

/** Integer to float. */
export function fromInteger(value: u64, type: u32, double: bool, mode: u32): u64 {
  if (type == 0) value = <u64>(<i64><i32>value);
  else if (type == 1) value &= 0xffffffff;
  if (value == 0) return 0;
  const sign: u64 = !(type & 1) && <i64>value < 0 ? 1 : 0;
  const size = sign ? 0 - value : value;
  const zeros = clz(size);
  // bit 0 of a 64-bit integer is itself: as good as a sticky bit, for it is far below the last place kept
  return round(sign, 63 - <i32>zeros, size << zeros, double, mode);
}

/** From one format to another. */
export function convertFormat(bits: u64, from: u32, to: u32, mode: u32): u64 {
  if (isNaN(bits, from)) {
    if (isSignaling(bits, from)) raise(NV);
    return canonicalNaN(to);
  }
  const sign = signOf(bits, from);
  if (isInfinite(bits, from)) return infinity(sign, to);
  if (isZero(bits, from)) return zero(sign, to);
  return round(sign, exponentOf(bits, from), significandOf(bits, from), to, mode);
}

/** a < b, neither NaN. */
function below(a: u64, b: u64, double: bool): bool {
  const signA = signOf(a, double);
  if (signA != signOf(b, double)) return signA != 0 && (magnitude(a, double) | magnitude(b, double)) != 0;
  return a != b && (signA != 0 ? a > b : a < b);
}

/** feq (2), flt (1), fle (0): quiet, signaling, signaling. */
export function compare(a: u64, b: u64, kind: u32, double: bool): u64 {
  if (isNaN(a, double) || isNaN(b, double)) {
    if (kind != 2 || isSignaling(a, double) || isSignaling(b, double)) raise(NV);
    return 0;
  }
  const equal = a == b || (magnitude(a, double) | magnitude(b, double)) == 0;
  if (kind == 2) return equal ? 1 : 0;
  return below(a, b, double) || (kind == 0 && equal) ? 1 : 0;
}

/** fmin, fmax: a NaN loses against a number; −0 is below +0. */
export function extremum(a: u64, b: u64, greater: bool, double: bool): u64 {
  if (isSignaling(a, double) || isSignaling(b, double)) raise(NV);
  if (isNaN(a, double)) return isNaN(b, double) ? canonicalNaN(double) : b;
  if (isNaN(b, double)) return a;
  // as sign and magnitude integers, so that zeros are ordered
  const signA = signOf(a, double);
  const first = signA != signOf(b, double) ? signA != 0 : signA ? a > b : a < b;
  return first != greater ? a : b;
}

/** fclass: one bit of ten. */
export function classify(bits: u64, double: bool): u64 {
  const sign = signOf(bits, double);
  if (isNaN(bits, double)) return isSignaling(bits, double) ? 1 << 8 : 1 << 9;
  if (isInfinite(bits, double)) return sign ? 1 << 0 : 1 << 7;
  if (isZero(bits, double)) return sign ? 1 << 3 : 1 << 4;
  const subnormal = magnitude(bits, double) < (double ? 0x10000000000000 : 0x800000);
  if (subnormal) return sign ? 1 << 2 : 1 << 5;
  return sign ? 1 << 1 : 1 << 6;
}
