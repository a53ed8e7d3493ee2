// The VFIO device cdev: access only after binding, information, configuration space, regions, interrupts, attach and replace, reset.

import { describe, expect, it } from "vitest";
import { Edu } from "../../../../host/devices/edu/edu.ts";
import * as R from "../../../../host/devices/edu/registers.ts";
import { E2BIG, EBADF, EBADFD, EFAULT, EINVAL, EIO, ENODEV, ENOENT, ENOTTY } from "../../../../host/uapi/errno.ts";
import * as I from "../../../../host/uapi/iommufd.ts";
import * as N from "../../../../host/uapi/riscv-nesting.ts";
import * as S from "../../../../host/uapi/smmuv3-nesting.ts";
import { O_RDWR } from "../../../../host/uapi/system-calls.ts";
import * as X from "../../../../host/uapi/vfio.ts";
import * as C from "../../../../host/uapi/vfio-container.ts";
import { eduDma, eduOutcome, HAS_VIOMMU, KIND, MESSAGES, name } from "../machine.ts";
import { bound, open, RID } from "./device-user.ts";

describe("before it is bound", () => {
  it("a device answers EINVAL to everything", () => {
    const { user, vfio, end } = open();
    expect(user.call(vfio, X.VFIO_DEVICE_GET_INFO, X.vfioDeviceInfo, {}).result).toBe(-EINVAL);
    expect(user.attach(vfio, 1)).toBe(-EINVAL);
    expect(user.process.read(vfio, user.scratch, 4, 7n << 40n)).toBe(-EINVAL);
    expect(user.process.mmapRegion(vfio, 0n, 4096)).toBe(-EINVAL);
    expect(user.process.ioctl(vfio, 0x3b00, 0n)).toBe(-EINVAL);
    end();
  });

  it("binding checks its arguments in Linux's order", () => {
    const { user, vfio, iommufd, end } = open();
    const bind = (values: { argsz?: number; flags?: number; iommufd?: number }) =>
      user.call(vfio, X.VFIO_DEVICE_BIND_IOMMUFD, X.vfioDeviceBindIommufd, { iommufd, ...values }).result;
    expect(bind({ argsz: 15 })).toBe(-EINVAL);
    expect(bind({ iommufd: -1 })).toBe(-EINVAL);
    expect(bind({ flags: 2 })).toBe(-EINVAL);
    expect(bind({ iommufd: 99 })).toBe(-EBADF);
    expect(bind({ iommufd: user.process.eventfd() })).toBe(-EBADFD);
    // A longer structure must be zero where the kernel does not know it.
    user.process.memory.bytes(user.scratch, 64).fill(0);
    user.process.memory.bytes(user.scratch, 64)[40] = 1;
    expect(bind({ argsz: 48 })).toBe(-E2BIG);
    expect(user.process.ioctl(vfio, X.VFIO_DEVICE_BIND_IOMMUFD, 0x10n)).toBe(-EFAULT);
    expect(user.bind(vfio, iommufd)).toBeGreaterThan(0);
    end();
  });
});

describe("information", () => {
  it("is that of a PCI function: nine regions, five interrupt indexes, a reset", () => {
    const { user, vfio, end } = bound();
    const info = user.must(vfio, X.VFIO_DEVICE_GET_INFO, X.vfioDeviceInfo, {});
    expect(info).toMatchObject({ num_regions: 9, num_irqs: 5 });
    expect(info.flags).toBe(X.VFIO_DEVICE_FLAGS_PCI | X.VFIO_DEVICE_FLAGS_RESET);
    expect(user.call(vfio, X.VFIO_DEVICE_GET_INFO, X.vfioDeviceInfo, { argsz: 15 }).result).toBe(-EINVAL);
    end();
  });

  it("gives each region its size and place", () => {
    const { user, vfio, end } = bound();
    const region = (index: number) => user.call(vfio, X.VFIO_DEVICE_GET_REGION_INFO, X.vfioRegionInfo, { index });
    expect(region(0)).toMatchObject({ result: 0, size: BigInt(R.EDU_BAR_BYTES), offset: 0n, flags: 7 });
    expect(region(1)).toMatchObject({ result: 0, size: 0n, flags: 0 });
    expect(region(X.VFIO_PCI_ROM_REGION_INDEX)).toMatchObject({ result: 0, size: 0n, flags: 0 });
    expect(region(X.VFIO_PCI_CONFIG_REGION_INDEX)).toMatchObject({
      result: 0,
      size: 4096n,
      offset: 7n << 40n,
      flags: 3,
    });
    expect(region(X.VFIO_PCI_VGA_REGION_INDEX).result).toBe(-EINVAL);
    expect(region(9).result).toBe(-EINVAL);
    end();
  });

  it("gives each interrupt index its vectors", () => {
    const { user, vfio, end } = bound();
    const irq = (index: number) => user.call(vfio, X.VFIO_DEVICE_GET_IRQ_INFO, X.vfioIrqInfo, { index });
    expect(irq(X.VFIO_PCI_INTX_IRQ_INDEX)).toMatchObject({ result: 0, count: 1, flags: 7 });
    expect(irq(X.VFIO_PCI_MSI_IRQ_INDEX)).toMatchObject({ result: 0, count: 1, flags: 9 });
    expect(irq(X.VFIO_PCI_MSIX_IRQ_INDEX)).toMatchObject({ result: 0, count: 0 });
    expect(irq(X.VFIO_PCI_REQ_IRQ_INDEX)).toMatchObject({ result: 0, count: 1 });
    expect(irq(5).result).toBe(-EINVAL);
    end();
  });
});

describe("configuration space", () => {
  it("reads the function's ids and sizes its BARs without moving them", () => {
    const { host, user, vfio, end } = bound();
    expect(user.configRead(vfio, 0, 4)).toBe(0x11e81234);
    const before = host.edus.get(RID)!.barBase(0);
    user.configWrite(vfio, 0x10, 4, 0xffffffff);
    expect(user.configRead(vfio, 0x10, 4)).toBe(0xfff00000);
    user.configWrite(vfio, 0x10, 4, 0x12345678);
    expect(user.configRead(vfio, 0x10, 4)).toBe(0x12300000);
    user.configWrite(vfio, 0x14, 4, 0xffffffff);
    expect(user.configRead(vfio, 0x14, 4)).toBe(0);
    user.configWrite(vfio, 4, 2, 2);
    expect(host.edus.get(RID)!.barBase(0)).toBe(before);
    end();
  });

  it("hides the messages the kernel programmed and keeps what user space wrote", () => {
    const { user, vfio, end } = bound();
    let at = user.configRead(vfio, 0x34, 1);
    while (user.configRead(vfio, at, 1) !== 0x05) at = user.configRead(vfio, at + 1, 1);
    user.configWrite(vfio, at + 4, 4, 0xfee00000);
    user.configWrite(vfio, at + 12, 2, 0x4021);
    expect(user.irq(vfio, X.VFIO_PCI_MSI_IRQ_INDEX).result).toBe(0);
    expect(user.configRead(vfio, at + 4, 4)).toBe(0xfee00000);
    expect(user.configRead(vfio, at + 12, 2)).toBe(0x4021);
    user.configWrite(vfio, at + 2, 2, 1);
    expect(user.configRead(vfio, at + 2, 2) & 1).toBe(1);
    end();
  });

  it("takes accesses of any size within its 4096 bytes, and faults beyond", () => {
    const { user, vfio, end } = bound();
    const base = 7n << 40n;
    expect(user.process.read(vfio, user.scratch, 64, base)).toBe(64);
    expect([...user.process.memory.bytes(user.scratch, 4)]).toEqual([0x34, 0x12, 0xe8, 0x11]);
    expect(user.process.read(vfio, user.scratch, 8, base + 4092n)).toBe(-EFAULT);
    expect(user.process.read(vfio, 0x10n, 4, base)).toBe(-EFAULT);
    expect(user.process.write(vfio, user.scratch, 3, base + 0x3cn)).toBe(3);
    end();
  });

  it("resets the function when user space sets Initiate FLR", () => {
    const { host, user, vfio, end } = bound();
    user.enableDevice(vfio);
    const bar = user.bar0(vfio);
    bar.mmioWrite(R.LIVENESS, 4, 0x1234, 0);
    let at = user.configRead(vfio, 0x34, 1);
    while (user.configRead(vfio, at, 1) !== 0x10) at = user.configRead(vfio, at + 1, 1);
    user.configWrite(vfio, at + 8, 2, user.configRead(vfio, at + 8, 2) | 0x8000);
    host.run(1_000);
    expect(bar.mmioRead(R.LIVENESS, 4)).toBe(0xffffffff);
    end();
  });
});

describe("regions", () => {
  it("are the BARs, by read and write and by mapping, while memory decoding is on", () => {
    const { user, vfio, end } = bound();
    const bar = user.bar0(vfio);
    // The function comes out of its reset with memory decoding as firmware left it; user space turns it off and on.
    user.configWrite(vfio, 4, 2, 0);
    expect(bar.mmioRead(R.IDENTIFICATION, 4)).toBe(0xffffffff);
    expect(user.process.read(vfio, user.scratch, 4, 0n)).toBe(-EIO);
    user.enableDevice(vfio);
    expect(bar.mmioRead(R.IDENTIFICATION, 4)).toBe(R.IDENTIFICATION_VALUE);
    expect(user.process.read(vfio, user.scratch, 4, 0n)).toBe(4);
    expect([...user.process.memory.bytes(user.scratch, 4)]).toEqual([0xed, 0, 0, 1]);
    expect(user.process.read(vfio, user.scratch, 4, BigInt(R.EDU_BAR_BYTES))).toBe(-EINVAL);
    expect(user.process.read(vfio, user.scratch, 4, 9n << 40n)).toBe(-EINVAL);
    expect(user.process.read(vfio, user.scratch, 4, 1n << 40n)).toBe(-EINVAL);
    end();
  });

  it("end with the file: a mapping then reads all ones", () => {
    const { user, vfio, end } = bound();
    user.enableDevice(vfio);
    const bar = user.bar0(vfio);
    user.process.close(vfio);
    expect(bar.mmioRead(R.IDENTIFICATION, 4)).toBe(0xffffffff);
    end();
  });

  it.each([
    ["past its end", BigInt(R.EDU_BAR_BYTES), 4096],
    ["across its end", BigInt(R.EDU_BAR_BYTES) - 4096n, 8192],
    ["not at a page", 16n, 4096],
    ["of configuration space", 7n << 40n, 4096],
    ["of an absent BAR", 2n << 40n, 4096],
    ["at a negative offset", -4096n, 4096],
  ])("refuse a mapping %s", (_what, offset, length) => {
    const { user, vfio, end } = bound();
    expect(user.process.mmapRegion(vfio, offset, length)).toBe(-EINVAL);
    end();
  });
});

describe("interrupts", () => {
  const trigger = X.VFIO_IRQ_SET_ACTION_TRIGGER;

  function set(
    parts: ReturnType<typeof bound>,
    flags: number,
    index: number,
    start: number,
    count: number,
    data: number[] = [],
  ) {
    const tail = new Uint8Array(4 * data.length);
    const view = new DataView(tail.buffer);
    for (const [i, value] of data.entries()) view.setInt32(4 * i, value, true);
    return parts.user.call(parts.vfio, X.VFIO_DEVICE_SET_IRQS, X.vfioIrqSet, { flags, index, start, count }, tail)
      .result;
  }

  it("INTx signals once, stays masked until user space has served it, and signals again if still pending", () => {
    const parts = bound();
    const { host, user, vfio, end } = parts;
    user.enableDevice(vfio);
    const { eventfd, result } = user.irq(vfio, X.VFIO_PCI_INTX_IRQ_INDEX);
    expect(result).toBe(0);
    const bar = user.bar0(vfio);
    bar.mmioWrite(R.INTERRUPT_RAISE, 4, 1, 0);
    bar.mmioWrite(R.INTERRUPT_RAISE, 4, 2, 0);
    host.run(1_000);
    expect(user.count(eventfd)).toBe(1);
    const unmask = X.VFIO_IRQ_SET_DATA_NONE | X.VFIO_IRQ_SET_ACTION_UNMASK;
    expect(set(parts, unmask, 0, 0, 1)).toBe(0);
    host.run(1_000);
    expect(user.count(eventfd)).toBe(1);
    bar.mmioWrite(R.INTERRUPT_ACKNOWLEDGE, 4, 3, 0);
    set(parts, unmask, 0, 0, 1);
    host.run(1_000);
    expect(user.count(eventfd)).toBe(0);
    // Switched off in the command register, it is silent.
    user.configWrite(vfio, 4, 2, 0x406);
    bar.mmioWrite(R.INTERRUPT_RAISE, 4, 1, 0);
    host.run(1_000);
    expect(user.count(eventfd)).toBe(0);
    user.configWrite(vfio, 4, 2, 0x006);
    host.run(1_000);
    expect(user.count(eventfd)).toBe(1);
    end();
  });

  it("INTx stays on without an eventfd, and tells the next one", () => {
    const parts = bound();
    const { host, user, vfio, end } = parts;
    user.enableDevice(vfio);
    const eventfds = trigger | X.VFIO_IRQ_SET_DATA_EVENTFD;
    expect(set(parts, eventfds, X.VFIO_PCI_INTX_IRQ_INDEX, 0, 1, [-1])).toBe(0);
    expect(user.irq(vfio, X.VFIO_PCI_MSI_IRQ_INDEX).result).toBe(-EINVAL);
    const { eventfd, result } = user.irq(vfio, X.VFIO_PCI_INTX_IRQ_INDEX);
    expect(result).toBe(0);
    user.bar0(vfio).mmioWrite(R.INTERRUPT_RAISE, 4, 1, 0);
    host.run(1_000);
    expect(user.count(eventfd)).toBe(1);
    expect(set(parts, eventfds, X.VFIO_PCI_INTX_IRQ_INDEX, 0, 1, [-1])).toBe(0);
    end();
  });

  it("are one kind at a time; count 0 with no data turns the kind off", () => {
    const parts = bound();
    const { user, vfio, end } = parts;
    expect(user.irq(vfio, X.VFIO_PCI_MSI_IRQ_INDEX).result).toBe(0);
    expect(user.irq(vfio, X.VFIO_PCI_INTX_IRQ_INDEX).result).toBe(-EINVAL);
    expect(set(parts, trigger | X.VFIO_IRQ_SET_DATA_NONE, X.VFIO_PCI_MSI_IRQ_INDEX, 0, 0)).toBe(0);
    expect(user.irq(vfio, X.VFIO_PCI_INTX_IRQ_INDEX).result).toBe(0);
    end();
  });

  it("refuse bad descriptors, ranges, flags and actions", () => {
    const parts = bound();
    const { user, end } = parts;
    const eventfds = trigger | X.VFIO_IRQ_SET_DATA_EVENTFD;
    const msi = X.VFIO_PCI_MSI_IRQ_INDEX;
    expect(set(parts, eventfds, msi, 0, 1, [99])).toBe(-EBADF);
    expect(set(parts, eventfds, msi, 0, 1, [parts.iommufd])).toBe(-EINVAL);
    expect(set(parts, eventfds, msi, 0, 2, [-1, -1])).toBe(-EINVAL);
    expect(set(parts, eventfds, msi, 1, 1, [-1])).toBe(-EINVAL);
    expect(set(parts, eventfds, msi, 0, 0xffffffff, [-1])).toBe(-EINVAL);
    expect(set(parts, eventfds, msi, 0, 1, [])).toBe(-EINVAL);
    expect(set(parts, trigger | 7, msi, 0, 1, [-1])).toBe(-EINVAL);
    expect(set(parts, eventfds | 0x100, msi, 0, 1, [-1])).toBe(-EINVAL);
    expect(set(parts, X.VFIO_IRQ_SET_DATA_NONE | X.VFIO_IRQ_SET_ACTION_MASK, msi, 0, 1)).toBe(-ENOTTY);
    expect(set(parts, trigger | X.VFIO_IRQ_SET_DATA_NONE, msi, 0, 1)).toBe(-EINVAL);
    expect(set(parts, eventfds, X.VFIO_PCI_MSIX_IRQ_INDEX, 0, 1, [-1])).toBe(-EINVAL);
    expect(user.call(parts.vfio, X.VFIO_DEVICE_SET_IRQS, X.vfioIrqSet, { argsz: 19 }).result).toBe(-EINVAL);
    end();
  });

  it("can be triggered by user space itself", () => {
    const parts = bound();
    const { user, vfio, end } = parts;
    const { eventfd } = user.irq(vfio, X.VFIO_PCI_MSI_IRQ_INDEX);
    expect(set(parts, trigger | X.VFIO_IRQ_SET_DATA_NONE, X.VFIO_PCI_MSI_IRQ_INDEX, 0, 1)).toBe(0);
    expect(user.count(eventfd)).toBe(1);
    end();
  });

  it("keep their eventfd when user space closes it, and let go of it with the device", () => {
    const parts = bound();
    const { host, user, vfio, end } = parts;
    const { eventfd } = user.irq(vfio, X.VFIO_PCI_MSI_IRQ_INDEX);
    user.process.close(eventfd);
    expect(host.kernel.live.of("eventfd")).toBe(1);
    user.process.close(vfio);
    expect(host.kernel.live.of("eventfd")).toBe(0);
    end();
  });
});

describe("attaching", () => {
  it("blocks DMA before, uses the IOAS's own HWPT, and blocks again after", () => {
    const { host, user, iommufd, vfio, end } = bound();
    const ioas = user.ioas(iommufd);
    const va = user.process.memory.mapBuffer(new ArrayBuffer(8192), 0, 8192);
    user.map(iommufd, ioas, va, 8192, 0x1_0000n);
    user.enableDevice(vfio);
    const bar = user.bar0(vfio);
    const works = () => {
      eduDma(bar, 0x1_0000n, 64, false);
      host.run(10_000);
      return eduOutcome(bar) === R.OUTCOME_DONE;
    };
    expect(works()).toBe(false);
    const hwpt = user.attach(vfio, ioas);
    expect(hwpt).toBeGreaterThan(0);
    expect(works()).toBe(true);
    expect(user.detach(vfio)).toBe(0);
    expect(works()).toBe(false);
    expect(user.detach(vfio)).toBe(0);
    expect(user.destroy(iommufd, hwpt)).toBe(-ENOENT);
    end();
  });

  it("replaces on the second attach, and a refused replace leaves the old one", () => {
    const { host, user, iommufd, vfio, end } = bound();
    const [first, second] = [user.ioas(iommufd), user.ioas(iommufd)];
    const va = user.process.memory.mapBuffer(new ArrayBuffer(8192), 0, 8192);
    user.map(iommufd, first, va, 4096, 0x1_0000n);
    // A mapping where the device needs its MSI window: it cannot be attached to this IOAS.
    user.map(iommufd, second, va, 4096, MESSAGES.base);
    const old = user.attach(vfio, first);
    expect(user.attach(vfio, second)).toBe(-98);
    expect(user.attach(vfio, first)).toBe(old);
    user.enableDevice(vfio);
    const bar = user.bar0(vfio);
    eduDma(bar, 0x1_0000n, 64, false);
    host.run(10_000);
    expect(eduOutcome(bar)).toBe(R.OUTCOME_DONE);
    end();
  });

  it.each([
    ["an id that does not exist", { pt_id: 99 }, -ENOENT],
    ["an unknown flag", { flags: 2 }, -EINVAL],
    [
      "an id that does not exist, for a PASID on a device without",
      { flags: X.VFIO_DEVICE_ATTACH_PASID, pasid: 1 },
      -ENOENT,
    ],
    ["a short structure", { argsz: 11 }, -EINVAL],
    ["a PASID that does not fit its structure", { argsz: 12, flags: X.VFIO_DEVICE_ATTACH_PASID }, -EINVAL],
  ])("refuses %s", (_what, values, errno) => {
    const { user, vfio, end } = bound();
    const reply = user.call(vfio, X.VFIO_DEVICE_ATTACH_IOMMUFD_PT, X.vfioDeviceAttachIommufdPt, values);
    expect(reply.result).toBe(errno);
    end();
  });

  it("moves all devices of a group together, and refuses a second one another HWPT", () => {
    const devices = [{ rid: RID }, { rid: 0x0110 }];
    const { host, user, iommufd, vfio, end } = bound({ devices, groups: [[RID, 0x0110]] });
    const sibling = user.open(host.vfio.nodeOf(name(0x0110))!);
    expect(user.bind(sibling, iommufd)).toBeGreaterThan(0);
    const [first, second] = [user.ioas(iommufd), user.ioas(iommufd)];
    const va = user.process.memory.mapBuffer(new ArrayBuffer(4096), 0, 4096);
    user.map(iommufd, second, va, 4096, 0x1_0000n);
    user.attach(vfio, first);
    expect(user.attach(sibling, second)).toBe(-EINVAL);
    user.attach(sibling, first);
    // Replacing through one moves the other.
    user.attach(vfio, second);
    user.enableDevice(sibling);
    const bar = user.bar0(sibling);
    eduDma(bar, 0x1_0000n, 64, false);
    host.run(10_000);
    expect(eduOutcome(bar)).toBe(R.OUTCOME_DONE);
    end();
  });
});

describe("reset and features", () => {
  it("VFIO_DEVICE_RESET stops DMA in flight and keeps interrupts armed", () => {
    const { host, user, iommufd, vfio, end } = bound();
    const ioas = user.ioas(iommufd);
    const va = user.process.memory.mapBuffer(new ArrayBuffer(8192), 0, 8192);
    user.map(iommufd, ioas, va, 8192, 0x1_0000n);
    user.attach(vfio, ioas);
    const { eventfd } = user.irq(vfio, X.VFIO_PCI_MSI_IRQ_INDEX);
    user.enableDevice(vfio);
    const bar = user.bar0(vfio);
    eduDma(bar, 0x1_0000n, 4096, false);
    expect(user.process.ioctl(vfio, X.VFIO_DEVICE_RESET, 0n)).toBe(0);
    host.run(100_000);
    expect(eduOutcome(bar)).toBe(R.OUTCOME_RESET);
    bar.mmioWrite(R.INTERRUPT_RAISE, 4, 1, 0);
    host.run(1_000);
    expect(user.count(eventfd)).toBe(1);
    end();
  });

  it("there are no device features, and a hot reset has no bus to reset", () => {
    const { user, vfio, end } = bound();
    const feature = (flags: number) => user.call(vfio, X.VFIO_DEVICE_FEATURE, X.vfioDeviceFeature, { flags }).result;
    expect(feature(X.VFIO_DEVICE_FEATURE_PROBE | X.VFIO_DEVICE_FEATURE_GET | 1)).toBe(-ENOTTY);
    expect(feature(X.VFIO_DEVICE_FEATURE_GET | X.VFIO_DEVICE_FEATURE_SET | 1)).toBe(-EINVAL);
    expect(feature(1 << 20)).toBe(-EINVAL);
    expect(user.call(vfio, X.VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, X.vfioPciHotResetInfo, {}).result).toBe(-19);
    expect(user.process.ioctl(vfio, 0x3b00 + 99, 0n)).toBe(-ENOTTY);
    end();
  });
});

describe("a function plugged in while the host runs", () => {
  it("can be assigned, pulled out under its user, and its place used again after that", () => {
    const { host, user, iommufd, end } = open();
    const late = 0x0130;
    const plug = () => host.root.plug(late, new Edu({ name: "late" }), host.iommus[0]!);
    plug();
    expect(host.kernel.pci.bind(name(late), "vfio-pci")).toBe(0);
    const path = host.vfio.nodeOf(name(late))!;
    const vfio = user.open(path);
    expect(user.bind(vfio, iommufd)).toBeGreaterThan(0);
    host.root.unplug(late);
    // Its user still has it: a new one in its place gets no IOMMU, so VFIO does not take it.
    plug();
    expect(host.kernel.pci.bind(name(late), "vfio-pci")).toBe(-EINVAL);
    host.root.unplug(late);
    user.process.close(vfio);
    plug();
    expect(host.kernel.pci.bind(name(late), "vfio-pci")).toBe(0);
    const again = user.open(host.vfio.nodeOf(name(late))!);
    expect(user.bind(again, iommufd)).toBeGreaterThan(0);
    end();
  });

  it("under a container: the group goes on without it", () => {
    const devices = [{ rid: RID }, { rid: 0x0110 }];
    const { host, user, vfio, end } = open({ devices, groups: [[RID, 0x0110]] });
    // An open node counts as a user, bound or not.
    user.process.close(vfio);
    const container = user.open("/dev/vfio/vfio");
    const group = user.open(host.vfio.groupNodeOf(name(RID))!);
    user.setContainer(group, container);
    user.process.ioctl(container, C.VFIO_SET_IOMMU, 3n);
    const [first, second] = [user.deviceFd(group, name(RID)), user.deviceFd(group, name(0x0110))];
    const va = user.process.memory.mapBuffer(new ArrayBuffer(4096), 0, 4096);
    user.mapDma(container, va, 0x1_0000n, 4096n);
    host.root.unplug(0x0110);
    user.process.close(second);
    expect(user.deviceFd(group, name(0x0110))).toBe(-ENODEV);
    user.enableDevice(first);
    const bar = user.bar0(first);
    eduDma(bar, 0x1_0000n, 64, false);
    host.run(10_000);
    expect(eduOutcome(bar)).toBe(R.OUTCOME_DONE);
    // The last one, too: the container stays usable, empty.
    host.root.unplug(RID);
    user.process.close(first);
    expect(user.deviceFd(group, name(RID))).toBe(-ENODEV);
    expect(host.kernel.iommu.groups.length).toBe(0);
    end();
  });
});

describe("unbinding under user space", () => {
  it("asks for the device back, lets nobody new in, and is done when the last file closes", () => {
    const { host, user, vfio, end } = bound();
    const path = host.vfio.nodeOf(name(RID))!;
    const { eventfd } = user.irq(vfio, X.VFIO_PCI_REQ_IRQ_INDEX);
    expect(host.kernel.pci.unbind(name(RID))).toBe(1);
    expect(user.count(eventfd)).toBe(1);
    expect(user.process.open(path, O_RDWR)).toBe(-ENOENT);
    expect(host.kernel.pci.bind(name(RID), "pci-stub")).toBeLessThan(0);
    user.process.close(vfio);
    expect(host.kernel.pci.device(name(RID))!.driver).toBeNull();
    expect(host.kernel.pci.bind(name(RID), "pci-stub")).toBe(0);
    end();
  });

  it("of a device pulled out: it reads all ones, and the IOMMU forgets it when it is closed", () => {
    const { host, user, iommufd, vfio, end } = bound();
    const ioas = user.ioas(iommufd);
    user.attach(vfio, ioas);
    user.enableDevice(vfio);
    const bar = user.bar0(vfio);
    const { eventfd } = user.irq(vfio, X.VFIO_PCI_REQ_IRQ_INDEX);
    host.root.unplug(RID);
    expect(user.count(eventfd)).toBe(1);
    expect(bar.mmioRead(R.IDENTIFICATION, 4)).toBe(0xffffffff);
    expect(user.configRead(vfio, 0, 4)).toBe(0xffffffff);
    expect(user.process.ioctl(vfio, X.VFIO_DEVICE_RESET, 0n)).toBeLessThan(0);
    expect(host.kernel.iommu.groups.length).toBe(1);
    user.process.close(vfio);
    expect(host.kernel.iommu.groups.length).toBe(0);
    end();
  });

  it("while an unbind waits, pulling the device out changes nothing but what it reads", () => {
    const { host, user, vfio, end } = bound();
    host.kernel.pci.unbind(name(RID));
    host.root.unplug(RID);
    expect(user.configRead(vfio, 0, 4)).toBe(0xffffffff);
    user.process.close(vfio);
    expect(host.kernel.iommu.groups.length).toBe(0);
    end();
  });

  it.runIf(HAS_VIOMMU)("under a living vIOMMU leaves a tombstone for its vDEVICE, and the vIOMMU goes on", () => {
    const { host, user, iommufd, vfio, device, end } = bound({ devices: [{ rid: RID }, { rid: 0x0110 }] });
    const ioas = user.ioas(iommufd);
    const parent = user.hwpt(iommufd, device, ioas, { flags: I.IOMMU_HWPT_ALLOC_NEST_PARENT });
    const type = KIND === "riscv" ? N.IOMMU_VIOMMU_TYPE_RISCV : S.IOMMU_VIOMMU_TYPE_ARM_SMMUV3;
    const viommu = user.viommu(iommufd, device, parent, type);
    const vdevice = user.vdevice(iommufd, viommu, device, 0x10n);
    const aborting = { type: S.IOMMU_HWPT_DATA_ARM_SMMUV3, data: S.iommuHwptArmSmmuv3.encode({}) };
    const blocked =
      KIND === "riscv"
        ? user.nested(iommufd, device, viommu, { tc: 0n })
        : user.hwpt(iommufd, device, viommu, aborting);
    user.attach(vfio, blocked);
    user.process.close(vfio);
    expect(user.destroy(iommufd, vdevice)).toBe(-ENOENT);
    const second = user.open(host.vfio.nodeOf(name(0x0110))!);
    const other = user.bind(second, iommufd);
    expect(user.vdevice(iommufd, viommu, other, 0x10n)).toBeGreaterThan(0);
    expect(user.attach(second, blocked)).toBe(blocked);
    end();
  });
});
