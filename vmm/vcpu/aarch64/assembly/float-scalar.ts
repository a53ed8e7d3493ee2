// Scalar floating point (DDI 0487, C4.1.96.25 and following): arithmetic, compares, selects, conversions with general registers.
import { DOUBLE, HALF, RDN, RMM, RNE, RTZ, RUP, SINGLE } from "../../engine/assembly/float-format";
import {
  convert, floatAdd, floatCompare, floatDivide, floatExtremum, floatMultiply, floatMultiplyAdd, floatSquareRoot, floatSubtract, fromFixed, negate,
  roundingMode, roundToIntegral, toFixed,
} from "./float-rules";
import { lane, setScalar, vector } from "./lanes";
import { NZCV, X } from "./layout";
import { expandFloat } from "./simd-shift";
import { conditionBits, source, target } from "./slot";

/** The engine's format for ftype; binary16 has conversions only. 4: none. */
@inline
function formatOf(type: u32): u32 {
  return type == 0 ? SINGLE : type == 1 ? DOUBLE : type == 3 ? HALF : 4;
}

/** log2 of the bytes. */
@inline
function sizeOf(format: u32): u32 {
  return format == DOUBLE ? 3 : format == SINGLE ? 2 : 1;
}

@inline
function read(register: u32, format: u32): u64 {
  return lane(vector(register), sizeOf(format), 0);
}

@inline
function write(register: u32, format: u32, value: u64): void {
  setScalar(register, sizeOf(format), value);
}

/** False: reserved. */
export function executeFloat(code: u32): bool {
  const format = formatOf((code >> 22) & 3);
  if ((code >> 24) & 1) return multiplyAdd(code, format);
  if (!((code >> 21) & 1)) return fixedPoint(code, format);
  if ((code >> 29) & 1) return false;
  switch ((code >> 10) & 3) {
    case 0:
      if (!((code >> 10) & 63)) return integerConversion(code);
      if (code >> 31) return false;
      if (format == HALF && ((code >> 10) & 31) == 16) return fromHalf(code);
      if (format > DOUBLE) return false;
      if ((code >> 12) & 1) { // FMOV immediate
        if ((code >> 5) & 31) return false;
        write(code, format, expandFloat((code >> 13) & 255, format == DOUBLE));
        return true;
      }
      if ((code >> 13) & 1) return compare(code, format);
      if ((code >> 14) & 1) return oneSource(code, format);
      return false;
    case 1: // FCCMP, FCCMPE
      if (code >> 31 || format > DOUBLE) return false;
      if ((conditionBits((code >> 12) & 15) >> load<u32>(NZCV)) & 1) {
        store<u32>(NZCV, floatCompare(read(code >> 5, format), read(code >> 16, format), ((code >> 4) & 1) != 0, format));
      } else store<u32>(NZCV, code & 15);
      return true;
    case 2: return !(code >> 31) && format <= DOUBLE && twoSources(code, format);
  }
  // FCSEL
  if (code >> 31 || format > DOUBLE) return false;
  const first = (conditionBits((code >> 12) & 15) >> load<u32>(NZCV)) & 1;
  write(code, format, read(first ? code >> 5 : code >> 16, format));
  return true;
}

function compare(code: u32, format: u32): bool {
  if ((code >> 14) & 3 || code & 7) return false;
  const withZero = (code >> 3) & 1;
  store<u32>(NZCV, floatCompare(read(code >> 5, format), withZero ? 0 : read(code >> 16, format), ((code >> 4) & 1) != 0, format));
  return true;
}

function oneSource(code: u32, format: u32): bool {
  const opcode = (code >> 15) & 63;
  const value = read(code >> 5, format);
  if (opcode >= 4 && opcode <= 7) { // FCVT; binary16 as source is decoded by its own type below
    const to = formatOf(opcode & 3);
    if (to == 4 || to == format) return false;
    write(code, to, convert(value, format, to));
    return true;
  }
  let result: u64 = 0;
  switch (opcode) {
    case 0: result = value; break;
    case 1: result = value & ~negate(0, format); break;
    case 2: result = negate(value, format); break;
    case 3: result = floatSquareRoot(value, format); break;
    case 8: result = roundToIntegral(value, format, RNE, false); break;
    case 9: result = roundToIntegral(value, format, RUP, false); break;
    case 10: result = roundToIntegral(value, format, RDN, false); break;
    case 11: result = roundToIntegral(value, format, RTZ, false); break;
    case 12: result = roundToIntegral(value, format, RMM, false); break;
    case 14: result = roundToIntegral(value, format, roundingMode(), true); break;
    case 15: result = roundToIntegral(value, format, roundingMode(), false); break;
    default: return false;
  }
  write(code, format, result);
  return true;
}

/** FCVT from binary16, which has no other instructions here. */
function fromHalf(code: u32): bool {
  const opcode = (code >> 15) & 63;
  if (opcode != 4 && opcode != 5) return false;
  const to = formatOf(opcode & 3);
  write(code, to, convert(read(code >> 5, HALF), HALF, to));
  return true;
}

function twoSources(code: u32, format: u32): bool {
  const a = read(code >> 5, format);
  const b = read(code >> 16, format);
  let result: u64 = 0;
  switch ((code >> 12) & 15) {
    case 0: result = floatMultiply(a, b, format); break;
    case 1: result = floatDivide(a, b, format); break;
    case 2: result = floatAdd(a, b, format); break;
    case 3: result = floatSubtract(a, b, format); break;
    case 4: result = floatExtremum(a, b, true, false, format); break;
    case 5: result = floatExtremum(a, b, false, false, format); break;
    case 6: result = floatExtremum(a, b, true, true, format); break;
    case 7: result = floatExtremum(a, b, false, true, format); break;
    case 8: result = negate(floatMultiply(a, b, format), format); break;
    default: return false;
  }
  write(code, format, result);
  return true;
}

/** FMADD, FMSUB, FNMADD, FNMSUB. */
function multiplyAdd(code: u32, format: u32): bool {
  if (code >> 31 || (code >> 29) & 1 || format > DOUBLE) return false;
  let a = read(code >> 5, format);
  const b = read(code >> 16, format);
  let c = read(code >> 10, format);
  const negatesSum = (code >> 21) & 1;
  const subtracts = (code >> 15) & 1;
  if (negatesSum) c = negate(c, format);
  if (negatesSum != subtracts) a = negate(a, format);
  write(code, format, floatMultiplyAdd(c, a, b, format));
  return true;
}

/** Signed or unsigned value of a W or X register. */
@inline
function integer(code: u32, wide: u32, unsigned: bool): u64 {
  const value = load<u64>(X + source(code >> 5));
  return wide ? value : unsigned ? value & 0xffffffff : <u64>(<i64><i32>value);
}

/** FCVTNS … FCVTZU, SCVTF, UCVTF, FMOV with general registers. */
function integerConversion(code: u32): bool {
  if ((code >> 29) & 1) return false;
  const wide = code >> 31;
  const type = (code >> 22) & 3;
  const format = formatOf(type);
  const mode = (code >> 19) & 3;
  const opcode = (code >> 16) & 7;
  if (opcode >= 6) return move(code, wide, type, mode, opcode == 7);
  if (format > DOUBLE) return false;
  if (opcode == 2 || opcode == 3) {
    if (mode) return false;
    write(code, format, fromFixed(integer(code, wide, opcode == 3), 0, opcode == 3, format, roundingMode()));
    return true;
  }
  let rounding: u32;
  if (opcode >= 4) {
    if (mode) return false;
    rounding = RMM;
  } else rounding = mode == 0 ? RNE : mode == 1 ? RUP : mode == 2 ? RDN : RTZ;
  store<u64>(X + target(code), toFixed(read(code >> 5, format), format, 0, (opcode & 1) != 0, wide != 0, rounding));
  return true;
}

function move(code: u32, wide: u32, type: u32, mode: u32, toFloat: bool): bool {
  if (type == 2 && mode == 1 && wide) { // the upper half
    if (toFloat) store<u64>(vector(code), load<u64>(X + source(code >> 5)), 8);
    else store<u64>(X + target(code), load<u64>(vector(code >> 5), 8));
    return true;
  }
  if (mode || type > 1 || type != wide) return false;
  const size = 2 + wide;
  if (toFloat) setScalar(code, size, load<u64>(X + source(code >> 5)));
  else store<u64>(X + target(code), lane(vector(code >> 5), size, 0));
  return true;
}

/** SCVTF, UCVTF, FCVTZS, FCVTZU with a scale. */
function fixedPoint(code: u32, format: u32): bool {
  const wide = code >> 31;
  const scale = 64 - ((code >> 10) & 63);
  if (format > DOUBLE || (code >> 29) & 1 || (!wide && scale > 32)) return false;
  switch ((code >> 16) & 31) {
    case 2: case 3: {
      const unsigned = ((code >> 16) & 1) != 0;
      write(code, format, fromFixed(integer(code, wide, unsigned), scale, unsigned, format, roundingMode()));
      return true;
    }
    case 24: case 25:
      store<u64>(X + target(code), toFixed(read(code >> 5, format), format, scale, ((code >> 16) & 1) != 0, wide != 0, RTZ));
      return true;
  }
  return false;
}
