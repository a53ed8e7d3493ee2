// A fault record of the host's unit, where the host relays them (host/kernel/README.md, vtd-relay-faults), as the guest's unit would have recorded it: one
// with a first stage alone, over memory that ends where the guest's ends.
//
//     the guest's own structures block the device    their reason: absent, reserved bits, …, as a model's transaction would have it
//     the guest's first stage refuses                its reason, as it is
//     the host's second stage refuses                of a table of the guest's: what its own walk says, which cannot read it (70h, 73h, …);
//                                                    of the address itself: memory aborts, which is nobody's fault record

import { AT_UNTRANSLATED, decodeFaultRecord, REQUEST_WRITE } from "../../../host/arch/vtd/fault-records.ts";
import {
  type FaultRecording,
  RECORD_EXECUTE,
  RECORD_PRIVILEGED,
  RECORD_T1,
  RECORD_T2,
} from "../../../host/arch/vtd/parts/fault-recording.ts";
import type { Translator } from "../../../host/arch/vtd/parts/translation.ts";
import { KIND_READ, KIND_WRITE } from "../../../host/arch/vtd/two-stage-walk.ts";
import type { GpaPfn } from "../../../host/base/address.ts";
import { iommuVeventVtd } from "../../../host/uapi/vtd-nesting.ts";
import type { DeviceState, Dispositions } from "../dispositions.ts";
import type { DeviceContext, DeviceContexts } from "./device-context.ts";
import type { PasidStages } from "./pasid-stages.ts";

/** Reasons of the first stage (§7.1.3): words about the guest's tables. */
const OF_FIRST_STAGE: ReadonlySet<number> = new Set([0x70, 0x71, 0x72, 0x73, 0x80, 0x81, 0x85, 0x87, 0x90, 0x91]);

export interface FaultRelayParts {
  readonly faults: FaultRecording;
  readonly translator: Translator<GpaPfn>;
  readonly contexts: DeviceContexts;
  readonly dispositions: Dispositions<DeviceContext>;
  readonly pasids: PasidStages | null;
}

// Not state: wiring
export class FaultRelay {
  readonly #parts: FaultRelayParts;

  constructor(parts: FaultRelayParts) {
    this.#parts = parts;
  }

  /** True if the guest was told. */
  relay(record: Uint8Array): boolean {
    if (record.length < iommuVeventVtd.bytes) return false;
    const { frcd0, frcd1 } = iommuVeventVtd.decode(record);
    const { reason, sourceId, pasid, address, type, privileged, execute } = decodeFaultRecord([frcd0, frcd1]);
    const { dispositions, faults, contexts } = this.#parts;
    const state = dispositions.find(sourceId);
    if (state === undefined || state.device.held === true || state.device.emulated) return false;
    const pfn = Number(address >> 12n);
    const write = type === REQUEST_WRITE;
    const blocked = this.#ownCause(state, pasid);
    const silent = blocked === 0 ? (state.context?.silent ?? false) : contexts.silent;
    let mine = blocked;
    if (mine === 0) mine = OF_FIRST_STAGE.has(reason) ? reason : this.#walk(sourceId, pasid, privileged, write, pfn);
    if (mine === 0) return false;
    const third =
      ((type & 1) !== 0 ? RECORD_T2 : 0) | (privileged ? RECORD_PRIVILEGED : 0) | (execute ? RECORD_EXECUTE : 0);
    faults.report(mine, silent, sourceId, pasid, pfn, third, (type & 2) !== 0 ? RECORD_T1 : 0);
    return true;
  }

  /** What a blocked device's request is refused with, or a PASID's that has no entry installed. */
  #ownCause(state: DeviceState<DeviceContext>, pasid: number): number {
    const { contexts, pasids } = this.#parts;
    if (pasid <= 0) return state.disposition === "blocked" ? state.cause : 0;
    return pasids?.of(state.device.handle).has(pasid) === true ? 0 : contexts.pasidCause(state.device, pasid);
  }

  /** What the guest's tables say of the request, without a record; 0: they let it through. */
  #walk(sourceId: number, pasid: number, privileged: boolean, write: boolean, pfn: number): number {
    const { translator } = this.#parts;
    translator.begin(sourceId, pasid, privileged, write ? 2 : 1, pfn, AT_UNTRANSLATED);
    const context = translator.contextFor();
    const space = context === null ? null : translator.spaceFor(context);
    if (space === null) return translator.reason;
    if (space.identity) return translator.identityFault(space, pfn);
    const high = (pfn * 2 ** -32) | 0;
    const kind = write ? KIND_WRITE : KIND_READ;
    return translator.walker.walkCarefully(space, pfn | 0, high, kind, translator.privileged);
  }
}
