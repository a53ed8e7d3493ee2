// Stalled transactions of assigned devices (IHI 0070 §3.12.2): the hardware holds them, the host's fault queue tells of them, the guest decides.
//
//   page request with a cookie ─▶ a STAG of this SMMU, an event with Stall = 1 ─▶ CMD_RESUME, CMD_STALL_TERM ─▶ respond(cookie, …)
//
// Retry is success, all else failure: a terminated transaction is aborted (TERM_MODEL), and iommufd has no third answer. The hardware's own STAG is
// only the kernel's to know: a guest that resumes another's finds none of its own.

import { F_TRANSLATION } from "../../../host/arch/smmuv3/event-records.ts";
import {
  EVENT_INSTRUCTION,
  EVENT_PRIVILEGED,
  EVENT_READ,
  type EventQueue,
  eventClass,
} from "../../../host/arch/smmuv3/parts/event-queue.ts";
import type { Stateful, StateReader, StateRecord } from "../../../host/base/state.ts";
import { STALL_RETRY, type StallEnd } from "../../../host/base/transaction.ts";
import { type HostEvent, RESPONSE_INVALID, RESPONSE_SUCCESS } from "../host-port.ts";

const READ = 1;
const WRITE = 2;
const EXECUTE = 4;
const PRIVILEGED = 8;
const CLASS_IN = 2;
const PAGE = 4096n;

export class StalledFaults implements Stateful {
  readonly #events: EventQueue;
  readonly #respond: (cookie: number, code: number) => void;
  /** STAG → the host's cookie. */
  readonly #cookies = new Map<number, number>();

  constructor(events: EventQueue, respond: (cookie: number, code: number) => void) {
    this.#events = events;
    this.#respond = respond;
    events.onStallEnded = (_sid, tag, end) => this.#ended(tag, end);
  }

  /** Stalled and not decided. */
  get waiting(): number {
    return this.#cookies.size;
  }

  /** `number`: F_TRANSLATION, or what our own walk of the guest's tables finds. */
  arrived(request: HostEvent & { kind: "page-request" }, sid: number, number: number = F_TRANSLATION): void {
    const { permissions, cookie } = request;
    const address = BigInt.asUintN(64, request.address);
    const writes = (permissions & WRITE) !== 0;
    const flags =
      eventClass(CLASS_IN) |
      (writes ? 0 : EVENT_READ) |
      (!writes && (permissions & (READ | EXECUTE)) === EXECUTE ? EVENT_INSTRUCTION : 0) |
      ((permissions & PRIVILEGED) !== 0 ? EVENT_PRIVILEGED : 0);
    const ssid = request.pasid === null ? -1 : request.pasid & 0xfffff;
    const tag = this.#events.stall(number, sid, ssid, flags, Number(address / PAGE), Number(address % PAGE), 0, 0);
    // As many as STALL_MAX wait already: the hardware has no more, so this one is not its.
    if (tag < 0) this.#respond(cookie, RESPONSE_INVALID);
    else if (this.#events.endedWithin >= 0) this.#answer(cookie, this.#events.endedWithin as StallEnd);
    else this.#cookies.set(tag, cookie);
  }

  #ended(tag: number, end: StallEnd): void {
    const cookie = this.#cookies.get(tag);
    // A stalled transaction of a device model: it was refused to that at once, nobody waits.
    if (cookie === undefined) return;
    this.#cookies.delete(tag);
    this.#answer(cookie, end);
  }

  #answer(cookie: number, end: StallEnd): void {
    this.#respond(cookie, end === STALL_RETRY ? RESPONSE_SUCCESS : RESPONSE_INVALID);
  }

  saveState(): StateRecord {
    return { cookies: [...this.#cookies].map(([tag, cookie]) => ({ tag, cookie })) };
  }

  restoreState(state: StateReader): void {
    this.#cookies.clear();
    for (const each of state.records("cookies")) this.#cookies.set(each.number("tag"), each.number("cookie"));
  }
}
