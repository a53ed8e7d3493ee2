// Functions of the core that translated code calls, in the order of their numbers.
import { type FunctionImport, I32, I64 } from "../../engine/translator/wasm-code.ts";

export const IMPORTS: readonly FunctionImport[] = [
  { name: "packFlags", parameters: [I64, I64, I64], results: [I64] },
  { name: "packCarry", parameters: [I64, I64, I64, I32], results: [I64] },
  { name: "executeVector", parameters: [I32], results: [I32] },
];
export const PACK_FLAGS = 0;
export const PACK_CARRY = 1;
export const EXECUTE_VECTOR = 2;
