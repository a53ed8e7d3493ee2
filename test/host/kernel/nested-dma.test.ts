// The main story by system calls alone: a process opens /dev/iommu and a VFIO device, maps a guest's RAM, gives the guest's first
// stage to the hardware, and the device's DMA goes through both stages; a fault comes back with the guest's device id.

import { describe, expect, it } from "vitest";
import { encodeCommand } from "../../../host/arch/riscv/commands.ts";
import {
  CAUSE_DDT_NOT_VALID,
  CAUSE_READ_PAGE_FAULT,
  decodeFaultRecord,
} from "../../../host/arch/riscv/fault-records.ts";
import * as R from "../../../host/devices/edu/registers.ts";
import { DMA_ABORTED, NO_PASID } from "../../../host/devices/ports.ts";
import { EINVAL } from "../../../host/uapi/errno.ts";
import * as I from "../../../host/uapi/iommufd.ts";
import { POLLIN } from "../../../host/uapi/system-calls.ts";
import * as X from "../../../host/uapi/vfio.ts";
import { GuestRam, GuestSv39, RAM_GPA } from "./guest.ts";
import { eduDma, eduOutcome, machine, name, type User } from "./machine.ts";

const RID = 0x0108;
const GUEST_ID = 0x10n;
const PSCID = 7n << 12n;
const IOVA = 0x4000_0000n;
const SW_MSI = 0x0800_0000n;

function record(bytes: Uint8Array, at = 8) {
  const view = new DataView(bytes.buffer, bytes.byteOffset + at, 32);
  return decodeFaultRecord([0, 8, 16, 24].map((offset) => view.getBigUint64(offset, true)));
}

/** Guest RAM in an IOAS, the device bound and enabled, parent, vIOMMU, vDEVICE, vEVENTQ. */
function nest(user: User, path = "/dev/vfio/devices/vfio0", guestId = GUEST_ID) {
  const ram = new GuestRam();
  const va = user.process.memory.mapBuffer(ram.buffer, 0, ram.buffer.byteLength);
  const iommufd = user.iommufd();
  const ioas = user.ioas(iommufd);
  expect(user.map(iommufd, ioas, va, ram.buffer.byteLength, RAM_GPA)).toBe(0);
  const vfio = user.open(path);
  const device = user.bind(vfio, iommufd);
  expect(device).toBeGreaterThan(0);
  const parent = user.hwpt(iommufd, device, ioas, { flags: I.IOMMU_HWPT_ALLOC_NEST_PARENT });
  const viommu = user.viommu(iommufd, device, parent);
  const vdevice = user.vdevice(iommufd, viommu, device, guestId);
  const [veventqId, veventq] = user.veventq(iommufd, viommu);
  expect(user.attach(vfio, parent)).toBe(parent);
  user.enableDevice(vfio);
  return { ram, va, iommufd, ioas, vfio, device, parent, viommu, vdevice, veventqId, veventq, bar: user.bar0(vfio) };
}

describe("nested DMA by system calls", () => {
  it("goes through the guest's first stage and the host's second, and faults come back under the guest's id", () => {
    const host = machine();
    host.assign();
    const user = host.user();
    const { ram, iommufd, vfio, device, viommu, veventq, bar, ...rest } = nest(user);
    const stage1 = new GuestSv39(ram);
    const [source, target] = [ram.page(), ram.page()];
    stage1.map(IOVA, source);
    stage1.map(IOVA + 0x1000n, target);
    ram.at(source).set([...Array(4096).keys()].map((i) => (i * 7) & 0xff));

    const nested = user.nested(iommufd, device, viommu, { tc: 1n, fsc: stage1.fsc, ta: PSCID });
    expect(nested).toBeGreaterThan(0);
    expect(user.attach(vfio, nested)).toBe(nested);
    eduDma(bar, IOVA, 4096, false);
    host.run(100_000);
    expect(eduOutcome(bar)).toBe(R.OUTCOME_DONE);
    eduDma(bar, IOVA + 0x1000n, 4096, true);
    host.run(100_000);
    expect(eduOutcome(bar)).toBe(R.OUTCOME_DONE);
    expect(ram.at(target)).toEqual(ram.at(source));

    // Unmapped by the guest: its own fault record, its own device id, its own IOVA.
    stage1.unmap(IOVA);
    const vma = encodeCommand("IOTINVAL.VMA", { AV: 1, ADDR: IOVA >> 12n, PSCV: 1, PSCID: 7 });
    expect(user.invalidate(iommufd, viommu, [vma])).toEqual({ result: 0, done: 1 });
    let woken = 0;
    user.process.watch(veventq, () => woken++);
    eduDma(bar, IOVA, 64, false);
    host.run(100_000);
    expect(eduOutcome(bar)).toBe(R.OUTCOME_REFUSED);
    expect(woken).toBe(1);
    expect(user.process.poll(veventq) & POLLIN).toBe(POLLIN);
    const event = user.readAll(veventq);
    expect(event.length).toBe(8 + 32);
    expect(record(event)).toMatchObject({
      cause: CAUSE_READ_PAGE_FAULT,
      deviceId: Number(GUEST_ID),
      processId: -1,
      iotval: IOVA,
      iotval2: 0n,
    });

    // All goes, leaves first, or simply with the process.
    expect(user.attach(vfio, rest.parent)).toBe(rest.parent);
    expect(user.destroy(iommufd, nested)).toBe(0);
    user.process.exit();
    expect(host.kernel.liveKinds).toEqual([]);
    expect(host.kernel.liveObjects).toBe(0);
  });

  it("has a fault from before an invalidation queued when the invalidation returns, its interrupt still on the way", () => {
    const host = machine();
    host.assign();
    const user = host.user();
    const { ram, iommufd, vfio, device, viommu, veventq } = nest(user);
    const nested = user.nested(iommufd, device, viommu, { tc: 1n, fsc: new GuestSv39(ram).fsc, ta: PSCID });
    expect(user.attach(vfio, nested)).toBe(nested);
    // The device's read is refused now; no clock event fires before the ioctl, so the interrupt's handler has not run.
    expect(host.root.slot(RID)!.dma.read(Number(IOVA >> 12n), 0, new Uint8Array(4), 0, 4, NO_PASID)).toBe(DMA_ABORTED);
    expect(user.readAll(veventq).length).toBe(0);
    const vma = encodeCommand("IOTINVAL.VMA", { PSCV: 1, PSCID: 7 });
    expect(user.invalidate(iommufd, viommu, [vma])).toEqual({ result: 0, done: 1 });
    expect(record(user.readAll(veventq))).toMatchObject({ cause: CAUSE_READ_PAGE_FAULT, iotval: IOVA });
    host.run(10_000);
    expect(user.readAll(veventq).length).toBe(0);
    user.process.exit();
    expect(host.kernel.liveKinds).toEqual([]);
  });

  it("is blocked by a context with V = 0, and the hardware's 258 reaches the guest", () => {
    const host = machine();
    host.assign();
    const user = host.user();
    const { iommufd, vfio, device, viommu, veventq, bar } = nest(user);
    const blocked = user.nested(iommufd, device, viommu, { tc: 0n });
    expect(user.attach(vfio, blocked)).toBe(blocked);
    eduDma(bar, RAM_GPA, 64, false);
    host.run(100_000);
    expect(eduOutcome(bar)).toBe(R.OUTCOME_REFUSED);
    expect(record(user.readAll(veventq))).toMatchObject({ cause: CAUSE_DDT_NOT_VALID, deviceId: Number(GUEST_ID) });
    user.process.exit();
    expect(host.kernel.liveObjects).toBe(0);
  });

  it("bypasses the first stage with V = 1 and fsc Bare: an IOVA is a guest-physical address", () => {
    const host = machine();
    host.assign();
    const user = host.user();
    const { ram, iommufd, vfio, device, viommu, bar } = nest(user);
    const bypass = user.nested(iommufd, device, viommu, { tc: 1n });
    expect(user.attach(vfio, bypass)).toBe(bypass);
    const page = ram.page();
    ram.at(page)[0] = 0xab;
    eduDma(bar, page, 64, false);
    host.run(100_000);
    eduDma(bar, page + 64n, 64, true);
    host.run(100_000);
    expect(ram.at(page)[64]).toBe(0xab);
    user.process.exit();
    expect(host.kernel.liveObjects).toBe(0);
  });

  it("lets the device's MSI through the guest's first stage, at the software MSI window, to the eventfd", () => {
    const host = machine();
    host.assign();
    const user = host.user();
    const { ram, iommufd, vfio, device, viommu, bar } = nest(user);
    const { eventfd, result } = user.irq(vfio, X.VFIO_PCI_MSI_IRQ_INDEX);
    expect(result).toBe(0);
    const stage1 = new GuestSv39(ram);
    stage1.map(IOVA, ram.page());
    const nested = user.nested(iommufd, device, viommu, { tc: 1n, fsc: stage1.fsc, ta: PSCID });
    user.attach(vfio, nested);
    // Without the window in the guest's first stage the interrupt is lost ...
    eduDma(bar, IOVA, 64, false, true);
    host.run(100_000);
    expect(user.count(eventfd)).toBe(0);
    bar.mmioWrite(R.INTERRUPT_ACKNOWLEDGE, 4, 0x100, 0);
    // ... with it mapped one to one it arrives.
    stage1.map(SW_MSI, SW_MSI);
    eduDma(bar, IOVA, 64, false, true);
    host.run(100_000);
    expect(user.count(eventfd)).toBe(1);
    user.process.exit();
    expect(host.kernel.liveObjects).toBe(0);
  });

  it.each([
    ["T2GPA", { tc: 1n | (1n << 3n) }],
    ["GADE, the host's bit", { tc: 1n | (1n << 7n) }],
    ["a custom bit of tc", { tc: 1n | (1n << 24n) }],
    ["a reserved bit of tc", { tc: 1n | (1n << 40n) }],
    ["RCID", { tc: 1n, ta: 1n << 40n }],
    ["a reserved bit of fsc", { tc: 1n, fsc: 1n << 45n }],
    ["a first-stage mode that does not exist", { tc: 1n, fsc: 5n << 60n }],
    ["PRI without ATS", { tc: 1n | (1n << 2n) }],
    ["DPE without a process directory", { tc: 1n | (1n << 9n) }],
    ["big-endian tables that the hardware lacks", { tc: 1n | (1n << 10n) }],
  ])("refuses a guest context with %s", (_what, words) => {
    const host = machine();
    host.assign();
    const user = host.user();
    const { iommufd, device, viommu } = nest(user);
    expect(user.nested(iommufd, device, viommu, words)).toBe(-EINVAL);
    user.process.exit();
    expect(host.kernel.liveObjects).toBe(0);
  });

  it("refuses virtual device ids past 24 bits, so that 0x1_0000_0010 never aliases 0x10", () => {
    const host = machine({ devices: [{ rid: RID }, { rid: 0x0110 }] });
    host.assign();
    const user = host.user();
    const { iommufd, viommu, vdevice } = nest(user);
    expect(vdevice).toBeGreaterThan(0);
    const second = user.open(host.vfio.nodeOf(name(0x0110))!);
    const device = user.bind(second, iommufd);
    expect(user.vdevice(iommufd, viommu, device, 0x1_0000_0010n)).toBe(-EINVAL);
    expect(user.vdevice(iommufd, viommu, device, 1n << 24n)).toBe(-EINVAL);
    expect(user.vdevice(iommufd, viommu, device, (1n << 24n) - 1n)).toBeGreaterThan(0);
    user.process.exit();
    expect(host.kernel.liveObjects).toBe(0);
  });

  it("does not tell a guest what the device did before the guest had it", () => {
    const host = machine();
    host.assign();
    const user = host.user();
    const { iommufd, vfio, device, viommu, veventq, parent, bar } = nest(user);
    // A fault under the host's own domain: its record is in the hardware's queue, its interrupt not served yet.
    expect(user.attach(vfio, parent)).toBe(parent);
    host.iommus[0]!.translate(RID, -1, false, 1, 0x1234_5000, 0, false, 0);
    const bypass = user.nested(iommufd, device, viommu, { tc: 1n });
    user.attach(vfio, bypass);
    host.run(10_000);
    expect(user.readAll(veventq).length).toBe(0);
    // The other way round: what happened under the guest's domain reaches it, though it was detached meanwhile.
    eduDma(bar, 0x6666_0000n, 64, false);
    host.clock.advance(1_000);
    host.iommus[0]!.translate(RID, -1, false, 1, 0x6666_0000 / 4096, 0, false, 0);
    user.detach(vfio);
    host.run(10_000);
    expect(record(user.readAll(veventq))).toMatchObject({ iotval: 0x6666_0000n });
    user.process.exit();
    expect(host.kernel.liveObjects).toBe(0);
  });

  it("traces the chain from the system call to the device context and the walk", () => {
    const host = machine();
    host.assign();
    const user = host.user();
    const { ram, iommufd, vfio, device, viommu, bar } = nest(user);
    const stage1 = new GuestSv39(ram);
    stage1.map(IOVA, ram.page());
    const nested = user.nested(iommufd, device, viommu, { tc: 1n, fsc: stage1.fsc, ta: PSCID });
    host.record();
    user.attach(vfio, nested);
    eduDma(bar, IOVA, 64, false);
    host.run(2_000);
    const ioctl = host.events.find((event) => event.type === "ioctl");
    const attach = host.events.find((event) => event.type === "attach");
    const command = host.events.find((event) => event.type === "command");
    expect(ioctl).toMatchObject({ name: "VFIO_DEVICE_ATTACH_IOMMUFD_PT", result: 0 });
    expect(attach).toMatchObject({ device: name(RID), domain: "nested", cause: ioctl!.seq });
    expect(command).toMatchObject({ where: "host", name: "IODIR.INVAL_DDT", cause: attach!.seq });
    expect(host.events.some((event) => event.type === "walk" && event.table === "stage2")).toBe(true);
    expect(host.events.some((event) => event.type === "dma" && event.result === "ok")).toBe(true);
    user.process.exit();
  });
});
