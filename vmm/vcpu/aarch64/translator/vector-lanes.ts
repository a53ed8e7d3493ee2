// Vector registers in translated code: they stay in memory, an instruction loads what it reads and stores what it writes.
import type { Code } from "../../engine/translator/wasm-code.ts";
import {
  loadVector,
  SIMD_OP,
  type SimdOp,
  shuffle,
  simd,
  storeLowHalf,
  storeVector,
  vectorConstant,
} from "../../engine/translator/wasm-simd.ts";
import { V, X } from "../assembly/layout.ts";
import type { Emitting } from "./emitting.ts";

export type Emit = (x: Emitting) => void;

/** Lanes by the field `size`. */
const SHAPES = ["i8x16", "i16x8", "i32x4", "i64x2"] as const;

/** Fields that the encodings have in common; q, u: 0 or 1. */
export interface VectorFields {
  readonly code: number;
  readonly d: number;
  readonly n: number;
  readonly m: number;
  readonly q: number;
  readonly u: number;
  readonly size: number;
}

export function fieldsOf(code: number): VectorFields {
  const bits = (low: number, width: number): number => (code >>> low) & ((1 << width) - 1);
  return { code, d: bits(0, 5), n: bits(5, 5), m: bits(16, 5), q: bits(30, 1), u: bits(29, 1), size: bits(22, 2) };
}

/** WebAssembly's operation `name` on lanes of 8 << size bits; null if it has none. */
export function laneOp(size: number, name: string | undefined): SimdOp | null {
  const full = `${SHAPES[size]}.${name}`;
  return full in SIMD_OP ? (full as SimdOp) : null;
}

export const vectorWord = (register: number): number => V + (register & 31) * 16;

export function push(x: Emitting, register: number): void {
  x.code.i32(0);
  loadVector(x.code, vectorWord(register));
}

/** Pushes Xn; 31 is XZR. */
export function pushGeneral(x: Emitting, n: number): void {
  if (n === 31) x.code.i64(0);
  else x.w.get(X + n * 8);
}

/** Pops into Xd. */
export function popGeneral(x: Emitting, d: number): void {
  if (d === 31) x.code.op("drop");
  else x.w.set(X + d * 8);
}

export function pushZero(code: Code): void {
  vectorConstant(code, 0n, 0n);
}

/** Pushes Vn op Vm. */
export function between(x: Emitting, op: SimdOp, n: number, m: number): void {
  push(x, n);
  push(x, m);
  simd(x.code, op);
}

/** Writes what `value` pushes to Vd; without Q its upper half becomes zero. */
export function writing({ d, q }: VectorFields, value: Emit): Emit {
  return (x) => {
    x.code.i32(0);
    value(x);
    storeVector(x.code, vectorWord(d));
    if (!q) clearUpper(x, d);
  };
}

export function clearUpper({ code }: Emitting, register: number): void {
  code.i32(0);
  code.i64(0);
  code.memory("i64.store", vectorWord(register) + 8);
}

/** Writes the lower half of what `value` pushes: to Vd's lower half, the upper one zero; with Q to its upper half, the lower one kept. */
export function writingHalf({ d, q }: VectorFields, value: Emit): Emit {
  return (x) => {
    x.code.i32(0);
    value(x);
    storeLowHalf(x.code, vectorWord(d) + 8 * q);
    if (!q) clearUpper(x, d);
  };
}

/** Pops two vectors, pushes lanes of 1 << size bytes of them, by number: those of the second follow those of the first. Lanes not named are any. */
export function pickLanes({ code }: Emitting, size: number, lanes: readonly number[]): void {
  const bytes = 1 << size;
  const indices = lanes.flatMap((lane) => Array.from({ length: bytes }, (_, byte) => lane * bytes + byte));
  shuffle(
    code,
    Array.from({ length: 16 }, (_, at) => indices[at] ?? 0),
  );
}
