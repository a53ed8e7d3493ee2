// The DMA engine of the edu device: one command at a time between RAM and the 4 KiB buffer, 64 bytes per microsecond of virtual
// time. Extensions: a PASID on every request; ATS (translate first, keep the translation, use translated addresses); page
// requests when a translation lacks the permission (PCIe 6.0 §10). A command ends in a clock event only, never inside a message
// from the IOMMU, so that the interrupt it raises does not re-enter the hardware that is delivering that message.
//
//     COMMAND written → event → burst: (ATC → translation request → page request …) → DMA → next event … → finish → interrupt
//
// A burst that an IOMMU stalls waits, and the command with it: `stallEnded` says whether the burst is made anew, refused, or done without
// having reached memory.

import { pfnOfHalves } from "../../base/address.ts";
import type { ClockEvent } from "../../base/clock.ts";
import { bytesOf, type Stateful, type StateReader, type StateRecord } from "../../base/state.ts";
import { STALL_DISCARD, STALL_RETRY, type StallEnd } from "../../base/transaction.ts";
import type { AtsCapability, PasidCapability, PriCapability } from "../capabilities/address-translation.ts";
import {
  ATS_SUCCESS,
  type AtsPort,
  type AtsTarget,
  type DeviceClock,
  DMA_OK,
  DMA_STALLED,
  type DmaStatus,
  NO_PASID,
} from "../ports.ts";
import * as R from "./registers.ts";
import { TranslationCache } from "./translation-cache.ts";

/** What the engine needs of the function that it is part of. */
export interface EngineParts {
  /** Of the function: for its events. */
  readonly name: string;
  readonly clock: () => DeviceClock;
  /** DMA of the function; arguments as DmaPort. */
  readonly transfer: (
    write: boolean,
    pfn: number,
    offset: number,
    at: number,
    length: number,
    pasid: number,
    privileged: boolean,
  ) => DmaStatus;
  /** Of the last transfer that was stalled; absent: none ever is. */
  readonly stallTag?: () => number;
  readonly atsPort: () => AtsPort | undefined;
  readonly buffer: Uint8Array;
  /** A command with COMMAND_INTERRUPT has ended. */
  readonly interrupt: () => void;
  /** Address bits that the device drives. */
  readonly dmaMask: bigint;
  readonly ats: AtsCapability | null;
  readonly pri: PriCapability | null;
  readonly pasid: PasidCapability | null;
  readonly misbehaviour: boolean;
}

/** A burst's result besides the outcomes, which are >= 0. */
const MOVED = -1;
const WAITING = -2;
/** Tag of a burst that is not stalled; -1 is one for which the IOMMU had no room. */
const NOT_STALLED = -2;

/** Registers 0x80 to 0x98 as 32-bit words. */
const SOURCE_WORD = 0;
const DESTINATION_WORD = 2;
const COUNT_WORD = 4;
const COMMAND_WORD = 6;

const GROUPS = 512;
const REQUEST_READ = 1;
const REQUEST_WRITE = 2;
const REQUEST_LAST = 4;
const REQUEST_PRIVILEGED = 16;
const RESPONSE_SUCCESS = 0;
const RESPONSE_INVALID = 1;
/** Invalidations that may wait for their completion, as the ATS capability says. */
export const INVALIDATE_QUEUE_DEPTH = 32;

const MISBEHAVIOURS = 0x3f;
const DEFAULT_PAGE_REQUEST_LIMIT = 4;

export class DmaEngine implements AtsTarget, Stateful {
  readonly #parts: EngineParts;
  readonly #cache = new TranslationCache();
  readonly #maskLow: number;
  readonly #maskHigh: number;
  readonly #burstDue: ClockEvent;
  readonly #invalidationDone: ClockEvent;
  readonly clockEvents: readonly ClockEvent[];
  /** Invalidations that are being carried out: the clock event that ends each (0: a free place) and its tag. */
  readonly #completions = new Float64Array(INVALIDATE_QUEUE_DEPTH);
  readonly #completionTags = new Float64Array(INVALIDATE_QUEUE_DEPTH);
  #event = 0;

  /** Source, destination, count, command: low and high halves, in the order of their offsets. */
  readonly #words = new Uint32Array(8);
  #outcome = R.OUTCOME_DONE;
  #moved = 0;
  #pasidRegister = 0;
  #mode = 0;
  #pageRequestLimit = DEFAULT_PAGE_REQUEST_LIMIT;
  #group = 0;
  #requestsSent = 0;
  #responsesTaken = 0;
  #lastResponse = 0;
  #invalidationsTaken = 0;
  #invalidationDelay = 0;
  #misbehaviour = 0;

  /** A page request is unanswered. */
  #waiting = false;
  #waitingGroup = 0;
  #waitingPasid = NO_PASID;
  /** Tag of the burst that an IOMMU stalls. */
  #stallTag = NOT_STALLED;
  /** Page requests sent for the burst at hand. */
  #requestsForBurst = 0;
  /** Outcome that the next event ends the command with; MOVED: none. */
  #verdict = MOVED;

  constructor(parts: EngineParts) {
    this.#parts = parts;
    this.#burstDue = { owner: parts.name, name: "burst", fire: () => this.#step() };
    this.#invalidationDone = {
      owner: parts.name,
      name: "invalidation done",
      fire: (place) => this.#completeInvalidation(place),
    };
    this.clockEvents = [this.#burstDue, this.#invalidationDone];
    this.#maskLow = Number(parts.dmaMask & 0xffffffffn);
    this.#maskHigh = Number((parts.dmaMask >> 32n) & 0xffffffffn);
  }

  get running(): boolean {
    return (this.#words[COMMAND_WORD]! & R.COMMAND_RUN) !== 0;
  }

  reset(): void {
    const clock = this.#parts.clock();
    if (this.#event !== 0) clock.cancel(this.#event);
    for (const id of this.#completions) if (id !== 0) clock.cancel(id);
    this.#completions.fill(0);
    this.#event = 0;
    this.#outcome = this.running ? R.OUTCOME_RESET : R.OUTCOME_DONE;
    this.#words.fill(0);
    this.#cache.clear();
    this.#moved = this.#pasidRegister = this.#mode = this.#group = 0;
    this.#pageRequestLimit = DEFAULT_PAGE_REQUEST_LIMIT;
    this.#requestsSent = this.#responsesTaken = this.#lastResponse = this.#invalidationsTaken = 0;
    this.#invalidationDelay = this.#misbehaviour = this.#requestsForBurst = 0;
    this.#waiting = false;
    this.#stallTag = NOT_STALLED;
    this.#verdict = MOVED;
  }

  /** A stalled transaction ended its wait; one that is not the burst at hand is nobody's (the device was reset meanwhile). */
  stallEnded(tag: number, end: StallEnd): void {
    if (this.#stallTag === NOT_STALLED || tag !== this.#stallTag) return;
    this.#stallTag = NOT_STALLED;
    if (end === STALL_DISCARD) this.#discardBurst();
    if (end === STALL_RETRY || end === STALL_DISCARD) this.#schedule();
    else this.#endSoon(R.OUTCOME_REFUSED);
  }

  /** The burst at hand is done without having reached memory: a write is ignored, a read gives zeros. */
  #discardBurst(): void {
    const toRam = (this.#words[COMMAND_WORD]! & R.COMMAND_TO_RAM) !== 0;
    const length = this.#burstLength(this.#words[toRam ? DESTINATION_WORD : SOURCE_WORD]!);
    const at = this.#words[toRam ? SOURCE_WORD : DESTINATION_WORD]! - R.BUFFER + this.#moved;
    if (!toRam) this.#parts.buffer.fill(0, at, at + length);
    this.#moved += length;
  }

  /** Bytes of the next burst, `start` being the low half of the command's address in RAM. */
  #burstLength(start: number): number {
    const offset = ((start + this.#moved) >>> 0) & this.#maskLow & 0xfff;
    return Math.min(R.BURST_BYTES, this.#words[COUNT_WORD]! - this.#moved, 4096 - offset);
  }

  /** What the function has cached is void. */
  forgetTranslations(): void {
    this.#cache.clear();
  }

  /** Software cleared the page-request state: nobody will answer. */
  forgetPageRequests(): void {
    if (!this.#waiting) return;
    this.#waiting = false;
    this.#endSoon(R.OUTCOME_PAGE_REQUEST_FAILED);
  }

  /** 32-bit read at `offset`, 0x80 and up; all ones where there is no register. */
  readWord(offset: number): number {
    if (offset >= R.DMA_SOURCE && offset < R.DMA_OUTCOME) return this.#words[(offset - R.DMA_SOURCE) >> 2]!;
    switch (offset) {
      case R.DMA_OUTCOME:
        return this.#outcome;
      case R.DMA_MOVED:
        return this.#moved;
      case R.PASID:
        return this.#pasidRegister;
      case R.TRANSLATION_MODE:
        return this.#mode;
      case R.PAGE_REQUEST_LIMIT:
        return this.#pageRequestLimit;
      case R.PAGE_REQUEST_GROUP:
        return this.#group;
      case R.PAGE_REQUESTS_SENT:
        return this.#requestsSent;
      case R.PAGE_RESPONSES_TAKEN:
        return this.#responsesTaken;
      case R.LAST_RESPONSE_CODE:
        return this.#lastResponse;
      case R.INVALIDATIONS_TAKEN:
        return this.#invalidationsTaken;
      case R.INVALIDATION_DELAY:
        return this.#invalidationDelay;
      case R.MISBEHAVIOUR:
        return this.#misbehaviour;
      default:
        return 0xffffffff;
    }
  }

  /** Write of 4 or 8 bytes at `offset`, 0x80 and up. A 4-byte write to a 64-bit register clears its high half. */
  write(offset: number, size: 4 | 8, lo: number, hi: number): void {
    if (offset >= R.DMA_SOURCE && offset < R.DMA_OUTCOME) {
      if (!this.running) this.#writeCommandRegister(offset, size, lo, hi);
      return;
    }
    this.#writeExtension(offset, lo);
    if (size === 8) this.#writeExtension(offset + 4, hi);
  }

  #writeCommandRegister(offset: number, size: 4 | 8, lo: number, hi: number): void {
    const word = (offset - R.DMA_SOURCE) >> 2;
    if (word === COMMAND_WORD && (lo & R.COMMAND_RUN) === 0) return;
    if (word > COMMAND_WORD) return;
    this.#words[word] = lo;
    if ((word & 1) === 0) this.#words[word + 1] = size === 8 ? hi : 0;
    if (word === COMMAND_WORD) this.#start();
  }

  #writeExtension(offset: number, value: number): void {
    const { ats, pri, pasid, misbehaviour } = this.#parts;
    switch (offset) {
      case R.PASID:
        if (pasid !== null) this.#pasidRegister = (value & (R.PASID_VALID | R.PASID_PRIVILEGED | 0xfffff)) >>> 0;
        break;
      case R.TRANSLATION_MODE:
        this.#mode = value & ((ats !== null ? R.MODE_ATS : 0) | (pri !== null ? R.MODE_PRI : 0));
        break;
      case R.PAGE_REQUEST_LIMIT:
        this.#pageRequestLimit = Math.max(value & 0xff, 1);
        break;
      case R.PAGE_REQUEST_GROUP:
        this.#group = value & (GROUPS - 1);
        break;
      case R.INVALIDATION_DELAY:
        this.#invalidationDelay = value;
        break;
      case R.MISBEHAVIOUR:
        if (misbehaviour) this.#misbehaviour = value & MISBEHAVIOURS;
        break;
      case R.STOP_MARKER:
        if (pri !== null && pasid?.accepts(value & 0xfffff) === true)
          this.#parts.atsPort()?.stopMarker(value & 0xfffff);
        break;
    }
  }

  #start(): void {
    this.#moved = 0;
    this.#requestsForBurst = 0;
    this.#outcome = R.OUTCOME_DONE;
    this.#verdict = this.#checkCommand();
    this.#schedule();
  }

  /** MOVED if the command can run at all, else the outcome that refuses it. */
  #checkCommand(): number {
    const toRam = (this.#words[COMMAND_WORD]! & R.COMMAND_TO_RAM) !== 0;
    const own = toRam ? SOURCE_WORD : DESTINATION_WORD;
    const at = this.#words[own]! - R.BUFFER;
    const count = this.#words[COUNT_WORD]!;
    const high = this.#words[own + 1]! | this.#words[COUNT_WORD + 1]!;
    if (high !== 0 || at < 0 || at > R.BUFFER_BYTES || count > R.BUFFER_BYTES - at) return R.OUTCOME_OUT_OF_BUFFER;
    const pasid = this.#pasid;
    if (pasid !== NO_PASID && this.#parts.pasid?.accepts(pasid) !== true) return R.OUTCOME_PASID_DISABLED;
    return MOVED;
  }

  get #pasid(): number {
    return this.#pasidRegister >= R.PASID_VALID ? this.#pasidRegister & 0xfffff : NO_PASID;
  }

  get #privileged(): boolean {
    return (this.#pasidRegister & R.PASID_PRIVILEGED) !== 0 && this.#parts.pasid?.privilegedEnabled === true;
  }

  #schedule(): void {
    if (this.#event === 0) this.#event = this.#parts.clock().schedule(R.BURST_NS, this.#burstDue);
  }

  /** Ends the command at the next event. */
  #endSoon(outcome: number): void {
    this.#verdict = outcome;
    this.#schedule();
  }

  #step(): void {
    this.#event = 0;
    if (!this.running || this.#waiting || this.#stallTag !== NOT_STALLED) return;
    const count = this.#words[COUNT_WORD]!;
    let result = this.#verdict;
    if (result === MOVED && this.#moved < count) result = this.#burst();
    if (result === WAITING) return;
    if (result !== MOVED) this.#finish(result);
    else if (this.#moved >= count) this.#finish(R.OUTCOME_DONE);
    else this.#schedule();
  }

  #finish(outcome: number): void {
    const command = this.#words[COMMAND_WORD]!;
    this.#outcome = outcome;
    this.#verdict = MOVED;
    this.#words[COMMAND_WORD] = command & ~R.COMMAND_RUN;
    if ((command & R.COMMAND_INTERRUPT) !== 0) this.#parts.interrupt();
  }

  #burst(): number {
    const write = (this.#words[COMMAND_WORD]! & R.COMMAND_TO_RAM) !== 0;
    const ram = write ? DESTINATION_WORD : SOURCE_WORD;
    const own = write ? SOURCE_WORD : DESTINATION_WORD;
    const sum = this.#words[ram]! + this.#moved;
    const low = ((sum >>> 0) & this.#maskLow) >>> 0;
    const high = ((this.#words[ram + 1]! + (sum > 0xffffffff ? 1 : 0)) & this.#maskHigh) >>> 0;
    const pfn = pfnOfHalves(low, high);
    const offset = low & 0xfff;
    const length = this.#burstLength(this.#words[ram]!);
    const at = this.#words[own]! - R.BUFFER + this.#moved;
    const outcome = this.#transfer(write, pfn, offset, at, length);
    if (outcome === MOVED) {
      this.#moved += length;
      this.#requestsForBurst = 0;
    }
    return outcome;
  }

  #transfer(write: boolean, pfn: number, offset: number, at: number, length: number): number {
    const pasid = this.#pasid;
    if ((this.#misbehaviour & R.MISBEHAVE_FORGE_TRANSLATED) !== 0) {
      return this.#translatedTransfer(write, pfn, offset, at, length, pasid);
    }
    if ((this.#mode & R.MODE_ATS) !== 0) {
      const port = this.#parts.atsPort();
      if (port === undefined || this.#parts.ats?.enabled !== true) return R.OUTCOME_TRANSLATION_REFUSED;
      if (!this.#cache.lookup(pfn, pasid, write)) {
        const privileged = pasid !== NO_PASID && this.#privileged;
        if (port.translate(pfn, pasid, !write, privileged, false) !== ATS_SUCCESS) return R.OUTCOME_TRANSLATION_REFUSED;
        this.#cache.fill(pfn, pasid, port.translation);
        if (!this.#cache.lookup(pfn, pasid, write)) return this.#requestPage(port, pfn, pasid, write);
      }
      if (!this.#cache.untranslatedOnly) {
        return this.#translatedTransfer(write, this.#cache.resultPfn, offset, at, length, pasid);
      }
    }
    const status = this.#parts.transfer(write, pfn, offset, at, length, pasid, this.#privileged);
    if (status === DMA_STALLED) {
      this.#stallTag = this.#parts.stallTag?.() ?? NOT_STALLED;
      return WAITING;
    }
    return status === DMA_OK ? MOVED : R.OUTCOME_REFUSED;
  }

  #translatedTransfer(write: boolean, pfn: number, offset: number, at: number, length: number, pasid: number): number {
    const port = this.#parts.atsPort();
    if (port === undefined) return R.OUTCOME_REFUSED;
    const { buffer } = this.#parts;
    const status = write
      ? port.writeTranslated(pfn, offset, buffer, at, length, pasid)
      : port.readTranslated(pfn, offset, buffer, at, length, pasid);
    return status === DMA_OK ? MOVED : R.OUTCOME_REFUSED;
  }

  #requestPage(port: AtsPort, pfn: number, pasid: number, write: boolean): number {
    const { pri } = this.#parts;
    if (pri === null || (this.#mode & R.MODE_PRI) === 0) return R.OUTCOME_NO_PERMISSION;
    if (this.#requestsForBurst >= this.#pageRequestLimit) return R.OUTCOME_NO_PERMISSION;
    if (!pri.mayRequest(0)) return R.OUTCOME_PAGE_REQUEST_FAILED;
    this.#requestsForBurst++;
    this.#requestsSent = (this.#requestsSent + 1) >>> 0;
    const invent = (this.#misbehaviour & R.MISBEHAVE_INVENT_GROUPS) !== 0;
    const group = invent ? (this.#group * 167 + 13) % GROUPS : this.#group;
    if ((this.#misbehaviour & R.MISBEHAVE_REUSE_GROUPS) === 0) this.#group = (this.#group + 1) % GROUPS;
    const flags =
      (write ? REQUEST_WRITE : REQUEST_READ) |
      ((this.#misbehaviour & R.MISBEHAVE_NEVER_LAST) === 0 ? REQUEST_LAST : 0) |
      (pasid !== NO_PASID && this.#privileged ? REQUEST_PRIVILEGED : 0);
    // The answer may come before pageRequest returns.
    this.#waiting = true;
    this.#waitingGroup = group;
    this.#waitingPasid = pasid;
    if (invent) port.pageRequest(pfn, pasid, group ^ 0x155, flags);
    port.pageRequest(pfn, pasid, group, flags);
    return WAITING;
  }

  pageResponse(pasid: number, group: number, code: number): void {
    const { pri } = this.#parts;
    this.#responsesTaken = (this.#responsesTaken + 1) >>> 0;
    this.#lastResponse = code;
    // A response carries the PASID only if the IOMMU was told that the function wants it (PRG Response PASID Required).
    const expected =
      this.#waiting && group === this.#waitingGroup && (pasid === NO_PASID || pasid === this.#waitingPasid);
    if (!expected) {
      pri?.unexpectedIndex();
      return;
    }
    this.#waiting = false;
    if (code === RESPONSE_SUCCESS) {
      this.#schedule();
      return;
    }
    // Codes that are neither success nor invalid count as Response Failure (§10.4.2.1).
    if (code !== RESPONSE_INVALID) pri?.responseFailed();
    this.#endSoon(R.OUTCOME_PAGE_REQUEST_FAILED);
  }

  invalidate(pfn: number, pages: number, pasid: number, globalInvalidate: boolean, itag: number): boolean {
    this.#invalidationsTaken = (this.#invalidationsTaken + 1) >>> 0;
    if ((this.#misbehaviour & R.MISBEHAVE_KEEP_STALE) === 0) {
      this.#cache.invalidate(pfn, pages, pasid, globalInvalidate);
    }
    if ((this.#misbehaviour & R.MISBEHAVE_NEVER_COMPLETE) !== 0) return false;
    const place = this.#completions.indexOf(0);
    if (this.#invalidationDelay === 0 || place < 0) return true;
    this.#completionTags[place] = itag;
    this.#completions[place] = this.#parts.clock().schedule(this.#invalidationDelay, this.#invalidationDone, place);
    return false;
  }

  #completeInvalidation(place: number): void {
    this.#completions[place] = 0;
    this.#parts.atsPort()?.invalidationCompleted(this.#completionTags[place]!);
  }

  saveState(): StateRecord {
    return {
      completions: bytesOf(this.#completions),
      completionTags: bytesOf(this.#completionTags),
      event: this.#event,
      words: bytesOf(this.#words),
      outcome: this.#outcome,
      moved: this.#moved,
      pasidRegister: this.#pasidRegister,
      mode: this.#mode,
      pageRequestLimit: this.#pageRequestLimit,
      group: this.#group,
      requestsSent: this.#requestsSent,
      responsesTaken: this.#responsesTaken,
      lastResponse: this.#lastResponse,
      invalidationsTaken: this.#invalidationsTaken,
      invalidationDelay: this.#invalidationDelay,
      misbehaviour: this.#misbehaviour,
      waiting: this.#waiting,
      waitingGroup: this.#waitingGroup,
      waitingPasid: this.#waitingPasid,
      stallTag: this.#stallTag,
      requestsForBurst: this.#requestsForBurst,
      verdict: this.#verdict,
    };
  }

  restoreState(state: StateReader): void {
    state.memory("completions", this.#completions);
    state.memory("completionTags", this.#completionTags);
    this.#event = state.number("event");
    state.memory("words", this.#words);
    this.#outcome = state.number("outcome");
    this.#moved = state.number("moved");
    this.#pasidRegister = state.number("pasidRegister");
    this.#mode = state.number("mode");
    this.#pageRequestLimit = state.number("pageRequestLimit");
    this.#group = state.number("group");
    this.#requestsSent = state.number("requestsSent");
    this.#responsesTaken = state.number("responsesTaken");
    this.#lastResponse = state.number("lastResponse");
    this.#invalidationsTaken = state.number("invalidationsTaken");
    this.#invalidationDelay = state.number("invalidationDelay");
    this.#misbehaviour = state.number("misbehaviour");
    this.#waiting = state.boolean("waiting");
    this.#waitingGroup = state.number("waitingGroup");
    this.#waitingPasid = state.number("waitingPasid");
    this.#stallTag = state.number("stallTag");
    this.#requestsForBurst = state.number("requestsForBurst");
    this.#verdict = state.number("verdict");
  }

  stateParts(): Iterable<readonly [string, Stateful]> {
    return [["translation cache", this.#cache]];
  }
}
