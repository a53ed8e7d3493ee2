// A guest's first stage over the host's second stage on a VT-d unit, by system calls alone and with an assigned device's DMA: what Linux's nested.c
// promises of HWPTs, attaching and invalidation, and what the hardware makes of it. Fault reasons: VT-d §7.1.3.

import { describe, expect, it } from "vitest";
import * as R from "../../../../../host/devices/edu/registers.ts";
import { DMA_ABORTED, DMA_OK } from "../../../../../host/devices/ports.ts";
import { EBUSY, EFAULT, EINVAL, ENODEV, EOPNOTSUPP } from "../../../../../host/uapi/errno.ts";
import * as I from "../../../../../host/uapi/iommufd.ts";
import * as X from "../../../../../host/uapi/vfio.ts";
import * as V from "../../../../../host/uapi/vtd-nesting.ts";
import { RAM_GPA } from "../../guest.ts";
import { GuestFirstStage, USER } from "../../guest-vtd.ts";
import { A, B, GuestMachine, IOVA, must, vtdMachine } from "./guest-machine.ts";

const ALL = (1n << 64n) - 1n;
const LEAF = V.IOMMU_VTD_INV_FLAGS_LEAF;
const PASID = I.IOMMU_HWPT_ALLOC_PASID;
const NEST_PARENT = I.IOMMU_HWPT_ALLOC_NEST_PARENT;

describe("hw info", () => {
  it("is the unit's capabilities, with the erratum that Linux sets on all hardware", () => {
    const machine = new GuestMachine();
    const { user, a, iommufd, host } = machine;
    const at = user.scratch + 4096n;
    const reply = user.must(iommufd, I.IOMMU_GET_HW_INFO, I.iommuHwInfo, {
      dev_id: a.device,
      data_len: 24,
      data_uptr: at,
    });
    expect([reply.data_type, reply.data_len]).toEqual([1, 24]);
    const info = V.iommuHwInfoVtd.decode(user.process.memory.bytes(at, 24));
    const registers = host.iommus[0]!.registers;
    const read = (offset: number) =>
      BigInt(registers.mmioRead(offset, 4)) | (BigInt(registers.mmioRead(offset + 4, 4)) << 32n);
    expect(info).toEqual({ flags: 1, __reserved: 0, cap_reg: read(0x08), ecap_reg: read(0x10) });
    // DIRTY_TRACKING, and as edu's here have neither ATS nor PASIDs: PCI_ATS_NOT_SUPPORTED.
    expect(reply.out_capabilities).toBe(1n | 8n);
    const asked = { dev_id: a.device, data_len: 24, data_uptr: at, flags: I.IOMMU_HW_INFO_FLAG_INPUT_TYPE };
    const typed = (type: number) =>
      user.call(iommufd, I.IOMMU_GET_HW_INFO, I.iommuHwInfo, { ...asked, data_type: type });
    expect(typed(1).result).toBe(0);
    expect(typed(2).result).toBe(-EOPNOTSUPP);
    expect(machine.end()).toEqual([]);
  });
});

describe("HWPTs", () => {
  it("a nest parent refuses read-only mappings, before and after it is made", () => {
    const machine = new GuestMachine();
    const { user, iommufd, ioas, va } = machine;
    const readOnly = (onto: number) =>
      user.call(iommufd, I.IOMMU_IOAS_MAP, I.iommuIoasMap, {
        flags: I.IOMMU_IOAS_MAP_FIXED_IOVA | I.IOMMU_IOAS_MAP_READABLE,
        ...{ ioas_id: onto, user_va: va, length: 4096n, iova: 0x1000n },
      }).result;
    expect(readOnly(ioas)).toBe(-EINVAL);
    const plain = user.ioas(iommufd);
    expect(readOnly(plain), "an IOAS without domains takes it").toBe(0);
    expect(user.hwpt(iommufd, machine.a.device, plain, { flags: NEST_PARENT }), "a nest parent does not").toBe(-EINVAL);
    expect(user.hwpt(iommufd, machine.a.device, plain)).toBeGreaterThan(0);
    expect(machine.end()).toEqual([]);
  });

  it("a nested one stands on its parent, and on nothing else", () => {
    const machine = new GuestMachine();
    const { user, iommufd, a, ioas, parent } = machine;
    const hwpt = machine.nested(0x8000_0000n);
    expect(hwpt).toBeGreaterThan(0);
    expect(user.destroy(iommufd, parent), "the parent lives as long").toBe(-EBUSY);
    expect(machine.nested(0n, { parent: hwpt })).toBe(-EINVAL);
    expect(machine.nested(0n, { parent: ioas }), "user data makes no paging domain").toBe(-EOPNOTSUPP);
    const plain = must(user.hwpt(iommufd, a.device, ioas));
    expect(machine.nested(0n, { parent: plain })).toBe(-EINVAL);
    expect(machine.nested(0n, { hwptFlags: I.IOMMU_HWPT_ALLOC_DIRTY_TRACKING })).toBe(-EOPNOTSUPP);
    const of = (type: number, data: Uint8Array) => user.hwpt(iommufd, a.device, parent, { type, data });
    expect(of(2, new Uint8Array(24))).toBe(-EOPNOTSUPP);
    expect(of(1, new Uint8Array(23))).toBe(-EINVAL);
    expect(of(1, new Uint8Array(25))).toBe(-EINVAL);
    expect(user.destroy(iommufd, hwpt)).toBe(0);
    expect(user.destroy(iommufd, parent)).toBe(0);
    expect(machine.end()).toEqual([]);
  });

  it("what they ask of the unit is refused when they are attached, and what was there works again", () => {
    const machine = new GuestMachine({ units: [{ features: { FS5LP: false, SRS: false, EAFS: false } }] });
    const { user, a, parent, ram } = machine;
    must(user.attach(a.vfio, parent));
    for (const more of [{ width: 57 }, { width: 0 }, { flags: 1n }, { flags: 2n }]) {
      const hwpt = machine.nested(RAM_GPA, more);
      expect(hwpt, "allocated").toBeGreaterThan(0);
      expect(user.attach(a.vfio, hwpt)).toBe(-EINVAL);
      expect(machine.dma(ram.page()), "the parent is attached").toBe(true);
    }
    const odd = machine.nested(RAM_GPA, { flags: 0xff00n });
    expect(user.attach(a.vfio, odd), "flags that there are not").toBe(odd);
    expect(machine.end()).toEqual([]);
  });

  it("a device that sends no page requests gets no HWPT with a fault queue", () => {
    const machine = new GuestMachine();
    const [fault] = machine.user.faultQueue(machine.iommufd);
    const hwpt = machine.nested(RAM_GPA, { fault });
    expect(machine.user.attach(machine.a.vfio, hwpt)).toBe(-ENODEV);
    expect(machine.end()).toEqual([]);
  });

  it("without interrupt remapping the device cannot be bound at all", () => {
    const host = vtdMachine({ units: [{ features: { IR: false, EIM: false } }], devices: [{ rid: A }] });
    host.assign();
    const user = host.user();
    const vfio = must(user.open(host.vfio.nodeOf("0000:01:01.0")!));
    expect(user.bind(vfio, user.iommufd())).toBe(-1);
    const unsafe = vtdMachine({
      units: [{ features: { IR: false, EIM: false } }],
      devices: [{ rid: A }],
      iommufd: { allowUnsafeInterrupts: true },
    });
    unsafe.assign();
    const other = unsafe.user();
    expect(other.bind(must(other.open(unsafe.vfio.nodeOf("0000:01:01.0")!)), other.iommufd())).toBeGreaterThan(0);
  });
});

describe("nested DMA by system calls", () => {
  it.each([4, 5])("goes through the guest's first stage of %i levels and the host's second stage", (levels) => {
    const machine = new GuestMachine();
    const { ram, host } = machine;
    host.record();
    const stage = new GuestFirstStage(ram, levels);
    const [source, target] = [ram.page(), ram.page()];
    stage.map(IOVA, source);
    stage.map(IOVA + 0x1000n, target);
    ram.at(source).set([...Array(4096).keys()].map((i) => (i * 7) & 0xff));
    machine.install(stage.root, { width: levels === 4 ? 48 : 57 });
    expect(machine.dma(IOVA)).toBe(true);
    expect(machine.dma(IOVA + 0x1000n, true)).toBe(true);
    expect(ram.at(target, 64)).toEqual(ram.at(source, 64));
    // A of what was read and written, D of the leaf that was written.
    expect(ram.load(stage.entry(IOVA)) & 0x60n).toBe(0x20n);
    expect(ram.load(stage.entry(IOVA + 0x1000n)) & 0x60n).toBe(0x60n);
    expect(machine.faults()).toEqual([]);
    expect(machine.dma(IOVA + 0x2000n), "not mapped").toBe(false);
    expect(machine.faults(), "the host prints it, nobody is told").toEqual([0x71]);
    expect(machine.end()).toEqual([]);
  });

  it("reaches nothing but what the second stage maps, whatever the guest's tables say", () => {
    const machine = new GuestMachine();
    const { ram, host } = machine;
    host.record();
    const stage = new GuestFirstStage(ram);
    stage.map(IOVA, RAM_GPA - 0x1000n);
    stage.map(IOVA + 0x1000n, RAM_GPA + BigInt(ram.buffer.byteLength));
    // A page that is none of the guest's, by its host address.
    stage.map(IOVA + 0x2000n, 0x1_0000_0000n);
    ram.store(stage.entry(IOVA + 0x4000_0000n, 2n), 0x1_0000_3007n);
    machine.install(stage.root);
    for (const [offset, reason] of [
      [0n, 0x79],
      [0x1000n, 0x79],
      [0x2000n, 0x79],
      // Its table is outside: the second stage does not map what is to be read of it.
      [0x4000_0000n, 0x79],
    ] as const) {
      host.events.length = 0;
      expect(machine.dma(IOVA + offset)).toBe(false);
      expect(machine.faults()).toEqual([reason]);
    }
    machine.install(RAM_GPA - 0x1000n);
    host.events.length = 0;
    expect(machine.dma(IOVA)).toBe(false);
    expect(machine.faults(), "the first stage's root").toEqual([0x79]);
    expect(machine.end()).toEqual([]);
  });

  it("blocks, attaches the second stage alone, and nests, as the guest says", () => {
    const machine = new GuestMachine();
    const { ram, user, a, parent } = machine;
    const page = ram.page();
    expect(machine.dma(page), "bound: blocked").toBe(false);
    must(user.attach(a.vfio, parent));
    expect(machine.dma(page), "bypass").toBe(true);
    const stage = new GuestFirstStage(ram);
    stage.map(IOVA, page);
    machine.install(stage.root);
    expect(machine.dma(page)).toBe(false);
    expect(machine.dma(IOVA)).toBe(true);
    must(user.attach(a.vfio, parent));
    expect(machine.dma(IOVA)).toBe(false);
    must(user.detach(a.vfio));
    expect(machine.dma(page)).toBe(false);
    expect(machine.end()).toEqual([]);
  });

  it("is not hitless: between two nested HWPTs the entry is absent for a moment", () => {
    const machine = new GuestMachine();
    const { ram, host } = machine;
    const stage = new GuestFirstStage(ram);
    stage.map(IOVA, ram.page());
    machine.install(stage.root);
    expect(machine.bus(IOVA, -1)).toBe(DMA_OK);
    const seen: number[] = [];
    const wait = host.iommus[0]!.drain;
    host.iommus[0]!.drain = function (this: never) {
      seen.push(machine.bus(IOVA, -1));
      wait.call(this);
      seen.push(machine.bus(IOVA, -1));
    };
    machine.install(stage.root);
    expect(seen[0], "what is cached goes on until the invalidation is done").toBe(DMA_OK);
    expect(seen[1]).toBe(DMA_ABORTED);
    host.iommus[0]!.drain = wait;
    expect(machine.bus(IOVA, -1)).toBe(DMA_OK);
  });

  it("a table with a kernel's entries (no U/S) denies a device without PASID", () => {
    const machine = new GuestMachine();
    const { ram, host } = machine;
    host.record();
    const stage = new GuestFirstStage(ram);
    stage.map(IOVA, ram.page(), 0n);
    stage.map(IOVA + 0x1000n, ram.page(), USER);
    machine.install(stage.root);
    expect(machine.dma(IOVA)).toBe(false);
    expect(machine.dma(IOVA + 0x1000n)).toBe(true);
    expect(machine.dma(IOVA + 0x1000n, true), "read-only").toBe(false);
    expect(machine.faults()).toEqual([0x81, 0x85]);
  });
});

describe("HWPT_INVALIDATE", () => {
  /** A device on a first stage whose page at IOVA is cached, and then leads elsewhere. */
  function stale(pages = 1) {
    const machine = new GuestMachine();
    const { ram } = machine;
    const stage = new GuestFirstStage(ram);
    const [first, second] = [ram.page(), ram.page()];
    for (let i = 0n; i < pages; i++) stage.map(IOVA + i * 0x1000n, first);
    const hwpt = machine.install(stage.root);
    ram.at(first)[0] = 1;
    ram.at(second)[0] = 2;
    const seen = (offset = 0n): number => {
      const bytes = new Uint8Array(1);
      machine.host.root.slot(A)!.dma.read(Number((IOVA + offset) >> 12n), 0, bytes, 0, 1, -1);
      return bytes[0]!;
    };
    for (let i = 0n; i < pages; i++) expect(seen(i * 0x1000n)).toBe(1);
    for (let i = 0n; i < pages; i++) stage.map(IOVA + i * 0x1000n, second);
    expect(seen(), "the hardware keeps what it has").toBe(1);
    return { machine, hwpt, seen };
  }

  it("makes the hardware look again at the pages it names, and at no others", () => {
    const { machine, hwpt, seen } = stale(4);
    expect(machine.invalidate(hwpt, [[IOVA + 0x1000n, 1n, LEAF]])).toEqual({ result: 0, done: 1 });
    expect([0n, 1n, 2n, 3n].map((i) => seen(i * 0x1000n))).toEqual([1, 2, 1, 1]);
    expect(machine.invalidate(hwpt, [[0n, ALL]])).toEqual({ result: 0, done: 1 });
    expect([0n, 1n, 2n, 3n].map((i) => seen(i * 0x1000n))).toEqual([2, 2, 2, 2]);
    expect(machine.end()).toEqual([]);
  });

  it("drops every page of a range that is not aligned to its size", () => {
    const { machine, hwpt, seen } = stale(8);
    // Pages 3, 4 and 5.
    expect(machine.invalidate(hwpt, [[IOVA + 0x3000n, 3n]]).done).toBe(1);
    expect([3n, 4n, 5n].map((i) => seen(i * 0x1000n))).toEqual([2, 2, 2]);
  });

  it("does entries in order up to a bad one, and says which that is", () => {
    const { machine, hwpt, seen } = stale(3);
    const bad: readonly (readonly [readonly [bigint, bigint, number?, number?], number])[] = [
      [[IOVA, 1n, 2], -EOPNOTSUPP],
      [[IOVA, 1n, 0, 1], -EOPNOTSUPP],
      [[IOVA + 1n, 1n], -EINVAL],
      [[IOVA, ALL], -EINVAL],
    ];
    for (const [entry, errno] of bad) {
      expect(machine.invalidate(hwpt, [entry, [IOVA, 1n]])).toEqual({ result: errno, done: 0 });
      expect(seen()).toBe(1);
    }
    expect(
      machine.invalidate(hwpt, [
        [IOVA, 1n],
        [IOVA + 1n, 1n],
        [IOVA + 0x2000n, 1n],
      ]),
    ).toEqual({ result: -EINVAL, done: 1 });
    expect([0n, 2n].map((i) => seen(i * 0x1000n))).toEqual([2, 1]);
  });

  it("takes type 0 and entries of 24 bytes, nothing else; without entries it is asked for its type", () => {
    const { machine, hwpt } = stale();
    expect(machine.invalidate(hwpt, [])).toEqual({ result: 0, done: 0 });
    expect(machine.invalidate(hwpt, [], { type: 1 })).toEqual({ result: -EINVAL, done: 0 });
    for (const length of [8, 23, 25, 32]) {
      expect(machine.invalidate(hwpt, [[0n, ALL]], { length })).toEqual({ result: -EINVAL, done: 0 });
    }
    expect(machine.invalidate(hwpt, [[0n, ALL]], { address: 0x10n })).toEqual({ result: -EFAULT, done: 0 });
    expect(machine.invalidate(machine.parent, [[0n, ALL]])).toEqual({ result: -EINVAL, done: 0 });
  });

  it("of one nested HWPT leaves another's translations, of the same device id or not", () => {
    const { machine, hwpt, seen } = stale();
    const b = machine.take(B);
    const stage = new GuestFirstStage(machine.ram);
    stage.map(IOVA, machine.ram.page());
    const other = machine.install(stage.root, { device: b });
    expect(machine.invalidate(other, [[0n, ALL]]).done).toBe(1);
    expect(seen()).toBe(1);
    expect(machine.invalidate(hwpt, [[0n, ALL]]).done).toBe(1);
    expect(seen()).toBe(2);
  });

  it("is not needed for what the host unmaps: nested translations go with the parent's", () => {
    const { machine, seen } = stale();
    expect(seen()).toBe(1);
    expect(machine.user.unmap(machine.iommufd, machine.ioas, RAM_GPA, BigInt(machine.ram.buffer.byteLength))).toBe(0);
    expect(seen(), "nothing is read").toBe(0);
    expect(machine.end()).toEqual([]);
  });
});

describe("PASIDs", () => {
  const options = { devices: [{ rid: A, options: { pasidBits: 20, ats: true } }, { rid: B }] };

  it("have first stages of the guest's of their own", () => {
    const machine = new GuestMachine(options, NEST_PARENT | PASID);
    const { ram, user, a, parent } = machine;
    const [one, other] = [new GuestFirstStage(ram), new GuestFirstStage(ram)];
    one.map(IOVA, ram.page());
    other.map(IOVA + 0x1000n, ram.page());
    must(user.attach(a.vfio, parent));
    const hwpts = [one, other].map((stage) => machine.nested(stage.root, { hwptFlags: PASID }));
    expect(machine.attachPasid(5, hwpts[0]!)).toBe(0);
    expect(machine.attachPasid(0xfffff, hwpts[1]!)).toBe(0);
    expect([5, 0xfffff, 7, -1].map((pasid) => machine.bus(IOVA, pasid))).toEqual([
      DMA_OK,
      DMA_ABORTED,
      DMA_ABORTED,
      DMA_ABORTED,
    ]);
    expect(machine.bus(IOVA + 0x1000n, 0xfffff)).toBe(DMA_OK);
    // An invalidation is for the PASIDs that the HWPT is attached at.
    one.unmap(IOVA);
    other.unmap(IOVA + 0x1000n);
    machine.invalidate(hwpts[0]!, [[0n, ALL]]);
    expect([machine.bus(IOVA, 5), machine.bus(IOVA + 0x1000n, 0xfffff)]).toEqual([DMA_ABORTED, DMA_OK]);
    expect(machine.attachPasid(0xfffff, hwpts[0]!), "replaced").toBe(0);
    expect(machine.detachPasid(0xfffff)).toBe(0);
    one.map(IOVA, ram.page());
    machine.invalidate(hwpts[0]!, [[0n, ALL]]);
    expect([5, 0xfffff].map((pasid) => machine.bus(IOVA, pasid))).toEqual([DMA_OK, DMA_ABORTED]);
    expect(machine.end()).toEqual([]);
  });

  it("need HWPTs that were allocated for them", () => {
    const machine = new GuestMachine(options);
    expect(machine.attachPasid(5, machine.nested(RAM_GPA))).toBe(-EINVAL);
    expect(machine.end()).toEqual([]);
  });
});

describe("ATS", () => {
  it("a device's own translations go with those of its HWPT, and with the parent's", () => {
    const machine = new GuestMachine({ devices: [{ rid: A, options: { ats: true } }, { rid: B }] });
    const { ram, user, a, iommufd, ioas } = machine;
    const stage = new GuestFirstStage(ram);
    const [first, second] = [ram.page(), ram.page()];
    stage.map(IOVA, first);
    const hwpt = machine.install(stage.root);
    user.bar0(a.vfio).mmioWrite(R.TRANSLATION_MODE, 4, R.MODE_ATS, 0);
    expect(machine.dma(IOVA, true)).toBe(true);
    stage.map(IOVA, second);
    ram.at(first).fill(0xff);
    ram.at(second).fill(0xff);
    expect(machine.dma(IOVA, true)).toBe(true);
    expect([ram.at(first)[0], ram.at(second)[0]], "by the translation that the device holds").toEqual([0, 0xff]);
    machine.invalidate(hwpt, [[IOVA, 1n]]);
    ram.at(first).fill(0xff);
    expect(machine.dma(IOVA, true)).toBe(true);
    expect([ram.at(first)[0], ram.at(second)[0]]).toEqual([0xff, 0]);
    user.unmap(iommufd, ioas, RAM_GPA, BigInt(ram.buffer.byteLength));
    expect(machine.dma(IOVA, true)).toBe(false);
    expect(machine.end()).toEqual([]);
  });
});

describe("page requests", () => {
  it("come through the fault queue of the nested HWPT, and the answer lets the device go on", () => {
    const machine = new GuestMachine({ devices: [{ rid: A, options: { ats: true, pri: true } }, { rid: B }] });
    const { ram, user, a } = machine;
    const [faultId, faultFd] = user.faultQueue(machine.iommufd);
    const stage = new GuestFirstStage(ram);
    stage.entry(IOVA);
    const hwpt = machine.install(stage.root, { fault: faultId });
    const bar = user.bar0(a.vfio);
    bar.mmioWrite(R.TRANSLATION_MODE, 4, R.MODE_ATS | R.MODE_PRI, 0);
    const run = (): void => void machine.dma(IOVA, true);
    run();
    const [asked] = [...Array(1)].map(() => I.iommuHwptPgfault.decode(user.readAll(faultFd)));
    expect(asked).toMatchObject({ dev_id: a.device, addr: IOVA, flags: I.IOMMU_PGFAULT_FLAGS_LAST_PAGE, length: 0 });
    expect(asked!.perm & 2, "to write").toBe(2);
    const page = ram.page();
    stage.map(IOVA, page);
    ram.at(page).fill(0xff);
    machine.invalidate(hwpt, [[IOVA, 1n]]);
    user.process.memory.bytes(user.scratch, 8).set(I.iommuHwptPageResponse.encode({ cookie: asked!.cookie, code: 0 }));
    expect(user.process.write(faultFd, user.scratch, 8, -1n)).toBe(8);
    machine.host.run(100_000);
    expect(ram.at(page)[0]).toBe(0);
    expect(machine.end()).toEqual([]);
  });

  it("that wait when the HWPT goes are answered Invalid", () => {
    const machine = new GuestMachine({ devices: [{ rid: A, options: { ats: true, pri: true } }, { rid: B }] });
    const { user, a, ram, parent } = machine;
    const [faultId, faultFd] = user.faultQueue(machine.iommufd);
    const stage = new GuestFirstStage(ram);
    machine.install(stage.root, { fault: faultId });
    const bar = user.bar0(a.vfio);
    bar.mmioWrite(R.TRANSLATION_MODE, 4, R.MODE_ATS | R.MODE_PRI, 0);
    machine.dma(IOVA, true);
    must(user.attach(a.vfio, parent));
    machine.host.run(100_000);
    expect(user.readAll(faultFd).length, "nobody is told of it any more").toBe(0);
    expect(bar.mmioRead(R.DMA_OUTCOME, 4)).not.toBe(R.OUTCOME_DONE);
    expect(machine.dma(ram.page(), true), "and the device goes on").toBe(true);
    expect(machine.end()).toEqual([]);
  });
});

describe("interrupts", () => {
  it("of a device go through the interrupt remapping table; another's are not its to raise", () => {
    const machine = new GuestMachine();
    const { user, a, host } = machine;
    host.record();
    const b = machine.take(B);
    const [first, second] = [a, b].map(({ vfio }) => user.irq(vfio, X.VFIO_PCI_MSI_IRQ_INDEX).eventfd);
    user.bar0(a.vfio).mmioWrite(R.INTERRUPT_RAISE, 4, 1, 0);
    host.run(1_000);
    expect([user.count(first!), user.count(second!)]).toEqual([1, 0]);
    // What B's message is, written by A: index 1, remappable, SHV.
    const bytes = new Uint8Array(4);
    const { dma } = host.root.slot(A)!;
    expect(dma.write(0xfee00, 0x38, bytes, 0, 4, -1)).toBe(DMA_ABORTED);
    // What is pending of a requester absorbs its next fault: the kernel takes this one first.
    host.run(1_000);
    expect(dma.write(0xfee00, 0x18, bytes, 0, 4, -1), "its own").toBe(DMA_OK);
    expect(dma.write(0xfee00, 0, Uint8Array.of(1, 0, 0, 0), 0, 4, -1), "compatibility format").toBe(DMA_ABORTED);
    host.run(1_000);
    expect([user.count(first!), user.count(second!)]).toEqual([1, 0]);
    expect(machine.faults().sort(), "SID check, compatibility format blocked").toEqual([0x25, 0x26]);
    expect(machine.end()).toEqual([]);
  });
});

it("every process that ends leaves a host with nothing of it", () => {
  const machine = new GuestMachine(
    { devices: [{ rid: A, options: { pasidBits: 20, ats: true, pri: true } }, { rid: B }] },
    NEST_PARENT | PASID,
  );
  const { user, ram } = machine;
  const used = machine.host.kernel.frames.usedPages;
  const [fault] = user.faultQueue(machine.iommufd);
  const stage = new GuestFirstStage(ram);
  machine.install(stage.root, { fault, hwptFlags: PASID });
  for (let pasid = 1; pasid < 3000; pasid += 61) {
    expect(machine.attachPasid(pasid, machine.nested(stage.root, { hwptFlags: PASID }))).toBe(0);
  }
  machine.take(B);
  expect(machine.end()).toEqual([]);
  expect(machine.host.kernel.frames.usedPages).toBeLessThan(used);
});
