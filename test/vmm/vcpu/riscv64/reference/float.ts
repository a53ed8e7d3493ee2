// IEEE 754 in exact rational arithmetic: every finite number is a fraction of bigints, every operation is done on fractions without rounding, and
// one function rounds a fraction to a format, from the definition (choose among the two neighbouring representable numbers). Nothing here is
// shared with, or shaped like, the core's arithmetic.

export interface Format {
  readonly name: "s" | "d" | "h";
  readonly width: bigint;
  /** Bits of the significand, the hidden one included. */
  readonly precision: bigint;
  readonly emin: bigint;
  readonly emax: bigint;
}
export const SINGLE: Format = { name: "s", width: 32n, precision: 24n, emin: -126n, emax: 127n };
export const DOUBLE: Format = { name: "d", width: 64n, precision: 53n, emin: -1022n, emax: 1023n };
export const HALF: Format = { name: "h", width: 16n, precision: 11n, emin: -14n, emax: 15n };

export const NX = 1;
export const UF = 2;
export const OF = 4;
export const DZ = 8;
export const NV = 16;

/** rne, rtz, rdn, rup, rmm, numbered as in the rm field. */
export type Mode = 0 | 1 | 2 | 3 | 4;

export type Value =
  | { readonly kind: "nan"; readonly signaling: boolean }
  | { readonly kind: "infinite"; readonly negative: boolean }
  | { readonly kind: "finite"; readonly negative: boolean; readonly n: bigint; readonly d: bigint };

export interface Outcome {
  readonly bits: bigint;
  readonly flags: number;
}

const power = (exponent: bigint): { n: bigint; d: bigint } =>
  exponent >= 0n ? { n: 1n << exponent, d: 1n } : { n: 1n, d: 1n << -exponent };

export function decode(bits: bigint, format: Format): Value {
  const fractionBits = format.precision - 1n;
  const fraction = bits & ((1n << fractionBits) - 1n);
  const exponent = (bits >> fractionBits) & ((1n << (format.width - format.precision)) - 1n);
  const negative = bits >> (format.width - 1n) === 1n;
  if (exponent === format.emax * 2n + 1n) {
    if (fraction === 0n) return { kind: "infinite", negative };
    return { kind: "nan", signaling: fraction >> (fractionBits - 1n) === 0n };
  }
  const significand = exponent === 0n ? fraction : fraction + (1n << fractionBits);
  const scale = power((exponent === 0n ? 1n : exponent) - format.emax - fractionBits);
  return { kind: "finite", negative, n: significand * scale.n, d: scale.d };
}

const signBit = (negative: boolean, format: Format): bigint => (negative ? 1n << (format.width - 1n) : 0n);
export const canonicalNaN = (format: Format): bigint =>
  (((1n << (format.width - format.precision)) - 1n) << (format.precision - 1n)) | (1n << (format.precision - 2n));
export const infinity = (negative: boolean, format: Format): bigint =>
  signBit(negative, format) | (((1n << (format.width - format.precision)) - 1n) << (format.precision - 1n));
export const zero = (negative: boolean, format: Format): bigint => signBit(negative, format);

/** ⌊log2(n / d)⌋ for n, d > 0. */
function magnitude(n: bigint, d: bigint): bigint {
  let e = BigInt(n.toString(2).length - d.toString(2).length);
  const scale = power(e);
  if (n * scale.d < d * scale.n) e -= 1n;
  return e;
}

/** n / d as a multiple of 2^quantum, rounded to an integer by the mode. */
function toGrid(
  n: bigint,
  d: bigint,
  quantum: bigint,
  negative: boolean,
  mode: Mode,
): { integer: bigint; exact: boolean } {
  const scale = power(quantum);
  const numerator = n * scale.d;
  const denominator = d * scale.n;
  const below = numerator / denominator;
  const rest = numerator % denominator;
  if (rest === 0n) return { integer: below, exact: true };
  const twice = rest * 2n;
  const up =
    mode === 0
      ? twice > denominator || (twice === denominator && below % 2n === 1n)
      : mode === 4
        ? twice >= denominator
        : mode === 2
          ? negative
          : mode === 3 && !negative;
  return { integer: up ? below + 1n : below, exact: false };
}

/** Rounds ±n / d (n > 0) to the format. */
export function round(negative: boolean, n: bigint, d: bigint, format: Format, mode: Mode): Outcome {
  const places = format.precision - 1n;
  const e = magnitude(n, d);
  const quantum = (e > format.emin ? e : format.emin) - places;
  const { integer, exact } = toGrid(n, d, quantum, negative, mode);
  let flags = exact ? 0 : NX;
  if (!exact) {
    // tiny after rounding: as if the exponent were unbounded, still below the least normal number
    const free = toGrid(n, d, e - places, negative, mode);
    const scale = power(e - places);
    const least = power(format.emin);
    if (free.integer * scale.n * least.d < least.n * scale.d) flags |= UF;
  }
  if (integer === 0n) return { bits: zero(negative, format), flags };
  const limit = 1n << (format.emax + 1n);
  const scale = power(quantum);
  if (integer * scale.n >= limit * scale.d) {
    const toInfinity = mode === 0 || mode === 4 || (mode === 2 && negative) || (mode === 3 && !negative);
    return { bits: infinity(negative, format) - (toInfinity ? 0n : 1n), flags: flags | OF | NX };
  }
  let significand = integer;
  let exponent = quantum + places;
  if (significand >> format.precision > 0n) {
    significand >>= 1n;
    exponent += 1n;
  }
  const biased = significand >> places === 0n ? 0n : exponent + format.emax;
  const fraction = significand & ((1n << places) - 1n);
  return { bits: signBit(negative, format) | (biased << places) | fraction, flags };
}

const nan = (format: Format, flags: number): Outcome => ({ bits: canonicalNaN(format), flags });
const signals = (...values: Value[]): number => (values.some((v) => v.kind === "nan" && v.signaling) ? NV : 0);

/** A sum of two fractions that may be zero; `bothNegative` tells the sign of an exact zero of like-signed zeros. */
function finishSum(total: bigint, d: bigint, zeroSigns: readonly boolean[], format: Format, mode: Mode): Outcome {
  if (total !== 0n) return round(total < 0n, total < 0n ? -total : total, d, format, mode);
  const alike = zeroSigns.every((sign) => sign === zeroSigns[0]);
  return { bits: zero(alike ? zeroSigns[0]! : mode === 2, format), flags: 0 };
}

const signed = (v: { negative: boolean; n: bigint }): bigint => (v.negative ? -v.n : v.n);
export const negate = (v: Value): Value => (v.kind === "nan" ? v : { ...v, negative: !v.negative });

export function add(a: Value, b: Value, format: Format, mode: Mode): Outcome {
  if (a.kind === "nan" || b.kind === "nan") return nan(format, signals(a, b));
  if (a.kind === "infinite") {
    if (b.kind === "infinite" && a.negative !== b.negative) return nan(format, NV);
    return { bits: infinity(a.negative, format), flags: 0 };
  }
  if (b.kind === "infinite") return { bits: infinity(b.negative, format), flags: 0 };
  const total = signed(a) * b.d + signed(b) * a.d;
  // x + (−x) is not "two zeros of one sign", whatever x
  return finishSum(total, a.d * b.d, a.n === 0n && b.n === 0n ? [a.negative, b.negative] : [true, false], format, mode);
}

export function multiply(a: Value, b: Value, format: Format, mode: Mode): Outcome {
  if (a.kind === "nan" || b.kind === "nan") return nan(format, signals(a, b));
  const negative = a.negative !== b.negative;
  if (a.kind === "infinite" || b.kind === "infinite") {
    if ((a.kind === "finite" && a.n === 0n) || (b.kind === "finite" && b.n === 0n)) return nan(format, NV);
    return { bits: infinity(negative, format), flags: 0 };
  }
  const n = a.n * b.n;
  return n === 0n ? { bits: zero(negative, format), flags: 0 } : round(negative, n, a.d * b.d, format, mode);
}

export function divide(a: Value, b: Value, format: Format, mode: Mode): Outcome {
  if (a.kind === "nan" || b.kind === "nan") return nan(format, signals(a, b));
  const negative = a.negative !== b.negative;
  if (a.kind === "infinite") {
    return b.kind === "infinite" ? nan(format, NV) : { bits: infinity(negative, format), flags: 0 };
  }
  if (b.kind === "infinite") return { bits: zero(negative, format), flags: 0 };
  if (b.n === 0n) return a.n === 0n ? nan(format, NV) : { bits: infinity(negative, format), flags: DZ };
  if (a.n === 0n) return { bits: zero(negative, format), flags: 0 };
  return round(negative, a.n * b.d, a.d * b.n, format, mode);
}

function integerRoot(n: bigint): bigint {
  let x = 1n << BigInt((n.toString(2).length + 1) >> 1);
  for (;;) {
    const next = (x + n / x) >> 1n;
    if (next >= x) return x;
    x = next;
  }
}

export function squareRoot(a: Value, format: Format, mode: Mode): Outcome {
  if (a.kind === "nan") return nan(format, signals(a));
  if (a.kind === "finite" && a.n === 0n) return { bits: zero(a.negative, format), flags: 0 };
  if (a.negative) return nan(format, NV);
  if (a.kind === "infinite") return { bits: infinity(false, format), flags: 0 };
  // the root between k and k + 1 in units far below any rounding boundary; strictly between: their middle rounds like it
  const shift = 1400n;
  const square = (a.n << (2n * shift)) / a.d; // d is a power of two below 2^2048: exact
  const k = integerRoot(square);
  return k * k === square
    ? round(false, k, 1n << shift, format, mode)
    : round(false, 2n * k + 1n, 1n << (shift + 1n), format, mode);
}

/** a × b + c. */
export function fuse(a: Value, b: Value, c: Value, format: Format, mode: Mode): Outcome {
  const isZero = (v: Value): boolean => v.kind === "finite" && v.n === 0n;
  const invalid = (a.kind === "infinite" && isZero(b)) || (b.kind === "infinite" && isZero(a));
  if (a.kind === "nan" || b.kind === "nan" || c.kind === "nan")
    return nan(format, signals(a, b, c) | (invalid ? NV : 0));
  if (invalid) return nan(format, NV);
  const negative = a.negative !== b.negative;
  if (a.kind === "infinite" || b.kind === "infinite") {
    if (c.kind === "infinite" && c.negative !== negative) return nan(format, NV);
    return { bits: infinity(negative, format), flags: 0 };
  }
  if (c.kind === "infinite") return { bits: infinity(c.negative, format), flags: 0 };
  const product = (negative ? -1n : 1n) * a.n * b.n;
  const d = a.d * b.d;
  const zeros = product === 0n && c.n === 0n ? [negative, c.negative] : [true, false];
  return finishSum(product * c.d + signed(c) * d, d * c.d, zeros, format, mode);
}

export function convert(a: Value, format: Format, mode: Mode): Outcome {
  if (a.kind === "nan") return nan(format, signals(a));
  if (a.kind === "infinite") return { bits: infinity(a.negative, format), flags: 0 };
  return a.n === 0n ? { bits: zero(a.negative, format), flags: 0 } : round(a.negative, a.n, a.d, format, mode);
}

export interface IntegerType {
  readonly name: "w" | "wu" | "l" | "lu";
  readonly code: number;
  readonly least: bigint;
  readonly greatest: bigint;
  readonly width: 32 | 64;
}
export const INTEGER_TYPES: readonly IntegerType[] = [
  { name: "w", code: 0, least: -(1n << 31n), greatest: (1n << 31n) - 1n, width: 32 },
  { name: "wu", code: 1, least: 0n, greatest: (1n << 32n) - 1n, width: 32 },
  { name: "l", code: 2, least: -(1n << 63n), greatest: (1n << 63n) - 1n, width: 64 },
  { name: "lu", code: 3, least: 0n, greatest: (1n << 64n) - 1n, width: 64 },
];

/** Float to integer; bits is the whole register, 32-bit results sign-extended. */
export function toInteger(a: Value, type: IntegerType, mode: Mode): Outcome {
  const register = (value: bigint): bigint => BigInt.asUintN(64, type.width === 32 ? BigInt.asIntN(32, value) : value);
  if (a.kind === "nan") return { bits: register(type.greatest), flags: NV };
  if (a.kind === "infinite") return { bits: register(a.negative ? type.least : type.greatest), flags: NV };
  const { integer, exact } = toGrid(a.n, a.d, 0n, a.negative, mode);
  const value = a.negative ? -integer : integer;
  if (value < type.least) return { bits: register(type.least), flags: NV };
  if (value > type.greatest) return { bits: register(type.greatest), flags: NV };
  return { bits: register(value), flags: exact ? 0 : NX };
}

export function fromInteger(register: bigint, type: IntegerType, format: Format, mode: Mode): Outcome {
  const low = BigInt.asUintN(type.width, register);
  const value = type.least < 0n ? BigInt.asIntN(type.width, low) : low;
  return value === 0n ? { bits: 0n, flags: 0 } : round(value < 0n, value < 0n ? -value : value, 1n, format, mode);
}

/** −1, 0, 1, or null if unordered. */
export function order(a: Value, b: Value): number | null {
  if (a.kind === "nan" || b.kind === "nan") return null;
  const place = (v: Exclude<Value, { kind: "nan" }>): [bigint, bigint] =>
    v.kind === "infinite" ? [(v.negative ? -1n : 1n) << 1100n, 1n] : [signed(v), v.d];
  const [an, ad] = place(a);
  const [bn, bd] = place(b);
  const difference = an * bd - bn * ad;
  return difference < 0n ? -1 : difference > 0n ? 1 : 0;
}

/** Operands of a format where something happens, and random ones: uniform bits, and exponents near 1 so that operands meet. */
export function corners(format: Format): bigint[] {
  const places = format.precision - 1n;
  const one = format.emax << places;
  const list = [0n, 1n, 2n, 3n, (1n << places) - 1n, 1n << places, (1n << places) + 1n, (1n << (places + 1n)) + 5n];
  list.push(one, one + 1n, one - 1n, one + (1n << (places - 1n)), one + (1n << places), one - (1n << places));
  list.push(infinity(false, format) - 1n, infinity(false, format) - 2n, infinity(false, format) - (1n << places));
  list.push(infinity(false, format), infinity(false, format) + 1n, canonicalNaN(format), canonicalNaN(format) + 3n);
  // powers of two around the integers' limits
  for (const e of [31n, 32n, 52n, 53n, 62n, 63n, 64n, 65n])
    list.push((format.emax + e) << places, ((format.emax + e) << places) - 1n);
  return list.flatMap((bits) => [bits, bits | (1n << (format.width - 1n))]);
}

export function randomOperand(format: Format, next: () => number): bigint {
  const bits = BigInt.asUintN(Number(format.width), (BigInt(next()) << 32n) | BigInt(next()));
  const places = format.precision - 1n;
  const kind = next() % 4;
  if (kind === 0) return bits;
  const sign = bits & (1n << (format.width - 1n));
  // few significant bits make exact results and ties likely
  let fraction = bits & ((1n << places) - 1n);
  if (kind === 1) fraction = (fraction >> (places - 6n)) << (places - 6n);
  const spread = kind === 3 ? 140 : 8;
  const exponent = format.emax + BigInt((next() % spread) - (spread >> 1));
  if (exponent <= 0n || exponent > format.emax * 2n) return sign | fraction;
  return sign | (exponent << places) | fraction;
}
