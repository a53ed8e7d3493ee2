// The driver on a scripted unit, with devices that a test names, and what it leaves in memory.

import { encodeCapabilities, type VtdFeatures } from "../../../../../host/arch/vtd/capabilities.ts";
import type { HpaPfn } from "../../../../../host/base/address.ts";
import { Clock } from "../../../../../host/base/clock.ts";
import { PhysicalMemory } from "../../../../../host/base/memory.ts";
import { Trace } from "../../../../../host/base/trace.ts";
import { HostFrames } from "../../../../../host/kernel/host-frames.ts";
import { type Injector, NO_INJECTION } from "../../../../../host/kernel/inject.ts";
import { type AttachHandle, DeviceAttachments } from "../../../../../host/kernel/iommu/attachments.ts";
import { IommuCore } from "../../../../../host/kernel/iommu/core.ts";
import type { IommuDevice, IommuDomain, PagingDomain } from "../../../../../host/kernel/iommu/driver.ts";
import { VtdDriver } from "../../../../../host/kernel/iommu/vtd/driver.ts";
import type { VtdUnit } from "../../../../../host/kernel/iommu/vtd/unit.ts";
import { LiveObjects } from "../../../../../host/kernel/live-objects.ts";
import { ScriptedUnit } from "./scripted-unit.ts";

const RAM = 0x10_0000 as HpaPfn;
const PAGES = 2048;

/** A server's unit: both stages and nesting, PASIDs, ATS and page requests. */
export const SERVER: Partial<VtdFeatures> = {
  ...{
    ND: 6,
    SAGAW: 4,
    MGAW: 47,
    SSLPS: 3,
    PSI: true,
    MAMV: 18,
    DWD: true,
    DRD: true,
    FS1GP: true,
    FRO: 0x22,
    NFR: 7,
    IRO: 0x10,
  },
  ...{
    C: true,
    QI: true,
    DT: true,
    IR: true,
    EIM: true,
    PT: true,
    SC: true,
    SMTS: true,
    SSTS: true,
    FSTS: true,
    NEST: true,
  },
  ...{ SMPWCS: true, SSADS: true, PASID: true, PSS: 19, PRS: true, PDS: true, ESRTPS: true, ESIRTPS: true },
};

export interface BenchDevice {
  readonly rid: number;
  readonly ats?: boolean;
  readonly pri?: boolean;
  readonly maxPasids?: number;
}

export function bench(features: Partial<VtdFeatures> = {}, more: { units?: number; injector?: Injector } = {}) {
  const clock = new Clock();
  const trace = new Trace(clock);
  const memory = new PhysicalMemory<HpaPfn>();
  memory.addBank(RAM, new ArrayBuffer(PAGES * 4096));
  const frames = new HostFrames(memory, { base: RAM, pages: PAGES });
  const core = new IommuCore(trace);
  const live = new LiveObjects();
  const driver = new VtdDriver({
    ...{ frames, clock, trace, live, core, deviations: new Set<string>() },
    injector: () => more.injector ?? NO_INJECTION,
    msiWindow: { start: 0n, length: 0n, type: "SW_MSI" },
  });
  const { CAP, ECAP } = encodeCapabilities({ ...SERVER, ...features } as VtdFeatures);
  const hardware = Array.from({ length: more.units ?? 1 }, () => new ScriptedUnit(memory, CAP, ECAP));
  const added = hardware.map((each) => driver.addHardware({ hardware: each, requestMessage: null, defer: () => {} }));
  const load = (address: bigint): bigint => {
    memory.load64(Number(address >> 12n) as HpaPfn, Number(address & 4095n));
    return (BigInt(memory.hi) << 32n) | BigInt(memory.lo);
  };
  return {
    ...{ clock, memory, frames, core, live, driver, hardware, added, load },
    unit: added[0] as VtdUnit,
    /** A device behind a unit, on the kernel's default domain. */
    device({ rid, ats = false, pri = false, maxPasids = 0 }: BenchDevice, behind = 0): TestDevice {
      const device: IommuDevice = {
        ...{ name: `device ${rid.toString(16)}`, deviceId: rid, maxPasids, hasAts: ats, hasPri: pri },
        ...{ isVirtualFunction: false, driverData: null, attachments: new DeviceAttachments() },
        services: {
          setPasid: (on) => void switched.push(`PASID ${on}`),
          setAts: (on) => void switched.push(`ATS ${on}`),
          setPri: (on) => void switched.push(`PRI ${on}`),
        },
      };
      const switched: string[] = [];
      driver.place(device, hardware[behind]!);
      const result = core.addDevice(device, driver);
      if (result < 0) throw new Error(`the device is refused: ${result}`);
      const group = core.groupOf(device)!;
      const owner = {};
      const claimed = group.claim(owner);
      if (claimed < 0) throw new Error(`not claimed: ${claimed}`);
      hardware[behind]!.take();
      return {
        ...{ device, switched },
        attach: (domain, handler = null) => {
          const handle: AttachHandle = { domain, onPageRequests: handler };
          return group.handleAt(-1) === null ? group.attach(handle) : group.replace(handle);
        },
        detach: () => group.detach(),
        attachPasid: (domain, pasid) => {
          const handle: AttachHandle = { domain, onPageRequests: null };
          return group.handleAt(pasid) === null ? group.attachPasid(handle, pasid) : group.replacePasid(handle, pasid);
        },
        detachPasid: (pasid) => group.detachPasid(pasid),
        remove: () => {
          group.release();
          core.removeDevice(device);
        },
      };
    },
    paging(device: TestDevice, flags = 0): PagingDomain {
      const domain = driver.allocPaging(device.device, flags, null);
      if (typeof domain === "number") throw new Error(`no domain: ${domain}`);
      return domain;
    },
    nested(device: TestDevice, parent: PagingDomain, table: bigint, width = 48, flags = 0n) {
      const bytes = new Uint8Array(24);
      const view = new DataView(bytes.buffer);
      view.setBigUint64(0, flags, true);
      view.setBigUint64(8, table, true);
      view.setUint32(16, width, true);
      const domain = driver.allocNested(device.device, parent, 0, { type: 1, bytes, copy: () => bytes });
      if (typeof domain === "number") throw new Error(`no domain: ${domain}`);
      return domain;
    },
    /** The root table's entry for a requester id's context in scalable mode, as four quadwords. */
    context(rid: number): bigint[] {
      const rtaddr = hardware[0]!.register(0x20) & ~0xfffn;
      const half = load(rtaddr + BigInt((rid >> 8) * 16 + ((rid & 0x80) === 0 ? 0 : 8)));
      const at = (half & ~0xfffn) + BigInt((rid & 0x7f) * 32);
      return [0n, 8n, 16n, 24n].map((word) => load(at + word));
    },
    /** Its PASID table entry, eight quadwords; null without a table. */
    pasidEntry(rid: number, pasid = 0): bigint[] | null {
      const directory = this.context(rid)[0]! & ~0xfffn;
      const entry = load(directory + BigInt((pasid >> 6) * 8));
      if ((entry & 1n) === 0n) return null;
      const at = (entry & ~0xfffn) + BigInt((pasid & 63) * 64);
      return Array.from({ length: 8 }, (_, word) => load(at + BigInt(8 * word)));
    },
  };
}

export interface TestDevice {
  readonly device: IommuDevice;
  /** What the driver switched in the device, in order. */
  readonly switched: string[];
  attach(domain: IommuDomain, handler?: AttachHandle["onPageRequests"]): number;
  detach(): void;
  attachPasid(domain: IommuDomain, pasid: number): number;
  detachPasid(pasid: number): void;
  remove(): void;
}

export type Bench = ReturnType<typeof bench>;
