// PCI hot reset (Linux: vfio_pci_core.c): which functions a bus reset would hit, and the reset itself. The functions here sit on the
// root complex, which has no secondary bus to reset: the requests answer ENODEV, as Linux does for a function that has neither slot nor
// bus reset.

import { EINVAL, ENODEV } from "../../../uapi/errno.ts";
import { vfioPciHotReset, vfioPciHotResetInfo } from "../../../uapi/vfio.ts";
import type { CallContext } from "../../file.ts";
import { readRequest } from "../user-request.ts";

export function hotResetInfo(call: CallContext, argument: bigint): number {
  const request = readRequest(call, argument, vfioPciHotResetInfo);
  return typeof request === "number" ? request : -ENODEV;
}

/** A device opened by its node names no groups (the iommufd says whose devices are whose), one opened through its group must: -EINVAL. */
export function hotReset(byNode: boolean, call: CallContext, argument: bigint): number {
  const request = readRequest(call, argument, vfioPciHotReset);
  if (typeof request === "number") return request;
  const { flags, count } = request.values;
  return flags !== 0 || (count !== 0) === byNode ? -EINVAL : -ENODEV;
}
