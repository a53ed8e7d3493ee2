// Saturation (shared pseudocode, SatQ) and shifts by a register, on lanes of 8 << size bits. Sums are looked at for what they lose before they lose it.
import { full, signedOf } from "./lanes";
import { QC } from "./layout";

export function saturated(): void {
  store<u32>(QC, 1);
}

@inline
function greatest(size: u32): i64 {
  return <i64>(full(size) >> 1);
}

@inline
function least(size: u32): i64 {
  return -greatest(size) - 1;
}

/** A signed value that fits 64 bits, to a signed lane. */
export function toSigned(value: i64, size: u32): u64 {
  if (value > greatest(size)) {
    saturated();
    return <u64>greatest(size);
  }
  if (value < least(size)) {
    saturated();
    return <u64>least(size);
  }
  return <u64>value;
}

/** An unsigned value, to an unsigned lane. */
export function toUnsigned(value: u64, size: u32): u64 {
  if (value <= full(size)) return value;
  saturated();
  return full(size);
}

/** A signed value, to an unsigned lane. */
export function signedToUnsigned(value: i64, size: u32): u64 {
  if (value >= 0) return toUnsigned(<u64>value, size);
  saturated();
  return 0;
}

export function addSigned(a: i64, b: i64, size: u32): u64 {
  const sum = a + b;
  if (size == 3 && ((a ^ sum) & (b ^ sum)) < 0) {
    saturated();
    return a < 0 ? <u64>1 << 63 : <u64>-1 >> 1;
  }
  return toSigned(sum, size);
}

export function subtractSigned(a: i64, b: i64, size: u32): u64 {
  const difference = a - b;
  if (size == 3 && ((a ^ b) & (a ^ difference)) < 0) {
    saturated();
    return a < 0 ? <u64>1 << 63 : <u64>-1 >> 1;
  }
  return toSigned(difference, size);
}

export function addUnsigned(a: u64, b: u64, size: u32): u64 {
  const sum = a + b;
  if (size == 3 && sum < a) {
    saturated();
    return <u64>-1;
  }
  return toUnsigned(sum, size);
}

export function subtractUnsigned(a: u64, b: u64): u64 {
  if (a >= b) return a - b;
  saturated();
  return 0;
}

/** SUQADD: a signed accumulator and an unsigned addend. */
export function addUnsignedToSigned(a: i64, b: u64, size: u32): u64 {
  if (size == 3) {
    const sum = <u64>a + b;
    // beyond the greatest, or once round
    if (a >= 0 ? sum < b || sum >> 63 : b >= <u64>(-a) && (b - <u64>(-a)) >> 63) {
      saturated();
      return <u64>-1 >> 1;
    }
    return sum;
  }
  return toSigned(a + <i64>b, size);
}

/** USQADD: an unsigned accumulator and a signed addend. */
export function addSignedToUnsigned(a: u64, b: i64, size: u32): u64 {
  if (size == 3) {
    const sum = a + <u64>b;
    if (b >= 0 && sum < a) {
      saturated();
      return <u64>-1;
    }
    if (b < 0 && a < <u64>(-b)) {
      saturated();
      return 0;
    }
    return sum;
  }
  return signedToUnsigned(<i64>a + b, size);
}

/** (value + rounding) >> count, as if of unlimited width; count 1…64. */
export function shiftRightUnsigned(value: u64, count: u32, rounds: bool): u64 {
  if (count > 64) return 0;
  if (count == 64) return rounds ? value >> 63 : 0;
  const shifted = value >> <u64>count;
  return rounds ? shifted + ((value >> <u64>(count - 1)) & 1) : shifted;
}

export function shiftRightSigned(value: i64, count: u32, rounds: bool): i64 {
  if (count > 63) return rounds ? 0 : value >> 63;
  const shifted = value >> <i64>count;
  return rounds ? shifted + ((value >> <i64>(count - 1)) & 1) : shifted;
}

/** SSHL, SRSHL, SQSHL, SQRSHL: left by a signed count, right if that is negative. */
export function shiftSigned(value: i64, by: i32, size: u32, rounds: bool, saturates: bool): u64 {
  if (by < 0) return <u64>shiftRightSigned(value, <u32>-by, rounds);
  const bits = <i32>(8 << size);
  if (!saturates) return by >= bits ? 0 : <u64>value << <u64>by;
  if (value == 0) return 0;
  const fits = by < bits && signedOf(<u64>value << <u64>by, size) >> <i64>by == value;
  if (fits) return <u64>value << <u64>by;
  saturated();
  return value < 0 ? <u64>least(size) : <u64>greatest(size);
}

export function shiftUnsigned(value: u64, by: i32, size: u32, rounds: bool, saturates: bool): u64 {
  if (by < 0) return shiftRightUnsigned(value, <u32>-by, rounds);
  const bits = <i32>(8 << size);
  if (!saturates) return by >= bits ? 0 : value << <u64>by;
  if (value == 0) return 0;
  if (by < bits && ((value << <u64>by) & full(size)) >> <u64>by == value) return value << <u64>by;
  saturated();
  return full(size);
}

/** SQSHLU: a signed value left, to an unsigned lane. */
export function shiftSignedToUnsigned(value: i64, by: i32, size: u32): u64 {
  if (value >= 0) return shiftUnsigned(<u64>value, by, size, false, true);
  saturated();
  return 0;
}

/** (2 × a × b [+ half]) >> bits of a lane, saturated; size 1, 2. */
export function doublingHigh(a: i64, b: i64, size: u32, rounds: bool): u64 {
  const bits: i64 = 8 << size;
  if (a == b && a == least(size)) {
    saturated();
    return <u64>greatest(size);
  }
  return <u64>((2 * a * b + (rounds ? <i64>1 << (bits - 1) : 0)) >> bits);
}

/** 2 × a × b of lanes of 16 or 32 bits, saturated to twice their width. */
export function doublingProduct(a: i64, b: i64, size: u32): i64 {
  if (a == b && a == least(size)) {
    saturated();
    return <i64>(full(size + 1) >> 1);
  }
  return 2 * a * b;
}
