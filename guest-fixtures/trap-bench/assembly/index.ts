// Traps and nothing else, for test/bench/trap.ts: 20,000 of each kind to the first IOMMU's page, with a line on the console before
// and after so that the bench can read its clock there; again and again, so that the median is one without an interruption.

import { printLine } from "../../driver/assembly/console";
import { IOMMU, mmioLoad32, mmioLoad64, mmioStore32, regionBase } from "../../driver/assembly/machine";

const COUNT: u32 = 20000;
const ROUNDS: i32 = 150;

export function run(): u32 {
  const page = regionBase(IOMMU);
  let sum: u64 = 0;
  for (let round = 0; round < ROUNDS; round++) {
    printLine("load32");
    for (let i: u32 = 0; i < COUNT; i++) sum += mmioLoad32(page);
    printLine("load64");
    for (let i: u32 = 0; i < COUNT; i++) sum += mmioLoad64(page);
    // ipsr: RW1C, so that a store of 0 does nothing but trap.
    printLine("store32");
    for (let i: u32 = 0; i < COUNT; i++) mmioStore32(page + 84, 0);
  }
  printLine("end");
  return sum == 0 ? 1 : 0;
}
