// The guest's page-request queue (§3.7, 6.12–6.14, 6.17), and the page requests the guest has not answered yet.
//
//   host event (cookie) → 16-byte record in guest memory → guest maps the page → ATS.PRGR → respond(cookie, code)
//
// The host's cookie names the group; the guest's answer is matched on device, process_id and group index, oldest first. An index that
// comes from a device is only compared, never used to index anything. What cannot be queued is answered at once as §3.7 says, as
// far as iommufd's two codes go: Success where the device shall retry (queue full), Invalid Request otherwise.

import { PRGR_INVALID_REQUEST, PRGR_RESPONSE_FAILURE, PRGR_SUCCESS } from "../../../host/arch/riscv/commands.ts";
import { encodePageRequest, type PageRequestRecord } from "../../../host/arch/riscv/page-requests.ts";
import { CSR_MEMORY_FAULT, CSR_ON, CSR_OVERFLOW } from "../../../host/arch/riscv/registers.ts";
import type { GpaPfn } from "../../../host/base/address.ts";
import type { MemoryPort } from "../../../host/base/memory.ts";
import type { StateReader, StateRecord } from "../../../host/base/state.ts";
import { type DeviceHandle, RESPONSE_INVALID, RESPONSE_SUCCESS } from "../host-port.ts";
import { type Interrupts, PIP } from "./interrupts.ts";
import { type RegisterFile, WORD } from "./registers.ts";
import { WrittenQueue } from "./written-queue.ts";

/** A page request as it arrives, from the host or from an emulated device; `deviceId` is the guest's. */
export interface ArrivingPageRequest extends PageRequestRecord {
  readonly device: DeviceHandle;
  /** The host's name for its group; null: an emulated device asks. */
  readonly cookie: number | null;
  /** Answers the group: a PRG Response code. */
  readonly respond: (code: number) => void;
}

/** A group to be answered, as whoever answers knows it. */
export interface AskedGroup {
  readonly device: DeviceHandle;
  readonly deviceId: number;
  readonly processId: number;
  /** As the device gave it. */
  readonly asked: number;
  readonly cookie: number | null;
}

interface Unanswered extends AskedGroup {
  /** As the guest was told. */
  readonly group: number;
  readonly respond: (code: number) => void;
}

/** Groups a guest may leave unanswered. A device has at most 512 a process_id; past this bound they are answered for the guest. */
const UNANSWERED_LIMIT = 4096;

/** The response a host can carry (iommufd: SUCCESS, INVALID) for a PRG Response code. */
export function hostResponse(code: number): number {
  return code === PRGR_SUCCESS ? RESPONSE_SUCCESS : RESPONSE_INVALID;
}

/** The last request of a group is answered; a Stop Marker (last, neither read nor write) and the ones before it are not (§3.7). */
export function wantsAnswer(request: PageRequestRecord): boolean {
  return request.last && (request.read || request.write);
}

export class PageRequestQueue extends WrittenQueue {
  /** Whoever answers a group that a document brings: `respond` of the request that it was. */
  answerer: (group: AskedGroup) => (code: number) => void = () => () => {}; // not state: wiring
  readonly #unanswered: Unanswered[] = [];

  constructor(registers: RegisterFile, memory: MemoryPort<GpaPfn>, interrupts: Interrupts) {
    super(registers, memory, interrupts, {
      base: WORD.PQB,
      head: WORD.PQH,
      tail: WORD.PQT,
      control: WORD.PQCSR,
      entryLog2: 4,
      interrupt: PIP,
    });
  }

  /** Groups delivered and not answered. */
  get unanswered(): number {
    return this.#unanswered.length;
  }

  /** Queues a request of a device whose context allows them; what cannot be queued is answered (last one of a group only). */
  deliver(request: ArrivingPageRequest): void {
    const answerable = wantsAnswer(request);
    const { csr } = this;
    if ((csr & CSR_ON) === 0 || (csr & CSR_MEMORY_FAULT) !== 0) {
      if (answerable) request.respond(PRGR_RESPONSE_FAILURE);
      return;
    }
    if ((csr & CSR_OVERFLOW) !== 0 || this.ring.full) {
      if ((csr & CSR_OVERFLOW) === 0) this.fail(CSR_OVERFLOW);
      if (answerable) request.respond(PRGR_SUCCESS);
      return;
    }
    if (answerable && this.#unanswered.length >= UNANSWERED_LIMIT) {
      request.respond(PRGR_INVALID_REQUEST);
      return;
    }
    const group = request.group & 0x1ff;
    if (!this.append(encodePageRequest({ ...request, group }))) {
      this.fail(CSR_MEMORY_FAULT);
      if (answerable) request.respond(PRGR_RESPONSE_FAILURE);
      return;
    }
    if (answerable) {
      this.#unanswered.push({
        device: request.device,
        deviceId: request.deviceId,
        processId: request.processId,
        asked: request.group,
        cookie: request.cookie,
        group,
        respond: request.respond,
      });
    }
    this.announce();
  }

  /** ATS.PRGR: answers the oldest matching group. False if the guest answers what nobody asked; such an answer is dropped. */
  answer(deviceId: number, processId: number, group: number, code: number): boolean {
    // A device that did not want PASIDs in its responses (PRPR) is answered without: match on what the guest gave, then without.
    let index = this.#find(deviceId, processId, group);
    if (index < 0 && processId < 0) index = this.#findAnyProcess(deviceId, group);
    if (index < 0) return false;
    const [found] = this.#unanswered.splice(index, 1);
    found!.respond(code);
    return true;
  }

  /** Gives up what a device asked (unplug, reset, another context): answered for the guest. */
  forget(device: DeviceHandle | null, code: number): void {
    for (let i = this.#unanswered.length - 1; i >= 0; i--) {
      if (device !== null && this.#unanswered[i]!.device !== device) continue;
      const [gone] = this.#unanswered.splice(i, 1);
      gone!.respond(code);
    }
  }

  #find(deviceId: number, processId: number, group: number): number {
    return this.#unanswered.findIndex(
      (entry) => entry.deviceId === deviceId && entry.processId === processId && entry.group === group,
    );
  }

  #findAnyProcess(deviceId: number, group: number): number {
    return this.#unanswered.findIndex((entry) => entry.deviceId === deviceId && entry.group === group);
  }

  override saveState(): StateRecord {
    return {
      unanswered: this.#unanswered.map(({ device, deviceId, processId, asked, cookie, group }) => {
        return { device, deviceId, processId, asked, cookie, group };
      }),
    };
  }

  override restoreState(state: StateReader): void {
    const unanswered = state.records("unanswered").map((saved): Unanswered => {
      const group: AskedGroup = {
        device: saved.number("device"),
        deviceId: saved.number("deviceId"),
        processId: saved.number("processId"),
        asked: saved.number("asked"),
        cookie: saved.optional("cookie", (reader, name) => reader.number(name)),
      };
      return { ...group, group: saved.number("group"), respond: this.answerer(group) };
    });
    if (unanswered.length > UNANSWERED_LIMIT) state.fail("unanswered", `are more than ${UNANSWERED_LIMIT}`);
    this.#unanswered.splice(0, this.#unanswered.length, ...unanswered);
  }
}
