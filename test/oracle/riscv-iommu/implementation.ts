/**
 * What an implementation of the RISC-V IOMMU offers, as the oracle sees it: the capabilities register (§6.3), the feature-control bits
 * (§6.4) and the widths that no register tells. Everything is bigint and looked up by bit position, slowly and visibly.
 */

/** Bit positions in the capabilities register (§6.3). */
export const CAPABILITY = {
  Sv32: 8n,
  Sv39: 9n,
  Sv48: 10n,
  Sv57: 11n,
  Svrsw60t59b: 14n,
  Svpbmt: 15n,
  Sv32x4: 16n,
  Sv39x4: 17n,
  Sv48x4: 18n,
  Sv57x4: 19n,
  AMO_MRIF: 21n,
  MSI_FLAT: 22n,
  MSI_MRIF: 23n,
  AMO_HWAD: 24n,
  ATS: 25n,
  T2GPA: 26n,
  END: 27n,
  HPM: 30n,
  DBG: 31n,
  PD8: 38n,
  PD17: 39n,
  PD20: 40n,
  QOSID: 41n,
  NL: 42n,
  S: 43n,
} as const;

export type Capability = keyof typeof CAPABILITY;

/** An implementation and the state of its feature-control register. */
export interface Implementation {
  /** The capabilities register (§6.3). */
  readonly capabilities: bigint;
  /** fctl.BE (§6.4). */
  readonly be: boolean;
  /** fctl.GXL (§6.4). */
  readonly gxl: boolean;
  /** Whether software can change fctl.BE; if it cannot, tc.SBE must equal it (§3.1.4). */
  readonly beWritable: boolean;
  /** Whether software can change fctl.GXL; decides which tc.SXL are legal (§3.1.4). */
  readonly gxlWritable: boolean;
  /** Bits of RCID and MCID that are implemented, at most 12 (§9). */
  readonly rcidWidth: number;
  readonly mcidWidth: number;
}

export function has(implementation: Implementation, capability: Capability): boolean {
  return bit(implementation.capabilities, CAPABILITY[capability]);
}

/** Width of physical addresses in bits (§6.3, capabilities.PAS). */
export function physicalAddressBits(implementation: Implementation): bigint {
  return bits(implementation.capabilities, 37n, 32n);
}

/** Bit `at` of `value`. */
export function bit(value: bigint, at: bigint): boolean {
  return ((value >> at) & 1n) === 1n;
}

/** Bits high:low of `value`, both inclusive. */
export function bits(value: bigint, high: bigint, low: bigint): bigint {
  return (value >> low) & ((1n << (high - low + 1n)) - 1n);
}

/** `bytes` bytes of `value` in the opposite order. */
export function swapBytes(value: bigint, bytes: number): bigint {
  let swapped = 0n;
  for (let index = 0; index < bytes; index++) swapped = (swapped << 8n) | ((value >> BigInt(8 * index)) & 0xffn);
  return swapped;
}
