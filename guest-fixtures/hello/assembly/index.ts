// The smallest guest: says where it is and ends well.

import { hex, printLine } from "../../driver/assembly/console";
import { RAM, regionBase, regionSize } from "../../driver/assembly/machine";

export function run(): u32 {
  printLine("hello from a component guest");
  printLine("RAM at " + hex(regionBase(RAM)) + ", " + (regionSize(RAM) >> 20).toString() + " MiB");
  return 0;
}
