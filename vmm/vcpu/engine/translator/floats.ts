// Floats in translated code, by WebAssembly's own operations, which round to nearest even and have no flags: where value and flags are known to be right
// without looking (assembly/float-native.ts), and otherwise by the core's function. What is known to be right:
//
// - a sum or difference that is not huge: nothing of it is too small for the format, so it is exact or inexact, and what it lacks can be computed exactly
//   (Knuth's TwoSum, in which nothing overflows then);
// - a product, quotient or root in the middle of the exponents: exact or inexact; exact if operands and product are integers below 2^53;
// - inexact is a flag that may be raised already, and stays then.
import * as layout from "../assembly/layout.ts";
import { FLOAT_A, FLOAT_B, FLOAT_R, T } from "./region-writer.ts";
import type { Code } from "./wasm-code.ts";

const NX = 1;
const EXPONENTS = 0x7ff;
/** float-native.ts, comfortable64 and comfortable32: neither the least two nor the greatest exponents. */
const DOUBLES = 2040;
const SINGLES = 250;
const HUGE = 2 ** 1000;

export type FloatOperation = "add" | "sub" | "mul" | "div" | "sqrt";

/** One instruction's code: `fast` goes to the level that it is given for what it cannot do, `slow` does all of it. */
export function fastOrSlow(code: Code, fast: (toSlow: number) => void, slow: () => void): void {
  code.block();
  const done = code.depth - 1;
  code.block();
  fast(code.depth - 1);
  code.br(done);
  code.end();
  slow();
  code.end();
}

/** Pops an i32; on to the slow code unless it is true. */
export function orSlow(code: Code, toSlow: number): void {
  code.op("i32.eqz");
  code.brIf(toSlow);
}

/** Pushes whether NX has been raised. */
export function pushInexact(code: Code): void {
  code.i32(0);
  code.memory("i32.load", layout.FLOAT_FLAGS);
  code.i32(NX);
  code.op("i32.and");
}

/** Pops T = bits of a result of binary64; on to the slow code if its exponent is among the least or the greatest. */
function needComfortable(code: Code, toSlow: number): void {
  code.get(T);
  code.i64(52);
  code.op("i64.shr_u", "i32.wrap_i64");
  code.i32(EXPONENTS);
  code.op("i32.and");
  code.i32(2);
  code.op("i32.sub");
  code.i32(DOUBLES);
  code.op("i32.ge_u");
  code.brIf(toSlow);
}

/** T = bits of FLOAT_A operation FLOAT_B, rounded to nearest, with its flags as they are. Root: of FLOAT_A. */
export function doubleArithmetic(code: Code, operation: FloatOperation, toSlow: number): void {
  code.get(FLOAT_A);
  if (operation !== "sqrt") code.get(FLOAT_B);
  code.op(`f64.${operation}`);
  code.tee(FLOAT_R);
  code.op("i64.reinterpret_f64");
  code.set(T);
  if (operation === "add" || operation === "sub") {
    code.get(FLOAT_R);
    code.op("f64.abs");
    code.f64(HUGE);
    code.op("f64.lt");
    orSlow(code, toSlow);
  } else needComfortable(code, toSlow);
  pushInexact(code);
  if (operation === "div" || operation === "sqrt") {
    orSlow(code, toSlow);
    return;
  }
  code.op("i32.eqz");
  code.if();
  if (operation === "mul") exactProduct(code);
  else exactSum(code, operation);
  orSlow(code, toSlow);
  code.end();
}

/** Pushes whether FLOAT_R, which is not huge, is what the sum or difference of FLOAT_A and FLOAT_B is without rounding. */
function exactSum(code: Code, operation: "add" | "sub"): void {
  // b' = FLOAT_R − a; (a − (FLOAT_R − b')) + (±b − b') is what rounding took away
  code.get(FLOAT_A);
  code.get(FLOAT_R);
  code.get(FLOAT_R);
  code.get(FLOAT_A);
  code.op("f64.sub", "f64.sub", "f64.sub");
  code.get(FLOAT_R);
  code.get(FLOAT_A);
  code.op("f64.sub");
  code.get(FLOAT_B);
  // −(b' − b), −(b' + b): the sign of a zero does not matter
  code.op(operation === "add" ? "f64.sub" : "f64.add", "f64.eq");
}

/** Pushes whether FLOAT_A, FLOAT_B and their product are integers below 2^53. */
function exactProduct(code: Code): void {
  for (const operand of [FLOAT_A, FLOAT_B]) {
    code.get(operand);
    code.op("f64.nearest");
    code.get(operand);
    code.op("f64.eq");
  }
  code.op("i32.and");
  code.get(FLOAT_R);
  code.op("f64.abs");
  code.f64(2 ** 53);
  code.op("f64.lt", "i32.and");
}

/**
 * T = bits of FLOAT_A × FLOAT_B plus what `pushAddend` pushes, where all of them, the product and the sum are integers below 2^53, so that it does not matter
 * that it is rounded once; on to the slow code where they are not.
 */
export function integerMultiplyAdd(code: Code, pushAddend: () => void, toSlow: number): void {
  code.get(FLOAT_A);
  code.get(FLOAT_B);
  code.op("f64.mul");
  code.set(FLOAT_R);
  exactProduct(code);
  orSlow(code, toSlow);
  pushAddend();
  code.tee(FLOAT_A);
  code.op("f64.nearest");
  code.get(FLOAT_A);
  code.op("f64.eq");
  code.get(FLOAT_A);
  code.get(FLOAT_R);
  code.op("f64.add");
  code.tee(FLOAT_R);
  code.op("f64.abs");
  code.f64(2 ** 53);
  code.op("f64.lt", "i32.and");
  orSlow(code, toSlow);
  code.get(FLOAT_R);
  code.op("i64.reinterpret_f64");
  code.set(T);
}

/** T = bits (zero above) of what two binary32 at state addresses `a` and `b` give; on to the slow code unless NX has been raised. Root: of `a`. */
export function singleArithmetic(code: Code, operation: FloatOperation, a: number, b: number, toSlow: number): void {
  pushInexact(code);
  orSlow(code, toSlow);
  for (const address of operation === "sqrt" ? [a] : [a, b]) {
    code.i32(0);
    code.memory("f32.load", address);
  }
  code.op(`f32.${operation}`, "i32.reinterpret_f32", "i64.extend_i32_u");
  code.tee(T);
  code.i64(23);
  code.op("i64.shr_u", "i32.wrap_i64");
  code.i32(0xff);
  code.op("i32.and");
  code.i32(2);
  code.op("i32.sub");
  code.i32(SINGLES);
  code.op("i32.ge_u");
  code.brIf(toSlow);
}

/** Loads the double at a state address into a local. */
export function loadDouble(code: Code, address: number, local: number): void {
  code.i32(0);
  code.memory("f64.load", address);
  code.set(local);
}

/** FLOAT_A, FLOAT_B = binary32 at state addresses, which is exact but for a NaN that signals: it becomes quiet, but stays a NaN. */
export function loadSingle(code: Code, address: number, local: number): void {
  code.i32(0);
  code.memory("f32.load", address);
  code.op("f64.promote_f32");
  code.set(local);
}

/** On to the slow code if FLOAT_A or FLOAT_B is a NaN. */
export function needOrdered(code: Code, toSlow: number): void {
  for (const local of [FLOAT_A, FLOAT_B]) {
    code.get(local);
    code.get(local);
    code.op("f64.eq");
  }
  code.op("i32.and");
  orSlow(code, toSlow);
}

/** Pops an i64, pushes it as binary64; on to the slow code where that has to be rounded. `fits`: it never has. */
export function fromInteger(code: Code, fits: boolean, toSlow: number): void {
  code.set(T);
  if (!fits) {
    code.get(T);
    code.i64(2 ** 53 - 1);
    code.op("i64.add");
    code.i64(54);
    code.op("i64.shr_u", "i64.eqz");
    orSlow(code, toSlow);
  }
  code.get(T);
  code.op("f64.convert_i64_s", "i64.reinterpret_f64");
}

/** Integer types of conversions. */
export interface IntegerType {
  readonly signed: boolean;
  readonly wide: boolean;
}

/**
 * Pushes FLOAT_A as an integer, rounded towards zero; on to the slow code where the type does not hold it. `truncates`: the instruction rounds towards
 * zero; else a fraction is slow.
 */
export function toInteger(code: Code, { signed, wide }: IntegerType, truncates: boolean, toSlow: number): void {
  code.get(FLOAT_A);
  code.op("f64.trunc");
  code.set(FLOAT_R);
  // a fraction is inexact
  code.get(FLOAT_A);
  code.get(FLOAT_R);
  code.op("f64.eq");
  if (truncates) {
    pushInexact(code);
    code.op("i32.or");
  }
  orSlow(code, toSlow);
  code.get(FLOAT_A);
  if (signed) code.op("f64.abs");
  code.f64(wide ? 2 ** 63 : signed ? 2 ** 31 : 2 ** 32);
  code.op("f64.lt");
  if (!signed) {
    code.get(FLOAT_A);
    code.f64(0);
    code.op("f64.ge", "i32.and");
  }
  orSlow(code, toSlow);
  code.get(FLOAT_R);
  code.op("i64.trunc_f64_s");
}
