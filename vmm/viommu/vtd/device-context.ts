// What a guest's structures come to for a device (VT-d §3.4): root entry, context entry, the PASID entry of its RID_PASID, read from guest memory when the
// guest has told of a change.
//
//     TE off                     addresses pass: bypass
//     scalable mode, PGTT 4      bypass
//     scalable mode, PGTT 1      nested: the entry's first stage
//     anything else              blocked, with the fault reason that hardware would give: absent, reserved bits, PGTT 2 and 3 (5Bh)
//     legacy or another mode     blocked (30h): its second stage is none that the host can nest

import { FAULT_RTA_MODE, faultReasonName } from "../../../host/arch/vtd/fault-reasons.ts";
import type { VtdState } from "../../../host/arch/vtd/parts/vtd-state.ts";
import { PGTT_FIRST } from "../../../host/arch/vtd/pasid-entries.ts";
import { TTM_SCALABLE } from "../../../host/arch/vtd/registers.ts";
import { frameIn, StructureWalker } from "../../../host/arch/vtd/structure-walk.ts";
import type { WalkObserver } from "../../../host/arch/vtd/walk-observer.ts";
import type { GpaPfn } from "../../../host/base/address.ts";
import { bytesOf, type StateReader, type StateValue } from "../../../host/base/state.ts";
import type { ContextRules } from "../dispositions.ts";
import type { DeviceHandle, ViommuHost } from "../host-port.ts";
import type { PluggedDevice } from "../kind.ts";
import { stage1Data } from "./nested-codec.ts";

export interface DeviceContext {
  readonly disposition: "bypass" | "nested";
  /** HWPT_ALLOC data of a first stage; empty for bypass. */
  readonly stage1: Uint8Array;
  /** The guest's domain id and PASID: by these its invalidations name the entry. -1: no entry says so (TE off). */
  readonly domain: number;
  readonly pasid: number;
  /** FPD somewhere on the way. */
  readonly silent: boolean;
}

/** TE off. */
const UNTRANSLATED: DeviceContext = {
  disposition: "bypass",
  stage1: new Uint8Array(0),
  domain: -1,
  pasid: -1,
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
    const state = this.#state;
    const structures = this.#structures;
    this.silent = false;
    this.cause = 0;
    if (!state.translating) return UNTRANSLATED;
    if (state.tableMode !== TTM_SCALABLE) return this.#refuse(FAULT_RTA_MODE);
    const located = structures.locateScalableContext(device.guestId, state.rootPfn);
    this.silent = structures.fpd;
    if (located !== 0) return this.#refuse(located);
    const { context, pasid: entry } = structures;
    const ridPasid = context[2]! & 0xfffff;
    const found = structures.locatePasid(ridPasid, frameIn(context[0]!, context[1]!), structures.fpd);
    this.silent = structures.fpd;
    if (found !== 0) return this.#refuse(found);
    const first = ((entry[0]! >>> 6) & 7) === PGTT_FIRST;
    return {
      disposition: first ? "nested" : "bypass",
      stage1: first ? stage1Data(entry) : UNTRANSLATED.stage1,
      domain: entry[2]! & 0xffff,
      pasid: ridPasid,
      silent: this.silent,
    };
  }

  #refuse(cause: number): null {
    this.cause = cause;
    return null;
  }

  describe(cause: number): string {
    return `fault ${faultReasonName(cause)}`;
  }

  disposition(context: DeviceContext): "bypass" | "nested" {
    return context.disposition;
  }

  same(a: DeviceContext, b: DeviceContext): boolean {
    return a.disposition === b.disposition && a.stage1.every((byte, i) => byte === b.stage1[i]);
  }

  install(host: ViommuHost, device: DeviceHandle, context: DeviceContext): number {
    return context.disposition === "bypass" ? host.setBypass(device) : host.setNested(device, context.stage1);
  }

  save({ disposition, stage1, domain, pasid, silent }: DeviceContext): StateValue {
    return { disposition, stage1: bytesOf(stage1), domain, pasid, silent };
  }

  restore(state: StateReader, field: string): DeviceContext {
    const saved = state.record(field);
    const disposition = saved.text("disposition");
    if (disposition !== "bypass" && disposition !== "nested") return saved.fail("disposition", "is none");
    const stage1 = new Uint8Array(disposition === "nested" ? 24 : 0);
    saved.memory("stage1", stage1);
    return {
      ...{ disposition, stage1 },
      ...{ domain: saved.number("domain"), pasid: saved.number("pasid"), silent: saved.boolean("silent") },
    };
  }
}
