// PCIe ATS translation requests (§3.9.1, §13.6): the same process as for a transaction, but what is missing becomes rights not granted, nothing
// stalls, and only errors of configuration are errors to the device.

import {
  ATS_COMPLETER_ABORT,
  ATS_SUCCESS,
  ATS_UNSUPPORTED_REQUEST,
  type AtsStatus,
  noTranslation,
} from "../../../base/ats.ts";
import { F_ADDR_SIZE, F_BAD_ATS_TREQ, F_PERMISSION, F_TRANSLATION } from "../event-records.ts";
import { CLEAN, EXECUTE, READ } from "../leaf-rights.ts";
import { CR0_ATSCHK, CR2_REC_CFG_ATS, REG } from "../registers.ts";
import { CONFIG_BYPASS } from "../stream-table-entry.ts";
import { KIND_ATS, KIND_ATS_WRITE, KIND_READ } from "../two-stage-walk.ts";
import type { SmmuState } from "./smmu-state.ts";
import { type Translator, withoutTop } from "./translation.ts";

export class AtsTranslator<P extends number> {
  readonly translation = noTranslation(); // not state: the last answer
  readonly #state: SmmuState<P>;
  readonly #translator: Translator<P>;

  constructor(state: SmmuState<P>, translator: Translator<P>) {
    this.#state = state;
    this.#translator = translator;
  }

  translate(
    sid: number,
    ssid: number,
    pfn: number,
    noWrite: boolean,
    privileged: boolean,
    execute: boolean,
  ): AtsStatus {
    const state = this.#state;
    const translator = this.#translator;
    const translation = this.translation;
    translation.pfn = 0;
    translation.sizeLog2 = 12;
    translation.read = translation.write = translation.execute = false;
    translation.privileged = ssid >= 0 && privileged;
    translation.global = translation.untranslatedOnly = false;
    if (!state.features.ATS) return ATS_UNSUPPORTED_REQUEST;
    translator.begin(sid, ssid, ssid >= 0 && privileged, KIND_READ, pfn, 0);
    if (!state.enabled) return this.#bad();
    const stream = translator.streamFor(sid);
    if (stream === null) return this.#abort();
    if ((stream.config & CONFIG_BYPASS) === 0) return ATS_UNSUPPORTED_REQUEST;
    const split = stream.eats === 2 && (state.reg(REG.CR0) & CR0_ATSCHK) !== 0;
    if (stream.config === CONFIG_BYPASS || !(split || stream.eats === 1)) return this.#bad();
    const space = translator.spaceFor(stream, ssid);
    if (space === null) return this.#failed();
    if (!space.first && pfn >= translator.guestLimit) {
      translator.event = F_ADDR_SIZE;
      return this.#failed();
    }
    translation.pfn = pfn;
    if (space.transparent) {
      translation.read = translation.write = true;
      return ATS_SUCCESS;
    }
    const { walker } = translator;
    const own = translator.privileged;
    const kind = noWrite ? KIND_ATS : KIND_ATS_WRITE;
    const at = withoutTop(space, pfn);
    walker.wanted = stream.instruction === 3 ? EXECUTE : READ;
    if (!translator.walkTables(space, at | 0, (at * 2 ** -32) | 0, kind, own)) {
      translation.pfn = 0;
      return this.#failed();
    }
    const rights = own ? walker.rights >>> 3 : walker.rights;
    // INSTCFG: reads that count as fetches need the right to execute, fetches that count as reads the right to read (§5.2).
    translation.read = (rights & (stream.instruction === 3 ? 4 : 1)) !== 0;
    translation.write = (rights & 2) !== 0 && (walker.rights & CLEAN) === 0;
    // Asked for, and never without read.
    translation.execute =
      ssid >= 0 && execute && translation.read && (rights & (stream.instruction === 2 ? 1 : 4)) !== 0;
    if (!translation.read && !translation.write) {
      translation.pfn = 0;
      return ATS_SUCCESS;
    }
    const shift = Math.min(walker.firstShift, walker.secondShift);
    const target = split ? walker.guestPfn : walker.hostPfn;
    translation.pfn = target - (target % 2 ** shift);
    translation.sizeLog2 = 12 + shift;
    return ATS_SUCCESS;
  }

  /** Requests where there is no ATS (§7.3.6). */
  #bad(): AtsStatus {
    this.#translator.event = F_BAD_ATS_TREQ;
    this.#translator.report();
    return ATS_UNSUPPORTED_REQUEST;
  }

  /** Translation faults are answers without rights; everything else is the device's error. */
  #failed(): AtsStatus {
    const { event } = this.#translator;
    return event >= F_TRANSLATION && event <= F_PERMISSION ? ATS_SUCCESS : this.#abort();
  }

  #abort(): AtsStatus {
    if ((this.#state.reg(REG.CR2) & CR2_REC_CFG_ATS) !== 0) this.#translator.report();
    return ATS_COMPLETER_ABORT;
  }
}
