// Page requests (IHI 0070 §8), for machines that offer PRI: of emulated devices, and of assigned ones where the host relays them (Linux does not).
//
//   request ─▶ 16-byte record in guest memory ─▶ guest maps the page ─▶ CMD_PRI_RESP ─▶ the device, or respond(cookie, code)
//
// What cannot be queued is answered at once as §8.1 says. Without PRI every request is refused.

import type { Interrupts } from "../../../host/arch/smmuv3/parts/interrupts.ts";
import { PageRequestQueue } from "../../../host/arch/smmuv3/parts/page-request-queue.ts";
import type { SmmuState } from "../../../host/arch/smmuv3/parts/smmu-state.ts";
import type { GpaPfn } from "../../../host/base/address.ts";
import type { Stateful, StateReader, StateRecord } from "../../../host/base/state.ts";
import {
  type AskedGroup,
  PRG_INVALID_REQUEST,
  PRG_RESPONSE_FAILURE,
  UnansweredRequests,
} from "../unanswered-requests.ts";

/** Flags of a request, as AtsPort.pageRequest. */
const READ_OR_WRITE = 3;
const LAST = 4;
const GROUP = 0x1ff;

export class PageRequests implements Stateful {
  readonly waiting = new UnansweredRequests();
  readonly #offered: boolean;
  readonly #queue: PageRequestQueue;

  constructor(state: SmmuState<GpaPfn>, interrupts: Interrupts) {
    this.#offered = state.features.PRI;
    this.#queue = new PageRequestQueue(
      state,
      interrupts,
      (sid, ssid, group, code) => void this.waiting.answer(sid, ssid, group, code),
      () => 1,
    );
  }

  /** `respond` takes the answer to the group: a PRG Response code. */
  arrived(asked: AskedGroup, pfn: number, flags: number, respond: (code: number) => void): void {
    // The last request of a group is answered; a Stop Marker and the ones before it are not (§8.1).
    const answerable = (flags & LAST) !== 0 && (flags & READ_OR_WRITE) !== 0;
    if (!this.#offered) {
      if (answerable) respond(PRG_RESPONSE_FAILURE);
      return;
    }
    const group = asked.asked & GROUP;
    if (answerable) {
      if (this.waiting.full) {
        respond(PRG_INVALID_REQUEST);
        return;
      }
      this.waiting.add(asked, group, respond);
    }
    this.#queue.receive(asked.deviceId, asked.processId, pfn, group, flags);
  }

  saveState(): StateRecord {
    return {};
  }

  restoreState(_state: StateReader): void {}

  *stateParts(): Generator<readonly [string, Stateful]> {
    yield ["unanswered", this.waiting];
  }
}
