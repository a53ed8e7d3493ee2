// IEEE 754 binary32, binary64 and binary16 as integers: classes, normalised significands, and the one place that rounds.
//
// A finite non-zero value is (sign, exponent, significand): significand / 2⁶³ × 2^exponent with bit 63 set. Bit 0 is sticky: it stands for
// everything below. Every operation computes such a triple and calls round(), which sets NX, UF, OF; an instruction set
// says whether tininess is detected before or after rounding. Values of type u64; narrower ones are in the low bits.
// A `format` is SINGLE, DOUBLE or HALF; where only the first two can come, callers pass whether it is binary64.
import { FLOAT_FLAGS, TINY_BEFORE_ROUNDING } from "./layout";

export const SINGLE: u32 = 0;
export const DOUBLE: u32 = 1;
export const HALF: u32 = 2;

export const NX: u32 = 1;
export const UF: u32 = 2;
export const OF: u32 = 4;
export const DZ: u32 = 8;
export const NV: u32 = 16;

export const RNE: u32 = 0;
export const RTZ: u32 = 1;
export const RDN: u32 = 2;
export const RUP: u32 = 3;
export const RMM: u32 = 4;

@inline
export function raise(flags: u32): void {
  store<u32>(FLOAT_FLAGS, load<u32>(FLOAT_FLAGS) | flags);
}

@inline
export function precision(format: u32): u32 {
  return format == DOUBLE ? 53 : format == SINGLE ? 24 : 11;
}

@inline
export function bias(format: u32): i32 {
  return format == DOUBLE ? 1023 : format == SINGLE ? 127 : 15;
}

/** Where the sign is. */
@inline
function signPlace(format: u32): u64 {
  return format == DOUBLE ? 63 : format == SINGLE ? 31 : 15;
}

/** The bit that tells a quiet NaN from a signaling one. */
@inline
function quietBit(format: u32): u64 {
  return <u64>1 << (precision(format) - 2);
}

@inline
export function signOf(bits: u64, format: u32): u64 {
  return (bits >> signPlace(format)) & 1;
}

/** Everything but the sign. */
@inline
export function magnitude(bits: u64, format: u32): u64 {
  return bits & ((<u64>1 << signPlace(format)) - 1);
}

@inline
export function infinity(sign: u64, format: u32): u64 {
  return zero(sign, format) | (format == DOUBLE ? 0x7ff0000000000000 : format == SINGLE ? 0x7f800000 : 0x7c00);
}

@inline
export function zero(sign: u64, format: u32): u64 {
  return sign << signPlace(format);
}

@inline
export function canonicalNaN(format: u32): u64 {
  return infinity(0, format) | quietBit(format);
}

@inline
export function isNaN(bits: u64, format: u32): bool {
  return magnitude(bits, format) > infinity(0, format);
}

@inline
export function isInfinite(bits: u64, format: u32): bool {
  return magnitude(bits, format) == infinity(0, format);
}

@inline
export function isZero(bits: u64, format: u32): bool {
  return magnitude(bits, format) == 0;
}

@inline
export function isSignaling(bits: u64, format: u32): bool {
  return isNaN(bits, format) && !(bits & quietBit(format));
}

/** NaN result of an operation with a NaN operand: canonical, NV if one is signaling. */
export function propagate(a: u64, b: u64, format: u32): u64 {
  if (isSignaling(a, format) || isSignaling(b, format)) raise(NV);
  return canonicalNaN(format);
}

/** NaN result of an invalid operation. */
export function invalid(format: u32): u64 {
  raise(NV);
  return canonicalNaN(format);
}

/** Exponent of a finite non-zero value. */
export function exponentOf(bits: u64, format: u32): i32 {
  const p = precision(format);
  const m = magnitude(bits, format);
  const biased = <i32>(m >> (p - 1));
  if (biased) return biased - bias(format);
  return 63 - <i32>clz(m) + 1 - bias(format) - <i32>(p - 1);
}

/** Significand of a finite non-zero value, bit 63 set. */
export function significandOf(bits: u64, format: u32): u64 {
  const p = precision(format);
  const m = magnitude(bits, format);
  if (m >> (p - 1)) return (m << (64 - p)) | (<u64>1 << 63);
  return m << clz(m);
}

/** value >> count, with every bit shifted out kept as the sticky bit 0. */
export function shiftRightJam(value: u64, count: u64): u64 {
  if (count == 0) return value;
  if (count > 63) return value ? 1 : 0;
  return (value >> count) | (value << (64 - count) ? 1 : 0);
}

/** True if the `drop` low bits round the rest up. */
@inline
function roundsUp(sign: u64, significand: u64, drop: u32, mode: u32): bool {
  const rest = significand & ((<u64>1 << drop) - 1);
  const half = <u64>1 << (drop - 1);
  if (mode == RNE) return rest > half || (rest == half && ((significand >> drop) & 1) != 0);
  if (mode == RMM) return rest >= half;
  if (mode == RDN) return sign != 0 && rest != 0;
  if (mode == RUP) return sign == 0 && rest != 0;
  return false;
}

/** Rounds and packs; raises NX, UF, OF. */
export function round(sign: u64, exponent: i32, significand: u64, format: u32, mode: u32): u64 {
  const p = precision(format);
  const drop = 64 - p;
  const least = 1 - bias(format);
  let biased = exponent + bias(format);
  let tiny = false;
  if (exponent < least) {
    // tiny unless rounding to p bits with an unbounded exponent reaches the least normal number
    const all = <u64>-1 << drop;
    tiny = load<u32>(TINY_BEFORE_ROUNDING) != 0 || exponent < least - 1 || (significand & all) != all || !roundsUp(sign, significand, drop, mode);
    significand = shiftRightJam(significand, <u64>(least - exponent));
    biased = 1;
  }
  const inexact = (significand & ((<u64>1 << drop) - 1)) != 0;
  const kept = (significand >> drop) + (roundsUp(sign, significand, drop, mode) ? 1 : 0);
  if (inexact) raise(tiny ? NX | UF : NX);
  // kept has its leading bit at p − 1 (none if subnormal), which carries into the exponent field, as a round-up to 2^p does
  const packed = (<u64>(biased - 1) << (p - 1)) + kept;
  if (packed >= infinity(0, format)) {
    raise(OF | NX);
    const away = mode == RNE || mode == RMM || (mode == RDN ? sign != 0 : mode == RUP && sign == 0);
    return infinity(sign, format) - (away ? 0 : 1);
  }
  return packed | zero(sign, format);
}
