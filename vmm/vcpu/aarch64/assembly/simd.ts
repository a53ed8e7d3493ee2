// Scalar floating point and Advanced SIMD by encoding group (DDI 0487, C4.1.96): which file executes what. What belongs to extensions beyond the base
// (half-precision arithmetic, dot products, complex numbers, cryptography) does not exist here.
import { CONTINUE } from "../../engine/assembly/isa";
import { executeFloat } from "./float-scalar";
import { finish, lane, result, vector } from "./lanes";
import {
  acrossLanesFloat, byElementFloat, fixedPointLanes, scalarPairFloat, threeSameFloat, twoMiscellaneousFloat,
} from "./simd-float";
import { acrossLanes, threeSame, twoMiscellaneous } from "./simd-integer";
import { copy, extract, permute, table } from "./simd-permute";
import { modifiedImmediate, shiftByImmediate } from "./simd-shift";
import { byElement, threeDifferent } from "./simd-widening";
import { UNDEFINED } from "./faults";

/** Executes an instruction whose bits 27:25 are 111. CONTINUE or UNDEFINED. */
export function executeSimd(code: u32): u32 {
  return execute(code) ? CONTINUE : UNDEFINED;
}

function execute(code: u32): bool {
  switch ((code >> 24) & 0xdf) {
    case 0x1e: case 0x9e: case 0x1f: case 0x9f: return executeFloat(code);
    case 0x5e: return scalarGroup(code);
    case 0x5f: return !((code >> 23) & 1) && (code >> 10) & 1 ? shifts(code, true) : !((code >> 10) & 1) && elements(code, true);
  }
  switch ((code >> 24) & 0x9f) {
    case 0x0e: return vectorGroup(code);
    case 0x0f:
      if (!((code >> 10) & 1)) return elements(code, false);
      if ((code >> 23) & 1) return false;
      return (code >> 19) & 15 ? shifts(code, false) : modifiedImmediate(code);
  }
  return false;
}

function shifts(code: u32, scalar: bool): bool {
  const opcode = (code >> 11) & 31;
  return opcode == 28 || opcode == 31 ? fixedPointLanes(code, scalar) : shiftByImmediate(code, scalar);
}

function elements(code: u32, scalar: bool): bool {
  const opcode = (code >> 12) & 15;
  return opcode == 1 || opcode == 5 || opcode == 9 ? byElementFloat(code, scalar) : byElement(code, scalar);
}

/** What scalar and vector forms have in common, with bit 21 set. */
function common(code: u32, scalar: bool): bool {
  if ((code >> 10) & 1) return ((code >> 11) & 31) >= 24 ? threeSameFloat(code, scalar) : threeSame(code, scalar);
  if (!((code >> 11) & 1)) return threeDifferent(code, scalar);
  if (((code >> 17) & 15) != 0) return false;
  const opcode = (code >> 12) & 31;
  const floats = opcode >= 22 || (opcode >= 12 && opcode <= 15);
  return floats ? twoMiscellaneousFloat(code, scalar) : twoMiscellaneous(code, scalar);
}

function vectorGroup(code: u32): bool {
  if ((code >> 21) & 1) {
    if (((code >> 10) & 3) != 2 || ((code >> 17) & 15) != 8) return common(code, false);
    const opcode = (code >> 12) & 31;
    return opcode == 12 || opcode == 15 ? acrossLanesFloat(code) : acrossLanes(code);
  }
  if ((code >> 15) & 1) return false;
  if ((code >> 10) & 1) return !((code >> 22) & 3) && copy(code, false);
  if ((code >> 29) & 1) return extract(code);
  return (code >> 11) & 1 ? permute(code) : table(code);
}

function scalarGroup(code: u32): bool {
  if (!((code >> 21) & 1)) return (code >> 10) & 1 && !((code >> 15) & 1) && !((code >> 22) & 3) ? copy(code, true) : false;
  if (((code >> 10) & 3) != 2 || ((code >> 17) & 15) != 8) return common(code, true);
  if (((code >> 12) & 31) != 27) return scalarPairFloat(code);
  if ((code >> 29) & 1 || ((code >> 22) & 3) != 3) return false;
  const n = vector(code >> 5); // ADDP
  result(3, 0, lane(n, 3, 0) + lane(n, 3, 1));
  finish(code, 8);
  return true;
}
