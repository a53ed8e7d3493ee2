// Process contexts (§3.2): how a process_id is split into directory indexes, the layout of the leaf entry and its checks (§3.2.4).

import { bit, bits, structure } from "../../base/fields.ts";
import type { StructureRules } from "./capabilities.ts";
import { firstStageModeSupported, PDTP_PD8, PDTP_PD17, PDTP_PD20 } from "./device-context.ts";

export const PC_TA = 0;
export const PC_FSC = 1;
export const PROCESS_CONTEXT_BYTES = 16;

/** ta bits, low half. */
export const PC_V = 1 << 0;
export const PC_ENS = 1 << 1;
export const PC_SUM = 1 << 2;

/** 16 bytes; byte order is DC.tc.SBE. */
export const PROCESS_CONTEXT = structure("process context", "§3.2.3", 2, {
  V: bit(0),
  ENS: bit(1),
  SUM: bit(2),
  PSCID: bits(31, 12),
  fsc_PPN: bits(43, 0, { word: PC_FSC }),
  fsc_MODE: bits(63, 60, { word: PC_FSC }),
});

/** Levels of the process directory for a pdtp mode; 0 for Bare. */
export function processDirectoryLevels(pdtpMode: number): number {
  return pdtpMode;
}

/** The number of process_id bits that a pdtp mode covers (0 for Bare). */
export function processIdBits(pdtpMode: number): number {
  if (pdtpMode === PDTP_PD8) return 8;
  if (pdtpMode === PDTP_PD17) return 17;
  return pdtpMode === PDTP_PD20 ? 20 : 0;
}

/** Index of `processId` in the directory table of `level` (0 is the leaf) (§3). */
export function processDirectoryIndex(processId: number, level: number): number {
  if (level === 0) return processId & 0xff;
  if (level === 1) return (processId >>> 8) & 0x1ff;
  return (processId >>> 17) & 7;
}

/** Why a valid process context is misconfigured (cause 267, §3.2.4), or null. `pc` holds 4 halves; `sxl` is DC.tc.SXL. */
export function processContextMisconfiguration(pc: Uint32Array, sxl: boolean, rules: StructureRules): string | null {
  if ((pc[0]! & 0xff8) !== 0 || pc[1] !== 0) return "reserved bits of ta";
  if ((pc[3]! & 0x0ffff000) !== 0) return "reserved bits of fsc";
  if (!firstStageModeSupported(pc[3]! >>> 28, sxl, rules)) return "fsc mode not supported";
  return null;
}
