// The path that the VMM takes: RAM mapped, a device bound, a nest parent, a vIOMMU with a vDEVICE and events, nested domains,
// replaced, invalidated, and everything taken down again.

import { describe, expect, it } from "vitest";
import { NO_PASID } from "../../../../host/devices/ports.ts";
import { MockPagingDomain } from "../../../../host/kernel/iommu/mock/mock-domain.ts";
import type { HwptPaging } from "../../../../host/kernel/iommufd/hw-pagetable.ts";
import { attachDevice, detachDevice, replaceDevice, unbindDevice } from "../../../../host/kernel/iommufd/in-kernel.ts";
import { EBUSY, ENOENT } from "../../../../host/uapi/errno.ts";
import * as uapi from "../../../../host/uapi/iommufd.ts";
import { MockHost, mockHwptData } from "./mock-host.ts";

const RAM = 16 * 1024 * 1024;
const IOVA = 0x1000_0000n;

function nestedSetup() {
  const host = new MockHost();
  const user = host.process();
  const device = host.addDevice();
  const bound = user.bind(device);
  const ioas = user.ioas();
  const ram = user.process.memory.mapBuffer(new ArrayBuffer(RAM), 0, RAM);
  expect(user.map(ioas, ram, RAM, IOVA)).toBe(0);
  const parent = user.hwpt(bound.id, ioas, uapi.IOMMU_HWPT_ALLOC_NEST_PARENT);
  const viommu = user.viommu(bound.id, parent);
  return { host, user, device, bound, ioas, ram, parent, viommu };
}

describe("a guest's stage 1 nested over its RAM", () => {
  it("is attached, invalidated, reports events, and leaves nothing behind", () => {
    const { host, user, device, bound, ioas, ram, parent, viommu } = nestedSetup();
    const vdevice = user.vdevice(viommu, bound.id, 0x10n);
    const events = user.veventq(viommu, 4);
    const nested = user.hwpt(bound.id, viommu, 0, mockHwptData(7));
    expect(attachDevice(bound, NO_PASID, parent)).toBe(parent);
    expect(replaceDevice(bound, NO_PASID, nested)).toBe(nested);
    // The vIOMMU translates the guest's id to the device: its cache entry 2 is dropped.
    const commands = user.process.memory.allocate(4096);
    const view = new DataView(
      user.process.memory.bytes(commands, 12).buffer,
      user.process.memory.bytes(commands, 12).byteOffset,
    );
    view.setUint32(4, 0x10, true);
    view.setUint32(8, 2, true);
    const done = user.call(uapi.IOMMU_HWPT_INVALIDATE, uapi.iommuHwptInvalidate, {
      hwpt_id: viommu,
      data_uptr: commands,
      data_type: 0xdeadbeef,
      entry_len: 12,
      entry_num: 1,
    });
    expect(done.entry_num).toBe(1);
    expect([...device.cache]).toEqual([0xbaddad, 0xbaddad, 0, 0xbaddad]);

    device.viommu?.core.reportEvent(0xbeefbeef, Uint8Array.of(0x10, 0, 0, 0));
    const event = user.read(events.fd, 12);
    expect([...event.bytes]).toEqual([0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0]);

    // Leaf first: everything that is referred to refuses.
    for (const id of [ioas, parent, viommu, nested, events.id]) expect(user.destroy(id)).toBe(-EBUSY);
    detachDevice(bound, NO_PASID);
    user.process.close(events.fd);
    for (const id of [nested, vdevice, events.id, viommu, parent]) expect(user.destroy(id)).toBe(0);
    expect(user.destroy(parent)).toBe(-ENOENT);
    expect(user.unmap(ioas, IOVA, BigInt(RAM))).toBe(0);
    expect(host.kernel.frames.pins.total).toBe(0);
    unbindDevice(bound);
    user.process.memory.free(ram, RAM);
    user.process.exit();
    expect(host.kernel.liveKinds).toEqual([]);
  });

  it("maps contiguous RAM as one run, whatever its size", () => {
    const { user, parent } = nestedSetup();
    const domain = user.context.find<HwptPaging>(parent, "hwpt-paging")?.domain;
    expect(domain).toBeInstanceOf(MockPagingDomain);
    expect((domain as MockPagingDomain).runs).toBe(1);
  });
});
