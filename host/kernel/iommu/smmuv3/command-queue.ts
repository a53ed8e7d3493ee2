// The driver's side of a command queue (IHI 0070 §3.5, §4, §7.1), as Linux runs it: commands are stored at PROD and handed over in batches of 64;
// what must have happened is behind a CMD_SYNC that the driver waits for.
//
// How it knows (`SyncSignal`): where the SMMU sends messages, the CMD_SYNC's message is a 0 stored over its own opcode; else CONS passes it,
// which a waiting processor may be told of by an event (SEV).
//
// When the queue stops (CMDQ_ERR):
//     CERROR_ILL            a command the hardware does not take is made a CMD_SYNC; the others go on
//     CERROR_ABT            the fetch is tried again
//     CERROR_ATC_INV_SYNC   a device did not answer an ATC_INV: the CMD_SYNC is tried again, nobody is told
// A CMD_SYNC that takes more than a second is given up (-ETIMEDOUT). A queue that no longer makes room takes nothing any more.

import { CMD_SYNC, CS_IRQ, CS_NONE, CS_SEV } from "../../../arch/smmuv3/commands.ts";
import { CERROR_ABT, CERROR_ATC_INV_SYNC, GERROR_CMDQ_ERR } from "../../../arch/smmuv3/registers.ts";
import type { HpaPfn } from "../../../base/address.ts";
import type { PhysicalMemory } from "../../../base/memory.ts";
import type { MmioPort } from "../../../base/mmio.ts";
import type { Stateful, StateReader, StateRecord } from "../../../base/state.ts";
import { ETIMEDOUT } from "../../../uapi/errno.ts";
import type { Drainable, WaitingCall } from "../wait.ts";

/** Commands handed over at once (Linux: CMDQ_BATCH_ENTRIES). */
export const BATCH = 64;
/** Linux: ARM_SMMU_POLL_TIMEOUT_US. */
export const SYNC_TIMEOUT_NS = 1e9;

const INNER_SHAREABLE = 3;
const WRITE_BACK = 0xf;
const SYNC_LOW = CMD_SYNC | (INNER_SHAREABLE << 22) | (WRITE_BACK << 24);
const SYNC_BY_MESSAGE = SYNC_LOW | (CS_IRQ << 12);
const SYNC_BY_EVENT = SYNC_LOW | (CS_SEV << 12);
const SYNC_BY_NOTHING = SYNC_LOW | (CS_NONE << 12);

/** How a CMD_SYNC says that it is done: by a store over itself, by an event beside CONS, by CONS alone. */
export type SyncSignal = "message" | "event" | "none";

export interface CommandQueuePlace {
  readonly hardware: Drainable;
  readonly registers: MmioPort;
  /** Offsets of PROD, CONS, and of the two error registers whose bit 0 is CMDQ_ERR. */
  readonly prod: number;
  readonly cons: number;
  readonly gerror: number;
  readonly gerrorn: number;
  readonly memory: PhysicalMemory<HpaPfn>;
  readonly base: HpaPfn;
  readonly log2Entries: number;
  readonly signal: SyncSignal;
  /** A CMD_SYNC after 63 commands (an erratum of some hardware). */
  readonly syncsEachBatch: boolean;
  readonly wait: WaitingCall;
}

export class CommandQueue implements Stateful {
  readonly #place: CommandQueuePlace;
  readonly #entries: number;
  /** Index and wrap bits. */
  readonly #mask: number;
  #prod = 0;
  /** CONS when it was last looked at. */
  #cons = 0;
  /** Stored and not handed over; stored since the last CMD_SYNC. */
  #held = 0;
  #unsynced = 0;
  /** First failure of a CMD_SYNC since `sync` was called. */
  #failure = 0;
  /** Times the queue stopped, for `inspect`. */
  errors = 0;
  /** It made no room in time: everything answers -ETIMEDOUT from now on. */
  #dead = false;
  /** Slot of the CMD_SYNC that is waited for. */
  #awaited = 0; // not state: within a call
  // What is waited for, and when a wait for it ends: made once, for the path of every unmap.
  readonly #isCompleted = (): boolean => this.#completed();
  readonly #isTaken = (): boolean => this.#isEmpty();
  readonly #isRoom = (): boolean => this.#hasRoom();
  readonly #completedOrStopped = (): boolean => this.#completed() || this.#stopped;
  readonly #takenOrStopped = (): boolean => this.#isEmpty() || this.#stopped;
  readonly #roomOrStopped = (): boolean => this.#hasRoom() || this.#stopped;

  constructor(place: CommandQueuePlace) {
    this.#place = place;
    this.#entries = 2 ** place.log2Entries;
    this.#mask = this.#entries * 2 - 1;
  }

  /** A command on its way; nothing is waited for before `sync`. */
  push([first, second]: readonly [bigint, bigint]): void {
    const low = (word: bigint): number => Number(word & 0xffffffffn);
    this.pushHalves(low(first), low(first >> 32n), low(second), low(second >> 32n));
  }

  /** A command as four words, lowest first. */
  pushHalves(w0: number, w1: number, w2: number, w3: number): void {
    this.#put(w0, w1, w2, w3);
    this.#unsynced++;
    if (this.#place.syncsEachBatch && this.#unsynced === BATCH - 1) this.#keep(this.#sync());
    else if (this.#held === BATCH) this.#publish();
  }

  /** Hands over what was pushed without waiting for it. */
  flush(): void {
    if (this.#held > 0) this.#publish();
  }

  /** Hands over what was pushed and waits until the hardware has taken it, for commands whose effect no CMD_SYNC waits for. */
  handOver(): void {
    this.flush();
    if (!this.#dead) this.#waitFor(this.#takenOrStopped, this.#isTaken);
  }

  /** Waits until everything pushed so far has taken effect: 0 or -ETIMEDOUT. */
  sync(): number {
    if (this.#unsynced > 0) this.#keep(this.#sync());
    const failure = this.#failure;
    this.#failure = 0;
    return failure;
  }

  #keep(result: number): void {
    if (this.#failure === 0) this.#failure = result;
  }

  #put(w0: number, w1: number, w2: number, w3: number): void {
    if (this.#dead || !(this.#hasRoom() || this.#makeRoom())) return;
    const at = this.#offset(this.#prod);
    const { memory, base } = this.#place;
    memory.storeEntry((base + (at >> 12)) as HpaPfn, at & 4095, w0, w1, w2, w3);
    this.#prod = (this.#prod + 1) & this.#mask;
    this.#held++;
  }

  #publish(): void {
    this.#held = 0;
    if (!this.#dead) this.#place.registers.mmioWrite(this.#place.prod, 4, this.#prod, 0);
  }

  #sync(): number {
    this.#unsynced = 0;
    if (this.#dead || !(this.#hasRoom() || this.#makeRoom())) return -ETIMEDOUT;
    const { signal, base } = this.#place;
    this.#awaited = this.#prod;
    if (signal === "message") {
      const at = this.#offset(this.#prod);
      // MSIAddress: bits 55:2; MSIData 0 makes the opcode one that no CMD_SYNC has.
      const frame = base + (at >> 12);
      this.#put(SYNC_BY_MESSAGE, 0, (((frame % 2 ** 20) << 12) | (at & 4095)) >>> 0, Math.floor(frame / 2 ** 20));
    } else {
      this.#put(signal === "event" ? SYNC_BY_EVENT : SYNC_BY_NOTHING, 0, 0, 0);
    }
    this.#publish();
    return this.#waitFor(this.#completedOrStopped, this.#isCompleted) ? 0 : -ETIMEDOUT;
  }

  #makeRoom(): boolean {
    this.#publish();
    if (!this.#waitFor(this.#roomOrStopped, this.#isRoom)) this.#dead = true;
    return !this.#dead;
  }

  /** Waits through errors of the queue, one for each entry at most. */
  #waitFor(done: () => boolean, complete: () => boolean): boolean {
    const { wait, hardware } = this.#place;
    for (let attempt = 0; attempt < this.#entries + 2; attempt++) {
      const answered = wait(hardware, done, SYNC_TIMEOUT_NS);
      if (complete()) return true;
      if (!answered) return false;
      this.recover();
    }
    return false;
  }

  /** Sees to a queue that has stopped; does nothing to one that has not (Linux: arm_smmu_cmdq_skip_err). */
  recover(): void {
    if (!this.#stopped) return;
    this.errors++;
    const { registers, cons, gerrorn } = this.#place;
    const at = registers.mmioRead(cons, 4);
    const error = (at >>> 24) & 0x7f;
    if (error !== CERROR_ABT && error !== CERROR_ATC_INV_SYNC && error !== 0) this.#replace(at & this.#mask);
    registers.mmioWrite(gerrorn, 4, (registers.mmioRead(gerrorn, 4) ^ GERROR_CMDQ_ERR) >>> 0, 0);
  }

  /** Makes the command at an index a CMD_SYNC that tells nobody. */
  #replace(index: number): void {
    const { memory, base, signal } = this.#place;
    const at = this.#offset(index);
    const page = (base + (at >> 12)) as HpaPfn;
    memory.store64(page, at & 4095, signal === "none" ? SYNC_BY_NOTHING : SYNC_BY_EVENT, 0);
    memory.store64(page, (at & 4095) + 8, 0, 0);
  }

  #offset(index: number): number {
    return (index & (this.#entries - 1)) * 16;
  }

  #hasRoom(): boolean {
    if (((this.#prod - this.#cons) & this.#mask) < this.#entries) return true;
    this.#look();
    return ((this.#prod - this.#cons) & this.#mask) < this.#entries;
  }

  #isEmpty(): boolean {
    this.#look();
    return this.#prod === this.#cons;
  }

  #look(): void {
    this.#cons = this.#place.registers.mmioRead(this.#place.cons, 4) & this.#mask;
  }

  get #stopped(): boolean {
    const { registers, gerror, gerrorn } = this.#place;
    return ((registers.mmioRead(gerror, 4) ^ registers.mmioRead(gerrorn, 4)) & GERROR_CMDQ_ERR) !== 0;
  }

  #completed(): boolean {
    if (this.#place.signal === "message") {
      const at = this.#offset(this.#awaited);
      const { memory, base } = this.#place;
      memory.load64((base + (at >> 12)) as HpaPfn, at & 4095);
      return (memory.lo & 0xff) !== CMD_SYNC;
    }
    // CONS is past the CMD_SYNC: no more is queued than what follows it.
    this.#look();
    return ((this.#prod - this.#cons) & this.#mask) < ((this.#prod - this.#awaited) & this.#mask);
  }

  /** The ring itself is in memory. */
  saveState(): StateRecord {
    return {
      prod: this.#prod,
      cons: this.#cons,
      held: this.#held,
      unsynced: this.#unsynced,
      failure: this.#failure,
      errors: this.errors,
      dead: this.#dead,
    };
  }

  restoreState(state: StateReader): void {
    this.#prod = state.number("prod");
    this.#cons = state.number("cons");
    this.#held = state.number("held");
    this.#unsynced = state.number("unsynced");
    this.#failure = state.number("failure");
    this.errors = state.number("errors");
    this.#dead = state.boolean("dead");
  }
}
