// Page requests on their way into a guest's page-request queue, where its kind has one: of device models, and of assigned devices as the host's fault
// queue gives them.
//
//   request ─▶ record in guest memory ─▶ guest maps the page ─▶ its answer ─▶ the device, or respond(cookie, code)
//
// What cannot be queued the kind's queue answers at once. Where there is none every request is refused.

import { StateError, type Stateful, type StateReader, type StateRecord } from "../../host/base/state.ts";
import { type AtsTarget, NO_PASID } from "../../host/devices/ports.ts";
import type { HostEvent, ViommuHost } from "./host-port.ts";
import type { PluggedState } from "./kind.ts";
import {
  type AskedGroup,
  hostResponse,
  PRG_INVALID_REQUEST,
  PRG_RESPONSE_FAILURE,
  UnansweredRequests,
} from "./unanswered-requests.ts";

/** Flags of a request, as AtsPort.pageRequest. */
const READ_OR_WRITE = 3;
const LAST = 4;
const GROUP = 0x1ff;

/** The queue itself; state of the kind's registers. */
export interface RequestQueue {
  receive(deviceId: number, pasid: number, pfn: number, group: number, flags: number): void;
}

/** An answer that the queue gives by itself. */
export type QueueAnswer = (deviceId: number, pasid: number, group: number, code: number) => void;

/** Who waits for answers. */
export interface Askers {
  readonly host: ViommuHost | null;
  /** A device model that has ATS, by the guest's id. */
  readonly model: (deviceId: number) => AtsTarget | undefined;
}

export class PageRequests implements Stateful {
  readonly waiting = new UnansweredRequests();
  readonly #queue: RequestQueue | null;
  readonly #askers: Askers;

  /** `queue` null: the guest is offered none. */
  constructor(queue: ((answer: QueueAnswer) => RequestQueue) | null, askers: Askers) {
    this.#askers = askers;
    this.waiting.answerer = (group) => this.#responder(group);
    this.#queue =
      queue?.((deviceId, pasid, group, code) => void this.waiting.answer(deviceId, pasid, group, code)) ?? null;
  }

  /** An assigned device's, as the host gives it; `state`: the device's here. Only who is nested has a guest to ask. */
  fromHost(event: HostEvent & { kind: "page-request" }, state: PluggedState | undefined): void {
    const { device, permissions, cookie } = event;
    if (state === undefined || state.device.held === true) {
      if (event.last) this.#toHost(cookie)(PRG_RESPONSE_FAILURE);
      return;
    }
    const processId = event.pasid ?? NO_PASID;
    const asked = { device, deviceId: state.device.guestId, processId, asked: event.group, cookie };
    // READ and WRITE stand as in a request's own flags, EXEC and PRIV one bit lower.
    const flags = (permissions & READ_OR_WRITE) | (event.last ? LAST : 0) | ((permissions & 12) << 1);
    this.#arrived(asked, Number(BigInt.asUintN(64, event.address) >> 12n), flags);
  }

  /** A device model's; `flags` as AtsPort.pageRequest. */
  fromModel(state: PluggedState | undefined, pasid: number, pfn: number, group: number, flags: number): void {
    if (state === undefined) return;
    const { handle: device, guestId: deviceId } = state.device;
    this.#arrived({ device, deviceId, processId: pasid, asked: group, cookie: null }, pfn, flags);
  }

  #arrived(asked: AskedGroup, pfn: number, flags: number): void {
    // The last request of a group is answered; a Stop Marker and the ones before it are not (PCIe 6.0 §10.4.1).
    const answerable = (flags & LAST) !== 0 && (flags & READ_OR_WRITE) !== 0;
    const respond = answerable ? this.#responder(asked) : null;
    if (this.#queue === null) {
      respond?.(PRG_RESPONSE_FAILURE);
      return;
    }
    const group = asked.asked & GROUP;
    if (respond !== null) {
      if (this.waiting.full) {
        respond(PRG_INVALID_REQUEST);
        return;
      }
      this.waiting.add(asked, group, respond);
    }
    this.#queue.receive(asked.deviceId, asked.processId, pfn, group, flags);
  }

  /** What answers a group: the host by its cookie, or the device model that asked. */
  #responder({ deviceId, processId, asked, cookie }: AskedGroup): (code: number) => void {
    if (cookie !== null) return this.#toHost(cookie);
    const target = this.#askers.model(deviceId);
    if (target === undefined) throw new StateError(`device ${deviceId} waits for an answer and is not here`);
    return (code) => target.pageResponse(processId, asked, code);
  }

  /** The host answers by itself when the device goes or its stage 1 changes: a cookie that is void by then is no news. */
  #toHost(cookie: number): (code: number) => void {
    return (code) => void this.#askers.host?.respond(cookie, hostResponse(code));
  }

  saveState(): StateRecord {
    return {};
  }

  restoreState(_state: StateReader): void {}

  *stateParts(): Generator<readonly [string, Stateful]> {
    yield ["unanswered", this.waiting];
  }
}
