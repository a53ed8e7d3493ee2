// Who is who: guest BDF → guest device id → vDEVICE → host BDF → host device id, out of a trace.

import type { TracedEvent } from "../../host/base/trace.ts";
import { formatBdf } from "../pci/host-bridge.ts";

export interface IdRow {
  readonly guestBdf: string;
  readonly guestDeviceId: number;
  /** iommufd object ids. */
  readonly vdevice: number;
  readonly viommu: number;
  readonly hostBdf: string;
  readonly hostDeviceId: number | null;
}

/** Every vDEVICE that the trace saw allocated, in order. */
export function idsOfTrace(events: readonly TracedEvent[]): IdRow[] {
  // A bind call gives iommufd's id of the device; the attach event it caused, and which stands before it, names the device. Ids belong to
  // one iommufd of one process, and one opened later under the same number counts from 1 again.
  const attached = new Map<number, string>();
  const hostBdf = new Map<string, string>();
  const hostDeviceId = new Map<string, number>();
  const rows: IdRow[] = [];
  for (const event of events) {
    if (event.type === "attach") attached.set(event.cause, event.device);
    if (event.type === "dma") hostDeviceId.set(event.device, event.deviceId);
    if (event.type !== "ioctl" || event.result < 0) continue;
    const { process, fd, name, fields, seq } = event;
    if (name === "VFIO_DEVICE_BIND_IOMMUFD") {
      const device = attached.get(seq);
      if (device !== undefined) hostBdf.set(`${process} ${fields.iommufd} ${fields.out_devid}`, device);
    } else if (name === "IOMMU_VDEVICE_ALLOC") {
      const guestDeviceId = Number(fields.virt_id);
      rows.push({
        guestBdf: formatBdf(guestDeviceId),
        guestDeviceId,
        vdevice: Number(fields.out_vdevice_id),
        viommu: Number(fields.viommu_id),
        hostBdf: hostBdf.get(`${process} ${fd} ${fields.dev_id}`) ?? "unknown",
        hostDeviceId: null,
      });
    }
  }
  return rows.map((row) => ({ ...row, hostDeviceId: hostDeviceId.get(row.hostBdf) ?? null }));
}
