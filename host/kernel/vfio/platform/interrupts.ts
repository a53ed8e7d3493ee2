// Wired interrupts of an assigned platform device as eventfds (Linux: vfio_platform_irq.c). A wire is level-sensitive: when it is asserted the
// handler masks it and signals the eventfd; user space unmasks when it has served the device, by SET_IRQS or by an eventfd of its own.
//
//     wire asserted → (trigger set, not masked) → masked → eventfd          unmask, wire still asserted → the same again
//
// What is masked stays so when the eventfd is exchanged or taken away; a loop-back trigger (DATA_NONE, DATA_BOOL) masks like the real thing.

import type { Clock, ClockEvent } from "../../../base/clock.ts";
import type { Stateful, StateReader, StateRecord } from "../../../base/state.ts";
import type { Trace } from "../../../base/trace.ts";
import type { PlatformSlot } from "../../../hw/platform/interconnect.ts";
import { EBUSY, EINVAL, ENOTTY } from "../../../uapi/errno.ts";
import {
  VFIO_IRQ_SET_ACTION_MASK,
  VFIO_IRQ_SET_ACTION_TRIGGER,
  VFIO_IRQ_SET_ACTION_UNMASK,
  VFIO_IRQ_SET_DATA_BOOL,
  VFIO_IRQ_SET_DATA_EVENTFD,
  VFIO_IRQ_SET_DATA_NONE,
} from "../../../uapi/vfio.ts";
import type { EventConsumer, EventFd } from "../../eventfd.ts";
import type { CallContext } from "../../file.ts";
import { NEXT_INTERRUPT_NS } from "../../interrupts.ts";
import type { ObjectNames } from "../../object-names.ts";
import { requireText } from "../../same-objects.ts";
import { eventfdOf, type IrqSet, readS32 } from "../irq-set.ts";

export interface WiredInterruptParts {
  readonly slot: PlatformSlot;
  readonly clock: Clock;
  readonly trace: Trace;
  readonly names: ObjectNames;
}

interface Wire {
  trigger: EventFd | null;
  masked: boolean;
  /** When its handler ran last; -1: user space has been at it since. */
  handledAt: number;
  /** Eventfds that mask and unmask it. */
  mask: EventConsumer | null;
  unmask: EventConsumer | null;
}

const noWire = (): Wire => ({ trigger: null, masked: false, handledAt: -1, mask: null, unmask: null });

export class WiredInterrupts implements Stateful {
  readonly #parts: WiredInterruptParts;
  readonly #wires: Wire[];
  /** A wire was asserted, or is unmasked while it is; the argument is its index. */
  readonly #due: ClockEvent;
  readonly clockEvents: readonly ClockEvent[];

  constructor(parts: WiredInterruptParts) {
    this.#parts = parts;
    this.#wires = parts.slot.wires.map(noWire);
    this.#due = { owner: `vfio-platform ${parts.slot.name}`, name: "wire", fire: (index) => this.#arrived(index) };
    this.clockEvents = [this.#due];
  }

  /** Indexes of SET_IRQS. */
  get count(): number {
    return this.#wires.length;
  }

  /** Nothing is masked, nobody is told. */
  open(): void {
    this.#parts.slot.onWire = (index, asserted) => {
      if (asserted) this.#expect(index);
    };
  }

  /** Every eventfd is given back. */
  close(): void {
    this.#parts.slot.onWire = null;
    for (const wire of this.#wires) {
      wire.mask?.stop();
      wire.unmask?.stop();
      wire.trigger?.put();
      Object.assign(wire, noWire());
    }
  }

  /** SET_IRQS after its checks. 0 or a negated errno: -ENOTTY without exactly one action. */
  set(call: CallContext, request: IrqSet): number {
    this.#wires[request.index]!.handledAt = -1;
    switch (request.action) {
      case VFIO_IRQ_SET_ACTION_MASK:
        return this.#maskAction(call, request, true);
      case VFIO_IRQ_SET_ACTION_UNMASK:
        return this.#maskAction(call, request, false);
      case VFIO_IRQ_SET_ACTION_TRIGGER:
        return this.#trigger(call, request);
      default:
        return -ENOTTY;
    }
  }

  #maskAction(call: CallContext, { kind, index, start, count, data }: IrqSet, mask: boolean): number {
    if (start !== 0 || count !== 1) return -EINVAL;
    if (kind === VFIO_IRQ_SET_DATA_EVENTFD) return this.#consume(call, index, readS32(data, 0), mask);
    if (kind === VFIO_IRQ_SET_DATA_BOOL && data[0] === 0) return 0;
    this.#setMask(index, mask);
    return 0;
  }

  /** Lets an eventfd mask or unmask a wire from now on (vfio_virqfd_enable): -EBUSY when one does. A negative descriptor: none does. */
  #consume(call: CallContext, index: number, fd: number, mask: boolean): number {
    const wire = this.#wires[index]!;
    const which = mask ? "mask" : "unmask";
    const eventfd = eventfdOf(call, fd);
    if (typeof eventfd === "number") return eventfd;
    if (eventfd === null) {
      wire[which]?.stop();
      return 0;
    }
    if (wire[which] !== null) return -EBUSY;
    const consumer = eventfd.consume(
      () => this.#setMask(index, mask),
      () => {
        wire[which] = null;
      },
    );
    wire[which] = consumer;
    return 0;
  }

  #trigger(call: CallContext, { kind, index, start, count, data }: IrqSet): number {
    const none = kind === VFIO_IRQ_SET_DATA_NONE;
    if (count === 0 && none) return this.#setTrigger(call, index, -1);
    if (start !== 0 || count !== 1) return -EINVAL;
    if (kind === VFIO_IRQ_SET_DATA_EVENTFD) return this.#setTrigger(call, index, readS32(data, 0));
    if (none || data[0] !== 0) this.#handle(index);
    return 0;
  }

  /** The old eventfd goes in any case, even if the new one is none. */
  #setTrigger(call: CallContext, index: number, fd: number): number {
    const wire = this.#wires[index]!;
    wire.trigger?.put();
    wire.trigger = null;
    const eventfd = eventfdOf(call, fd);
    if (typeof eventfd === "number") return eventfd;
    if (eventfd === null) return 0;
    wire.trigger = eventfd.get();
    this.#lookAgain(index);
    return 0;
  }

  #setMask(index: number, masked: boolean): void {
    this.#wires[index]!.masked = masked;
    if (!masked) this.#lookAgain(index);
  }

  /** A level that stands comes through as soon as nothing holds it. */
  #lookAgain(index: number): void {
    if (this.#parts.slot.wires[index] === true) this.#expect(index);
  }

  #expect(index: number): void {
    const { clock } = this.#parts;
    clock.schedule(this.#wires[index]!.handledAt === clock.now ? NEXT_INTERRUPT_NS : 0, this.#due, index);
  }

  #arrived(index: number): void {
    const wire = this.#wires[index]!;
    // The interrupt is enabled by its eventfd.
    if (wire.trigger !== null && this.#parts.slot.wires[index] === true) this.#handle(index);
  }

  /** The handler (vfio_automasked_irq_handler). */
  #handle(index: number): void {
    const wire = this.#wires[index]!;
    if (wire.masked) return;
    wire.masked = true;
    if (wire.trigger === null) return;
    const { slot, clock, trace } = this.#parts;
    wire.handledAt = clock.now;
    const previous = trace.cause;
    if (trace.on) trace.cause = trace.emit({ type: "irq", where: "vfio", source: `${slot.name} wire`, vector: index });
    wire.trigger.signal();
    trace.leave(previous);
  }

  // --- state: eventfds must be the same ---

  saveState(): StateRecord {
    return {
      eventfds: this.#what(),
      masked: this.#wires.map(({ masked }) => masked),
      handledAt: this.#wires.map(({ handledAt }) => handledAt),
    };
  }

  restoreState(state: StateReader): void {
    requireText(state, "eventfds", this.#what());
    const masked = state.list("masked");
    const handledAt = new Array<number>(this.#wires.length).fill(-1);
    state.numbers("handledAt", handledAt);
    if (masked.length !== this.#wires.length) state.fail("masked", `are not ${this.#wires.length} wires`);
    this.#wires.forEach((wire, index) => {
      wire.masked = masked[index] === true;
      wire.handledAt = handledAt[index]!;
    });
  }

  #what(): string {
    const { names } = this.#parts;
    const told = ({ trigger, mask, unmask }: Wire) => {
      const file = trigger === null ? "none" : (names.nameOfFile(trigger) ?? "an eventfd");
      return `${file}${mask === null ? "" : ", an eventfd masks"}${unmask === null ? "" : ", an eventfd unmasks"}`;
    };
    return this.#wires.map(told).join("; ");
  }
}
