// Asynchronous events (NVMe 1.4 §5.2): requests that the host leaves with the controller, and what has happened. One event
// completes one request; further events of that type wait until the host has read the event's log page.

import type { Stateful, StateReader, StateRecord } from "../../base/state.ts";
import { ASYNCHRONOUS_EVENT_LIMIT } from "./identify.ts";

export const EVENT_ERROR = 0;
export const EVENT_HEALTH = 1;

/** Information of an error event. */
export const ERROR_INVALID_DOORBELL = 0;
export const ERROR_INVALID_DOORBELL_VALUE = 1;
/** Information of a health event: reliability degraded. */
export const HEALTH_RELIABILITY = 0;

interface PendingEvent {
  readonly type: number;
  readonly information: number;
  readonly logPage: number;
}

/** Events kept while nobody asks for them; older ones stay, newer ones are dropped. */
const MOST_PENDING = 16;

export class AsynchronousEvents implements Stateful {
  /** Command ids of the requests held. */
  readonly #requests: number[] = [];
  readonly #pending: PendingEvent[] = [];
  #maskedTypes = 0;

  reset(): void {
    this.#requests.length = 0;
    this.#pending.length = 0;
    this.#maskedTypes = 0;
  }

  /** Keeps a request; false if the limit is reached. */
  hold(commandId: number): boolean {
    if (this.#requests.length >= ASYNCHRONOUS_EVENT_LIMIT) return false;
    this.#requests.push(commandId);
    return true;
  }

  /** Takes a held request back (Abort); false if there is none of that id. */
  withdraw(commandId: number): boolean {
    const index = this.#requests.indexOf(commandId);
    if (index < 0) return false;
    this.#requests.splice(index, 1);
    return true;
  }

  report(type: number, information: number, logPage: number): void {
    const same = (event: PendingEvent) => event.type === type && event.information === information;
    if (this.#pending.length < MOST_PENDING && !this.#pending.some(same))
      this.#pending.push({ type, information, logPage });
  }

  /** The host has read `logPage`: its events are reported again. */
  logPageRead(logPage: number): void {
    for (let type = EVENT_ERROR; type <= EVENT_HEALTH; type++) {
      if (logPage === type + 1) this.#maskedTypes &= ~(1 << type);
    }
  }

  /** True if a request can be completed now. */
  get ready(): boolean {
    return this.#requests.length > 0 && this.#pending.some(({ type }) => (this.#maskedTypes & (1 << type)) === 0);
  }

  /** Takes the next event and the request that it completes; call while `ready`. `result` is dword 0 of the completion. */
  next(): { readonly commandId: number; readonly result: number } {
    const index = this.#pending.findIndex(({ type }) => (this.#maskedTypes & (1 << type)) === 0);
    const [event] = this.#pending.splice(index, 1);
    this.#maskedTypes |= 1 << event!.type;
    return {
      commandId: this.#requests.shift()!,
      result: event!.type | (event!.information << 8) | (event!.logPage << 16),
    };
  }

  saveState(): StateRecord {
    return {
      requests: [...this.#requests],
      pending: this.#pending.map(({ type, information, logPage }) => ({ type, information, logPage })),
      maskedTypes: this.#maskedTypes,
    };
  }

  restoreState(state: StateReader): void {
    this.reset();
    for (const request of state.list("requests")) this.#requests.push(Number(request));
    for (const saved of state.records("pending")) {
      this.#pending.push({
        type: saved.number("type"),
        information: saved.number("information"),
        logPage: saved.number("logPage"),
      });
    }
    this.#maskedTypes = state.number("maskedTypes");
  }
}
