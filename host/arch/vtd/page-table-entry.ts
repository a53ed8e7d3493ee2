// Page-table entries of both stages: first stage in x86's format (§9.7), second stage (§9.8). 512 entries of 8 bytes a table; leaves at level 1
// (4 KiB), level 2 (2 MiB) and level 3 (1 GiB) with PS.

import { bit, bits, structure } from "../../base/fields.ts";

export const FIRST_STAGE_ENTRY = structure("first-stage entry", "§9.7", 1, {
  P: bit(0),
  RW: bit(1),
  US: bit(2),
  PWT: bit(3),
  PCD: bit(4),
  A: bit(5),
  D: bit(6),
  PS: bit(7),
  G: bit(8),
  EA: bit(10),
  ADDR: bits(51, 12),
  XD: bit(63),
});
export const FS_P = 1 << 0;
export const FS_RW = 1 << 1;
export const FS_US = 1 << 2;
export const FS_A = 1 << 5;
export const FS_D = 1 << 6;
/** At level 1 bit 7 is PAT. */
export const FS_PS = 1 << 7;
export const FS_G = 1 << 8;
export const FS_EA = 1 << 10;

export const SECOND_STAGE_ENTRY = structure("second-stage entry", "§9.8", 1, {
  R: bit(0),
  W: bit(1),
  X: bit(2),
  EMT: bits(5, 3),
  IPAT: bit(6),
  PS: bit(7),
  A: bit(8),
  D: bit(9),
  SNP: bit(11),
  ADDR: bits(51, 12),
});
export const SS_R = 1 << 0;
export const SS_W = 1 << 1;
export const SS_PS = 1 << 7;
export const SS_A = 1 << 8;
export const SS_D = 1 << 9;
export const SS_SNP = 1 << 11;
/** Bit 62, in the high half: TM of older specifications, reserved now. */
export const SS_TM_HIGH = 1 << 30;
