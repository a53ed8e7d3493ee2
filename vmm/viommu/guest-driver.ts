// The guest's side of an IOMMU in words that hold for every kind: what a guest driver asks of translation, what it hears of faults. Scenarios
// speak them; a kind's guest driver (its folder's guest/) turns them into the structures of its architecture. What only one kind has, its
// driver offers beside: raw structures, commands by name.

import type { VcpuPort } from "../vcpu/port.ts";

/** Guest RAM as a guest driver uses it: its own stores, which cost no trap. */
export interface GuestMemory {
  /** Zeroed pages, contiguous, aligned to `alignment` bytes. Throws RangeError when RAM is used up. */
  allocate(pages?: number, alignment?: bigint): bigint;
  read64(address: bigint): bigint;
  write64(address: bigint, value: bigint): void;
  read(address: bigint, length: number): Uint8Array;
  write(address: bigint, bytes: Uint8Array): void;
}

export interface MapOptions {
  readonly read?: boolean;
  readonly write?: boolean;
  readonly execute?: boolean;
  /** Bytes of one leaf; default 4096. */
  readonly pageBytes?: bigint;
}

/** Stage-1 tables that a guest builds in its RAM. */
export interface GuestStage1 {
  /** By which cached translations are told apart: PSCID, ASID, … */
  readonly tag: number;
  /** Maps [iova, +length) to [gpa, +length). Everything a multiple of the leaf's bytes. Overwrites what was mapped. */
  map(iova: bigint, gpa: bigint, length: bigint, options?: MapOptions): void;
  /** Clears the leaves of [iova, +length). What hardware has cached stays until it is invalidated. */
  unmap(iova: bigint, length: bigint): void;
}

/** A first stage, none (addresses pass to the second stage), or nothing passes. */
export type FirstStage<Stage1 extends GuestStage1 = GuestStage1> = Stage1 | "bypass" | "blocked";

/** All that is set up for a device. */
export interface DeviceTranslation<Stage1 extends GuestStage1 = GuestStage1> {
  /** For requests without a PASID; null: nothing was ever set up for them. */
  whole: FirstStage<Stage1> | null;
  readonly pasids: Map<number, FirstStage<Stage1>>;
  ats: boolean;
  pageRequests: boolean;
  /** Transactions that fault wait until the guest has answered, where the architecture has that. */
  stalls?: boolean;
}

/** What an IOMMU offers its guest. */
export interface TranslationOffer {
  readonly ats: boolean;
  readonly pageRequests: boolean;
  /** Width of PASIDs, 0: none. */
  readonly pasidBits: number;
  /** Transactions that fault can wait for an answer. Left out: no. */
  readonly stalls?: boolean;
}

/** A page that a device asks for. */
export interface PageRequest {
  /** The guest's id of the device. */
  readonly deviceId: number;
  /** null: without. */
  readonly pasid: number | null;
  readonly address: bigint;
  readonly read: boolean;
  readonly write: boolean;
  readonly execute: boolean;
  /** The last of its group: an answer is for the group. */
  readonly last: boolean;
  /** Ends the group: the page is there, it never will be, or the device is to send no more. */
  answer(answer: PageAnswer): void;
}

export type PageAnswer = "success" | "invalid" | "failure";

/** Which cached translations to forget: of one stage 1, of one page, or all. */
export interface InvalidationScope {
  readonly stage1?: GuestStage1;
  readonly iova?: bigint;
}

/** A guest's driver of one vIOMMU, brought up. */
export interface GuestDriver {
  readonly offer: TranslationOffer;
  /** Stores what a device's requests go through, and the commands that make it so. `extra`: what only this kind knows. */
  installTranslation(deviceId: number, translation: DeviceTranslation, extra?: object): void;
  /** Stores the architecture's own structure for a device as it is, and the commands that make it so. */
  installContext(deviceId: number, context: object): void;
  /** Queues an invalidation; `fence` waits until all before it are done. */
  invalidate(scope?: InvalidationScope): void;
  fence(): void;
  /** Takes the page requests that wait, oldest first. */
  takeRequests(): PageRequest[];
  /** Takes the fault records (events) that wait, oldest first, as the architecture has them. */
  takeFaults(): unknown[];
}

/** What went wrong with a transaction, in every kind's words. */
export type FaultWord =
  /** No leaf of stage 1 maps the address. */
  | "not mapped"
  /** It maps it without the right that is needed. */
  | "no permission"
  /** It maps it to where the guest has no memory. */
  | "outside memory"
  /** The device has never been set up, or its set-up was taken away. */
  | "device not set up"
  /** Its set-up is one that the IOMMU does not take. */
  | "context malformed"
  /** The device is set up, this PASID is not. */
  | "PASID not set up"
  /** The host does not take what the guest set up. */
  | "refused by the host";

/** What a guest hears of a fault: the architecture's number for it; null: nothing. And the section that says so. */
export interface Heard {
  readonly code: number | null;
  readonly section: string;
}

/** A fault record in every kind's words. */
export interface GuestFault {
  /** The architecture's number for it. */
  readonly code: number;
  /** The guest's id of the device. */
  readonly deviceId: number;
  /** null: the record names none. */
  readonly pasid: number | null;
  readonly address: bigint | null;
  readonly write: boolean | null;
}

export interface DriverSurroundings {
  readonly port: VcpuPort;
  readonly ram: GuestMemory;
  /** Guest-physical address of the vIOMMU's registers. */
  readonly base: number;
  /** Where its interrupts go as messages, and the number of the first. */
  readonly messageAddress: number;
  readonly firstMessage: number;
  /** Firmware says that the guest has command queues of the hardware's. */
  readonly hardwareQueues?: boolean;
}

/** A kind's half of scenarios. */
export interface GuestSide {
  /** Built-in host that has the kind; and one whose 0000:00:01.0 has PASIDs, ATS and page requests, where that is another. */
  readonly host: string;
  readonly servicesHost?: string;
  /** A device's messages pass by its stage 1: the host needs no window in it. Left out: they are writes like any other. */
  readonly messagesPassBy?: true;
  /** A device that changes from one set-up to another has none in between: what it writes then is refused. Left out: no byte is lost. */
  readonly switchesBlock?: true;
  /** Table formats of stage 1, the usual one first. */
  readonly stage1Modes: readonly string[];
  stage1(ram: GuestMemory, tag: number, mode?: string): GuestStage1;
  /** Finds the vIOMMU and brings it up. */
  driver(surroundings: DriverSurroundings): GuestDriver;
  /** What a guest hears when an assigned device's transaction fails so. */
  hears(what: FaultWord, write: boolean): Heard;
  /** A record that `takeFaults` gave, in every kind's words, and as text. */
  faultOf(record: unknown): GuestFault;
  describeFault(record: unknown): string;
  /** Name of an architecture's fault number. */
  faultName(code: number): string;
}
