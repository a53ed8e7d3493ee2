// The guest's page-request queue (§3.7, 6.12–6.14, 6.17), and the page requests the guest has not answered yet.
//
//   host event (cookie) → 16-byte record in guest memory → guest maps the page → ATS.PRGR → respond(cookie, code)
//
// The host's cookie names the group; the guest's answer is matched on device, process_id and group index, oldest first. An index that
// comes from a device is only compared, never used to index anything. What cannot be queued is answered at once as §3.7 says, as
// far as iommufd's two codes go: Success where the device shall retry (queue full), Invalid Request otherwise.

import { PRGR_INVALID_REQUEST, PRGR_RESPONSE_FAILURE, PRGR_SUCCESS } from "../../../host/arch/riscv/commands.ts";
import {
  encodePageRequest,
  PAGE_REQUEST_BYTES,
  type PageRequestRecord,
} from "../../../host/arch/riscv/page-requests.ts";
import {
  CSR_ENABLE,
  CSR_INTERRUPT_ENABLE,
  CSR_MEMORY_FAULT,
  CSR_ON,
  CSR_OVERFLOW,
} from "../../../host/arch/riscv/registers.ts";
import type { GpaPfn } from "../../../host/base/address.ts";
import { ACCESS_OK, type MemoryPort } from "../../../host/base/memory.ts";
import { type DeviceHandle, RESPONSE_INVALID, RESPONSE_SUCCESS } from "../host-port.ts";
import { type Interrupts, PIP } from "./interrupts.ts";
import { type RegisterFile, WORD } from "./registers.ts";
import { Ring } from "./ring.ts";

/** A page request as it arrives, from the host or from an emulated device; `deviceId` is the guest's. */
export interface ArrivingPageRequest extends PageRequestRecord {
  readonly device: DeviceHandle;
  /** Answers the group: a PRG Response code. */
  readonly respond: (code: number) => void;
}

interface Unanswered {
  readonly device: DeviceHandle;
  readonly deviceId: number;
  readonly processId: number;
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

export class PageRequestQueue {
  readonly ring: Ring;
  readonly #registers: RegisterFile;
  readonly #memory: MemoryPort<GpaPfn>;
  readonly #interrupts: Interrupts;
  readonly #unanswered: Unanswered[] = [];
  readonly #entry = new Uint8Array(PAGE_REQUEST_BYTES);
  readonly #words = new BigUint64Array(this.#entry.buffer);

  constructor(registers: RegisterFile, memory: MemoryPort<GpaPfn>, interrupts: Interrupts) {
    this.#registers = registers;
    this.#memory = memory;
    this.#interrupts = interrupts;
    this.ring = new Ring(registers, { base: WORD.PQB, head: WORD.PQH, tail: WORD.PQT }, 4);
  }

  /** Groups delivered and not answered. */
  get unanswered(): number {
    return this.#unanswered.length;
  }

  controlWritten(previous: number): void {
    const words = this.#registers.words;
    const now = words[WORD.PQCSR]!;
    if ((now & CSR_ENABLE) !== 0 && (previous & CSR_ENABLE) === 0) {
      words[WORD.PQT] = 0;
      words[WORD.PQCSR] = ((now & ~(CSR_MEMORY_FAULT | CSR_OVERFLOW)) | CSR_ON) >>> 0;
    } else if ((now & CSR_ENABLE) === 0) {
      words[WORD.PQCSR] = (now & ~CSR_ON) >>> 0;
    }
    this.evaluate();
  }

  evaluate(): void {
    const csr = this.#registers.words[WORD.PQCSR]!;
    if ((csr & CSR_INTERRUPT_ENABLE) !== 0 && (csr & (CSR_MEMORY_FAULT | CSR_OVERFLOW)) !== 0)
      this.#interrupts.raise(PIP);
  }

  /** Queues a request of a device whose context allows them; what cannot be queued is answered (last one of a group only). */
  deliver(request: ArrivingPageRequest): void {
    const answerable = wantsAnswer(request);
    const csr = this.#registers.words[WORD.PQCSR]!;
    if ((csr & CSR_ON) === 0 || (csr & CSR_MEMORY_FAULT) !== 0) {
      if (answerable) request.respond(PRGR_RESPONSE_FAILURE);
      return;
    }
    if ((csr & CSR_OVERFLOW) !== 0 || this.ring.full) {
      if ((csr & CSR_OVERFLOW) === 0) this.#fail(CSR_OVERFLOW);
      if (answerable) request.respond(PRGR_SUCCESS);
      return;
    }
    if (answerable && this.#unanswered.length >= UNANSWERED_LIMIT) {
      request.respond(PRGR_INVALID_REQUEST);
      return;
    }
    const group = request.group & 0x1ff;
    this.#words.set(encodePageRequest({ ...request, group }));
    const { ring } = this;
    const tail = ring.tail;
    ring.locate(tail);
    if (this.#memory.write(ring.pfn, ring.offset, this.#entry, 0, PAGE_REQUEST_BYTES) !== ACCESS_OK) {
      this.#fail(CSR_MEMORY_FAULT);
      if (answerable) request.respond(PRGR_RESPONSE_FAILURE);
      return;
    }
    ring.tail = (tail + 1) & ring.mask;
    if (answerable) {
      this.#unanswered.push({
        device: request.device,
        deviceId: request.deviceId,
        processId: request.processId,
        group,
        respond: request.respond,
      });
    }
    if ((this.#registers.words[WORD.PQCSR]! & CSR_INTERRUPT_ENABLE) !== 0) this.#interrupts.raise(PIP);
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

  #fail(bit: number): void {
    const words = this.#registers.words;
    words[WORD.PQCSR] = words[WORD.PQCSR]! | bit;
    this.evaluate();
  }
}
