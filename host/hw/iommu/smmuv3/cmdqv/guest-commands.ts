// What a queue that is not HYP_OWN may carry, and as whom: TLBI_NH_ASID and TLBI_NH_VA under the VINTF's VMID, ATC_INV to a stream of its SID_MATCH
// registers, CMD_SYNC without a signal. Everything else could reach what is not the guest's.

import {
  CMD_ATC_INV,
  CMD_SYNC,
  CMD_TLBI_NH_ASID,
  CMD_TLBI_NH_VA,
  isCommand,
} from "../../../../arch/smmuv3/commands.ts";
import type { Vintfs } from "../../../../arch/smmuv3/parts/cmdqv-vintfs.ts";
import { CERROR_ILL } from "../../../../arch/smmuv3/registers.ts";
import { CERROR_ILL_ACCESS } from "../../../../arch/smmuv3/tegra241-cmdqv.ts";

/** Second word of the command as it is to be executed; not if `error` is set. */
export class GuestCommands {
  w1 = 0; // not state: of the last command
  readonly #vintfs: Vintfs;

  constructor(vintfs: Vintfs) {
    this.#vintfs = vintfs;
  }

  /** 0: execute with `w1`; else the error that stops the queue. */
  admit(vintf: number, w0: number, w1: number): number {
    const opcode = w0 & 0xff;
    switch (opcode) {
      case CMD_TLBI_NH_ASID:
      case CMD_TLBI_NH_VA:
        this.w1 = (w1 & 0xffff0000) | this.#vintfs.vmid(vintf);
        return 0;
      case CMD_ATC_INV: {
        const sid = this.#vintfs.replace(vintf, w1 >>> 0);
        this.w1 = sid;
        return sid < 0 ? CERROR_ILL_ACCESS : 0;
      }
      case CMD_SYNC:
        this.w1 = w1;
        return ((w0 >>> 12) & 3) === 0 ? 0 : CERROR_ILL_ACCESS;
      default:
        return isCommand(opcode) ? CERROR_ILL_ACCESS : CERROR_ILL;
    }
  }
}
