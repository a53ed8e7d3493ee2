// Touches an address that nothing answers: reads all ones in every size, stores go nowhere, the guest goes on.

import { checkEqual, printLine } from "../../driver/assembly/console";
import { mmioLoad16, mmioLoad32, mmioLoad64, mmioLoad8, mmioStore32 } from "../../driver/assembly/machine";

const NOWHERE: u64 = 0x7_0000;

export function run(): u32 {
  mmioStore32(NOWHERE, 1);
  checkEqual(mmioLoad8(NOWHERE), 0xff, "8 bits of nothing");
  checkEqual(mmioLoad16(NOWHERE), 0xffff, "16 bits of nothing");
  checkEqual(mmioLoad32(NOWHERE), 0xffffffff, "32 bits of nothing");
  checkEqual(mmioLoad64(NOWHERE), 0xffffffffffffffff, "64 bits of nothing");
  printLine("nothing answered, and the guest goes on");
  return 0;
}
