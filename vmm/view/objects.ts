// The objects of the kernel that a VMM holds at a moment of a trace, and what hangs on what: who is attached to what, made of what. Out of the
// system calls that made and destroyed them (include/uapi/linux/iommufd.h).

import type { TracedEvent } from "../../host/base/trace.ts";
import { HELD_IDS } from "../assignment.ts";
import { formatBdf } from "../pci/host-bridge.ts";
import { eventAt, type TraceColumns } from "./trace-index.ts";

export type ObjectKind =
  | "IOAS"
  | "HWPT"
  | "nested HWPT"
  | "vIOMMU"
  | "vDEVICE"
  | "vEVENTQ"
  | "fault queue"
  | "HW queue"
  | "device";

export interface HostObject {
  /** Process, iommufd and id: an id is an iommufd's own. */
  readonly key: string;
  readonly kind: ObjectKind;
  readonly id: number;
  /** "0000:00:01.0", "00:02.0 (0x10)"; "" where the kind and the id say all. */
  readonly name: string;
  /** Keys of what it stands on: an HWPT's IOAS or vIOMMU, a vDEVICE's device and vIOMMU. */
  readonly on: readonly string[];
  /** Of a device: key of the page table or address space that its DMA goes through, as user space attached it. */
  readonly attached?: string;
  /** Of a device: what the host would not do when the guest last changed its set-up. */
  readonly refusal?: Refusal;
}

/** A call that was to give a device its page tables, and failed. */
export interface Refusal {
  readonly call: string;
  /** Negated. */
  readonly errno: number;
  /** Number of its event; and of what led to it: what follows from that, too, is still the same attempt. */
  readonly seq: number;
  readonly cause: number;
}

export type Objects = ReadonlyMap<string, HostObject>;

/** The calls that make a difference. */
const CALLS: ReadonlySet<string> = new Set([
  "IOMMU_IOAS_ALLOC",
  "IOMMU_HWPT_ALLOC",
  "IOMMU_VIOMMU_ALLOC",
  "IOMMU_VDEVICE_ALLOC",
  "IOMMU_VEVENTQ_ALLOC",
  "IOMMU_FAULT_QUEUE_ALLOC",
  "IOMMU_HW_QUEUE_ALLOC",
  "IOMMU_DESTROY",
  "VFIO_DEVICE_BIND_IOMMUFD",
  "VFIO_DEVICE_ATTACH_IOMMUFD_PT",
  "VFIO_DEVICE_DETACH_IOMMUFD_PT",
]);

/** Domain of a device that the kernel has for itself again: nobody holds its descriptor any more (closing one is no call that is traced). */
const KERNELS_OWN = "identity";

/** What an object's call leaves; the same map where it changes nothing. */
export function withEvent(objects: Objects, event: TracedEvent): Objects {
  if (event.type === "attach" && event.domain === KERNELS_OWN) {
    const released = [...objects.values()].find(({ kind, name }) => kind === "device" && name === event.device);
    return released === undefined ? objects : new Map([...objects].filter(([key]) => key !== released.key));
  }
  if (event.type !== "ioctl" || !CALLS.has(event.name)) return objects;
  const { process, fd, name, fields } = event;
  const next = withRefusal(objects, event);
  if (event.result < 0) return next;
  const key = (id: unknown, iommufd: unknown = fd): string => `${process} ${iommufd} ${Number(id)}`;
  const add = (kind: ObjectKind, id: unknown, on: readonly string[], more: Partial<HostObject> = {}): void => {
    const made = { kind, id: Number(id), key: more.key ?? key(id), name: "", on, ...more };
    // A trace is a document from anywhere.
    if (Number.isSafeInteger(made.id)) next.set(made.key, made);
  };
  switch (name) {
    case "IOMMU_IOAS_ALLOC":
      add("IOAS", fields.out_ioas_id, []);
      break;
    case "IOMMU_HWPT_ALLOC": {
      const on = key(fields.pt_id);
      const below = next.get(on)?.kind;
      add(below === "vIOMMU" || below === "HWPT" ? "nested HWPT" : "HWPT", fields.out_hwpt_id, [on]);
      break;
    }
    case "IOMMU_VIOMMU_ALLOC":
      add("vIOMMU", fields.out_viommu_id, [key(fields.hwpt_id)]);
      break;
    case "IOMMU_VDEVICE_ALLOC": {
      const guest = Number(fields.virt_id);
      const bdf = guest >= HELD_IDS ? "held" : guest < 0x10000 ? formatBdf(guest) : "";
      add("vDEVICE", fields.out_vdevice_id, [key(fields.viommu_id), key(fields.dev_id)], {
        name: `${bdf} (0x${guest.toString(16)})`.trim(),
      });
      break;
    }
    case "IOMMU_VEVENTQ_ALLOC":
      add("vEVENTQ", fields.out_veventq_id, [key(fields.viommu_id)]);
      break;
    case "IOMMU_FAULT_QUEUE_ALLOC":
      add("fault queue", fields.out_fault_id, []);
      break;
    case "IOMMU_HW_QUEUE_ALLOC":
      add("HW queue", fields.out_hw_queue_id, [key(fields.viommu_id)]);
      break;
    case "VFIO_DEVICE_BIND_IOMMUFD":
      add("device", fields.out_devid, [], { key: key(fields.out_devid, fields.iommufd), name: String(fields.device) });
      break;
    case "IOMMU_DESTROY":
      next.delete(key(fields.id));
      break;
    default: {
      // Attach, detach: calls on the device's own descriptor.
      const device = deviceNamed(next, process, fields.device);
      if (device === undefined) return objects;
      const { attached: _before, ...rest } = device;
      if (name === "VFIO_DEVICE_DETACH_IOMMUFD_PT") next.set(device.key, rest);
      else next.set(device.key, { ...rest, attached: key(fields.pt_id, device.key.split(" ")[1]) });
    }
  }
  return next;
}

/** A copy in which the device that a call is about has been refused its page tables, or is no more. */
function withRefusal(objects: Objects, event: Call): Map<string, HostObject> {
  const next = new Map(objects);
  const { process, fd, name, fields, result, seq, cause } = event;
  const device =
    name === "IOMMU_HWPT_ALLOC"
      ? objects.get(`${process} ${fd} ${Number(fields.dev_id)}`)
      : name === "VFIO_DEVICE_ATTACH_IOMMUFD_PT"
        ? deviceNamed(objects, process, fields.device)
        : undefined;
  if (device?.kind !== "device") return next;
  const { refusal, ...rest } = device;
  if (result < 0) next.set(device.key, { ...rest, refusal: { call: name, errno: result, seq, cause } });
  else if (refusal !== undefined && (cause === 0 || refusal.cause !== cause)) next.set(device.key, rest);
  return next;
}

type Call = Extract<TracedEvent, { type: "ioctl" }>;

const deviceNamed = (objects: Objects, process: string, name: unknown): HostObject | undefined =>
  [...objects.values()].find((one) => one.kind === "device" && one.name === name && one.key.startsWith(`${process} `));

/** Calls between two moments that are kept. */
const KEPT_EVERY = 64;

/** Objects at any moment of a trace, without going through all of it each time. Not state: a view's own. */
export class ObjectHistory {
  readonly #columns: TraceColumns;
  readonly #rows: number[] = [];
  readonly #kept: Objects[] = [new Map()];

  constructor(columns: TraceColumns) {
    this.#columns = columns;
    const telling = columns.names.map((name) => CALLS.has(name) || name === KERNELS_OWN);
    for (let row = 0; row < columns.rows; row++) if (telling[columns.label[row]!]) this.#rows.push(row);
  }

  /** After the event of this row. */
  at(row: number): Objects {
    let count = 0;
    for (let low = 0, high = this.#rows.length; low < high; ) {
      const middle = (low + high) >>> 1;
      if (this.#rows[middle]! <= row) count = low = middle + 1;
      else high = middle;
    }
    while ((this.#kept.length - 1) * KEPT_EVERY + KEPT_EVERY <= count) {
      const from = (this.#kept.length - 1) * KEPT_EVERY;
      this.#kept.push(this.#after(this.#kept.at(-1)!, from, from + KEPT_EVERY));
    }
    const kept = Math.floor(count / KEPT_EVERY);
    return this.#after(this.#kept[kept]!, kept * KEPT_EVERY, count);
  }

  #after(objects: Objects, from: number, to: number): Objects {
    let next = objects;
    for (let i = from; i < to; i++) next = withEvent(next, eventAt(this.#columns, this.#rows[i]!));
    return next;
  }
}
