// State of the kernel: saved through text, disturbed, restored in place; from there on it does what a twin does that was never disturbed: the
// same results of system calls, the same bytes in memory, the same trace.

import { createHash } from "node:crypto";
import { describe, expect, it } from "vitest";
import { IGS_WSI } from "../../../host/arch/riscv/capabilities.ts";
import { encodeCommand } from "../../../host/arch/riscv/commands.ts";
import type { MmioPort } from "../../../host/base/mmio.ts";
import { bytesOf, StateError, StateReader } from "../../../host/base/state.ts";
import * as R from "../../../host/devices/edu/registers.ts";
import { DMA_ABORTED, NO_PASID } from "../../../host/devices/ports.ts";
import { InjectionPlan } from "../../../host/kernel/injection-plan.ts";
import * as I from "../../../host/uapi/iommufd.ts";
import * as X from "../../../host/uapi/vfio.ts";
import * as C from "../../../host/uapi/vfio-container.ts";
import { GuestRam, GuestSv39, RAM_GPA } from "./guest.ts";
import { eduDma, eduOutcome, type Machine, machine, name, type User } from "./machine.ts";
import { restoreMachine, saveMachine } from "./saved-machine.ts";

const [ASKING, FAULTING, GROUPED, SPACES, PARTIAL, GONE] = [0x0108, 0x0110, 0x0118, 0x0120, 0x0128, 0x0130];
const IOVA = 0x4000_0000n;
const SPARE_IOVA = 0x10_0000n;
const TC = 1n | (1n << 1n) | (1n << 2n);
const UNMASK = X.VFIO_IRQ_SET_DATA_NONE | X.VFIO_IRQ_SET_ACTION_UNMASK;

function digest(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

function takeDevice(host: Machine, user: User, iommufd: number, rid: number) {
  const vfio = user.open(host.vfio.nodeOf(name(rid))!);
  return { rid, vfio, device: user.bind(vfio, iommufd) };
}

/**
 * Two devices under first stages of a guest's: one has asked for a page and waits for the answer, of the other a fault is on the vEVENTQ and
 * an INTx on the clock's queue; of a third, half a group of page requests has come. Dirty tracking is on and has something to say. An eventfd
 * counts 3. One more device is in a type1 container, one has spaces at PASIDs, one was closed under its vDEVICE; a memfd is mapped. There are
 * two more contexts.
 */
function story() {
  const options = { pasidBits: 20, ats: true, pri: true };
  const host = machine({
    ramPages: 512,
    devices: [
      { rid: ASKING, options },
      { rid: FAULTING },
      { rid: GROUPED },
      { rid: SPACES, options: { pasidBits: 20 } },
      { rid: PARTIAL, options: { ...options, misbehaviour: true } },
      { rid: GONE },
    ],
  });
  host.record();
  host.kernel.injector = new InjectionPlan([
    "allocation:area@40",
    "ioctl:VFIO_DEVICE_GET_PCI_HOT_RESET_INFO@1=EIO",
    "event:veventq@3",
  ]);
  host.assign();
  const user = host.user();
  const ram = new GuestRam();
  const va = user.process.memory.mapBuffer(ram.buffer, 0, ram.buffer.byteLength);
  const spare = user.process.memory.allocate(64 * 4096);
  const iommufd = user.iommufd();
  const ioas = user.ioas(iommufd);
  user.map(iommufd, ioas, va, ram.buffer.byteLength, RAM_GPA);
  const asking = takeDevice(host, user, iommufd, ASKING);
  const faulting = takeDevice(host, user, iommufd, FAULTING);
  const spaces = takeDevice(host, user, iommufd, SPACES);
  const partial = takeDevice(host, user, iommufd, PARTIAL);
  const flags = I.IOMMU_HWPT_ALLOC_NEST_PARENT | I.IOMMU_HWPT_ALLOC_DIRTY_TRACKING;
  const parent = user.hwpt(iommufd, asking.device, ioas, { flags });
  const viommu = user.viommu(iommufd, asking.device, parent);
  user.vdevice(iommufd, viommu, asking.device, 0x10n);
  user.vdevice(iommufd, viommu, faulting.device, 0x20n);
  const third = user.vdevice(iommufd, viommu, partial.device, 0x30n);
  const gone = takeDevice(host, user, iommufd, GONE);
  user.vdevice(iommufd, viommu, gone.device, 0x40n);
  expect(user.process.close(gone.vfio)).toBe(0);
  const [, veventq] = user.veventq(iommufd, viommu);
  const [faultId, faultFd] = user.faultQueue(iommufd);
  const stages = [new GuestSv39(ram), new GuestSv39(ram), new GuestSv39(ram)] as const;
  for (const stage of stages) stage.entry(IOVA);
  const nested = [
    user.nested(iommufd, asking.device, viommu, { tc: TC, fsc: stages[0].fsc, ta: 0x10n << 12n }, faultId),
    user.nested(iommufd, faulting.device, viommu, { tc: 1n, fsc: stages[1].fsc, ta: 0x20n << 12n }),
    user.nested(iommufd, partial.device, viommu, { tc: TC, fsc: stages[2].fsc, ta: 0x30n << 12n }, faultId),
  ];
  expect(user.attach(asking.vfio, nested[0]!)).toBe(nested[0]);
  expect(user.attach(faulting.vfio, nested[1]!)).toBe(nested[1]);
  expect(user.attach(partial.vfio, nested[2]!)).toBe(nested[2]);
  const page = ram.page();
  stages[1].map(IOVA + 0x1000n, page);
  // Two spaces that no device is attached to: what is done in the first changes tables, pins and accounts, but no hardware.
  const free = user.ioas(iommufd);
  const freeHwpt = user.hwpt(iommufd, asking.device, free);
  const copies = user.ioas(iommufd);
  const unused = user.ioas(iommufd);
  expect(user.map(iommufd, free, spare, 8 * 4096, SPARE_IOVA)).toBe(0);
  const memfd = user.process.memfd(4 * 4096);
  const mapFile = (): number =>
    user.call(iommufd, I.IOMMU_IOAS_MAP_FILE, I.iommuIoasMapFile, {
      ...{ flags: 7, ioas_id: free, fd: memfd, start: 4096n, length: 2n * 4096n, iova: SPARE_IOVA * 2n },
    }).result;
  expect(mapFile()).toBe(0);
  // Spaces at PASIDs: a process directory of the host's.
  const processes = [0, 1].map(() => user.hwpt(iommufd, spaces.device, copies, { flags: I.IOMMU_HWPT_ALLOC_PASID }));
  const at = (pasid: number, hwpt: number): number =>
    user.call(spaces.vfio, X.VFIO_DEVICE_ATTACH_IOMMUFD_PT, X.vfioDeviceAttachIommufdPt, {
      ...{ flags: X.VFIO_DEVICE_ATTACH_PASID, pasid, pt_id: hwpt },
    }).result;
  const detachAt = (pasid: number): number =>
    user.call(spaces.vfio, X.VFIO_DEVICE_DETACH_IOMMUFD_PT, X.vfioDeviceDetachIommufdPt, {
      ...{ flags: X.VFIO_DEVICE_DETACH_PASID, pasid },
    }).result;
  expect([at(5, processes[0]!), at(0x9_0000, processes[1]!), at(6, processes[0]!)]).toEqual([0, 0, 0]);
  const container = user.open("/dev/vfio/vfio");
  const group = user.open(host.vfio.groupNodeOf(name(GROUPED))!);
  user.setContainer(group, container);
  user.process.ioctl(container, C.VFIO_SET_IOMMU, BigInt(C.VFIO_TYPE1v2_IOMMU));
  const grouped = user.deviceFd(group, name(GROUPED));
  expect(user.mapDma(container, spare, 0x5000n, 4096n)).toBe(0);
  for (const fd of [asking.vfio, faulting.vfio, grouped, spaces.vfio, partial.vfio]) user.enableDevice(fd);
  const bars: readonly [MmioPort, MmioPort, MmioPort, MmioPort, MmioPort] = [
    user.bar0(asking.vfio),
    user.bar0(faulting.vfio),
    user.bar0(grouped),
    user.bar0(spaces.vfio),
    user.bar0(partial.vfio),
  ];
  bars[0].mmioWrite(R.TRANSLATION_MODE, 4, R.MODE_ATS | R.MODE_PRI, 0);
  const [others, empty] = [user.iommufd(), user.iommufd()];
  const compatible = user.ioas(others);
  const vfioIoas = (op: number): number =>
    user.call(others, I.IOMMU_VFIO_IOAS, I.iommuVfioIoas, { ioas_id: compatible, op }).result;
  expect(vfioIoas(I.IOMMU_VFIO_IOAS_SET)).toBe(0);
  const accountMode = (op: number): bigint =>
    user.call(empty, I.IOMMU_OPTION, I.iommuOption, { option_id: I.IOMMU_OPTION_RLIMIT_MODE, op, val64: 1n }).val64;
  const allow = (start: bigint): number => {
    const at = user.scratch + 4096n;
    user.process.memory.bytes(at, 16).set(I.iommuIovaRange.encode({ start, last: start + 0xf_ffffn }));
    const values = { ioas_id: unused, num_iovas: 1, allowed_iovas: at };
    return user.call(iommufd, I.IOMMU_IOAS_ALLOW_IOVAS, I.iommuIoasAllowIovas, values).result;
  };
  expect(allow(0x70_0000n)).toBe(0);
  const counter = user.process.eventfd();
  const signal = (value: bigint): number => {
    const bytes = user.process.memory.bytes(user.scratch, 8);
    new DataView(bytes.buffer, bytes.byteOffset, 8).setBigUint64(0, value, true);
    return user.process.write(counter, user.scratch, 8, -1n);
  };
  const { eventfd: intx } = user.irq(faulting.vfio, X.VFIO_PCI_INTX_IRQ_INDEX);
  user.irq(grouped, X.VFIO_PCI_MSI_IRQ_INDEX);
  user.must(iommufd, I.IOMMU_HWPT_SET_DIRTY_TRACKING, I.iommuHwptSetDirtyTracking, {
    flags: I.IOMMU_HWPT_DIRTY_TRACKING_ENABLE,
    hwpt_id: parent,
  });
  eduDma(bars[1], IOVA + 0x1000n, 64, true);
  host.run(100_000);
  expect(eduOutcome(bars[1])).toBe(R.OUTCOME_DONE);
  eduDma(bars[1], IOVA, 64, false);
  eduDma(bars[0], IOVA, 64, false);
  bars[4].mmioWrite(R.TRANSLATION_MODE, 4, R.MODE_ATS | R.MODE_PRI, 0);
  bars[4].mmioWrite(R.MISBEHAVIOUR, 4, R.MISBEHAVE_NEVER_LAST, 0);
  eduDma(bars[4], IOVA, 64, false);
  host.run(100_000);
  signal(3n);
  bars[1].mmioWrite(R.INTERRUPT_RAISE, 4, 1, 0);
  expect(host.clock.pending).toBe(1);
  const dirty = (): number => {
    const at = user.scratch + 8192n;
    user.process.memory.bytes(at, 1)[0] = 0;
    user.must(iommufd, I.IOMMU_HWPT_GET_DIRTY_BITMAP, I.iommuHwptGetDirtyBitmap, {
      ...{ hwpt_id: parent, iova: page, length: 4096n, page_size: 4096n, data: at },
      flags: I.IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR,
    });
    return user.process.memory.bytes(at, 1)[0]!;
  };
  return {
    ...{ host, user, ram, va, spare, iommufd, ioas, parent, viommu, veventq, faultFd, stages, page, free, freeHwpt },
    ...{ copies, container, grouped, asking, faulting, nested, bars, counter, signal, intx, dirty, mapFile },
    ...{ spaces, partial, processes, at, detachAt, third, unused, memfd, vfioIoas, accountMode, allow },
  };
}

type Story = ReturnType<typeof story>;

const commandOf = (pscid: number) => encodeCommand("IOTINVAL.VMA", { AV: 1, ADDR: IOVA >> 12n, PSCV: 1, PSCID: pscid });

function unmask({ user, faulting }: Story): number {
  const values = { flags: UNMASK, index: X.VFIO_PCI_INTX_IRQ_INDEX, start: 0, count: 1 };
  return user.call(faulting.vfio, X.VFIO_DEVICE_SET_IRQS, X.vfioIrqSet, values).result;
}

/** What leaves the set of objects as it is, and asks nothing of the hardware. */
function disturb(told: Story): void {
  const { user, iommufd, free, copies, spare, faultFd, veventq, counter, signal, container, faulting } = told;
  user.count(counter);
  signal(77n);
  expect(user.readAll(veventq).length).toBeGreaterThan(0);
  expect(user.readAll(faultFd)).toHaveLength(40);
  expect(user.unmap(iommufd, free, SPARE_IOVA, 8n * 4096n)).toBe(0);
  expect(user.map(iommufd, free, spare + 4096n, 16 * 4096, SPARE_IOVA * 4n)).toBe(0);
  expect(user.map(iommufd, copies, spare, 4096, SPARE_IOVA * 3n)).toBe(0);
  expect(user.unmap(iommufd, free, SPARE_IOVA * 2n, 2n * 4096n)).toBe(0);
  user.call(iommufd, I.IOMMU_OPTION, I.iommuOption, {
    ...{ option_id: I.IOMMU_OPTION_HUGE_PAGES, op: I.IOMMU_OPTION_OP_SET, object_id: told.unused, val64: 0n },
  });
  const start = { flags: C.VFIO_IOMMU_DIRTY_PAGES_FLAG_START };
  expect(user.call(container, C.VFIO_IOMMU_DIRTY_PAGES, C.vfioIommuType1DirtyBitmap, start).result).toBe(0);
  expect(told.vfioIoas(I.IOMMU_VFIO_IOAS_CLEAR)).toBe(0);
  told.accountMode(I.IOMMU_OPTION_OP_SET);
  expect(told.allow(0x90_0000n)).toBe(0);
  user.configWrite(faulting.vfio, 0x3c, 1, 0x55);
  user.process.read(faulting.vfio, user.scratch, 4, -1n);
  user.process.memory.bytes(spare, 4096).fill(0x99);
  // An object that comes and goes leaves nothing but the trace.
  const passing = user.hwpt(iommufd, told.asking.device, copies);
  expect(user.destroy(iommufd, passing)).toBe(0);
}

/** What follows, with everything that a process can see of it. */
function go(told: Story): unknown[] {
  const { host, user, iommufd, free, copies, spare, faultFd, veventq, counter, intx, container, bars, ram } = told;
  const seen: unknown[] = [];
  const look = (...what: unknown[]) => seen.push(...what);
  look(user.count(counter), user.configRead(told.faulting.vfio, 0x3c, 1), told.dirty());
  look(
    user.process.read(told.faulting.vfio, user.scratch, 4, -1n),
    bytesOf(user.process.memory.bytes(user.scratch, 4)),
  );
  host.run(1_000);
  look(user.count(intx), unmask(told));
  host.run(1_000);
  look(user.count(intx));
  bars[1].mmioWrite(R.INTERRUPT_ACKNOWLEDGE, 4, 1, 0);
  look(unmask(told));
  const [asked] = [user.readAll(faultFd)];
  look(asked);
  const fresh = ram.page();
  ram.at(fresh).fill(0x42);
  told.stages[0].map(IOVA, fresh);
  const { cookie } = I.iommuHwptPgfault.decode(asked);
  user.process.memory.bytes(user.scratch, 8).set(I.iommuHwptPageResponse.encode({ cookie, code: 0 }));
  look(user.process.write(faultFd, user.scratch, 8, -1n));
  host.run(100_000);
  look(eduOutcome(bars[0]), bars[0].mmioRead(R.PAGE_RESPONSES_TAKEN, 4));
  look(user.readAll(veventq));
  told.stages[1].map(IOVA, told.page);
  look(user.invalidate(iommufd, told.viommu, [commandOf(0x20), commandOf(0x10)]));
  eduDma(bars[1], IOVA, 64, true);
  eduDma(bars[2], 0x5000n, 64, true);
  host.run(100_000);
  look(eduOutcome(bars[1]), eduOutcome(bars[2]), told.dirty());
  const stop = { flags: C.VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP };
  look(user.call(container, C.VFIO_IOMMU_DIRTY_PAGES, C.vfioIommuType1DirtyBitmap, stop).result);
  // Mappings: what is there, what is not, and what a copy of half of it shares.
  look(user.map(iommufd, free, spare, 4096, SPARE_IOVA), user.map(iommufd, copies, spare, 2048, SPARE_IOVA * 8n));
  const copied = user.call(iommufd, I.IOMMU_IOAS_COPY, I.iommuIoasCopy, {
    flags: I.IOMMU_IOAS_MAP_READABLE,
    ...{ dst_ioas_id: copies, src_ioas_id: free, length: 4n * 4096n, src_iova: SPARE_IOVA },
  });
  look(copied.result, copied.dst_iova);
  look(user.unmap(iommufd, free, SPARE_IOVA * 4n, 16n * 4096n), user.unmap(iommufd, free, SPARE_IOVA, 8n * 4096n));
  look(user.process.memory.pinnedPages, host.kernel.frames.pins.total, host.kernel.frames.usedPages);
  const more = user.hwpt(iommufd, told.asking.device, copies);
  look(more, user.attach(told.asking.vfio, more), user.detach(told.asking.vfio), user.destroy(iommufd, more));
  look(told.vfioIoas(I.IOMMU_VFIO_IOAS_GET), told.accountMode(I.IOMMU_OPTION_OP_GET));
  const anywhere = { flags: I.IOMMU_IOAS_MAP_READABLE, ioas_id: told.unused, user_va: spare, length: 4096n };
  const found = user.call(iommufd, I.IOMMU_IOAS_MAP, I.iommuIoasMap, anywhere);
  look(found.result, found.iova, user.unmap(iommufd, told.unused, found.iova, 4096n));
  look(told.mapFile(), user.unmap(iommufd, free, SPARE_IOVA * 2n, 2n * 4096n), told.mapFile());
  // Spaces: writes go where the PASID's table says; then they go, and their directory.
  look(user.map(iommufd, copies, spare, 4096, 0x8000n));
  for (const pasid of [5, 7, 0x9_0000]) {
    bars[3].mmioWrite(R.PASID, 4, (R.PASID_VALID | pasid) >>> 0, 0);
    eduDma(bars[3], 0x8000n, 64, true);
    host.run(100_000);
    look(eduOutcome(bars[3]));
  }
  look(told.detachAt(5), told.at(5, told.processes[1]!), told.detachAt(6), told.detachAt(5), told.detachAt(0x9_0000));
  // An attachment goes, and comes again.
  look(user.detach(told.faulting.vfio), user.attach(told.faulting.vfio, told.nested[1]!));
  look(user.unmap(iommufd, told.ioas, RAM_GPA, BigInt(ram.buffer.byteLength)));
  look(digest(ram.bytes), host.kernel.liveKinds, (host.kernel.injector as InjectionPlan).unused);
  user.process.exit();
  look(host.kernel.liveKinds, host.kernel.frames.usedPages, host.clock.now);
  return seen;
}

describe("a saved kernel", () => {
  it.each<[string, (told: Story) => void]>([
    ["a little", disturb],
    ["much", goOn],
  ])("that was disturbed (%s) and restored goes on like one that was not", (_what, disturbance) => {
    const [twin, told] = [story(), story()];
    expect(saveMachine(told.host)).toBe(saveMachine(twin.host));
    const text = saveMachine(told.host);
    const recorded = told.host.events.length;
    disturbance(told);
    expect(saveMachine(told.host)).not.toBe(text);
    restoreMachine(told.host, text);
    expect(saveMachine(told.host)).toBe(text);
    const disturbed = told.host.events.length;
    expect(disturbed).toBeGreaterThan(recorded);
    const [expected, seen] = [go(twin), go(told)];
    expect(seen).toEqual(expected);
    expect(told.host.events.slice(disturbed)).toEqual(twin.host.events.slice(recorded));
    expect(expected.at(-3)).toEqual([]);
  });

  it.each<[string, (told: Story) => void]>([
    ["as it is", () => {}],
    ["after a reset under a page request, with a memfd closed under its mapping", resetAndClose],
  ])("(%s) is restored at once, over and over, and nothing is seen of it", (_what, happened) => {
    const [twin, told] = [story(), story()];
    happened(twin);
    happened(told);
    for (let round = 0; round < 3; round++) restoreMachine(told.host, saveMachine(told.host));
    expect(go(told)).toEqual(go(twin));
    expect(told.host.events).toEqual(twin.host.events);
  });

  it("has a wired interrupt of an IOMMU's on the clock's queue by its name", () => {
    const faulted = () => {
      const host = machine({ ramPages: 512, iommus: [{ capabilities: { IGS: IGS_WSI } }] });
      host.record();
      // No domain lets this device through; the kernel counts it.
      const { dma } = host.root.slot(ASKING)!;
      host.kernel.pci.device(name(ASKING))!.setMaster(true);
      host.kernel.iommu.groups[0]!.claim({});
      expect(dma.read(1, 0, new Uint8Array(4), 0, 4, NO_PASID)).toBe(DMA_ABORTED);
      return host;
    };
    const [twin, host] = [faulted(), faulted()];
    const text = saveMachine(host);
    expect(text).toContain("driver of iommu0");
    host.clock.restoreState(emptyQueue(host));
    restoreMachine(host, text);
    for (const each of [twin, host]) each.run(1_000);
    expect(host.events).toEqual(twin.events);
    expect(host.events.some(({ type }) => type === "fault")).toBe(true);
  });
});

describe("a machine that has gone on", () => {
  it("takes all of a document over, what is attached in another order and what was made again under its name too", () => {
    const told = story();
    const text = saveMachine(told.host);
    goOn(told);
    expect(told.host.clock.pending).toBe(0);
    restoreMachine(told.host, text);
    expect(saveMachine(told.host)).toBe(text);
  });

  it.each<[string, (told: Story) => void]>([
    ["a little", disturb],
    ["far", goOn],
  ])("(%s) gives a document that one which has not takes over", (_what, forth) => {
    const [ahead, told] = [story(), story()];
    forth(ahead);
    const text = saveMachine(ahead.host);
    restoreMachine(told.host, text);
    expect(saveMachine(told.host)).toBe(text);
  });
});

describe("a document of another set of objects", () => {
  const refused = (change: (told: Story) => void): string => {
    const [saved, here] = [story(), story()];
    change(here);
    try {
      restoreMachine(here.host, saveMachine(saved.host));
    } catch (error) {
      expect(error).toBeInstanceOf(StateError);
      return (error as StateError).message;
    }
    throw new Error("it was restored");
  };

  it.each<[string, (told: Story) => unknown, RegExp]>([
    ["an HWPT too many", (told) => told.user.hwpt(told.iommufd, told.asking.device, told.copies), /hwpt-paging \d+/],
    ["an HWPT missing", (told) => told.user.destroy(told.iommufd, told.freeHwpt), /hwpt-paging \d+/],
    ["an IOAS missing", (told) => told.user.destroy(told.iommufd, told.unused), /ioas \d+/],
    ["a descriptor too many", (told) => told.user.process.eventfd(), /fd \d+ \(anon_inode:\[eventfd\]\)/],
    ["a descriptor missing", (told) => told.user.process.close(told.counter), /fd \d+ \(anon_inode:\[eventfd\]\)/],
    ["a process too many", (told) => told.host.kernel.createProcess("other"), /process other/],
    ["a device detached", (told) => told.user.detach(told.faulting.vfio), /attachment of 0000:01:02\.0|group 1/],
    ["a mapping too many", (told) => told.user.process.memory.allocate(4096), /mapping of 4096 bytes/],
    ["an interrupt off", (told) => turnOff(told, told.faulting.vfio, X.VFIO_PCI_INTX_IRQ_INDEX), /INTx/],
    ["a group unbound from vfio-pci", (told) => told.user.process.close(told.grouped), /0000:01:03\.0/],
    ["no injection plan", ({ host }) => plan(host, []), /rule 0 allocation:area@40/],
  ])("(%s) is refused, with its name", (_what, change, expected) => {
    expect(refused(change)).toMatch(expected);
  });
});

/** The group is answered behind its fault queue's back; the memfd is in use without a descriptor. */
function resetAndClose({ user, asking, memfd }: Story): void {
  expect(user.process.ioctl(asking.vfio, X.VFIO_DEVICE_RESET, 0n)).toBe(0);
  expect(user.process.close(memfd)).toBe(0);
}

/** A clock's state with nothing on its queue. */
function emptyQueue({ clock }: Machine): StateReader {
  return new StateReader({ ...clock.saveState(), queue: [] }, "clock");
}

/** Brings as much as possible to another state; the objects have the same names afterwards. */
function goOn(told: Story): void {
  const { host, user, iommufd, asking, faulting, partial, nested, viommu, bars, faultFd, free, copies, spare } = told;
  disturb(told);
  host.run(1_000);
  // Cookies count from 1.
  user.process.memory.bytes(user.scratch, 8).set(I.iommuHwptPageResponse.encode({ cookie: 1, code: 1 }));
  expect(user.process.write(faultFd, user.scratch, 8, -1n)).toBe(8);
  host.run(100_000);
  // The half group goes with its attachment; all come back in another order, one HWPT made again with other words.
  for (const { vfio } of [asking, faulting, partial]) user.detach(vfio);
  expect(user.destroy(iommufd, told.third)).toBe(0);
  expect(user.vdevice(iommufd, viommu, partial.device, 0x30n)).toBe(told.third);
  expect(user.destroy(iommufd, nested[1]!)).toBe(0);
  const words = { tc: 1n, fsc: told.stages[0].fsc, ta: 0x21n << 12n };
  expect(user.nested(iommufd, faulting.device, viommu, words)).toBe(nested[1]);
  for (const [i, { vfio }] of [
    [2, partial],
    [1, faulting],
    [0, asking],
  ] as const)
    user.attach(vfio, nested[i]!);
  // Another table, tag and frames under the name of the first.
  const decoy = user.hwpt(iommufd, asking.device, copies);
  expect(user.destroy(iommufd, told.freeHwpt)).toBe(0);
  expect(user.map(iommufd, copies, spare, 4096, SPARE_IOVA * 0x1000n)).toBe(0);
  expect(user.hwpt(iommufd, asking.device, free)).toBe(told.freeHwpt);
  expect(user.destroy(iommufd, decoy)).toBe(0);
  for (const pasid of [5, 6, 0x9_0000]) expect(told.detachAt(pasid)).toBe(0);
  expect(told.at(6, told.processes[0]!)).toBe(0);
  expect(told.at(0x9_0000, told.processes[1]!)).toBe(0);
  expect(told.at(5, told.processes[0]!)).toBe(0);
  expect(user.mapDma(told.container, spare, 0x9000n, 8192n)).toBe(0);
  expect(user.invalidate(iommufd, viommu, [commandOf(1)])).toEqual({ result: 0, done: 1 });
  eduDma(bars[1], IOVA, 64, true);
  host.run(100_000);
  // The third event on the vEVENTQ is lost. A buffer is lent and taken back.
  eduDma(bars[1], IOVA + 0x7000n, 64, true);
  host.run(100_000);
  const lent = user.process.memory.mapBuffer(new ArrayBuffer(4096), 0, 4096);
  expect(user.process.munmap(lent, 4096)).toBe(0);
  // A message's window, which stays when the message has gone; the eventfd has no descriptor then.
  const { eventfd } = user.irq(partial.vfio, X.VFIO_PCI_MSI_IRQ_INDEX);
  expect(turnOff(told, partial.vfio, X.VFIO_PCI_MSI_IRQ_INDEX)).toBe(0);
  expect(user.process.close(eventfd)).toBe(0);
  const info = user.call(partial.vfio, X.VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, X.vfioPciHotResetInfo, {});
  expect(info.result).toBeLessThan(0);
}

function turnOff({ user }: Story, device: number, index: number): number {
  const flags = X.VFIO_IRQ_SET_DATA_NONE | X.VFIO_IRQ_SET_ACTION_TRIGGER;
  return user.call(device, X.VFIO_DEVICE_SET_IRQS, X.vfioIrqSet, { flags, index, start: 0, count: 0 }).result;
}

function plan(host: Machine, rules: readonly string[]): void {
  host.kernel.injector = new InjectionPlan(rules);
}
