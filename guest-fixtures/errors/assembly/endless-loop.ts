// Prints a line, then loops without ever trapping: only the wall limit ends it.

import { printLine } from "../../driver/assembly/console";

export function run(): u32 {
  printLine("looping");
  let turns: u32 = 1;
  while (turns != 0) turns = (turns + 2) | 1;
  return turns;
}
