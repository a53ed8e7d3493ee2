// The life of a VFIO group (Linux: vfio/group.c): who keeps what it is in, when it may leave, and what is left of it when its last
// device is unbound under its open file.

import { describe, expect, it } from "vitest";
import { EBADF, EBADFD, EBUSY, EFAULT, EINVAL, ENODEV, ENOTTY, EPERM } from "../../../../host/uapi/errno.ts";
import * as C from "../../../../host/uapi/vfio-container.ts";
import { machine, name, type User } from "../machine.ts";

const RID = 0x0108;
const SIBLING = 0x0110;
const CONTAINER = "/dev/vfio/vfio";
const IOMMUFD = "/dev/iommu";

function open() {
  const host = machine({ devices: [{ rid: RID }, { rid: SIBLING }, { rid: 0x0200 }], groups: [[RID, SIBLING]] });
  host.kernel.pci.registerDriver({ name: "kernel", managesDma: false, probe: () => 0, remove: () => true });
  host.assign(RID);
  const user = host.user();
  const group = user.open(host.vfio.groupNodeOf(name(RID))!);
  const end = () => {
    user.process.exit();
    expect(host.kernel.liveKinds).toEqual([]);
    expect(host.kernel.iommu.ownedGroups).toBe(0);
  };
  return { host, user, group, end };
}

const status = (user: User, group: number) => user.call(group, C.VFIO_GROUP_GET_STATUS, C.vfioGroupStatus, {}).result;
const unset = (user: User, group: number) => user.process.ioctl(group, C.VFIO_GROUP_UNSET_CONTAINER, 0n);
const setIommu = (user: User, container: number, type: number) =>
  user.process.ioctl(container, C.VFIO_SET_IOMMU, BigInt(type));

describe("a group whose last device is unbound under its open file", () => {
  it("has left its container, and belongs to nobody: kernel drivers and iommufds may have it", () => {
    const { host, user, group, end } = open();
    const container = user.open(CONTAINER);
    expect(user.setContainer(group, container)).toBe(0);
    expect(setIommu(user, container, 3)).toBe(0);
    const va = user.process.memory.mapBuffer(new ArrayBuffer(4096), 0, 4096);
    expect(user.mapDma(container, va, 0x1000n, 4096n)).toBe(0);
    expect(host.kernel.pci.unbind(name(RID))).toBe(0);
    // The container is empty, so it is what it was before SET_IOMMU, and nothing is mapped or pinned.
    expect(user.mapDma(container, va, 0x1000n, 4096n)).toBe(-EINVAL);
    expect(host.kernel.frames.pins.total).toBe(0);
    expect(host.kernel.iommu.ownedGroups).toBe(0);
    expect(host.kernel.pci.bind(name(RID), "kernel")).toBe(0);
    expect(host.kernel.pci.unbind(name(RID))).toBe(0);
    expect(host.kernel.pci.bind(name(RID), "vfio-pci")).toBe(0);
    const node = user.open(host.vfio.nodeOf(name(RID))!);
    expect(user.bind(node, user.iommufd())).toBeGreaterThan(0);
    end();
  });

  it("answers ENODEV on the file that is left", () => {
    const { host, user, group, end } = open();
    const container = user.open(CONTAINER);
    user.setContainer(group, container);
    host.kernel.pci.unbind(name(RID));
    expect(status(user, group)).toBe(-ENODEV);
    expect(user.setContainer(group, container)).toBe(-ENODEV);
    expect(user.setContainer(group, user.iommufd())).toBe(-ENODEV);
    expect(user.setContainer(group, user.process.eventfd())).toBe(-ENODEV);
    expect(user.setContainer(group, -1)).toBe(-EBADF);
    expect(user.deviceFd(group, name(RID))).toBe(-ENODEV);
    expect(unset(user, group)).toBe(-EINVAL);
    end();
  });

  it("is another group than the one that a new binding makes: that one can be opened beside the old file", () => {
    const { host, user, group, end } = open();
    const container = user.open(CONTAINER);
    user.setContainer(group, container);
    host.kernel.pci.unbind(name(RID));
    host.kernel.pci.bind(name(RID), "vfio-pci");
    const again = user.open(host.vfio.groupNodeOf(name(RID))!);
    expect(again).toBeGreaterThan(0);
    expect(user.setContainer(again, container)).toBe(0);
    // Closing the old file takes nothing from the new one.
    user.process.close(group);
    expect(host.kernel.iommu.ownedGroups).toBe(1);
    expect(setIommu(user, container, 3)).toBe(0);
    expect(user.deviceFd(again, name(RID))).toBeGreaterThanOrEqual(0);
    end();
  });

  it("keeps its iommufd until the file is closed or it is unset", () => {
    const { host, user, group, end } = open();
    expect(user.setContainer(group, user.iommufd())).toBe(0);
    host.kernel.pci.unbind(name(RID));
    expect(status(user, group)).toBe(-ENODEV);
    expect(user.setContainer(group, user.iommufd())).toBe(-EINVAL);
    expect(unset(user, group)).toBe(0);
    expect(unset(user, group)).toBe(-EINVAL);
    end();
  });

  it("goes on while a sibling is bound", () => {
    const { host, user, group, end } = open();
    host.assign(SIBLING);
    const container = user.open(CONTAINER);
    user.setContainer(group, container);
    setIommu(user, container, 3);
    expect(host.kernel.pci.unbind(name(RID))).toBe(0);
    expect(status(user, group)).toBe(0);
    expect(host.kernel.pci.bind(name(RID), "kernel")).toBe(-EBUSY);
    expect(user.deviceFd(group, name(SIBLING))).toBeGreaterThan(0);
    expect(host.kernel.pci.unbind(name(SIBLING))).toBe(1);
    end();
  });

  it("waits for its open device, and then is left all the same", () => {
    const { host, user, group, end } = open();
    const container = user.open(CONTAINER);
    user.setContainer(group, container);
    setIommu(user, container, 3);
    const device = user.deviceFd(group, name(RID));
    expect(host.kernel.pci.unbind(name(RID))).toBe(1);
    expect(user.deviceFd(group, name(RID))).toBe(-ENODEV);
    expect(status(user, group)).toBe(0);
    user.process.close(device);
    expect(status(user, group)).toBe(-ENODEV);
    expect(host.kernel.iommu.ownedGroups).toBe(0);
    end();
  });

  it("pulled out of the machine under its container: the same", () => {
    const { host, user, group, end } = open();
    user.setContainer(group, user.open(CONTAINER));
    host.root.unplug(RID);
    expect(status(user, group)).toBe(-ENODEV);
    expect(host.kernel.iommu.ownedGroups).toBe(0);
    end();
  });
});

describe("SET_CONTAINER and UNSET_CONTAINER", () => {
  it("look at the descriptor, then at the group, then at what the descriptor is", () => {
    const { user, group, end } = open();
    const container = user.open(CONTAINER);
    const eventfd = user.process.eventfd();
    expect(user.process.ioctl(group, C.VFIO_GROUP_SET_CONTAINER, 0x10n)).toBe(-EFAULT);
    for (const none of [-1, -2, -(2 ** 31), 999, 2 ** 31 - 1]) expect(user.setContainer(group, none)).toBe(-EBADF);
    expect(user.setContainer(group, eventfd)).toBe(-EBADFD);
    expect(user.setContainer(group, group)).toBe(-EBADFD);
    expect(unset(user, group)).toBe(-EINVAL);
    expect(user.setContainer(group, container)).toBe(0);
    expect(user.setContainer(group, container)).toBe(-EINVAL);
    expect(user.setContainer(group, eventfd)).toBe(-EINVAL);
    expect(user.setContainer(group, -1)).toBe(-EBADF);
    expect(user.process.ioctl(group, 0x3b00 + 99, 0n)).toBe(-ENOTTY);
    end();
  });

  it("a container is not left under an open device, however often that was opened", () => {
    const { user, group, end } = open();
    const container = user.open(CONTAINER);
    user.setContainer(group, container);
    setIommu(user, container, 3);
    const devices = [user.deviceFd(group, name(RID)), user.deviceFd(group, name(RID))];
    for (const device of devices) {
      expect(unset(user, group)).toBe(-EBUSY);
      user.process.close(device);
    }
    expect(unset(user, group)).toBe(0);
    end();
  });

  it("an iommufd is left under an open device, which goes on with it", () => {
    const { host, user, group, end } = open();
    const iommufd = user.open(IOMMUFD);
    user.setContainer(group, iommufd);
    setIommu(user, iommufd, 3);
    const device = user.deviceFd(group, name(RID));
    expect(unset(user, group)).toBe(0);
    expect(user.deviceFd(group, name(RID))).toBe(-EINVAL);
    expect(user.configRead(device, 0, 2)).toBe(0x1234);
    expect(user.groupFlags(group)).toBe(0);
    // The device's owner is still that iommufd: no container can have its group, and no kernel driver.
    expect(user.setContainer(group, user.open(CONTAINER))).toBe(-EPERM);
    expect(host.kernel.pci.bind(name(SIBLING), "kernel")).toBe(-EBUSY);
    user.process.close(device);
    expect(host.kernel.iommu.ownedGroups).toBe(0);
    expect(user.groupFlags(group)).toBe(C.VFIO_GROUP_FLAGS_VIABLE);
    end();
  });

  it("a container's device keeps the group's file open, an iommufd's does not", () => {
    for (const [path, again] of [
      [CONTAINER, -EBUSY],
      [IOMMUFD, 0],
    ] as const) {
      const { host, user, group, end } = open();
      const node = host.vfio.groupNodeOf(name(RID))!;
      const container = user.open(path);
      user.setContainer(group, container);
      setIommu(user, container, 3);
      const device = user.deviceFd(group, name(RID));
      user.process.close(group);
      expect(Math.min(0, user.open(node))).toBe(again);
      expect(user.configRead(device, 0, 2)).toBe(0x1234);
      end();
    }
  });
});

describe("GROUP_GET_DEVICE_FD", () => {
  it("takes a name, spaces after it, and no option", () => {
    const { user, group, end } = open();
    const container = user.open(CONTAINER);
    user.setContainer(group, container);
    setIommu(user, container, 3);
    const device = name(RID);
    expect(user.deviceFd(group, device)).toBeGreaterThan(0);
    expect(user.deviceFd(group, `${device}   `)).toBeGreaterThan(0);
    expect(user.deviceFd(group, `${device}0`)).toBe(-ENODEV);
    expect(user.deviceFd(group, device.slice(0, -1))).toBe(-ENODEV);
    expect(user.deviceFd(group, "")).toBe(-ENODEV);
    expect(user.deviceFd(group, `${device} vf_token=b2a4f7a0-0000-0000-0000-000000000000`)).toBe(-EINVAL);
    expect(user.deviceFd(group, `${device} x`)).toBe(-EINVAL);
    // A page is the most that a name may take.
    expect(user.deviceFd(group, "x".repeat(4095))).toBe(-ENODEV);
    expect(user.deviceFd(group, "x".repeat(4096))).toBe(-EINVAL);
    expect(user.process.ioctl(group, C.VFIO_GROUP_GET_DEVICE_FD, 0x10n)).toBe(-EFAULT);
    end();
  });
});
