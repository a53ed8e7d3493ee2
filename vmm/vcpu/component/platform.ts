// What a machine hands its component guest: where things stand, and the clock. Answers come from here when the guest calls the
// `platform` and `time` interfaces (guest-fixtures/wit/guest.wit).

import type { RegionKind } from "./world.ts";

export interface PlatformRegion {
  /** Guest-physical base and size in bytes, below 2^53. */
  readonly base: number;
  readonly size: number;
}

export interface ComponentPlatform {
  /** Regions of each kind in the order the guest numbers them; a kind left out has none. */
  readonly regions: Readonly<Partial<Record<RegionKind, readonly PlatformRegion[]>>>;
  /** Wire of vector `vector` of IOMMU `index`; -1 none. */
  iommuLine(index: number, vector: number): number;
  /** Index of the IOMMU before the function with this requester id; -1 none. */
  iommuOf(requesterId: number): number;
  /** Wire of INTx pin 1 to 4 of the function with this requester id; -1 none. */
  pciLine(requesterId: number, pin: number): number;
  /** Of the device whose registers a region is (a platform device's): its id at its IOMMU, that IOMMU's index, its wire; -1 each: none. Absent: no region is a device's. */
  device?(
    kind: RegionKind,
    index: number,
  ): { readonly id: number; readonly iommu: number; readonly line: number } | null;
  /** Virtual time in ns. */
  now(): number;
  /** Raises interrupt `number` as a message in `delay` ns; replaces the alarm set before. */
  alarm(delay: number, number: number): void;
}
