// Translated code of scalar floats (DDI 0487, C4.1.96.25 and following), of binary64 and binary32: moves and selects; arithmetic, compares and conversions with
// general registers where engine/translator/floats.ts knows the result, and by the core's function (raw.ts) where not.
import {
  doubleArithmetic,
  type FloatOperation,
  fastOrSlow,
  fromInteger,
  integerMultiplyAdd,
  loadDouble,
  loadSingle,
  needOrdered,
  singleArithmetic,
  toInteger,
} from "../../engine/translator/floats.ts";
import { FLOAT_A, FLOAT_B, T } from "../../engine/translator/region-writer.ts";
import { FPCR, NZCV } from "../assembly/layout.ts";
import { type Emitting, low } from "./emitting.ts";
import { conditionBits, DIFFERENCE } from "./flags.ts";
import { clearUpper, type Emit, popGeneral, pushGeneral, vectorWord } from "./vector-lanes.ts";

/** FPCR: FZ and RMode. Without them denormal operands count, and results are rounded to nearest. */
const UNUSUAL = 0x1c00000;

const bits = (code: number, low: number, width: number): number => (code >>> low) & ((1 << width) - 1);

/** What calls the core's function for the instruction at hand. */
type Slow = Emit;

/** Writes what `value` pushes to Vd as a scalar: what lies above is zero. */
function write(x: Emitting, d: number, value: () => void): void {
  x.code.i32(0);
  value();
  x.code.memory("i64.store", vectorWord(d));
  clearUpper(x, d);
}

/** Pushes the scalar in Vn, zero-extended. */
function push(x: Emitting, n: number, double: boolean): void {
  x.code.i32(0);
  x.code.memory(double ? "i64.load" : "i64.load32_u", vectorWord(n));
}

function needUsual({ code }: Emitting, toSlow: number): void {
  code.i32(0);
  code.memory("i32.load", FPCR);
  code.i32(UNUSUAL);
  code.op("i32.and");
  code.brIf(toSlow);
}

/** `fast`, which may go to the level that it is given, where FPCR is as it mostly is. */
const usual =
  (slow: Slow, fast: (x: Emitting, toSlow: number) => void): Emit =>
  (x) =>
    fastOrSlow(
      x.code,
      (toSlow) => {
        needUsual(x, toSlow);
        fast(x, toSlow);
      },
      () => slow(x),
    );

const signBit = (double: boolean): bigint => 1n << (double ? 63n : 31n);

/** FMOV, FABS, FNEG: bits as they are, whatever they mean. */
function oneSource(code: number, double: boolean, slow: Slow): Emit | null {
  const [d, n, opcode] = [bits(code, 0, 5), bits(code, 5, 5), bits(code, 15, 6)];
  if (opcode === 3) return arithmetic(code, double, "sqrt", slow);
  if (opcode === (double ? 4 : 5)) return convert(code, double, slow);
  if (opcode > 2) return null;
  return (x) =>
    write(x, d, () => {
      push(x, n, double);
      if (opcode === 0) return;
      x.code.i64Big(opcode === 1 ? signBit(double) - 1n : signBit(double));
      x.code.op(opcode === 1 ? "i64.and" : "i64.xor");
    });
}

/** FCVT from binary32 to binary64, which is exact but for a NaN; the other way it is the core's. */
function convert(code: number, double: boolean, slow: Slow): Emit | null {
  if (double) return null;
  const [d, n] = [bits(code, 0, 5), bits(code, 5, 5)];
  return usual(slow, (x, toSlow) => {
    for (const local of [FLOAT_A, FLOAT_B]) loadSingle(x.code, vectorWord(n), local);
    needOrdered(x.code, toSlow);
    write(x, d, () => {
      x.code.get(FLOAT_A);
      x.code.op("i64.reinterpret_f64");
    });
  });
}

function arithmetic(code: number, double: boolean, operation: FloatOperation, slow: Slow): Emit {
  const [d, n, m] = [bits(code, 0, 5), bits(code, 5, 5), bits(code, 16, 5)];
  return usual(slow, (x, toSlow) => {
    if (double) {
      loadDouble(x.code, vectorWord(n), FLOAT_A);
      if (operation !== "sqrt") loadDouble(x.code, vectorWord(m), FLOAT_B);
      doubleArithmetic(x.code, operation, toSlow);
    } else singleArithmetic(x.code, operation, vectorWord(n), vectorWord(m), toSlow);
    write(x, d, () => x.code.get(T));
  });
}

const TWO_SOURCES: readonly FloatOperation[] = ["mul", "div", "add", "sub"];

/** FMOV of an immediate (VFPExpandImm). */
function immediate(code: number, double: boolean): Emit {
  const [d, imm8] = [bits(code, 0, 5), BigInt(bits(code, 13, 8))];
  const [exponent, fraction] = double ? [11n, 52n] : [8n, 23n];
  const high = (imm8 >> 6n) & 1n;
  const middle = (1n << (exponent - 3n)) - 1n;
  const field = ((1n - high) << (exponent - 1n)) | (high * (middle << 2n)) | ((imm8 >> 4n) & 3n);
  const value = ((imm8 >> 7n) << (exponent + fraction)) | (field << fraction) | ((imm8 & 15n) << (fraction - 4n));
  return (x) => write(x, d, () => x.code.i64Big(value));
}

/** FCSEL. */
function select(code: number, double: boolean): Emit {
  const [d, n, m] = [bits(code, 0, 5), bits(code, 5, 5), bits(code, 16, 5)];
  return (x) =>
    write(x, d, () => {
      push(x, n, double);
      push(x, m, double);
      x.condition(conditionBits(bits(code, 12, 4)));
      x.code.op("select");
    });
}

/**
 * FCMP, FCMPE. The flags are kept as those of a difference of integers: 0 − 1 less, 1 − 1 equal, 2 − 1 (or 3 − 1) greater, −2^63 − 1 unordered.
 */
function compare(code: number, double: boolean, slow: Slow): Emit | null {
  const [n, m, opcode] = [bits(code, 5, 5), bits(code, 16, 5), bits(code, 0, 5)];
  if ((opcode & 7) !== 0 || bits(code, 14, 2) !== 0) return null;
  const load = double ? loadDouble : loadSingle;
  const fast = (x: Emitting, toSlow: number): void => {
    load(x.code, vectorWord(n), FLOAT_A);
    if ((opcode & 8) === 0) load(x.code, vectorWord(m), FLOAT_B);
    else {
      x.code.f64(0);
      x.code.set(FLOAT_B);
    }
    needOrdered(x.code, toSlow);
    for (const op of ["f64.gt", "f64.lt"] as const) {
      x.code.get(FLOAT_A);
      x.code.get(FLOAT_B);
      x.code.op(op);
    }
    x.code.op("i32.sub", "i64.extend_i32_s");
    x.code.i64(1);
    x.code.op("i64.add");
    x.code.set(T);
  };
  const slowly: Emit = (x) => {
    slow(x);
    // NZCV: 8 less, 6 equal, 2 greater, 3 unordered
    x.code.i64Big(-(2n ** 63n));
    x.code.i64(8);
    x.w.get(NZCV);
    x.code.op("i64.sub");
    x.code.i64(1);
    x.code.op("i64.shr_u");
    x.w.get(NZCV);
    x.code.i64(3);
    x.code.op("i64.eq", "select");
    x.code.set(T);
  };
  return (x) => {
    usual(slowly, fast)(x);
    x.code.get(T);
    x.code.i64(1);
    x.flags.keep(DIFFERENCE);
  };
}

/** FMADD, FMSUB, FNMADD, FNMSUB of binary64: of integers; all else is rounded once, by the core. */
function multiplyAdd(code: number, double: boolean, slow: Slow): Emit | null {
  if (!double) return null;
  const [d, n, m, a] = [bits(code, 0, 5), bits(code, 5, 5), bits(code, 16, 5), bits(code, 10, 5)];
  const negatesSum = bits(code, 21, 1) === 1;
  const negatesProduct = negatesSum !== (bits(code, 15, 1) === 1);
  return usual(slow, (x, toSlow) => {
    loadDouble(x.code, vectorWord(n), FLOAT_A);
    if (negatesProduct) {
      x.code.get(FLOAT_A);
      x.code.op("f64.neg");
      x.code.set(FLOAT_A);
    }
    loadDouble(x.code, vectorWord(m), FLOAT_B);
    const pushAddend = (): void => {
      x.code.i32(0);
      x.code.memory("f64.load", vectorWord(a));
      if (negatesSum) x.code.op("f64.neg");
    };
    integerMultiplyAdd(x.code, pushAddend, toSlow);
    write(x, d, () => x.code.get(T));
  });
}

/** SCVTF, UCVTF of a register that binary64 holds; FCVT…S, FCVT…U of what the integer type holds. */
function withInteger(code: number, double: boolean, slow: Slow): Emit | null {
  const [d, n, mode, opcode] = [bits(code, 0, 5), bits(code, 5, 5), bits(code, 19, 2), bits(code, 16, 3)];
  const type = { signed: (opcode & 1) === 0, wide: code >>> 31 === 1 };
  if (opcode === 2 || opcode === 3) {
    if (!double || mode !== 0 || (type.wide && !type.signed)) return null;
    return (x) =>
      fastOrSlow(
        x.code,
        (toSlow) => {
          pushGeneral(x, n);
          if (!type.wide && type.signed) x.code.op("i64.extend32_s");
          else if (!type.wide) low(x.code);
          writeInteger(x, d, !type.wide, toSlow);
        },
        () => slow(x),
      );
  }
  if (opcode > 1) return null;
  return usual(slow, (x, toSlow) => {
    (double ? loadDouble : loadSingle)(x.code, vectorWord(n), FLOAT_A);
    toInteger(x.code, type, mode === 3, toSlow);
    if (!type.wide) low(x.code);
    popGeneral(x, d);
  });
}

/** Pops an integer, writes it to Vd as binary64. */
function writeInteger(x: Emitting, d: number, fits: boolean, toSlow: number): void {
  fromInteger(x.code, fits, toSlow);
  x.code.set(T);
  write(x, d, () => x.code.get(T));
}

/** SCVTF and FCVTZS between the 64 bits of two V registers. */
function inVectors(code: number, slow: Slow): Emit | null {
  const [d, n] = [bits(code, 0, 5), bits(code, 5, 5)];
  if ((code & 0xfffffc00) >>> 0 === 0x5e61d800) {
    return (x) =>
      fastOrSlow(
        x.code,
        (toSlow) => {
          push(x, n, true);
          writeInteger(x, d, false, toSlow);
        },
        () => slow(x),
      );
  }
  if ((code & 0xfffffc00) >>> 0 !== 0x5ee1b800) return null;
  return usual(slow, (x, toSlow) => {
    loadDouble(x.code, vectorWord(n), FLOAT_A);
    toInteger(x.code, { signed: true, wide: true }, true, toSlow);
    x.code.set(T);
    write(x, d, () => x.code.get(T));
  });
}

/** The code of a float instruction (bits 27:25 set), null if it is the core's alone. `slow` writes the call of it. */
export function floatEmitter(code: number, slow: Slow): Emit | null {
  const top = code >>> 24;
  if (top === 0x5e) return inVectors(code, slow);
  const double = bits(code, 22, 2) === 1;
  if (bits(code, 23, 1) === 1) return null;
  if (top === 0x1f) return multiplyAdd(code, double, slow);
  if ((top & 0x7f) !== 0x1e || bits(code, 21, 1) === 0) return null;
  if (bits(code, 10, 6) === 0) return withInteger(code, double, slow);
  if (top !== 0x1e) return null;
  switch (bits(code, 10, 2)) {
    case 0:
      if (bits(code, 12, 1) === 1) return bits(code, 5, 5) === 0 ? immediate(code, double) : null;
      if (bits(code, 13, 1) === 1) return compare(code, double, slow);
      return bits(code, 14, 1) === 1 ? oneSource(code, double, slow) : null;
    case 2: {
      const operation = TWO_SOURCES[bits(code, 12, 4)];
      return operation === undefined ? null : arithmetic(code, double, operation, slow);
    }
    case 3:
      return select(code, double);
  }
  return null;
}
