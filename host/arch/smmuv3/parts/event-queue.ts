// The event queue (§3.5, §7.2, §7.3): 32-byte records into memory, overflow, write aborts; and transactions that stall (§3.12.2) with the records they
// wait for.
//
//     fault ─▶ build the record ─┬─ of a terminated transaction: written now, or lost (overflow if the queue is full)
//                                └─ of a stalled one: written now, or kept until there is room
//
// A stalled transaction is a number (STAG) until RESUME or STALL_TERM ends it; `onStallEnded` tells its requester.

import { addressHigh, addressLow } from "../../../base/address.ts";
import { bytesOf, type Stateful, type StateReader, type StateRecord } from "../../../base/state.ts";
import { STALL_ABORT, STALL_DISCARD, STALL_RETRY, type StallEnd } from "../../../base/transaction.ts";
import { describeEvent } from "../event-records.ts";
import { CR0_EVENTQEN, GERROR_EVENTQ_ABT_ERR, OVERFLOW_FLAG, REG } from "../registers.ts";
import { type Interrupts, WIRE_EVENTQ } from "./interrupts.ts";
import type { SmmuState } from "./smmu-state.ts";

const RECORD_BYTES = 32;
const RECORD_WORDS = 8;

/** Word 2: Stall. */
const STALL = 0x80000000;
/** Flags of word 3. */
export const EVENT_PRIVILEGED = 1 << 1;
export const EVENT_INSTRUCTION = 1 << 2;
export const EVENT_READ = 1 << 3;
export const EVENT_STAGE_2 = 1 << 7;
const EVENT_CLASS = 3 << 8;
export const EVENT_TABLE_READ = 1 << 12;
export const eventClass = (value: number): number => value << 8;

export class EventQueue implements Stateful {
  onStallEnded: (deviceId: number, tag: number, end: StallEnd) => void = () => {}; // not state: wiring
  readonly #state: SmmuState<number>;
  readonly #interrupts: Interrupts;
  readonly #record = new Uint32Array(RECORD_WORDS); // not state: scratch
  /** Per STAG: the stream, -1 free; whether its record is in the queue; the record. */
  readonly #streams: Float64Array;
  readonly #recorded: Uint8Array;
  readonly #records: Uint32Array;
  /** Records put into the queue so far. */
  written = 0;
  #stalled = 0;
  /** Stalled transactions whose record is not in the queue. */
  #unrecorded = 0;

  constructor(state: SmmuState<number>, interrupts: Interrupts) {
    const most = state.features.STALL_MAX;
    this.#state = state;
    this.#interrupts = interrupts;
    this.#streams = new Float64Array(most).fill(-1);
    this.#recorded = new Uint8Array(most);
    this.#records = new Uint32Array(most * RECORD_WORDS);
  }

  saveState(): StateRecord {
    return {
      streams: [...this.#streams],
      recorded: bytesOf(this.#recorded),
      records: bytesOf(this.#records),
      written: this.written,
      stalled: this.#stalled,
      unrecorded: this.#unrecorded,
    };
  }

  restoreState(state: StateReader): void {
    state.numbers("streams", this.#streams);
    state.memory("recorded", this.#recorded);
    state.memory("records", this.#records);
    this.written = state.number("written");
    this.#stalled = state.number("stalled");
    this.#unrecorded = state.number("unrecorded");
  }

  /** How the transaction that `stall` just stalled ended before that returned (an interrupt handler resumed it); -1: it is stalled. */
  endedWithin: StallEnd | -1 = -1; // not state: result of the last call
  #stalling = -1; // not state: within a call

  /** Forgets all stalled transactions; nobody is told. */
  reset(): void {
    this.#streams.fill(-1);
    this.#stalled = 0;
    this.#unrecorded = 0;
  }

  /** Transactions that are stalled now. */
  get stalled(): number {
    return this.#stalled;
  }

  /**
   * Records an event of a transaction that was terminated. `ssid` -1: SSV is 0. `flags` are word 3's; `pfn`, `offset` the input address; `addressPfn`,
   * `addressOffset` what dword 3 holds (IPA or fetch address).
   */
  report(
    number: number,
    sid: number,
    ssid: number,
    flags: number,
    pfn: number,
    offset: number,
    addressPfn: number,
    addressOffset: number,
  ): void {
    this.#build(number, sid, ssid, 0, flags, pfn, offset, addressPfn, addressOffset);
    const before = this.#traceRecord();
    this.#append(this.#record, 0, true);
    this.#state.trace.leave(before);
  }

  /** Records an event that somebody else made (8 words), of a transaction that was terminated. */
  relay(words: Uint32Array): void {
    this.#record.set(words);
    const before = this.#traceRecord();
    this.#append(this.#record, 0, true);
    this.#state.trace.leave(before);
  }

  /** Records were lost before they came here: software reads that as it reads an overflow of the queue. */
  lost(): void {
    const state = this.#state;
    const prod = state.reg(REG.EVENTQ_PROD);
    if ((state.reg(REG.CR0) & CR0_EVENTQEN) === 0 || ((prod ^ state.reg(REG.EVENTQ_CONS)) & OVERFLOW_FLAG) !== 0)
      return;
    state.setReg(REG.EVENTQ_PROD, (prod ^ OVERFLOW_FLAG) >>> 0);
  }

  /** Stalls a transaction and records it as soon as there is room: its STAG, or -1 if there are as many as there can be. Arguments as `report`. */
  stall(
    number: number,
    sid: number,
    ssid: number,
    flags: number,
    pfn: number,
    offset: number,
    addressPfn: number,
    addressOffset: number,
  ): number {
    const tag = this.#streams.indexOf(-1);
    if (tag < 0) return -1;
    this.#build(number, sid, ssid, (STALL | tag) >>> 0, flags, pfn, offset, addressPfn, addressOffset);
    this.#records.set(this.#record, tag * RECORD_WORDS);
    this.#streams[tag] = sid;
    this.#recorded[tag] = 0;
    this.#stalled++;
    this.#unrecorded++;
    const before = this.#traceRecord();
    this.endedWithin = -1;
    this.#stalling = tag;
    this.#recordStalled(tag);
    this.#stalling = -1;
    this.#state.trace.leave(before);
    return tag;
  }

  /** CMD_RESUME (§4.6.1): no effect unless this transaction of this stream is stalled and its record was written. */
  resume(sid: number, tag: number, retry: boolean, abort: boolean): void {
    if (this.#streams[tag] !== sid || this.#recorded[tag] === 0) return;
    const end = retry ? STALL_RETRY : abort || this.#state.features.TERM_MODEL ? STALL_ABORT : STALL_DISCARD;
    this.#end(tag, end);
  }

  /** CMD_STALL_TERM (§4.6.2): all of a stream; -1 of every stream, when SMMUEN goes off (§6.3.9). */
  terminate(sid: number): void {
    if (this.#stalled === 0) return;
    for (let tag = 0; tag < this.#streams.length; tag++) {
      const stream = this.#streams[tag]!;
      if (stream >= 0 && (sid < 0 || stream === sid)) this.#end(tag, STALL_ABORT);
    }
  }

  /** A CMD_SYNC after invalidations: no later record may come of what was invalidated, so what has none yet is made anew (§4.6.3). */
  retryUnrecorded(): void {
    if (this.#unrecorded === 0) return;
    const tags: number[] = [];
    for (let tag = 0; tag < this.#streams.length; tag++)
      if (this.#streams[tag]! >= 0 && this.#recorded[tag] === 0) tags.push(tag);
    for (const tag of tags) if (this.#streams[tag]! >= 0 && this.#recorded[tag] === 0) this.#end(tag, STALL_RETRY);
  }

  /** There may be room now: records that were kept go in. */
  recordKept(): void {
    for (let tag = 0; this.#unrecorded > 0 && tag < this.#streams.length; tag++) {
      if (this.#streams[tag]! >= 0 && this.#recorded[tag] === 0 && !this.#recordStalled(tag)) return;
    }
  }

  #end(tag: number, end: StallEnd): void {
    const sid = this.#streams[tag]!;
    this.#streams[tag] = -1;
    this.#stalled--;
    if (this.#recorded[tag] === 0) this.#unrecorded--;
    if (tag === this.#stalling) {
      this.endedWithin = end;
      this.#stalling = -1;
    } else this.onStallEnded(sid, tag, end);
  }

  #recordStalled(tag: number): boolean {
    this.#recorded[tag] = 1;
    this.#unrecorded--;
    if (this.#append(this.#records, tag * RECORD_WORDS, false)) return true;
    // Its stream may have been terminated by an interrupt handler meanwhile.
    if (this.#streams[tag]! >= 0) {
      this.#recorded[tag] = 0;
      this.#unrecorded++;
    }
    return false;
  }

  #build(
    number: number,
    sid: number,
    ssid: number,
    word2: number,
    flags: number,
    pfn: number,
    offset: number,
    addressPfn: number,
    addressOffset: number,
  ): void {
    const record = this.#record;
    record[0] = number | (ssid >= 0 ? (1 << 11) | (ssid << 12) : 0);
    record[1] = sid;
    record[2] = word2;
    record[3] = flags;
    record[4] = addressLow(pfn, offset);
    record[5] = addressHigh(pfn);
    record[6] = addressLow(addressPfn, addressOffset);
    record[7] = addressHigh(addressPfn);
  }

  /** C_BAD_SUBSTREAMID has an SSID, but no SSV (§7.3.9). */
  reportSubstream(number: number, sid: number, ssid: number): void {
    this.#build(number, sid, ssid, 0, 0, 0, 0, 0, 0);
    this.#record[0] = this.#record[0]! & ~(1 << 11);
    const before = this.#traceRecord();
    this.#append(this.#record, 0, true);
    this.#state.trace.leave(before);
  }

  /**
   * Puts a record (8 words of `from` at `at`) into the queue; false if it could not. A full queue is in overflow from then on if `overflows`; being in
   * overflow keeps nothing out (§7.4).
   */
  #append(from: Uint32Array, at: number, overflows: boolean): boolean {
    const state = this.#state;
    if ((state.reg(REG.CR0) & CR0_EVENTQEN) === 0 || state.errorActive(GERROR_EVENTQ_ABT_ERR)) return false;
    const log2 = state.queueLog2(REG.EVENTQ_BASE, state.features.EVENTQS);
    const entries = 1 << log2;
    const mask = 2 * entries - 1;
    const prod = state.reg(REG.EVENTQ_PROD);
    const cons = state.reg(REG.EVENTQ_CONS);
    const used = (prod - cons) & mask;
    if (used >= entries) {
      const flagged = ((prod ^ cons) & OVERFLOW_FLAG) !== 0;
      if (overflows && !flagged) state.setReg(REG.EVENTQ_PROD, (prod ^ OVERFLOW_FLAG) >>> 0);
      return false;
    }
    const pfn = state.entryFrame(REG.EVENTQ_BASE, log2, RECORD_BYTES, prod & (entries - 1));
    const offset = state.entryOffset;
    for (let word = 0; word < RECORD_WORDS; word += 2) {
      if (!state.storeDoubleword(pfn, offset + 4 * word, from[at + word]!, from[at + word + 1]!)) {
        this.#interrupts.error(GERROR_EVENTQ_ABT_ERR);
        return false;
      }
    }
    state.setReg(REG.EVENTQ_PROD, (((prod + 1) & mask) | (prod & OVERFLOW_FLAG)) >>> 0);
    this.written++;
    if (used === 0) this.#interrupts.raise(WIRE_EVENTQ);
    return true;
  }

  /** Traces the record that was built; the cause to return to. */
  #traceRecord(): number {
    const { trace, name, where } = this.#state;
    const before = trace.cause;
    if (!trace.on) return before;
    const record = this.#record;
    const words = [0, 2, 4, 6].map((i) => (BigInt(record[i + 1]!) << 32n) | BigInt(record[i]!));
    const substream = (record[0]! & (1 << 11)) !== 0;
    trace.enter({
      type: "fault",
      where: where === "host" ? "hardware" : "guest",
      kind: "smmuv3",
      iommu: name,
      faultCause: record[0]! & 0xff,
      deviceId: record[1]!,
      ...(substream ? { pasid: record[0]! >>> 12 } : {}),
      iotval: words[2]!,
      iotval2: words[3]!,
      ttyp: record[3]! & (EVENT_PRIVILEGED | EVENT_INSTRUCTION | EVENT_READ | EVENT_STAGE_2 | EVENT_CLASS),
      text: describeEvent(words),
      words,
    });
    return before;
  }
}
