// The instructions of F, D and Zfhmin other than loads and stores: operands out of the register file (narrow ones NaN-boxed), rounding mode, operation.
import { fusedMultiplyAdd } from "../../engine/assembly/float-arithmetic";
import { arithmetic, root } from "../../engine/assembly/float-native";
import { classify, compare, convertFormat, extremum, fromInteger, toInteger } from "./float-convert";
import { canonicalNaN, DOUBLE, HALF, NX, RNE } from "../../engine/assembly/float-format";
import { FLOAT_FLAGS } from "../../engine/assembly/layout";
import { F, FRM, X } from "./layout";

const BOX: u64 = 0xffffffff00000000;
const BOX_HALF: u64 = 0xffffffffffff0000;

/** A binary32 operand that is not NaN-boxed reads as the canonical NaN. */
@inline
function single(index: u32): u64 {
  const bits = load<u64>(F + (index & 31) * 8);
  return bits >= BOX ? bits & 0xffffffff : canonicalNaN(false);
}

@inline
function operand(index: u32, double: bool): u64 {
  return double ? load<u64>(F + (index & 31) * 8) : single(index);
}

/** The same of a binary16. */
@inline
function half(index: u32): u64 {
  const bits = load<u64>(F + (index & 31) * 8);
  return bits >= BOX_HALF ? bits & 0xffff : canonicalNaN(HALF);
}

@inline
function put(index: u32, value: u64, double: bool): bool {
  store<u64>(F + (index & 31) * 8, double ? value : value | BOX);
  return true;
}

@inline
function putInteger(index: u32, value: u64): bool {
  if (index & 31) store<u64>(X + (index & 31) * 8, value);
  return true;
}

/** The effective rounding mode; above 4: reserved. */
@inline
function roundingMode(code: u32): u32 {
  const mode = (code >> 12) & 7;
  return mode == 7 ? load<u32>(FRM) : mode;
}

/** Executes an instruction of OP-FP, MADD, MSUB, NMSUB, NMADD; false if it is none (illegal instruction). */
export function executeFloat(code: u32): bool {
  const format = (code >> 25) & 3;
  if (format == HALF) return executeHalf(code);
  if (format > HALF) return false;
  const double = format == 1;
  if ((code & 0x7f) != 0x53) return fused(code, double);
  const rd = code >> 7;
  const rs1 = code >> 15;
  const rs2 = (code >> 20) & 31;
  const funct3 = (code >> 12) & 7;
  switch (code >> 27) {
    case 0x00: case 0x01: case 0x02: case 0x03: {
      const mode = roundingMode(code);
      if (mode > 4) return false;
      const a = operand(rs1, double);
      const b = operand(rs2, double);
      return put(rd, arithmetic(code >> 27, a, b, double, mode), double);
    }
    case 0x04: { // fsgnj, fsgnjn, fsgnjx
      if (funct3 > 2) return false;
      const sign: u64 = double ? <u64>1 << 63 : <u64>1 << 31;
      const a = operand(rs1, double);
      const b = operand(rs2, double);
      const other = funct3 == 0 ? b : funct3 == 1 ? ~b : a ^ b;
      return put(rd, (a & ~sign) | (other & sign), double);
    }
    case 0x05:
      if (funct3 > 1) return false;
      return put(rd, extremum(operand(rs1, double), operand(rs2, double), funct3 == 1, double), double);
    case 0x08: { // fcvt.s.d, fcvt.d.s, fcvt.s.h, fcvt.d.h
      const mode = roundingMode(code);
      if (mode > 4 || rs2 > HALF || rs2 == format) return false;
      const value = rs2 == HALF ? half(rs1) : operand(rs1, !double);
      return put(rd, convertFormat(value, rs2, format, mode), double);
    }
    case 0x0b: {
      const mode = roundingMode(code);
      if (mode > 4 || rs2 != 0) return false;
      return put(rd, root(operand(rs1, double), double, mode), double);
    }
    case 0x14:
      if (funct3 > 2) return false;
      return putInteger(rd, compare(operand(rs1, double), operand(rs2, double), funct3, double));
    case 0x18: {
      const mode = roundingMode(code);
      if (mode > 4 || rs2 > 3) return false;
      return putInteger(rd, toInteger(operand(rs1, double), rs2, double, mode));
    }
    case 0x1a: {
      const mode = roundingMode(code);
      if (mode > 4 || rs2 > 3) return false;
      return put(rd, fromInteger(load<u64>(X + (rs1 & 31) * 8), rs2, double, mode), double);
    }
    case 0x1c:
      if (rs2 != 0 || funct3 > 1) return false;
      if (funct3 == 1) return putInteger(rd, classify(operand(rs1, double), double));
      return putInteger(rd, double ? operand(rs1, true) : <u64>(<i64>load<i32>(F + (rs1 & 31) * 8)));
    case 0x1e:
      if (rs2 != 0 || funct3 != 0) return false;
      return put(rd, load<u64>(X + (rs1 & 31) * 8) & (double ? <u64>-1 : 0xffffffff), double);
  }
  return false;
}

/** What Zfhmin has of binary16: conversions to it, and moves of its bits. */
function executeHalf(code: u32): bool {
  if ((code & 0x7f) != 0x53) return false;
  const rd = code >> 7;
  const rs1 = code >> 15;
  const rs2 = (code >> 20) & 31;
  const funct3 = (code >> 12) & 7;
  switch (code >> 27) {
    case 0x08: { // fcvt.h.s, fcvt.h.d
      const mode = roundingMode(code);
      if (mode > 4 || rs2 > DOUBLE) return false;
      return putHalf(rd, convertFormat(operand(rs1, rs2 == DOUBLE), rs2, HALF, mode));
    }
    case 0x1c: // fmv.x.h
      if (rs2 != 0 || funct3 != 0) return false;
      return putInteger(rd, <u64>(<i64>load<i16>(F + (rs1 & 31) * 8)));
    case 0x1e: // fmv.h.x
      if (rs2 != 0 || funct3 != 0) return false;
      return putHalf(rd, load<u64>(X + (rs1 & 31) * 8) & 0xffff);
  }
  return false;
}

@inline
function putHalf(index: u32, value: u64): bool {
  store<u64>(F + (index & 31) * 8, value | BOX_HALF);
  return true;
}

function fused(code: u32, double: bool): bool {
  const mode = roundingMode(code);
  if (mode > 4) return false;
  const sign: u64 = double ? <u64>1 << 63 : <u64>1 << 31;
  let a = operand(code >> 15, double);
  const b = operand(code >> 20, double);
  let c = operand(code >> 27, double);
  const kind = (code >> 2) & 3; // fmadd, fmsub, fnmsub, fnmadd
  if (kind & 2) a ^= sign; // negate the product
  if (kind == 1 || kind == 3) c ^= sign;
  return put(code >> 7, fusedMultiplyAdd(a, b, c, double, mode), double);
}
