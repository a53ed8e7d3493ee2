// Addition, multiplication, division, square root and fused multiply-add of binary32 and binary64 in integer arithmetic, exact in value and flags
// for every rounding mode. Front ends use WebAssembly's own operations
// where they can show that they give the same.
import {
  canonicalNaN, DZ, exponentOf, infinity, invalid, isInfinite, isNaN, isSignaling, isZero, magnitude, NV, propagate, raise, RDN, round,
  shiftRightJam, significandOf, signOf, zero,
} from "./float-format";
import { multiplyHigh } from "./arithmetic";

@inline
function flip(bits: u64, double: bool): u64 {
  return bits ^ (double ? <u64>1 << 63 : <u64>1 << 31);
}

/** An exact zero sum of operands of opposite sign. */
@inline
function cancelled(double: bool, mode: u32): u64 {
  return zero(mode == RDN ? 1 : 0, double);
}

export function add(a: u64, b: u64, double: bool, mode: u32): u64 {
  if (isNaN(a, double) || isNaN(b, double)) return propagate(a, b, double);
  const sign = signOf(a, double);
  const opposite = sign != signOf(b, double);
  if (isInfinite(a, double)) return isInfinite(b, double) && opposite ? invalid(double) : a;
  if (isInfinite(b, double)) return b;
  if (isZero(a, double)) return isZero(b, double) && opposite ? cancelled(double, mode) : b;
  if (isZero(b, double)) return a;
  if (magnitude(a, double) < magnitude(b, double)) return addOrdered(b, a, opposite, double, mode);
  return addOrdered(a, b, opposite, double, mode);
}

/** |a| ≥ |b| > 0. */
function addOrdered(a: u64, b: u64, opposite: bool, double: bool, mode: u32): u64 {
  const exponent = exponentOf(a, double);
  const left = significandOf(a, double) >> 1;
  const right = shiftRightJam(significandOf(b, double) >> 1, <u64>(exponent - exponentOf(b, double)));
  const sum = opposite ? left - right : left + right;
  if (sum == 0) return cancelled(double, mode);
  const zeros = <i32>clz(sum);
  return round(signOf(a, double), exponent + 1 - zeros, sum << zeros, double, mode);
}

export function subtract(a: u64, b: u64, double: bool, mode: u32): u64 {
  // the sign of a NaN does not matter
  return add(a, flip(b, double), double, mode);
}

export function multiply(a: u64, b: u64, double: bool, mode: u32): u64 {
  if (isNaN(a, double) || isNaN(b, double)) return propagate(a, b, double);
  const sign = signOf(a, double) ^ signOf(b, double);
  if (isInfinite(a, double) || isInfinite(b, double)) {
    return isZero(a, double) || isZero(b, double) ? invalid(double) : infinity(sign, double);
  }
  if (isZero(a, double) || isZero(b, double)) return zero(sign, double);
  const left = significandOf(a, double);
  const right = significandOf(b, double);
  let exponent = exponentOf(a, double) + exponentOf(b, double) + 1;
  let high = multiplyHigh(left, right);
  let low = left * right;
  if (!(high >> 63)) {
    high = (high << 1) | (low >> 63);
    low <<= 1;
    exponent--;
  }
  return round(sign, exponent, high | (low ? 1 : 0), double, mode);
}

export function divide(a: u64, b: u64, double: bool, mode: u32): u64 {
  if (isNaN(a, double) || isNaN(b, double)) return propagate(a, b, double);
  const sign = signOf(a, double) ^ signOf(b, double);
  if (isInfinite(a, double)) return isInfinite(b, double) ? invalid(double) : infinity(sign, double);
  if (isInfinite(b, double)) return zero(sign, double);
  if (isZero(b, double)) {
    if (isZero(a, double)) return invalid(double);
    raise(DZ);
    return infinity(sign, double);
  }
  if (isZero(a, double)) return zero(sign, double);
  let numerator = significandOf(a, double);
  const denominator = significandOf(b, double);
  let exponent = exponentOf(a, double) - exponentOf(b, double);
  // numerator / denominator in [1/2, 1): the quotient has its leading bit at 63
  if (numerator >= denominator) numerator >>= 1;
  else exponent--;
  return round(sign, exponent, quotient(numerator, denominator), double, mode);
}

/** ⌊high × 2⁶⁴ / divisor⌋ with a sticky bit for the remainder; high < divisor, divisor's bit 63 set. Two digits of 32 bits. */
function quotient(high: u64, divisor: u64): u64 {
  const upper = digit(high, divisor);
  const rest = (high << 32) - upper * divisor;
  const lower = digit(rest, divisor);
  const left = (rest << 32) - lower * divisor;
  return (upper << 32) | lower | (left ? 1 : 0);
}

/** ⌊value × 2³² / divisor⌋ for value < divisor: an estimate from the divisor's upper half, at most two too large. */
function digit(value: u64, divisor: u64): u64 {
  const top = divisor >> 32;
  const bottom = divisor & 0xffffffff;
  let guess = value / top;
  let rest = value - guess * top;
  while (guess >> 32 || guess * bottom > rest << 32) {
    guess--;
    rest += top;
    if (rest >> 32) break;
  }
  return guess;
}

export function squareRoot(a: u64, double: bool, mode: u32): u64 {
  if (isNaN(a, double)) return propagate(a, a, double);
  if (isZero(a, double)) return a;
  if (signOf(a, double)) return invalid(double);
  if (isInfinite(a, double)) return a;
  const exponent = exponentOf(a, double);
  const odd = exponent & 1;
  // m in [1, 4), exact in binary64; its correctly rounded root r, and on which side of r the true root lies
  const integer = significandOf(a, double) >> 11; // 53 bits
  const m = reinterpret<f64>((integer & 0xfffffffffffff) | (<u64>(1023 + odd) << 52));
  const root = (reinterpret<u64>(sqrt<f64>(m)) & 0xfffffffffffff) | (<u64>1 << 52);
  // m × 2¹⁰⁴ against root², both 128 bits
  const scaled = integer << odd;
  const wantedHigh = scaled >> 12;
  const wantedLow = scaled << 52;
  const squareHigh = multiplyHigh(root, root);
  const squareLow = root * root;
  let significand = root << 11;
  if (squareHigh < wantedHigh || (squareHigh == wantedHigh && squareLow < wantedLow)) significand |= 1;
  else if (squareHigh != wantedHigh || squareLow != wantedLow) significand -= 1;
  return round(0, (exponent - odd) >> 1, significand, double, mode);
}

/** a × b + c, rounded once. */
export function fusedMultiplyAdd(a: u64, b: u64, c: u64, double: bool, mode: u32): u64 {
  const infinite = isInfinite(a, double) || isInfinite(b, double);
  if (isNaN(a, double) || isNaN(b, double) || isNaN(c, double)) {
    if (
      isSignaling(a, double) || isSignaling(b, double) || isSignaling(c, double) ||
      (infinite && (isZero(a, double) || isZero(b, double)))
    ) raise(NV);
    return canonicalNaN(double);
  }
  const sign = signOf(a, double) ^ signOf(b, double);
  const opposite = sign != signOf(c, double);
  if (infinite) {
    if (isZero(a, double) || isZero(b, double) || (isInfinite(c, double) && opposite)) return invalid(double);
    return infinity(sign, double);
  }
  if (isInfinite(c, double)) return c;
  if (isZero(a, double) || isZero(b, double)) return isZero(c, double) && opposite ? cancelled(double, mode) : c;
  if (isZero(c, double)) return multiply(a, b, double, mode);
  return addProduct(a, b, c, sign, opposite, double, mode);
}

/** All operands finite and non-zero; 128-bit significands with bit 126 leading, so that a sum fits. */
function addProduct(a: u64, b: u64, c: u64, sign: u64, opposite: bool, double: bool, mode: u32): u64 {
  const left = significandOf(a, double);
  const right = significandOf(b, double);
  let exponent = exponentOf(a, double) + exponentOf(b, double) + 1;
  let high = multiplyHigh(left, right);
  let low = left * right;
  if (high >> 63) {
    low = (low >> 1) | (high << 63);
    high >>= 1;
  } else exponent--;
  let otherHigh = significandOf(c, double) >> 1;
  let otherLow: u64 = 0;
  const distance = exponent - exponentOf(c, double);
  if (distance > 0) {
    otherLow = jamLow(otherHigh, otherLow, <u64>distance);
    otherHigh = distance > 63 ? 0 : otherHigh >> distance;
  } else if (distance < 0) {
    const jammed = jamLow(high, low, <u64>-distance);
    high = -distance > 63 ? 0 : high >> -distance;
    low = jammed;
    exponent -= distance;
  }
  if (!opposite) {
    low += otherLow;
    high += otherHigh + (low < otherLow ? 1 : 0);
  } else if (high > otherHigh || (high == otherHigh && low >= otherLow)) {
    high -= otherHigh + (low < otherLow ? 1 : 0);
    low -= otherLow;
  } else {
    high = otherHigh - high - (otherLow < low ? 1 : 0);
    low = otherLow - low;
    sign ^= 1;
  }
  if (!(high | low)) return cancelled(double, mode);
  if (high == 0) {
    high = low;
    low = 0;
    exponent -= 64;
  }
  const zeros = <i32>clz(high);
  if (zeros) {
    high = (high << zeros) | (low >> (64 - zeros));
    low <<= zeros;
  }
  return round(sign, exponent + 1 - zeros, high | (low ? 1 : 0), double, mode);
}

/** Low half of a 128-bit value shifted right by `count` > 0, with a sticky bit. */
function jamLow(high: u64, low: u64, count: u64): u64 {
  if (count > 127) return high | low ? 1 : 0;
  if (count > 63) return shiftRightJam(high, count - 64) | (low ? 1 : 0);
  return (low >> count) | (high << (64 - count)) | (low << (64 - count) ? 1 : 0);
}
