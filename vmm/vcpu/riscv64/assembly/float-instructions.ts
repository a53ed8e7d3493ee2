/** Executes an instruction of OP-FP, MADD … NMADD; false if it is not one (illegal instruction). */
export function executeFloat(code: u32): bool {
  return false;
}
