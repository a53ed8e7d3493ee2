// Translated code of what moves lanes about (vector.ts): copies between lanes and general registers, EXT, TBL, ZIP, UZP, TRN, FMOV.
import { type SimdOp, shuffle, simd, vectorConstant } from "../../engine/translator/wasm-simd.ts";
import type { Emitting } from "./emitting.ts";
import {
  clearUpper,
  type Emit,
  pickLanes,
  popGeneral,
  push,
  pushGeneral,
  type VectorFields,
  vectorWord,
  writing,
} from "./vector-lanes.ts";

const LOADS = ["i64.load8_u", "i64.load16_u", "i64.load32_u", "i64.load"] as const;
const SIGNED_LOADS = ["i64.load8_s", "i64.load16_s", "i64.load32_s"] as const;
const STORES = ["i64.store8", "i64.store16", "i64.store32", "i64.store"] as const;
const SPLATS: readonly SimdOp[] = ["i8x16.splat", "i16x8.splat", "i32x4.splat", "i64x2.splat"];

/** Pushes a lane, zero-extended. */
function pushLane(x: Emitting, register: number, size: number, index: number): void {
  x.code.i32(0);
  x.code.memory(LOADS[size]!, vectorWord(register) + (index << size));
}

/** Writes what `value` pushes to a lane. */
const writingLane =
  (register: number, size: number, index: number, value: Emit): Emit =>
  (x) => {
    x.code.i32(0);
    value(x);
    x.code.memory(STORES[size]!, vectorWord(register) + (index << size));
  };

/** Writes what `value` pushes to Vd as a scalar of 64 bits at most: what lies above is zero. */
const writingScalar =
  (d: number, value: Emit): Emit =>
  (x) => {
    x.code.i32(0);
    value(x);
    x.code.memory("i64.store", vectorWord(d));
    clearUpper(x, d);
  };

/** DUP, INS, SMOV, UMOV. */
export function copy(f: VectorFields): Emit | null {
  const { code, d, n, q, u } = f;
  const imm5 = (code >>> 16) & 31;
  const imm4 = (code >>> 11) & 15;
  if ((imm5 & 15) === 0) return null;
  const size = 31 - Math.clz32(imm5 & -imm5);
  const index = imm5 >>> (size + 1);
  if (u) return q ? writingLane(d, size, index, (x) => pushLane(x, n, size, imm4 >>> size)) : null;
  switch (imm4) {
    case 0:
      if (size === 3 && !q) return null;
      return writing(f, (x) => {
        push(x, n);
        push(x, n);
        pickLanes(x, size, Array<number>(16 >> size).fill(index));
      });
    case 1:
      if (size === 3 && !q) return null;
      return writing(f, (x) => {
        pushGeneral(x, n);
        if (size < 3) x.code.op("i32.wrap_i64");
        simd(x.code, SPLATS[size]!);
      });
    case 3:
      return q ? writingLane(d, size, index, (x) => pushGeneral(x, n)) : null;
    case 5:
      if (size > (q ? 2 : 1)) return null;
      return (x) => {
        x.code.i32(0);
        x.code.memory(SIGNED_LOADS[size]!, vectorWord(n) + (index << size));
        if (!q) {
          x.code.i64(0xffffffff);
          x.code.op("i64.and");
        }
        popGeneral(x, d);
      };
    case 7:
      if (q ? size !== 3 : size === 3) return null;
      return (x) => {
        pushLane(x, n, size, index);
        popGeneral(x, d);
      };
  }
  return null;
}

/** DUP of a lane to a scalar; FMOV between registers of the same size. */
export function moveScalar({ code, d, n }: VectorFields): Emit | null {
  if (code >>> 24 === 0x5e) {
    const imm5 = (code >>> 16) & 31;
    if ((imm5 & 15) === 0) return null;
    const size = 31 - Math.clz32(imm5 & -imm5);
    return writingScalar(d, (x) => pushLane(x, n, size, imm5 >>> (size + 1)));
  }
  const toGeneral =
    (size: number, index: number): Emit =>
    (x) => {
      pushLane(x, n, size, index);
      popGeneral(x, d);
    };
  switch (code >>> 10) {
    case 0x9e660000 >>> 10:
      return toGeneral(3, 0);
    case 0x9eae0000 >>> 10:
      return toGeneral(3, 1);
    case 0x1e260000 >>> 10:
      return toGeneral(2, 0);
    case 0x9e670000 >>> 10:
      return writingScalar(d, (x) => pushGeneral(x, n));
    case 0x9eaf0000 >>> 10:
      return writingLane(d, 3, 1, (x) => pushGeneral(x, n));
    case 0x1e270000 >>> 10:
      return writingScalar(d, (x) => {
        pushGeneral(x, n);
        x.code.i64(0xffffffff);
        x.code.op("i64.and");
      });
  }
  return null;
}

/** EXT: bytes of Vm behind those of Vn, from a position. */
export function extract(f: VectorFields): Emit | null {
  const { code, n, m, q } = f;
  const bytes = 8 << q;
  const from = (code >>> 11) & 15;
  if (from >= bytes) return null;
  const indices = Array.from({ length: 16 }, (_, i) => {
    const at = (from + i) % (2 * bytes);
    return at < bytes ? at : 16 + at - bytes;
  });
  return writing(f, (x) => {
    push(x, n);
    push(x, m);
    shuffle(x.code, indices);
  });
}

/** TBL: a swizzle for each register of the table, of indices that count from it; those outside give zero. */
export function table(f: VectorFields): Emit | null {
  const { code, n, m } = f;
  const registers = ((code >>> 13) & 3) + 1;
  return writing(f, (x) => {
    for (let k = 0; k < registers; k++) {
      push(x, n + k);
      push(x, m);
      if (k > 0) {
        const before = BigInt(k * 16) * 0x0101_0101_0101_0101n;
        vectorConstant(x.code, before, before);
        simd(x.code, "i8x16.sub");
      }
      simd(x.code, "i8x16.swizzle");
      if (k > 0) simd(x.code, "v128.or");
    }
  });
}

/** UZP1 1, TRN1 2, ZIP1 3, UZP2 5, TRN2 6, ZIP2 7. */
export function permute(f: VectorFields): Emit | null {
  const { code, n, m, q, size } = f;
  const opcode = (code >>> 12) & 7;
  if ((size === 3 && !q) || (opcode & 3) === 0) return null;
  const count = (8 << q) >> size;
  const second = opcode >>> 2;
  const ofM = 16 >> size;
  const lanes = Array.from({ length: count }, (_, i) => {
    if ((opcode & 3) === 1) {
      const at = 2 * i + second;
      return at < count ? at : ofM + at - count;
    }
    const at = (opcode & 3) === 2 ? (i & ~1) + second : (i >> 1) + (second * count) / 2;
    return i & 1 ? ofM + at : at;
  });
  return writing(f, (x) => {
    push(x, n);
    push(x, m);
    pickLanes(x, size, lanes);
  });
}
