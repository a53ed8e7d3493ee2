// The debug translation interface (§5, §6.24–6.26): software asks for a translation as an untranslated request and reads the answer.
// Latched by writing tr_req_ctl with Go; done by step(); Go/Busy falls when tr_response is valid.

import {
  CAUSE_TRANSACTION_TYPE_DISALLOWED,
  TTYP_UNTRANSLATED_EXECUTE,
  TTYP_UNTRANSLATED_READ,
  TTYP_UNTRANSLATED_WRITE,
} from "../../../arch/riscv/fault-records.ts";
import { REG } from "../../../arch/riscv/registers.ts";
import { KIND_EXECUTE, KIND_READ, KIND_WRITE } from "../../../arch/riscv/two-stage-walk.ts";
import { pfnOfHalves } from "../../../base/address.ts";
import { CLASS_SHIFTS, classOf } from "../../../base/caches/translation-cache.ts";
import type { HardwareState } from "./hardware-state.ts";
import { IN_MEMORY_FILE, type Translator, withoutMessages } from "./translation.ts";

export class DebugTranslation {
  readonly #state: HardwareState;
  readonly #translator: Translator;

  constructor(state: HardwareState, translator: Translator) {
    this.#state = state;
    this.#translator = translator;
  }

  /** True while a request is latched. */
  get pending(): boolean {
    return (this.#state.reg(REG.tr_req_ctl) & 1) !== 0;
  }

  deviceId(): number {
    return this.#state.reg(REG.tr_req_ctl + 4) >>> 8;
  }

  processId(): number {
    const valid = (this.#state.reg(REG.tr_req_ctl + 4) & 1) !== 0;
    return valid ? this.#state.reg(REG.tr_req_ctl) >>> 12 : -1;
  }

  run(): void {
    const state = this.#state;
    const control = state.reg(REG.tr_req_ctl);
    const pfn = pfnOfHalves(state.reg(REG.tr_req_iova), state.reg(REG.tr_req_iova + 4));
    const response = this.#translate(pfn, control);
    state.setReg(REG.tr_response, response < 0 ? 1 : this.#low);
    state.setReg(REG.tr_response + 4, response < 0 ? 0 : this.#high);
    state.setReg(REG.tr_req_ctl, (control & ~1) >>> 0);
  }

  // not state, to the blank line: of the answer being made.
  #low = 0;
  #high = 0;

  /** 0 with the response in #low and #high, or -1 after a fault was reported. */
  #translate(pfn: number, control: number): number {
    const translator = this.#translator;
    const processId = this.processId();
    const privileged = processId >= 0 && (control & 2) !== 0;
    const kind = (control & 4) !== 0 ? KIND_EXECUTE : (control & 8) !== 0 ? KIND_READ : KIND_WRITE;
    const ttyp =
      kind === KIND_EXECUTE
        ? TTYP_UNTRANSLATED_EXECUTE
        : kind === KIND_READ
          ? TTYP_UNTRANSLATED_READ
          : TTYP_UNTRANSLATED_WRITE;
    translator.begin(this.deviceId(), processId, privileged, ttyp, pfn, 0);
    if (translator.bare) return this.#answer(pfn, this.#state.configuration.bareRangeLog2 - 12, 0);
    const device = translator.deviceFor(this.deviceId());
    if (device === null) return this.#fail(translator.deviceCause, false);
    const space = translator.spaceFor(device, processId, privileged, kind);
    if (space === null) return this.#fail(translator.cause, device.dtf);
    translator.space = space;
    if (space.transparent) return this.#answer(pfn, this.#state.configuration.bareRangeLog2 - 12, 0);
    const cause = translator.walkTables(device, space, pfn, kind, privileged);
    if (cause === IN_MEMORY_FILE) return this.#fail(CAUSE_TRANSACTION_TYPE_DISALLOWED, device.dtf);
    if (cause !== 0) return this.#fail(cause, device.dtf);
    const walker = translator.walker;
    let size = classOf(Math.min(walker.firstShift, walker.secondShift));
    if (translator.isMessage) size = 0;
    else if (space.recognizesMessages) size = withoutMessages(space, walker.gpaLow, walker.gpaHigh, size);
    const first = (walker.firstHi >>> 29) & 3;
    return this.#answer(translator.resultPfn, CLASS_SHIFTS[size]!, first !== 0 ? first : (walker.secondHi >>> 29) & 3);
  }

  /** tr_response: PPN with the size in it (S = 1: the lowest 0 bit at X says 2^(X+1) pages). */
  #answer(pfn: number, shift: number, pbmt: number): number {
    const pages = 2 ** shift;
    const ppn = shift === 0 ? pfn : pfn - (pfn % pages) + pages / 2 - 1;
    this.#low = (((ppn % 0x400000) << 10) | (shift === 0 ? 0 : 0x200) | (pbmt << 7)) >>> 0;
    this.#high = Math.floor(ppn / 0x400000) & 0x3fffff;
    return 0;
  }

  #fail(cause: number, dtf: boolean): number {
    this.#translator.cause = cause;
    this.#translator.report(dtf);
    return -1;
  }
}
