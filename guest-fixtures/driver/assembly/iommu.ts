// An IOMMU in words that hold for every kind, so that a guest tells one story on whichever its machine has. A kind's driver (riscv-iommu.ts, smmuv3.ts, vtd.ts)
// turns them into registers, structures and commands; find-iommu.ts makes the one that the platform names.

import { fail } from "./console";
import { PageTable } from "./page-table";

/** What can go wrong with a device's access. */
export const NOT_MAPPED: i32 = 0;
export const NO_PERMISSION: i32 = 1;
/** The page is mapped to where there is no memory. */
export const OUTSIDE_MEMORY: i32 = 2;
/** `breakContext` was called for the device. */
export const CONTEXT_NOT_VALID: i32 = 3;
/** The IOMMU is off. */
export const SWITCHED_OFF: i32 = 4;

/** What kind of access a record says it was. */
export const ACCESS_READ: i32 = 0;
export const ACCESS_WRITE: i32 = 1;
export const ACCESS_UNKNOWN: i32 = -1;

/** A fault record, or event. */
export class Fault {
  constructor(
    /** The architecture's number. */
    readonly code: u32,
    readonly deviceId: u32,
    readonly access: i32,
    /** 0 where the record names none: `hasAddress`. */
    readonly address: u64,
    readonly hasAddress: bool,
    /** A second address, which a guest must never see. */
    readonly other: u64,
    /** One line. */
    readonly text: string,
    /** By which `resume` names the transaction, which waits; -1: it has ended. */
    readonly waits: i32 = -1,
  ) {}

  describe(): string {
    return this.text;
  }
}

/**
 * Use: `enable`, then `setFirstStage` per device; after every change of a table `invalidatePage` or `invalidateAddressSpace`. `setFirstStage`,
 * `switchFirstStage` and `breakContext` bring the invalidation of the device's context with them. Nothing has taken effect before `fence` returns.
 */
export abstract class Iommu {
  commandsSent: u32 = 0;

  abstract get base(): u64;
  /** "capabilities 0x…, three-level directory, …": what there is and how it is used. */
  abstract describe(): string;
  /** Commands that invalidate and fence, by the architecture's names. */
  abstract get invalidationName(): string;
  abstract get fenceName(): string;

  /** An empty first stage of the usual format. */
  abstract newTable(): PageTable;

  /**
   * Turns the IOMMU on: until `setFirstStage`, all DMA is refused. It raises `commandInterrupt` for errors of its own and `faultInterrupt` for records, as
   * messages, or on wires where it has no messages. Returns the interrupt of the records: `faultInterrupt`, or the wire.
   */
  abstract enable(commandInterrupt: u32, faultInterrupt: u32): u32;
  /** Refuses all DMA. */
  abstract disable(): void;
  /** Lets all DMA pass as it is. */
  abstract passThrough(): void;

  /** In how many shapes its table of devices comes; whether a device has a place in one; starts with an empty one, by way of off; its name. */
  abstract get shapes(): i32;
  abstract reaches(shape: i32, deviceId: u32): bool;
  abstract useShape(shape: i32): void;
  abstract shapeName(shape: i32): string;
  /** "directories of 1, 2, 3 levels" for the names of several shapes. */
  abstract describeShapes(names: string): string;

  /** What a device's DMA goes through. `tag`: by which cached translations are told apart. */
  abstract setFirstStage(deviceId: u32, tag: u32, table: PageTable): void;
  /** To `table` or, with null, to none at all (and back); by one store, the context whole at every moment, unless `switchesBlock`. */
  abstract switchFirstStage(deviceId: u32, table: PageTable | null): void;
  /** Switches refuse DMA for a moment. */
  get switchesBlock(): bool {
    return false;
  }
  /** Makes the device's context one that is not valid. */
  abstract breakContext(deviceId: u32): void;

  /** Transactions of a device that can wait may be made to: what faults then is no end but a question, which `resume` answers. */
  get canStall(): bool {
    return false;
  }
  /** As `setFirstStage`, and what faults waits. */
  setStallingFirstStage(deviceId: u32, tag: u32, table: PageTable): void {
    fail("this IOMMU lets nothing wait");
  }
  /** The transaction of a fault that waits: made anew, or aborted. */
  resume(fault: Fault, retry: bool): void {
    fail("this IOMMU lets nothing wait");
  }

  abstract invalidatePage(tag: u32, iova: u64): void;
  abstract invalidateAddressSpace(tag: u32): void;
  abstract fence(): void;

  /** Takes the oldest fault record; null if there is none. */
  abstract takeFault(): Fault | null;
  /** To be called when the records' interrupt arrives, before anything else is waited for. */
  abstract acknowledgeFaults(): void;
  /** The number a guest hears of what went wrong; -1: nothing. */
  abstract codeOf(what: i32, write: bool): i32;
  /** "cause", "event": what the architecture calls that number. */
  abstract get codeName(): string;
}
