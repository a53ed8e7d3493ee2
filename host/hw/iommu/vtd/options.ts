// What one VT-d unit is: features (CAP and ECAP by field names), address width, cache sizes. README.md says why each default is what it is.

import type { VtdFeatures } from "../../../arch/vtd/capabilities.ts";
import type { CacheSizes } from "../../../arch/vtd/parts/caches.ts";
import { faultRecordingRegister, invalidationRegisters } from "../../../arch/vtd/registers.ts";

export interface VtdCacheSizes extends CacheSizes {
  /** Interrupt remapping table entries, a power of two; 0: none. */
  readonly interrupts: number;
}

export interface VtdOptions {
  readonly features?: Partial<VtdFeatures>;
  readonly caches?: Partial<VtdCacheSizes>;
  /** HAW: bits of a host-physical address. */
  readonly hostAddressBits?: number;
  /** VER, major in bits 7:4. */
  readonly version?: number;
  /** ATS invalidations outstanding at most, and when one is given up (virtual ns). */
  readonly atsTags?: number;
  readonly atsTimeoutNs?: number;
  /** The clock works on descriptors so long after the write; null (default): only step() and drain() do. */
  readonly automaticDelayNs?: number | null;
}

export interface VtdConfiguration {
  readonly features: VtdFeatures;
  readonly caches: VtdCacheSizes;
  readonly hostAddressBits: number;
  readonly version: number;
  readonly atsTags: number;
  readonly atsTimeoutNs: number;
  readonly automaticDelayNs: number | null;
}

export const DEFAULT_FEATURES: VtdFeatures = {
  ND: 6,
  RWBF: false,
  CM: false,
  SAGAW: 12,
  MGAW: 56,
  ZLR: true,
  FRO: 0x22,
  SSLPS: 3,
  PSI: true,
  NFR: 7,
  MAMV: 36,
  DWD: true,
  DRD: true,
  FS1GP: true,
  PI: false,
  FS5LP: true,
  ESIRTPS: true,
  ESRTPS: true,
  C: true,
  QI: true,
  DT: true,
  IR: true,
  EIM: true,
  PT: true,
  SC: true,
  IRO: 0x0f,
  MHMV: 15,
  MTS: false,
  NEST: true,
  PRS: true,
  SRS: true,
  NWFS: false,
  EAFS: true,
  PSS: 19,
  PASID: true,
  DIT: false,
  PDS: true,
  SMTS: true,
  SSADS: true,
  SSTS: true,
  FSTS: true,
  SMPWCS: true,
  RPS: true,
  ADMS: true,
  RPRIVS: true,
};

const DEFAULT_CACHES: VtdCacheSizes = {
  contexts: 64,
  pasids: 256,
  translations: 1024,
  tables: 4096,
  interrupts: 256,
};

/** What is of no use without another feature, and goes with it unless it is asked for. */
const FOLLOWS: readonly (readonly [keyof VtdFeatures, keyof VtdFeatures])[] = [
  ["SRS", "FSTS"],
  ["EAFS", "FSTS"],
  ["FS5LP", "FSTS"],
  ["FS1GP", "FSTS"],
  ["SSADS", "SSTS"],
  ["RPRIVS", "SRS"],
  ["PRS", "DT"],
];

/** What rests on another feature: goes with it, and is refused if it is asked for. */
const NEEDS: readonly (readonly [keyof VtdFeatures, keyof VtdFeatures])[] = [
  ["SMTS", "QI"],
  ["FSTS", "SMTS"],
  ["SSTS", "SMTS"],
  ["NEST", "FSTS"],
  ["NEST", "SSTS"],
  ["SMPWCS", "SMTS"],
  ["RPS", "SMTS"],
  ["PASID", "SMTS"],
  ["DT", "QI"],
  ["PRS", "SMTS"],
  ["PDS", "PRS"],
  ["IR", "QI"],
  ["EIM", "IR"],
];

const bound = (value: number, low: number, high: number, what: string): number => {
  if (!Number.isInteger(value) || value < low || value > high)
    throw new RangeError(`${what} must be ${low} to ${high}`);
  return value;
};

const refuse = (condition: boolean, what: string): void => {
  if (condition) throw new RangeError(what);
};

/** Fills in defaults. Throws RangeError for values out of range and for features that do not go together. */
export function configure(options: VtdOptions = {}): VtdConfiguration {
  const given = options.features ?? {};
  const features: Record<string, number | boolean> = { ...DEFAULT_FEATURES, ...given };
  for (const [feature, needed] of NEEDS) {
    if (features[needed] === true || features[feature] !== true) continue;
    refuse(given[feature] === true, `${feature} needs ${needed}`);
    features[feature] = false;
  }
  for (const [feature, followed] of FOLLOWS)
    if (features[followed] !== true && given[feature] !== true) features[feature] = false;
  const all = features as unknown as VtdFeatures;
  refuse(all.PI, "posted interrupts (PI) are not there");
  refuse(all.NWFS || all.DIT, "NWFS and DIT are not there");
  bound(all.ND, 0, 6, "ND");
  bound(all.SAGAW, 0, 14, "SAGAW");
  refuse((all.SAGAW & 1) !== 0, "SAGAW bit 0 is reserved");
  bound(all.MGAW, 31, 56, "MGAW");
  bound(all.SSLPS, 0, 3, "SSLPS");
  bound(all.NFR, 0, 255, "NFR");
  bound(all.MAMV, 0, 63, "MAMV");
  bound(all.MHMV, 0, 15, "MHMV");
  bound(all.PSS, 0, 19, "PSS");
  refuse(!all.SMTS && all.SAGAW === 0, "legacy mode needs a width (SAGAW)");
  checkPlaces(all);
  const caches = { ...DEFAULT_CACHES, ...options.caches };
  const entries = (name: keyof VtdCacheSizes): number => bound(caches[name], 0, 2 ** 16, `caches.${name}`);
  refuse((caches.interrupts & (caches.interrupts - 1)) !== 0, "caches.interrupts must be a power of two, or 0");
  return {
    features: all,
    caches: {
      contexts: entries("contexts"),
      pasids: entries("pasids"),
      translations: entries("translations"),
      tables: entries("tables"),
      interrupts: entries("interrupts"),
    },
    hostAddressBits: bound(options.hostAddressBits ?? 46, 32, 52, "hostAddressBits"),
    version: bound(options.version ?? 0x50, 0, 0xff, "version"),
    atsTags: bound(options.atsTags ?? 32, 1, 32, "atsTags"),
    atsTimeoutNs: bound(options.atsTimeoutNs ?? 60_000_000, 0, Number.MAX_SAFE_INTEGER, "atsTimeoutNs"),
    automaticDelayNs: options.automaticDelayNs ?? null,
  };
}

/** IVA, IOTLB and the fault records must stand clear of the other registers and of each other. */
function checkPlaces(features: VtdFeatures): void {
  bound(features.IRO, 0, 0x3ff, "IRO");
  bound(features.FRO, 0, 0x3ff, "FRO");
  const lowest = features.MTS ? 0x220 : 0xf0;
  const iva = invalidationRegisters(features);
  const first = faultRecordingRegister(features, 0);
  const end = faultRecordingRegister(features, features.NFR + 1);
  const clear = (from: number): boolean => from >= lowest || (features.MTS && from === 0xf0);
  refuse(!clear(iva), "IRO puts IVA and IOTLB over other registers");
  refuse(first < lowest, "FRO puts the fault records over other registers");
  refuse(iva < end && iva + 16 > first, "IRO and FRO put registers over each other");
}
