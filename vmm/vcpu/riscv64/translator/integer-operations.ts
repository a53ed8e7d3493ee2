// What the integer operations compute, as WebAssembly on 64-bit locals. Each function leaves the result on the stack; `x` pushes a register's value.

import type { Code, Op } from "../../engine/translator/wasm-code.ts";
import * as o from "../assembly/opcodes.ts";

export interface Operands {
  readonly code: Code;
  /** Pushes rs1, rs2, the immediate. */
  rs1(): void;
  rs2(): void;
  immediate(): void;
  /** Immediate as an unsigned shift amount of 64 bits. */
  amount(): void;
  /** Two i64 temporaries. */
  readonly t: number;
  readonly u: number;
  /** Leaves to the interpreter, before this instruction, if the i32 on the stack is not zero. */
  leaveIf(): void;
}
export type Emit = (x: Operands) => void;

const BYTES_EVEN = 0x00ff00ff00ff00ffn;
const HALVES_EVEN = 0x0000ffff0000ffffn;

const binary =
  (second: "rs2" | "immediate" | "amount", ...ops: Op[]): Emit =>
  (x) => {
    x.rs1();
    x[second]();
    x.code.op(...ops);
  };
const wordBinary =
  (second: "rs2" | "immediate" | "amount", op: Op): Emit =>
  (x) => {
    x.rs1();
    x.code.op("i32.wrap_i64");
    x[second]();
    x.code.op("i32.wrap_i64", op, "i64.extend_i32_s");
  };
const unary =
  (...ops: Op[]): Emit =>
  (x) => {
    x.rs1();
    x.code.op(...ops);
  };
/** rs2 + (rs1 << shift), rs1 zero-extended from 32 bits if `word`. */
const shiftAdd =
  (shift: number, word: boolean): Emit =>
  (x) => {
    x.rs1();
    if (word) x.code.op("i32.wrap_i64", "i64.extend_i32_u");
    if (shift > 0) {
      x.code.i64(shift);
      x.code.op("i64.shl");
    }
    x.rs2();
    x.code.op("i64.add");
  };
const inverted =
  (op: Op): Emit =>
  (x) => {
    x.rs1();
    x.rs2();
    x.code.i64(-1);
    x.code.op("i64.xor", op);
  };
/** The operand for which `compare`(rs1, rs2) holds first. */
const choose =
  (compare: Op): Emit =>
  (x) => {
    x.rs1();
    x.rs2();
    x.rs1();
    x.rs2();
    x.code.op(compare, "select");
  };
/** rs1 op (1 << n), n from a register or immediate; WebAssembly's shift takes n modulo 64, as RISC-V does. */
const bit =
  (second: "rs2" | "amount", kind: "clear" | "invert" | "set"): Emit =>
  (x) => {
    x.rs1();
    x.code.i64(1);
    x[second]();
    x.code.op("i64.shl");
    if (kind === "clear") {
      x.code.i64(-1);
      x.code.op("i64.xor", "i64.and");
    } else x.code.op(kind === "set" ? "i64.or" : "i64.xor");
  };
/** rs1 where `keep`(rs2, 0) holds, else 0. */
const conditionalZero =
  (keep: Op): Emit =>
  (x) => {
    x.rs1();
    x.code.i64(0);
    x.rs2();
    x.code.i64(0);
    x.code.op(keep, "select");
  };
const extract =
  (second: "rs2" | "amount"): Emit =>
  (x) => {
    x.rs1();
    x[second]();
    x.code.op("i64.shr_u");
    x.code.i64(1);
    x.code.op("i64.and");
  };
/** Division: its corner cases are the interpreter's. */
const division =
  (op: Op, signed: boolean): Emit =>
  (x) => {
    // b = 0, and −1 if signed: (b + 1) unsigned ≤ 1, b = 0 alone otherwise
    x.rs2();
    if (signed) {
      x.code.i64(1);
      x.code.op("i64.add");
      x.code.i64(2);
      x.code.op("i64.lt_u");
    } else x.code.op("i64.eqz");
    x.leaveIf();
    x.rs1();
    x.rs2();
    x.code.op(op);
  };
const wordDivision =
  (op: Op, signed: boolean): Emit =>
  (x) => {
    x.rs2();
    x.code.op("i32.wrap_i64");
    if (signed) {
      x.code.i32(1);
      x.code.op("i32.add");
      x.code.i32(2);
      x.code.op("i32.lt_u");
    } else x.code.op("i32.eqz");
    x.leaveIf();
    wordBinary("rs2", op)(x);
  };

/** Upper half of the unsigned product, from 32-bit halves. */
const multiplyHigh: Emit = (x) => {
  const { code, t, u } = x;
  const low = (): void => code.op("i32.wrap_i64", "i64.extend_i32_u");
  const high = (): void => {
    code.i64(32);
    code.op("i64.shr_u");
  };
  // t = aHigh × bLow + (aLow × bLow >> 32)
  x.rs1();
  high();
  x.rs2();
  low();
  code.op("i64.mul");
  x.rs1();
  low();
  x.rs2();
  low();
  code.op("i64.mul");
  high();
  code.op("i64.add");
  code.set(t);
  // u = aLow × bHigh + low(t)
  x.rs1();
  low();
  x.rs2();
  high();
  code.op("i64.mul");
  code.get(t);
  low();
  code.op("i64.add");
  code.set(u);
  // aHigh × bHigh + high(t) + high(u)
  x.rs1();
  high();
  x.rs2();
  high();
  code.op("i64.mul");
  code.get(t);
  high();
  code.get(u);
  high();
  code.op("i64.add", "i64.add");
};
/** Subtracts `what` if `sign` is negative: arithmetic shift makes the mask. */
function correct(x: Operands, sign: () => void, what: () => void): void {
  sign();
  x.code.i64(63);
  x.code.op("i64.shr_s");
  what();
  x.code.op("i64.and", "i64.sub");
}

const swapParts = (x: Operands, mask: bigint, width: number): void => {
  // ((v & mask) << width) | ((v >> width) & mask), v in t
  x.code.get(x.t);
  x.code.i64Big(mask);
  x.code.op("i64.and");
  x.code.i64(width);
  x.code.op("i64.shl");
  x.code.get(x.t);
  x.code.i64(width);
  x.code.op("i64.shr_u");
  x.code.i64Big(mask);
  x.code.op("i64.and", "i64.or");
};

const comparison = (second: "rs2" | "immediate", op: Op): Emit => binary(second, op, "i64.extend_i32_u");

export const INTEGER_OPERATIONS: ReadonlyMap<number, Emit> = new Map<number, Emit>([
  [o.LI, (x) => x.immediate()],
  [o.MV, (x) => x.rs1()],
  [o.ADDI, binary("immediate", "i64.add")],
  [o.SLTI, comparison("immediate", "i64.lt_s")],
  [o.SLTIU, comparison("immediate", "i64.lt_u")],
  [o.XORI, binary("immediate", "i64.xor")],
  [o.ORI, binary("immediate", "i64.or")],
  [o.ANDI, binary("immediate", "i64.and")],
  [o.SLLI, binary("amount", "i64.shl")],
  [o.SRLI, binary("amount", "i64.shr_u")],
  [o.SRAI, binary("amount", "i64.shr_s")],
  [o.ADDIW, wordBinary("immediate", "i32.add")],
  [o.SLLIW, wordBinary("amount", "i32.shl")],
  [o.SRLIW, wordBinary("amount", "i32.shr_u")],
  [o.SRAIW, wordBinary("amount", "i32.shr_s")],
  [o.ADD, binary("rs2", "i64.add")],
  [o.SUB, binary("rs2", "i64.sub")],
  [o.SLL, binary("rs2", "i64.shl")],
  [o.SLT, comparison("rs2", "i64.lt_s")],
  [o.SLTU, comparison("rs2", "i64.lt_u")],
  [o.XOR, binary("rs2", "i64.xor")],
  [o.SRL, binary("rs2", "i64.shr_u")],
  [o.SRA, binary("rs2", "i64.shr_s")],
  [o.OR, binary("rs2", "i64.or")],
  [o.AND, binary("rs2", "i64.and")],
  [o.ADDW, wordBinary("rs2", "i32.add")],
  [o.SUBW, wordBinary("rs2", "i32.sub")],
  [o.SLLW, wordBinary("rs2", "i32.shl")],
  [o.SRLW, wordBinary("rs2", "i32.shr_u")],
  [o.SRAW, wordBinary("rs2", "i32.shr_s")],
  [o.MUL, binary("rs2", "i64.mul")],
  [o.MULHU, multiplyHigh],
  [
    o.MULH,
    (x) => {
      multiplyHigh(x);
      correct(x, x.rs1, x.rs2);
      correct(x, x.rs2, x.rs1);
    },
  ],
  [
    o.MULHSU,
    (x) => {
      multiplyHigh(x);
      correct(x, x.rs1, x.rs2);
    },
  ],
  [o.MULW, wordBinary("rs2", "i32.mul")],
  [o.DIV, division("i64.div_s", true)],
  [o.DIVU, division("i64.div_u", false)],
  [o.REM, division("i64.rem_s", true)],
  [o.REMU, division("i64.rem_u", false)],
  [o.DIVW, wordDivision("i32.div_s", true)],
  [o.DIVUW, wordDivision("i32.div_u", false)],
  [o.REMW, wordDivision("i32.rem_s", true)],
  [o.REMUW, wordDivision("i32.rem_u", false)],
  [o.ADD_UW, shiftAdd(0, true)],
  [o.SH1ADD, shiftAdd(1, false)],
  [o.SH2ADD, shiftAdd(2, false)],
  [o.SH3ADD, shiftAdd(3, false)],
  [o.SH1ADD_UW, shiftAdd(1, true)],
  [o.SH2ADD_UW, shiftAdd(2, true)],
  [o.SH3ADD_UW, shiftAdd(3, true)],
  [
    o.SLLI_UW,
    (x) => {
      x.rs1();
      x.code.op("i32.wrap_i64", "i64.extend_i32_u");
      x.amount();
      x.code.op("i64.shl");
    },
  ],
  [o.ANDN, inverted("i64.and")],
  [o.ORN, inverted("i64.or")],
  [o.XNOR, inverted("i64.xor")],
  [o.CLZ, unary("i64.clz")],
  [o.CTZ, unary("i64.ctz")],
  [o.CPOP, unary("i64.popcnt")],
  [o.CLZW, unary("i32.wrap_i64", "i32.clz", "i64.extend_i32_u")],
  [o.CTZW, unary("i32.wrap_i64", "i32.ctz", "i64.extend_i32_u")],
  [o.CPOPW, unary("i32.wrap_i64", "i32.popcnt", "i64.extend_i32_u")],
  [o.MIN, choose("i64.lt_s")],
  [o.MINU, choose("i64.lt_u")],
  [o.MAX, choose("i64.gt_s")],
  [o.MAXU, choose("i64.gt_u")],
  [o.SEXT_B, unary("i64.extend8_s")],
  [o.SEXT_H, unary("i64.extend16_s")],
  [
    o.ZEXT_H,
    (x) => {
      x.rs1();
      x.code.i64(0xffff);
      x.code.op("i64.and");
    },
  ],
  [o.ROL, binary("rs2", "i64.rotl")],
  [o.ROR, binary("rs2", "i64.rotr")],
  [o.RORI, binary("amount", "i64.rotr")],
  [o.ROLW, wordBinary("rs2", "i32.rotl")],
  [o.RORW, wordBinary("rs2", "i32.rotr")],
  [o.RORIW, wordBinary("amount", "i32.rotr")],
  [
    o.REV8,
    (x) => {
      x.rs1();
      x.code.set(x.t);
      swapParts(x, BYTES_EVEN, 8);
      x.code.set(x.t);
      swapParts(x, HALVES_EVEN, 16);
      x.code.i64(32);
      x.code.op("i64.rotl");
    },
  ],
  [
    o.ORC_B,
    (x) => {
      // (((v & 0x7f…) + 0x7f…) | v) & 0x80… has bit 7 of every byte that is not zero; × 0xff / 0x80 fills the byte
      x.rs1();
      x.code.i64Big(0x7f7f7f7f7f7f7f7fn);
      x.code.op("i64.and");
      x.code.i64Big(0x7f7f7f7f7f7f7f7fn);
      x.code.op("i64.add");
      x.rs1();
      x.code.op("i64.or");
      x.code.i64Big(0x8080808080808080n);
      x.code.op("i64.and");
      x.code.i64(7);
      x.code.op("i64.shr_u");
      x.code.i64(255);
      x.code.op("i64.mul");
    },
  ],
  [o.CZERO_EQZ, conditionalZero("i64.ne")],
  [o.CZERO_NEZ, conditionalZero("i64.eq")],
  [o.BCLR, bit("rs2", "clear")],
  [o.BCLRI, bit("amount", "clear")],
  [o.BEXT, extract("rs2")],
  [o.BEXTI, extract("amount")],
  [o.BINV, bit("rs2", "invert")],
  [o.BINVI, bit("amount", "invert")],
  [o.BSET, bit("rs2", "set")],
  [o.BSETI, bit("amount", "set")],
]);
