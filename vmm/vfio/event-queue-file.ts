// A vEVENTQ of a vIOMMU and its file: allocated, watched, read. Sequence numbers count lost events too: a gap is a loss even where its header was
// overtaken.

import type { Stateful, StateReader, StateRecord } from "../../host/base/state.ts";
import { ENODEV } from "../../host/uapi/errno.ts";
import {
  IOMMU_VEVENTQ_ALLOC,
  IOMMU_VEVENTQ_FLAG_LOST_EVENTS,
  iommufdVeventHeader,
  iommuVeventqAlloc,
} from "../../host/uapi/iommufd.ts";
import type { HostEvent } from "../viommu/host-port.ts";
import type { HostDevices } from "./host-devices.ts";

const READ_BYTES = 64 * 1024;
const SEQUENCE_MODULUS = 2 ** 31;

export class EventQueueFile implements Stateful {
  readonly #devices: HostDevices;
  readonly #onEvents: () => void;
  #id = 0;
  #fd = -1;
  #nextSequence = 0;

  /** `onEvents`: called when events wait. */
  constructor(devices: HostDevices, onEvents: () => void) {
    this.#devices = devices;
    this.#onEvents = onEvents;
  }

  /** 0 or a negated errno. */
  open(viommu: number, type: number, depth: number): number {
    const { space, calls } = this.#devices;
    if (this.#id !== 0) return -ENODEV;
    const { result, out } = calls.ioctl(space.iommufd, IOMMU_VEVENTQ_ALLOC, iommuVeventqAlloc, {
      viommu_id: viommu,
      type,
      veventq_depth: depth,
    });
    if (result < 0) return result;
    this.#id = out.out_veventq_id;
    this.#fd = out.out_veventq_fd;
    this.#nextSequence = 0;
    calls.system.watch(this.#fd, this.#onEvents);
    return 0;
  }

  /** Adds what waits to `events`, records of `bytes` bytes by `event`. */
  read(bytes: number, events: HostEvent[], event: (record: Uint8Array) => HostEvent): void {
    if (this.#fd < 0) return;
    const read = this.#devices.calls.read(this.#fd, READ_BYTES);
    if (typeof read === "number") return;
    for (let at = 0; at + iommufdVeventHeader.bytes <= read.length; ) {
      const { flags, sequence } = iommufdVeventHeader.decode(read, at);
      at += iommufdVeventHeader.bytes;
      const missing = (sequence - this.#nextSequence + SEQUENCE_MODULUS) % SEQUENCE_MODULUS;
      this.#nextSequence = (sequence + 1) % SEQUENCE_MODULUS;
      if ((flags & IOMMU_VEVENTQ_FLAG_LOST_EVENTS) !== 0) {
        events.push({ kind: "lost", count: missing + 1 });
        continue;
      }
      if (missing > 0) events.push({ kind: "lost", count: missing });
      if (at + bytes > read.length) break;
      events.push(event(read.slice(at, at + bytes)));
      at += bytes;
    }
  }

  close(): void {
    const { space, calls } = this.#devices;
    if (this.#fd >= 0) calls.system.close(this.#fd);
    if (this.#id !== 0) space.destroy(this.#id);
    this.#id = 0;
    this.#fd = -1;
  }

  saveState(): StateRecord {
    return { id: this.#id, fd: this.#fd, nextSequence: this.#nextSequence };
  }

  /** The descriptor is watched from here on as it was. */
  restoreState(state: StateReader): void {
    const { system } = this.#devices.calls;
    const fd = state.number("fd");
    if (fd >= 0) system.watch(fd, this.#onEvents);
    this.#id = state.number("id");
    this.#fd = fd;
    this.#nextSequence = state.number("nextSequence");
  }
}
