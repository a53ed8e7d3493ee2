// Who is who: guest BDF → guest device id → vDEVICE → host BDF → host device id, out of a trace.

import type { TracedEvent } from "../../host/base/trace.ts";
import { HELD_IDS } from "../assignment.ts";
import { formatBdf } from "../pci/host-bridge.ts";

export interface IdRow {
  /** "00:02.0", or "held": a device of a shared iommu group that the VMM keeps from others. */
  readonly guestBdf: string;
  readonly guestDeviceId: number;
  /** iommufd object ids. */
  readonly vdevice: number;
  readonly viommu: number;
  readonly hostBdf: string;
  /** Number of its iommu group in the host; null if the trace does not say. */
  readonly group: number | null;
  readonly hostDeviceId: number | null;
}

/** Every vDEVICE that the trace saw allocated, in order. */
export function idsOfTrace(events: readonly TracedEvent[]): IdRow[] {
  // A bind call gives iommufd's id of the device that its descriptor is of. Ids belong to one iommufd of one process, and one opened later
  // under the same number counts from 1 again.
  const group = new Map<string, number>();
  const hostBdf = new Map<string, string>();
  const hostDeviceId = new Map<string, number>();
  const rows: IdRow[] = [];
  for (const event of events) {
    if (event.type === "attach" && event.group !== undefined) group.set(event.device, event.group);
    if (event.type === "dma") hostDeviceId.set(event.device, event.deviceId);
    if (event.type !== "ioctl" || event.result < 0) continue;
    const { process, fd, name, fields } = event;
    if (name === "VFIO_DEVICE_BIND_IOMMUFD") {
      if (typeof fields.device === "string") {
        hostBdf.set(`${process} ${fields.iommufd} ${fields.out_devid}`, fields.device);
      }
    } else if (name === "IOMMU_VDEVICE_ALLOC") {
      const guestDeviceId = Number(fields.virt_id);
      rows.push({
        guestBdf: guestDeviceId >= HELD_IDS ? "held" : formatBdf(guestDeviceId),
        guestDeviceId,
        vdevice: Number(fields.out_vdevice_id),
        viommu: Number(fields.viommu_id),
        hostBdf: hostBdf.get(`${process} ${fd} ${fields.dev_id}`) ?? "unknown",
        group: null,
        hostDeviceId: null,
      });
    }
  }
  return rows.map((row) => ({
    ...row,
    group: group.get(row.hostBdf) ?? null,
    hostDeviceId: hostDeviceId.get(row.hostBdf) ?? null,
  }));
}
