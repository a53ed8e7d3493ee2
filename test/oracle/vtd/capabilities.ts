/**
 * The registers that say what a unit can do (§11.4.2, §11.4.3) and how it is programmed (§11.4.4 to §11.4.6, §11.4.28).
 */

export function bit(value: bigint, at: bigint): boolean {
  return ((value >> at) & 1n) === 1n;
}

/** Bits high:low, inclusive. */
export function bits(value: bigint, high: bigint, low: bigint): bigint {
  return (value >> low) & ((1n << (high - low + 1n)) - 1n);
}

/** Whether no bit of high:low is set; a range from high down to a larger low is empty. */
export function zero(value: bigint, high: bigint, low: bigint): boolean {
  return low > high || bits(value, high, low) === 0n;
}

export interface Identification {
  readonly VER: bigint;
  readonly CAP: bigint;
  readonly ECAP: bigint;
  /** Host address width: bits of a physical address, which the platform says (DMAR), not the unit. */
  readonly HAW: bigint;
}

/** What software has latched and enabled. */
export interface Programming {
  /** GSTS.TES, IRES, CFIS. */
  readonly TES: boolean;
  readonly IRES: boolean;
  readonly CFIS: boolean;
  /** As latched by SRTP and SIRTP. */
  readonly RTADDR: bigint;
  readonly IRTA: bigint;
}

export interface Features {
  readonly HAW: bigint;
  readonly domainIdBits: bigint;
  readonly CM: boolean;
  /** Adjusted guest address widths, as SAGAW lists them. */
  readonly SAGAW: bigint;
  readonly MGAW: bigint;
  readonly SSLPS: bigint;
  readonly FS1GP: boolean;
  readonly FS5LP: boolean;
  readonly PI: boolean;
  readonly DT: boolean;
  readonly IR: boolean;
  readonly EIM: boolean;
  readonly PT: boolean;
  readonly SC: boolean;
  readonly MTS: boolean;
  readonly NEST: boolean;
  readonly PRS: boolean;
  readonly SRS: boolean;
  readonly EAFS: boolean;
  readonly PASID: boolean;
  /** Bits of a PASID. */
  readonly pasidBits: bigint;
  readonly SMTS: boolean;
  readonly SSADS: boolean;
  readonly SSTS: boolean;
  readonly FSTS: boolean;
  readonly SMPWCS: boolean;
  readonly RPS: boolean;
  readonly ADMS: boolean;
  readonly RPRIVS: boolean;
}

export function features({ CAP, ECAP, HAW }: Identification): Features {
  return {
    HAW,
    domainIdBits: 4n + 2n * bits(CAP, 2n, 0n),
    CM: bit(CAP, 7n),
    SAGAW: bits(CAP, 12n, 8n),
    MGAW: bits(CAP, 21n, 16n) + 1n,
    SSLPS: bits(CAP, 37n, 34n),
    FS1GP: bit(CAP, 56n),
    FS5LP: bit(CAP, 60n),
    PI: bit(CAP, 59n),
    DT: bit(ECAP, 2n),
    IR: bit(ECAP, 3n),
    EIM: bit(ECAP, 4n),
    PT: bit(ECAP, 6n),
    SC: bit(ECAP, 7n),
    MTS: bit(ECAP, 25n),
    NEST: bit(ECAP, 26n),
    PRS: bit(ECAP, 29n),
    SRS: bit(ECAP, 31n),
    EAFS: bit(ECAP, 34n),
    PASID: bit(ECAP, 40n),
    pasidBits: bits(ECAP, 39n, 35n) + 1n,
    SMTS: bit(ECAP, 43n),
    SSADS: bit(ECAP, 45n),
    SSTS: bit(ECAP, 46n),
    FSTS: bit(ECAP, 47n),
    SMPWCS: bit(ECAP, 48n),
    RPS: bit(ECAP, 49n),
    ADMS: bit(ECAP, 52n),
    RPRIVS: bit(ECAP, 53n),
  };
}

/** Width of AW 1, 2, 3 if the unit has it; null: reserved or not supported (§11.4.2, SAGAW). */
export function agaw(f: Features, AW: bigint): { readonly levels: number; readonly width: bigint } | null {
  if (AW < 1n || AW > 3n || !bit(f.SAGAW, AW)) return null;
  return { levels: Number(AW) + 2, width: 30n + 9n * AW };
}

/** Bits of an address that a fault record must hold (§11.4.7.6): those of the largest width that the unit has. */
export function largestWidth(f: Features): bigint {
  const second = [3n, 2n, 1n].find((AW) => bit(f.SAGAW, AW));
  const first = f.FSTS ? (f.FS5LP ? 57n : 48n) : 0n;
  const width = second === undefined ? first : 30n + 9n * second;
  return width > first ? width : first;
}

/** 0xFEE0_0000 to 0xFEEF_FFFF (§3.15). */
export function inInterruptRange(address: bigint): boolean {
  return address >> 20n === 0xfeen;
}
