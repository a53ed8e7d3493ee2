// The eventfds of one foreign process that the kernel holds: the process's side keeps a duplicate of each in a numbered slot, and a thread
// there adds to it when it is told (EVENTS connection). What cannot be told yet is added up, a number a slot: a stopped process costs nothing.
//
//     SET_IRQS names fd 9 → `hold` gives slot and token → action of the reply: duplicate it     interrupt → `signal` → message → thread → eventfd
//     watched eventfd ← somebody writes ← thread reads it → message → `arrived`

import { type EventConsumer, EventFd } from "../kernel/eventfd.ts";
import {
  type Action,
  EVENT_ARRIVED,
  EVENT_DROP,
  EVENT_SIGNAL,
  EVENT as EVENT_TYPE,
  event,
  message,
} from "./hostshim-protocol.ts";

/** Where messages go: false once there is more than can be sent now; `drained` is called when there is room again. */
export interface EventsConnection {
  send(bytes: Uint8Array): boolean;
}

/** A duplicate that the process's side is to make. */
export interface HeldEventfd {
  readonly token: bigint;
  readonly slot: number;
  readonly fd: number;
  readonly watch: boolean;
}

type SignalAction = Extract<Action, { kind: "signal" }>;

interface Slot {
  readonly token: bigint;
  readonly arrived: (() => void) | null;
  /** Not told yet. */
  count: bigint;
}

const NONE = [] as const;
const MOST_SLOTS = 65536;

export class ClientEvents {
  /** Duplicates that the reply to the current call asks for. */
  pending: HeldEventfd[] = [];
  readonly #slots: (Slot | null)[] = [];
  readonly #waiting = new Set<number>();
  readonly #dropped: { readonly slot: number; readonly token: bigint }[] = [];
  #connection: EventsConnection | null = null;
  #room = false;
  #calling = false;
  #nextToken = 1n;

  /** A slot for an eventfd of the process; -1 if there are too many. `arrived`: what others add to it comes here. */
  hold(fd: number, arrived: (() => void) | null): number {
    const free = this.#slots.indexOf(null);
    const slot = free < 0 ? this.#slots.length : free;
    // What has been given up is told once somebody listens: whoever never does has no more of them.
    if (slot >= MOST_SLOTS || this.#dropped.length >= MOST_SLOTS) return -1;
    const token = this.#nextToken++;
    this.#slots[slot] = { token, arrived, count: 0n };
    this.pending.push({ token, slot, fd, watch: arrived !== null });
    return slot;
  }

  release(slot: number): void {
    const { token } = this.#slots[slot]!;
    this.#slots[slot] = null;
    this.#waiting.delete(slot);
    const pending = this.pending.findIndex((held) => held.token === token);
    if (pending >= 0) this.pending.splice(pending, 1);
    else this.#dropped.push({ slot, token });
    this.#flush();
  }

  signal(slot: number, count: bigint): void {
    this.#slots[slot]!.count += count;
    this.#waiting.add(slot);
    if (!this.#calling) this.#flush();
  }

  /** A call of the process begins: what it signals is there when it returns, and goes with the answer. */
  callBegins(): void {
    this.#calling = true;
  }

  /** What goes with the answer. */
  callEnds(): readonly SignalAction[] {
    this.#calling = false;
    if (this.#waiting.size === 0) return NONE;
    const signals: SignalAction[] = [];
    for (const slot of this.#waiting) {
      const held = this.#slots[slot]!;
      signals.push({ kind: "signal", token: held.token, slot, count: held.count });
      held.count = 0n;
    }
    this.#waiting.clear();
    return signals;
  }

  /** The process's thread is there. */
  connect(connection: EventsConnection): void {
    this.#connection = connection;
    this.drained();
  }

  /** There is room for more messages. */
  drained(): void {
    this.#room = true;
    this.#flush();
  }

  disconnect(): void {
    this.#connection = null;
    this.#room = false;
  }

  /** A message of the process's thread. */
  received(body: Uint8Array): void {
    const { token, slot, op } = event.decode(body);
    const held = this.#slots[slot];
    if (op === EVENT_ARRIVED && held?.token === token) held.arrived?.();
  }

  #flush(): void {
    const connection = this.#connection;
    if (connection === null) return;
    let told = 0;
    while (this.#room && told < this.#dropped.length) {
      const { slot, token } = this.#dropped[told++]!;
      this.#room = connection.send(message(EVENT_TYPE, 0, event.encode({ token, slot, op: EVENT_DROP })));
    }
    this.#dropped.splice(0, told);
    for (const slot of this.#waiting) {
      if (!this.#room) return;
      const held = this.#slots[slot]!;
      const { token, count } = held;
      this.#waiting.delete(slot);
      held.count = 0n;
      this.#room = connection.send(message(EVENT_TYPE, 0, event.encode({ token, slot, count, op: EVENT_SIGNAL })));
    }
  }
}

/** An eventfd of a foreign process, as the kernel's calls use it: held from the first reference or consumer on. */
export class ForeignEventFd extends EventFd {
  readonly #events: ClientEvents;
  readonly #fd: number;
  #slot = -1;

  constructor(events: ClientEvents, fd: number) {
    super(() => {});
    this.#events = events;
    this.#fd = fd;
  }

  override get(): this {
    if (this.#slot < 0) this.#slot = this.#events.hold(this.#fd, null);
    return super.get();
  }

  override put(): void {
    super.put();
    // One reference is the lookup's own, which nobody gives back.
    if (this.references > 1 || this.#slot < 0) return;
    this.#events.release(this.#slot);
    this.#slot = -1;
  }

  override signal(count = 1n): void {
    if (this.#slot >= 0) this.#events.signal(this.#slot, count);
  }

  override consume(arrived: () => void, ended: () => void): EventConsumer {
    let slot = this.#events.hold(this.#fd, arrived);
    return {
      stop: () => {
        if (slot < 0) return;
        this.#events.release(slot);
        slot = -1;
        ended();
      },
    };
  }
}
