// Aborts: a fault's number as class, status and address.
import { ACCESS_FETCH, ACCESS_STORE, RESUME } from "../../engine/assembly/isa";
import { EC_DATA_ABORT, EC_INSTRUCTION_ABORT, addressException } from "./exceptions";
import { EL } from "./layout";
import { FAULT_EXTERNAL } from "./translate";

/** Results of instructions beside those of isa.ts: there is no such instruction here. */
export const UNDEFINED: u32 = 8;

const ISS_WRITE: u32 = 1 << 6;
const FAULT_ALIGNMENT: u32 = 0x21;

/** Takes the abort with the status code in the low six bits of `number`. */
export function abort(number: u32, va: u64, access: u32): void {
  const ec = (access == ACCESS_FETCH ? EC_INSTRUCTION_ABORT : EC_DATA_ABORT) + load<u32>(EL);
  addressException(ec, (number & 63) | (access == ACCESS_STORE ? ISS_WRITE : 0), va);
}

export function externalAbort(va: u64, access: u32): void {
  abort(FAULT_EXTERNAL, va, access);
}

export function alignmentFault(va: u64, access: u32): u32 {
  abort(FAULT_ALIGNMENT, va, access);
  return RESUME;
}
