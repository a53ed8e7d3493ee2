// What a host shows of itself to unmodified Linux programs: device nodes (hostshim-server.ts), and the devices whose sysfs is laid out as files.

import type { ForeignPages } from "./foreign-pages.ts";
import type { ServedNodes } from "./hostshim-server.ts";

export const IOMMUFD = "/dev/iommu";
/** Device numbers, major << 20 | minor: misc devices, and one major for VFIO's groups and one for its devices (Linux gives them out as it likes). */
export const IOMMUFD_NUMBER = (10 << 20) | 124;
export const CONTAINER_NUMBER = (10 << 20) | 196;
export const GROUP_MAJOR = 510;
export const DEVICE_MAJOR = 511;

/** A device as sysfs shows it. */
export interface ServedDevice {
  /** "0000:01:00.0", or of a platform device "edu0". */
  readonly name: string;
  /** What only PCI functions have. */
  readonly pci: {
    /** The 4096 bytes of its configuration space. */
    readonly config: Uint8Array;
    /** BARs: address and bytes, 0 where there is none. */
    readonly bars: readonly { readonly base: bigint; readonly bytes: bigint; readonly flags: bigint }[];
  } | null;
  readonly driver: string | null;
  readonly group: number | null;
  readonly iommu: string | null;
  /** N of vfioN, null if VFIO does not have it. */
  readonly vfio: number | null;
}

export interface HostSummary {
  /** ioctls by name, the most frequent first. */
  readonly ioctls: Readonly<Record<string, number>>;
  /** Devices that did something, or that something was done to. */
  readonly devices: readonly DeviceSummary[];
  /** What a checker found, one line each. */
  readonly findings: readonly string[];
  /** Rules of injection that had no occasion. */
  readonly unusedRules: readonly string[];
}

export interface DeviceSummary {
  readonly name: string;
  /** Reads and writes of its regions by programs. */
  readonly accesses: number;
  /** DMA in pieces of pages; messages are MSIs, `faults` what its IOMMU did not translate. */
  readonly transfers: number;
  readonly bytes: number;
  readonly aborted: number;
  readonly messages: number;
  readonly faults: number;
}

export interface ServedHost extends ServedNodes {
  readonly frames: ForeignPages;
  /** Paths that can be opened. */
  readonly nodes: readonly string[];
  readonly devices: readonly ServedDevice[];
  /** What happened so far. */
  summary(): HostSummary;
  /** A check of the host's has found something. */
  failed(): boolean;
  /** Objects and pins still alive, "" none. */
  readonly leftOver: string;
  /** Ends it; what is open is gone already. */
  close(): void;
}

export function describeLeftOver(objects: readonly (readonly [string, number])[], pins: number): string {
  const all = pins === 0 ? objects : [...objects, ["pin", pins] as const];
  return all.map(([kind, count]) => `${count} ${kind}`).join(", ");
}
