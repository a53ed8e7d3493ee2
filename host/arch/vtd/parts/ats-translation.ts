// PCIe ATS translation requests (§4.1): the same process as for a transaction, but what is missing becomes rights not granted, without a record, and only
// errors of structures and tables are errors to the device.

import {
  ATS_COMPLETER_ABORT,
  ATS_SUCCESS,
  ATS_UNSUPPORTED_REQUEST,
  type AtsStatus,
  noTranslation,
} from "../../../base/ats.ts";
import {
  FAULT_ADDRESS_BEYOND_WIDTH,
  FAULT_CONTEXT_ACCESS,
  FAULT_CONTEXT_RESERVED,
  FAULT_FS_NO_USER,
  FAULT_FS_NOT_CANONICAL,
  FAULT_FS_NOT_PRESENT,
  FAULT_FS_ROOT_NO_READ,
  FAULT_FS_TABLE_BEYOND_WIDTH,
  FAULT_FS_TABLE_NO_READ,
  FAULT_FS_TABLE_NO_WRITE,
  FAULT_INTERRUPT_RANGE,
  FAULT_NO_READ,
  FAULT_NO_SUPERVISOR,
  FAULT_NO_WRITE,
  FAULT_PASID_ACCESS,
  FAULT_PASID_DIRECTORY_ACCESS,
  FAULT_PASID_DIRECTORY_RESERVED,
  FAULT_PASID_RESERVED,
  FAULT_PASS_THROUGH_BEYOND_WIDTH,
  FAULT_ROOT_ACCESS,
  FAULT_ROOT_RESERVED,
  FAULT_SM_CONTEXT_ACCESS,
  FAULT_SM_CONTEXT_RESERVED,
  FAULT_SM_INTERRUPT_RANGE,
  FAULT_SM_NO_READ,
  FAULT_SM_NO_WRITE,
  FAULT_SM_ROOT_ACCESS,
  FAULT_SM_ROOT_RESERVED,
  FAULT_SS_BEYOND_WIDTH,
  FAULT_SS_NOT_PRESENT,
} from "../fault-reasons.ts";
import { AT_TRANSLATION_REQUEST } from "../fault-records.ts";
import { inInterruptRange } from "../interrupt-remapping.ts";
import { GRANTS_READ, GRANTS_WRITE, KIND_ATS, KIND_ATS_WRITE, SUPERVISOR_GRANTS } from "../two-stage-walk.ts";
import type { Translator } from "./translation.ts";
import type { VtdState } from "./vtd-state.ts";

/** Answered with success and no rights, without a record: a page request may help. */
const RECOVERABLE = new Uint8Array(256);
for (const reason of [
  FAULT_ADDRESS_BEYOND_WIDTH,
  FAULT_NO_READ,
  FAULT_NO_WRITE,
  FAULT_INTERRUPT_RANGE,
  FAULT_FS_NOT_PRESENT,
  FAULT_FS_TABLE_BEYOND_WIDTH,
  FAULT_FS_ROOT_NO_READ,
  FAULT_FS_TABLE_NO_READ,
  FAULT_FS_TABLE_NO_WRITE,
  FAULT_SS_NOT_PRESENT,
  FAULT_FS_NOT_CANONICAL,
  FAULT_FS_NO_USER,
  FAULT_PASS_THROUGH_BEYOND_WIDTH,
  FAULT_SS_BEYOND_WIDTH,
  FAULT_SM_NO_READ,
  FAULT_SM_NO_WRITE,
  FAULT_SM_INTERRUPT_RANGE,
  FAULT_NO_SUPERVISOR,
])
  RECOVERABLE[reason] = 1;

/** Of structures: cannot be read, or reserved bits are set. Completer Abort, as for whatever is wrong with page tables; the others are Unsupported Requests. */
const UNUSABLE = new Uint8Array(256);
for (const reason of [
  FAULT_ROOT_ACCESS,
  FAULT_ROOT_RESERVED,
  FAULT_CONTEXT_ACCESS,
  FAULT_CONTEXT_RESERVED,
  FAULT_SM_ROOT_ACCESS,
  FAULT_SM_ROOT_RESERVED,
  FAULT_SM_CONTEXT_ACCESS,
  FAULT_SM_CONTEXT_RESERVED,
  FAULT_PASID_DIRECTORY_ACCESS,
  FAULT_PASID_DIRECTORY_RESERVED,
  FAULT_PASID_ACCESS,
  FAULT_PASID_RESERVED,
])
  UNUSABLE[reason] = 1;

export class AtsTranslator<P extends number> {
  readonly translation = noTranslation(); // not state: the last answer
  readonly #state: VtdState<P>;
  readonly #translator: Translator<P>;

  constructor(state: VtdState<P>, translator: Translator<P>) {
    this.#state = state;
    this.#translator = translator;
  }

  translate(sourceId: number, pasid: number, pfn: number, noWrite: boolean, privileged: boolean): AtsStatus {
    const translator = this.#translator;
    const translation = this.translation;
    translation.pfn = 0;
    translation.sizeLog2 = 12;
    translation.read = translation.write = translation.execute = false;
    translation.privileged = pasid >= 0 && privileged;
    translation.global = translation.untranslatedOnly = false;
    if (!this.#state.features.DT || translator.off) return ATS_UNSUPPORTED_REQUEST;
    translator.begin(sourceId, pasid, privileged, noWrite ? 1 : 2, pfn, AT_TRANSLATION_REQUEST);
    const context = translator.contextFor();
    if (context === null) return this.#failed(translator.reason, false);
    const space = translator.spaceFor(context);
    if (space === null) return this.#failed(translator.reason, false);
    // Interrupt requests are not translated, and so are nothing to cache.
    if (pasid < 0 && inInterruptRange(pfn)) return ATS_SUCCESS;
    if (space.identity) {
      if (translator.identityFault(space, pfn) !== 0) return ATS_SUCCESS;
      translation.pfn = pfn;
      translation.read = translation.write = true;
      return ATS_SUCCESS;
    }
    const { walker } = translator;
    const supervisor = translator.privileged;
    const high = (pfn * 2 ** -32) | 0;
    const reason = walker.walkCarefully(space, pfn | 0, high, noWrite ? KIND_ATS : KIND_ATS_WRITE, supervisor);
    if (reason !== 0) return this.#failed(reason, true);
    const all = walker.grants(space);
    const grants = supervisor ? all >>> SUPERVISOR_GRANTS : all;
    translation.read = (grants & GRANTS_READ) !== 0;
    translation.write = (grants & GRANTS_WRITE) !== 0;
    if (!translation.read && !translation.write) return ATS_SUCCESS;
    let shift = Math.min(walker.firstShift, walker.secondShift);
    const target = walker.hostPfn;
    // No large page stands for the interrupt address range.
    if (shift > 0 && Math.floor(target / 2 ** shift) === Math.floor(0xfee00 / 2 ** shift)) shift = 0;
    translation.pfn = target - (target % 2 ** shift);
    translation.sizeLog2 = 12 + shift;
    return ATS_SUCCESS;
  }

  /** `walked`: the reason is of page tables. */
  #failed(reason: number, walked: boolean): AtsStatus {
    if (RECOVERABLE[reason] === 1) return ATS_SUCCESS;
    this.#translator.report(reason);
    return walked || UNUSABLE[reason] === 1 ? ATS_COMPLETER_ABORT : ATS_UNSUPPORTED_REQUEST;
  }
}
