// Who is who: guest BDF → guest device id → vDEVICE → host BDF → host device id, out of a trace.

import type { TracedEvent } from "../../host/base/trace.ts";
import { HELD_IDS } from "../assignment.ts";
import { formatBdf, parseBdf } from "../pci/host-bridge.ts";

export interface IdRow {
  /**
   * "00:02.0", or "held": a device of a shared iommu group that the VMM keeps from others. Null: it was bound and nothing says whose it is: it has no vDEVICE,
   * as without nesting, and has not interrupted.
   */
  readonly guestBdf: string | null;
  readonly guestDeviceId: number | null;
  /** iommufd object ids. */
  readonly vdevice: number | null;
  readonly viommu: number | null;
  readonly hostBdf: string;
  /** Number of its iommu group in the host; null if the trace does not say. */
  readonly group: number | null;
  readonly hostDeviceId: number | null;
}

/** An interrupt as its file has it ("0000:00:02.0 MSI"), and as a machine gives it to its guest ("00:01.0 msi", "00:01.0 pin"). */
const HOST_INTERRUPT = /^([0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]) /;
const GUEST_INTERRUPT = /^([0-9a-f]{2}:[0-9a-f]{2}\.[0-7]) /;

const NO_GUEST = { guestBdf: null, guestDeviceId: null, vdevice: null, viommu: null, group: null, hostDeviceId: null };

/**
 * Every vDEVICE that the trace saw allocated, and every device that was bound and has none, in order of binding. Where the kernel has no vDEVICEs (VT-d) it is
 * never told of a guest's ids: what says them then is an interrupt, which leaves the host as the host's device and reaches the guest as the guest's.
 */
export function idsOfTrace(events: readonly TracedEvent[]): IdRow[] {
  // A bind call gives iommufd's id of the device that its descriptor is of. Ids belong to one iommufd of one process, and one opened later
  // under the same number counts from 1 again.
  const group = new Map<string, number>();
  const bound = new Map<string, { at: number; hostBdf: string }>();
  const hostDeviceId = new Map<string, number>();
  const rows: IdRow[] = [];
  const raised = new Map<number, string>();
  const guests = new Map<string, string>();
  for (const event of events) {
    if (event.type === "irq" && event.where === "vfio") {
      const host = HOST_INTERRUPT.exec(event.source)?.[1];
      if (host !== undefined) raised.set(event.seq, host);
      const from = raised.get(event.cause);
      const guest = GUEST_INTERRUPT.exec(event.source)?.[1];
      if (from !== undefined && guest !== undefined) guests.set(from, guest);
    }
    if (event.type === "attach" && event.group !== undefined) group.set(event.device, event.group);
    if (event.type === "dma") hostDeviceId.set(event.device, event.deviceId);
    if (event.type !== "ioctl" || event.result < 0) continue;
    const { process, fd, name, fields } = event;
    if (name === "VFIO_DEVICE_BIND_IOMMUFD") {
      if (typeof fields.device === "string") {
        bound.set(`${process} ${fields.iommufd} ${fields.out_devid}`, { at: rows.length, hostBdf: fields.device });
        rows.push({ ...NO_GUEST, hostBdf: fields.device });
      }
    } else if (name === "IOMMU_VDEVICE_ALLOC") {
      const guestDeviceId = Number(fields.virt_id);
      const known = bound.get(`${process} ${fd} ${fields.dev_id}`);
      const row = {
        ...{ ...NO_GUEST, guestDeviceId, guestBdf: guestDeviceId >= HELD_IDS ? "held" : formatBdf(guestDeviceId) },
        ...{ vdevice: Number(fields.out_vdevice_id), viommu: Number(fields.viommu_id) },
        hostBdf: known?.hostBdf ?? "unknown",
      };
      if (known !== undefined && rows[known.at]!.vdevice === null) rows[known.at] = row;
      else rows.push(row);
    }
  }
  return rows.map((row) => ({
    ...row,
    ...(row.vdevice === null ? guestSide(guests.get(row.hostBdf)) : {}),
    group: group.get(row.hostBdf) ?? null,
    hostDeviceId: hostDeviceId.get(row.hostBdf) ?? null,
  }));
}

function guestSide(guestBdf: string | undefined): Partial<IdRow> {
  return guestBdf === undefined ? {} : { guestBdf, guestDeviceId: parseBdf(guestBdf) ?? null };
}
