// A guest's invalidation commands, rewritten for the host's command queue (Linux: arm_vsmmu_convert_user_cmd). The path of every forwarded
// command: words in place, no allocation.
//
//     TLBI_NSNH_ALL                    TLBI_NH_ALL of the parent's VMID
//     TLBI_NH_ALL, ASID, VA, VAA       that VMID in place of the guest's
//     CFGI_CD, CFGI_CD_ALL, ATC_INV    the host's StreamID
//
// Everything else is refused. What else the command says passes as it is, reserved bits and ranges too, as in Linux: one that this hardware
// calls illegal stops the host's queue until the kernel has put a CMD_SYNC in its place, and the caller is not told. Who offers an SMMU to a
// guest keeps such commands back.

import {
  CMD_ATC_INV,
  CMD_CFGI_CD,
  CMD_CFGI_CD_ALL,
  CMD_TLBI_NH_ALL,
  CMD_TLBI_NH_ASID,
  CMD_TLBI_NH_VA,
  CMD_TLBI_NH_VAA,
  CMD_TLBI_NSNH_ALL,
} from "../../../arch/smmuv3/commands.ts";
import { EIO } from "../../../uapi/errno.ts";

export const COMMAND_WORDS = 4;

/** What the rewriting needs of its vIOMMU. */
export interface CommandScope {
  readonly vmid: number;
  /** StreamID of the device that the guest knows by this one, -1 for none. */
  streamOf(virtualId: number): number;
}

/** Writes what stands for the command at `from[at]` to `to[into]`; 0, or -EIO with nothing written. */
export function convertCommand(
  scope: CommandScope,
  from: Int32Array,
  at: number,
  to: Int32Array,
  into: number,
): number {
  const w0 = from[at]!;
  const w1 = from[at + 1]!;
  switch (w0 & 0xff) {
    case CMD_TLBI_NSNH_ALL:
      to[into] = CMD_TLBI_NH_ALL;
      to[into + 1] = scope.vmid;
      to[into + 2] = 0;
      to[into + 3] = 0;
      return 0;
    case CMD_TLBI_NH_ALL:
    case CMD_TLBI_NH_ASID:
    case CMD_TLBI_NH_VA:
    case CMD_TLBI_NH_VAA:
      // VMID 47:32, beside the ASID.
      to[into + 1] = (w1 & 0xffff0000) | scope.vmid;
      break;
    case CMD_CFGI_CD:
    case CMD_CFGI_CD_ALL:
    case CMD_ATC_INV: {
      const stream = scope.streamOf(w1 >>> 0);
      if (stream < 0) return -EIO;
      to[into + 1] = stream;
      break;
    }
    default:
      return -EIO;
  }
  to[into] = w0;
  to[into + 2] = from[at + 2]!;
  to[into + 3] = from[at + 3]!;
  return 0;
}
