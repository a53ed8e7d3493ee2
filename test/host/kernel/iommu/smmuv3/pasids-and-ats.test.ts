// PASIDs through tables of context descriptors, and ATS, by VFIO's system calls and a device's DMA.

import { describe, expect, it } from "vitest";
import { STE } from "../../../../../host/arch/smmuv3/stream-table-entry.ts";
import type { EduOptions } from "../../../../../host/devices/edu/edu.ts";
import * as R from "../../../../../host/devices/edu/registers.ts";
import { NO_PASID } from "../../../../../host/devices/ports.ts";
import { ACCESS_READ, TRANSLATED } from "../../../../../host/hw/iommu/port.ts";
import type { Smmuv3Options } from "../../../../../host/hw/iommu/smmuv3/options.ts";
import { NO_INJECTION } from "../../../../../host/kernel/inject.ts";
import { deviceDataOf } from "../../../../../host/kernel/iommu/smmuv3/device-data.ts";
import { EBUSY, EINVAL, ENOMEM, EOPNOTSUPP } from "../../../../../host/uapi/errno.ts";
import * as I from "../../../../../host/uapi/iommufd.ts";
import * as X from "../../../../../host/uapi/vfio.ts";
import { RAM_GPA } from "../../guest.ts";
import { eduDma, eduOutcome, machine, name } from "../../machine.ts";
import { eats, GuestMachine, s1dss } from "./guest-machine.ts";

const RID = 0x0108;
const IOVA = 0x10_0000n;

function setUp(options: Smmuv3Options = {}, edu: EduOptions = { pasidBits: 20 }) {
  const host = machine({ smmus: [options], devices: [{ rid: RID, options: edu }], ramPages: 8192 });
  host.assign();
  const user = host.user();
  const iommufd = user.iommufd();
  const vfio = user.open(host.vfio.nodeOf(name(RID))!);
  const device = user.bind(vfio, iommufd);
  user.enableDevice(vfio);
  const bar = user.bar0(vfio);
  /** Where the device puts what it read: the page behind IOVA in every space. */
  const inbox = user.process.memory.mapBuffer(new ArrayBuffer(4096), 0, 4096);
  /** An HWPT in which IOVA is a page of `fill`. */
  const space = (fill: number, flags = I.IOMMU_HWPT_ALLOC_PASID) => {
    const va = user.process.memory.mapBuffer(new ArrayBuffer(4096), 0, 4096);
    user.process.memory.bytes(va, 4096).fill(fill);
    const ioas = user.ioas(iommufd);
    user.map(iommufd, ioas, va, 4096, IOVA);
    user.map(iommufd, ioas, inbox, 4096, IOVA + 4096n);
    const hwpt = user.hwpt(iommufd, device, ioas, { flags });
    expect(hwpt).toBeGreaterThan(0);
    return { va, ioas, hwpt };
  };
  const at = (pasid: number, id: number): number => {
    const values = { flags: X.VFIO_DEVICE_ATTACH_PASID, pasid, pt_id: id };
    return user.call(vfio, X.VFIO_DEVICE_ATTACH_IOMMUFD_PT, X.vfioDeviceAttachIommufdPt, values).result;
  };
  const detachAt = (pasid: number): number => {
    const values = { flags: X.VFIO_DEVICE_DETACH_PASID, pasid };
    return user.call(vfio, X.VFIO_DEVICE_DETACH_IOMMUFD_PT, X.vfioDeviceDetachIommufdPt, values).result;
  };
  /** First byte that the device reads at IOVA with a PASID (null: none), by DMA alone; -1 when refused. */
  const read = (pasid: number | null): number => {
    bar.mmioWrite(R.PASID, 4, pasid === null ? 0 : (R.PASID_VALID | pasid) >>> 0, 0);
    eduDma(bar, IOVA, 64, false);
    host.run(10_000);
    if (eduOutcome(bar) !== R.OUTCOME_DONE) return -1;
    eduDma(bar, IOVA + 4096n, 64, true);
    host.run(10_000);
    expect(eduOutcome(bar)).toBe(R.OUTCOME_DONE);
    return user.process.memory.bytes(inbox, 1)[0]!;
  };
  const known = () => host.kernel.iommu.deviceNamed(name(RID))!;
  const stream = () => {
    const entry = deviceDataOf(known()).smmu.streamEntryOf(known());
    const get = (field: keyof typeof STE.fields) => Number(STE.get(entry, field));
    return {
      Config: get("Config"),
      S1DSS: get("S1DSS"),
      S1Fmt: get("S1Fmt"),
      S1CDMax: get("S1CDMax"),
      EATS: get("EATS"),
    };
  };
  const end = () => {
    user.process.exit();
    expect(host.kernel.liveKinds).toEqual([]);
  };
  return { host, user, iommufd, vfio, device, bar, space, at, detachAt, read, end, known, stream };
}

describe.each<[string, Smmuv3Options, bits: number, format: number]>([
  ["20-bit PASIDs, tables of two levels", {}, 20, 2],
  ["11-bit PASIDs", { features: { SSIDSIZE: 11 } }, 11, 2],
  ["10-bit PASIDs, a linear table", { features: { SSIDSIZE: 10 } }, 10, 0],
  ["8-bit PASIDs", { features: { SSIDSIZE: 8 } }, 8, 0],
  ["20-bit PASIDs without tables of two levels", { features: { CD2L: false } }, 10, 0],
  ["EL1", { features: { Hyp: false } }, 20, 2],
])("with %s", (_name, options, bits, format) => {
  it("each PASID has a space of its own, and requests without one have theirs", () => {
    const { user, vfio, space, at, detachAt, read, end, stream } = setUp(options);
    const [five, six, rid] = [space(0x55), space(0x66), space(0x11)];
    expect(at(5, five.hwpt)).toBe(0);
    expect(stream()).toMatchObject({ Config: 5, S1DSS: 0, S1Fmt: format, S1CDMax: bits });
    expect(at(6, six.hwpt)).toBe(0);
    expect([read(5), read(6), read(7), read(null)]).toEqual([0x55, 0x66, -1, -1]);
    expect(user.attach(vfio, rid.hwpt)).toBe(rid.hwpt);
    expect(stream()).toMatchObject({ Config: 5, S1DSS: 2 });
    expect([read(5), read(6), read(7), read(null)]).toEqual([0x55, 0x66, -1, 0x11]);
    expect(detachAt(5)).toBe(0);
    expect([read(5), read(6), read(null)]).toEqual([-1, 0x66, 0x11]);
    expect(user.detach(vfio)).toBe(0);
    expect([read(6), read(null)]).toEqual([0x66, -1]);
    expect(detachAt(6)).toBe(0);
    expect(stream()).toMatchObject({ Config: 0 });
    expect([read(6), read(null)]).toEqual([-1, -1]);
    end();
  });

  it("the last PASID that there is works, the next is none", () => {
    const { space, at, read, end } = setUp(options);
    const last = 2 ** bits - 1;
    const { hwpt } = space(0x77);
    expect(at(last, hwpt)).toBe(0);
    expect(read(last)).toBe(0x77);
    expect(at(last + 1, hwpt)).toBe(-EINVAL);
    end();
  });

  it("another space at a PASID replaces the first, also in the TLB", () => {
    const { space, at, read, end } = setUp(options);
    const [first, second] = [space(0x55), space(0x66)];
    at(5, first.hwpt);
    expect(read(5)).toBe(0x55);
    expect(at(5, second.hwpt)).toBe(0);
    expect(read(5)).toBe(0x66);
    end();
  });

  it("an unmap is seen at every PASID", () => {
    const { user, iommufd, space, at, read, end } = setUp(options);
    const shared = space(0x33);
    at(3, shared.hwpt);
    at(4, shared.hwpt);
    expect([read(3), read(4)]).toEqual([0x33, 0x33]);
    user.unmap(iommufd, shared.ioas, IOVA, 4096n);
    expect([read(3), read(4)]).toEqual([-1, -1]);
    end();
  });
});

describe("PASIDs", () => {
  it("do not go with a second stage at the requester id, whichever comes first", () => {
    const { user, vfio, space, at, end } = setUp();
    const [pasid, parent] = [space(1), space(2, I.IOMMU_HWPT_ALLOC_NEST_PARENT)];
    expect(at(5, pasid.hwpt)).toBe(0);
    // iommufd asks for HWPTs made for PASIDs on both sides before the driver is asked.
    expect(user.attach(vfio, parent.hwpt)).toBe(-EINVAL);
    end();
    const other = setUp();
    const second = other.space(2, I.IOMMU_HWPT_ALLOC_NEST_PARENT);
    expect(other.user.attach(other.vfio, second.hwpt)).toBe(second.hwpt);
    expect(other.at(5, other.space(1).hwpt)).toBe(-EINVAL);
    other.end();
  });

  it("are refused by the driver itself where it must (arm_smmu_attach_dev, arm_smmu_set_pasid)", () => {
    const { host, known, end, user } = setUp();
    user.process.exit();
    const device = known();
    const core = host.kernel.iommu;
    const driver = core.driverOf(device)!;
    const group = core.groupOf(device)!;
    const make = (flags: number) => {
      const domain = driver.allocPaging(device, flags, null);
      if (typeof domain === "number") throw new Error(`no domain: ${domain}`);
      return { domain, onPageRequests: null };
    };
    const [first, second, tagged] = [make(0), make(I.IOMMU_HWPT_ALLOC_NEST_PARENT), make(I.IOMMU_HWPT_ALLOC_PASID)];
    expect(group.claim(host)).toBe(0);
    expect(group.attachPasid(second, 5)).toBe(-EINVAL);
    expect(group.attachPasid(tagged, 5)).toBe(0);
    expect(group.attach(second)).toBe(-EBUSY);
    expect(group.attach(first)).toBe(0);
    group.detachPasid(5);
    expect(group.replace(second)).toBe(0);
    expect(group.attachPasid(tagged, 5)).toBe(-EINVAL);
    group.release();
    for (const { domain } of [first, second, tagged]) domain.free();
    end();
  });

  it("leave the requester id's DMA alone while they come and go, on identity, blocked and a first stage", () => {
    const { host, space, at, detachAt, user, vfio, end } = setUp({
      caches: { streams: 0, contexts: 0, translations: 0, tables: 0 },
    });
    const [five, six, rid] = [space(0x55), space(0x66), space(0x11)];
    const smmu = host.iommus[0]!;
    const watch = (change: () => void): string[] => {
      const seen = new Set<string>();
      let inside = false;
      host.memory.onStore = () => {
        if (inside) return;
        inside = true;
        const status = smmu.translate(RID, NO_PASID, false, ACCESS_READ, Number(IOVA >> 12n), 0, false, -1);
        seen.add(status === TRANSLATED ? "translated" : "refused");
        inside = false;
      };
      change();
      host.memory.onStore = null;
      return [...seen];
    };
    const comeAndGo = () => {
      for (const result of [at(5, five.hwpt), at(6, six.hwpt), detachAt(5), detachAt(6)]) expect(result).toBe(0);
    };
    expect(watch(comeAndGo)).toEqual(["refused"]);
    user.attach(vfio, rid.hwpt);
    expect(watch(comeAndGo)).toEqual(["translated"]);
    end();
  });

  it("leave identity alone, which is S1DSS then, and DMA at the requester id meets nothing else meanwhile", () => {
    const { host, known, stream, end, user } = setUp({ caches: { streams: 0, contexts: 0, translations: 0 } });
    user.process.exit();
    const device = known();
    const core = host.kernel.iommu;
    const group = core.groupOf(device)!;
    const domain = core.driverOf(device)!.allocPaging(device, I.IOMMU_HWPT_ALLOC_PASID, null);
    if (typeof domain === "number") throw new Error(`no domain: ${domain}`);
    expect(group.domain.kind).toBe("identity");
    expect(stream()).toMatchObject({ Config: 4 });
    const seen = new Set<number>();
    let inside = false;
    host.memory.onStore = () => {
      if (inside) return;
      inside = true;
      const smmu = host.iommus[0]!;
      const status = smmu.translate(RID, NO_PASID, false, ACCESS_READ, 0x10_0007, 0, false, -1);
      seen.add(status === TRANSLATED ? smmu.resultPfn : -1);
      inside = false;
    };
    expect(group.attachPasid({ domain, onPageRequests: null }, 5)).toBe(0);
    expect(stream()).toMatchObject({ Config: 5, S1DSS: 1 });
    group.detachPasid(5);
    host.memory.onStore = null;
    expect(stream()).toMatchObject({ Config: 4 });
    expect([...seen]).toEqual([0x10_0007]);
    domain.free();
    end();
  });

  it("fail without memory for a table or a leaf, and leave everything as it was", () => {
    const { host, space, at, read, end } = setUp();
    const [five, far] = [space(0x55), space(0x66)];
    host.kernel.injector = { ...NO_INJECTION, allocation: (what) => what === "page-table page" };
    expect(at(5, five.hwpt)).toBe(-ENOMEM);
    expect(read(5)).toBe(-1);
    host.kernel.injector = NO_INJECTION;
    expect(at(5, five.hwpt)).toBe(0);
    host.kernel.injector = { ...NO_INJECTION, allocation: (what) => what === "page-table page" };
    expect(at(0x4000, far.hwpt)).toBe(-ENOMEM);
    expect([read(5), read(0x4000)]).toEqual([0x55, -1]);
    end();
  });

  it("are not there without SSIDSIZE, and need a stage 1", () => {
    const without = setUp({ features: { SSIDSIZE: 0 } });
    expect(without.known().maxPasids).toBe(0);
    const second = setUp({ features: { S1P: false } });
    const ioas = second.user.ioas(second.iommufd);
    const flags = I.IOMMU_HWPT_ALLOC_PASID;
    expect(second.user.hwpt(second.iommufd, second.device, ioas, { flags })).toBe(-EOPNOTSUPP);
  });
});

describe("ATS", () => {
  const withAts = (options: Smmuv3Options = {}) => {
    const set = setUp(options, { pasidBits: 20, ats: true });
    set.bar.mmioWrite(R.TRANSLATION_MODE, 4, R.MODE_ATS, 0);
    return set;
  };

  it.each([
    ["a first stage", I.IOMMU_HWPT_ALLOC_PASID],
    ["a second stage", I.IOMMU_HWPT_ALLOC_NEST_PARENT],
  ])("is on under %s and off when the device is on nothing; an unmap reaches what the device holds", (_what, flags) => {
    const { user, iommufd, vfio, space, read, stream, end } = withAts();
    expect(stream().EATS).toBe(0);
    const rid = space(0x42, flags);
    expect(user.attach(vfio, rid.hwpt)).toBe(rid.hwpt);
    expect(stream().EATS).toBe(1);
    expect(read(null)).toBe(0x42);
    user.unmap(iommufd, rid.ioas, IOVA, 4096n);
    expect(read(null)).toBe(-1);
    const other = space(0x43, flags);
    expect(user.attach(vfio, other.hwpt)).toBe(other.hwpt);
    expect(read(null)).toBe(0x43);
    expect(user.detach(vfio)).toBe(0);
    expect(stream().EATS).toBe(0);
    expect(read(null)).toBe(-1);
    end();
  });

  it("of a PASID works on blocked (S1DSS), and forgets when the PASID is detached or moved", () => {
    const { space, at, detachAt, read, stream, end } = withAts();
    const [first, second] = [space(0x55), space(0x66)];
    expect(at(5, first.hwpt)).toBe(0);
    expect(stream()).toMatchObject({ Config: 5, S1DSS: 0, EATS: 1 });
    expect(read(5)).toBe(0x55);
    expect(at(5, second.hwpt)).toBe(0);
    expect(read(5)).toBe(0x66);
    expect(detachAt(5)).toBe(0);
    expect(read(5)).toBe(-1);
    expect(stream()).toMatchObject({ Config: 0, EATS: 0 });
    end();
  });

  it("an unmap reaches what the device holds for each of its PASIDs", () => {
    const { user, iommufd, space, at, read, end } = withAts();
    const shared = space(0x33);
    at(3, shared.hwpt);
    at(4, shared.hwpt);
    expect([read(3), read(4)]).toEqual([0x33, 0x33]);
    user.unmap(iommufd, shared.ioas, IOVA, 4096n);
    expect([read(3), read(4)]).toEqual([-1, -1]);
    end();
  });

  it("of a guest's PASID forgets what a parent's unmap takes away, though the host knows no PASID of the guest's", () => {
    const machine = new GuestMachine({ devices: [{ rid: RID, options: { pasidBits: 6, ats: true } }] });
    const { host, user, ram, iommufd, ioas, a } = machine;
    machine.vdevice(0x10n);
    const { stage, contexts } = machine.stage1();
    contexts.set(3, stage, { asid: 9 });
    const hot = RAM_GPA + 0x1000_0000n;
    const va = user.process.memory.mapBuffer(new ArrayBuffer(4096), 0, 4096);
    expect(user.map(iommufd, ioas, va, 4096, hot)).toBe(0);
    stage.map(IOVA, hot);
    stage.map(IOVA + 0x1000n, ram.page());
    machine.install(contexts.streamEntry(6), s1dss(2) | eats(1));
    const bar = user.bar0(a.vfio);
    bar.mmioWrite(R.TRANSLATION_MODE, 4, R.MODE_ATS, 0);
    bar.mmioWrite(R.PASID, 4, (R.PASID_VALID | 3) >>> 0, 0);
    const dma = (address: bigint): number => {
      eduDma(bar, address, 64, true);
      host.run(10_000);
      return eduOutcome(bar);
    };
    expect([dma(IOVA), dma(IOVA + 0x1000n)]).toEqual([R.OUTCOME_DONE, R.OUTCOME_DONE]);
    expect(user.unmap(iommufd, ioas, hot, 4096n)).toBe(0);
    expect(dma(IOVA)).not.toBe(R.OUTCOME_DONE);
    expect(dma(IOVA + 0x1000n)).toBe(R.OUTCOME_DONE);
    expect(machine.end()).toEqual([]);
  });

  it("goes on when a device does not answer an invalidation: CERROR_ATC_INV_SYNC, and nobody is told", () => {
    const set = setUp({}, { ats: true, misbehaviour: true });
    const { host, user, iommufd, vfio, space, known, end } = set;
    const rid = space(0x42, 0);
    user.attach(vfio, rid.hwpt);
    set.bar.mmioWrite(R.MISBEHAVIOUR, 4, R.MISBEHAVE_NEVER_COMPLETE, 0);
    const before = host.clock.now;
    expect(user.unmap(iommufd, rid.ioas, IOVA, 4096n)).toBe(0);
    expect(host.clock.now).toBeGreaterThan(before);
    expect(deviceDataOf(known()).smmu.queue.errors).toBe(1);
    const other = space(0x43, 0);
    expect(user.attach(vfio, other.hwpt)).toBe(other.hwpt);
    end();
  });

  it.each([0, I.IOMMU_HWPT_ALLOC_NEST_PARENT])("is off where every stream stalls (flags %d)", (flags) => {
    const { user, vfio, space, stream, end, host } = withAts({ features: { STALL_MODEL: 2 } });
    const rid = space(1, flags);
    expect(user.attach(vfio, rid.hwpt)).toBe(rid.hwpt);
    expect(stream().EATS).toBe(0);
    expect(host.iommus[0]!.translate(RID, NO_PASID, false, ACCESS_READ, Number(IOVA >> 12n), 0, false, -1)).toBe(
      TRANSLATED,
    );
    end();
  });

  it("is nothing where the SMMU has none", () => {
    const { known, user, vfio, space, stream, end } = withAts({ features: { ATS: false } });
    expect(known().hasAts).toBe(false);
    user.attach(vfio, space(1, 0).hwpt);
    expect(stream().EATS).toBe(0);
    end();
  });
});
