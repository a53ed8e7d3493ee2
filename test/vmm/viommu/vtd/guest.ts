// A guest-visible VT-d unit by itself: guest RAM, a host that records and agrees, and the guest's driver on top.

import type { GpaPfn } from "../../../../host/base/address.ts";
import { Clock } from "../../../../host/base/clock.ts";
import { ACCESS_FAULT, ACCESS_OK, PhysicalMemory } from "../../../../host/base/memory.ts";
import { Trace } from "../../../../host/base/trace.ts";
import { iommuHwptVtdS1, iommuHwptVtdS1Invalidate } from "../../../../host/uapi/vtd-nesting.ts";
import type { VcpuPort } from "../../../../vmm/vcpu/port.ts";
import type { GuestMemory } from "../../../../vmm/viommu/guest-driver.ts";
import type { HwInfoReply, InvalidationReply } from "../../../../vmm/viommu/host-port.ts";
import type { VtdConfiguration } from "../../../../vmm/viommu/vtd/capabilities.ts";
import { Stage1 } from "../../../../vmm/viommu/vtd/guest/stage1.ts";
import { GuestVtd } from "../../../../vmm/viommu/vtd/guest/vtd-driver.ts";
import { VtdViommu } from "../../../../vmm/viommu/vtd/viommu.ts";
import { RecordingHost } from "../hosts.ts";

export const RAM = 0x8000_0000;
const BYTES = 1 << 20;
/** Host capabilities with everything that is the host's to give. */
const HARDWARE = { cap: (1n << 56n) | (1n << 60n), ecap: (1n << 7n) | (1n << 34n) | (1n << 48n) };
/** DT, PRS, PASID with PSS 19, SRS. */
const SERVICES = (1n << 2n) | (1n << 29n) | (1n << 40n) | (19n << 35n) | (1n << 31n);

export type Entry = readonly [addr: bigint, npages: bigint, flags: number];

/** Invalidations as ranges, a batch a call. */
export class RangeHost extends RecordingHost {
  readonly ranges: { readonly device: number; readonly pasid?: number; readonly entries: Entry[] }[] = [];
  /** Bits of its devices' PASIDs. */
  pasidBits = 0;
  override hwInfo(): HwInfoReply | number {
    return { type: 1, bytes: new Uint8Array(24), maxPasidLog2: this.pasidBits, capabilities: 0n };
  }
  /** What the next calls answer. */
  replies: InvalidationReply[] = [];
  override invalidate(batch: Uint8Array, count: number, device = -1, pasid?: number): InvalidationReply {
    const entries = Array.from({ length: count }, (_, i): Entry => {
      const { addr, npages, flags } = iommuHwptVtdS1Invalidate.decode(batch, 24 * i);
      return [addr, npages, flags];
    });
    this.ranges.push(pasid === undefined ? { device, entries } : { device, pasid, entries });
    return this.replies.shift() ?? { done: count, errno: 0 };
  }
}

export function build(configuration: VtdConfiguration = {}, services = false) {
  const clock = new Clock();
  const memory = new PhysicalMemory<GpaPfn>();
  const buffer = new ArrayBuffer(BYTES);
  memory.addBank((RAM / 4096) as GpaPfn, buffer);
  const view = new DataView(buffer);
  const host = new RangeHost();
  if (services) host.pasidBits = 20;
  const reports: string[] = [];
  const messages: number[] = [];
  const viommu = new VtdViommu({
    ...{ name: "viommu0", memory, host, clock, configuration, trace: new Trace(clock) },
    hardware: services ? { cap: HARDWARE.cap, ecap: HARDWARE.ecap | SERVICES } : HARDWARE,
    interrupt: {
      wire: () => {},
      message: (_pfn, _offset, data) => {
        messages.push(data);
        return 0;
      },
      receiver: (number, vector) => {
        if (number !== 0) return ACCESS_FAULT;
        messages.push(vector);
        return ACCESS_OK;
      },
    },
    report: (line) => reports.push(line),
  });
  let next = RAM;
  const ram: GuestMemory = {
    allocate: (pages = 1, alignment = 4096n) => {
      next = Math.ceil(next / Number(alignment)) * Number(alignment);
      const at = next;
      next += pages * 4096;
      return BigInt(at);
    },
    read64: (address) => view.getBigUint64(Number(address) - RAM, true),
    write64: (address, value) => view.setBigUint64(Number(address) - RAM, value, true),
    read: (address, length) => new Uint8Array(buffer, Number(address) - RAM, length),
    write: (address, bytes) => new Uint8Array(buffer, Number(address) - RAM, bytes.length).set(bytes),
  };
  const port = {
    get high(): number {
      return viommu.high;
    },
    load: (address: number, size: 1 | 2 | 4 | 8) => viommu.mmioRead(address, size),
    store: (address: number, size: 1 | 2 | 4 | 8, lo: number, hi: number) => viommu.mmioWrite(address, size, lo, hi),
  } as unknown as VcpuPort;
  return {
    ...{ viommu, host, reports, messages, ram, view, clock },
    bringUp: () => new GuestVtd({ port, ram, base: 0, messageAddress: 0x2800_0000, firstMessage: 40 }),
    stage1: (domain: number) => new Stage1(ram, "4-level", domain),
    plug: (guestId: number, more: { emulated?: boolean; stream?: string } = {}) =>
      viommu.plug({
        ...{ handle: guestId + 100, guestId, name: `00:0${guestId}.0`, ats: false, pri: false, emulated: false },
        ...more,
      }),
    /** What the host was last given as a device's stage 1. */
    installed: (guestId: number) => {
      const last = host.calls.findLast(({ device }) => device === guestId + 100);
      return last?.call === "setNested" ? iommuHwptVtdS1.decode(last.data!) : (last?.call ?? null);
    },
  };
}

export type Unit = ReturnType<typeof build>;
