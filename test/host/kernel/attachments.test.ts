// Who is attached to what, end to end over the RISC-V driver: what a device may reach follows from its attachments, whatever moved it
// there, and so do the invalidations, dirty logs and page requests that concern it.

import { describe, expect, it } from "vitest";
import { Edu, type EduOptions } from "../../../host/devices/edu/edu.ts";
import * as R from "../../../host/devices/edu/registers.ts";
import { DMA_OK, NO_PASID } from "../../../host/devices/ports.ts";
import { NO_INJECTION } from "../../../host/kernel/inject.ts";
import { EXT_CAP_PRI, findExtendedCapability } from "../../../host/kernel/pci/config-access.ts";
import { EBUSY, EINVAL, ENOMEM } from "../../../host/uapi/errno.ts";
import * as I from "../../../host/uapi/iommufd.ts";
import * as X from "../../../host/uapi/vfio.ts";
import { GuestRam, GuestSv39, RAM_GPA } from "./guest.ts";
import { eduDma, eduOutcome, type Machine, machine, name, type User } from "./machine.ts";

const RID = 0x0108;
const IOVA = 0x4000_0000n;
/** Guest-physical page that comes and goes. */
const HOT = RAM_GPA + 0x1000_0000n;
/** A guest's tc: V, EN_ATS. */
const [V, ATS] = [1n, 2n];

/** A guest with nested translation of one device, and a page of its RAM that can be unplugged. */
function nestedGuest(t2gpa: boolean, parentFlags = 0) {
  const host = machine({
    iommus: [{ capabilities: { T2GPA: t2gpa } }],
    devices: [{ rid: RID, options: { ats: true } }],
  });
  host.assign();
  const user = host.user();
  const ram = new GuestRam();
  const va = user.process.memory.mapBuffer(ram.buffer, 0, ram.buffer.byteLength);
  const hot = user.process.memory.mapBuffer(new ArrayBuffer(4096), 0, 4096);
  const iommufd = user.iommufd();
  const ioas = user.ioas(iommufd);
  user.map(iommufd, ioas, va, ram.buffer.byteLength, RAM_GPA);
  user.map(iommufd, ioas, hot, 4096, HOT);
  const vfio = user.open(host.vfio.nodeOf(name(RID))!);
  const device = user.bind(vfio, iommufd);
  const parent = user.hwpt(iommufd, device, ioas, { flags: I.IOMMU_HWPT_ALLOC_NEST_PARENT | parentFlags });
  const viommu = user.viommu(iommufd, device, parent);
  user.vdevice(iommufd, viommu, device, 0x10n);
  user.enableDevice(vfio);
  const bar = user.bar0(vfio);
  bar.mmioWrite(R.TRANSLATION_MODE, 4, R.MODE_ATS, 0);
  const attach = (words: { tc: bigint; fsc?: bigint; ta?: bigint }) => {
    const hwpt = user.nested(iommufd, device, viommu, words);
    expect(user.attach(vfio, hwpt)).toBe(hwpt);
    return hwpt;
  };
  /** A first stage in which IOVA is the page that comes and goes. */
  const stage = (pscid: bigint) => {
    const table = new GuestSv39(ram);
    table.map(IOVA, HOT);
    return { tc: V | ATS, fsc: table.fsc, ta: pscid << 12n };
  };
  return { host, user, iommufd, ioas, vfio, device, parent, viommu, bar, attach, stage };
}

describe("a device that moved from one nested domain of a vIOMMU to another", () => {
  const ways: [string, (guest: ReturnType<typeof nestedGuest>) => void][] = [
    ["at once", (guest) => guest.attach(guest.stage(7n))],
    [
      "from blocked",
      (guest) => {
        guest.attach({ tc: 0n });
        guest.attach(guest.stage(7n));
      },
    ],
    [
      "from another first stage, and back and forth",
      (guest) => {
        const first = guest.attach(guest.stage(7n));
        guest.attach(guest.stage(8n));
        guest.user.attach(guest.vfio, first);
        guest.attach(guest.stage(9n));
      },
    ],
  ];
  const cases = ways.flatMap(([way, go]) => [true, false].map((t2gpa) => [way, t2gpa, go] as const));

  it.each(cases)("(%s, T2GPA %s) writes nothing to a page that UNMAP has taken away", (_way, t2gpa, go) => {
    const guest = nestedGuest(t2gpa);
    const { host, user, iommufd, ioas, bar } = guest;
    go(guest);
    eduDma(bar, IOVA, 64, false);
    host.run(100_000);
    expect(eduOutcome(bar)).toBe(R.OUTCOME_DONE);
    const taken = bar.mmioRead(R.INVALIDATIONS_TAKEN, 4);
    expect(user.unmap(iommufd, ioas, HOT, 4096n)).toBe(0);
    // The device was told (ATS: PCIe 6.0 §10.3.1), once.
    expect(bar.mmioRead(R.INVALIDATIONS_TAKEN, 4)).toBe(taken + 1);
    eduDma(bar, IOVA, 64, true);
    host.run(100_000);
    expect(eduOutcome(bar)).not.toBe(R.OUTCOME_DONE);
    expect(bar.mmioRead(R.DMA_MOVED, 4)).toBe(0);
    user.process.exit();
    expect(host.kernel.liveKinds).toEqual([]);
  });

  it.each(cases)("(%s, T2GPA %s) has its writes logged again after the log was read", (_way, t2gpa, go) => {
    const guest = nestedGuest(t2gpa, I.IOMMU_HWPT_ALLOC_DIRTY_TRACKING);
    const { host, user, iommufd, parent, bar } = guest;
    go(guest);
    user.must(iommufd, I.IOMMU_HWPT_SET_DIRTY_TRACKING, I.iommuHwptSetDirtyTracking, {
      flags: I.IOMMU_HWPT_DIRTY_TRACKING_ENABLE,
      hwpt_id: parent,
    });
    const dirty = (): number => {
      const at = user.scratch + 8192n;
      user.process.memory.bytes(at, 1)[0] = 0;
      user.must(iommufd, I.IOMMU_HWPT_GET_DIRTY_BITMAP, I.iommuHwptGetDirtyBitmap, {
        ...{ hwpt_id: parent, iova: HOT, length: 4096n, page_size: 4096n, data: at },
      });
      return user.process.memory.bytes(at, 1)[0]!;
    };
    for (let round = 0; round < 3; round++) {
      eduDma(bar, IOVA, 64, true);
      host.run(100_000);
      expect(eduOutcome(bar)).toBe(R.OUTCOME_DONE);
      expect([dirty(), dirty()]).toEqual([1, 0]);
    }
    user.process.exit();
  });
});

const PAGES_IOVA = 0x10_0000n;

const ATTACH = X.VFIO_DEVICE_ATTACH_IOMMUFD_PT;
const DETACH = X.VFIO_DEVICE_DETACH_IOMMUFD_PT;

/** A device with host domains at its PASIDs; each HWPT shows a page of its own at PAGES_IOVA. */
function pasidUser(capabilities = {}, options: EduOptions = { pasidBits: 20, ats: true, pri: true }) {
  const host = machine({
    iommus: [{ capabilities }],
    devices: [{ rid: RID, options }],
    groups: [[RID, RID + 1]],
  });
  host.assign(RID);
  const user = host.user();
  const iommufd = user.iommufd();
  const vfio = user.open(host.vfio.nodeOf(name(RID))!);
  const device = user.bind(vfio, iommufd);
  user.enableDevice(vfio);
  const space = (fill: number, flags = 0, fault?: number) => {
    const va = user.process.memory.mapBuffer(new ArrayBuffer(4096), 0, 4096);
    user.process.memory.bytes(va, 4096).fill(fill);
    const ioas = user.ioas(iommufd);
    user.map(iommufd, ioas, va, 4096, PAGES_IOVA);
    const hwpt = user.hwpt(iommufd, device, ioas, {
      flags: I.IOMMU_HWPT_ALLOC_PASID | flags,
      ...(fault === undefined ? {} : { fault }),
    });
    expect(hwpt).toBeGreaterThan(0);
    return { va, ioas, hwpt };
  };
  const at = (pasid: number, id: number) =>
    user.call(vfio, ATTACH, X.vfioDeviceAttachIommufdPt, { flags: X.VFIO_DEVICE_ATTACH_PASID, pasid, pt_id: id })
      .result;
  const detachAt = (pasid: number) =>
    user.call(vfio, DETACH, X.vfioDeviceDetachIommufdPt, { flags: X.VFIO_DEVICE_DETACH_PASID, pasid }).result;
  /** First byte at PAGES_IOVA as the device reads it through a PASID (null: none); -1: refused. */
  const read = (pasid: number | null, rid = RID): number => {
    const into = new Uint8Array(1);
    const { dma } = host.root.slot(rid)!;
    return dma.read(Number(PAGES_IOVA >> 12n), 0, into, 0, 1, pasid ?? NO_PASID) === DMA_OK ? into[0]! : -1;
  };
  const write = (pasid: number): boolean => {
    const { dma } = host.root.slot(RID)!;
    return dma.write(Number(PAGES_IOVA >> 12n), 0, Uint8Array.of(1), 0, 1, pasid) === DMA_OK;
  };
  /** What the call says while the driver finds no memory for a table. */
  const withoutTables = (call: () => number): number => {
    host.kernel.injector = { ...NO_INJECTION, allocation: (what) => what === "page-table page" };
    const result = call();
    host.kernel.injector = NO_INJECTION;
    return result;
  };
  const end = () => {
    user.process.exit();
    expect(host.kernel.liveKinds).toEqual([]);
  };
  return { host, user, iommufd, vfio, device, space, at, detachAt, read, write, withoutTables, end };
}

describe("a PASID whose domain cannot be replaced", () => {
  it("keeps the domain that it had, until it is detached from that", () => {
    const { user, iommufd, space, at, detachAt, read, withoutTables, end } = pasidUser();
    const [first, second] = [space(0x55), space(0x66)];
    expect(at(5, first.hwpt)).toBe(0);
    expect(read(5)).toBe(0x55);
    expect(withoutTables(() => at(5, second.hwpt))).toBe(-ENOMEM);
    expect(read(5)).toBe(0x55);
    // Its domain is in use, and an unmap of it still reaches the device's IOMMU.
    expect(user.destroy(iommufd, first.hwpt)).toBe(-EBUSY);
    expect(user.destroy(iommufd, second.hwpt)).toBe(0);
    user.unmap(iommufd, first.ioas, PAGES_IOVA, 4096n);
    expect(read(5)).toBe(-1);
    user.map(iommufd, first.ioas, first.va, 4096, PAGES_IOVA);
    expect(read(5)).toBe(0x55);
    expect(detachAt(5)).toBe(0);
    expect(read(5)).toBe(-1);
    expect(user.destroy(iommufd, first.hwpt)).toBe(0);
    end();
  });

  it("is none of the other PASIDs' business, nor of the requester id's", () => {
    const { user, vfio, space, at, detachAt, read, withoutTables, end } = pasidUser();
    const [rid, five, six, other] = [space(0x11), space(0x55), space(0x66), space(0x77)];
    expect(user.attach(vfio, rid.hwpt)).toBe(rid.hwpt);
    expect(withoutTables(() => at(5, five.hwpt))).toBe(-ENOMEM);
    expect([read(null), read(5)]).toEqual([0x11, -1]);
    at(5, five.hwpt);
    at(6, six.hwpt);
    for (const pasid of [5, 6, 0x10000]) expect(withoutTables(() => at(pasid, other.hwpt))).toBe(-ENOMEM);
    expect(withoutTables(() => user.attach(vfio, other.hwpt))).toBe(-ENOMEM);
    expect([read(null), read(5), read(6), read(0x10000)]).toEqual([0x11, 0x55, 0x66, -1]);
    detachAt(5);
    expect([read(null), read(5), read(6)]).toEqual([0x11, -1, 0x66]);
    detachAt(6);
    expect([read(null), read(5), read(6)]).toEqual([0x11, -1, -1]);
    end();
  });
});

describe("domains at PASIDs", () => {
  it("that log writes may join ones that do not, and leave them again", () => {
    const { user, iommufd, space, at, detachAt, write, end } = pasidUser({ AMO_HWAD: true });
    const plain = space(1);
    const logged = space(2, I.IOMMU_HWPT_ALLOC_DIRTY_TRACKING);
    at(5, plain.hwpt);
    expect(at(6, logged.hwpt)).toBe(0);
    const dirty = (): number => {
      const data = user.scratch + 8192n;
      user.process.memory.bytes(data, 1)[0] = 0;
      const values = { hwpt_id: logged.hwpt, iova: PAGES_IOVA, length: 4096n, page_size: 4096n, data };
      user.must(iommufd, I.IOMMU_HWPT_GET_DIRTY_BITMAP, I.iommuHwptGetDirtyBitmap, values);
      return user.process.memory.bytes(data, 1)[0]!;
    };
    expect([write(5), write(6)]).toEqual([true, true]);
    expect([dirty(), dirty()]).toEqual([1, 0]);
    detachAt(6);
    expect([write(5), write(6)]).toEqual([true, false]);
    expect(at(5, logged.hwpt)).toBe(0);
    expect(write(5)).toBe(true);
    expect(dirty()).toBe(1);
    end();
  });
});

/** A page request of a device, as the hardware's record says it. */
function ask(host: Machine, rid: number, group: number, last: boolean, address = 0x7000n): number {
  const device = host.kernel.pci.device(name(rid))!.iommuDevice!;
  return host.kernel.iommu.reportPageRequest(device, { pasid: NO_PASID, group, last, permissions: 1, address });
}

const priEnabled = (host: Machine, rid: number): boolean => {
  const { function: pci } = host.root.slot(rid)!;
  return (pci.configRead(findExtendedCapability(pci, EXT_CAP_PRI) + 4, 2) & 1) !== 0;
};

const respond = (user: User, fd: number, cookie: number, code: number): number => {
  user.process.memory.bytes(user.scratch, 8).set(I.iommuHwptPageResponse.encode({ cookie, code }));
  return user.process.write(fd, user.scratch, 8, -1n);
};

describe("a device plugged into a group whose domain takes page requests", () => {
  const options = { pasidBits: 20, ats: true, pri: true };

  it("may send them, is answered, and stops when the group is detached", () => {
    const { host, user, iommufd, vfio, space, end } = pasidUser();
    const [fault, fd] = user.faultQueue(iommufd);
    const taking = space(0x11, 0, fault);
    expect(user.attach(vfio, taking.hwpt)).toBe(taking.hwpt);
    const late = new Edu({ name: name(RID + 1), ...options });
    host.root.plug(RID + 1, late, host.iommus[0]!);
    expect(priEnabled(host, RID + 1)).toBe(true);
    expect(ask(host, RID + 1, 3, true)).toBe(0);
    const { cookie } = I.iommuHwptPgfault.decode(user.readAll(fd), 0);
    expect(respond(user, fd, cookie, I.IOMMUFD_PAGE_RESP_SUCCESS)).toBe(8);
    user.detach(vfio);
    expect(priEnabled(host, RID + 1)).toBe(false);
    expect(priEnabled(host, RID)).toBe(false);
    expect(ask(host, RID + 1, 4, true)).toBe(-EINVAL);
    // And again, as often as one likes.
    user.attach(vfio, taking.hwpt);
    expect([priEnabled(host, RID), priEnabled(host, RID + 1)]).toEqual([true, true]);
    host.root.unplug(RID + 1);
    user.detach(vfio);
    expect(priEnabled(host, RID)).toBe(false);
    end();
  });

  it("and pulled out with a request unanswered leaves an answer that reaches nobody", () => {
    const { host, user, iommufd, vfio, space, end } = pasidUser();
    const [fault, fd] = user.faultQueue(iommufd);
    user.attach(vfio, space(0x11, 0, fault).hwpt);
    host.root.plug(RID + 1, new Edu({ name: name(RID + 1), ...options }), host.iommus[0]!);
    ask(host, RID + 1, 3, true);
    ask(host, RID + 1, 4, true);
    const first = I.iommuHwptPgfault.decode(user.readAll(fd), 0);
    host.root.unplug(RID + 1);
    // As in Linux the cookie is still good: the group was answered INVALID when the device left.
    expect(respond(user, fd, first.cookie, I.IOMMUFD_PAGE_RESP_SUCCESS)).toBe(8);
    expect(respond(user, fd, first.cookie, I.IOMMUFD_PAGE_RESP_SUCCESS)).toBe(-EINVAL);
    ask(host, RID, 5, true);
    const { cookie } = I.iommuHwptPgfault.decode(user.readAll(fd), 0);
    expect(respond(user, fd, cookie, I.IOMMUFD_PAGE_RESP_SUCCESS)).toBe(8);
    end();
  });

  it("has what the group has at its PASIDs, as an attach of it says", () => {
    const { host, user, iommufd, vfio, space, at, detachAt, read, end } = pasidUser();
    const [rid, five] = [space(0x11), space(0x55)];
    user.attach(vfio, rid.hwpt);
    at(5, five.hwpt);
    host.root.plug(RID + 1, new Edu({ name: name(RID + 1), ...options }), host.iommus[0]!);
    host.assign(RID + 1);
    const late = user.open(host.vfio.nodeOf(name(RID + 1))!);
    expect(user.bind(late, iommufd)).toBeGreaterThan(0);
    user.enableDevice(late);
    const values = { flags: X.VFIO_DEVICE_ATTACH_PASID, pasid: 5, pt_id: five.hwpt };
    expect(user.call(late, ATTACH, X.vfioDeviceAttachIommufdPt, values).result).toBe(0);
    expect([read(null, RID + 1), read(5, RID + 1)]).toEqual([0x11, 0x55]);
    // The group leaves the PASID with its last device.
    detachAt(5);
    expect(read(5, RID + 1)).toBe(0x55);
    user.process.close(late);
    expect([read(5, RID), read(5, RID + 1)]).toEqual([-1, -1]);
    end();
  });
});

describe("page requests", () => {
  it("that nobody takes are not kept for whoever comes next", () => {
    const { host, user, iommufd, vfio, space, end } = pasidUser();
    const [fault, fd] = user.faultQueue(iommufd);
    const [plain, taking] = [space(0x11), space(0x22, 0, fault)];
    user.attach(vfio, plain.hwpt);
    expect(ask(host, RID, 3, false, 0xbad000n)).toBe(-EINVAL);
    user.attach(vfio, taking.hwpt);
    expect(ask(host, RID, 3, true)).toBe(0);
    const read = user.readAll(fd);
    expect(read.length).toBe(I.iommuHwptPgfault.bytes);
    expect(I.iommuHwptPgfault.decode(read, 0).addr).toBe(0x7000n);
    end();
  });

  it("of an unfinished group end with the attachment that they came through", () => {
    const { host, user, iommufd, vfio, space, end } = pasidUser();
    const queues = [user.faultQueue(iommufd), user.faultQueue(iommufd)] as const;
    const [mine, yours] = queues.map(([fault]) => space(0x11, 0, fault).hwpt) as [number, number];
    user.attach(vfio, mine);
    expect(ask(host, RID, 3, false, 0xbad000n)).toBe(0);
    user.attach(vfio, yours);
    ask(host, RID, 3, true);
    expect(user.readAll(queues[0][1]).length).toBe(0);
    expect(user.readAll(queues[1][1]).length).toBe(I.iommuHwptPgfault.bytes);
    end();
  });

  it("of unfinished groups are void once the queue has overflowed", () => {
    const { host, user, iommufd, vfio, space, end } = pasidUser();
    const [fault, fd] = user.faultQueue(iommufd);
    user.attach(vfio, space(0x11, 0, fault).hwpt);
    const { dma } = host.root.slot(RID)!;
    const [READ, LAST] = [1, 4];
    // 4096 entries (§5.14: one stays free); the interrupt is not taken meanwhile.
    for (let i = 0; i < 5000; i++) dma.ats.pageRequest(0xbad, NO_PASID, 7, READ);
    host.run(100_000);
    dma.ats.pageRequest(0x7, NO_PASID, 7, READ | LAST);
    host.run(100_000);
    expect(user.readAll(fd).length).toBe(I.iommuHwptPgfault.bytes);
    expect(ask(host, RID, 8, true)).toBe(0);
    end();
  });
});
