// What one RISC-V IOMMU is: capabilities, widths, sizes and the choices the specification leaves open. Everything has a default;
// README.md lists the capabilities with the reasons for theirs.

import {
  IGS_BOTH,
  IGS_MSI,
  IGS_WSI,
  type RiscvCapabilities,
  type StructureRules,
  structureRules,
} from "../../../arch/riscv/capabilities.ts";

export interface CacheSizes {
  /** Device contexts kept; 0 none. Rounded up to a power of two, as all of these. */
  readonly devices: number;
  /** Process contexts kept. They are found through a cached device context: with `devices` 0 they never hit. */
  readonly processes: number;
  /** Translations kept (first and second stage combined, each of its own page size). */
  readonly translations: number;
  /** MSI page-table entries kept. */
  readonly messages: number;
  /** Pointers to page tables of both stages kept, so that a walk begins at the deepest table known; 0: every walk begins at the root. */
  readonly tables: number;
}

export interface RiscvIommuOptions {
  /** Single capability bits; the rest are DEFAULT_CAPABILITIES. */
  readonly capabilities?: Partial<RiscvCapabilities>;
  /** fctl at reset. */
  readonly bigEndian?: boolean;
  readonly wiredInterrupts?: boolean;
  readonly gxl?: boolean;
  /** fctl bits software may change. Default: BE with END, WSI with IGS = BOTH, GXL never. */
  readonly bigEndianWritable?: boolean;
  readonly wiredInterruptsWritable?: boolean;
  readonly gxlWritable?: boolean;
  /** ddtp.iommu_mode after reset; default "off". */
  readonly resetMode?: "off" | "bare";
  /** Widest device directory: 1, 2 or 3 levels; default 3. */
  readonly directoryLevels?: 1 | 2 | 3;
  /** log2 of the largest queue in entries; default 16. */
  readonly queueSizeLog2?: number;
  /** Event counters besides iohpmcycles (1 to 31), their width in bits (32 to 64), and the last event id that exists. */
  readonly counters?: number;
  readonly counterBits?: number;
  readonly lastEvent?: number;
  /** Virtual nanoseconds per cycle of iohpmcycles; default 1. */
  readonly cycleNs?: number;
  /** log2 of the number of interrupt vectors: icvec fields have that many writable bits; 0 to 4, default 4. */
  readonly vectorBits?: number;
  /** Widths of RCID and MCID with QOSID; default 12. */
  readonly rcidBits?: number;
  readonly mcidBits?: number;
  /** ATS invalidations that can be outstanding at once (1 to 32); default 32. And how long one may take before it has timed out. */
  readonly atsTags?: number;
  readonly atsTimeoutNs?: number;
  readonly caches?: Partial<CacheSizes>;
  /** log2 in bytes of the range that ATS and debug translations report where both stages are Bare; default 30. */
  readonly bareRangeLog2?: number;
  /** iohgatp Bare with msiptp not Off is misconfigured (20260222); false accepts it, as earlier texts did. */
  readonly bareNeedsMsiOff?: boolean;
  /** MSI mask and pattern bits above the guest-physical width are reserved (20250828); false ignores them. */
  readonly checksMsiPatternWidth?: boolean;
  /**
   * When set, whatever a register write latched (commands, a debug translation) is worked on by a clock event that many ns later,
   * so that whoever runs the clock need not call `drain`. Default: nobody does but the caller of `step` and `drain`.
   */
  readonly automaticDelayNs?: number;
}

export const DEFAULT_CAPABILITIES: RiscvCapabilities = {
  version: 0x10,
  Sv32: false,
  Sv39: true,
  Sv48: true,
  Sv57: true,
  Svrsw60t59b: true,
  Svpbmt: true,
  Sv32x4: false,
  Sv39x4: true,
  Sv48x4: true,
  Sv57x4: true,
  AMO_MRIF: true,
  MSI_FLAT: true,
  MSI_MRIF: true,
  AMO_HWAD: true,
  ATS: true,
  T2GPA: true,
  END: false,
  IGS: IGS_BOTH,
  HPM: true,
  DBG: true,
  PAS: 56,
  PD8: true,
  PD17: true,
  PD20: true,
  QOSID: false,
  NL: true,
  S: true,
  custom: 0,
};

const DEFAULT_CACHES: CacheSizes = { devices: 64, processes: 256, translations: 1024, messages: 64, tables: 4096 };

/** Options with every default filled in. */
export interface RiscvIommuConfiguration {
  readonly capabilities: RiscvCapabilities;
  /** fctl at reset, and its writable bits. */
  readonly fctl: number;
  readonly fctlWritable: number;
  readonly resetMode: 0 | 1;
  readonly directoryLevels: number;
  readonly queueSizeLog2: number;
  readonly counters: number;
  readonly counterBits: number;
  readonly lastEvent: number;
  readonly cycleNs: number;
  readonly vectorBits: number;
  readonly rcidBits: number;
  readonly mcidBits: number;
  readonly atsTags: number;
  readonly atsTimeoutNs: number;
  readonly caches: CacheSizes;
  readonly bareRangeLog2: number;
  readonly bareNeedsMsiOff: boolean;
  readonly checksMsiPatternWidth: boolean;
  readonly automaticDelayNs: number | null;
}

const bound = (value: number, low: number, high: number, what: string): number => {
  if (!Number.isInteger(value) || value < low || value > high)
    throw new RangeError(`${what} must be ${low} to ${high}`);
  return value;
};

/** Fills in defaults. Throws RangeError for values out of range and for capability sets the specification rules out (§6.3). */
export function configure(options: RiscvIommuOptions = {}): RiscvIommuConfiguration {
  const capabilities = { ...DEFAULT_CAPABILITIES, ...options.capabilities };
  if (capabilities.Sv48 && !capabilities.Sv39) throw new RangeError("Sv48 needs Sv39");
  if (capabilities.Sv57 && !capabilities.Sv48) throw new RangeError("Sv57 needs Sv48");
  if (capabilities.T2GPA && !capabilities.ATS) throw new RangeError("T2GPA needs ATS");
  if (capabilities.MSI_MRIF && !capabilities.MSI_FLAT) throw new RangeError("MSI_MRIF needs MSI_FLAT");
  bound(capabilities.PAS, 32, 56, "PAS");
  bound(capabilities.IGS, 0, 2, "IGS");
  const igs = capabilities.IGS;
  const wired = igs === IGS_WSI || (igs === IGS_BOTH && (options.wiredInterrupts ?? false));
  const bits = (be: boolean, wsi: boolean, gxl: boolean) => (be ? 1 : 0) | (wsi ? 2 : 0) | (gxl ? 4 : 0);
  if (igs === IGS_MSI && options.wiredInterrupts === true)
    throw new RangeError("wired interrupts need IGS WSI or BOTH");
  const caches = { ...DEFAULT_CACHES, ...options.caches };
  return {
    capabilities,
    fctl: bits(options.bigEndian ?? false, wired, options.gxl ?? false),
    fctlWritable: bits(
      options.bigEndianWritable ?? capabilities.END,
      igs === IGS_BOTH && (options.wiredInterruptsWritable ?? true),
      options.gxlWritable ?? false,
    ),
    resetMode: options.resetMode === "bare" ? 1 : 0,
    directoryLevels: bound(options.directoryLevels ?? 3, 1, 3, "directoryLevels"),
    queueSizeLog2: bound(options.queueSizeLog2 ?? 16, 1, 32, "queueSizeLog2"),
    counters: capabilities.HPM ? bound(options.counters ?? 8, 1, 31, "counters") : 0,
    counterBits: bound(options.counterBits ?? 64, 32, 64, "counterBits"),
    lastEvent: bound(options.lastEvent ?? 8, 0, 8, "lastEvent"),
    cycleNs: bound(options.cycleNs ?? 1, 1, 1_000_000, "cycleNs"),
    vectorBits: bound(options.vectorBits ?? 4, 0, 4, "vectorBits"),
    rcidBits: bound(options.rcidBits ?? 12, 0, 12, "rcidBits"),
    mcidBits: bound(options.mcidBits ?? 12, 0, 12, "mcidBits"),
    atsTags: bound(options.atsTags ?? 32, 1, 32, "atsTags"),
    atsTimeoutNs: bound(options.atsTimeoutNs ?? 60_000_000, 0, Number.MAX_SAFE_INTEGER, "atsTimeoutNs"),
    caches: {
      devices: bound(caches.devices, 0, 2 ** 16, "caches.devices"),
      processes: bound(caches.processes, 0, 2 ** 16, "caches.processes"),
      translations: bound(caches.translations, 0, 2 ** 20, "caches.translations"),
      messages: bound(caches.messages, 0, 2 ** 16, "caches.messages"),
      tables: bound(caches.tables, 0, 2 ** 16, "caches.tables"),
    },
    bareRangeLog2: bound(options.bareRangeLog2 ?? 30, 12, 52, "bareRangeLog2"),
    bareNeedsMsiOff: options.bareNeedsMsiOff ?? true,
    checksMsiPatternWidth: options.checksMsiPatternWidth ?? true,
    automaticDelayNs: options.automaticDelayNs ?? null,
  };
}

/** The rules for in-memory structures under this configuration and fctl value. */
export function rulesOf(configuration: RiscvIommuConfiguration, fctl: number): StructureRules {
  return structureRules(configuration.capabilities, {
    fctl,
    bigEndianWritable: (configuration.fctlWritable & 1) !== 0,
    gxlWritable: (configuration.fctlWritable & 4) !== 0,
    rcidBits: configuration.rcidBits,
    mcidBits: configuration.mcidBits,
    bareNeedsMsiOff: configuration.bareNeedsMsiOff,
    checksMsiPatternWidth: configuration.checksMsiPatternWidth,
  });
}
