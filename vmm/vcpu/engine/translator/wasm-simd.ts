// Vector instructions of WebAssembly (core specification §5.4.10: the 0xfd prefix), by their text names. An engine may lack them: SIMD says.
import type { Code } from "./wasm-code.ts";

export const SIMD_OP = {
  "i8x16.swizzle": 0x0e,
  "i8x16.splat": 0x0f,
  "i16x8.splat": 0x10,
  "i32x4.splat": 0x11,
  "i64x2.splat": 0x12,
  "i8x16.eq": 0x23,
  "i8x16.gt_s": 0x27,
  "i8x16.gt_u": 0x28,
  "i8x16.ge_s": 0x2b,
  "i8x16.ge_u": 0x2c,
  "i16x8.eq": 0x2d,
  "i16x8.gt_s": 0x31,
  "i16x8.gt_u": 0x32,
  "i16x8.ge_s": 0x35,
  "i16x8.ge_u": 0x36,
  "i32x4.eq": 0x37,
  "i32x4.gt_s": 0x3b,
  "i32x4.gt_u": 0x3c,
  "i32x4.ge_s": 0x3f,
  "i32x4.ge_u": 0x40,
  "v128.not": 0x4d,
  "v128.and": 0x4e,
  "v128.andnot": 0x4f,
  "v128.or": 0x50,
  "v128.xor": 0x51,
  "v128.bitselect": 0x52,
  "v128.any_true": 0x53,
  "i8x16.abs": 0x60,
  "i8x16.neg": 0x61,
  "i8x16.popcnt": 0x62,
  "i8x16.shl": 0x6b,
  "i8x16.shr_s": 0x6c,
  "i8x16.shr_u": 0x6d,
  "i8x16.add": 0x6e,
  "i8x16.add_sat_s": 0x6f,
  "i8x16.add_sat_u": 0x70,
  "i8x16.sub": 0x71,
  "i8x16.sub_sat_s": 0x72,
  "i8x16.sub_sat_u": 0x73,
  "i8x16.min_s": 0x76,
  "i8x16.min_u": 0x77,
  "i8x16.max_s": 0x78,
  "i8x16.max_u": 0x79,
  "i8x16.avgr_u": 0x7b,
  "i16x8.extadd_pairwise_i8x16_s": 0x7c,
  "i16x8.extadd_pairwise_i8x16_u": 0x7d,
  "i32x4.extadd_pairwise_i16x8_s": 0x7e,
  "i32x4.extadd_pairwise_i16x8_u": 0x7f,
  "i16x8.abs": 0x80,
  "i16x8.neg": 0x81,
  "i16x8.extend_low_i8x16_s": 0x87,
  "i16x8.extend_high_i8x16_s": 0x88,
  "i16x8.extend_low_i8x16_u": 0x89,
  "i16x8.extend_high_i8x16_u": 0x8a,
  "i16x8.shl": 0x8b,
  "i16x8.shr_s": 0x8c,
  "i16x8.shr_u": 0x8d,
  "i16x8.add": 0x8e,
  "i16x8.add_sat_s": 0x8f,
  "i16x8.add_sat_u": 0x90,
  "i16x8.sub": 0x91,
  "i16x8.sub_sat_s": 0x92,
  "i16x8.sub_sat_u": 0x93,
  "i16x8.mul": 0x95,
  "i16x8.min_s": 0x96,
  "i16x8.min_u": 0x97,
  "i16x8.max_s": 0x98,
  "i16x8.max_u": 0x99,
  "i16x8.avgr_u": 0x9b,
  "i32x4.abs": 0xa0,
  "i32x4.neg": 0xa1,
  "i32x4.extend_low_i16x8_s": 0xa7,
  "i32x4.extend_high_i16x8_s": 0xa8,
  "i32x4.extend_low_i16x8_u": 0xa9,
  "i32x4.extend_high_i16x8_u": 0xaa,
  "i32x4.shl": 0xab,
  "i32x4.shr_s": 0xac,
  "i32x4.shr_u": 0xad,
  "i32x4.add": 0xae,
  "i32x4.sub": 0xb1,
  "i32x4.mul": 0xb5,
  "i32x4.min_s": 0xb6,
  "i32x4.min_u": 0xb7,
  "i32x4.max_s": 0xb8,
  "i32x4.max_u": 0xb9,
  "i64x2.abs": 0xc0,
  "i64x2.neg": 0xc1,
  "i64x2.extend_low_i32x4_s": 0xc7,
  "i64x2.extend_high_i32x4_s": 0xc8,
  "i64x2.extend_low_i32x4_u": 0xc9,
  "i64x2.extend_high_i32x4_u": 0xca,
  "i64x2.shl": 0xcb,
  "i64x2.shr_s": 0xcc,
  "i64x2.shr_u": 0xcd,
  "i64x2.add": 0xce,
  "i64x2.sub": 0xd1,
  "i64x2.eq": 0xd6,
  "i64x2.gt_s": 0xd9,
  "i64x2.ge_s": 0xdb,
} as const;
export type SimdOp = keyof typeof SIMD_OP;

const EXTRACT_LANE64 = 0x1d;
const LOAD = 0x00;
const STORE = 0x0b;
const CONSTANT = 0x0c;
const SHUFFLE = 0x0d;
const STORE64_LANE = 0x5b;

export function simd(code: Code, ...names: SimdOp[]): void {
  for (const name of names) {
    code.byte(0xfd);
    code.unsigned(SIMD_OP[name]);
  }
}

/** v128.load, no alignment claimed. */
export function loadVector(code: Code, offset: number): void {
  code.bytes([0xfd, LOAD, 0]);
  code.unsigned(offset);
}

export function storeVector(code: Code, offset: number): void {
  code.bytes([0xfd, STORE, 0]);
  code.unsigned(offset);
}

/** v128.store64_lane 0. */
export function storeLowHalf(code: Code, offset: number): void {
  code.bytes([0xfd, STORE64_LANE, 0]);
  code.unsigned(offset);
  code.byte(0);
}

/** v128.const of two 64-bit halves. */
export function vectorConstant(code: Code, low: bigint, high: bigint): void {
  code.bytes([0xfd, CONSTANT]);
  for (const half of [low, high]) for (let at = 0n; at < 64n; at += 8n) code.byte(Number((half >> at) & 0xffn));
}

/** v128.const of 16 bytes. */
export function bytesConstant(code: Code, bytes: readonly number[]): void {
  code.bytes([0xfd, CONSTANT, ...bytes]);
}

/** i8x16.shuffle: 16 indices, 0 to 15 of the first operand, 16 to 31 of the second. */
export function shuffle(code: Code, indices: readonly number[]): void {
  code.bytes([0xfd, SHUFFLE]);
  code.bytes(indices);
}

/** Whether this engine compiles them: a module of one function (v128.const, drop) is valid. */
export const SIMD: boolean = WebAssembly.validate(
  Uint8Array.from([
    ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0, 1, 4, 1, 0x60, 0, 0, 3, 2, 1, 0, 10, 23, 1, 21, 0],
    ...[0xfd, CONSTANT, ...Array<number>(16).fill(0), 0x1a, 0x0b],
  ]),
);

/** Pops a vector, pushes its lower half as an i64. */
export function lowerHalf(code: Code): void {
  code.bytes([0xfd, EXTRACT_LANE64, 0]);
}
