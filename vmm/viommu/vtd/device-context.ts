// What a guest's structures come to for a device (VT-d §3.4): root entry, context entry, the PASID entry of its RID_PASID, read from guest memory when the
// guest has told of a change.
//
//     TE off                     addresses pass: bypass
//     scalable mode, PGTT 4      bypass
//     scalable mode, PGTT 1      nested: the entry's first stage
//     anything else              blocked, with the fault reason that hardware would give: absent, reserved bits, PGTT 2 and 3 (5Bh)
//     legacy or another mode     blocked (30h): its second stage is none that the host can nest

import {
  FAULT_PASID_NOT_PRESENT,
  FAULT_RTA_MODE,
  FAULT_SM_NO_PASID,
  FAULT_SM_PASID_TOO_LARGE,
  faultReasonName,
} from "../../../host/arch/vtd/fault-reasons.ts";
import type { VtdState } from "../../../host/arch/vtd/parts/vtd-state.ts";
import { PGTT_FIRST } from "../../../host/arch/vtd/pasid-entries.ts";
import { TTM_SCALABLE } from "../../../host/arch/vtd/registers.ts";
import { pasidLimit } from "../../../host/arch/vtd/root-and-context.ts";
import { frameIn, StructureWalker } from "../../../host/arch/vtd/structure-walk.ts";
import type { WalkObserver } from "../../../host/arch/vtd/walk-observer.ts";
import type { GpaPfn } from "../../../host/base/address.ts";
import { bytesOf, type StateReader, type StateValue } from "../../../host/base/state.ts";
import type { ContextRules } from "../dispositions.ts";
import type { DeviceHandle, ViommuHost } from "../host-port.ts";
import type { PluggedDevice } from "../kind.ts";
import { stage1Data } from "./nested-codec.ts";
import { type PasidStage, sameStage } from "./pasid-stages.ts";

/** The entry of RID_PASID, which is PASID 0; `domain` -1: no entry says so (TE off). */
export interface DeviceContext extends PasidStage {
  readonly disposition: "bypass" | "nested";
  /** FPD somewhere on the way. */
  readonly silent: boolean;
}

/** Of a context entry. */
const PASIDE = 1 << 3;
const PRE = 1 << 4;

/** TE off. */
const UNTRANSLATED: DeviceContext = {
  disposition: "bypass",
  stage1: new Uint8Array(0),
  domain: -1,
  pageRequests: false,
  silent: false,
};

// Not state: the last answer.
export class DeviceContexts implements ContextRules<DeviceContext> {
  cause = 0;
  /** Before the guest has said anything nothing passes; then TE decides. */
  readonly unread = FAULT_RTA_MODE;
  readonly held = FAULT_RTA_MODE;
  /** What the host refuses is to the guest a mode that there is not. */
  readonly unfit = FAULT_RTA_MODE;
  /** FPD of what was read last. */
  silent = false;
  /** Of the last `pasidDirectory`: PASIDs below this have places in it. */
  pasidLimit = 0;
  // not state, to the blank line: as `silent`
  #directoryFpd = false;
  #pageRequests = false;

  readonly #state: VtdState<GpaPfn>;
  readonly #structures: StructureWalker<GpaPfn>;

  constructor(state: VtdState<GpaPfn>) {
    this.#state = state;
    this.#structures = new StructureWalker(state.memory, state.rules);
  }

  observe(observer: WalkObserver | null): void {
    this.#structures.observer = observer;
  }

  read(device: PluggedDevice): DeviceContext | null {
    if (!this.#state.translating) {
      this.silent = false;
      this.cause = 0;
      return UNTRANSLATED;
    }
    if (!this.#locate(device)) return null;
    const structures = this.#structures;
    const { context } = structures;
    // RPS is 0, and so is RID_PASID.
    const stage = this.#stage(0, frameIn(context[0]!, context[1]!), structures.fpd);
    if (stage === null) return null;
    return { disposition: stage.stage1.length > 0 ? "nested" : "bypass", ...stage, silent: this.silent };
  }

  /** The frame of a device's PASID directory; -1: its context is not sound, or lets no PASID through. What is wrong with it `read` has said. */
  pasidDirectory(device: PluggedDevice): number {
    if (!this.#state.translating || !this.#locate(device)) return -1;
    const { context, fpd } = this.#structures;
    if ((context[0]! & PASIDE) === 0) return -1;
    this.#directoryFpd = fpd;
    this.pasidLimit = pasidLimit((context[0]! >>> 9) & 7);
    return frameIn(context[0]!, context[1]!);
  }

  /** What an entry of that directory comes to; null: nothing, and `cause` says why. */
  readPasid(pasid: number, directory: number): PasidStage | null {
    return this.#stage(pasid, directory, this.#directoryFpd);
  }

  /** What a request with a PASID that is not installed is refused with: as the tables have it now. */
  pasidCause(device: PluggedDevice, pasid: number): number {
    if (!this.#state.translating || !this.#locate(device)) return this.cause;
    const { context, fpd } = this.#structures;
    if ((context[0]! & PASIDE) === 0) return FAULT_SM_NO_PASID;
    if (pasid >= pasidLimit((context[0]! >>> 9) & 7)) return FAULT_SM_PASID_TOO_LARGE;
    return this.#stage(pasid, frameIn(context[0]!, context[1]!), fpd) === null ? this.cause : FAULT_PASID_NOT_PRESENT;
  }

  /** A device's context entry, into the walker. */
  #locate(device: PluggedDevice): boolean {
    const state = this.#state;
    this.silent = false;
    this.cause = FAULT_RTA_MODE;
    if (state.tableMode !== TTM_SCALABLE) return false;
    this.cause = this.#structures.locateScalableContext(device.guestId, state.rootPfn);
    this.silent = this.#structures.fpd;
    this.#pageRequests = (this.#structures.context[0]! & PRE) !== 0;
    return this.cause === 0;
  }

  #stage(pasid: number, directory: number, fpd: boolean): PasidStage | null {
    const structures = this.#structures;
    this.cause = structures.locatePasid(pasid, directory, fpd);
    this.silent = structures.fpd;
    if (this.cause !== 0) return null;
    const { pasid: entry } = structures;
    const first = ((entry[0]! >>> 6) & 7) === PGTT_FIRST;
    return {
      stage1: first ? stage1Data(entry) : UNTRANSLATED.stage1,
      domain: entry[2]! & 0xffff,
      pageRequests: this.#pageRequests,
    };
  }

  describe(cause: number): string {
    return `fault ${faultReasonName(cause)}`;
  }

  disposition(context: DeviceContext): "bypass" | "nested" {
    return context.disposition;
  }

  same(a: DeviceContext, b: DeviceContext): boolean {
    return a.disposition === b.disposition && sameStage(a, b);
  }

  install(host: ViommuHost, device: DeviceHandle, context: DeviceContext): number {
    return context.disposition === "bypass"
      ? host.setBypass(device)
      : host.setNested(device, context.stage1, undefined, context.pageRequests);
  }

  save({ disposition, stage1, domain, pageRequests, silent }: DeviceContext): StateValue {
    return { disposition, stage1: bytesOf(stage1), domain, pageRequests, silent };
  }

  restore(state: StateReader, field: string): DeviceContext {
    const saved = state.record(field);
    const disposition = saved.text("disposition");
    if (disposition !== "bypass" && disposition !== "nested") return saved.fail("disposition", "is none");
    const stage1 = new Uint8Array(disposition === "nested" ? 24 : 0);
    saved.memory("stage1", stage1);
    return {
      ...{ disposition, stage1 },
      ...{ domain: saved.number("domain"), pageRequests: saved.boolean("pageRequests") },
      silent: saved.boolean("silent"),
    };
  }
}
