// A hardware IOMMU as the rest of the machine sees it: registers on the memory side, transactions and messages on the PCI side.
// One folder a kind implements it (riscv/; later smmuv3/, vtd/). Kernel drivers know their kind and use its registers.

import type { HpaPfn } from "../../base/address.ts";
import type { Clock } from "../../base/clock.ts";
import type { PhysicalMemory } from "../../base/memory.ts";
import type { MmioPort } from "../../base/mmio.ts";
import type { Stateful } from "../../base/state.ts";
import type { Trace } from "../../base/trace.ts";
import type { StallEnd, TranslationStatus } from "../../base/transaction.ts";
import type { AtsStatus, AtsTarget, AtsTranslation } from "../../devices/ports.ts";

export const ACCESS_READ = 1;
export const ACCESS_WRITE = 2;
export const ACCESS_EXECUTE = 4;

export * from "../../base/transaction.ts";

export interface IommuParts {
  readonly name: string;
  readonly memory: PhysicalMemory<HpaPfn>;
  readonly clock: Clock;
  readonly trace: Trace;
}

/** A kind without state makes a host that cannot be saved: saying so is the host's. */
export interface HardwareIommu extends Partial<Stateful> {
  readonly name: string;
  /** Architecture: "riscv", "smmuv3", … ; chooses the kernel driver. */
  readonly kind: string;
  /** Memory-mapped registers. A write only latches; work is done by `step`/`drain`. */
  readonly registers: MmioPort;
  /** Bytes of register space. */
  readonly registerBytes: number;

  /**
   * Translates one untranslated (`translated` false) or translated request that stays within one 4 KiB page. On TRANSLATED the
   * system physical page is in `resultPfn`. `data` is the 4-byte payload of a write that may be a message (else 0; -1 says that the
   * write cannot be one, being of another size).
   */
  translate(
    deviceId: number,
    pasid: number,
    privileged: boolean,
    access: number,
    pfn: number,
    offset: number,
    translated: boolean,
    data: number,
  ): TranslationStatus;
  resultPfn: HpaPfn;
  /**
   * Kinds whose transactions may stall: the tag of the last one that did, or -1 if it found no room: it is to be made anew when some other
   * has ended.
   */
  readonly stallTag?: number;
  /** Told how a stalled transaction ends. It may call `translate` from within. */
  onStallEnded?: (deviceId: number, tag: number, end: StallEnd) => void;
  /** ATS translation request; the answer is left in `atsTranslation`. */
  translateForDevice(
    deviceId: number,
    pasid: number,
    pfn: number,
    noWrite: boolean,
    privileged: boolean,
    execute: boolean,
  ): AtsStatus;
  readonly atsTranslation: AtsTranslation;
  /** Page Request (flags as AtsPort.pageRequest) or Stop Marker message from a function. */
  pageRequest(deviceId: number, pasid: number, pfn: number, group: number, flags: number): void;
  stopMarker(deviceId: number, pasid: number): void;
  /** Invalidation Completion from a function. */
  invalidationCompleted(deviceId: number, itag: number): void;

  /** Where messages to functions go; undefined id: nobody there. */
  findTarget: (deviceId: number) => AtsTarget | undefined;
  /** Wired interrupts, by vector; level. */
  onWire: (vector: number, asserted: boolean) => void;

  /** Processes one queued command; false when there is nothing to do (idle, off, stopped by an error, waiting for the clock). */
  step(): boolean;
  /** Processes commands until there is nothing to do. Bounded by the queue's size. */
  drain(): void;
  /** Asked before a command of its queue is executed; true: it is taken as done. For failures on purpose; absent or null: all are. */
  skipCommand?: ((name: string) => boolean) | null;
  /** A second IOMMU with this one's registers as they are, that caches nothing and writes nothing: what the tables say now. Its trace is its own. */
  withoutCaches?(): Pick<HardwareIommu, "translate" | "resultPfn"> & { readonly trace: Trace };
  /** The frame that its caches would give an untranslated request (`pasid` -1: none), rights aside; -1: it would have to walk. Changes nothing. */
  remembers?(deviceId: number, pasid: number, pfn: number): number;
  /** Architectural reset. */
  reset(): void;
}
