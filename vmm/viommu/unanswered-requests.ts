// Page requests that a guest has been told of and has not answered (PCIe 6.0 §10.4). The host's cookie, or an emulated device's own answer, waits behind
// each group; the guest's answer is matched on device, PASID and group index, oldest first. An index that comes from a device is only compared, never
// used to index anything.

import type { Stateful, StateReader, StateRecord } from "../../host/base/state.ts";
import { type DeviceHandle, RESPONSE_INVALID, RESPONSE_SUCCESS } from "./host-port.ts";

/** Response codes of a PRG Response message (PCIe 6.0 §10.4.2.1). */
export const PRG_SUCCESS = 0;
export const PRG_INVALID_REQUEST = 1;
export const PRG_RESPONSE_FAILURE = 15;

/** A group to be answered, as whoever answers knows it. */
export interface AskedGroup {
  readonly device: DeviceHandle;
  /** The guest's id of the device. */
  readonly deviceId: number;
  /** PASID, -1: none. */
  readonly processId: number;
  /** As the device gave it. */
  readonly asked: number;
  /** The host's name for the group; null: an emulated device asks. */
  readonly cookie: number | null;
}

interface Unanswered extends AskedGroup {
  /** As the guest was told. */
  readonly group: number;
  readonly respond: (code: number) => void;
}

/** Groups a guest may leave unanswered. A device has at most 512 a PASID; past this bound they are answered for the guest. */
const LIMIT = 4096;

/** The response a host can carry (iommufd: SUCCESS, INVALID) for a PRG Response code. */
export function hostResponse(code: number): number {
  return code === PRG_SUCCESS ? RESPONSE_SUCCESS : RESPONSE_INVALID;
}

export class UnansweredRequests implements Stateful {
  /** Whoever answers a group that a document brings. */
  answerer: (group: AskedGroup) => (code: number) => void = () => () => {}; // not state: wiring
  readonly #groups: Unanswered[] = [];

  get size(): number {
    return this.#groups.length;
  }

  get full(): boolean {
    return this.#groups.length >= LIMIT;
  }

  /** The guest has been told of a group. */
  add(asked: AskedGroup, group: number, respond: (code: number) => void): void {
    const { device, deviceId, processId, cookie } = asked;
    this.#groups.push({ device, deviceId, processId, asked: asked.asked, cookie, group, respond });
  }

  /** Answers the oldest matching group. False if nobody asked; such an answer is dropped. */
  answer(deviceId: number, processId: number, group: number, code: number): boolean {
    // A device that did not want PASIDs in its responses is answered without: match on what the guest gave, then without.
    let index = this.#groups.findIndex(
      (entry) => entry.deviceId === deviceId && entry.processId === processId && entry.group === group,
    );
    if (index < 0 && processId < 0) {
      index = this.#groups.findIndex((entry) => entry.deviceId === deviceId && entry.group === group);
    }
    if (index < 0) return false;
    const [found] = this.#groups.splice(index, 1);
    found!.respond(code);
    return true;
  }

  /** Gives up what a device asked (unplug, reset, another context), null: all devices; answered for the guest. */
  forget(device: DeviceHandle | null, code: number): void {
    for (let i = this.#groups.length - 1; i >= 0; i--) {
      if (device !== null && this.#groups[i]!.device !== device) continue;
      const [gone] = this.#groups.splice(i, 1);
      gone!.respond(code);
    }
  }

  saveState(): StateRecord {
    return {
      unanswered: this.#groups.map(({ device, deviceId, processId, asked, cookie, group }) => {
        return { device, deviceId, processId, asked, cookie, group };
      }),
    };
  }

  restoreState(state: StateReader): void {
    const groups = state.records("unanswered").map((saved): Unanswered => {
      const group: AskedGroup = {
        device: saved.number("device"),
        deviceId: saved.number("deviceId"),
        processId: saved.number("processId"),
        asked: saved.number("asked"),
        cookie: saved.optional("cookie", (reader, name) => reader.number(name)),
      };
      return { ...group, group: saved.number("group"), respond: this.answerer(group) };
    });
    if (groups.length > LIMIT) state.fail("unanswered", `are more than ${LIMIT}`);
    this.#groups.splice(0, this.#groups.length, ...groups);
  }
}
