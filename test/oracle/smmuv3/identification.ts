/**
 * What an SMMU offers (identification registers, §6.3.1 to §6.3.8) and how it is programmed (§6.3.9 and on), as the oracle sees them. Registers are
 * bigints as software reads and writes them; fields are looked up by bit position, slowly and visibly.
 *
 * Not covered, and refused: Realm and Secure state, VMSAv8-32, VMSAv9-128, 52-bit addresses with 4K and 16K granules (DS), permission indirection and
 * overlays, MPAM, DPT, PASIDTT.
 */

/** Identification registers. */
export interface Identification {
  readonly IDR0: bigint;
  readonly IDR1: bigint;
  readonly IDR3: bigint;
  readonly IDR5: bigint;
  readonly AIDR: bigint;
}

/** The registers that decide about translation. Of CR0, only SMMUEN and ATSCHK. */
export interface Programming {
  readonly CR0: bigint;
  readonly CR2: bigint;
  readonly GBPA: bigint;
  readonly STRTAB_BASE: bigint;
  readonly STRTAB_BASE_CFG: bigint;
}

/** Bit `at` of `value`. */
export function bit(value: bigint, at: bigint): boolean {
  return ((value >> at) & 1n) === 1n;
}

/** Bits high:low of `value`, both inclusive. */
export function bits(value: bigint, high: bigint, low: bigint): bigint {
  return (value >> low) & ((1n << (high - low + 1n)) - 1n);
}

/** Eight bytes in the opposite order. */
export function swapBytes(value: bigint): bigint {
  let swapped = 0n;
  for (let index = 0n; index < 64n; index += 8n) swapped = (swapped << 8n) | ((value >> index) & 0xffn);
  return swapped;
}

/** 32 to 56 bits: IDR5.OAS, CD.IPS and STE.S2PS share this encoding. */
export function addressBits(encoded: bigint): bigint {
  return [32n, 36n, 40n, 42n, 44n, 48n, 52n, 56n][Number(encoded)]!;
}

export interface Features {
  readonly S1P: boolean;
  readonly S2P: boolean;
  /** 0 none, 1 access flag, 2 and dirty state, 3 and the access flag of table descriptors. */
  readonly HTTU: bigint;
  readonly Hyp: boolean;
  readonly ATS: boolean;
  readonly NS1ATS: boolean;
  readonly ASID16: boolean;
  readonly VMID16: boolean;
  readonly CD2L: boolean;
  /** 0 both, 2 little, 3 big. */
  readonly TTENDIAN: bigint;
  /** 0 stall and terminate, 1 terminate, 2 stall. */
  readonly STALL_MODEL: bigint;
  /** Abort only: CD.A must be 1. */
  readonly TERM_MODEL: boolean;
  readonly twoLevelStreamTable: boolean;
  readonly SIDSIZE: bigint;
  readonly SSIDSIZE: bigint;
  readonly ATTR_PERMS_OVR: boolean;
  readonly HAD: boolean;
  readonly XNX: boolean;
  readonly FWB: boolean;
  readonly STT: boolean;
  readonly E0PD: boolean;
  readonly EPAN: boolean;
  readonly OAS: bigint;
  /** §3.4: without VMSAv8-32 it is the OAS. */
  readonly IAS: bigint;
  /** By granule bits: 12, 14, 16. */
  readonly granules: readonly bigint[];
  readonly VAX: bigint;
  /** Minor architecture version: 2 is SMMUv3.2. */
  readonly version: bigint;
}

/** Throws a RangeError if the oracle does not cover what the registers offer. */
export function features({ IDR0, IDR1, IDR3, IDR5, AIDR }: Identification): Features {
  const refused: [boolean, string][] = [
    [bits(IDR0, 3n, 2n) !== 2n, "IDR0.TTF other than VMSAv8-64"],
    [bit(IDR0, 30n), "IDR0.RME_IMPL"],
    [bit(IDR3, 7n), "IDR3.MPAM"],
    [bit(IDR3, 15n), "IDR3.DPT"],
    [bit(IDR3, 16n), "IDR3.PASIDTT"],
    [bits(IDR3, 21n, 18n) !== 0n, "IDR3.{S1PI,S2PI,S2PO,THE}"],
    [bit(IDR3, 23n), "IDR3.AIE"],
    [bits(IDR5, 8n, 7n) !== 0n, "IDR5.{DS,D128}"],
    [bits(IDR5, 2n, 0n) === 7n, "56-bit output addresses"],
    [AIDR === 0n, "SMMUv3.0"],
  ];
  for (const [is, what] of refused) if (is) throw new RangeError(`not covered by the oracle: ${what}`);
  const OAS = addressBits(bits(IDR5, 2n, 0n));
  return {
    S2P: bit(IDR0, 0n),
    S1P: bit(IDR0, 1n),
    HTTU: bits(IDR0, 7n, 6n),
    Hyp: bit(IDR0, 9n),
    ATS: bit(IDR0, 10n),
    NS1ATS: bit(IDR0, 11n),
    ASID16: bit(IDR0, 12n),
    VMID16: bit(IDR0, 18n),
    CD2L: bit(IDR0, 19n),
    TTENDIAN: bits(IDR0, 22n, 21n),
    STALL_MODEL: bits(IDR0, 25n, 24n),
    TERM_MODEL: bit(IDR0, 26n),
    twoLevelStreamTable: bits(IDR0, 28n, 27n) !== 0n,
    SIDSIZE: bits(IDR1, 5n, 0n),
    SSIDSIZE: bits(IDR1, 10n, 6n),
    ATTR_PERMS_OVR: bit(IDR1, 26n),
    HAD: bit(IDR3, 2n),
    XNX: bit(IDR3, 4n),
    FWB: bit(IDR3, 8n),
    STT: bit(IDR3, 9n),
    E0PD: bit(IDR3, 13n),
    EPAN: bit(IDR3, 17n),
    OAS,
    IAS: OAS,
    granules: [12n, 14n, 16n].filter((_bits, index) => bit(IDR5, 4n + BigInt(index))),
    VAX: bits(IDR5, 11n, 10n),
    version: bits(AIDR, 3n, 0n),
  };
}

/** The control bits, each where its feature exists (§6.3.9, §6.3.12). */
export interface Controls {
  readonly SMMUEN: boolean;
  readonly ATSCHK: boolean;
  readonly E2H: boolean;
  readonly RECINVSID: boolean;
  readonly REC_CFG_ATS: boolean;
  readonly abortAll: boolean;
}

export function controls({ IDR0 }: Identification, { CR0, CR2, GBPA }: Programming): Controls {
  return {
    SMMUEN: bit(CR0, 0n),
    ATSCHK: bit(IDR0, 10n) && bit(CR0, 4n),
    E2H: bit(IDR0, 9n) && bit(CR2, 0n),
    RECINVSID: bit(CR2, 1n),
    REC_CFG_ATS: bit(IDR0, 23n) && bit(CR2, 3n),
    abortAll: bit(GBPA, 20n),
  };
}
