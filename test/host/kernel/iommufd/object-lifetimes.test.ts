// Ids, references and destruction (iommufd-semantics §1, §5): what Linux's selftests leave out.

import { describe, expect, it } from "vitest";
import { StateReader } from "../../../../host/base/state.ts";
import { NO_PASID } from "../../../../host/devices/ports.ts";
import { attachDevice, detachDevice, unbindDevice } from "../../../../host/kernel/iommufd/in-kernel.ts";
import type { Viommu } from "../../../../host/kernel/iommufd/viommu.ts";
import { EBUSY, EEXIST, EINVAL, ENOENT, ENXIO, EPERM } from "../../../../host/uapi/errno.ts";
import * as uapi from "../../../../host/uapi/iommufd.ts";
import { MAP_SHARED, PROT_EXEC, PROT_READ } from "../../../../host/uapi/system-calls.ts";
import { MockHost, mockHwptData } from "./mock-host.ts";

function withViommu() {
  const host = new MockHost();
  const user = host.process();
  const bound = user.bind(host.addDevice());
  const ioas = user.ioas();
  const parent = user.hwpt(bound.id, ioas, uapi.IOMMU_HWPT_ALLOC_NEST_PARENT);
  return { host, user, bound, ioas, parent, viommu: user.viommu(bound.id, parent) };
}

describe("object ids", () => {
  it("are the lowest free ones, from 1", () => {
    const user = new MockHost().process();
    expect([user.ioas(), user.ioas(), user.ioas()]).toEqual([1, 2, 3]);
    expect(user.destroy(2)).toBe(0);
    expect([user.ioas(), user.ioas()]).toEqual([2, 4]);
  });

  it("never name an object of another kind", () => {
    const { user, ioas, parent } = withViommu();
    for (const id of [0, ioas, 999]) {
      expect(user.result(uapi.IOMMU_HWPT_SET_DIRTY_TRACKING, uapi.iommuHwptSetDirtyTracking, { hwpt_id: id })).toBe(
        -ENOENT,
      );
    }
    expect(user.unmap(parent, 0n, 4096n)).toBe(-ENOENT);
  });
});

describe("a vIOMMU", () => {
  it("that vDEVICEs hold refuses DESTROY and keeps its vDEVICEs", () => {
    const { user, bound, viommu } = withViommu();
    const vdevice = user.vdevice(viommu, bound.id, 0x77n);
    expect(user.destroy(viommu)).toBe(-EBUSY);
    const nested = user.hwpt(bound.id, viommu, 0, mockHwptData(1));
    // The nested domain finds the device's guest id at attach time: it is still there.
    expect(attachDevice(bound, NO_PASID, nested)).toBe(nested);
    detachDevice(bound, NO_PASID);
    expect([nested, vdevice, viommu].map((id) => user.destroy(id))).toEqual([0, 0, 0]);
  });

  it("lives on when its device is unbound, whose vDEVICE goes with the device", () => {
    const { host, user, bound, viommu, parent, ioas } = withViommu();
    const vdevice = user.vdevice(viommu, bound.id, 0x77n);
    unbindDevice(bound);
    expect(user.destroy(vdevice)).toBe(-ENOENT);
    expect(user.destroy(viommu)).toBe(0);
    expect(user.destroy(parent)).toBe(0);
    expect(user.destroy(ioas)).toBe(0);
    user.process.exit();
    expect(host.kernel.liveKinds).toEqual([]);
  });
});

describe("a vDEVICE", () => {
  it("takes any u64 as guest id, and ids that differ above bit 32 are different", () => {
    const { host, user, bound, viommu } = withViommu();
    const other = user.bind(host.addDevice());
    const third = user.bind(host.addDevice());
    user.vdevice(viommu, bound.id, 0x10n);
    user.vdevice(viommu, other.id, 0x1_0000_0010n);
    user.vdevice(viommu, third.id, 0xffff_ffff_ffff_ffffn);
    const core = user.context.find<Viommu>(viommu, "viommu");
    const findAll = () => {
      // A guest's commands name ids as numbers.
      for (const id of [0x10, 0x10n]) expect(core?.findDevice(id)).toBe(bound.device);
      for (const id of [0x1_0000_0010, 0x1_0000_0010n]) expect(core?.findDevice(id)).toBe(other.device);
      expect(core?.findDevice(0xffff_ffff_ffff_ffffn)).toBe(third.device);
      expect(core?.findDevice(0xffff_ffffn)).toBe(null);
    };
    findAll();
    core?.restoreState(new StateReader(core.saveState(), "viommu"));
    findAll();
  });

  it("is refused when its guest id is taken in the vIOMMU, and is free again after DESTROY", () => {
    const { host, user, bound, viommu, parent } = withViommu();
    const other = user.bind(host.addDevice());
    const vdevice = user.vdevice(viommu, bound.id, 0x10n);
    const again = { viommu_id: viommu, dev_id: other.id, virt_id: 0x10n };
    expect(user.result(uapi.IOMMU_VDEVICE_ALLOC, uapi.iommuVdeviceAlloc, again)).toBe(-EEXIST);
    // The same id in another vIOMMU is another id.
    const second = user.viommu(other.id, parent);
    const elsewhere = user.vdevice(second, other.id, 0x10n);
    expect(user.destroy(elsewhere)).toBe(0);
    expect(user.destroy(vdevice)).toBe(0);
    expect(user.result(uapi.IOMMU_VDEVICE_ALLOC, uapi.iommuVdeviceAlloc, again)).toBe(0);
  });

  it("exists at most once for a device, whatever the vIOMMU", () => {
    const { user, bound, viommu, parent } = withViommu();
    user.vdevice(viommu, bound.id, 1n);
    const second = user.viommu(bound.id, parent);
    const again = { viommu_id: second, dev_id: bound.id, virt_id: 2n };
    expect(user.result(uapi.IOMMU_VDEVICE_ALLOC, uapi.iommuVdeviceAlloc, again)).toBe(-EEXIST);
  });

  it("leaves a tombstone when its device is unbound: the id is not found and not used again in this context", () => {
    const { host, user, bound, viommu, parent, ioas } = withViommu();
    const vdevice = user.vdevice(viommu, bound.id, 0x10n);
    const device = bound.id;
    unbindDevice(bound);
    expect(user.destroy(vdevice)).toBe(-ENOENT);
    const fresh = [user.ioas(), user.ioas(), user.ioas()];
    expect(fresh).toContain(device);
    expect(fresh).not.toContain(vdevice);
    // A tombstone occupies the table: the accounting mode can no longer be set.
    for (const id of fresh) user.destroy(id);
    expect(user.destroy(viommu)).toBe(0);
    expect(user.destroy(parent)).toBe(0);
    expect(user.destroy(ioas)).toBe(0);
    expect(host.kernel.live.of("ioas")).toBe(0);
    const mode = { option_id: uapi.IOMMU_OPTION_RLIMIT_MODE, op: uapi.IOMMU_OPTION_OP_SET, val64: 1n };
    expect(user.result(uapi.IOMMU_OPTION, uapi.iommuOption, mode)).toBe(-EBUSY);
  });
});

describe("memory that a vIOMMU exports", () => {
  function exporting() {
    const { host, user, bound, parent } = withViommu();
    const data = user.process.memory.allocate(4096);
    user.process.memory.bytes(data, 4).set([0xef, 0xbe, 0xad, 0xde]);
    const reply = user.call(uapi.IOMMU_VIOMMU_ALLOC, uapi.iommuViommuAlloc, {
      type: 0xdeadbeef,
      dev_id: bound.id,
      hwpt_id: parent,
      data_len: 24,
      data_uptr: data,
    });
    const view = new DataView(user.process.memory.bytes(data, 24).slice().buffer);
    const [offset, length] = [view.getBigUint64(8, true), Number(view.getBigUint64(16, true))];
    return { host, user, id: reply.out_viommu_id, offset, length };
  }

  it("can be mapped, whole, shared and not executable only", () => {
    const { user, offset, length } = exporting();
    const map = (at: bigint, bytes: number, prot = PROT_READ, flags = MAP_SHARED) =>
      Number(user.process.mmap(user.fd, at, bytes, prot, flags));
    expect(map(offset + 4096n, length - 4096)).toBe(-ENXIO);
    expect(map(offset, length - 4096)).toBe(-ENXIO);
    expect(map(0n, length)).toBe(-ENXIO);
    expect(map(offset, length - 1)).toBe(-EINVAL);
    expect(map(offset, length, PROT_READ, 2)).toBe(-EINVAL);
    expect(map(offset, length, PROT_READ | PROT_EXEC)).toBe(-EPERM);
    const va = user.process.mmap(user.fd, offset, length, PROT_READ, MAP_SHARED);
    expect([...user.process.memory.bytes(va, 4)]).toEqual([0xef, 0xbe, 0xad, 0xde]);
  });

  it("keeps the vIOMMU and the context while mapped", () => {
    const { host, user, id, offset, length } = exporting();
    const va = user.process.mmap(user.fd, offset, length, PROT_READ, MAP_SHARED);
    expect(user.destroy(id)).toBe(-EBUSY);
    user.process.munmap(va, length);
    expect(user.destroy(id)).toBe(0);
    expect(host.kernel.live.of("viommu")).toBe(1);
  });
});

describe("closing /dev/iommu", () => {
  it("destroys whatever is left, in the order in which references allow", () => {
    const { host, user, bound, viommu } = withViommu();
    user.vdevice(viommu, bound.id, 0x10n);
    const ram = user.process.memory.allocate(1 << 20);
    user.map(user.ioas(), ram, 1 << 20, 0x1000_0000n);
    unbindDevice(bound);
    user.process.close(user.fd);
    expect(host.kernel.live.of("iommufd context")).toBe(0);
    expect(host.kernel.frames.pins.total).toBe(0);
    user.process.exit();
    expect(host.kernel.liveKinds).toEqual([]);
  });

  it("keeps everything alive while an event file is open", () => {
    const { host, user, bound, viommu } = withViommu();
    const events = user.veventq(viommu, 1);
    unbindDevice(bound);
    user.process.close(user.fd);
    expect(host.kernel.live.of("viommu")).toBe(1);
    user.process.close(events.fd);
    expect(host.kernel.live.of("viommu")).toBe(0);
  });
});
