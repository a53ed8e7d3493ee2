/**
 * A stream table entry: its fields (§5.2), and whether it is ILLEGAL (§5.2.2, in that order; Non-secure).
 */
import type { Choose } from "../latitude.ts";
import { addressBits, bit, bits, type Controls, type Features } from "./identification.ts";
import { type Granule, granuleOfTG0 } from "./translation-table.ts";

export type StreamWorld = "EL1" | "EL2" | "EL2-E2H";

export interface StreamTableEntry {
  readonly Config: bigint;
  readonly stage1: boolean;
  readonly stage2: boolean;
  readonly S1Fmt: bigint;
  readonly S1ContextPtr: bigint;
  readonly S1CDMax: bigint;
  readonly S1DSS: bigint;
  readonly S1STALLD: boolean;
  readonly EATS: bigint;
  readonly STRW: bigint;
  readonly PRIVCFG: bigint;
  readonly INSTCFG: bigint;
  readonly S2VMID: bigint;
  readonly S2T0SZ: bigint;
  readonly S2SL0: bigint;
  readonly S2TG: bigint;
  readonly S2PS: bigint;
  readonly S2AA64: boolean;
  readonly S2ENDI: boolean;
  readonly S2AFFD: boolean;
  readonly S2PTW: boolean;
  readonly S2HD: boolean;
  readonly S2HA: boolean;
  readonly S2S: boolean;
  readonly S2R: boolean;
  readonly S2HAFT: boolean;
  readonly S2FWB: boolean;
  readonly S2TTB: bigint;
}

export function decodeStreamTableEntry(f: Features, dw: readonly bigint[]): StreamTableEntry {
  const [d0, d1, d2, d3] = dw as [bigint, bigint, bigint, bigint];
  const Config = bits(d0, 3n, 1n);
  return {
    Config,
    stage1: bit(Config, 2n) && bit(Config, 0n),
    stage2: bit(Config, 2n) && bit(Config, 1n),
    S1Fmt: bits(d0, 5n, 4n),
    S1ContextPtr: bits(d0, 55n, 6n) << 6n,
    S1CDMax: bits(d0, 63n, 59n),
    S1DSS: bits(d1, 1n, 0n),
    S1STALLD: bit(d1, 27n),
    EATS: bits(d1, 29n, 28n),
    STRW: bits(d1, 31n, 30n),
    PRIVCFG: f.ATTR_PERMS_OVR ? bits(d1, 49n, 48n) : 0n,
    INSTCFG: f.ATTR_PERMS_OVR ? bits(d1, 51n, 50n) : 0n,
    S2VMID: bits(d2, 15n, 0n),
    S2T0SZ: bits(d2, 37n, 32n),
    S2SL0: bits(d2, 39n, 38n),
    S2TG: bits(d2, 47n, 46n),
    S2PS: bits(d2, 50n, 48n),
    S2AA64: bit(d2, 51n),
    S2ENDI: bit(d2, 52n),
    S2AFFD: bit(d2, 53n),
    S2PTW: bit(d2, 54n),
    S2HD: bit(d2, 55n),
    S2HA: bit(d2, 56n),
    S2S: bit(d2, 57n),
    S2R: bit(d2, 58n),
    S2HAFT: f.HTTU === 3n && bit(d2, 59n),
    S2FWB: f.FWB && bit(d1, 25n),
    S2TTB: bits(d3, 51n, 4n) << 4n,
  };
}

/** STRW counts for stage 1 only, and where there is an EL2 (§5.2, IgnoreSTESTRW). */
function strwUsed(f: Features, ste: StreamTableEntry): boolean {
  return f.S1P && f.Hyp && ste.Config === 0b101n;
}

export function streamWorld(f: Features, { E2H }: Controls, ste: StreamTableEntry): StreamWorld {
  if (!strwUsed(f, ste) || ste.STRW === 0n) return "EL1";
  return E2H ? "EL2-E2H" : "EL2";
}

/** The VMID that tags entries, or null (§5.2, IgnoreSTES2VMID). */
export function virtualMachine(f: Features, c: Controls, ste: StreamTableEntry): bigint | null {
  const translates = ste.stage1 || ste.stage2;
  return f.S2P && translates && streamWorld(f, c, ste) === "EL1" ? ste.S2VMID : null;
}

/** What EATS comes to (§5.2): 0 where ATS is off for the stream. */
export function effectiveEATS(f: Features, { ATSCHK }: Controls, ste: StreamTableEntry): bigint {
  if (!f.ATS || bits(ste.Config, 1n, 0n) === 0n) return 0n;
  if (ste.EATS === 2n && !ATSCHK) return 0n;
  return ste.EATS === 3n ? 0n : ste.EATS; // 3 asks for DPT
}

/** Substreams exist for the stream: S1DSS and S1Fmt count (§5.2). */
export function hasSubstreams(f: Features, ste: StreamTableEntry): boolean {
  return ste.stage1 && ste.S1CDMax > 0n && f.SSIDSIZE > 0n;
}

/** What S2PS, or CD.IPS, comes to: bits of the output address (§3.4). */
export function effectiveSize(f: Features, encoded: bigint): bigint {
  const size = addressBits(encoded);
  return size < f.OAS ? size : f.OAS;
}

/** The entry behaves as if V=0 (§5.2.2). */
export function illegalStreamTableEntry(f: Features, dw0: bigint, ste: StreamTableEntry, choose: Choose): boolean {
  if (!bit(dw0, 0n)) return true;
  if (!bit(ste.Config, 2n)) return false;
  if (ste.stage1 && !f.S1P) return true;
  if (ste.stage2 && !f.S2P) return true;
  if (f.ATS && bits(ste.Config, 1n, 0n) !== 0n) {
    if (ste.EATS === 2n && (ste.Config !== 0b111n || ste.S2S || f.NS1ATS)) return true;
    if (ste.EATS === 1n && ste.S2S && ste.stage2) return true;
  }
  if (strwUsed(f, ste) && bit(ste.STRW, 0n)) return true;
  if (ste.stage1 && illegalStage1(f, ste, choose)) return true;
  if (ste.stage2 && illegalStage2(f, ste, choose)) return true;
  const vmidIgnored = !f.S2P || bits(ste.Config, 1n, 0n) === 0n || (strwUsed(f, ste) && ste.STRW !== 0n);
  return !f.VMID16 && !vmidIgnored && bits(ste.S2VMID, 15n, 8n) !== 0n;
}

function illegalStage1(f: Features, ste: StreamTableEntry, choose: Choose): boolean {
  if (ste.S1STALLD && f.STALL_MODEL !== 0n) return true;
  if (f.SSIDSIZE !== 0n && ste.S1CDMax > f.SSIDSIZE) return true;
  if (f.SSIDSIZE !== 0n && ste.S1CDMax !== 0n && !f.CD2L && (ste.S1Fmt === 1n || ste.S1Fmt === 2n)) return true;
  if (ste.S1ContextPtr >> f.IAS === 0n) return false;
  // §3.4.3 (1), (2): an IPA may also be left to stage 2, which has no translation for it.
  return !ste.stage2 || choose(2, "§3.4.3: S1ContextPtr beyond the IAS is ILLEGAL or a stage-2 fault") === 0;
}

function illegalStage2(f: Features, ste: StreamTableEntry, choose: Choose): boolean {
  if (ste.S2S && f.STALL_MODEL === 1n) return true;
  if (!ste.S2S && f.STALL_MODEL === 2n) return true;
  if (!ste.S2AA64) return true;
  if ((ste.S2HA || ste.S2HD) && f.HTTU === 0n) return true;
  if (ste.S2HD && f.HTTU === 1n) return true;
  if (ste.S2HAFT && !ste.S2HA) return true;
  const granule = granuleOfTG0(f, ste.S2TG);
  if (granule === null) return true;
  const size = effectiveSize(f, ste.S2PS);
  if (ste.S2TTB >> size !== 0n) return true;
  if (ste.S2TTB >> 48n !== 0n && granule.bits < 16n) return true;
  const largest = !f.STT ? 39n : granule.bits === 16n ? 47n : 48n;
  const floor = granule.bits === 16n ? 12n : 16n;
  const smallest = 64n - f.IAS > floor ? 64n - f.IAS : floor;
  if (ste.S2T0SZ > largest || ste.S2T0SZ < smallest) return true;
  if (inconsistentStart(f, ste, granule, size, choose)) return true;
  return (ste.S2ENDI && f.TTENDIAN === 2n) || (!ste.S2ENDI && f.TTENDIAN === 3n);
}

/** The level where stage 2 starts; null: no such encoding. */
export function stage2StartLevel(f: Features, ste: StreamTableEntry, granule: Granule): number | null {
  if (granule.bits === 12n) return ste.S2SL0 === 3n ? (f.STT ? 3 : null) : 2 - Number(ste.S2SL0);
  return ste.S2SL0 === 3n ? null : 3 - Number(ste.S2SL0);
}

/** S2SL0 against S2T0SZ and S2TG, as the A-profile architecture has it for VTCR_EL2: at most 16 tables stand side by side at the start level. */
function inconsistentStart(
  f: Features,
  ste: StreamTableEntry,
  granule: Granule,
  size: bigint,
  choose: Choose,
): boolean {
  const level = stage2StartLevel(f, ste, granule);
  if (level === null) return true;
  const indexBits = 64n - ste.S2T0SZ - (granule.bits + granule.stride * BigInt(3 - level));
  if (indexBits < 1n || indexBits > granule.stride + 4n) return true;
  const needs = startNeedsMoreThan(granule, level);
  if (needs === 0n || size > needs) return false;
  if (f.OAS <= needs) return true;
  // Whether it is the physical address size that is implemented or the one that is configured: not settled by the reference.
  return choose(2, "start level against the physical address size") === 0;
}

/** The highest levels exist only where physical addresses are wider than this. */
function startNeedsMoreThan(granule: Granule, level: number): bigint {
  if (granule.bits === 12n && level === 0) return 42n;
  if (granule.bits === 14n && level === 1) return 40n;
  if (granule.bits === 16n && level === 1) return 42n;
  return 0n;
}
