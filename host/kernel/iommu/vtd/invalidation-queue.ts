// The driver's side of the invalidation queue (VT-d §6.5.2), as Linux runs it (qi_submit_sync, qi_batch_add_*): descriptors are collected, at most 16,
// and handed over with an invalidation wait behind them, whose status write the driver waits for.
//
// When the queue stops (qi_check_fault):
//     IQE    the descriptor at the head is bad: it is made a copy of the wait, and whoever submitted it hears -EINVAL
//     ITE    a device did not answer; waits are aborted. Everything is submitted again, unless the device is gone: -ETIMEDOUT
//     ICE    an unexpected completion: forgotten
// Linux submits again for ever; here a device that leaves the third attempt unanswered is given up, too. A queue that completes no wait within a second
// takes nothing any more.

import {
  DESCRIPTOR_BYTES,
  DESCRIPTOR_WAIT,
  WAIT_FN,
  WAIT_PD,
  WAIT_SW,
  WIDE_DESCRIPTOR_BYTES,
} from "../../../arch/vtd/invalidation-descriptors.ts";
import { FSTS_ICE, FSTS_IQE, FSTS_ITE, IQERCD, REG } from "../../../arch/vtd/registers.ts";
import type { HpaPfn } from "../../../base/address.ts";
import type { PhysicalMemory } from "../../../base/memory.ts";
import type { MmioPort } from "../../../base/mmio.ts";
import type { Stateful, StateReader, StateRecord } from "../../../base/state.ts";
import { EINVAL, ETIMEDOUT } from "../../../uapi/errno.ts";
import type { Drainable, WaitingCall } from "../wait.ts";

/** Linux: QI_LENGTH. */
export const QUEUE_ENTRIES = 256;
/** Linux: QI_MAX_BATCHED_DESC_COUNT. */
const BATCH = 16;
const TIMEOUT_NS = 1e9;
const ATTEMPTS = 3;
const IN_USE = 1;
const DONE = 2;

export interface InvalidationQueuePlace {
  readonly hardware: Drainable;
  readonly registers: MmioPort;
  readonly memory: PhysicalMemory<HpaPfn>;
  /** As many contiguous pages as 256 descriptors of this width need. */
  readonly base: HpaPfn;
  /** 32-byte descriptors (IQA.DW). */
  readonly wide: boolean;
  /** A page with a status word for every entry. */
  readonly status: HpaPfn;
  readonly wait: WaitingCall;
  /** A device with this source id is there to answer. */
  readonly isPresent: (sourceId: number) => boolean;
}

export class InvalidationQueue implements Stateful {
  readonly #place: InvalidationQueuePlace;
  readonly #bytes: number;
  /** Index of the next free entry, and of the first that no wait was put behind yet. */
  #tail = 0;
  #first = 0;
  /** First failure since `sync` was called. */
  #failure = 0;
  /** Times the queue stopped, for `inspect`. */
  errors = 0;
  #dead = false;
  /** Entry of the wait that is waited for. */
  #awaited = 0; // not state: within a call
  readonly #doneOrStopped = (): boolean => this.#isDone() || this.#stopped !== 0;

  constructor(place: InvalidationQueuePlace) {
    this.#place = place;
    this.#bytes = place.wide ? WIDE_DESCRIPTOR_BYTES : DESCRIPTOR_BYTES;
  }

  /** A descriptor as its two quadwords; nothing is waited for before `sync`. */
  push([first, second]: readonly [bigint, bigint]): void {
    const low = (word: bigint): number => Number(word & 0xffffffffn);
    this.pushHalves(low(first), low(first >> 32n), low(second), low(second >> 32n));
  }

  /** The same as four halves, lowest first. */
  pushHalves(w0: number, w1: number, w2: number, w3: number): void {
    if (this.#pending === BATCH) this.#keep(this.#submit(0));
    if (!this.#dead) this.#put(w0, w1, w2, w3);
  }

  /** Waits until everything pushed so far has taken effect: 0, -EINVAL for a descriptor that the hardware does not take, -ETIMEDOUT. */
  sync(): number {
    if (this.#pending > 0) this.#keep(this.#submit(0));
    return this.#taken();
  }

  /** The same, and page requests and responses that are on their way have arrived, too (Linux: QI_OPT_WAIT_DRAIN; §7.10). */
  syncPageRequests(): number {
    this.#keep(this.#submit(WAIT_PD));
    return this.#taken();
  }

  /** What follows is not begun before what was pushed has completed. */
  fence(): void {
    this.pushHalves(DESCRIPTOR_WAIT | WAIT_FN, 0, 0, 0);
  }

  #taken(): number {
    if (this.#dead) return -ETIMEDOUT;
    const failure = this.#failure;
    this.#failure = 0;
    return failure;
  }

  #keep(result: number): void {
    if (this.#failure === 0) this.#failure = result;
  }

  get #pending(): number {
    return (this.#tail - this.#first) & (QUEUE_ENTRIES - 1);
  }

  #put(w0: number, w1: number, w2: number, w3: number): void {
    this.#store(this.#tail, w0, w1, w2, w3);
    this.#tail = (this.#tail + 1) & (QUEUE_ENTRIES - 1);
  }

  #store(index: number, w0: number, w1: number, w2: number, w3: number): void {
    const { memory, base } = this.#place;
    const at = index * this.#bytes;
    const page = (base + (at >> 12)) as HpaPfn;
    memory.storeEntry(page, at & 4095, w0, w1, w2, w3);
    if (!this.#place.wide) return;
    memory.storeEntry(page, (at & 4095) + 16, 0, 0, 0, 0);
  }

  /** Copies an entry of the ring to another one. */
  #copy(from: number, to: number): void {
    const { memory, base } = this.#place;
    const at = from * this.#bytes;
    const page = (base + (at >> 12)) as HpaPfn;
    memory.load64(page, at & 4095);
    const { lo, hi } = memory;
    memory.load64(page, (at & 4095) + 8);
    this.#store(to, lo, hi, memory.lo, memory.hi);
  }

  #submit(options: number): number {
    if (this.#dead) return -ETIMEDOUT;
    for (let attempt = 1; ; attempt++) {
      const first = this.#first;
      const count = this.#pending;
      const result = this.#handOver(options);
      if (result !== AGAIN) return result;
      if (attempt === ATTEMPTS) return -ETIMEDOUT;
      for (let i = 0; i < count; i++) {
        this.#copy((first + i) & (QUEUE_ENTRIES - 1), this.#tail);
        this.#tail = (this.#tail + 1) & (QUEUE_ENTRIES - 1);
      }
    }
  }

  /** Puts a wait behind what is pending and waits for it. */
  #handOver(options: number): number {
    const { memory, registers, hardware, status, wait } = this.#place;
    const awaited = this.#tail;
    this.#awaited = awaited;
    memory.store32(status, awaited * 4, IN_USE);
    this.#put(
      DESCRIPTOR_WAIT | WAIT_SW | options,
      DONE,
      (((status % 2 ** 20) << 12) | (awaited * 4)) >>> 0,
      Math.floor(status / 2 ** 20),
    );
    this.#first = this.#tail;
    registers.mmioWrite(REG.IQT, 8, this.#tail * this.#bytes, 0);
    let failure = 0;
    // Each entry that is handed over can stop the queue once.
    for (let stops = 0; stops <= 2 * BATCH; stops++) {
      const answered = wait(hardware, this.#doneOrStopped, TIMEOUT_NS);
      if (this.#isDone()) return failure;
      if (!answered) break;
      const result = this.#recover();
      if (result === AGAIN || result === -ETIMEDOUT) return result;
      if (result < 0) failure = result;
    }
    this.#dead = true;
    return -ETIMEDOUT;
  }

  #isDone(): boolean {
    const { memory, status } = this.#place;
    memory.load32(status, this.#awaited * 4);
    return memory.lo === DONE;
  }

  get #stopped(): number {
    return this.#place.registers.mmioRead(REG.FSTS, 4) & (FSTS_IQE | FSTS_ITE | FSTS_ICE);
  }

  /** Sees to a queue that has stopped; what that means for what was handed over. */
  #recover(): number {
    const { registers, isPresent } = this.#place;
    const stopped = this.#stopped;
    this.errors++;
    let result = 0;
    if ((stopped & FSTS_IQE) !== 0) {
      const head = Math.floor(registers.mmioRead(REG.IQH, 8) / this.#bytes) & (QUEUE_ENTRIES - 1);
      this.#copy(this.#awaited, head);
      result = -EINVAL;
    }
    if ((stopped & FSTS_ITE) !== 0) {
      const low = registers.mmioRead(REG.IQERCD, 8) >>> 0;
      const sourceId = Number(IQERCD.get([(BigInt(registers.high >>> 0) << 32n) | BigInt(low)], "ITESID"));
      // 0: hardware that does not say whose.
      result = sourceId !== 0 && !isPresent(sourceId) ? -ETIMEDOUT : AGAIN;
    }
    registers.mmioWrite(REG.FSTS, 4, stopped, 0);
    return result;
  }

  /** The ring itself is in memory. */
  saveState(): StateRecord {
    return { tail: this.#tail, first: this.#first, failure: this.#failure, errors: this.errors, dead: this.#dead };
  }

  restoreState(state: StateReader): void {
    this.#tail = state.number("tail");
    this.#first = state.number("first");
    this.#failure = state.number("failure");
    this.errors = state.number("errors");
    this.#dead = state.boolean("dead");
  }
}

/** No errno: what was handed over has to be once more. */
const AGAIN = 1;
