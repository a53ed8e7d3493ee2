// The debug interface (§5, 6.24–6.26): software asks the IOMMU how it would translate. Answered by our own walk of the guest's tables,
// within the write that sets Go/Busy; a fault goes to the fault queue as that of an untranslated request would.

import {
  suppressedByDtf,
  TTYP_UNTRANSLATED_EXECUTE,
  TTYP_UNTRANSLATED_READ,
  TTYP_UNTRANSLATED_WRITE,
} from "../../../host/arch/riscv/fault-records.ts";
import { TR_REQ_CTL } from "../../../host/arch/riscv/registers.ts";
import { KIND_EXECUTE, KIND_READ, KIND_WRITE } from "../../../host/arch/riscv/two-stage-walk.ts";
import type { FaultQueue } from "./fault-queue.ts";
import type { GuestDirectories } from "./guest-directories.ts";
import { type RegisterFile, WORD } from "./registers.ts";

/** Bits of tr_req_ctl's low half. */
const PRIV = 1 << TR_REQ_CTL.fields.Priv.low;
const EXE = 1 << TR_REQ_CTL.fields.Exe.low;
const NW = 1 << TR_REQ_CTL.fields.NW.low;

export class DebugTranslation {
  readonly #registers: RegisterFile;
  readonly #directories: GuestDirectories;
  readonly #faults: FaultQueue;

  constructor(registers: RegisterFile, directories: GuestDirectories, faults: FaultQueue) {
    this.#registers = registers;
    this.#directories = directories;
    this.#faults = faults;
  }

  /** Does what tr_req_ctl and tr_req_iova ask; the answer is in tr_response when this returns. */
  translate(): void {
    const { words } = this.#registers;
    const low = words[WORD.TR_REQ_CTL]!;
    const high = words[WORD.TR_REQ_CTL + 1]!;
    const deviceId = high >>> 8;
    const processId = (high & 1) !== 0 ? low >>> 12 : -1;
    const privileged = processId >= 0 && (low & PRIV) !== 0;
    const kind = (low & NW) === 0 ? KIND_WRITE : (low & EXE) !== 0 ? KIND_EXECUTE : KIND_READ;
    const iovaLow = words[WORD.TR_REQ_IOVA]!;
    const pfn = words[WORD.TR_REQ_IOVA + 1]! * 0x10_0000 + (iovaLow >>> 12);
    const directories = this.#directories;
    const cause = directories.translateAfresh(deviceId, processId, privileged, kind, pfn);
    if (cause === 0) {
      // A plain 4 KiB answer is always allowed, whatever the size of the leaf.
      const page = directories.resultPfn as number;
      this.#answer(((page % 0x40_0000) << 10) | (directories.resultPbmt << 7), Math.floor(page / 0x40_0000));
      return;
    }
    this.#answer(1, 0);
    if (directories.faultsDisabled && suppressedByDtf(cause)) return;
    this.#faults.report({
      cause,
      deviceId,
      processId,
      privileged,
      ttyp: [TTYP_UNTRANSLATED_READ, TTYP_UNTRANSLATED_WRITE, TTYP_UNTRANSLATED_EXECUTE][kind]!,
      iotval: this.#registers.get64(WORD.TR_REQ_IOVA),
      iotval2: 0n,
    });
  }

  #answer(low: number, high: number): void {
    const { words } = this.#registers;
    words[WORD.TR_RESPONSE] = low;
    words[WORD.TR_RESPONSE + 1] = high;
  }
}
