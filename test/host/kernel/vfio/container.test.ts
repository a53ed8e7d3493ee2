// VFIO groups and containers. Whatever type1 and an iommufd acting as a container must answer alike is one suite run on both; where
// Linux documents a difference (vfio_compat.c; the room's README has the table) there is a test of its own.

import { describe, expect, it } from "vitest";
import * as R from "../../../../host/devices/edu/registers.ts";
import {
  EACCES,
  EBADFD,
  EBUSY,
  EEXIST,
  EINVAL,
  ENODEV,
  ENOTTY,
  EOVERFLOW,
  EPERM,
} from "../../../../host/uapi/errno.ts";
import * as X from "../../../../host/uapi/vfio.ts";
import * as C from "../../../../host/uapi/vfio-container.ts";
import { eduDma, eduOutcome, KIND, MESSAGES, machine, name, type User } from "../machine.ts";

const RID = 0x0108;
const PAGE = 4096n;

const containers: [string, "type1" | "iommufd", string][] = [
  ["the type1 container", "type1", "/dev/vfio/vfio"],
  ["an iommufd as container", "type1", "/dev/iommu"],
  ["/dev/vfio/vfio served by iommufd", "iommufd", "/dev/vfio/vfio"],
];

function open(kind: "type1" | "iommufd", path: string, type = C.VFIO_TYPE1v2_IOMMU) {
  const host = machine({ vfio: { container: kind }, devices: [{ rid: RID }, { rid: 0x0110 }] });
  host.assign();
  const user = host.user();
  const container = user.open(path);
  const group = user.open(host.vfio.groupNodeOf(name(RID))!);
  expect(user.setContainer(group, container)).toBe(0);
  expect(user.process.ioctl(container, C.VFIO_SET_IOMMU, BigInt(type))).toBe(0);
  const device = user.deviceFd(group, name(RID));
  expect(device).toBeGreaterThan(0);
  const end = () => {
    user.process.exit();
    expect(host.kernel.liveKinds).toEqual([]);
  };
  return { host, user, container, group, device, end };
}

function memory(user: User, pages = 16): bigint {
  return user.process.memory.mapBuffer(new ArrayBuffer(pages * 4096), 0, pages * 4096);
}

describe.each(containers)("%s", (_name, kind, path) => {
  it("lets a device's DMA reach mapped memory and nothing else", () => {
    const { host, user, container, device, end } = open(kind, path);
    const va = memory(user);
    expect(user.mapDma(container, va, 0x10_0000n, 16n * PAGE)).toBe(0);
    user.enableDevice(device);
    const bar = user.bar0(device);
    user.process.memory.bytes(va, 4096).fill(0x5c);
    eduDma(bar, 0x10_0000n, 4096, false);
    host.run(100_000);
    eduDma(bar, 0x10_1000n, 4096, true);
    host.run(100_000);
    expect(user.process.memory.bytes(va + PAGE, 4096).every((byte) => byte === 0x5c)).toBe(true);
    eduDma(bar, 0x20_0000n, 64, false);
    host.run(100_000);
    expect(eduOutcome(bar)).toBe(R.OUTCOME_REFUSED);
    expect(user.unmapDma(container, 0x10_0000n, 16n * PAGE)).toEqual([0, 16n * PAGE]);
    eduDma(bar, 0x10_0000n, 64, false);
    host.run(100_000);
    expect(eduOutcome(bar)).toBe(R.OUTCOME_REFUSED);
    end();
  });

  it("lets the device's interrupt through its MSI window", () => {
    const { host, user, device, end } = open(kind, path);
    user.enableDevice(device);
    const { eventfd, result } = user.irq(device, X.VFIO_PCI_MSI_IRQ_INDEX);
    expect(result).toBe(0);
    user.bar0(device).mmioWrite(R.INTERRUPT_RAISE, 4, 1, 0);
    host.run(1_000);
    expect(user.count(eventfd)).toBe(1);
    end();
  });

  it.each<[string, bigint, bigint, bigint, number]>([
    ["size 0", 0x1000n, 0n, 3n, -EINVAL],
    ["a size that is no page", 0x1000n, 100n, 3n, -EINVAL],
    ["an IOVA that is no page", 0x1234n, PAGE, 3n, -EINVAL],
    ["unknown flags", 0x1000n, PAGE, 3n | 128n, -EINVAL],
    ["a range that wraps", (1n << 64n) - PAGE, 2n * PAGE, 3n, -EOVERFLOW],
    ["the MSI window", MESSAGES.base, PAGE, 3n, -EINVAL],
    ["an IOVA past the aperture", 1n << 60n, PAGE, 3n, -EINVAL],
  ])("refuses to map %s", (_what, iova, size, flags, errno) => {
    const { user, container, end } = open(kind, path);
    expect(user.mapDma(container, memory(user), iova, size, Number(flags))).toBe(errno);
    end();
  });

  it("refuses to map over a mapping", () => {
    const { user, container, end } = open(kind, path);
    const va = memory(user);
    expect(user.mapDma(container, va, 0x1000n, 4n * PAGE)).toBe(0);
    expect(user.mapDma(container, va, 0x3000n, 4n * PAGE)).toBe(-EEXIST);
    end();
  });

  it("unmaps everything with UNMAP_ALL, which takes no range", () => {
    const { user, container, end } = open(kind, path);
    const va = memory(user);
    user.mapDma(container, va, 0x1000n, PAGE);
    user.mapDma(container, va, 0x9000n, PAGE);
    expect(user.unmapDma(container, 0x1000n, PAGE, C.VFIO_DMA_UNMAP_FLAG_ALL)[0]).toBe(-EINVAL);
    expect(user.unmapDma(container, 0n, 0n, C.VFIO_DMA_UNMAP_FLAG_ALL)).toEqual([0, 2n * PAGE]);
    end();
  });

  it("unmaps a range that spans mappings and holes, and reports the bytes", () => {
    const { user, container, end } = open(kind, path);
    const va = memory(user);
    user.mapDma(container, va, 0x1000n, PAGE);
    user.mapDma(container, va, 0x9000n, 2n * PAGE);
    expect(user.unmapDma(container, 0n, 16n * PAGE)).toEqual([0, 3n * PAGE]);
    expect(user.unmapDma(container, 0n, 16n * PAGE)).toEqual([0, 0n]);
    end();
  });

  it("says what it can do", () => {
    const { user, container, end } = open(kind, path);
    const check = (extension: number) => user.process.ioctl(container, C.VFIO_CHECK_EXTENSION, BigInt(extension));
    expect(user.process.ioctl(container, C.VFIO_GET_API_VERSION, 0n)).toBe(0);
    const asked = [C.VFIO_TYPE1_IOMMU, C.VFIO_TYPE1v2_IOMMU, C.VFIO_UNMAP_ALL, C.VFIO_NOIOMMU_IOMMU, 6].map(check);
    expect(asked).toEqual([1, 1, 1, 0, 0]);
    const info = user.must(container, C.VFIO_IOMMU_GET_INFO, C.vfioIommuType1Info, {}, new Uint8Array(256));
    expect(info.flags).toBe(C.VFIO_IOMMU_INFO_PGSIZES | C.VFIO_IOMMU_INFO_CAPS);
    expect(info.iova_pgsizes & 0x20_1000n).toBe(0x20_1000n);
    expect(info.cap_offset).toBe(24);
    // The chain: each capability has its id, and the ranges leave out the MSI window.
    const bytes = user.process.memory.bytes(user.scratch, 280);
    const view = new DataView(bytes.buffer, bytes.byteOffset, 280);
    const ids: number[] = [];
    const ranges: [bigint, bigint][] = [];
    for (let at = info.cap_offset; at !== 0; at = view.getUint32(at + 4, true)) {
      const id = view.getUint16(at, true);
      ids.push(id);
      if (id !== C.VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE) continue;
      for (let i = 0; i < view.getUint32(at + 8, true); i++) {
        ranges.push([view.getBigUint64(at + 16 + 16 * i, true), view.getBigUint64(at + 24 + 16 * i, true)]);
      }
    }
    expect(ids.filter((id) => id !== C.VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION).sort()).toEqual([1, 3]);
    expect(ranges[0]).toEqual([0n, MESSAGES.base - 1n]);
    expect(ranges[1]![0]).toBe(MESSAGES.base + MESSAGES.bytes);
    end();
  });

  it("keeps its group until the group leaves", () => {
    const { user, group, device, container, end } = open(kind, path);
    expect(user.groupFlags(group)).toBe(C.VFIO_GROUP_FLAGS_VIABLE | C.VFIO_GROUP_FLAGS_CONTAINER_SET);
    expect(user.setContainer(group, container)).toBe(-EINVAL);
    user.process.close(device);
    expect(user.process.ioctl(group, C.VFIO_GROUP_UNSET_CONTAINER, 0n)).toBe(0);
    expect(user.process.ioctl(group, C.VFIO_GROUP_UNSET_CONTAINER, 0n)).toBe(-EINVAL);
    expect(user.groupFlags(group)).toBe(C.VFIO_GROUP_FLAGS_VIABLE);
    end();
  });

  it("opens one device several times; the last close is the one that counts", () => {
    const { host, user, group, device, end } = open(kind, path);
    const again = user.deviceFd(group, name(RID));
    expect(again).toBeGreaterThan(0);
    user.enableDevice(device);
    user.process.close(device);
    expect(user.configRead(again, 4, 2) & 4).toBe(4);
    user.process.close(group);
    expect(host.kernel.iommu.ownedGroups).toBe(1);
    user.process.close(again);
    expect(host.kernel.iommu.ownedGroups).toBe(0);
    end();
  });

  it("knows only the devices of the group, and no page-table requests on a device opened through it", () => {
    const { user, group, device, end } = open(kind, path);
    expect(user.deviceFd(group, name(0x0110))).toBe(-ENODEV);
    expect(user.attach(device, 1)).toBe(-ENOTTY);
    expect(user.detach(device)).toBe(-ENOTTY);
    expect(user.bind(device, user.iommufd())).toBe(-EINVAL);
    end();
  });

  it("leaves nothing pinned when the process goes with everything open", () => {
    const { host, user, container, end } = open(kind, path);
    user.mapDma(container, memory(user, 512), 0x20_0000n, 512n * PAGE);
    expect(host.kernel.frames.pins.total).toBe(512);
    end();
  });
});

describe("the differences between type1 and an iommufd as container", () => {
  it("type1 refuses a mapping without rights, iommufd takes it", () => {
    for (const [path, expected] of [
      ["/dev/vfio/vfio", -EINVAL],
      // Its tables decide: RISC-V's may say that nothing but execution is allowed, x86's that there is no writing; VMSAv8-64's map nothing
      // (io-pgtable-arm.c).
      ["/dev/iommu", KIND === "smmuv3" ? -EINVAL : 0],
    ] as const) {
      const { user, container, end } = open("type1", path);
      expect(user.mapDma(container, memory(user), 0x1000n, PAGE, 0)).toBe(expected);
      end();
    }
  });

  it("a v2 unmap that cuts a mapping is EINVAL from type1 and ENOENT from iommufd", () => {
    for (const [path, expected] of [
      ["/dev/vfio/vfio", -EINVAL],
      ["/dev/iommu", -2],
    ] as const) {
      const { user, container, end } = open("type1", path);
      user.mapDma(container, memory(user), 0x1000n, 4n * PAGE);
      expect(user.unmapDma(container, 0x1000n, PAGE)[0]).toBe(expected);
      end();
    }
  });

  it("type1 claims the group when it enters, iommufd when a device is opened", () => {
    const host = machine();
    host.assign();
    const user = host.user();
    const group = user.open(host.vfio.groupNodeOf(name(RID))!);
    const iommufd = user.iommufd();
    expect(user.setContainer(group, iommufd)).toBe(0);
    expect(host.kernel.iommu.ownedGroups).toBe(0);
    user.process.ioctl(group, C.VFIO_GROUP_UNSET_CONTAINER, 0n);
    expect(user.setContainer(group, user.open("/dev/vfio/vfio"))).toBe(0);
    expect(host.kernel.iommu.ownedGroups).toBe(1);
    user.process.exit();
    expect(host.kernel.liveObjects).toBe(0);
  });
});

describe("type1 v1", () => {
  it("unmaps nothing for a range that begins inside a mapping, and all of one whose first byte it covers", () => {
    const { user, container, end } = open("type1", "/dev/vfio/vfio", C.VFIO_TYPE1_IOMMU);
    const va = memory(user);
    user.mapDma(container, va, 0x1000n, 4n * PAGE);
    user.mapDma(container, va, 0x8000n, 4n * PAGE);
    expect(user.unmapDma(container, 0x2000n, PAGE)).toEqual([0, 0n]);
    expect(user.unmapDma(container, 0x1000n, PAGE)).toEqual([0, 4n * PAGE]);
    expect(user.unmapDma(container, 0x7000n, 2n * PAGE)).toEqual([0, 4n * PAGE]);
    end();
  });
});

describe("dirty pages of type1", () => {
  const dirty = (user: User, container: number, flags: number, get?: Partial<Record<string, bigint>>): number => {
    const tail = C.vfioIommuType1DirtyBitmapGet.encode(get ?? {});
    return user.call(container, C.VFIO_IOMMU_DIRTY_PAGES, C.vfioIommuType1DirtyBitmap, { flags }, tail).result;
  };
  const { VFIO_IOMMU_DIRTY_PAGES_FLAG_START: START, VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP: STOP } = C;
  const GET = C.VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP;

  it("are every mapped page while tracking is on", () => {
    const { user, container, end } = open("type1", "/dev/vfio/vfio");
    const va = memory(user);
    user.mapDma(container, va, 0x1000n, 2n * PAGE);
    user.mapDma(container, va, 0x6000n, PAGE);
    const bitmap = user.scratch + 8192n;
    user.process.memory.bytes(bitmap, 8).fill(0);
    const get = { iova: 0n, size: 16n * PAGE, pgsize: PAGE, bitmap_size: 8n, bitmap_data: bitmap };
    expect(dirty(user, container, GET, get)).toBe(-EINVAL);
    expect(dirty(user, container, START)).toBe(0);
    expect(dirty(user, container, GET, get)).toBe(0);
    expect([...user.process.memory.bytes(bitmap, 2)]).toEqual([0b0100_0110, 0]);
    expect(dirty(user, container, GET, { ...get, iova: 0x2000n })).toBe(-EINVAL);
    expect(dirty(user, container, GET, { ...get, pgsize: 0x20_0000n })).toBe(-EINVAL);
    expect(dirty(user, container, GET, { ...get, bitmap_size: 7n })).toBe(-EINVAL);
    expect(dirty(user, container, GET | START, get)).toBe(-EINVAL);
    // Together with an unmap: of one whole mapping.
    const unmap = (iova: bigint, size: bigint) => {
      const tail = C.vfioBitmap.encode({ pgsize: PAGE, size: 8n, data: bitmap });
      const flags = C.VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP;
      return user.call(container, C.VFIO_IOMMU_UNMAP_DMA, C.vfioIommuType1DmaUnmap, { flags, iova, size }, tail).result;
    };
    user.process.memory.bytes(bitmap, 8).fill(0);
    expect(unmap(0x1000n, PAGE)).toBe(-EINVAL);
    expect(unmap(0x1000n, 2n * PAGE)).toBe(0);
    expect(user.process.memory.bytes(bitmap, 1)[0]).toBe(0b11);
    expect(dirty(user, container, STOP)).toBe(0);
    expect(unmap(0x6000n, PAGE)).toBe(-EINVAL);
    end();
  });

  it("are not for v1", () => {
    const { user, container, end } = open("type1", "/dev/vfio/vfio", C.VFIO_TYPE1_IOMMU);
    expect(dirty(user, container, START)).toBe(-EACCES);
    end();
  });
});

describe("a container before it is ready", () => {
  it("needs a group before SET_IOMMU, SET_IOMMU before devices, and takes SET_IOMMU once", () => {
    const host = machine();
    host.assign();
    const user = host.user();
    const container = user.open("/dev/vfio/vfio");
    const group = user.open(host.vfio.groupNodeOf(name(RID))!);
    const setIommu = (type: number) => user.process.ioctl(container, C.VFIO_SET_IOMMU, BigInt(type));
    expect(user.mapDma(container, 0n, 0x1000n, PAGE)).toBe(-EINVAL);
    expect(setIommu(C.VFIO_TYPE1_IOMMU)).toBe(-EINVAL);
    expect(user.deviceFd(group, name(RID))).toBe(-EINVAL);
    expect(user.setContainer(group, user.process.eventfd())).toBe(-EBADFD);
    expect(user.setContainer(group, container)).toBe(0);
    expect(user.deviceFd(group, name(RID))).toBe(-EINVAL);
    expect(setIommu(C.VFIO_NOIOMMU_IOMMU)).toBe(-ENODEV);
    expect(setIommu(6)).toBe(-ENODEV);
    expect(setIommu(C.VFIO_TYPE1v2_IOMMU)).toBe(0);
    expect(setIommu(C.VFIO_TYPE1v2_IOMMU)).toBe(-EINVAL);
    user.process.exit();
    expect(host.kernel.liveObjects).toBe(0);
  });

  it("takes a second group into the domains it has, mappings included", () => {
    const { host, user, container, end } = open("type1", "/dev/vfio/vfio");
    const va = memory(user);
    user.mapDma(container, va, 0x1000n, PAGE);
    const second = user.open(host.vfio.groupNodeOf(name(0x0110))!);
    expect(user.setContainer(second, container)).toBe(0);
    const device = user.deviceFd(second, name(0x0110));
    user.enableDevice(device);
    const bar = user.bar0(device);
    eduDma(bar, 0x1000n, 64, false);
    host.run(100_000);
    expect(eduOutcome(bar)).toBe(R.OUTCOME_DONE);
    end();
  });

  it("is independent of another one in the same process", () => {
    const { host, user, container, end } = open("type1", "/dev/vfio/vfio");
    const va = memory(user);
    user.mapDma(container, va, 0x1000n, PAGE);
    const other = user.open("/dev/vfio/vfio");
    const second = user.open(host.vfio.groupNodeOf(name(0x0110))!);
    expect(user.setContainer(second, other)).toBe(0);
    expect(user.process.ioctl(other, C.VFIO_SET_IOMMU, BigInt(C.VFIO_TYPE1v2_IOMMU))).toBe(0);
    expect(user.unmapDma(other, 0x1000n, PAGE)).toEqual([0, 0n]);
    expect(user.mapDma(other, va, 0x1000n, PAGE)).toBe(0);
    expect(host.kernel.frames.pins.total).toBe(2);
    end();
  });
});

describe("owners of a group", () => {
  const twoInOne = () => machine({ devices: [{ rid: RID }, { rid: 0x0110 }], groups: [[RID, 0x0110]] });
  const kernelDriver = { name: "edu", managesDma: false, probe: () => 0, remove: () => true };

  it("a sibling's kernel driver makes the group unusable for a container and for an iommufd", () => {
    const host = twoInOne();
    host.kernel.pci.registerDriver(kernelDriver);
    expect(host.kernel.pci.bind(name(0x0110), "edu")).toBe(0);
    host.assign(RID);
    const user = host.user();
    const group = user.open(host.vfio.groupNodeOf(name(RID))!);
    expect(user.groupFlags(group)).toBe(0);
    expect(user.setContainer(group, user.open("/dev/vfio/vfio"))).toBe(-EPERM);
    user.process.close(group);
    const device = user.open(host.vfio.nodeOf(name(RID))!);
    expect(user.bind(device, user.iommufd())).toBe(-EPERM);
    user.process.exit();
    expect(host.kernel.liveObjects).toBe(0);
  });

  it("a sibling at pci-stub does not", () => {
    const host = twoInOne();
    expect(host.kernel.pci.bind(name(0x0110), "pci-stub")).toBe(0);
    host.assign(RID);
    const user = host.user();
    const device = user.open(host.vfio.nodeOf(name(RID))!);
    expect(user.bind(device, user.iommufd())).toBeGreaterThan(0);
    user.process.exit();
  });

  it("user space keeps kernel drivers out of the whole group, until it lets go", () => {
    const host = twoInOne();
    host.kernel.pci.registerDriver(kernelDriver);
    host.assign(RID);
    const user = host.user();
    const device = user.open(host.vfio.nodeOf(name(RID))!);
    user.bind(device, user.iommufd());
    expect(host.kernel.pci.bind(name(0x0110), "edu")).toBe(-EBUSY);
    user.process.close(device);
    expect(host.kernel.pci.bind(name(0x0110), "edu")).toBe(0);
    user.process.exit();
  });

  it("a failed probe gives the group back", () => {
    const host = twoInOne();
    host.kernel.pci.registerDriver({ ...kernelDriver, name: "broken", probe: () => -ENODEV });
    expect(host.kernel.pci.bind(name(0x0110), "broken")).toBe(-ENODEV);
    host.assign(RID);
    const user = host.user();
    const device = user.open(host.vfio.nodeOf(name(RID))!);
    expect(user.bind(device, user.iommufd())).toBeGreaterThan(0);
    user.process.exit();
  });

  it("two iommufd contexts cannot share a group, one can bind all of it", () => {
    const host = twoInOne();
    host.assign();
    const user = host.user();
    const first = user.open(host.vfio.nodeOf(name(RID))!);
    const second = user.open(host.vfio.nodeOf(name(0x0110))!);
    const [mine, other] = [user.iommufd(), user.iommufd()];
    expect(user.bind(first, mine)).toBeGreaterThan(0);
    expect(user.bind(second, other)).toBe(-EPERM);
    expect(user.bind(second, mine)).toBeGreaterThan(0);
    user.process.exit();
    expect(host.kernel.liveObjects).toBe(0);
  });

  it("the group's node and the devices' nodes exclude each other", () => {
    const host = twoInOne();
    host.assign();
    const user = host.user();
    const groupNode = host.vfio.groupNodeOf(name(RID))!;
    const group = user.open(groupNode);
    expect(user.open(groupNode)).toBe(-EBUSY);
    const device = user.open(host.vfio.nodeOf(name(RID))!);
    const iommufd = user.iommufd();
    expect(user.bind(device, iommufd)).toBe(-EBUSY);
    user.process.close(group);
    // A bind that fails leaves the group free.
    expect(user.bind(device, user.process.eventfd())).toBe(-EBADFD);
    const again = user.open(groupNode);
    expect(again).toBeGreaterThanOrEqual(0);
    user.process.close(again);
    expect(user.bind(device, iommufd)).toBeGreaterThan(0);
    expect(user.open(groupNode)).toBe(-EBUSY);
    user.process.close(device);
    expect(user.open(groupNode)).toBeGreaterThanOrEqual(0);
    user.process.exit();
    expect(host.kernel.liveObjects).toBe(0);
  });

  it("a device by its node is bound once, to one context", () => {
    const host = machine();
    host.assign();
    const user = host.user();
    const path = host.vfio.nodeOf(name(RID))!;
    const [first, second, iommufd] = [user.open(path), user.open(path), user.iommufd()];
    expect(user.bind(first, iommufd)).toBeGreaterThan(0);
    expect(user.bind(first, iommufd)).toBe(-EINVAL);
    expect(user.bind(second, iommufd)).toBe(-EINVAL);
    user.process.close(first);
    expect(user.bind(second, iommufd)).toBeGreaterThan(0);
    user.process.exit();
  });
});
