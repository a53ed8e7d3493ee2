// Translated code of Advanced SIMD on integer lanes (DDI 0487, C4.1.96), with WebAssembly's vectors on the registers in memory: what maps onto a few of
// their instructions. The rest, and everything where the engine has no vectors, is called in the core (raw.ts).
import { VECTOR_A, VECTOR_B } from "../../engine/translator/region-writer.ts";
import { bytesConstant, lowerHalf, SIMD, shuffle, simd } from "../../engine/translator/wasm-simd.ts";
import { QC } from "../assembly/layout.ts";
import type { Emitting } from "./emitting.ts";
import { immediateVector, shiftByImmediate } from "./vector-immediate.ts";
import {
  between,
  type Emit,
  fieldsOf,
  laneOp,
  pickLanes,
  push,
  pushZero,
  type VectorFields,
  writing,
  writingHalf,
} from "./vector-lanes.ts";
import { copy, extract, moveScalar, permute, table } from "./vector-permute.ts";

const UNSIGNED = 32;
/** Three same, by opcode (+ 32 with U): the operation on Vn and Vm. */
const THREE_SAME = new Map<number, string>([
  [6, "gt_s"],
  [7, "ge_s"],
  [12, "max_s"],
  [13, "min_s"],
  [16, "add"],
  [19, "mul"],
  [UNSIGNED + 2, "avgr_u"],
  [UNSIGNED + 6, "gt_u"],
  [UNSIGNED + 7, "ge_u"],
  [UNSIGNED + 12, "max_u"],
  [UNSIGNED + 13, "min_u"],
  [UNSIGNED + 16, "sub"],
  [UNSIGNED + 17, "eq"],
]);
/** On neighbours. */
const PAIRWISE = new Map<number, string>([
  [20, "max_s"],
  [21, "min_s"],
  [23, "add"],
  [UNSIGNED + 20, "max_u"],
  [UNSIGNED + 21, "min_u"],
]);

function logical(f: VectorFields): Emit {
  const { d, n, m } = f;
  const which = 4 * f.u + f.size;
  return writing(f, (x) => {
    if (which === 0) between(x, "v128.and", n, m);
    else if (which === 1) between(x, "v128.andnot", n, m);
    else if (which === 2) between(x, "v128.or", n, m);
    else if (which === 3) {
      push(x, n);
      push(x, m);
      simd(x.code, "v128.not", "v128.or");
    } else if (which === 4) between(x, "v128.xor", n, m);
    else {
      // BSL: Vd chooses Vn or Vm; BIT, BIF: Vm chooses Vn or Vd, Vd or Vn
      const operands = which === 5 ? [n, m, d] : which === 6 ? [n, d, m] : [d, n, m];
      for (const register of operands) push(x, register);
      simd(x.code, "v128.bitselect");
    }
  });
}

function threeSame(f: VectorFields): Emit | null {
  const { d, n, m, q, u, size } = f;
  const opcode = (f.code >>> 11) & 31;
  if (opcode === 3) return logical(f);
  if (size === 3 && !q) return null;
  const plain = laneOp(size, THREE_SAME.get(opcode + UNSIGNED * u));
  if (plain !== null) return writing(f, (x) => between(x, plain, n, m));
  const paired = laneOp(size, PAIRWISE.get(opcode + UNSIGNED * u));
  if (paired !== null) {
    const count = (8 << q) >> size;
    const pairs = Array.from({ length: count }, (_, i) => (i < count / 2 ? 2 * i : (16 >> size) + 2 * i - count));
    return writing(f, (x) => {
      push(x, n);
      push(x, m);
      pickLanes(x, size, pairs);
      push(x, n);
      push(x, m);
      pickLanes(
        x,
        size,
        pairs.map((lane) => lane + 1),
      );
      simd(x.code, paired);
    });
  }
  if (opcode === 8 && size === 0) return shiftBytes(f);
  if (opcode === 1 || opcode === 5) return saturating(f, opcode === 1 ? "add" : "sub");
  if (opcode === 17 && !u) {
    const equal = laneOp(size, "eq")!; // CMTST
    return writing(f, (x) => {
      between(x, "v128.and", n, m);
      pushZero(x.code);
      simd(x.code, equal, "v128.not");
    });
  }
  const product = laneOp(size, "mul");
  if (opcode === 18 && product !== null) {
    const sum = laneOp(size, u ? "sub" : "add")!; // MLA, MLS
    return writing(f, (x) => {
      push(x, d);
      between(x, product, n, m);
      simd(x.code, sum);
    });
  }
  return null;
}

/** SQADD, UQADD, SQSUB, UQSUB of bytes and halfwords; FPSR.QC says that a lane is not what it is without saturation. */
function saturating(f: VectorFields, name: "add" | "sub"): Emit | null {
  const { n, m, q, u, size } = f;
  const op = laneOp(size, `${name}_sat_${u ? "u" : "s"}`);
  const plain = laneOp(size, name)!;
  if (op === null) return null;
  const write = writing(f, (x) => x.code.get(VECTOR_A));
  return (x) => {
    const { code } = x;
    between(x, op, n, m);
    code.set(VECTOR_A);
    between(x, plain, n, m);
    code.get(VECTOR_A);
    simd(code, "v128.xor");
    if (q) simd(code, "v128.any_true");
    else {
      lowerHalf(code);
      code.i64(0);
      code.op("i64.ne");
    }
    code.if();
    code.i32(0);
    code.i32(1);
    code.memory("i32.store", QC);
    code.end();
    write(x);
  };
}

/** Powers of two by the shift that they stand for, in a table for swizzle: to the left 0 to 7; to the right 1 to 8, times 256, and further with `beyond`. */
const LEFT_FACTORS = [1, 2, 4, 8, 16, 32, 64, 128, 0, 0, 0, 0, 0, 0, 0, 0];
const rightFactors = (beyond: number): number[] => [0, 128, 64, 32, 16, 8, 4, 2, 1, ...Array<number>(7).fill(beyond)];

/**
 * SSHL, USHL of bytes by the signed bytes of Vm: products of 16 bits with a power of two, whose lower bytes are what a shift to the left leaves and whose
 * upper bytes what one to the right does.
 */
function shiftBytes(f: VectorFields): Emit {
  const { n, m, u } = f;
  const kind = u ? "u" : "s";
  const product = (x: Emitting, half: "low" | "high"): void => {
    push(x, n);
    simd(x.code, `i16x8.extend_${half}_i8x16_${kind}`);
    x.code.get(VECTOR_A);
    simd(x.code, `i16x8.extend_${half}_i8x16_u`, "i16x8.mul");
  };
  return writing(f, (x) => {
    const { code } = x;
    const isLeft = (): void => {
      push(x, m);
      pushZero(code);
      simd(code, "i8x16.ge_s");
    };
    bytesConstant(code, LEFT_FACTORS);
    push(x, m);
    simd(code, "i8x16.swizzle");
    bytesConstant(code, rightFactors(u ? 0 : 1));
    push(x, m);
    simd(code, "i8x16.neg");
    bytesConstant(code, Array<number>(16).fill(15));
    simd(code, "i8x16.min_u", "i8x16.swizzle");
    isLeft();
    simd(code, "v128.bitselect");
    code.set(VECTOR_A);
    product(x, "low");
    code.set(VECTOR_B);
    product(x, "high");
    code.set(VECTOR_A);
    for (const first of [0, 1]) {
      code.get(VECTOR_B);
      code.get(VECTOR_A);
      shuffle(
        code,
        Array.from({ length: 16 }, (_, i) => 2 * i + first),
      );
    }
    isLeft();
    simd(code, "v128.bitselect");
  });
}

/** Two-register miscellaneous. */
function twoMiscellaneous(f: VectorFields): Emit | null {
  const { n, q, u, size } = f;
  const opcode = (f.code >>> 12) & 31;
  const lanes = 16 >> size;
  if (opcode === 18 && !u && size < 3) {
    const even = Array.from({ length: 8 >> size }, (_, i) => 2 * i); // XTN
    return writingHalf(f, (x) => {
      push(x, n);
      push(x, n);
      pickLanes(x, size, even);
    });
  }
  if (size === 3 && !q) return null;
  const unary = opcode === 11 ? laneOp(size, u ? "neg" : "abs") : opcode === 5 ? bytewise(size, u) : null;
  if (unary !== null)
    return writing(f, (x) => {
      push(x, n);
      simd(x.code, unary);
    });
  if (opcode < 2) {
    // REV64, REV32; REV16
    const container = opcode === 1 ? 1 : u ? 2 : 3;
    if (size >= container || (opcode === 1 && u)) return null;
    const flip = (1 << (container - size)) - 1;
    return writing(f, (x) => {
      push(x, n);
      push(x, n);
      pickLanes(
        x,
        size,
        Array.from({ length: lanes }, (_, i) => i ^ flip),
      );
    });
  }
  // against zero: CMGT, CMGE; CMEQ, CMLE; CMLT
  const [name, zeroFirst] =
    opcode === 8
      ? [u ? "ge_s" : "gt_s", false]
      : opcode === 9
        ? [u ? "ge_s" : "eq", u === 1]
        : opcode === 10 && !u
          ? ["gt_s", true]
          : [undefined, false];
  const compare = laneOp(size, name);
  if (compare === null) return null;
  return writing(f, (x) => {
    if (zeroFirst) pushZero(x.code);
    push(x, n);
    if (!zeroFirst) pushZero(x.code);
    simd(x.code, compare);
  });
}

/** CNT; NOT. */
function bytewise(size: number, u: number) {
  if (size !== 0) return null;
  return u ? ("v128.not" as const) : ("i8x16.popcnt" as const);
}

/** An encoding group: what of the instruction says that it belongs here. */
const GROUPS: readonly (readonly [mask: number, value: number, emitter: (f: VectorFields) => Emit | null])[] = [
  [0x9f200400, 0x0e200400, threeSame],
  [0x9f3e0c00, 0x0e200800, twoMiscellaneous],
  [0x9f800400, 0x0f000400, (f) => (((f.code >>> 19) & 15) === 0 ? immediateVector(f) : shiftByImmediate(f))],
  [0x9fe08400, 0x0e000400, copy],
  [0xbfe08400, 0x2e000000, extract],
  [0xbfe09c00, 0x0e000000, table],
  [0xbf208c00, 0x0e000800, permute],
  [0x7f20fc00, 0x1e200000, moveScalar],
  [0xffe0fc00, 0x5e000400, moveScalar],
];

/** The code of an instruction whose bits 27:25 are 111, null if it is the core's. It assumes that vectors may be used. */
export function vectorEmitter(code: number): Emit | null {
  if (!SIMD) return null;
  const group = GROUPS.find(([mask, value]) => (code & mask) >>> 0 === value);
  return group === undefined ? null : group[2](fieldsOf(code));
}
