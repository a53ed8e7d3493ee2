// Making a device with ATS forget the translations it holds (PCIe 6.0 §10.3.1): needed whenever what they were made from changes
// under it - an unmap, or another domain.

import { encodeCommand } from "../../../arch/riscv/commands.ts";
import type { IommuDevice } from "../driver.ts";

/** ATS.INVALs of everything a device holds, without PASID and in every PASID. */
export function forgetTranslations(device: IommuDevice): (readonly [bigint, bigint])[] {
  // S = 1 with all address bits but the highest set names the whole address space (§10.2.3.2).
  const everything = (((1n << 63n) - 1n) & ~0xfffn) | (1n << 11n);
  const target = { DSV: 1, RID: device.deviceId & 0xffff, DSEG: device.deviceId >>> 16 };
  const [plain] = encodeCommand("ATS.INVAL", target);
  if (device.maxPasids === 0) return [[plain, everything]];
  const [tagged] = encodeCommand("ATS.INVAL", { ...target, PV: 1 });
  return [
    [plain, everything],
    [tagged, everything | 1n],
  ];
}
