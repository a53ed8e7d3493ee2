// vfio-platform against Linux's (drivers/vfio/platform/vfio_platform_common.c, vfio_platform_irq.c; vfio_main.c for what all devices share):
// an edu on no bus behind a RISC-V IOMMU, driven by a process through its cdev and through its group.

import { describe, expect, it } from "vitest";
import * as R from "../../../../host/devices/edu/registers.ts";
import { EBADF, EBUSY, EFAULT, EINVAL, ENODEV, ENOTTY, EOPNOTSUPP } from "../../../../host/uapi/errno.ts";
import * as X from "../../../../host/uapi/vfio.ts";
import * as C from "../../../../host/uapi/vfio-container.ts";
import { eduDma, eduOutcome, type Machine, machine, name, type User } from "../machine.ts";

const NAME = "edu0";
const DEVICE_ID = 0x4711;
const IOVA = 0x10_0000n;
const OFFSET = (index: number, at = 0) => (BigInt(index) << 40n) | BigInt(at);

function onPlatform(): { host: Machine; user: User } {
  const host = machine({ platform: [{ name: NAME, deviceId: DEVICE_ID }] });
  expect(host.problems).toEqual([]);
  expect(host.kernel.platform.bind(NAME, "vfio-platform")).toBe(0);
  return { host, user: host.user() };
}

/** Opened by its node, bound, attached to an IOAS in which a page of the process is at IOVA. */
function driven() {
  const { host, user } = onPlatform();
  const vfio = user.open(host.vfio.nodeOf(NAME)!);
  const iommufd = user.iommufd();
  const device = user.bind(vfio, iommufd);
  const ioas = user.ioas(iommufd);
  expect(user.attach(vfio, ioas)).toBeGreaterThan(0);
  const page = user.process.memory.allocate(4096);
  expect(user.map(iommufd, ioas, page, 4096, IOVA)).toBe(0);
  return { host, user, vfio, iommufd, device, ioas, page, region: user.bar0(vfio) };
}

const TRIGGER = X.VFIO_IRQ_SET_ACTION_TRIGGER;
const MASK = X.VFIO_IRQ_SET_ACTION_MASK;
const UNMASK = X.VFIO_IRQ_SET_ACTION_UNMASK;
const NONE = X.VFIO_IRQ_SET_DATA_NONE;
const BOOL = X.VFIO_IRQ_SET_DATA_BOOL;
const EVENTFD = X.VFIO_IRQ_SET_DATA_EVENTFD;

describe("a platform device and its drivers", () => {
  it("has a group of its own; a kernel driver owns its DMA, vfio-platform does not until it is used", () => {
    const { host, user } = onPlatform();
    const { iommu, platform } = host.kernel;
    const group = iommu.groupOf(platform.device(NAME)!.iommuDevice!)!;
    expect(group.devices.map((device) => device.name)).toEqual([NAME]);
    expect(platform.bind(NAME, "vfio-platform")).toBe(-EBUSY);
    expect(platform.unbind(NAME)).toBe(0);
    expect(host.vfio.nodeOf(NAME)).toBeNull();
    platform.registerDriver({ name: "edu", managesDma: false, probe: () => 0, remove: () => true });
    expect(platform.bind(NAME, "edu")).toBe(0);
    expect(platform.unbind(NAME)).toBe(0);
    expect(platform.bind(NAME, "vfio-platform")).toBe(0);
    const vfio = user.open(host.vfio.nodeOf(NAME)!);
    user.bind(vfio, user.iommufd());
    expect(platform.unbind(NAME), "waits for its user").toBe(1);
    expect(platform.bind(NAME, "edu")).toBe(-EBUSY);
    user.process.close(vfio);
    expect(platform.device(NAME)!.driver).toBeNull();
    expect(platform.bind(NAME, "edu")).toBe(0);
    user.process.exit();
    expect(host.kernel.liveObjects).toBe(0);
  });

  it("is not vfio-platform's without an IOMMU, nor vfio-pci's; a PCI function is not vfio-platform's", () => {
    const host = machine({ platform: [{ name: NAME, deviceId: 0, iommu: null }] });
    expect(host.kernel.platform.bind(NAME, "vfio-platform")).toBe(-EINVAL);
    expect(host.kernel.platform.bind(NAME, "vfio-pci")).toBe(-ENODEV);
    expect(host.kernel.pci.bind(NAME, "vfio-pci")).toBe(-ENODEV);
    expect(host.kernel.pci.bind(name(0x0108), "vfio-platform")).toBe(-ENODEV);
  });

  it("shares the numbers of nodes with PCI functions", () => {
    const { host } = onPlatform();
    host.assign(0x0108);
    expect([host.vfio.nodeOf(NAME), host.vfio.nodeOf(name(0x0108))]).toEqual([
      "/dev/vfio/devices/vfio0",
      "/dev/vfio/devices/vfio1",
    ]);
  });
});

describe("what the device says of itself", () => {
  it("is a platform device that can be reset, with one region and one interrupt, in the first 16 bytes", () => {
    const { user, vfio } = driven();
    const marked = { cap_offset: 0xaaaa, pad: 0xbbbb };
    expect(user.call(vfio, X.VFIO_DEVICE_GET_INFO, X.vfioDeviceInfo, marked)).toMatchObject({
      ...{ result: 0, argsz: 24, flags: 4 | 1, num_regions: 1, num_irqs: 1 },
      ...marked,
    });
    expect(user.call(vfio, X.VFIO_DEVICE_GET_INFO, X.vfioDeviceInfo, { argsz: 15 }).result).toBe(-EINVAL);
  });

  it("region 0 is the registers, whole, to be read, written and mapped at index << 40; there is no other", () => {
    const { user, vfio } = driven();
    expect(user.call(vfio, X.VFIO_DEVICE_GET_REGION_INFO, X.vfioRegionInfo, { index: 0 })).toMatchObject({
      ...{ result: 0, flags: 1 | 2 | 4, size: BigInt(R.EDU_BAR_BYTES), offset: 0n, cap_offset: 0 },
    });
    for (const index of [1, 7, 0xffffffff]) {
      expect(user.call(vfio, X.VFIO_DEVICE_GET_REGION_INFO, X.vfioRegionInfo, { index }).result).toBe(-EINVAL);
    }
  });

  it("interrupt 0 is a level: eventfd, maskable, automasked, one vector; there is no other", () => {
    const { user, vfio } = driven();
    expect(user.call(vfio, X.VFIO_DEVICE_GET_IRQ_INFO, X.vfioIrqInfo, { index: 0 })).toMatchObject({
      ...{ result: 0, flags: 1 | 2 | 4, count: 1 },
    });
    expect(user.call(vfio, X.VFIO_DEVICE_GET_IRQ_INFO, X.vfioIrqInfo, { index: 1 }).result).toBe(-EINVAL);
  });

  it("answers nothing before it is bound, and ENOTTY to what is PCI's or a feature", () => {
    const { host, user } = onPlatform();
    const vfio = user.open(host.vfio.nodeOf(NAME)!);
    expect(user.call(vfio, X.VFIO_DEVICE_GET_INFO, X.vfioDeviceInfo, {}).result).toBe(-EINVAL);
    user.bind(vfio, user.iommufd());
    const pci = [X.VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, X.VFIO_DEVICE_PCI_HOT_RESET];
    for (const request of pci) {
      expect(user.call(vfio, request, X.vfioPciHotResetInfo, {}).result).toBe(-ENOTTY);
    }
    const get = X.VFIO_DEVICE_FEATURE_GET | X.VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT;
    expect(user.call(vfio, X.VFIO_DEVICE_FEATURE, X.vfioDeviceFeature, { flags: get }).result).toBe(-ENOTTY);
    expect(user.call(vfio, X.VFIO_DEVICE_FEATURE, X.vfioDeviceFeature, { flags: 1 << 20 }).result).toBe(-EINVAL);
  });
});

describe("attaching", () => {
  it("sends its DMA through the IOAS under its own device id, and aborts what is not mapped", () => {
    const { host, user, page, region } = driven();
    const bytes = user.process.memory.bytes(page, 64);
    bytes.set([1, 2, 3, 4]);
    host.record();
    eduDma(region, IOVA, 64, false);
    host.run(10_000);
    expect(eduOutcome(region)).toBe(R.OUTCOME_DONE);
    expect(host.events).toContainEqual(
      expect.objectContaining({ type: "dma", device: NAME, deviceId: DEVICE_ID, iova: IOVA, result: "ok" }),
    );
    bytes.fill(0);
    eduDma(region, IOVA, 64, true);
    host.run(10_000);
    expect([...bytes.subarray(0, 4)]).toEqual([1, 2, 3, 4]);
    eduDma(region, IOVA + 4096n, 64, true);
    host.run(10_000);
    expect(eduOutcome(region)).toBe(R.OUTCOME_REFUSED);
  });

  it("knows no PASIDs: EOPNOTSUPP, after the flags and before the number (vfio_df_ioctl_attach_pt)", () => {
    const { user, vfio, ioas } = driven();
    const attach = (flags: number) => {
      const values = { flags, pt_id: ioas, pasid: 5 };
      return user.call(vfio, X.VFIO_DEVICE_ATTACH_IOMMUFD_PT, X.vfioDeviceAttachIommufdPt, values).result;
    };
    expect([attach(1), attach(3), attach(2)]).toEqual([-EOPNOTSUPP, -EINVAL, -EINVAL]);
    const detach = { flags: 1, argsz: 8 };
    const { result } = user.call(vfio, X.VFIO_DEVICE_DETACH_IOMMUFD_PT, X.vfioDeviceDetachIommufdPt, detach);
    expect(result).toBe(-EOPNOTSUPP);
  });

  it("detached, nothing of it gets through", () => {
    const { host, user, vfio, region } = driven();
    expect(user.detach(vfio)).toBe(0);
    eduDma(region, IOVA, 64, true);
    host.run(10_000);
    expect(eduOutcome(region)).toBe(R.OUTCOME_REFUSED);
  });
});

describe("registers by read and write", () => {
  it("take accesses of 4, 2 and 1 bytes, naturally aligned, never 8: a 64-bit register is two writes", () => {
    const { user, vfio, region } = driven();
    const { process, scratch } = user;
    const bytes = process.memory.bytes(scratch, 16);
    new DataView(bytes.buffer, bytes.byteOffset).setBigUint64(0, 0x1122_3344_5566_7788n, true);
    // The edu clears the high half of a 64-bit register at a 4-byte write of the low one, then takes the high one.
    expect(process.write(vfio, scratch, 8, OFFSET(0, R.DMA_SOURCE))).toBe(8);
    expect([region.mmioRead(R.DMA_SOURCE, 8), region.high]).toEqual([0x55667788, 0x11223344]);
    expect(process.read(vfio, scratch, 4, OFFSET(0, R.IDENTIFICATION))).toBe(4);
    expect([...bytes.subarray(0, 4)]).toEqual([0xed, 0x00, 0x00, 0x01]);
    // Two bytes at an odd place are two accesses of one byte, which the edu answers with all ones.
    expect(process.read(vfio, scratch, 2, OFFSET(0, 1))).toBe(2);
    expect([...bytes.subarray(0, 2)]).toEqual([0xff, 0xff]);
  });

  it("end at the region's end, and are EINVAL behind it and where there is no region", () => {
    const { user, vfio } = driven();
    const { process, scratch } = user;
    expect(process.read(vfio, scratch, 16, OFFSET(0, R.EDU_BAR_BYTES - 4))).toBe(4);
    expect(process.read(vfio, scratch, 4, OFFSET(0, R.EDU_BAR_BYTES))).toBe(-EINVAL);
    expect(process.read(vfio, scratch, 4, OFFSET(1))).toBe(-EINVAL);
    expect(process.write(vfio, scratch, 4, OFFSET(7))).toBe(-EINVAL);
  });

  it("EFAULT where the process has no memory; what was moved before stays", () => {
    const { user, vfio, region } = driven();
    const { process } = user;
    const page = process.memory.allocate(4096);
    const last = process.memory.bytes(page + 4092n, 4);
    new DataView(last.buffer, last.byteOffset).setUint32(0, 0x1234, true);
    // 8 bytes of which the second half lies outside of what the process has.
    expect(process.write(vfio, page + 4092n, 8, OFFSET(0, R.LIVENESS))).toBe(-EFAULT);
    expect(region.mmioRead(R.LIVENESS, 4)).toBe(~0x1234 >>> 0);
    expect(process.read(vfio, page + 4092n, 8, OFFSET(0, 0))).toBe(-EFAULT);
    expect(new DataView(last.buffer, last.byteOffset).getUint32(0, true)).toBe(R.IDENTIFICATION_VALUE);
  });

  it("without a position always begin at 0: the driver does not move it on", () => {
    const { user, vfio } = driven();
    const { process, scratch } = user;
    const bytes = process.memory.bytes(scratch, 4);
    for (let i = 0; i < 2; i++) {
      expect(process.read(vfio, scratch, 4, -1n)).toBe(4);
      expect(new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true)).toBe(R.IDENTIFICATION_VALUE);
    }
  });

  it("mapped: shared, within the region, or EINVAL", () => {
    const { user, vfio, region } = driven();
    expect(region.mmioRead(R.IDENTIFICATION, 4)).toBe(R.IDENTIFICATION_VALUE);
    const map = (offset: bigint, length: number) => user.process.mmapRegion(vfio, offset, length);
    expect(map(OFFSET(0, 4096), R.EDU_BAR_BYTES)).toBe(-EINVAL);
    expect(map(OFFSET(1), 4096)).toBe(-EINVAL);
    expect(typeof map(OFFSET(0, 4096), 4096)).toBe("object");
  });

  it("read all ones once it is gone, and take nothing", () => {
    const { host, user, vfio, region } = driven();
    host.interconnect.unplug(NAME);
    expect(region.mmioRead(R.IDENTIFICATION, 4)).toBe(0xffffffff);
    expect(user.process.read(vfio, user.scratch, 4, OFFSET(0))).toBe(4);
    expect([...user.process.memory.bytes(user.scratch, 4)]).toEqual([255, 255, 255, 255]);
    expect(user.process.write(vfio, user.scratch, 4, OFFSET(0, R.LIVENESS))).toBe(4);
    user.process.exit();
    expect(host.kernel.liveObjects).toBe(0);
  });
});

describe("SET_IRQS", () => {
  /** Asserts the wire as a driver could, and lets the handler run. */
  const raise = ({ host, region }: ReturnType<typeof driven>) => {
    region.mmioWrite(R.INTERRUPT_RAISE, 4, 1, 0);
    host.run(10);
  };

  it("a level is told once and masked; unmasked while it stands it comes again, served it does not", () => {
    const bench = driven();
    const { host, user, vfio, region } = bench;
    const { eventfd, result } = user.irq(vfio, 0);
    expect(result).toBe(0);
    raise(bench);
    expect(user.count(eventfd)).toBe(1);
    raise(bench);
    expect(user.count(eventfd), "masked").toBe(0);
    expect(user.setIrqs(vfio, NONE | UNMASK, 0)).toBe(0);
    host.run(10);
    expect(user.count(eventfd), "still asserted").toBe(1);
    region.mmioWrite(R.INTERRUPT_ACKNOWLEDGE, 4, 1, 0);
    expect(user.setIrqs(vfio, NONE | UNMASK, 0)).toBe(0);
    host.run(10);
    expect(user.count(eventfd)).toBe(0);
    raise(bench);
    expect(user.count(eventfd)).toBe(1);
  });

  it("masks by request, and what comes meanwhile waits at the wire", () => {
    const bench = driven();
    const { host, user, vfio } = bench;
    const { eventfd } = user.irq(vfio, 0);
    expect(user.setIrqs(vfio, BOOL | MASK, 0, { bytes: [0] })).toBe(0);
    raise(bench);
    expect(user.count(eventfd), "a false BOOL does nothing").toBe(1);
    bench.region.mmioWrite(R.INTERRUPT_ACKNOWLEDGE, 4, 1, 0);
    expect(user.setIrqs(vfio, BOOL | UNMASK, 0, { bytes: [1] })).toBe(0);
    expect(user.setIrqs(vfio, BOOL | MASK, 0, { bytes: [1] })).toBe(0);
    raise(bench);
    expect(user.count(eventfd)).toBe(0);
    expect(user.setIrqs(vfio, NONE | UNMASK, 0)).toBe(0);
    host.run(10);
    expect(user.count(eventfd)).toBe(1);
  });

  it("masks and unmasks by eventfds, one each at a time (vfio_virqfd_enable)", () => {
    const bench = driven();
    const { host, user, vfio } = bench;
    const { eventfd } = user.irq(vfio, 0);
    const [mask, unmask] = [user.process.eventfd(), user.process.eventfd()];
    const one = user.process.memory.bytes(user.scratch, 8);
    const signal = (fd: number) => {
      one.fill(0);
      one[0] = 1;
      expect(user.process.write(fd, user.scratch, 8, -1n)).toBe(8);
      host.run(10);
    };
    expect(user.setIrqs(vfio, EVENTFD | MASK, 0, { fds: [mask] })).toBe(0);
    expect(user.setIrqs(vfio, EVENTFD | UNMASK, 0, { fds: [unmask] })).toBe(0);
    expect(user.setIrqs(vfio, EVENTFD | UNMASK, 0, { fds: [unmask] })).toBe(-EBUSY);
    signal(mask);
    raise(bench);
    expect(user.count(eventfd)).toBe(0);
    signal(unmask);
    expect(user.count(eventfd)).toBe(1);
    expect(user.setIrqs(vfio, EVENTFD | UNMASK, 0, { fds: [-1] })).toBe(0);
    expect(user.setIrqs(vfio, EVENTFD | UNMASK, 0, { fds: [unmask] })).toBe(0);
    expect(user.setIrqs(vfio, EVENTFD | MASK, 0, { fds: [999] })).toBe(-EBADF);
  });

  it("a loop-back trigger masks like the real thing", () => {
    const { user, vfio } = driven();
    const { eventfd } = user.irq(vfio, 0);
    expect(user.setIrqs(vfio, NONE | TRIGGER, 0)).toBe(0);
    expect(user.setIrqs(vfio, BOOL | TRIGGER, 0, { bytes: [1] })).toBe(0);
    expect(user.count(eventfd)).toBe(1);
    expect(user.setIrqs(vfio, NONE | UNMASK, 0)).toBe(0);
    expect(user.setIrqs(vfio, BOOL | TRIGGER, 0, { bytes: [0] })).toBe(0);
    expect(user.count(eventfd)).toBe(0);
    expect(user.setIrqs(vfio, BOOL | TRIGGER, 0, { bytes: [1] })).toBe(0);
    expect(user.count(eventfd)).toBe(1);
  });

  it("a new eventfd that is none takes the old one away all the same (vfio_set_trigger)", () => {
    const bench = driven();
    const { user, vfio } = bench;
    const { eventfd } = user.irq(vfio, 0);
    expect(user.setIrqs(vfio, EVENTFD | TRIGGER, 0, { fds: [999] })).toBe(-EBADF);
    raise(bench);
    expect(user.count(eventfd)).toBe(0);
    expect(user.setIrqs(vfio, EVENTFD | TRIGGER, 0, { fds: [eventfd] })).toBe(0);
    bench.host.run(10);
    expect(user.count(eventfd), "the level still stands").toBe(1);
    expect(user.setIrqs(vfio, NONE | TRIGGER, 0, { count: 0 })).toBe(0);
    expect(user.setIrqs(vfio, EVENTFD | TRIGGER, 0, { fds: [vfio] })).toBe(-EINVAL);
  });

  it("refuses what Linux refuses", () => {
    const { user, vfio } = driven();
    const cases: [number, number, number, object][] = [
      [-EINVAL, NONE | TRIGGER, 1, {}],
      [-EINVAL, NONE | TRIGGER, 0, { start: 1 }],
      [-EINVAL, NONE | TRIGGER, 0, { count: 2 }],
      [-EINVAL, BOOL | TRIGGER, 0, {}],
      [-EINVAL, EVENTFD | TRIGGER, 0, { count: 0 }],
      [-EINVAL, NONE | MASK, 0, { count: 0 }],
      [-EINVAL, TRIGGER, 0, {}],
      [-EINVAL, NONE | BOOL | TRIGGER, 0, { bytes: [1] }],
      [-EINVAL, NONE | TRIGGER | 64, 0, {}],
      [-ENOTTY, NONE, 0, {}],
      [-ENOTTY, NONE | MASK | UNMASK, 0, {}],
      [-ENOTTY, NONE | MASK | TRIGGER, 0, {}],
    ];
    for (const [errno, flags, index, options] of cases) {
      expect([flags, index, options, user.setIrqs(vfio, flags, index, options)]).toEqual([
        flags,
        index,
        options,
        errno,
      ]);
    }
  });
});

describe("reset, open and close", () => {
  it("VFIO_DEVICE_RESET, the first open and the last close put the device back; masks end with the last close", () => {
    const { host, user, vfio, iommufd, region } = driven();
    const { eventfd } = user.irq(vfio, 0);
    region.mmioWrite(R.LIVENESS, 4, 7, 0);
    region.mmioWrite(R.INTERRUPT_RAISE, 4, 1, 0);
    host.run(10);
    expect(user.count(eventfd)).toBe(1);
    expect(user.process.ioctl(vfio, X.VFIO_DEVICE_RESET, 0n)).toBe(0);
    expect([region.mmioRead(R.LIVENESS, 4), region.mmioRead(R.INTERRUPT_STATUS, 4)]).toEqual([0xffffffff, 0]);
    region.mmioWrite(R.LIVENESS, 4, 7, 0);
    user.process.close(vfio);
    expect(region.mmioRead(R.LIVENESS, 4), "a mapping that outlived its file").toBe(0xffffffff);
    const again = user.open(host.vfio.nodeOf(NAME)!);
    user.bind(again, iommufd);
    const mapped = user.bar0(again);
    expect(mapped.mmioRead(R.LIVENESS, 4)).toBe(0xffffffff);
    const irq = user.irq(again, 0);
    mapped.mmioWrite(R.INTERRUPT_RAISE, 4, 1, 0);
    host.run(10);
    expect(user.count(irq.eventfd)).toBe(1);
    user.process.exit();
    expect(host.kernel.liveObjects).toBe(0);
  });
});

describe("through its group", () => {
  it("a type1 container: the device opens by its exact name, and does DMA", () => {
    const { host, user } = onPlatform();
    const group = user.open(host.vfio.groupNodeOf(NAME)!);
    const container = user.open("/dev/vfio/vfio");
    expect(user.setContainer(group, container)).toBe(0);
    expect(user.process.ioctl(container, C.VFIO_SET_IOMMU, BigInt(C.VFIO_TYPE1v2_IOMMU))).toBe(0);
    // No match operation: the whole text is compared (vfio_device_get_from_name).
    for (const text of ["edu", "edu0 ", "edu0 vf_token=1"]) expect(user.deviceFd(group, text)).toBe(-ENODEV);
    const vfio = user.deviceFd(group, NAME);
    expect(vfio).toBeGreaterThan(0);
    const page = user.process.memory.allocate(4096);
    expect(user.mapDma(container, page, IOVA, 4096n)).toBe(0);
    const region = user.bar0(vfio);
    user.process.memory.bytes(page, 8).fill(0x5a);
    eduDma(region, IOVA, 8, false);
    host.run(10_000);
    expect(eduOutcome(region)).toBe(R.OUTCOME_DONE);
    expect(user.call(vfio, X.VFIO_DEVICE_ATTACH_IOMMUFD_PT, X.vfioDeviceAttachIommufdPt, {}).result).toBe(-ENOTTY);
    user.process.exit();
    expect(host.kernel.liveObjects).toBe(0);
  });

  it("excludes its node, and the other way round", () => {
    const { host, user } = onPlatform();
    const vfio = user.open(host.vfio.nodeOf(NAME)!);
    const group = user.open(host.vfio.groupNodeOf(NAME)!);
    expect(user.bind(vfio, user.iommufd())).toBe(-EBUSY);
    user.process.close(group);
    expect(user.bind(vfio, user.iommufd())).toBeGreaterThan(0);
    expect(user.open(host.vfio.groupNodeOf(NAME)!)).toBe(-EBUSY);
  });
});
