// Interrupts of an assigned device: host eventfds on one side, the guest's MSI, MSI-X or INTx on the other.
//
//   device ─▶ host interrupt ─▶ VFIO eventfd ─▶ `flag` (only sets a flag) ─▶ `service` from the machine's run loop
//     MSI, MSI-X: the guest's address, taken through the device's own first stage by the vIOMMU, and its data ─▶ interrupt controller
//     INTx: the guest's line goes up; VFIO masked it on the host; at the guest's next access to the device it goes down and is
//     unmasked, and comes again if the device still asserts it
//
// One kind at a time is enabled in the host, the one the guest enabled; INTx when it enabled none.

import { bytesOf, type Stateful, type StateReader, type StateRecord } from "../../host/base/state.ts";
import type { Trace } from "../../host/base/trace.ts";
import {
  VFIO_DEVICE_GET_IRQ_INFO,
  VFIO_DEVICE_SET_IRQS,
  VFIO_IRQ_SET_ACTION_TRIGGER,
  VFIO_IRQ_SET_ACTION_UNMASK,
  VFIO_IRQ_SET_DATA_EVENTFD,
  VFIO_IRQ_SET_DATA_NONE,
  VFIO_PCI_INTX_IRQ_INDEX,
  VFIO_PCI_MSI_IRQ_INDEX,
  VFIO_PCI_MSIX_IRQ_INDEX,
  vfioIrqInfo,
  vfioIrqSet,
} from "../../host/uapi/vfio.ts";
import type { KernelCalls } from "./kernel-calls.ts";

const KINDS = ["none", "intx", "msi", "msix"] as const;
export type InterruptKind = (typeof KINDS)[number];

const INDEX: Readonly<Record<Exclude<InterruptKind, "none">, number>> = {
  intx: VFIO_PCI_INTX_IRQ_INDEX,
  msi: VFIO_PCI_MSI_IRQ_INDEX,
  msix: VFIO_PCI_MSIX_IRQ_INDEX,
};

/** Vectors for which eventfds are made: MSI-X allows 2048, no device here comes near this. */
const VECTOR_LIMIT = 256;

export class AssignedInterrupts implements Stateful {
  /** Set while some eventfd may have counted. */
  flagged = false;
  /** Trace event that flagged it. */
  cause = 0;
  /** Vector fired (INTx: 0). */
  onFired: (kind: InterruptKind, vector: number) => void = () => {}; // not state: wiring
  readonly #calls: KernelCalls;
  readonly #fd: number;
  readonly #report: (call: string, errno: number) => void;
  readonly #trace: Trace;
  readonly #ready: Uint8Array = new Uint8Array(VECTOR_LIMIT);
  #eventfds: number[] = [];
  #kind: InterruptKind = "none";

  constructor(calls: KernelCalls, fd: number, report: (call: string, errno: number) => void, trace: Trace) {
    this.#calls = calls;
    this.#fd = fd;
    this.#report = report;
    this.#trace = trace;
  }

  get kind(): InterruptKind {
    return this.#kind;
  }

  /** Vectors the host has for a kind, 0 if none. */
  count(kind: Exclude<InterruptKind, "none">): number {
    const { result, out } = this.#calls.ioctl(this.#fd, VFIO_DEVICE_GET_IRQ_INFO, vfioIrqInfo, { index: INDEX[kind] });
    return result < 0 ? 0 : Math.min(out.count, VECTOR_LIMIT);
  }

  /** Switches to another kind with `vectors` vectors; true if the host did it. */
  enable(kind: InterruptKind, vectors: number): boolean {
    this.disable();
    if (kind === "none" || vectors === 0) return true;
    const { system } = this.#calls;
    const wanted = Math.min(vectors, VECTOR_LIMIT);
    const trailing = new Uint8Array(4 * wanted);
    const view = new DataView(trailing.buffer);
    for (let vector = 0; vector < wanted; vector++) {
      const eventfd = system.eventfd();
      if (eventfd < 0) {
        this.#report("eventfd", eventfd);
        this.#closeEventfds();
        return false;
      }
      this.#eventfds.push(eventfd);
      this.#watch(eventfd, vector);
      view.setInt32(4 * vector, eventfd, true);
    }
    const flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
    const { result } = this.#calls.ioctl(
      this.#fd,
      VFIO_DEVICE_SET_IRQS,
      vfioIrqSet,
      { flags, index: INDEX[kind], start: 0, count: wanted },
      trailing,
    );
    if (result < 0) {
      this.#report("VFIO_DEVICE_SET_IRQS", result);
      this.#closeEventfds();
      return false;
    }
    this.#kind = kind;
    return true;
  }

  /** Switches off what is on; interrupts not yet taken are dropped, as on hardware that lost its vector. */
  disable(): void {
    if (this.#kind !== "none") {
      this.#calls.ioctl(this.#fd, VFIO_DEVICE_SET_IRQS, vfioIrqSet, {
        flags: VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER,
        index: INDEX[this.#kind],
        start: 0,
        count: 0,
      });
    }
    this.#kind = "none";
    this.#closeEventfds();
  }

  /** INTx only: lets the host deliver it again. */
  unmask(): void {
    if (this.#kind !== "intx") return;
    this.#calls.ioctl(this.#fd, VFIO_DEVICE_SET_IRQS, vfioIrqSet, {
      flags: VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_UNMASK,
      index: VFIO_PCI_INTX_IRQ_INDEX,
      start: 0,
      count: 1,
    });
  }

  /** Reads the eventfds that are ready and reports their vectors, lowest first. */
  service(): void {
    this.flagged = false;
    for (let vector = 0; vector < this.#eventfds.length; vector++) {
      if (this.#ready[vector] === 0) continue;
      this.#ready[vector] = 0;
      // Several signals of one vector are one interrupt, as they are on a real machine.
      const count = this.#calls.read(this.#eventfds[vector]!, 8);
      if (typeof count !== "number") this.onFired(this.#kind, vector);
    }
  }

  #closeEventfds(): void {
    for (const eventfd of this.#eventfds) {
      this.#calls.system.watch(eventfd, null);
      this.#calls.system.close(eventfd);
    }
    this.#eventfds = [];
    this.#ready.fill(0);
    this.flagged = false;
  }

  #watch(eventfd: number, vector: number): void {
    this.#calls.system.watch(eventfd, () => {
      this.#ready[vector] = 1;
      this.flagged = true;
      this.cause = this.#trace.cause;
    });
  }

  saveState(): StateRecord {
    return {
      flagged: this.flagged,
      cause: this.cause,
      ready: bytesOf(this.#ready),
      eventfds: this.#eventfds.slice(),
      kind: this.#kind,
    };
  }

  /** Eventfds are the host's, by their descriptors; they are watched from here on as they were. */
  restoreState(state: StateReader): void {
    const kind = KINDS.find((each) => each === state.text("kind"));
    if (kind === undefined) state.fail("kind", "is none");
    const eventfds = state.numberList("eventfds");
    if (eventfds.length > VECTOR_LIMIT) state.fail("eventfds", `are more than ${VECTOR_LIMIT}`);
    // A number that stays may be another eventfd's by now.
    for (const [vector, eventfd] of eventfds.entries()) this.#watch(eventfd, vector);
    this.#eventfds = [...eventfds];
    this.#kind = kind;
    state.memory("ready", this.#ready);
    this.flagged = state.boolean("flagged");
    this.cause = state.number("cause");
  }
}
