// Address spaces, kept apart by the type checker.
//
// Two forms of every address. At the edges (uAPI structs, registers, scenarios, JSON, logs) an address is a branded bigint.
// On walk and DMA paths it is a page-frame number (address >> 12, exact in a double for every 64-bit address) and an offset
// below 4096, both plain numbers, the frame number branded with its space so that a mix-up of stages does not compile.

declare const space: unique symbol;
type Branded<T, Space> = T & { readonly [space]: Space };

/** I/O virtual address: what a device puts on the bus; input of stage 1. */
export type Iova = Branded<bigint, "iova">;
/** Guest-physical address: output of stage 1, input of stage 2. */
export type Gpa = Branded<bigint, "gpa">;
/** Host-physical address: output of stage 2, what the memory banks decode. */
export type Hpa = Branded<bigint, "hpa">;

export type IovaPfn = Branded<number, "iova">;
export type GpaPfn = Branded<number, "gpa">;
export type HpaPfn = Branded<number, "hpa">;
export type Pfn = IovaPfn | GpaPfn | HpaPfn;

export const PAGE_SHIFT = 12;
export const PAGE_SIZE = 4096;
/** 2^52: one more than the largest page-frame number of a 64-bit address. */
export const PFN_LIMIT = 2 ** 52;

/** Page-frame number of an address (bits 63:12). */
export function pfnOf(address: Iova): IovaPfn;
export function pfnOf(address: Gpa): GpaPfn;
export function pfnOf(address: Hpa): HpaPfn;
export function pfnOf(address: bigint): number {
  return Number(BigInt.asUintN(64, address) >> 12n);
}

/** Offset of an address within its 4 KiB page. */
export function offsetOf(address: bigint): number {
  return Number(address & 0xfffn);
}

/** The 64-bit address of a page-frame number and an offset. */
export function addressOf(pfn: IovaPfn, offset?: number): Iova;
export function addressOf(pfn: GpaPfn, offset?: number): Gpa;
export function addressOf(pfn: HpaPfn, offset?: number): Hpa;
export function addressOf(pfn: number, offset = 0): bigint {
  return (BigInt(pfn) << 12n) | BigInt(offset);
}

/** Low 32 bits of pfn << 12 | offset, unsigned. */
export function addressLow(pfn: number, offset: number): number {
  return (((pfn % 0x100000) << 12) | offset) >>> 0;
}

/** High 32 bits of pfn << 12, unsigned. */
export function addressHigh(pfn: number): number {
  return Math.floor(pfn / 0x100000);
}

/** Page-frame number of the 64-bit address high:low. */
export function pfnOfHalves(low: number, high: number): number {
  return (high >>> 0) * 0x100000 + (low >>> 12);
}

/** 0x-prefixed lower-case hexadecimal. */
export function hex(value: number | bigint, digits = 0): string {
  return `0x${value.toString(16).padStart(digits, "0")}`;
}
