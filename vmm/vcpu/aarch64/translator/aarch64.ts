// AArch64 as the translator sees it: decoded slots (assembly/opcodes.ts) as instructions, and where control goes from each.
import type { InstructionSet } from "../../engine/translator/instruction-set.ts";

export const AARCH64: InstructionSet = {
  alignment: 4,
  imports: [],
  read: () => null,
};
