// Reciprocal and reciprocal square root: estimates of 8 bits and Newton's steps (DDI 0487, shared pseudocode FPRecipEstimate, FPRSqrtEstimate, …StepFused).
import {
  canonicalNaN, DOUBLE, DZ, infinity, isInfinite, isNaN, isZero, magnitude, NV, NX, OF, precision, raise, RDN, RNE, RUP, signOf, UF, zero,
} from "../../engine/assembly/float-format";
import { flushesDenormals, floatMultiplyAdd, floatMultiply, negate, oneNaN, operand, roundingMode, twoNaNs } from "./float-rules";

/** 256…511, that is 0.5…1, to its reciprocal 256…511, that is 1…2. */
function reciprocal(a: u32): u32 {
  return ((1 << 19) / (a * 2 + 1) + 1) / 2;
}

/** 128…511, that is 0.25…1. */
function reciprocalRoot(a: u32): u32 {
  const scaled: u32 = a < 256 ? a * 2 + 1 : ((a >> 1) * 2 + 1) * 2;
  let b: u32 = 512;
  while (scaled * (b + 1) * (b + 1) < (1 << 28)) b++;
  return (b + 1) / 2;
}

/** Fraction of a value as 52 bits. */
@inline
function fractionOf(bits: u64, format: u32): u64 {
  return format == DOUBLE ? bits & 0xfffffffffffff : (bits & 0x7fffff) << 29;
}

@inline
function exponentField(bits: u64, format: u32): i32 {
  return <i32>(magnitude(bits, format) >> (precision(format) - 1));
}

@inline
function pack(sign: u64, exponent: i32, fraction: u64, format: u32): u64 {
  const p = precision(format) - 1;
  return zero(sign, format) | (<u64>exponent << p) | (format == DOUBLE ? fraction : fraction >> 29);
}

/** FRECPE. */
export function reciprocalEstimate(x: u64, format: u32): u64 {
  const value = operand(x, format);
  if (isNaN(value, format)) return oneNaN(value, format);
  const sign = signOf(value, format);
  if (isInfinite(value, format)) return zero(sign, format);
  if (isZero(value, format)) {
    raise(DZ);
    return infinity(sign, format);
  }
  // below 2^-128 or 2^-1024: the reciprocal overflows
  if (magnitude(value, format) < <u64>1 << (precision(format) - 3)) {
    raise(OF | NX);
    const mode = roundingMode();
    const toInfinity = mode == RNE || (mode == RUP ? sign == 0 : mode == RDN ? sign != 0 : false);
    return infinity(sign, format) - (toInfinity ? 0 : 1);
  }
  let fraction = fractionOf(value, format);
  let exponent = exponentField(value, format);
  const top = format == DOUBLE ? 2045 : 253;
  if (flushesDenormals() && exponent >= top) {
    raise(UF);
    return zero(sign, format);
  }
  if (exponent == 0) {
    if (!(fraction >> 51)) {
      exponent = -1;
      fraction <<= 2;
    } else fraction <<= 1;
    fraction &= 0xfffffffffffff;
  }
  const estimate = reciprocal(256 | <u32>(fraction >> 44));
  let to = top - exponent;
  let digits = <u64>(estimate & 255) << 44;
  if (to == 0) digits = (digits >> 1) | (<u64>1 << 51);
  else if (to == -1) {
    digits = (digits >> 2) | (<u64>1 << 50);
    to = 0;
  }
  return pack(sign, to, digits, format);
}

/** FRSQRTE. */
export function reciprocalRootEstimate(x: u64, format: u32): u64 {
  const value = operand(x, format);
  if (isNaN(value, format)) return oneNaN(value, format);
  const sign = signOf(value, format);
  if (isZero(value, format)) {
    raise(DZ);
    return infinity(sign, format);
  }
  if (sign) {
    raise(NV);
    return canonicalNaN(format);
  }
  if (isInfinite(value, format)) return zero(0, format);
  let fraction = fractionOf(value, format);
  let exponent = exponentField(value, format);
  if (exponent == 0) {
    while (!(fraction >> 51)) {
      fraction <<= 1;
      exponent--;
    }
    fraction = (fraction << 1) & 0xfffffffffffff;
  }
  const scaled: u32 = exponent & 1 ? 128 | <u32>(fraction >> 45) : 256 | <u32>(fraction >> 44);
  const estimate = reciprocalRoot(scaled);
  return pack(0, ((format == DOUBLE ? 3068 : 380) - exponent) >> 1, <u64>(estimate & 255) << 44, format);
}

/** FRECPX: all exponent bits inverted. */
export function reciprocalExponent(x: u64, format: u32): u64 {
  const value = operand(x, format);
  if (isNaN(value, format)) return oneNaN(value, format);
  const all = format == DOUBLE ? 2047 : 255;
  const exponent = exponentField(value, format);
  return pack(signOf(value, format), exponent == 0 ? all - 1 : all ^ exponent, 0, format);
}

/** URECPE, URSQRTE on 32-bit fixed-point numbers. */
export function fixedReciprocal(value: u64): u64 {
  return value >> 31 ? <u64>(reciprocal(<u32>(value >> 23)) & 511) << 23 : 0xffffffff;
}

export function fixedReciprocalRoot(value: u64): u64 {
  return value >> 30 ? <u64>(reciprocalRoot(<u32>(value >> 23)) & 511) << 23 : 0xffffffff;
}

/** FRECPS: 2 − a × b. FRSQRTS: (3 − a × b) / 2. */
export function step(x: u64, y: u64, root: bool, format: u32): u64 {
  const a = negate(operand(x, format), format);
  const b = operand(y, format);
  if (isNaN(a, format) || isNaN(b, format)) return twoNaNs(a, b, format);
  const none = (isZero(a, format) && isInfinite(b, format)) || (isInfinite(a, format) && isZero(b, format));
  if (!root) return none ? two(format) : floatMultiplyAdd(two(format), a, b, format);
  if (none) return format == DOUBLE ? 0x3ff8000000000000 : 0x3fc00000; // 1.5
  const sum = floatMultiplyAdd(format == DOUBLE ? 0x4008000000000000 : 0x40400000, a, b, format);
  if (!isInfinite(sum, format)) return floatMultiply(sum, format == DOUBLE ? 0x3fe0000000000000 : 0x3f000000, format);
  return sum;
}

@inline
function two(format: u32): u64 {
  return format == DOUBLE ? 0x4000000000000000 : 0x40000000;
}

