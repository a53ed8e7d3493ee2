// A guest's invalidation commands, checked and rewritten into the host's command queue (§4.1). The path of every forwarded command:
// halves of doublewords, no allocation.
//
//     IOTINVAL.VMA        GV = 1 and the vIOMMU's GSCID in place of the guest's; the rest as it was
//     IODIR.INVAL_DDT     the host's device id; DV = 0 becomes one for each vDEVICE
//     IODIR.INVAL_PDT     the host's device id
//     ATS.INVAL           the host's requester id; nothing for a device without ATS
//
// Everything else is refused: IOTINVAL.GVMA needs a second stage, which the guest's IOMMU does not have; ATS.PRGR is an answer to a
// page request and goes through the fault queue; IOFENCE.C is the vIOMMU's own. So are reserved bits, and NL, S and process ids that
// this hardware would call illegal: nothing of a guest's may stop the host's queue.

import type { RiscvCapabilities } from "../../../arch/riscv/capabilities.ts";
import { OPCODE_ATS, OPCODE_IODIR, OPCODE_IOTINVAL } from "../../../arch/riscv/commands.ts";
import { EIO } from "../../../uapi/errno.ts";
import type { IommuDevice } from "../driver.ts";
import type { RiscvIommu } from "./instance.ts";

/** What the rewriting needs of its vIOMMU. */
export interface CommandScope {
  readonly iommu: RiscvIommu;
  readonly gscid: number;
  /** Bits of the second and third word of IOTINVAL.VMA that a guest may not set. */
  readonly refusedOfVma1: number;
  readonly refusedOfVma2: number;
  findDevice(guestId: number): IommuDevice | null;
  eachDevice(visit: (device: IommuDevice) => void): void;
}

// Second word: PSCV 0, GV 1, NL 2, GSCID 27:12. Fourth: ADDR ends at bit 61.
const VMA_GV = 1 << 1;
const VMA_NL = 1 << 2;
const VMA_HOST_BITS = VMA_GV | 0x0ffff000;
const VMA_RESERVED_0 = 0x800;
const VMA_RESERVED_1 = 0xf0000ff8 | 0;
const VMA_RESERVED_2 = 0x1ff;
const VMA_RESERVED_3 = 0xc0000000 | 0;
const VMA_S = 1 << 9;
// Second word: DV 1, DID 31:8.
const IODIR_DV = 1 << 1;
const IODIR_RESERVED = [0xc00, 0xfd, 0xffffffff, 0xffffffff] as const;
// Second word: PV 0, DSV 1, RID 23:8, DSEG 31:24. Third: G 0, S 11.
const ATS_PV = 1 << 0;
const ATS_DSV = 1 << 1;
const ATS_RESERVED = [0xc00, 0xfc, 0x7fe, 0] as const;

/** What a guest may not set on hardware with these capabilities: reserved bits, NL and S where there is no such thing. */
export const refusedOfVma1 = ({ NL }: RiscvCapabilities): number => VMA_RESERVED_1 | (NL ? 0 : VMA_NL);
export const refusedOfVma2 = ({ S }: RiscvCapabilities): number => VMA_RESERVED_2 | (S ? 0 : VMA_S);

/** Pushes what stands for the guest's command; 0, or -EIO with nothing pushed. */
export function forwardCommand(scope: CommandScope, w0: number, w1: number, w2: number, w3: number): number {
  const function3 = (w0 >>> 7) & 7;
  switch (w0 & 0x7f) {
    case OPCODE_IOTINVAL: {
      const refused =
        function3 !== 0 ||
        (w0 & VMA_RESERVED_0) !== 0 ||
        (w1 & scope.refusedOfVma1) !== 0 ||
        (w2 & scope.refusedOfVma2) !== 0 ||
        (w3 & VMA_RESERVED_3) !== 0;
      if (refused) return -EIO;
      scope.iommu.queue.pushHalves(w0, (w1 & ~VMA_HOST_BITS) | VMA_GV | (scope.gscid << 12), w2, w3);
      return 0;
    }
    case OPCODE_IODIR:
      return forwardDirectory(scope, function3, w0, w1, w2, w3);
    case OPCODE_ATS:
      return function3 === 0 ? forwardAts(scope, w0, w1, w2, w3) : -EIO;
    default:
      return -EIO;
  }
}

/** True for a command that waits for a device, and so may time out. */
export function waitsForDevice(w0: number): boolean {
  return (w0 & 0x7f) === OPCODE_ATS;
}

function forwardDirectory(
  scope: CommandScope,
  function3: number,
  w0: number,
  w1: number,
  w2: number,
  w3: number,
): number {
  if (function3 > 1 || reserved(IODIR_RESERVED, w0, w1, w2, w3)) return -EIO;
  const processId = w0 >>> 12;
  const { queue } = scope.iommu;
  if ((w1 & IODIR_DV) === 0) {
    if (function3 === 1 || processId !== 0) return -EIO;
    scope.eachDevice(({ deviceId }) => queue.pushHalves(w0, IODIR_DV | (deviceId << 8), 0, 0));
    return 0;
  }
  const limit = function3 === 0 ? 1 : 1 << scope.iommu.processIdBits;
  const device = processId < limit ? scope.findDevice(w1 >>> 8) : null;
  if (device === null) return -EIO;
  queue.pushHalves(w0, IODIR_DV | (device.deviceId << 8), 0, 0);
  return 0;
}

function forwardAts(scope: CommandScope, w0: number, w1: number, w2: number, w3: number): number {
  const { capabilities, queue } = scope.iommu;
  if (!capabilities.ATS || reserved(ATS_RESERVED, w0, w1, w2, w3)) return -EIO;
  const requester = (w1 >>> 8) & 0xffff;
  const device = scope.findDevice((w1 & ATS_DSV) !== 0 ? w1 >>> 8 : requester);
  if (device === null) return -EIO;
  // A device without ATS holds nothing and would never answer.
  if (device.hasAts) queue.pushHalves(w0, (w1 & ATS_PV) | ATS_DSV | (device.deviceId << 8), w2, w3);
  return 0;
}

function reserved(
  masks: readonly [number, number, number, number],
  w0: number,
  w1: number,
  w2: number,
  w3: number,
): boolean {
  return ((w0 & masks[0]) | (w1 & masks[1]) | (w2 & masks[2]) | (w3 & masks[3])) !== 0;
}
