// One trace for the whole machine: a closed set of event types, each event with a sequence number, virtual time and the
// sequence number of its cause. Emitting is guarded by `on`, so that an untraced run pays one load and a branch:
//
//     if (trace.on) trace.emit({ type: "dma", ... });
//
// Nesting of causes: `enter` emits an event and makes it the cause of what follows until `leave`.

import type { Stateful, StateReader, StateRecord } from "./state.ts";

/** Where an address of a walk step lives. */
export type WalkSpace = "spa" | "gpa";

export type TraceEvent =
  /** A guest's access to a device register, as it left the vCPU. */
  | {
      type: "mmio";
      device: string;
      offset: number;
      size: number;
      write: boolean;
      value: bigint;
      register?: string;
    }
  /**
   * A guest's store to a table or queue in its RAM, at a guest-physical address, where whoever plays the guest tells of it (scenarios): a store to RAM is no
   * trap, and nobody sees a real guest's.
   */
  | { type: "store"; process: string; address: bigint; value: bigint }
  /** A scenario's own step begins. */
  | { type: "step"; name: string }
  /** One command taken from a command queue; `where` is "guest" (vIOMMU) or "host" (hardware). */
  | { type: "command"; where: "guest" | "host"; iommu: string; name: string; words: readonly bigint[]; text: string }
  /** A system call of the VMM's: name as in the uAPI headers, result >= 0 or -errno. */
  | {
      type: "ioctl";
      process: string;
      fd: number;
      name: string;
      result: number;
      fields: Record<string, bigint | number | string>;
    }
  /** The host's driver changed what a device's DMA goes through. */
  | { type: "attach"; device: string; group?: number; pasid?: number; domain: string; detail: string }
  /**
   * Devices of one iommu group, which the host cannot tell apart, have other contexts than before: none, one for all that have one, or
   * contexts that differ, for which all are blocked. `devices` are the guest's names, `withheld` those of them kept
   * from DMA meanwhile, with blanks between.
   */
  | {
      type: "group";
      iommu: string;
      group: string;
      contexts: "none" | "one" | "differ";
      devices: string;
      withheld: string;
    }
  /**
   * One load of a table entry by a walker. `table` is "stage1", "stage2", or the architecture's name of another ("DDT"); `space` says where
   * `address` lives, `kind` which architecture (left out by the first there was).
   */
  | {
      type: "walk";
      where: "host" | "guest";
      iommu: string;
      deviceId: number;
      kind?: string;
      table: string;
      level: number;
      space: WalkSpace;
      address: bigint;
      entry: bigint;
      cached: boolean;
      /** For implicit second-stage walks: the first-stage (or PDT) level they serve. */
      serves?: number;
      /** log2 of the bytes that the entry covers, where table and level do not say it; and the address that is being translated, of the first page of them. */
      covers?: number;
      input?: bigint;
      text?: string;
    }
  /** One transfer by a device, after translation. */
  | {
      type: "dma";
      device: string;
      deviceId: number;
      pasid?: number;
      iova: bigint;
      spa?: bigint;
      length: number;
      write: boolean;
      result: "ok" | "aborted" | "msi" | "stalled";
    }
  /** A fault record: of the hardware, as relayed by the kernel, or as written for the guest. */
  | {
      type: "fault";
      where: "hardware" | "kernel" | "guest";
      iommu: string;
      kind?: string;
      /** The architecture's cause number; `cause` is every event's own. */
      faultCause: number;
      deviceId: number;
      pasid?: number;
      iotval: bigint;
      iotval2: bigint;
      ttyp: number;
      text: string;
      /** The record itself, where one was made: its doublewords. */
      words?: readonly bigint[];
    }
  /** The host was made to fail on purpose. `point` is "ioctl", "allocation" or "event", `rule` as it was written down. */
  | { type: "injection"; point: string; name: string; rule: string }
  /** An interrupt: a host interrupt, an eventfd, or one delivered to the guest. */
  | { type: "irq"; where: "host" | "vfio" | "guest"; source: string; vector: number };

export type TraceEventType = TraceEvent["type"];

/** An event as sinks see it. `seq` counts from 1; `cause` 0 means none; `time` in ns. */
export type TracedEvent = { readonly seq: number; readonly time: number; readonly cause: number } & TraceEvent;

export interface TraceSink {
  event(event: TracedEvent): void;
}

/** Anything that tells the time: the clock. */
export interface TimeSource {
  readonly now: number;
}

/** An event begun and not emitted yet. */
export interface OpenEvent {
  readonly seq: number;
  readonly time: number;
  readonly cause: number;
}

export class Trace implements Stateful {
  /** True when some sink listens. */
  on = false; // not state: wiring
  /** Sequence number of the event that what happens now is a consequence of; 0 none. */
  cause = 0;
  #seq = 0;
  readonly #time: TimeSource;
  readonly #sinks: TraceSink[] = []; // not state: wiring

  constructor(time: TimeSource) {
    this.#time = time;
  }

  /** Sequence number of the last event that has begun. */
  get last(): number {
    return this.#seq;
  }

  addSink(sink: TraceSink): void {
    this.#sinks.push(sink);
    this.on = true;
  }

  removeSink(sink: TraceSink): void {
    const index = this.#sinks.indexOf(sink);
    if (index >= 0) this.#sinks.splice(index, 1);
    this.on = this.#sinks.length > 0;
  }

  saveState(): StateRecord {
    return { cause: this.cause, seq: this.#seq };
  }

  restoreState(state: StateReader): void {
    this.cause = state.number("cause");
    this.#seq = state.number("seq");
  }

  /** Sends an event to every sink; returns its sequence number (0 when nobody listens). */
  emit(event: TraceEvent): number {
    if (!this.on) return 0;
    const seq = ++this.#seq;
    const traced = { seq, time: this.#time.now, cause: this.cause, ...event };
    for (const sink of this.#sinks) sink.event(traced);
    return seq;
  }

  /** Emits an event and makes it the cause of what follows. Returns the previous cause, to hand to `leave`. */
  enter(event: TraceEvent): number {
    const previous = this.cause;
    if (this.on) this.cause = this.emit(event);
    return previous;
  }

  leave(previous: number): void {
    this.cause = previous;
  }

  /**
   * Begins an event that is emitted only when it is over, because its result is part of it (an ioctl): its sequence number and time
   * are those of the beginning, and until `close` it is the cause of what happens. Sinks see it after what it caused. Call only
   * when `on`.
   */
  open(): OpenEvent {
    const span = { seq: ++this.#seq, time: this.#time.now, cause: this.cause };
    this.cause = span.seq;
    return span;
  }

  close(span: OpenEvent, event: TraceEvent): void {
    this.cause = span.cause;
    for (const sink of this.#sinks) sink.event({ ...span, ...event });
  }
}
