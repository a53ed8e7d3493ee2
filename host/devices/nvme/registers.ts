// Controller registers (NVMe 1.4 §3.1), offsets from BAR 0, and the bit fields of those that have some.

import { bit, bits, structure } from "../../base/fields.ts";

export const CAP = 0x00;
export const VS = 0x08;
export const INTMS = 0x0c;
export const INTMC = 0x10;
export const CC = 0x14;
export const CSTS = 0x1c;
export const NSSR = 0x20;
export const AQA = 0x24;
export const ASQ = 0x28;
export const ACQ = 0x30;
/** Submission queue y's tail at DOORBELLS + 8y, completion queue y's head at DOORBELLS + 8y + 4 (CAP.DSTRD 0). */
export const DOORBELLS = 0x1000;

export const CAP_FIELDS = structure("CAP", "NVMe 1.4 §3.1.1", 1, {
  MQES: bits(15, 0),
  CQR: bit(16),
  AMS: bits(18, 17),
  TO: bits(31, 24),
  DSTRD: bits(35, 32),
  NSSRS: bit(36),
  CSS: bits(44, 37),
  BPS: bit(45),
  MPSMIN: bits(51, 48),
  MPSMAX: bits(55, 52),
  PMRS: bit(56),
});

export const CC_FIELDS = structure("CC", "NVMe 1.4 §3.1.5", 1, {
  EN: bit(0),
  CSS: bits(6, 4),
  MPS: bits(10, 7),
  AMS: bits(13, 11),
  SHN: bits(15, 14),
  IOSQES: bits(19, 16),
  IOCQES: bits(23, 20),
});

export const CSTS_FIELDS = structure("CSTS", "NVMe 1.4 §3.1.6", 1, {
  RDY: bit(0),
  CFS: bit(1),
  SHST: bits(3, 2, { values: { 0: "normal", 1: "in process", 2: "complete" } }),
  NSSRO: bit(4),
  PP: bit(5),
});

export const AQA_FIELDS = structure("AQA", "NVMe 1.4 §3.1.8", 1, { ASQS: bits(11, 0), ACQS: bits(27, 16) });

export const SHUTDOWN_COMPLETE = 2;
