// Ends with a status of its own.

import { printLine } from "../../driver/assembly/console";

export function run(): u32 {
  printLine("this guest ends with 7");
  return 7;
}
