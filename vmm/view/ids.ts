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
  // A bind call gives iommufd's id of the device; the attach event it caused names the device.
  const hostBdf = new Map<number, string>();
  const hostDeviceId = new Map<string, number>();
  const devidOfCall = new Map<number, number>();
  for (const event of events) {
    if (event.type === "ioctl" && event.name === "VFIO_DEVICE_BIND_IOMMUFD" && event.result >= 0) {
      devidOfCall.set(event.seq, Number(event.fields.out_devid));
    }
    if (event.type === "dma") hostDeviceId.set(event.device, event.deviceId);
  }
  for (const event of events) {
    const devid = event.type === "attach" ? devidOfCall.get(event.cause) : undefined;
    if (event.type === "attach" && devid !== undefined) hostBdf.set(devid, event.device);
  }
  const rows: IdRow[] = [];
  for (const event of events) {
    if (event.type !== "ioctl" || event.name !== "IOMMU_VDEVICE_ALLOC" || event.result < 0) continue;
    const guestDeviceId = Number(event.fields.virt_id);
    const host = hostBdf.get(Number(event.fields.dev_id)) ?? "unknown";
    rows.push({
      guestBdf: formatBdf(guestDeviceId),
      guestDeviceId,
      vdevice: Number(event.fields.out_vdevice_id),
      viommu: Number(event.fields.viommu_id),
      hostBdf: host,
      hostDeviceId: hostDeviceId.get(host) ?? null,
    });
  }
  return rows;
}
