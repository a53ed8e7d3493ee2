/** Invalidation descriptors as quadwords (§6.5.2); a 256-bit queue has zeros behind them. */
import type { Descriptor } from "../invalidation.ts";

const domain = (did: bigint) => did << 16n;

export const contextGlobal = (): Descriptor => [1n | (1n << 4n), 0n];
export const contextDomain = (did: bigint): Descriptor => [1n | (2n << 4n) | domain(did), 0n];
/** `functions` 0 to 3: FM, how many of the low function bits do not count. */
export const contextDevice = (did: bigint, sid: bigint, functions = 0n): Descriptor => [
  1n | (3n << 4n) | domain(did) | (sid << 32n) | (functions << 48n),
  0n,
];
export const iotlbGlobal = (): Descriptor => [2n | (1n << 4n), 0n];
export const iotlbDomain = (did: bigint): Descriptor => [2n | (2n << 4n) | domain(did), 0n];
/** 2^`mask` pages. */
export interface Pages {
  readonly address: bigint;
  readonly mask?: bigint;
  readonly leafOnly?: boolean;
}
const pages = ({ address, mask = 0n, leafOnly = false }: Pages) =>
  (BigInt.asUintN(64, address) & ~((4096n << mask) - 1n)) | mask | (leafOnly ? 1n << 6n : 0n);
export const iotlbPages = (did: bigint, where: Pages): Descriptor => [2n | (3n << 4n) | domain(did), pages(where)];
export const pasidIotlb = (did: bigint, pasid: bigint): Descriptor => [
  6n | (2n << 4n) | domain(did) | (pasid << 32n),
  0n,
];
export const pasidIotlbPages = (did: bigint, pasid: bigint, where: Pages): Descriptor => [
  6n | (3n << 4n) | domain(did) | (pasid << 32n),
  pages(where),
];
export const pasidCacheDomain = (did: bigint): Descriptor => [7n | domain(did), 0n];
export const pasidCacheOne = (did: bigint, pasid: bigint): Descriptor => [
  7n | (1n << 4n) | domain(did) | (pasid << 32n),
  0n,
];
export const pasidCacheGlobal = (): Descriptor => [7n | (3n << 4n), 0n];
export const interruptGlobal = (): Descriptor => [4n, 0n];
/** 2^`mask` entries. */
export const interruptIndex = (index: bigint, mask = 0n): Descriptor => [
  4n | (1n << 4n) | (mask << 27n) | (index << 32n),
  0n,
];
