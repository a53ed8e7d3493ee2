// Interrupt requests of devices (VT-d §3.14, §5.1): dword writes without PASID to 0xFEEx_xxxx, which are translated by nobody.
//
//     assigned   eventfd of the host ─▶ the guest's MSI address and data ─┐
//     emulated   a write of the model's                                  ─┴▶ remapper ─▶ destination and vector ─▶ the machine's receiver
//                                                                               └─ blocked: fault record 20h–26h
//
// Without remapping, and where the compatibility format is let by, the request says destination and vector itself.

import { FAULT_IR_REQUEST_INVALID } from "../../../host/arch/vtd/fault-reasons.ts";
import { AT_UNTRANSLATED } from "../../../host/arch/vtd/fault-records.ts";
import type { FaultRecording } from "../../../host/arch/vtd/parts/fault-recording.ts";
import {
  INTERRUPT_BLOCKED,
  INTERRUPT_UNCHANGED,
  InterruptRemapper,
} from "../../../host/arch/vtd/parts/interrupt-remapper.ts";
import type { Translator } from "../../../host/arch/vtd/parts/translation.ts";
import type { VtdState } from "../../../host/arch/vtd/parts/vtd-state.ts";
import type { GpaPfn } from "../../../host/base/address.ts";
import { ACCESS_OK } from "../../../host/base/memory.ts";
import type { ViommuInterruptPort } from "../kind.ts";

/** Entries of the interrupt entry cache. */
const CACHED_ENTRIES = 64;

/** How a request ended. */
export type RequestOutcome = "delivered" | "refused" | "no request";

// Not state: the remapper's is its own
export class InterruptRequests {
  readonly remapper: InterruptRemapper;
  /** Requests that were refused with a record. */
  refused = 0;
  readonly #state: VtdState<GpaPfn>;
  readonly #translator: Translator<GpaPfn>;
  readonly #port: ViommuInterruptPort;

  constructor(
    state: VtdState<GpaPfn>,
    faults: FaultRecording,
    translator: Translator<GpaPfn>,
    port: ViommuInterruptPort,
  ) {
    this.#state = state;
    this.#translator = translator;
    this.#port = port;
    this.remapper = new InterruptRemapper(state, faults, CACHED_ENTRIES);
  }

  /** A request without PASID to a page of the interrupt address range; `data` -1: it is no dword, or no write (`access` READ 1, WRITE 2). */
  request(sourceId: number, access: number, pfn: number, offset: number, data: number): RequestOutcome {
    const state = this.#state;
    if (access !== 2 || data < 0 || (offset & 3) !== 0) {
      if (!state.translating && !state.remapsInterrupts) return "no request";
      this.#translator.begin(sourceId, -1, false, access, pfn, AT_UNTRANSLATED);
      this.#translator.report(FAULT_IR_REQUEST_INVALID);
      this.refused++;
      return "refused";
    }
    const { remapper } = this;
    const outcome = remapper.request(sourceId, ((pfn << 12) | offset) >>> 0, data);
    if (outcome === INTERRUPT_BLOCKED) {
      this.refused++;
      return "refused";
    }
    const unchanged = outcome === INTERRUPT_UNCHANGED;
    const destination = unchanged ? pfn & 0xff : remapper.destination;
    const vector = unchanged ? data & 0xff : remapper.vector;
    if (state.trace.on && !unchanged)
      state.trace.emit({ type: "irq", where: "guest", source: `${state.name} remapped interrupt`, vector });
    return this.deliver(destination, vector);
  }

  /** Which of several receivers takes it (RH, DM) is not for here: a destination is a receiver's number. */
  deliver(destination: number, vector: number): RequestOutcome {
    return this.#port.receiver?.(destination, vector) === ACCESS_OK ? "delivered" : "refused";
  }
}
