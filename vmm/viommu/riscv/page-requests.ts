// The guest's page-request queue (§3.7, 6.12–6.14, 6.17), and the page requests the guest has not answered yet.
//
//   host event (cookie) → 16-byte record in guest memory → guest maps the page → ATS.PRGR → respond(cookie, code)
//
// Which groups wait for an answer is ../unanswered-requests.ts's. What cannot be queued is answered at once as §3.7 says, as
// far as iommufd's two codes go: Success where the device shall retry (queue full), Invalid Request otherwise.

import { PRGR_INVALID_REQUEST, PRGR_RESPONSE_FAILURE, PRGR_SUCCESS } from "../../../host/arch/riscv/commands.ts";
import { encodePageRequest, type PageRequestRecord } from "../../../host/arch/riscv/page-requests.ts";
import { CSR_MEMORY_FAULT, CSR_ON, CSR_OVERFLOW } from "../../../host/arch/riscv/registers.ts";
import type { GpaPfn } from "../../../host/base/address.ts";
import type { MemoryPort } from "../../../host/base/memory.ts";
import type { Stateful } from "../../../host/base/state.ts";
import type { DeviceHandle } from "../host-port.ts";
import { UnansweredRequests } from "../unanswered-requests.ts";
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

/** The last request of a group is answered; a Stop Marker (last, neither read nor write) and the ones before it are not (§3.7). */
export function wantsAnswer(request: PageRequestRecord): boolean {
  return request.last && (request.read || request.write);
}

export class PageRequestQueue extends WrittenQueue {
  readonly waiting = new UnansweredRequests();

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
    return this.waiting.size;
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
    if (answerable && this.waiting.full) {
      request.respond(PRGR_INVALID_REQUEST);
      return;
    }
    const group = request.group & 0x1ff;
    if (!this.append(encodePageRequest({ ...request, group }))) {
      this.fail(CSR_MEMORY_FAULT);
      if (answerable) request.respond(PRGR_RESPONSE_FAILURE);
      return;
    }
    if (answerable) this.waiting.add({ ...request, asked: request.group }, group, request.respond);
    this.announce();
  }

  override *stateParts(): Generator<readonly [string, Stateful]> {
    yield* super.stateParts();
    yield ["unanswered", this.waiting];
  }
}
