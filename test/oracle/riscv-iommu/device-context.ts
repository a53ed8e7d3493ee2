/**
 * Finding a device context: the device directory of one to three levels (§3.3.1), the format of the context (§3.1.3) and when one is
 * misconfigured (§3.1.4).
 */
import { bit, bits, has, type Implementation, physicalAddressBits, swapBytes } from "./implementation.ts";
import { type DirectoryPointer, Stop } from "./outcome.ts";
import type { Tables } from "./tables.ts";

/** Translation modes of either stage; Bare is no translation. */
export type TableMode = "bare" | "sv32" | "sv39" | "sv48" | "sv57";

export interface DeviceContext {
  readonly enAts: boolean;
  readonly enPri: boolean;
  readonly t2gpa: boolean;
  readonly dtf: boolean;
  readonly pdtv: boolean;
  readonly prpr: boolean;
  readonly gade: boolean;
  readonly sade: boolean;
  readonly dpe: boolean;
  readonly sbe: boolean;
  readonly sxl: boolean;
  readonly secondStage: { readonly mode: TableMode; readonly ppn: bigint; readonly gscid: bigint };
  readonly pscid: bigint;
  /** The fsc doubleword: iosatp or pdtp (§3.1.3.5). */
  readonly fsc: bigint;
  readonly msi: { readonly on: boolean; readonly ppn: bigint; readonly mask: bigint; readonly pattern: bigint };
}

/** Widest process_id of a pdtp mode, in bits; null for Bare or an encoding that means nothing. */
export function processIdBits(mode: bigint): bigint | null {
  return mode === 1n ? 8n : mode === 2n ? 17n : mode === 3n ? 20n : null;
}

/** iosatp.MODE for an SXL (§3.1.3.5); null: not an encoding, or one this implementation lacks. */
export function firstStageMode(implementation: Implementation, sxl: boolean, mode: bigint): TableMode | null {
  if (mode === 0n) return "bare";
  if (sxl) return mode === 8n && has(implementation, "Sv32") ? "sv32" : null;
  if (mode === 8n && has(implementation, "Sv39")) return "sv39";
  if (mode === 9n && has(implementation, "Sv48")) return "sv48";
  if (mode === 10n && has(implementation, "Sv57")) return "sv57";
  return null;
}

function secondStageMode(implementation: Implementation, mode: bigint): TableMode | null {
  if (mode === 0n) return "bare";
  if (implementation.gxl) return mode === 8n && has(implementation, "Sv32x4") ? "sv32" : null;
  if (mode === 8n && has(implementation, "Sv39x4")) return "sv39";
  if (mode === 9n && has(implementation, "Sv48x4")) return "sv48";
  if (mode === 10n && has(implementation, "Sv57x4")) return "sv57";
  return null;
}

/** Widest guest physical address in bits (MGPAW, §3.1.3.6). */
function guestAddressBits(implementation: Implementation): bigint {
  if (has(implementation, "Sv57x4")) return 59n;
  if (has(implementation, "Sv48x4")) return 50n;
  if (has(implementation, "Sv39x4")) return 41n;
  if (has(implementation, "Sv32x4")) return 34n;
  return physicalAddressBits(implementation);
}

/** Whether a device context (little-endian doublewords) breaks a rule of §3.1.4. The caller has seen tc.V. */
function misconfigured(implementation: Implementation, dc: readonly bigint[]): boolean {
  const tc = dc[0]!;
  const iohgatp = dc[1]!;
  const ta = dc[2]!;
  const fsc = dc[3]!;
  const extended = has(implementation, "MSI_FLAT");
  const enAts = bit(tc, 1n);
  const enPri = bit(tc, 2n);
  const t2gpa = bit(tc, 3n);
  const pdtv = bit(tc, 5n);
  const prpr = bit(tc, 6n);
  const sbe = bit(tc, 10n);
  const sxl = bit(tc, 11n);
  // Reserved bits.
  if (bits(tc, 23n, 12n) !== 0n || bits(tc, 63n, 32n) !== 0n) return true;
  if (bits(ta, 11n, 0n) !== 0n || bits(ta, 39n, 32n) !== 0n) return true;
  if (bits(fsc, 59n, 44n) !== 0n) return true;
  if (has(implementation, "QOSID")) {
    if (bits(ta, 51n, 40n) >> BigInt(implementation.rcidWidth) !== 0n) return true;
    if (bits(ta, 63n, 52n) >> BigInt(implementation.mcidWidth) !== 0n) return true;
  } else if (bits(ta, 63n, 40n) !== 0n) return true;
  // Enables that need a capability or another enable.
  if (!has(implementation, "ATS") && (enAts || enPri || prpr)) return true;
  if (!enAts && (t2gpa || enPri)) return true;
  if (!enPri && prpr) return true;
  if (!has(implementation, "T2GPA") && t2gpa) return true;
  if (!has(implementation, "AMO_HWAD") && (bit(tc, 7n) || bit(tc, 8n))) return true;
  // Byte order and XLEN of the first stage.
  if (!has(implementation, "END") && sbe !== implementation.be) return true;
  if (!implementation.beWritable && sbe !== implementation.be) return true;
  if (implementation.gxl && !sxl) return true;
  if (!implementation.gxl && !implementation.gxlWritable && sxl) return true;
  // First stage.
  if (pdtv) {
    const mode = bits(fsc, 63n, 60n);
    if (mode > 3n) return true;
    if (mode === 1n && !has(implementation, "PD8")) return true;
    if (mode === 2n && !has(implementation, "PD17")) return true;
    if (mode === 3n && !has(implementation, "PD20")) return true;
  } else {
    if (bit(tc, 9n)) return true; // DPE means something with a process directory only
    if (firstStageMode(implementation, sxl, bits(fsc, 63n, 60n)) === null) return true;
  }
  // Second stage.
  const secondMode = secondStageMode(implementation, bits(iohgatp, 63n, 60n));
  if (secondMode === null) return true;
  if (secondMode !== "bare" && bits(iohgatp, 1n, 0n) !== 0n) return true;
  if (secondMode === "bare" && t2gpa) return true;
  // MSI address translation.
  if (extended) {
    const msiptp = dc[4]!;
    const mode = bits(msiptp, 63n, 60n);
    if (mode > 1n || bits(msiptp, 59n, 44n) !== 0n) return true;
    if (secondMode === "bare" && mode !== 0n) return true;
    const meaningful = guestAddressBits(implementation) - 12n;
    if (dc[5]! >> meaningful !== 0n || dc[6]! >> meaningful !== 0n) return true;
    if (dc[7] !== 0n) return true;
  }
  return false;
}

function decode(implementation: Implementation, dc: readonly bigint[]): DeviceContext {
  const tc = dc[0]!;
  const iohgatp = dc[1]!;
  return {
    enAts: bit(tc, 1n),
    enPri: bit(tc, 2n),
    t2gpa: bit(tc, 3n),
    dtf: bit(tc, 4n),
    pdtv: bit(tc, 5n),
    prpr: bit(tc, 6n),
    gade: bit(tc, 7n),
    sade: bit(tc, 8n),
    dpe: bit(tc, 9n),
    sbe: bit(tc, 10n),
    sxl: bit(tc, 11n),
    secondStage: {
      mode: secondStageMode(implementation, bits(iohgatp, 63n, 60n))!,
      ppn: bits(iohgatp, 43n, 0n),
      gscid: bits(iohgatp, 59n, 44n),
    },
    pscid: bits(dc[2]!, 31n, 12n),
    fsc: dc[3]!,
    msi: has(implementation, "MSI_FLAT")
      ? {
          on: bits(dc[4]!, 63n, 60n) === 1n,
          ppn: bits(dc[4]!, 43n, 0n),
          mask: bits(dc[5]!, 51n, 0n),
          pattern: bits(dc[6]!, 51n, 0n),
        }
      : { on: false, ppn: 0n, mask: 0n, pattern: 0n },
  };
}

/** device_id cut into directory indexes, DDI[0] first (§3). */
export function deviceIndexes(extended: boolean, deviceId: bigint): [bigint, bigint, bigint] {
  return extended
    ? [bits(deviceId, 5n, 0n), bits(deviceId, 14n, 6n), bits(deviceId, 23n, 15n)]
    : [bits(deviceId, 6n, 0n), bits(deviceId, 15n, 7n), bits(deviceId, 23n, 16n)];
}

/** Whether the directory has too few levels for this device_id (§3.3, step 2 of the digest): cause 260. */
export function tooWide(implementation: Implementation, ddtp: DirectoryPointer, deviceId: bigint): boolean {
  const ddi = deviceIndexes(has(implementation, "MSI_FLAT"), deviceId);
  if (ddtp.mode === "2lvl") return ddi[2] !== 0n;
  if (ddtp.mode === "1lvl") return ddi[2] !== 0n || ddi[1] !== 0n;
  return false;
}

/** §3.3.1. Stops with 257, 258, 259 or 268. */
export function locateDeviceContext(
  implementation: Implementation,
  tables: Tables,
  ddtp: DirectoryPointer,
  deviceId: bigint,
): DeviceContext {
  const extended = has(implementation, "MSI_FLAT");
  const ddi = deviceIndexes(extended, deviceId);
  const inOrder = (value: bigint) => (implementation.be ? swapBytes(value, 8) : value);
  const beyond = (address: bigint) => address >> physicalAddressBits(implementation) !== 0n;
  const levels = ddtp.mode === "3lvl" ? 3 : ddtp.mode === "2lvl" ? 2 : 1;
  let table = ddtp.ppn << 12n;
  for (let level = levels - 1; level > 0; level--) {
    const address = table + ddi[level]! * 8n;
    if (beyond(address)) throw new Stop(257);
    const loaded = tables.load(address, 8, { table: "ddt-non-leaf" }, ([value]) => ({
      valid: bit(inOrder(value!), 0n),
      leaf: false,
      span: 0n,
      global: false,
    }));
    if (loaded.injected === "access") throw new Stop(257);
    if (loaded.injected === "corrupt") throw new Stop(268);
    const entry = inOrder(loaded.values[0]!);
    if (!bit(entry, 0n)) throw new Stop(258);
    if (bits(entry, 9n, 1n) !== 0n || bits(entry, 63n, 54n) !== 0n) throw new Stop(259);
    table = bits(entry, 53n, 10n) << 12n;
  }
  const size = extended ? 64 : 32;
  const address = table + ddi[0]! * BigInt(size);
  if (beyond(address)) throw new Stop(257);
  const loaded = tables.load(address, size, { table: "device-context", deviceId }, (values) => ({
    valid: bit(inOrder(values[0]!), 0n),
    leaf: true,
    span: 0n,
    global: false,
  }));
  if (loaded.injected === "access") throw new Stop(257);
  if (loaded.injected === "corrupt") throw new Stop(268);
  const words = loaded.values.map(inOrder);
  if (!bit(words[0]!, 0n)) throw new Stop(258);
  if (misconfigured(implementation, words)) throw new Stop(259);
  return decode(implementation, words);
}
