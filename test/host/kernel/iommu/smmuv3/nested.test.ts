// A guest's stage 1 over the host's stage 2 on an SMMUv3, by system calls alone and with an assigned device's DMA: what Linux's
// arm-smmu-v3-iommufd.c promises of entries, attaching, vDEVICEs and ATS.

import { describe, expect, it } from "vitest";
import {
  C_BAD_CD,
  C_BAD_STE,
  C_BAD_SUBSTREAMID,
  F_CD_FETCH,
  F_PERMISSION,
  F_STREAM_DISABLED,
  F_TRANSLATION,
  F_WALK_EABT,
} from "../../../../../host/arch/smmuv3/event-records.ts";
import * as R from "../../../../../host/devices/edu/registers.ts";
import { DMA_ABORTED, DMA_OK, NO_PASID } from "../../../../../host/devices/ports.ts";
import type { HwptNested } from "../../../../../host/kernel/iommufd/hw-pagetable.ts";
import { contextOf } from "../../../../../host/kernel/iommufd/in-kernel.ts";
import { EBUSY, EINVAL, EIO, ENOENT, EOPNOTSUPP } from "../../../../../host/uapi/errno.ts";
import * as I from "../../../../../host/uapi/iommufd.ts";
import * as S from "../../../../../host/uapi/smmuv3-nesting.ts";
import * as X from "../../../../../host/uapi/vfio.ts";
import { RAM_GPA } from "../../guest.ts";
import { READ_ONLY } from "../../guest-smmuv3.ts";
import { eduDma, eduOutcome, name } from "../../machine.ts";
import { A, ABORT, ASID, B, BYPASS, eats, GuestMachine, IOVA, must, s1dss } from "./guest-machine.ts";

const GUEST_STREAM = 0x10n;
const SW_MSI = 0x0800_0000n;

/** One DMA of the edu at `rid`, from memory (or to it): how it ended. */
function dma(machine: GuestMachine, vfio: number, address: bigint, toRam = false): number {
  const bar = machine.user.bar0(vfio);
  eduDma(bar, address, 64, toRam);
  machine.host.run(100_000);
  return eduOutcome(bar);
}

/** DMA at a PASID, past the device model: what the bus said. */
function atPasid({ host }: GuestMachine, rid: number, pasid: number, address: bigint): number {
  return host.root.slot(rid)!.dma.read(Number(address >> 12n), 0, new Uint8Array(4), 0, 4, pasid);
}

describe("nested DMA by system calls", () => {
  it("goes through the guest's stage 1 and the host's stage 2, and faults come back under the guest's StreamID", () => {
    const machine = new GuestMachine();
    const { ram, a, host } = machine;
    machine.vdevice(GUEST_STREAM);
    machine.listen();
    const { stage, entry } = machine.stage1();
    const [source, target] = [ram.page(), ram.page()];
    stage.map(IOVA, source);
    stage.map(IOVA + 0x1000n, target);
    ram.at(source).set([...Array(4096).keys()].map((i) => (i * 7) & 0xff));
    machine.install(entry);
    expect(dma(machine, a.vfio, IOVA)).toBe(R.OUTCOME_DONE);
    expect(dma(machine, a.vfio, IOVA + 0x1000n, true)).toBe(R.OUTCOME_DONE);
    expect(ram.at(target, 64)).toEqual(ram.at(source, 64));
    expect(machine.events()).toEqual([]);

    // Unmapped by the guest: until its invalidation the hardware may go on, after it the guest hears of a fault.
    stage.unmap(IOVA);
    expect(dma(machine, a.vfio, IOVA)).toBe(R.OUTCOME_DONE);
    // VMID is the guest's idea of one: the host's takes its place.
    expect(machine.command("TLBI_NH_VA", { VMID: 0x33, ASID, Address: IOVA >> 12n })).toEqual({ result: 0, done: 1 });
    expect(dma(machine, a.vfio, IOVA)).toBe(R.OUTCOME_REFUSED);
    expect(machine.events()).toMatchObject([
      {
        number: F_TRANSLATION,
        streamId: Number(GUEST_STREAM),
        substreamId: -1,
        inputAddress: IOVA,
        read: true,
        stage2: false,
      },
    ]);

    // Forbidden by the guest.
    stage.map(IOVA, source, READ_ONLY);
    expect(dma(machine, a.vfio, IOVA, true)).toBe(R.OUTCOME_REFUSED);
    expect(machine.events()).toMatchObject([{ number: F_PERMISSION, inputAddress: IOVA, read: false }]);

    expect(machine.user.attach(a.vfio, machine.parent)).toBe(machine.parent);
    expect(dma(machine, a.vfio, RAM_GPA)).toBe(R.OUTCOME_DONE);
    expect(machine.globalErrors()).toEqual([0, 0]);
    expect(machine.end()).toEqual([]);
    expect(host.kernel.liveObjects).toBe(0);
  });

  it("has a fault from before an invalidation queued when the invalidation returns, its interrupt still on the way", () => {
    const machine = new GuestMachine();
    machine.vdevice(GUEST_STREAM);
    const events = machine.listen();
    machine.install(machine.stage1().entry);
    expect(atPasid(machine, A, NO_PASID, IOVA)).toBe(DMA_ABORTED);
    expect(machine.user.readAll(events).length).toBe(0);
    machine.command("TLBI_NH_ALL");
    expect(machine.user.readAll(events).length).toBe(40);
    machine.host.run(10_000);
    expect(machine.user.readAll(events).length).toBe(0);
    expect(machine.end()).toEqual([]);
  });

  it("lets the device's MSI through the guest's stage 1, at the software MSI window, to the eventfd", () => {
    const machine = new GuestMachine();
    const { a, user } = machine;
    machine.vdevice(GUEST_STREAM);
    must(user.attach(a.vfio, machine.parent));
    const { eventfd, result } = user.irq(a.vfio, X.VFIO_PCI_MSI_IRQ_INDEX);
    expect(result).toBe(0);
    const { stage, entry } = machine.stage1();
    stage.map(IOVA, machine.ram.page());
    machine.install(entry);
    const raise = () => {
      eduDma(user.bar0(a.vfio), IOVA, 64, false, true);
      machine.host.run(100_000);
      return user.count(eventfd);
    };
    expect(raise()).toBe(0);
    stage.map(SW_MSI, SW_MSI);
    expect(raise()).toBe(1);
    expect(machine.end()).toEqual([]);
  });
});

describe("a guest's stream table entry", () => {
  it("with V = 0, and with Config 0, aborts silently", () => {
    const machine = new GuestMachine();
    machine.vdevice(GUEST_STREAM);
    machine.listen();
    for (const ste0 of [0n, ABORT]) {
      machine.install(ste0);
      expect(dma(machine, machine.a.vfio, RAM_GPA)).toBe(R.OUTCOME_REFUSED);
    }
    expect(machine.events()).toEqual([]);
    expect(machine.end()).toEqual([]);
  });

  it("with Config 4 passes stage 2 alone: an IOVA is a guest-physical address", () => {
    const machine = new GuestMachine();
    machine.install(BYPASS);
    expect(dma(machine, machine.a.vfio, RAM_GPA)).toBe(R.OUTCOME_DONE);
    expect(dma(machine, machine.a.vfio, IOVA)).toBe(R.OUTCOME_REFUSED);
    expect(machine.end()).toEqual([]);
  });

  it("is refused with EIO for what a guest may not set, with EINVAL for another size or type, with EOPNOTSUPP for PASID flags", () => {
    const machine = new GuestMachine();
    const { user, iommufd, a, viommu } = machine;
    const { entry } = machine.stage1();
    expect(machine.nested(entry | (1n << 52n))).toBe(-EIO);
    // STRW, SHCFG and MEV are the host's; EATS 2 is split-stage ATS.
    for (const ste1 of [1n << 30n, 1n << 44n, 1n << 19n, eats(2)]) expect(machine.nested(entry, ste1)).toBe(-EIO);
    expect(machine.nested(1n | (6n << 1n))).toBe(-EIO);
    const data = S.iommuHwptArmSmmuv3.encode({ ste0: entry });
    const type = S.IOMMU_HWPT_DATA_ARM_SMMUV3;
    expect(user.hwpt(iommufd, a.device, viommu, { type: 1, data })).toBe(-EINVAL);
    expect(user.hwpt(iommufd, a.device, viommu, { type, data: data.subarray(0, 8) })).toBe(-EINVAL);
    expect(user.hwpt(iommufd, a.device, viommu, { type, data: new Uint8Array(24) })).toBe(-EINVAL);
    const flags = I.IOMMU_HWPT_ALLOC_PASID;
    expect(user.hwpt(iommufd, a.device, viommu, { type, data, flags })).toBe(-EOPNOTSUPP);
    expect(machine.end()).toEqual([]);
  });

  it("that this hardware calls ILLEGAL is C_BAD_STE, relayed", () => {
    // No check of what the fields hold: S1CDMax above SSIDSIZE (§5.2.2).
    const machine = new GuestMachine({ smmus: [{ features: { SSIDSIZE: 4 } }] });
    machine.vdevice(GUEST_STREAM);
    machine.listen();
    const { contexts, stage } = machine.stage1();
    stage.map(IOVA, machine.ram.page());
    machine.install(contexts.streamEntry(5));
    expect(dma(machine, machine.a.vfio, IOVA)).toBe(R.OUTCOME_REFUSED);
    expect(machine.events()).toMatchObject([{ number: C_BAD_STE, streamId: Number(GUEST_STREAM) }]);
    machine.install(contexts.streamEntry(4), s1dss(2));
    expect(dma(machine, machine.a.vfio, IOVA)).toBe(R.OUTCOME_DONE);
    expect(machine.globalErrors()).toEqual([0, 0]);
    expect(machine.end()).toEqual([]);
  });

  it("decides by S1DSS what requests without PASID are, and leads to a context for each PASID", () => {
    const machine = new GuestMachine({ devices: [{ rid: A, options: { pasidBits: 4 } }] });
    const { a, ram } = machine;
    machine.vdevice(GUEST_STREAM);
    machine.listen();
    const { contexts, stage } = machine.stage1();
    const other = machine.stage1().stage;
    contexts.set(3, other, { asid: ASID + 1 });
    contexts.set(4, other, { valid: false });
    stage.map(IOVA, ram.page());
    other.map(IOVA + 0x1000n, ram.page());

    machine.install(contexts.streamEntry(4), s1dss(0));
    expect(dma(machine, a.vfio, IOVA)).toBe(R.OUTCOME_REFUSED);
    expect(machine.events()).toMatchObject([{ number: F_STREAM_DISABLED }]);
    machine.install(contexts.streamEntry(4), s1dss(1));
    expect(dma(machine, a.vfio, RAM_GPA)).toBe(R.OUTCOME_DONE);
    machine.install(contexts.streamEntry(4), s1dss(2));
    expect(dma(machine, a.vfio, IOVA)).toBe(R.OUTCOME_DONE);

    expect(atPasid(machine, A, 3, IOVA + 0x1000n)).toBe(DMA_OK);
    expect(atPasid(machine, A, 3, IOVA)).toBe(DMA_ABORTED);
    expect(atPasid(machine, A, 4, IOVA)).toBe(DMA_ABORTED);
    // SSID 0 takes the place of requests without PASID: one that names it is refused (§5.2 S1DSS).
    expect(atPasid(machine, A, 0, IOVA)).toBe(DMA_ABORTED);
    expect(machine.events()).toMatchObject([
      { number: F_TRANSLATION, substreamId: 3, inputAddress: IOVA },
      { number: C_BAD_CD, substreamId: 4 },
      { number: F_STREAM_DISABLED },
    ]);
    expect(atPasid(machine, A, 15, IOVA)).toBe(DMA_ABORTED);
    machine.install(contexts.streamEntry(2), s1dss(2));
    expect(atPasid(machine, A, 4, IOVA)).toBe(DMA_ABORTED);
    expect(machine.events()).toMatchObject([
      { number: C_BAD_CD, substreamId: 15 },
      { number: C_BAD_SUBSTREAMID, substreamId: 4 },
    ]);
    machine.install(contexts.streamEntry(4), s1dss(2));
    // What is cached of a context goes when the guest says so.
    expect(atPasid(machine, A, 3, IOVA + 0x1000n)).toBe(DMA_OK);
    contexts.set(3, stage, { asid: ASID });
    expect(atPasid(machine, A, 3, IOVA)).toBe(DMA_ABORTED);
    expect(machine.command("CFGI_CD", { SID: GUEST_STREAM, SSID: 3, Leaf: 1 })).toEqual({ result: 0, done: 1 });
    expect(atPasid(machine, A, 3, IOVA)).toBe(DMA_OK);
    expect(machine.end()).toEqual([]);
  });
});

describe("attaching a nested HWPT", () => {
  it("with a stage 1 needs a vDEVICE; abort and bypass do not, and nothing is told of their device", () => {
    const machine = new GuestMachine();
    const { user, a } = machine;
    machine.listen();
    const nested = must(machine.nested(machine.stage1().entry));
    expect(user.attach(a.vfio, nested)).toBe(-ENOENT);
    machine.install(ABORT);
    machine.install(BYPASS);
    // Refused again, the device stays where it was.
    expect(user.attach(a.vfio, nested)).toBe(-ENOENT);
    expect(dma(machine, a.vfio, RAM_GPA)).toBe(R.OUTCOME_DONE);
    machine.vdevice(GUEST_STREAM);
    must(user.attach(a.vfio, nested));
    expect(dma(machine, a.vfio, IOVA)).toBe(R.OUTCOME_REFUSED);
    expect(machine.events()).toMatchObject([{ number: F_TRANSLATION }]);
    expect(machine.end()).toEqual([]);
  });

  it("keeps the StreamID that events are told under until the device is attached elsewhere; invalidations need the vDEVICE", () => {
    const machine = new GuestMachine();
    const { user, iommufd, a } = machine;
    const vdevice = machine.vdevice(GUEST_STREAM);
    machine.listen();
    const { entry } = machine.stage1();
    machine.install(entry);
    expect(user.destroy(iommufd, vdevice)).toBe(0);
    expect(dma(machine, a.vfio, IOVA)).toBe(R.OUTCOME_REFUSED);
    expect(machine.events()).toMatchObject([{ number: F_TRANSLATION, streamId: Number(GUEST_STREAM) }]);
    expect(machine.command("CFGI_CD_ALL", { SID: GUEST_STREAM })).toEqual({ result: -EIO, done: 0 });
    // Another id, taken up by the next attach.
    machine.vdevice(0x77n);
    machine.install(entry);
    expect(dma(machine, a.vfio, IOVA)).toBe(R.OUTCOME_REFUSED);
    expect(machine.events()).toMatchObject([{ number: F_TRANSLATION, streamId: 0x77 }]);
    // On the parent itself its faults are the kernel's own.
    must(user.attach(a.vfio, machine.parent));
    expect(dma(machine, a.vfio, IOVA)).toBe(R.OUTCOME_REFUSED);
    expect(machine.events()).toEqual([]);
    expect(machine.end()).toEqual([]);
  });

  it("is refused with EINVAL behind another SMMU, as are a vIOMMU over its parent and a vDEVICE", () => {
    const machine = new GuestMachine({ smmus: [{}, {}], devices: [{ rid: A }, { rid: B, iommu: 1 }] });
    const { user, iommufd, viommu } = machine;
    const b = machine.take(B);
    const nested = must(machine.nested(BYPASS));
    expect(user.attach(b.vfio, nested)).toBe(-EINVAL);
    expect(machine.nested(BYPASS, 0n, { device: b })).toBe(-EINVAL);
    expect(user.vdevice(iommufd, viommu, b.device, 1n)).toBe(-EINVAL);
    expect(user.viommu(iommufd, b.device, machine.parent, S.IOMMU_VIOMMU_TYPE_ARM_SMMUV3)).toBe(-EINVAL);
    expect(machine.end()).toEqual([]);
  });

  it("is refused with EBUSY while PASIDs have domains of the host's, and leaves them as they were", () => {
    const machine = new GuestMachine({ devices: [{ rid: A, options: { pasidBits: 8 } }] });
    const { user, iommufd, ioas, a } = machine;
    machine.vdevice(GUEST_STREAM);
    const flags = I.IOMMU_HWPT_ALLOC_PASID;
    const requester = must(user.hwpt(iommufd, a.device, ioas, { flags }));
    const atFive = must(user.hwpt(iommufd, a.device, ioas, { flags }));
    must(user.attach(a.vfio, requester));
    must(machine.attachPasid(5, atFive));
    const nested = must(machine.nested(machine.stage1().entry));
    // By system calls iommufd refuses first: an HWPT without ALLOC_PASID (iommufd_hwpt_pasid_compat).
    expect(user.attach(a.vfio, nested)).toBe(-EINVAL);
    const context = contextOf(user.process.descriptors.lookup(iommufd));
    if (typeof context === "number") throw new Error("not an iommufd");
    const { domain } = context.objects.find(nested) as HwptNested;
    context.file.put();
    const { iommu } = machine.host.kernel;
    const group = iommu.groupOf(iommu.deviceNamed(name(A))!)!;
    expect(group.replace({ domain, onPageRequests: null })).toBe(-EBUSY);
    expect(atPasid(machine, A, 5, RAM_GPA)).toBe(DMA_OK);
    expect(dma(machine, a.vfio, RAM_GPA)).toBe(R.OUTCOME_DONE);
    expect(machine.end()).toEqual([]);
  });

  it("needs hardware of both stages with forced write-back: else there are no vIOMMUs", () => {
    for (const features of [{ FWB: false }, { S1P: false }]) {
      const machine = () => new GuestMachine({ smmus: [{ features }] });
      expect(machine).toThrow(`${-EOPNOTSUPP}`);
    }
  });

  it("goes with vIOMMUs of type 1; the others there are none of, without a CMDQV", () => {
    const machine = new GuestMachine();
    const { user, iommufd, a, parent, ioas } = machine;
    for (const type of [2, 3, 0xf0520003]) expect(user.viommu(iommufd, a.device, parent, type)).toBe(-EOPNOTSUPP);
    const plain = must(user.hwpt(iommufd, a.device, ioas));
    expect(user.viommu(iommufd, a.device, plain, S.IOMMU_VIOMMU_TYPE_ARM_SMMUV3)).toBe(-EINVAL);
    expect(machine.end()).toEqual([]);
  });
});

describe("two guests' stage 1", () => {
  it("of one parent are cached under its VMID, and all lose what an unmap in it takes away", () => {
    const machine = new GuestMachine();
    const { user, iommufd, ioas, a, ram } = machine;
    const b = machine.take(B);
    machine.vdevice(GUEST_STREAM);
    machine.vdevice(0x11n, b);
    const { stage, entry } = machine.stage1();
    const page = ram.page();
    stage.map(IOVA, page);
    machine.install(entry);
    machine.install(entry, 0n, { device: b });
    for (const { vfio } of [a, b]) expect(dma(machine, vfio, IOVA)).toBe(R.OUTCOME_DONE);
    expect(user.unmap(iommufd, ioas, RAM_GPA, 1n << 20n)).toBe(0);
    for (const { rid } of [a, b]) expect(atPasid(machine, rid, NO_PASID, IOVA)).toBe(DMA_ABORTED);
    expect(machine.end()).toEqual([]);
  });
});

describe("the last device to leave a parent", () => {
  it("leaves nothing cached: what is unmapped before another comes is not reached by it", () => {
    const machine = new GuestMachine();
    const { host, user, iommufd, ioas, a, ram, va } = machine;
    machine.vdevice(GUEST_STREAM);
    const { stage, entry } = machine.stage1();
    const page = ram.page();
    stage.map(IOVA, page);
    const nested = machine.install(entry);
    ram.at(page).fill(1);
    const read = (): number => {
      const bytes = new Uint8Array(4);
      expect(host.root.slot(A)!.dma.read(Number(IOVA >> 12n), 0, bytes, 0, 4, NO_PASID)).toBe(DMA_OK);
      return bytes[0]!;
    };
    expect(read()).toBe(1);
    expect(user.detach(a.vfio)).toBe(0);
    // The same guest-physical page is another page of the process's now; nobody is attached who could be told.
    const other = user.process.memory.allocate(4096);
    user.process.memory.bytes(other, 4096).fill(2);
    expect(user.unmap(iommufd, ioas, RAM_GPA, 1n << 20n)).toBe(0);
    const before = Number(page - RAM_GPA);
    expect(user.map(iommufd, ioas, va, before, RAM_GPA)).toBe(0);
    expect(user.map(iommufd, ioas, other, 4096, page)).toBe(0);
    const rest = (1 << 20) - before - 4096;
    expect(user.map(iommufd, ioas, va + BigInt(before + 4096), rest, page + 4096n)).toBe(0);
    must(user.attach(a.vfio, nested));
    expect(read()).toBe(2);
    expect(machine.end()).toEqual([]);
  });
});

describe("a table of the guest's that lies outside of its memory", () => {
  const outside = 0x1_0000_0000n;

  it("aborts, and the guest is not told (S2 = 1)", () => {
    const machine = new GuestMachine();
    machine.vdevice(GUEST_STREAM);
    machine.listen();
    const { stage, contexts, entry } = machine.stage1();
    machine.ram.store(stage.root, outside | 3n);
    machine.install(entry);
    expect(dma(machine, machine.a.vfio, 0x1000n)).toBe(R.OUTCOME_REFUSED);
    machine.install((contexts.streamEntry() & ~contexts.table) | outside);
    expect(dma(machine, machine.a.vfio, 0x1000n)).toBe(R.OUTCOME_REFUSED);
    expect(machine.events()).toEqual([]);
    expect(machine.end()).toEqual([]);
  });

  it("is F_WALK_EABT or F_CD_FETCH of its page where the kernel deviates", () => {
    const machine = new GuestMachine({ deviations: ["smmuv3-relay-table-fetches"] });
    machine.vdevice(GUEST_STREAM);
    machine.listen();
    const { stage, contexts, entry } = machine.stage1();
    machine.ram.store(stage.root, outside | 3n);
    machine.install(entry);
    expect(dma(machine, machine.a.vfio, 0x1000n)).toBe(R.OUTCOME_REFUSED);
    machine.install((contexts.streamEntry() & ~contexts.table) | outside);
    expect(dma(machine, machine.a.vfio, 0x1000n)).toBe(R.OUTCOME_REFUSED);
    expect(machine.events()).toMatchObject([
      { number: F_WALK_EABT, streamId: Number(GUEST_STREAM), inputAddress: 0x1000n, stage2: false, address: outside },
      { number: F_CD_FETCH, streamId: Number(GUEST_STREAM), stage2: false, address: outside },
    ]);
    // The page itself is no table.
    machine.ram.store(stage.root, 0n);
    stage.map(IOVA, outside);
    machine.install(entry);
    expect(dma(machine, machine.a.vfio, IOVA)).toBe(R.OUTCOME_REFUSED);
    expect(machine.events()).toEqual([]);
    expect(machine.end()).toEqual([]);
  });
});
