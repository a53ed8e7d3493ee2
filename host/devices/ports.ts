// The ports an endpoint model sees: DMA, interrupts, the clock. They let the same model sit behind the host's PCI bus or on a
// VM's own bus. The bus side implements them (see host/hw/pci for the host's).

import type { AtsStatus, AtsTranslation } from "../base/ats.ts";
import type { ClockEvent } from "../base/clock.ts";
import type { AccessSize, MmioPort } from "../base/mmio.ts";
import type { Stateful } from "../base/state.ts";
import type { StallEnd } from "../base/transaction.ts";

export * from "../base/ats.ts";
export type { AccessSize, MmioPort, StallEnd };

/** The transfer was done. */
export const DMA_OK = 0;
/** Completer answered Unsupported Request or Completer Abort: nothing was transferred. */
export const DMA_ABORTED = 1;
/**
 * The transfer waits in the IOMMU for software's decision, as `DmaPort.stallTag`; `PlatformEndpoint.stallEnded` will say what that is.
 * Never given to a PCI function.
 */
export const DMA_STALLED = 2;
export type DmaStatus = 0 | 1 | 2;

/** No PASID prefix on the request. */
export const NO_PASID = -1;

/**
 * Bus-master port of one function. Addresses are a page-frame number (any integer below 2^52) and an offset below 4096: what
 * the device was told, before any translation. A transfer may cross pages; the bus splits it at page boundaries and stops at
 * the first refused piece (what went before it stays done, as on a real bus). `pasid` is NO_PASID or 0..2^20-1.
 * A 4-byte write is also how a message-signalled interrupt leaves the device. If bus mastering is off, all is aborted.
 * `privileged` is the Privileged Mode Requested bit of the PASID prefix; it means nothing without a PASID.
 */
export interface DmaPort {
  read(
    pfn: number,
    offset: number,
    into: Uint8Array,
    at: number,
    length: number,
    pasid: number,
    privileged?: boolean,
  ): DmaStatus;
  write(
    pfn: number,
    offset: number,
    from: Uint8Array,
    at: number,
    length: number,
    pasid: number,
    privileged?: boolean,
  ): DmaStatus;
  /** Present where the function has an ATS capability. */
  readonly ats?: AtsPort;
  /** Of the last transfer that was DMA_STALLED; -1: there was no room for it to wait, it is to be made anew when told. */
  readonly stallTag?: number;
}

/** PCIe ATS and PRI, requester side (PCIe 6.0 §10). */
export interface AtsPort {
  readonly translation: AtsTranslation;
  translate(pfn: number, pasid: number, noWrite: boolean, privileged: boolean, execute: boolean): AtsStatus;
  /** DMA with a translated address (AT = 10b). */
  readTranslated(pfn: number, offset: number, into: Uint8Array, at: number, length: number, pasid: number): DmaStatus;
  writeTranslated(pfn: number, offset: number, from: Uint8Array, at: number, length: number, pasid: number): DmaStatus;
  /** Page Request message; `flags` are R = 1, W = 2, L = 4, execute = 8, privileged = 16. */
  pageRequest(pfn: number, pasid: number, group: number, flags: number): void;
  /** Stop Marker for a PASID. */
  stopMarker(pasid: number): void;
  /** Invalidation Completion for a request that `AtsTarget.invalidate` did not complete at once. */
  invalidationCompleted(itag: number): void;
}

/** Messages that reach a function from its root complex; implemented by endpoint models with ATS/PRI. */
export interface AtsTarget {
  /**
   * Invalidation Request: drop cached translations of [pfn, pfn + pages) (pages = Infinity: all; pasid NO_PASID: those without;
   * globalInvalidate: in every PASID). Returns true when complete at once; else the device completes later with
   * `AtsPort.invalidationCompleted(itag)`; a device that never does times out.
   */
  invalidate(pfn: number, pages: number, pasid: number, globalInvalidate: boolean, itag: number): boolean;
  /** PRG Response: code 0 success, 1 invalid request, 15 response failure. */
  pageResponse(pasid: number, group: number, code: number): void;
}

/** INTx of one function. */
export interface InterruptPort {
  /** Level of the function's interrupt pin. */
  intx(asserted: boolean): void;
}

/** Time as a device sees it; host/base/clock.ts implements it. */
export interface DeviceClock {
  readonly now: number;
  schedule(delay: number, event: ClockEvent, argument?: number): number;
  cancel(id: number): void;
}

/** What a function gets when it is plugged in. */
export interface FunctionPorts {
  readonly dma: DmaPort;
  readonly interrupt: InterruptPort;
  readonly clock: DeviceClock;
}

export interface BarDescription {
  /** Bytes, a power of two >= 16. */
  readonly size: number;
  readonly kind: "memory32" | "memory64";
  readonly prefetchable: boolean;
  /** Registers behind the BAR, offsets from its start. */
  readonly registers: MmioPort;
}

/**
 * A PCI function as a bus sees it. Configuration space is 4096 bytes; accesses of 1, 2, 4 bytes, naturally aligned. The function
 * itself keeps command register, BAR bases and capabilities (see pci-function.ts); buses ask it where its BARs decode.
 * A function whose model has state is Stateful.
 */
export interface PciFunction extends Partial<Stateful> {
  readonly name: string;
  readonly bars: readonly (BarDescription | null)[];
  configRead(offset: number, size: 1 | 2 | 4): number;
  configWrite(offset: number, size: 1 | 2 | 4, value: number): void;
  /** Page-aligned base that BAR `index` decodes at now, or -1 when memory decoding is off or the BAR is absent. */
  barBase(index: number): number;
  /** Plugs the function into a bus. Called once, before anything else. */
  connect(ports: FunctionPorts): void;
  /** Function-level reset (PCIe 6.0 §6.6.2): as after power-on, DMA in flight is given up. */
  reset(): void;
  /** In D3hot: it neither answers memory requests nor makes any (PCI PM 1.2 §5.4.1). Absent: it never sleeps. */
  readonly asleep?: boolean;
  /** Present on functions with ATS. */
  readonly atsTarget?: AtsTarget;
  /** The function can log the pages it writes itself (VFIO: DMA logging). */
  readonly logsDma?: boolean;
}

/** What a device on no bus gets when a machine is put together. */
export interface PlatformPorts {
  readonly dma: DmaPort;
  readonly clock: DeviceClock;
  /** Level of interrupt wire `index`. */
  readonly interrupt: (index: number, asserted: boolean) => void;
}

/** Registers that a machine places in its address space. */
export interface RegionDescription {
  /** Bytes, a multiple of 4096. */
  readonly size: number;
  /** Offsets from the region's start. */
  readonly registers: MmioPort;
}

/**
 * A device on no bus (Linux: a platform device) as a machine sees it: nothing about it can be discovered, firmware says where its
 * registers and wires are. A device whose model has state is Stateful.
 */
export interface PlatformEndpoint extends Partial<Stateful> {
  readonly name: string;
  /** What firmware calls it (Devicetree Specification §2.3.1, compatible). */
  readonly compatible: string;
  readonly regions: readonly RegionDescription[];
  /** Interrupt wires, all level-sensitive. */
  readonly interrupts: number;
  /** Puts the device in its place. Called once, before anything else. */
  connect(ports: PlatformPorts): void;
  /** As after power-on; DMA in flight is given up, a stalled transaction is nobody's any more. */
  reset(): void;
  /**
   * Transaction `tag` ended its wait. What belongs to none of the device's is ignored. Must not do DMA from within: the IOMMU is at work.
   */
  stallEnded(tag: number, end: StallEnd): void;
}
