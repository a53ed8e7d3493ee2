// The debug interface (§5, 6.24–6.26): software asks the IOMMU how it would translate. Answered by our own walk of the guest's tables,
// within the write that sets Go/Busy; a fault goes to the fault queue as that of an untranslated request would.

import {
  suppressedByDtf,
  TTYP_UNTRANSLATED_EXECUTE,
  TTYP_UNTRANSLATED_READ,
  TTYP_UNTRANSLATED_WRITE,
} from "../../../host/arch/riscv/fault-records.ts";
import { TR_REQ_CTL, TR_RESPONSE } from "../../../host/arch/riscv/registers.ts";
import { KIND_EXECUTE, KIND_READ, KIND_WRITE } from "../../../host/arch/riscv/two-stage-walk.ts";
import type { FaultQueue } from "./fault-queue.ts";
import type { GuestDirectories } from "./guest-directories.ts";
import { type RegisterFile, WORD } from "./registers.ts";

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
    const control = [this.#registers.get64(WORD.TR_REQ_CTL)];
    const field = (name: keyof typeof TR_REQ_CTL.fields) => Number(TR_REQ_CTL.get(control, name));
    const processId = field("PV") === 1 ? field("PID") : -1;
    const privileged = processId >= 0 && field("Priv") === 1;
    const kind = field("NW") === 0 ? KIND_WRITE : field("Exe") === 1 ? KIND_EXECUTE : KIND_READ;
    const iova = this.#registers.get64(WORD.TR_REQ_IOVA);
    const directories = this.#directories;
    const pfn = Number(iova >> 12n);
    const cause = directories.translateAfresh(field("DID"), processId, privileged, kind, pfn);
    const response = [0n];
    if (cause === 0) {
      // A plain 4 KiB answer is always allowed, whatever the size of the leaf.
      TR_RESPONSE.set(response, "PPN", BigInt(directories.resultPfn));
      TR_RESPONSE.set(response, "PBMT", BigInt(directories.resultPbmt));
    } else {
      TR_RESPONSE.set(response, "fault", 1n);
      if (directories.faultsDisabled && suppressedByDtf(cause)) {
        this.#answer(response[0]!);
        return;
      }
      this.#faults.report({
        cause,
        deviceId: field("DID"),
        processId,
        privileged,
        ttyp: [TTYP_UNTRANSLATED_READ, TTYP_UNTRANSLATED_WRITE, TTYP_UNTRANSLATED_EXECUTE][kind]!,
        iotval: iova,
        iotval2: 0n,
      });
    }
    this.#answer(response[0]!);
  }

  #answer(response: bigint): void {
    this.#registers.set64(WORD.TR_RESPONSE, response);
  }
}
