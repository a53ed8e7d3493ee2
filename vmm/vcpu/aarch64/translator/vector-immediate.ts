// Translated code of vector shifts by an immediate, and of vectors of an immediate (vector.ts). Instructions that saturate or round are the core's.
import { simd, vectorConstant } from "../../engine/translator/wasm-simd.ts";
import { type Emit, laneOp, pickLanes, push, type VectorFields, writing, writingHalf } from "./vector-lanes.ts";

/** SSHR, USHR, SSRA, USRA, SRI, SHL, SLI, SHRN, SSHLL, USHLL. */
export function shiftByImmediate(f: VectorFields): Emit | null {
  const { code, d, n, q, u } = f;
  const opcode = (code >>> 11) & 31;
  const field = (code >>> 16) & 127;
  const size = 31 - Math.clz32(field >>> 3);
  const bits = 8 << size;
  const right = 2 * bits - field;
  const left = field - bits;
  if (opcode === 16) return u || size === 3 ? null : narrowing(f, size, right);
  if (opcode === 20) return size === 3 ? null : lengthening(f, size, left);
  if (size === 3 && !q) return null;
  const constant = (value: bigint): bigint => repeated(value, bits);
  switch (opcode) {
    case 0:
      return writing(f, shiftedRight(n, size, right, u === 1));
    case 2:
      return writing(f, (x) => {
        push(x, d);
        shiftedRight(n, size, right, u === 1)(x);
        simd(x.code, laneOp(size, "add")!);
      });
    case 8: {
      if (!u) return null;
      const mask = right === bits ? 0n : constant(((1n << BigInt(bits)) - 1n) >> BigInt(right));
      return writing(f, (x) => {
        shiftedRight(n, size, right, true)(x);
        push(x, d);
        vectorConstant(x.code, mask, mask);
        simd(x.code, "v128.andnot", "v128.or");
      });
    }
    case 10: {
      const kept = constant((1n << BigInt(left)) - 1n);
      return writing(f, (x) => {
        push(x, n);
        x.code.i32(left);
        simd(x.code, laneOp(size, "shl")!);
        if (!u) return;
        push(x, d);
        vectorConstant(x.code, kept, kept);
        simd(x.code, "v128.and", "v128.or");
      });
    }
  }
  return null;
}

/** Pushes Vn's lanes shifted right by 1 to as many bits as they have. */
function shiftedRight(n: number, size: number, by: number, unsigned: boolean): Emit {
  const bits = 8 << size;
  return (x) => {
    if (unsigned && by === bits) return vectorConstant(x.code, 0n, 0n);
    push(x, n);
    x.code.i32(Math.min(by, bits - 1));
    simd(x.code, laneOp(size, unsigned ? "shr_u" : "shr_s")!);
  };
}

/** SHRN: lanes of twice the size, shifted, and the lower halves of them. */
function narrowing(f: VectorFields, size: number, right: number): Emit {
  const even = Array.from({ length: 8 >> size }, (_, i) => 2 * i);
  return writingHalf(f, (x) => {
    const shift = shiftedRight(f.n, size + 1, right, true);
    shift(x);
    push(x, f.n);
    pickLanes(x, size, even);
  });
}

function lengthening(f: VectorFields, size: number, left: number): Emit {
  const from = ["i8x16", "i16x8", "i32x4"][size];
  const extend = laneOp(size + 1, `extend_${f.q ? "high" : "low"}_${from}_${f.u ? "u" : "s"}`)!;
  return writing({ ...f, q: 1 }, (x) => {
    push(x, f.n);
    simd(x.code, extend);
    if (left === 0) return;
    x.code.i32(left);
    simd(x.code, laneOp(size + 1, "shl")!);
  });
}

/** A value of `bits` bits in each lane of 64. */
function repeated(value: bigint, bits: number): bigint {
  let all = value;
  for (let width = bits; width < 64; width *= 2) all |= all << BigInt(width);
  return all;
}

/** MOVI, MVNI, ORR, BIC (AdvSIMDExpandImm); those of floating point are the core's. */
export function immediateVector(f: VectorFields): Emit | null {
  const { code, d, u } = f;
  const cmode = (code >>> 12) & 15;
  if ((code >>> 11) & 1 || cmode === 15) return null;
  const imm8 = BigInt(((code >>> 11) & 0xe0) | ((code >>> 5) & 31));
  const inverted = u === 1 && cmode < 14;
  const plain = expanded(imm8, cmode, u === 1);
  const value = inverted ? ~plain & 0xffff_ffff_ffff_ffffn : plain;
  if (!(cmode & 1) || cmode >= 12) return writing(f, (x) => vectorConstant(x.code, value, value));
  return writing(f, (x) => {
    push(x, d);
    vectorConstant(x.code, value, value);
    simd(x.code, inverted ? "v128.and" : "v128.or");
  });
}

function expanded(imm8: bigint, cmode: number, masks: boolean): bigint {
  if (cmode < 8) return repeated(imm8 << BigInt((cmode >> 1) * 8), 32);
  if (cmode < 12) return repeated(imm8 << BigInt(((cmode >> 1) & 1) * 8), 16);
  if (cmode < 14) return repeated(cmode === 12 ? (imm8 << 8n) | 0xffn : (imm8 << 16n) | 0xffffn, 32);
  if (!masks) return repeated(imm8, 8);
  let bytes = 0n;
  for (let i = 0n; i < 8n; i++) if ((imm8 >> i) & 1n) bytes |= 0xffn << (i * 8n);
  return bytes;
}
