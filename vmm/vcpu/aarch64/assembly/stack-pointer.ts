// Stack pointer alignment (DDI 0487, D1.3.10.2): a load or store whose base is SP faults where SP is no multiple of 16 and SCTLR_EL1 asks for that, before
// anything else of it is looked at.
import { CONTINUE, RESUME } from "../../engine/assembly/isa";
import { EC_SP_ALIGNMENT, exception } from "./exceptions";
import { EL, SCTLR_EL1, SP, X } from "./layout";

/** SP as a slot names it. */
export const SP_FIELD: u32 = SP - X;

/** A context of data accesses that is never the CPU's: its TLBs stay empty. */
export const NO_CONTEXT: u32 = 2;

const SCTLR_SA: u64 = 1 << 3;
const SCTLR_SA0: u64 = 1 << 4;

/** For an access with SP as its base: CONTINUE, or RESUME with the exception taken. */
export function checkStackPointer(): u32 {
  if ((load<u32>(SP) & 15) == 0) return CONTINUE;
  if (!(load<u64>(SCTLR_EL1) & (load<u32>(EL) ? SCTLR_SA : SCTLR_SA0))) return CONTINUE;
  exception(EC_SP_ALIGNMENT, 0);
  return RESUME;
}

/** The same for an instruction as it is encoded, with its base in bits 9:5. */
@inline
export function checkBase(code: u32): u32 {
  return ((code >> 5) & 31) == 31 ? checkStackPointer() : CONTINUE;
}
