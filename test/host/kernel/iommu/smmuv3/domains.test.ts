// Domains of the SMMUv3 driver, judged by what an assigned device's DMA does through the hardware model.

import { describe, expect, it } from "vitest";
import * as R from "../../../../../host/devices/edu/registers.ts";
import type { Smmuv3Options } from "../../../../../host/hw/iommu/smmuv3/options.ts";
import type { IommuCapability, PagingDomain } from "../../../../../host/kernel/iommu/driver.ts";
import { EBUSY, EINVAL, ENOSPC, EOPNOTSUPP } from "../../../../../host/uapi/errno.ts";
import * as I from "../../../../../host/uapi/iommufd.ts";
import { IOMMU_HW_INFO_TYPE_ARM_SMMUV3 } from "../../../../../host/uapi/smmuv3-nesting.ts";
import * as X from "../../../../../host/uapi/vfio.ts";
import { eduDma, eduOutcome, type Machine, machine, name, type User } from "../../machine.ts";

const RID = 0x0108;
const IOVA = 0x4000_0000n;

/** An assigned edu, its process with `bytes` of memory mapped at IOVA. */
function assigned(host: Machine, bytes = 4 << 20, rid = RID) {
  host.assign();
  const user: User = host.user();
  const buffer = new ArrayBuffer(bytes);
  const va = user.process.memory.mapBuffer(buffer, 0, bytes);
  const iommufd = user.iommufd();
  const ioas = user.ioas(iommufd);
  expect(user.map(iommufd, ioas, va, bytes, IOVA)).toBe(0);
  const vfio = user.open(host.vfio.nodeOf(name(rid))!);
  const device = user.bind(vfio, iommufd);
  expect(device).toBeGreaterThan(0);
  user.enableDevice(vfio);
  const bar = user.bar0(vfio);
  const dma = (address: bigint, toRam: boolean): number => {
    eduDma(bar, address, 64, toRam);
    host.run(100_000);
    return eduOutcome(bar);
  };
  return { user, bytes: new Uint8Array(buffer), va, iommufd, ioas, vfio, device, bar, dma };
}

const variety: [string, Smmuv3Options][] = [
  ["as it comes", {}],
  ["no EL2", { features: { Hyp: false } }],
  ["wired interrupts, CONS for a CMD_SYNC", { features: { MSI: false } }],
  ["no range invalidation", { features: { RIL: false } }],
  ["40 address bits", { features: { OAS: 2 } }],
  ["42 address bits", { features: { OAS: 3 } }],
  ["44 address bits", { features: { OAS: 4 } }],
  ["8-bit tags", { features: { ASID16: false, VMID16: false } }],
  ["a linear stream table", { features: { ST_LEVEL: 0, SIDSIZE: 6 } }],
  ["stage 1 only", { features: { S2P: false } }],
  ["stage 2 only", { features: { S1P: false } }],
  ["no PASIDs", { features: { SSIDSIZE: 0 } }],
  ["no ATS", { features: { ATS: false } }],
  ["no stalls", { features: { STALL_MODEL: 1 } }],
  ["stalls forced", { features: { STALL_MODEL: 2 } }],
  ["incoming attributes overridden", { features: { ATTR_TYPES_OVR: true, ATTR_PERMS_OVR: true } }],
  ["tables of either order", { features: { TTENDIAN: 0 } }],
  ["small queues", { features: { CMDQS: 7, EVENTQS: 2, PRIQS: 2 } }],
  ["no caches", { caches: { streams: 0, contexts: 0, translations: 0, tables: 0 } }],
];

describe.each(variety)("an SMMUv3 with %s", (_name, options) => {
  const rid = options.features?.SIDSIZE === 6 ? 0x18 : RID;
  const open = () => assigned(machine({ smmus: [options], devices: [{ rid }] }), 4 << 20, rid);

  it.each([
    ["a plain HWPT", 0],
    ["a nest parent", I.IOMMU_HWPT_ALLOC_NEST_PARENT],
  ])("carries DMA through %s, until it is unmapped", (_what, flags) => {
    const { user, iommufd, ioas, vfio, device, dma, bytes } = open();
    const hwpt = user.hwpt(iommufd, device, ioas, { flags });
    const { S1P = true, S2P = true } = options.features ?? {};
    if (flags !== 0 && !(S1P && S2P)) {
      expect(hwpt).toBe(-EOPNOTSUPP);
      return;
    }
    expect(hwpt).toBeGreaterThan(0);
    expect(dma(IOVA, true)).toBe(R.OUTCOME_REFUSED);
    expect(user.attach(vfio, hwpt)).toBe(hwpt);
    bytes.fill(0x5a, 0x20_0000, 0x20_0040);
    expect(dma(IOVA + 0x20_0000n, false)).toBe(R.OUTCOME_DONE);
    expect(dma(IOVA + 0x1000n, true)).toBe(R.OUTCOME_DONE);
    expect(bytes.subarray(0x1000, 0x1040)).toEqual(new Uint8Array(64).fill(0x5a));
    expect(dma(IOVA + 0x40_0000n, true)).toBe(R.OUTCOME_REFUSED);
    expect(user.unmap(iommufd, ioas, IOVA, 4n << 20n)).toBe(0);
    expect(dma(IOVA + 0x1000n, true)).toBe(R.OUTCOME_REFUSED);
    expect(dma(IOVA + 0x20_0000n, false)).toBe(R.OUTCOME_REFUSED);
    expect(user.detach(vfio)).toBe(0);
  });

  it("gives everything back", () => {
    const host = machine({ smmus: [options], devices: [{ rid }] });
    host.assign();
    const before = host.kernel.frames.usedPages;
    host.kernel.pci.unbind(name(rid));
    const { user, iommufd, ioas, vfio, device, dma } = assigned(host, 4 << 20, rid);
    const hwpt = user.hwpt(iommufd, device, ioas);
    user.attach(vfio, hwpt);
    expect(dma(IOVA, true)).toBe(R.OUTCOME_DONE);
    expect(user.irq(vfio, X.VFIO_PCI_MSI_IRQ_INDEX).result).toBe(0);
    user.process.exit();
    expect(host.kernel.liveKinds).toEqual([]);
    expect(host.kernel.frames.usedPages).toBe(before);
  });
});

describe("what the driver says of its hardware", () => {
  const hardwareInfo = (options: Smmuv3Options, type: number) => {
    const host = machine({ smmus: [options] });
    const device = host.kernel.iommu.deviceNamed(name(RID))!;
    const driver = host.kernel.iommu.driverOf(device)!;
    return { host, device, driver, info: driver.hwInfo!(device, type) };
  };

  it.each([0, IOMMU_HW_INFO_TYPE_ARM_SMMUV3])("is its registers as they read, for type %d", (type) => {
    const { host, info } = hardwareInfo({ iidr: 0x1234_5678, features: { OAS: 3 } }, type);
    if (typeof info === "number") throw new Error(`no info: ${info}`);
    expect(info.type).toBe(IOMMU_HW_INFO_TYPE_ARM_SMMUV3);
    const { registers } = host.iommus[0]!;
    const words = [0x00, 0x04, 0x08, 0x0c, 0x10, 0x14, 0x18, 0x1c].map((at) => registers.mmioRead(at, 4) >>> 0);
    // flags and __reserved, idr[6], iidr, aidr (uapi linux/iommufd.h).
    expect([...new Uint32Array(info.bytes.slice().buffer)]).toEqual([0, 0, ...words]);
    expect(words[6]).toBe(0x1234_5678);
  });

  it("is nothing for another type", () => {
    expect(hardwareInfo({}, 1).info).toBe(-EOPNOTSUPP);
  });

  it.each<[IommuCapability, Smmuv3Options, boolean]>([
    ["CACHE_COHERENCY", {}, true],
    ["CACHE_COHERENCY", { features: { COHACC: false } }, false],
    ["DIRTY_TRACKING", {}, true],
    ["DIRTY_TRACKING", { features: { HTTU: 1 } }, false],
    ["DIRTY_TRACKING", { features: { COHACC: false } }, false],
    ["ENFORCE_CACHE_COHERENCY", {}, false],
    ["PCI_ATS_SUPPORTED", {}, false],
  ])("is that it has %s, with %o: %s", (capability, options, expected) => {
    const { driver, device } = hardwareInfo(options, 0);
    expect(driver.capable(device, capability)).toBe(expected);
  });
});

it("VFIO takes no device behind an SMMUv3 that is not coherent (vfio_register_group_dev)", () => {
  const host = machine({ smmus: [{ features: { COHACC: false } }] });
  expect(host.problems).toEqual([]);
  expect(host.kernel.pci.bind(name(RID), "vfio-pci")).toBe(-EINVAL);
});

describe("tags", () => {
  it.each([
    ["ASIDs", 0, -EBUSY],
    ["VMIDs", I.IOMMU_HWPT_ALLOC_NEST_PARENT, -ENOSPC],
  ])(
    "%s of 8 bits are 255; without any left a domain is refused, and one that goes gives its own back",
    (_what, flags, errno) => {
      const host = machine({ smmus: [{ features: { ASID16: false, VMID16: false } }] });
      const device = host.kernel.iommu.deviceNamed(name(RID))!;
      const driver = host.kernel.iommu.driverOf(device)!;
      const make = () => driver.allocPaging(device, flags, null);
      const domains: PagingDomain[] = [];
      for (let made = make(); ; made = make()) {
        if (typeof made === "number") {
          expect(made).toBe(errno);
          break;
        }
        domains.push(made);
      }
      expect(domains.length).toBe(255);
      domains.pop()!.free();
      const again = make();
      if (typeof again === "number") throw new Error(`no domain: ${again}`);
      for (const domain of [...domains, again]) domain.free();
      expect(host.kernel.liveKinds).toEqual([]);
    },
  );
});

describe("domains", () => {
  it("of pages that are larger than the kernel's do not go with an IOAS (Linux: iopt_table_add_domain)", () => {
    const { user, iommufd, ioas, device } = assigned(machine({ smmus: [{ features: { GRAN4K: false } }] }));
    expect(user.hwpt(iommufd, device, ioas)).toBe(-EINVAL);
  });

  it("with dirty tracking are of stage 1 and no nest parents", () => {
    const { user, iommufd, ioas, device } = assigned(machine({ smmus: [{}] }));
    expect(user.hwpt(iommufd, device, ioas, { flags: I.IOMMU_HWPT_ALLOC_DIRTY_TRACKING })).toBeGreaterThan(0);
    const both = I.IOMMU_HWPT_ALLOC_DIRTY_TRACKING | I.IOMMU_HWPT_ALLOC_NEST_PARENT;
    expect(user.hwpt(iommufd, device, ioas, { flags: both })).toBe(-EOPNOTSUPP);
  });

  it("are one SMMU's", () => {
    const host = machine({
      smmus: [{}, {}],
      devices: [{ rid: RID }, { rid: 0x0110, iommu: 1 }],
    });
    const { user, iommufd, ioas, device } = assigned(host);
    const hwpt = user.hwpt(iommufd, device, ioas);
    const other = user.open(host.vfio.nodeOf(name(0x0110))!);
    user.bind(other, iommufd);
    expect(user.attach(other, hwpt)).toBe(-EINVAL);
  });
});
