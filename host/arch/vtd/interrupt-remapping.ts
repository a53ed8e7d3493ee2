// Interrupt requests (§5.1.2, §5.1.3) and interrupt remapping table entries (§9.9, §9.10), posted interrupt descriptors (§9.11).
//
// A dword write to 0xFEEx_xxxx is an interrupt request. Bit 4 of its address chooses between the compatibility format and the remappable one, which
// names an entry of the table: handle, plus subhandle (bits 15:0 of the data) if SHV is set.

import { bit, bits, structure } from "../../base/fields.ts";
import type { StructureRules } from "./structure-rules.ts";

/** First and last page of the interrupt address range. */
export const INTERRUPT_FIRST_PFN = 0xfee00;
export const INTERRUPT_LAST_PFN = 0xfeeff;

/** True for frames of 0xFEE0_0000–0xFEEF_FFFF. */
export function inInterruptRange(pfn: number): boolean {
  return pfn >= INTERRUPT_FIRST_PFN && pfn <= INTERRUPT_LAST_PFN;
}

export const REMAPPABLE_ADDRESS = structure("remappable interrupt address", "§5.1.2.2", 1, {
  ignored: bits(1, 0),
  handleHigh: bit(2),
  SHV: bit(3),
  format: bit(4, { values: { 0: "compatibility", 1: "remappable" } }),
  handle: bits(19, 5),
  FEE: bits(31, 20),
});
export const COMPATIBILITY_ADDRESS = structure("compatibility interrupt address", "§5.1.2.1", 1, {
  DM: bit(2),
  RH: bit(3),
  format: bit(4),
  destination: bits(19, 12),
  FEE: bits(31, 20),
});

/** The address (32 bits) and data that name entry `index` without a subhandle: what an MSI is programmed to (§5.1.2.2). */
export function remappableMessage(index: number): { address: number; data: number } {
  return { address: (0xfee00010 | ((index & 0x7fff) << 5) | (((index >>> 15) & 1) << 2)) >>> 0, data: 0 };
}

export const IRTE_BYTES = 16;

export const IRTE = structure("IRTE", "§9.9", 2, {
  P: bit(0),
  FPD: bit(1),
  DM: bit(2, { values: { 0: "physical", 1: "logical" } }),
  RH: bit(3),
  TM: bit(4, { values: { 0: "edge", 1: "level" } }),
  DLM: bits(7, 5, { values: { 0: "fixed", 1: "lowest", 2: "SMI", 4: "NMI", 5: "INIT", 7: "ExtINT" } }),
  AVAIL: bits(11, 8),
  IM: bit(15, { values: { 0: "remapped", 1: "posted" } }),
  V: bits(23, 16),
  DST: bits(63, 32),
  SID: bits(15, 0, { word: 1 }),
  SQ: bits(17, 16, { word: 1 }),
  SVT: bits(19, 18, { word: 1, values: { 1: "SID", 2: "bus" } }),
});

export const POSTED_IRTE = structure("posted IRTE", "§9.10", 2, {
  P: bit(0),
  FPD: bit(1),
  AVAIL: bits(11, 8),
  URG: bit(14),
  IM: bit(15),
  VV: bits(23, 16),
  PDAL: bits(63, 38),
  SID: bits(15, 0, { word: 1 }),
  SQ: bits(17, 16, { word: 1 }),
  SVT: bits(19, 18, { word: 1 }),
  PDAH: bits(63, 32, { word: 1 }),
});

/** 64 bytes: a request bit for each vector, and whom to notify. Named here; no unit here posts. */
export const POSTED_DESCRIPTOR = structure("posted interrupt descriptor", "§9.11", 8, {
  ON: bit(0, { word: 4 }),
  SN: bit(1, { word: 4 }),
  NV: bits(23, 16, { word: 4 }),
  NDST: bits(63, 32, { word: 4 }),
});

export const IRTE_POSTED = 1 << 15;

/** True if a present entry (4 halves) has reserved bits set. `extended`: IRTA.EIME, destinations of 32 bits instead of 8. */
export function irteReserved(words: Int32Array, extended: boolean, rules: StructureRules): boolean {
  const w0 = words[0]!;
  if ((words[2]! & 0xfff00000) !== 0) return true;
  if ((w0 & IRTE_POSTED) === 0) return ((w0 & 0xff007000) | (extended ? 0 : words[1]! & 0xffff00ff) | words[3]!) !== 0;
  if (!rules.features.PI) return true;
  return ((w0 & 0xff0030fc) | (words[1]! & 0x3f) | (words[3]! & rules.pointerReserved)) !== 0;
}

/** Whether requester `sourceId` may use a present entry (4 halves): SVT, SQ and SID (§9.9). */
export function sourceAllowed(words: Int32Array, sourceId: number): boolean {
  const w2 = words[2]!;
  const sid = w2 & 0xffff;
  switch ((w2 >>> 18) & 3) {
    case 0:
      return true;
    case 1: {
      const qualifier = (w2 >>> 16) & 3;
      const mask = qualifier === 0 ? 0xffff : qualifier === 1 ? 0xfffb : qualifier === 2 ? 0xfff9 : 0xfff8;
      return ((sid ^ sourceId) & mask) === 0;
    }
    case 2: {
      const bus = sourceId >>> 8;
      return bus >= sid >>> 8 && bus <= (sid & 0xff);
    }
    default:
      return false;
  }
}
