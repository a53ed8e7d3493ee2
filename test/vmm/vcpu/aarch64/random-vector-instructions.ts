// Random A64 floating-point and Advanced SIMD instructions by group of the encoding table, for differential tests. Loads and stores use X1 as base, X2 as index.

import type { Draw } from "./random-instructions.ts";

export function randomVectorInstruction(draw: Draw): number {
  const bits = (count: number): number => draw(2 ** count);
  const at = (count: number, low: number): number => bits(count) * 2 ** low;
  const pick = (...of: number[]): number => of[draw(of.length)]!;
  const [d, n, m] = [bits(5), bits(5), bits(5)];
  const [q, u, size] = [at(1, 30), at(1, 29), at(2, 22)];
  const type = pick(0, 0, 1, 1, 3) * 2 ** 22;
  const nd = n * 32 + d;
  const mnd = m * 2 ** 16 + nd;
  const t = d;
  const shifts = pick(0, 2, 4, 6, 8, 10, 12, 14, 16, 17, 18, 19, 20, 28, 31) * 2 ** 11;
  const groups: (() => number)[] = [
    () => q + u + 0x0e200400 + size + mnd + at(5, 11), // three same
    () => u + 0x5e200400 + size + mnd + at(5, 11),
    () => q + u + 0x0e200000 + size + mnd + at(4, 12), // three different
    () => 0x5e200000 + size + mnd + pick(9, 11, 13) * 2 ** 12,
    () => q + u + 0x0e200800 + size + nd + at(5, 12), // two-register miscellaneous
    () => u + 0x5e200800 + size + nd + at(5, 12),
    () => q + u + 0x0e300800 + size + nd + at(5, 12), // across lanes
    () => u + 0x5e300800 + size + nd + at(5, 12), // pairwise
    () => q + u + 0x0e000400 + at(4, 11) + at(5, 16) + nd, // copy
    () => 0x5e000400 + at(5, 16) + nd,
    () => q + 0x2e000000 + mnd + at(4, 11), // EXT
    () => q + 0x0e000000 + mnd + at(3, 12), // TBL
    () => q + 0x0e000800 + size + mnd + at(3, 12), // ZIP
    () => q + u + 0x0f000400 + at(3, 16) + at(4, 12) + at(5, 5) + d, // immediate
    () => q + u + 0x0f000400 + (bits(7) | 8) * 2 ** 16 + shifts + nd,
    () => u + 0x5f000400 + (bits(7) | 8) * 2 ** 16 + shifts + nd,
    () => q + u + 0x0f000000 + size + at(6, 16) + at(4, 12) + at(1, 11) + nd, // by element
    () => u + 0x5f000000 + size + at(6, 16) + at(4, 12) + at(1, 11) + nd,
    () => 0x1e204000 + type + at(5, 15) + nd, // floats: one source
    () => 0x1e200800 + type + at(4, 12) + mnd,
    () => 0x1f000000 + type + at(1, 21) + at(1, 15) + at(5, 10) + mnd,
    () => 0x1e202000 + type + m * 2 ** 16 + n * 32 + pick(0, 8, 16, 24), // FCMP
    () => 0x1e200400 + type + m * 2 ** 16 + at(4, 12) + n * 32 + bits(5),
    () => 0x1e200c00 + type + at(4, 12) + mnd, // FCSEL
    () => 0x1e201000 + type + at(8, 13) + d, // FMOV
    () => at(1, 31) + 0x1e200000 + type + at(5, 16) + nd, // to and from integers
    () => at(1, 31) + 0x1e260000 + pick(0, 1, 2) * 2 ** 22 + at(2, 19) + at(1, 16) + nd,
    () => at(1, 31) + 0x1e000000 + type + pick(2, 3, 24, 25) * 2 ** 16 + at(6, 10) + nd,
    () => at(1, 31) + 0x1ac04000 + at(3, 10) + mnd, // CRC32
    () => at(2, 30) + 0x3d000000 + at(2, 22) + at(7, 10) + 32 + t,
    () => at(2, 30) + 0x3c000000 + at(2, 22) + at(9, 12) + pick(0, 1, 3) * 2 ** 10 + 32 + t,
    () => at(2, 30) + 0x3c200800 + at(2, 22) + 2 * 2 ** 16 + pick(2, 3, 6, 7) * 2 ** 13 + at(1, 12) + 32 + t,
    () => pick(0, 1, 2) * 2 ** 30 + 0x2c000000 + at(2, 23) + at(1, 22) + at(7, 15) + ((t + 1) % 32) * 2 ** 10 + 32 + t,
    () => q + 0x0c000000 + at(1, 22) + at(4, 12) + at(2, 10) + 32 + t, // LD1…LD4
    () => q + 0x0c800000 + at(1, 22) + pick(31, 2) * 2 ** 16 + at(4, 12) + at(2, 10) + 32 + t,
    () => q + 0x0d000000 + at(2, 21) + at(3, 13) + at(1, 12) + at(2, 10) + 32 + t,
    () => q + 0x0d800000 + at(2, 21) + pick(31, 2) * 2 ** 16 + at(3, 13) + at(1, 12) + at(2, 10) + 32 + t,
  ];
  return groups[draw(groups.length)]!();
}

const EDGES32 = [0, 0x80000000, 0x7f800000, 0xff800000, 0x7fc00000, 0x7f800001, 0x3f800000, 1, 0x807fffff, 0x800000];
const EDGES64 = [0n, 1n << 63n, 0x7ffn << 52n, 0xfffn << 52n, 0x7ff8n << 48n, (0x7ffn << 52n) | 1n, 0x3ffn << 52n, 1n];

/** A V register: any bits, lanes at their edges, or floats of ordinary size. */
export function randomVector(draw: Draw): bigint {
  const view = new DataView(new ArrayBuffer(16));
  const any = (): number => draw(2 ** 32);
  const kind = draw(7);
  for (let i = 0; i < 4; i++) {
    if (kind === 1) view.setFloat32(i * 4, (draw(2 ** 20) - 2 ** 19) / 2 ** draw(20), true);
    else if (kind === 2) view.setUint32(i * 4, EDGES32[draw(EDGES32.length)]!, true);
    else if (kind === 4) view.setUint32(i * 4, [0, 1, 0x7fffffff, 0x80000000, 0xffffffff][draw(5)]!, true);
    else view.setUint32(i * 4, any(), true);
  }
  for (let i = 0; i < 2 && (kind === 3 || kind === 5); i++) {
    if (kind === 3) view.setFloat64(i * 8, (draw(2 ** 30) - 2 ** 29) / 2 ** draw(40), true);
    else view.setBigUint64(i * 8, EDGES64[draw(EDGES64.length)]!, true);
  }
  for (let i = 0; i < 8 && kind === 6; i++)
    view.setUint16(i * 2, [0, 1, 0x7f80, 0x8000, 0xffff, 0x7fff, any() & 0xffff][draw(7)]!, true);
  return (view.getBigUint64(8, true) << 64n) | view.getBigUint64(0, true);
}
