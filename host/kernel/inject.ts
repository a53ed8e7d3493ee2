// Breaking the host on purpose: one interface that kernel code asks at its failure points. What answers is an InjectionPlan
// (injection-plan.ts) made by a scenario, a test, or `--inject`; without one nothing fails.

/** Quirks of hardware that the model can be given. */
export type Erratum =
  /** A NEST_PARENT domain refuses mappings without write permission (Intel's 772415: the second stage of a nested walk needs it). */
  "read-only-stage2";

export const ERRATA: readonly Erratum[] = ["read-only-stage2"];

/** Objects whose allocations can fail: iommufd's types of objects, and what they are made of. */
export const ALLOCATIONS = [
  "access",
  "access file",
  "access item",
  "access list",
  "access record",
  "account",
  "allowed range",
  "area",
  "attachment",
  "bitmap",
  "copy buffer",
  "device",
  "device group",
  "dma-buf",
  "domain",
  "domain list",
  "event file",
  "exported region",
  "fault group",
  "fault-queue",
  "hw info",
  "hw-queue",
  "hwpt-nested",
  "hwpt-paging",
  "ioas",
  "mock device",
  "msi map",
  "open file",
  "page list",
  "page-table page",
  "pages",
  "pages list",
  "pin",
  "reserved range",
  "selftest",
  "vdevice",
  "vdevice slot",
  "veventq",
  "vevent",
  "viommu",
] as const;
export type AllocationKind = (typeof ALLOCATIONS)[number];

/** A queue of events towards user space. */
export type EventQueueKind = "veventq" | "fault";

/** What happens to a call besides failing. */
export interface Tampering {
  /** drop: it answers success and does nothing. corrupt: one bit of what it is given is another. */
  readonly kind: "drop" | "corrupt" | "delay";
  readonly delayNs: number;
  /** A number below `most`. */
  pick(most: number): number;
}

export interface Injector {
  /** Asked before a system call is handled; a negated errno to fail it with, 0 to let it run. `name` as in the uAPI headers. */
  ioctl(name: string): number;
  /** What the call that `ioctl` was just asked about meets besides; absent or null: nothing. */
  readonly tampering?: Tampering | null;
  /** Lets virtual time pass, for a delay. */
  passTime?(ns: number): void;
  /** Asked at every allocation that a kernel could fail; true fails it with -ENOMEM. `what` names the object. */
  allocation(what: AllocationKind): boolean;
  /** Asked for every event about to be queued; true loses it. */
  loseEvent(queue: EventQueueKind): boolean;
  /** True if the hardware has this quirk; absent: it has none. */
  erratum?(erratum: Erratum): boolean;
}

/** Nothing fails. */
export const NO_INJECTION: Injector = {
  ioctl: () => 0,
  allocation: () => false,
  loseEvent: () => false,
};
