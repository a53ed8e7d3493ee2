// Wired interrupts of an assigned platform device: host eventfds on one side, level-sensitive wires of the guest's on the other.
//
//   device ─▶ host wire ─▶ masked by VFIO ─▶ eventfd ─▶ `flagged` ─▶ `service` from the machine's run loop ─▶ the guest's wire goes up
//   the guest's next access to the device ─▶ `touched`: the wire goes down and is unmasked in the host, and comes again if the device still
//   asserts it

import { bytesOf, type Stateful, type StateReader, type StateRecord } from "../../host/base/state.ts";
import type { Trace } from "../../host/base/trace.ts";
import {
  VFIO_DEVICE_SET_IRQS,
  VFIO_IRQ_SET_ACTION_TRIGGER,
  VFIO_IRQ_SET_ACTION_UNMASK,
  VFIO_IRQ_SET_DATA_EVENTFD,
  VFIO_IRQ_SET_DATA_NONE,
  vfioIrqSet,
} from "../../host/uapi/vfio.ts";
import type { KernelCalls } from "./kernel-calls.ts";

export class AssignedWires implements Stateful {
  /** Set while some eventfd may have counted; `cause` is the trace event that did it. */
  flagged = false;
  cause = 0;
  /** Level of the guest's wire `index`. */
  onLevel: (index: number, asserted: boolean) => void = () => {}; // not state: wiring
  readonly #calls: KernelCalls;
  readonly #fd: number;
  readonly #name: string;
  readonly #trace: Trace;
  readonly #eventfds: number[] = []; // not state: opened with the device, in order
  readonly #ready: Uint8Array;
  readonly #asserted: Uint8Array;

  /** `wires` interrupts there are; `name` is the guest device's. */
  constructor(calls: KernelCalls, fd: number, wires: number, name: string, trace: Trace) {
    this.#calls = calls;
    this.#fd = fd;
    this.#name = name;
    this.#trace = trace;
    this.#ready = new Uint8Array(wires);
    this.#asserted = new Uint8Array(wires);
  }

  get count(): number {
    return this.#ready.length;
  }

  /** Binds an eventfd to each; 0, or the negated errno of the call that failed: what was opened is closed by `close`. */
  open(): number {
    const { system } = this.#calls;
    for (let index = 0; index < this.count; index++) {
      const eventfd = system.eventfd();
      if (eventfd < 0) return eventfd;
      this.#eventfds.push(eventfd);
      system.watch(eventfd, () => {
        this.#ready[index] = 1;
        this.flagged = true;
        this.cause = this.#trace.cause;
      });
      const descriptor = new Uint8Array(4);
      new DataView(descriptor.buffer).setInt32(0, eventfd, true);
      const flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
      const values = { flags, index, start: 0, count: 1 };
      const { result } = this.#calls.ioctl(this.#fd, VFIO_DEVICE_SET_IRQS, vfioIrqSet, values, descriptor);
      if (result < 0) return result;
    }
    return 0;
  }

  close(): void {
    for (const eventfd of this.#eventfds.splice(0)) {
      this.#calls.system.watch(eventfd, null);
      this.#calls.system.close(eventfd);
    }
  }

  /** Raises the guest's wires of the eventfds that have counted. */
  service(): void {
    this.flagged = false;
    for (let index = 0; index < this.count; index++) {
      if (this.#ready[index] === 0) continue;
      this.#ready[index] = 0;
      if (typeof this.#calls.read(this.#eventfds[index]!, 8) === "number") continue;
      if (this.#trace.on) {
        this.#trace.emit({ type: "irq", where: "vfio", source: `${this.#name} wire`, vector: index });
      }
      this.#asserted[index] = 1;
      this.onLevel(index, true);
    }
  }

  /** The guest has touched the device: what is up goes down, and comes again if the device still asserts it. */
  touched(): void {
    for (let index = 0; index < this.count; index++) if (this.#asserted[index] !== 0) this.#lower(index);
  }

  #lower(index: number): void {
    this.#asserted[index] = 0;
    this.onLevel(index, false);
    const flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_UNMASK;
    this.#calls.ioctl(this.#fd, VFIO_DEVICE_SET_IRQS, vfioIrqSet, { flags, index, start: 0, count: 1 });
  }

  saveState(): StateRecord {
    return {
      flagged: this.flagged,
      cause: this.cause,
      ready: bytesOf(this.#ready),
      asserted: bytesOf(this.#asserted),
    };
  }

  restoreState(state: StateReader): void {
    this.flagged = state.boolean("flagged");
    this.cause = state.number("cause");
    state.memory("ready", this.#ready);
    state.memory("asserted", this.#asserted);
  }
}
