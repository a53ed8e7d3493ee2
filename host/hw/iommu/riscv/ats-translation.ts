// PCIe ATS translation requests (§3.6): the same process as for a transaction, but what is missing becomes rights not granted, and
// only errors of configuration or disabled ATS are errors to the device.

import { CAUSE_TRANSACTION_TYPE_DISALLOWED, TTYP_ATS_REQUEST } from "../../../arch/riscv/fault-records.ts";
import { PTE_D, PTE_R, PTE_U, PTE_W, PTE_X } from "../../../arch/riscv/page-table-entry.ts";
import { atsKind } from "../../../arch/riscv/two-stage-walk.ts";
import { CLASS_SHIFTS } from "../../../base/caches/translation-cache.ts";
import {
  ATS_COMPLETER_ABORT,
  ATS_SUCCESS,
  ATS_UNSUPPORTED_REQUEST,
  type AtsStatus,
  noTranslation,
} from "../../../devices/ports.ts";
import type { HardwareState } from "./hardware-state.ts";
import { IN_MEMORY_FILE, type Translator, withoutMessages } from "./translation.ts";

export class AtsTranslator {
  readonly translation = noTranslation();
  readonly #state: HardwareState;
  readonly #translator: Translator;

  constructor(state: HardwareState, translator: Translator) {
    this.#state = state;
    this.#translator = translator;
  }

  translate(
    deviceId: number,
    pasid: number,
    pfn: number,
    noWrite: boolean,
    privileged: boolean,
    execute: boolean,
  ): AtsStatus {
    const translator = this.#translator;
    const kind = atsKind(noWrite, execute);
    this.#clear(pasid >= 0 && privileged);
    translator.begin(deviceId, pasid, privileged, TTYP_ATS_REQUEST, pfn, 0);
    const device = translator.deviceFor(deviceId);
    if (device === null) return this.#fail(translator.deviceCause, false);
    if (!device.enAts) return this.#fail(CAUSE_TRANSACTION_TYPE_DISALLOWED, device.dtf);
    const space = translator.spaceFor(device, pasid, privileged, kind);
    if (space === null) return this.#fail(translator.cause, device.dtf);
    translator.space = space;
    const supervisor = privileged && pasid >= 0;
    const cause = translator.walkTables(device, space, pfn, kind, supervisor);
    const translation = this.translation;
    const walker = translator.walker;
    if (cause === IN_MEMORY_FILE) {
      // §3.6: no translated address exists; the device must use untranslated requests. The MSI entry stands for a leaf with R, W, A and D
      // (§3.3.3), so the rights are the first stage's.
      translation.pfn = pfn;
      translation.read = (walker.firstLo & PTE_R) !== 0;
      translation.write = translation.read && (walker.firstLo & PTE_W) !== 0 && (walker.firstLo & PTE_D) !== 0;
      translation.untranslatedOnly = true;
      return ATS_SUCCESS;
    }
    if (cause !== 0) return this.#fail(cause, device.dtf);
    const both = walker.firstLo & walker.secondLo;
    translation.read = (both & PTE_R) !== 0;
    translation.write = translation.read && (both & PTE_W) !== 0 && (both & PTE_D) !== 0;
    const userPage = space.firstLevels !== 0 && (walker.firstLo & PTE_U) !== 0;
    translation.execute = execute && translation.read && (both & PTE_X) !== 0 && !(supervisor && userPage);
    translation.global = pasid >= 0 && !translator.isMessage && space.firstLevels !== 0 && walker.firstGlobal;
    // Pages of the range: the smaller of the two stages' leaves, not across interrupt files.
    const bare = this.#state.configuration.bareRangeLog2 - 12;
    let shift = Math.min(walker.firstShift, walker.secondShift);
    if (space.firstLevels === 0 && space.secondLevels === 0 && !translator.isMessage) shift = bare;
    if (space.recognizesMessages && !translator.isMessage) {
      const classes = CLASS_SHIFTS;
      let size = classes.length - 1;
      while (classes[size]! > shift) size--;
      const fitting = withoutMessages(space, walker.gpaLow, walker.gpaHigh, size);
      if (fitting !== size || space.overlapsMessagePages(walker.gpaLow, walker.gpaHigh, shift))
        shift = classes[fitting]!;
    }
    const pages = 2 ** shift;
    const target = device.t2gpa ? walker.gpaPfn : walker.spaPfn;
    translation.pfn = target - (target % pages);
    translation.sizeLog2 = 12 + shift;
    return ATS_SUCCESS;
  }

  #clear(privileged: boolean): void {
    const translation = this.translation;
    translation.pfn = 0;
    translation.sizeLog2 = 12;
    translation.read = translation.write = translation.execute = false;
    translation.privileged = privileged;
    translation.global = false;
    translation.untranslatedOnly = false;
  }

  /** The response for a cause; Unsupported Request and Completer Abort are reported as faults too. */
  #fail(cause: number, dtf: boolean): AtsStatus {
    const status = responseTo(cause);
    if (status !== ATS_SUCCESS) {
      this.#translator.cause = cause;
      this.#translator.report(dtf);
    }
    return status;
  }
}

/** §3.6. Corruption (268 to 271, 274) is answered as the other errors of memory are: Completer Abort. */
export function responseTo(cause: number): AtsStatus {
  switch (cause) {
    case 12:
    case 13:
    case 15:
    case 20:
    case 21:
    case 23:
    case 262:
    case 266:
      return ATS_SUCCESS;
    case 256:
    case 257:
    case 258:
    case 259:
    case 260:
      return ATS_UNSUPPORTED_REQUEST;
    default:
      return ATS_COMPLETER_ABORT;
  }
}
