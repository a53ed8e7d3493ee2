// Traps three calls deep, so that there is a stack to show. Recursion that is not a tail call survives the optimiser.

import { printLine } from "../../driver/assembly/console";

function descend(depth: u32): u32 {
  if (depth == 0) unreachable();
  return descend(depth - 1) * 3 + depth;
}

export function run(): u32 {
  printLine("about to trap");
  return descend(<u32>memory.size() & 3 | 2);
}
