// GET_HW_INFO (Linux: iommufd/device.c): what user space may know of the IOMMU behind a device.

import { EFAULT, ENOENT, ENOMEM, EOPNOTSUPP } from "../../uapi/errno.ts";
import {
  IOMMU_HW_CAP_DIRTY_TRACKING,
  IOMMU_HW_CAP_PCI_ATS_NOT_SUPPORTED,
  IOMMU_HW_CAP_PCI_PASID_EXEC,
  IOMMU_HW_CAP_PCI_PASID_PRIV,
  IOMMU_HW_INFO_FLAG_INPUT_TYPE,
  IOMMU_HW_INFO_TYPE_DEFAULT,
  IOMMU_HW_INFO_TYPE_NONE,
  iommuHwInfo,
} from "../../uapi/iommufd.ts";
import type { CallContext } from "../file.ts";
import type { IommufdCommand } from "./command.ts";
import type { BoundDevice } from "./device.ts";
import { writeUser } from "./user-copy.ts";

export function getHwInfo(command: IommufdCommand): number {
  const request = iommuHwInfo.decode(command.bytes);
  if ((request.flags & ~IOMMU_HW_INFO_FLAG_INPUT_TYPE) !== 0) return -EOPNOTSUPP;
  if (request.__reserved0 !== 0 || request.__reserved1 !== 0 || request.__reserved2 !== 0) return -EOPNOTSUPP;
  const wanted = (request.flags & IOMMU_HW_INFO_FLAG_INPUT_TYPE) !== 0 ? request.data_type : IOMMU_HW_INFO_TYPE_DEFAULT;
  const bound = command.find<BoundDevice>(request.dev_id, "device");
  if (bound === null) return -ENOENT;
  const { device, driver } = bound;
  let type = IOMMU_HW_INFO_TYPE_NONE;
  let bytes = new Uint8Array(0);
  if (driver.hwInfo !== undefined) {
    if (command.context.environment.injector.allocation("hw info")) return -ENOMEM;
    const info = driver.hwInfo(device, wanted);
    if (typeof info === "number") return info;
    type = info.type;
    bytes = info.bytes.slice();
  }
  const copied = copyOut(command.call, request.data_uptr, bytes, request.data_len);
  if (copied < 0) return copied;
  let capabilities = 0;
  if (driver.capable(device, "DIRTY_TRACKING")) capabilities |= IOMMU_HW_CAP_DIRTY_TRACKING;
  if (device.maxPasids > 0 && device.pasidExecutes === true) capabilities |= IOMMU_HW_CAP_PCI_PASID_EXEC;
  if (device.maxPasids > 0 && device.pasidPrivileged === true) capabilities |= IOMMU_HW_CAP_PCI_PASID_PRIV;
  if (!driver.capable(device, "PCI_ATS_SUPPORTED")) capabilities |= IOMMU_HW_CAP_PCI_ATS_NOT_SUPPORTED;
  iommuHwInfo.patch(command.bytes, {
    data_len: bytes.length,
    data_type: type,
    out_max_pasid_log2: device.maxPasids > 0 ? Math.floor(Math.log2(device.maxPasids)) : 0,
    out_capabilities: BigInt(capabilities),
  });
  return command.respond();
}

/** As much as the user's buffer takes; what it has beyond is zeroed, a page at a time (its length is the user's word). */
function copyOut(call: CallContext, va: bigint, bytes: Uint8Array, length: number): number {
  const count = Math.min(bytes.length, length);
  if (writeUser(call.memory, va, bytes.subarray(0, count)) < 0) return -EFAULT;
  const zeroes = new Uint8Array(Math.min(4096, length - count));
  for (let at = count; at < length; at += 4096) {
    const piece = zeroes.subarray(0, Math.min(4096, length - at));
    if (writeUser(call.memory, va + BigInt(at), piece) < 0) return -EFAULT;
  }
  return 0;
}
