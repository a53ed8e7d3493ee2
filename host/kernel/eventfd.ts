// eventfd (eventfd(2)): a 64-bit counter behind a descriptor. The kernel signals it (an interrupt arrived), user space reads the
// count, which takes it. Non-semaphore mode only; a read never blocks here: -EAGAIN when the counter is 0.

import type { StateReader, StateRecord } from "../base/state.ts";
import { EAGAIN, EINVAL, ESPIPE } from "../uapi/errno.ts";
import { POLLIN, POLLOUT } from "../uapi/system-calls.ts";
import { type CallContext, OpenFile } from "./file.ts";

const MAX = 0xffff_ffff_ffff_fffen;

/** A part of the kernel that an eventfd calls (Linux: struct virqfd). */
export interface EventConsumer {
  /** No more calls. */
  stop(): void;
}

export class EventFd extends OpenFile {
  readonly path = "anon_inode:[eventfd]";
  #count = 0n;
  readonly #onRelease: () => void;
  readonly #consumers = new Set<EventConsumer>(); // not state: wiring

  constructor(onRelease: () => void) {
    super();
    this.#onRelease = onRelease;
  }

  /**
   * Lets the kernel take what arrives: `arrived` is called for each signal, which is consumed, and at once if the counter holds one
   * already, which stays. Keeps no reference: `ended` is called when the file is closed or the consumer stops, once.
   */
  consume(arrived: () => void, ended: () => void): EventConsumer {
    const ready = () => {
      this.#count = 0n;
      arrived();
    };
    const consumer: EventConsumer = {
      stop: () => {
        if (!this.#consumers.delete(consumer)) return;
        this.unwatch(ready);
        ended();
      },
    };
    this.#consumers.add(consumer);
    this.watch(ready);
    if (this.#count > 0n) arrived();
    return consumer;
  }

  /** Adds to the counter from inside the kernel; it stops at its maximum (eventfd_signal). */
  signal(count = 1n): void {
    this.#count = this.#count + count > MAX ? MAX : this.#count + count;
    this.wake();
  }

  override read(call: CallContext, va: bigint, length: number, position: bigint): number {
    if (position !== -1n) return -ESPIPE;
    if (length < 8) return -EINVAL;
    if (this.#count === 0n) return -EAGAIN;
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setBigUint64(0, this.#count, true);
    this.#count = 0n;
    const result = call.memory.write(va, bytes);
    return result < 0 ? result : 8;
  }

  override write(call: CallContext, va: bigint, length: number, position: bigint): number {
    if (position !== -1n) return -ESPIPE;
    if (length < 8) return -EINVAL;
    const bytes = new Uint8Array(8);
    const result = call.memory.read(va, bytes);
    if (result < 0) return result;
    const value = new DataView(bytes.buffer).getBigUint64(0, true);
    if (value === 0xffff_ffff_ffff_ffffn) return -EINVAL;
    if (this.#count + value > MAX) return -EAGAIN;
    if (value > 0n) this.signal(value);
    return 8;
  }

  override poll(): number {
    return (this.#count > 0n ? POLLIN : 0) | (this.#count < MAX ? POLLOUT : 0);
  }

  protected override release(): void {
    for (const consumer of [...this.#consumers]) consumer.stop();
    this.#onRelease();
  }

  override saveState(): StateRecord {
    return { ...super.saveState(), count: this.#count };
  }

  override restoreState(state: StateReader): void {
    super.restoreState(state);
    this.#count = state.bigint("count");
  }
}
