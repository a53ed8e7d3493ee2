// Translated code of F and D other than loads and stores: moves and sign injections; arithmetic, compares and conversions where engine/translator/floats.ts
// knows the result, and by the core's function (emit.ts) where not.
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
import { FLOAT_A, FLOAT_B, type RegionWriter, T } from "../../engine/translator/region-writer.ts";
import type { Code } from "../../engine/translator/wasm-code.ts";
import { F, FRM, X } from "../assembly/layout.ts";

/** What writes an instruction's code; that of `slow` calls the core. */
export type FloatEmit = (w: RegionWriter) => void;

const OP_FP = 0x53;
const RTZ = 1;
const RMM = 4;
const DYN = 7;
const BOX = 0xffffffff00000000n;

const bits = (code: number, low: number, width: number): number => (code >>> low) & ((1 << width) - 1);
const word = (register: number): number => F + register * 8;

interface Fields {
  readonly rd: number;
  readonly rs1: number;
  readonly rs2: number;
  readonly funct3: number;
  readonly double: boolean;
}

/** Writes what `value` pushes, the bits of the instruction's format, zero above, to a register. */
function write(code: Code, { rd, double }: Pick<Fields, "rd" | "double">, value: () => void): void {
  code.i32(0);
  value();
  if (!double) {
    code.i64Big(BOX);
    code.op("i64.or");
  }
  code.memory("i64.store", word(rd));
}

/** Pushes the bits of a register in the instruction's format. */
function push(code: Code, register: number, double: boolean): void {
  code.i32(0);
  code.memory(double ? "i64.load" : "i64.load32_u", word(register));
}

/** On to the slow code if a register that should hold a binary32 is not NaN-boxed. */
function needBoxed(code: Code, registers: readonly number[], toSlow: number): void {
  for (const register of new Set(registers)) {
    code.i32(0);
    code.memory("i32.load", word(register) + 4);
    code.i32(-1);
    code.op("i32.ne");
    code.brIf(toSlow);
  }
}

/** FLOAT_A = rs1, and FLOAT_B = rs2 if there is one. */
function loadOperands(code: Code, double: boolean, registers: readonly number[], toSlow: number): void {
  if (!double) needBoxed(code, registers, toSlow);
  registers.forEach((register, n) => {
    (double ? loadDouble : loadSingle)(code, word(register), n === 0 ? FLOAT_A : FLOAT_B);
  });
}

/** `fast`, which may go to the level that it is given, and `slow` behind it. */
const either =
  (slow: FloatEmit, fast: (w: RegionWriter, toSlow: number) => void): FloatEmit =>
  (w) =>
    fastOrSlow(
      w.code,
      (toSlow) => fast(w, toSlow),
      () => slow(w),
    );

/** The same where the instruction rounds to nearest even; null where it does not. */
function rounding({ funct3 }: Fields, slow: FloatEmit, fast: (w: RegionWriter, toSlow: number) => void) {
  if (funct3 !== 0 && funct3 !== DYN) return null;
  return either(slow, (w, toSlow) => {
    if (funct3 === DYN) {
      w.code.i32(0);
      w.code.memory("i32.load", FRM);
      w.code.brIf(toSlow);
    }
    fast(w, toSlow);
  });
}

function arithmetic(f: Fields, operation: FloatOperation, slow: FloatEmit): FloatEmit | null {
  const { rs1, rs2, double } = f;
  return rounding(f, slow, ({ code }, toSlow) => {
    const registers = operation === "sqrt" ? [rs1] : [rs1, rs2];
    if (double) {
      loadOperands(code, double, registers, toSlow);
      doubleArithmetic(code, operation, toSlow);
    } else {
      needBoxed(code, registers, toSlow);
      singleArithmetic(code, operation, word(rs1), word(rs2), toSlow);
    }
    write(code, f, () => code.get(T));
  });
}

/** FSGNJ, FSGNJN, FSGNJX. */
function signInjection(f: Fields, slow: FloatEmit): FloatEmit | null {
  const { rs1, rs2, funct3, double } = f;
  if (funct3 > 2) return null;
  const sign = 1n << (double ? 63n : 31n);
  const inject = (code: Code): void =>
    write(code, f, () => {
      push(code, rs1, double);
      if (rs1 === rs2 && funct3 === 0) return;
      if (funct3 < 2) {
        code.i64Big(sign - 1n);
        code.op("i64.and");
      }
      push(code, rs2, double);
      code.i64Big(sign);
      if (funct3 === 1) {
        code.op("i64.and");
        code.i64Big(sign);
        code.op("i64.xor", "i64.or");
      } else code.op("i64.and", funct3 === 0 ? "i64.or" : "i64.xor");
    });
  if (double) return (w) => inject(w.code);
  return either(slow, ({ code }, toSlow) => {
    needBoxed(code, [rs1, rs2], toSlow);
    inject(code);
  });
}

/** FLE, FLT, FEQ. */
function compare(f: Fields, slow: FloatEmit): FloatEmit | null {
  const op = (["f64.le", "f64.lt", "f64.eq"] as const)[f.funct3];
  if (op === undefined) return null;
  return either(slow, (w, toSlow) => {
    const { code } = w;
    loadOperands(code, f.double, [f.rs1, f.rs2], toSlow);
    needOrdered(code, toSlow);
    if (f.rd === 0) return;
    code.get(FLOAT_A);
    code.get(FLOAT_B);
    code.op(op, "i64.extend_i32_u");
    w.set(X + f.rd * 8);
  });
}

/** On to the slow code if the mode that is looked up is a reserved one. */
function needMode(code: Code, funct3: number, toSlow: number): void {
  if (funct3 !== DYN) return;
  code.i32(0);
  code.memory("i32.load", FRM);
  code.i32(RMM + 1);
  code.op("i32.ge_u");
  code.brIf(toSlow);
}

/** FCVT.W, FCVT.WU, FCVT.L, FCVT.LU of what the integer type holds. */
function toRegister(f: Fields, slow: FloatEmit): FloatEmit | null {
  const { rd, rs1, rs2, funct3, double } = f;
  if (rs2 > 3 || (funct3 > RMM && funct3 !== DYN)) return null;
  const type = { signed: (rs2 & 1) === 0, wide: rs2 > 1 };
  return either(slow, (w, toSlow) => {
    const { code } = w;
    needMode(code, funct3, toSlow);
    loadOperands(code, double, [rs1], toSlow);
    toInteger(code, type, funct3 === RTZ, toSlow);
    if (!type.wide) code.op("i64.extend32_s");
    if (rd === 0) code.op("drop");
    else w.set(X + rd * 8);
  });
}

/** FCVT.D.W, FCVT.D.WU, FCVT.D.L of a register that binary64 holds; it rounds nothing, whatever the mode. */
function fromRegister(f: Fields, slow: FloatEmit): FloatEmit | null {
  const { rs1, rs2, funct3, double } = f;
  if (!double || rs2 > 2 || (funct3 > RMM && funct3 !== DYN)) return null;
  return either(slow, (w, toSlow) => {
    const { code } = w;
    needMode(code, funct3, toSlow);
    if (rs1 === 0) code.i64(0);
    else w.get(X + rs1 * 8);
    if (rs2 === 0) code.op("i64.extend32_s");
    else if (rs2 === 1) code.op("i32.wrap_i64", "i64.extend_i32_u");
    fromInteger(code, rs2 < 2, toSlow);
    code.set(T);
    write(code, f, () => code.get(T));
  });
}

/** FCVT.D.S, which is exact but for a NaN. */
function toDouble(f: Fields, slow: FloatEmit): FloatEmit | null {
  if (!f.double || f.rs2 !== 0 || (f.funct3 > RMM && f.funct3 !== DYN)) return null;
  return either(slow, ({ code }, toSlow) => {
    needMode(code, f.funct3, toSlow);
    loadOperands(code, false, [f.rs1, f.rs1], toSlow);
    needOrdered(code, toSlow);
    write(code, f, () => {
      code.get(FLOAT_A);
      code.op("i64.reinterpret_f64");
    });
  });
}

/** FMV.X.D, FMV.X.W. */
function moveToRegister({ rd, rs1, double }: Fields): FloatEmit {
  return (w) => {
    if (rd === 0) return;
    w.code.i32(0);
    w.code.memory(double ? "i64.load" : "i64.load32_s", word(rs1));
    w.set(X + rd * 8);
  };
}

/** FMV.D.X, FMV.W.X. */
function moveFromRegister(f: Fields): FloatEmit {
  return (w) => {
    const { code } = w;
    write(code, f, () => {
      if (f.rs1 === 0) code.i64(0);
      else w.get(X + f.rs1 * 8);
      if (!f.double) code.op("i32.wrap_i64", "i64.extend_i32_u");
    });
  };
}

/** FMADD.D, FMSUB.D, FNMSUB.D, FNMADD.D: of integers; all else is rounded once, by the core. */
function multiplyAdd(code_: number, f: Fields, slow: FloatEmit): FloatEmit | null {
  if (!f.double) return null;
  const kind = bits(code_, 2, 2);
  return rounding(f, slow, ({ code }, toSlow) => {
    loadOperands(code, true, [f.rs1, f.rs2], toSlow);
    if (kind > 1) {
      code.get(FLOAT_A);
      code.op("f64.neg");
      code.set(FLOAT_A);
    }
    const pushAddend = (): void => {
      code.i32(0);
      code.memory("f64.load", word(code_ >>> 27));
      if ((kind & 1) === 1) code.op("f64.neg");
    };
    integerMultiplyAdd(code, pushAddend, toSlow);
    write(code, f, () => code.get(T));
  });
}

const ARITHMETIC: readonly FloatOperation[] = ["add", "sub", "mul", "div"];

/** The code of an instruction of OP-FP, MADD, MSUB, NMSUB, NMADD where sstatus.FS is Dirty; null if it is the core's alone. */
export function floatEmitter(code: number, slow: FloatEmit): FloatEmit | null {
  const format = bits(code, 25, 2);
  if (format > 1) return null;
  const f: Fields = {
    rd: bits(code, 7, 5),
    rs1: bits(code, 15, 5),
    rs2: bits(code, 20, 5),
    funct3: bits(code, 12, 3),
    double: format === 1,
  };
  if ((code & 0x7f) !== OP_FP) return multiplyAdd(code, f, slow);
  const funct5 = code >>> 27;
  switch (funct5) {
    case 0x00:
    case 0x01:
    case 0x02:
    case 0x03:
      return arithmetic(f, ARITHMETIC[funct5]!, slow);
    case 0x04:
      return signInjection(f, slow);
    case 0x08:
      return toDouble(f, slow);
    case 0x0b:
      return f.rs2 === 0 ? arithmetic({ ...f, rs2: f.rs1 }, "sqrt", slow) : null;
    case 0x14:
      return compare(f, slow);
    case 0x18:
      return toRegister(f, slow);
    case 0x1a:
      return fromRegister(f, slow);
    case 0x1c:
      return f.rs2 === 0 && f.funct3 === 0 ? moveToRegister(f) : null;
    case 0x1e:
      return f.rs2 === 0 && f.funct3 === 0 ? moveFromRegister(f) : null;
  }
  return null;
}
