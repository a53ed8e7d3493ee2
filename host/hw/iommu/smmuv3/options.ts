// What one SMMUv3 is: features (IDR0, IDR1, IDR3, IDR5 by field names), cache sizes, choices. README.md says why each default is what it is.

import type { SmmuFeatures } from "../../../arch/smmuv3/identification.ts";
import type { CacheSizes } from "../../../arch/smmuv3/parts/caches.ts";
import { type CmdqvConfiguration, type CmdqvOptions, configureCmdqv } from "./cmdqv/options.ts";

export interface Smmuv3Options {
  readonly features?: Partial<SmmuFeatures>;
  readonly caches?: Partial<CacheSizes>;
  /** IIDR; 0 names nobody, and so no driver's errata apply. */
  readonly iidr?: number;
  /** GBPA.ABORT at reset. */
  readonly abortsAtReset?: boolean;
  /** ATS invalidations outstanding at most, and when one is given up (virtual ns). */
  readonly atsTags?: number;
  readonly atsTimeoutNs?: number;
  /** A Tegra241 CMDQV beside it; null (default): none. */
  readonly cmdqv?: CmdqvOptions | null;
  /** The clock works on commands so long after the write; null (default): only step() and drain() do. */
  readonly automaticDelayNs?: number | null;
}

export interface Smmuv3Configuration {
  readonly features: SmmuFeatures;
  readonly caches: CacheSizes;
  readonly iidr: number;
  readonly abortsAtReset: boolean;
  readonly atsTags: number;
  readonly atsTimeoutNs: number;
  readonly cmdqv: CmdqvConfiguration | null;
  readonly automaticDelayNs: number | null;
}

export const DEFAULT_FEATURES: SmmuFeatures = {
  S2P: true,
  S1P: true,
  COHACC: true,
  BTM: false,
  HTTU: 2,
  Hyp: true,
  ATS: true,
  NS1ATS: false,
  ASID16: true,
  MSI: true,
  SEV: true,
  PRI: true,
  VMW: false,
  VMID16: true,
  CD2L: true,
  TTENDIAN: 2,
  ATSRECERR: true,
  STALL_MODEL: 0,
  TERM_MODEL: true,
  ST_LEVEL: 1,
  SIDSIZE: 24,
  SSIDSIZE: 20,
  PRIQS: 15,
  EVENTQS: 15,
  CMDQS: 15,
  ATTR_PERMS_OVR: false,
  ATTR_TYPES_OVR: false,
  HAD: true,
  XNX: true,
  PPS: true,
  FWB: true,
  STT: true,
  RIL: true,
  BBML: 2,
  E0PD: true,
  PTWNNC: true,
  EPAN: true,
  OAS: 5,
  GRAN4K: true,
  GRAN16K: true,
  GRAN64K: true,
  STALL_MAX: 64,
  ArchRev: 3,
};

const DEFAULT_CACHES: CacheSizes = { streams: 64, contexts: 256, translations: 1024, tables: 4096 };

const bound = (value: number, low: number, high: number, what: string): number => {
  if (!Number.isInteger(value) || value < low || value > high)
    throw new RangeError(`${what} must be ${low} to ${high}`);
  return value;
};

const refuse = (condition: boolean, what: string): void => {
  if (condition) throw new RangeError(what);
};

/** Fills in defaults. Throws RangeError for values out of range and for features that the specification rules out together (§6.3). */
export function configure(options: Smmuv3Options = {}): Smmuv3Configuration {
  const asked = { ...DEFAULT_FEATURES, ...options.features };
  // What rests on something that was switched off goes with it, unless it was asked for.
  const given = options.features ?? {};
  const features: SmmuFeatures = {
    ...asked,
    Hyp: asked.Hyp && (given.Hyp !== undefined || (asked.S1P && asked.S2P)),
    PRI: asked.PRI && (given.PRI !== undefined || asked.ATS),
    CD2L: asked.CD2L && (given.CD2L !== undefined || (asked.S1P && asked.SSIDSIZE > 0)),
    STALL_MAX: asked.STALL_MODEL === 1 && given.STALL_MAX === undefined ? 0 : asked.STALL_MAX,
  };
  refuse(!features.S1P && !features.S2P, "an SMMU has S1P or S2P");
  refuse(features.Hyp && !(features.S1P && features.S2P), "Hyp needs S1P and S2P");
  refuse(features.PRI && !features.ATS, "PRI needs ATS");
  refuse(!features.GRAN4K && !features.GRAN16K && !features.GRAN64K, "an SMMU has a granule");
  bound(features.SIDSIZE, 0, 32, "SIDSIZE");
  refuse(features.SIDSIZE >= 7 && features.ST_LEVEL === 0, "SIDSIZE of 7 and more needs ST_LEVEL 1");
  bound(features.SSIDSIZE, 0, 20, "SSIDSIZE");
  bound(features.HTTU, 0, 3, "HTTU");
  bound(features.ST_LEVEL, 0, 1, "ST_LEVEL");
  bound(features.STALL_MODEL, 0, 2, "STALL_MODEL");
  bound(features.BBML, 0, 2, "BBML");
  bound(features.ArchRev, 0, 4, "ArchRev");
  bound(features.OAS, 0, 5, "OAS");
  refuse(features.TTENDIAN === 1, "TTENDIAN 1 is reserved");
  bound(features.TTENDIAN, 0, 3, "TTENDIAN");
  for (const name of ["CMDQS", "EVENTQS", "PRIQS"] as const) bound(features[name], 0, 19, name);
  bound(features.STALL_MAX, features.STALL_MODEL === 1 ? 0 : 1, 65535, "STALL_MAX");
  const caches = { ...DEFAULT_CACHES, ...options.caches };
  return {
    features,
    caches: {
      streams: bound(caches.streams, 0, 2 ** 16, "caches.streams"),
      contexts: bound(caches.contexts, 0, 2 ** 16, "caches.contexts"),
      translations: bound(caches.translations, 0, 2 ** 16, "caches.translations"),
      tables: bound(caches.tables, 0, 2 ** 16, "caches.tables"),
    },
    iidr: bound(options.iidr ?? 0, 0, 2 ** 32 - 1, "iidr"),
    abortsAtReset: options.abortsAtReset ?? false,
    atsTags: bound(options.atsTags ?? 32, 1, 32, "atsTags"),
    atsTimeoutNs: bound(options.atsTimeoutNs ?? 60_000_000, 0, Number.MAX_SAFE_INTEGER, "atsTimeoutNs"),
    cmdqv: options.cmdqv == null ? null : configureCmdqv(options.cmdqv),
    automaticDelayNs: options.automaticDelayNs ?? null,
  };
}
