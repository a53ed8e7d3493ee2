// Operands at which a shortcut for floats could be wrong, for the tests of what translators write (float-translation.test.ts of each instruction set).
const view = new DataView(new ArrayBuffer(8));

/** Bits of a value as binary64. */
export function doubleBits(value: number): bigint {
  view.setFloat64(0, value);
  return view.getBigUint64(0);
}

/** Rounded to binary32. */
export function singleBits(value: number): bigint {
  view.setFloat32(0, value);
  return BigInt(view.getUint32(0));
}

const ULP_AT_TOP = 2 ** 971;
/** The ends of the exponents, integers around 2^53 and the other types, halves. */
export const MAGNITUDES = [
  ...[0, 1, 2, 3, 5, 7, 97, 0.5, 1.5, 2.5, 0.1, 1 / 3, 65521, 2 ** 24 - 1, 2 ** 24, 2 ** 31 - 0.5, 2 ** 31 - 1],
  ...[
    2 ** 31,
    2 ** 32 - 1,
    2 ** 32,
    94906265,
    2 ** 27 + 1,
    2 ** 52 + 0.5,
    2 ** 53 - 1,
    2 ** 53,
    2 ** 53 + 2,
    2 ** 62,
    2 ** 63,
    2 ** 64,
  ],
  ...[
    Number.MIN_VALUE,
    2 ** -1022,
    2 ** -1021,
    2 ** -1020,
    2 ** -540,
    2 ** 540,
    2 ** 999,
    2 ** 1000,
    2 ** 1019,
    2 ** 1023,
  ],
  ...[Number.MAX_VALUE, 3 * (ULP_AT_TOP / 2), ULP_AT_TOP, 2 ** -149, 2 ** -126, 2 ** 127, 1.5 * 2 ** 127],
  ...[Number.POSITIVE_INFINITY, Number.NaN],
];

export const INTEGERS: readonly bigint[] = [
  0n,
  1n,
  -1n,
  2n ** 31n - 1n,
  2n ** 31n,
  2n ** 32n - 1n,
  -(2n ** 31n),
].concat([52n, 53n, 54n, 63n].flatMap((bit) => [-1n, 0n, 1n].flatMap((by) => [2n ** bit + by, -(2n ** bit) + by])));

/** Operands that the first seeds have: sums at the top whose rounding is not seen by a TwoSum that overflows, integers whose product is not below 2^53. */
export const PAIRS: readonly (readonly [number, number])[] = [0, 1, 2, 3, 4, 5, 6, 7].flatMap(() => [
  [-3 * (ULP_AT_TOP / 2), Number.MAX_VALUE] as const,
  [3 * (ULP_AT_TOP / 2), Number.MAX_VALUE] as const,
  [2 ** 27 + 1, 2 ** 27 + 1] as const,
  [2 ** 27 + 1, 94906265] as const,
]);
