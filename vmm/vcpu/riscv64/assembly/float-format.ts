// IEEE 754 binary32 and binary64 as integers: classes, normalised significands, and the one place that rounds.
//
// A finite non-zero value is (sign, exponent, significand): significand / 2⁶³ × 2^exponent with bit 63 set. Bit 0 is sticky: it stands for
// everything below. Every operation computes such a triple and calls round(), which sets NX, UF, OF as the F extension wants them (tininess is
// detected after rounding). Values of type u64; a binary32 is in the low half.
import { FFLAGS } from "./layout";

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
  store<u32>(FFLAGS, load<u32>(FFLAGS) | flags);
}

@inline
export function precision(double: bool): u32 {
  return double ? 53 : 24;
}

@inline
export function bias(double: bool): i32 {
  return double ? 1023 : 127;
}

@inline
export function signOf(bits: u64, double: bool): u64 {
  return double ? bits >> 63 : (bits >> 31) & 1;
}

/** Everything but the sign. */
@inline
export function magnitude(bits: u64, double: bool): u64 {
  return bits & (double ? 0x7fffffffffffffff : 0x7fffffff);
}

@inline
export function infinity(sign: u64, double: bool): u64 {
  return double ? (sign << 63) | 0x7ff0000000000000 : (sign << 31) | 0x7f800000;
}

@inline
export function zero(sign: u64, double: bool): u64 {
  return double ? sign << 63 : sign << 31;
}

@inline
export function canonicalNaN(double: bool): u64 {
  return double ? 0x7ff8000000000000 : 0x7fc00000;
}

@inline
export function isNaN(bits: u64, double: bool): bool {
  return magnitude(bits, double) > infinity(0, double);
}

@inline
export function isInfinite(bits: u64, double: bool): bool {
  return magnitude(bits, double) == infinity(0, double);
}

@inline
export function isZero(bits: u64, double: bool): bool {
  return magnitude(bits, double) == 0;
}

@inline
export function isSignaling(bits: u64, double: bool): bool {
  return isNaN(bits, double) && !(bits & (double ? 0x8000000000000 : 0x400000));
}

/** NaN result of an operation with a NaN operand: canonical, NV if one is signaling. */
export function propagate(a: u64, b: u64, double: bool): u64 {
  if (isSignaling(a, double) || isSignaling(b, double)) raise(NV);
  return canonicalNaN(double);
}

/** NaN result of an invalid operation. */
export function invalid(double: bool): u64 {
  raise(NV);
  return canonicalNaN(double);
}

/** Exponent of a finite non-zero value. */
export function exponentOf(bits: u64, double: bool): i32 {
  const p = precision(double);
  const m = magnitude(bits, double);
  const biased = <i32>(m >> (p - 1));
  if (biased) return biased - bias(double);
  return 63 - <i32>clz(m) + 1 - bias(double) - <i32>(p - 1);
}

/** Significand of a finite non-zero value, bit 63 set. */
export function significandOf(bits: u64, double: bool): u64 {
  const p = precision(double);
  const m = magnitude(bits, double);
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
export function round(sign: u64, exponent: i32, significand: u64, double: bool, mode: u32): u64 {
  const p = precision(double);
  const drop = 64 - p;
  const least = 1 - bias(double);
  let biased = exponent + bias(double);
  let tiny = false;
  if (exponent < least) {
    // tiny unless rounding to p bits with an unbounded exponent reaches the least normal number
    const all = <u64>-1 << drop;
    tiny = exponent < least - 1 || (significand & all) != all || !roundsUp(sign, significand, drop, mode);
    significand = shiftRightJam(significand, <u64>(least - exponent));
    biased = 1;
  }
  const inexact = (significand & ((<u64>1 << drop) - 1)) != 0;
  const kept = (significand >> drop) + (roundsUp(sign, significand, drop, mode) ? 1 : 0);
  if (inexact) raise(tiny ? NX | UF : NX);
  // kept has its leading bit at p − 1 (none if subnormal), which carries into the exponent field, as a round-up to 2^p does
  const packed = (<u64>(biased - 1) << (p - 1)) + kept;
  if (packed >= infinity(0, double)) {
    raise(OF | NX);
    const away = mode == RNE || mode == RMM || (mode == RDN ? sign != 0 : mode == RUP && sign == 0);
    return infinity(sign, double) - (away ? 0 : 1);
  }
  return packed | zero(sign, double);
}
