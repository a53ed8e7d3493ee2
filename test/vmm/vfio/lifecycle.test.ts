// Devices and vIOMMUs come and go while DMA is in flight: hot-plug, hot-unplug, resets, renumbering, several vIOMMUs in one VM, two
// VMs on one host; and dirty tracking over the stage-2 parent.

import { describe, expect, it } from "vitest";
import { REG } from "../../../host/arch/riscv/registers.ts";
import { Edu } from "../../../host/devices/edu/edu.ts";
import * as R from "../../../host/devices/edu/registers.ts";
import { NO_INJECTION } from "../../../host/kernel/inject.ts";
import { GuestAddressSpace, HostRefusal } from "../../../vmm/vfio/guest-address-space.ts";
import { eduDma, eduOutcome, machine } from "../../host/kernel/machine.ts";
import { TC } from "../viommu/guest.ts";
import { DATA, type Plugged, Vm } from "./vm.ts";

const IOVA = 0x4000_0000n;
const FIRST = 0x0108;
const SECOND = 0x0110;
const THIRD = 0x0118;
const DEVICES = { devices: [{ rid: FIRST }, { rid: SECOND }] };
/** Two IOMMUs, the third device behind the second. */
const TWO_IOMMUS = { iommus: [{}, {}], devices: [{ rid: FIRST }, { rid: SECOND }, { rid: THIRD, iommu: 1 }] };

function pair(): { vm: Vm; a: Plugged; b: Plugged } {
  const vm = new Vm(DEVICES);
  const a = vm.assign(FIRST, 0x10);
  const b = vm.assign(SECOND, 0x08);
  vm.guest.enableDirectory();
  vm.guest.enableQueues();
  return { vm, a, b };
}

function gone(vm: Vm): void {
  vm[Symbol.dispose]();
  expect(vm.process.openFiles).toBe(0);
  vm.process.exit();
}

function finish(vm: Vm): void {
  gone(vm);
  expect(vm.machine.kernel.liveKinds).toEqual([]);
}

/** Writes a value to guest memory at `iova` through the device, reading it from `page` first (bypass and nested alike). */
function copy(vm: Vm, plugged: Plugged, from: bigint, to: bigint): number {
  expect(vm.dma(plugged, from, 64, false)).toBe(R.OUTCOME_DONE);
  return vm.dma(plugged, to, 64, true);
}

describe("several vIOMMUs in a VM", () => {
  it("share a stage-2 parent and keep equal PSCIDs apart", () => {
    const vm = new Vm(TWO_IOMMUS);
    const a = vm.assign(FIRST, 0x10);
    const c = vm.assign(THIRD, 0x10, { iommu: 1 });
    const [first, second] = vm.iommus.map(({ guest }) => guest);
    for (const guest of [first!, second!]) {
      guest.enableDirectory();
      guest.enableQueues();
    }
    expect(vm.space.parents.length).toBe(1);
    const tables = [vm.tables([[IOVA, DATA]]), vm.tables([[IOVA, DATA + 0x1000n]])];
    first!.installContext(0x10, { tc: TC.V, ta: 5n << 12n, fsc: tables[0]!.fsc });
    second!.installContext(0x10, { tc: TC.V, ta: 5n << 12n, fsc: tables[1]!.fsc });
    vm.guest.store64(DATA, 0xaan);
    vm.guest.store64(DATA + 0x1000n, 0xbbn);
    for (const device of [a, c]) expect(vm.dma(device, IOVA, 64, false)).toBe(R.OUTCOME_DONE);
    tables[0]!.map(IOVA, DATA + 0x2000n);
    tables[1]!.map(IOVA, DATA + 0x3000n);
    const all = ["IOTINVAL.VMA", { PSCV: 1, PSCID: 5 }] as const;
    first!.run(all, ["IOFENCE.C", {}]);
    second!.run(all, ["IOFENCE.C", {}]);
    for (const device of [a, c]) expect(vm.dma(device, IOVA, 64, true)).toBe(R.OUTCOME_DONE);
    expect([vm.guest.load32(DATA + 0x2000n), vm.guest.load32(DATA + 0x3000n)]).toEqual([0xaa, 0xbb]);
    finish(vm);
  });

  it("two on one IOMMU: equal PSCIDs and equal guest ids do not mix", () => {
    const vm = new Vm(DEVICES);
    const a = vm.assign(FIRST, 0x10);
    const b = vm.assign(SECOND, 0x10, { iommu: 1 });
    const [first, second] = vm.iommus.map(({ guest }) => guest);
    for (const guest of [first!, second!]) {
      guest.enableDirectory();
      guest.enableQueues();
    }
    const tables = [vm.tables([[IOVA, DATA]]), vm.tables([[IOVA, DATA + 0x1000n]])];
    first!.installContext(0x10, { tc: TC.V, ta: 5n << 12n, fsc: tables[0]!.fsc });
    second!.installContext(0x10, { tc: TC.V, ta: 5n << 12n, fsc: tables[1]!.fsc });
    vm.guest.store64(DATA, 0xaan);
    vm.guest.store64(DATA + 0x1000n, 0xbbn);
    // Both translations are cached under one PSCID; each device must find its own.
    for (const device of [a, b, a, b]) expect(vm.dma(device, IOVA, 64, false)).toBe(R.OUTCOME_DONE);
    first!.installContext(0x10, { tc: TC.V });
    second!.installContext(0x10, { tc: TC.V });
    expect(vm.dma(a, DATA + 0x2000n, 64, true)).toBe(R.OUTCOME_DONE);
    expect(vm.dma(b, DATA + 0x3000n, 64, true)).toBe(R.OUTCOME_DONE);
    expect([vm.guest.load32(DATA + 0x2000n), vm.guest.load32(DATA + 0x3000n)]).toEqual([0xaa, 0xbb]);
    // A fault of each goes to its own guest driver.
    first!.installContext(0x10, { tc: 0n });
    expect(vm.dma(a, DATA, 64, false)).toBe(R.OUTCOME_REFUSED);
    expect(first!.takeFaults().length).toBe(1);
    expect(second!.takeFaults().length).toBe(0);
    finish(vm);
  });

  it("a device behind another IOMMU is refused by a vIOMMU that is there already, in one line", () => {
    const vm = new Vm(TWO_IOMMUS);
    vm.assign(FIRST, 0x10);
    expect(() => vm.assign(THIRD, 0x18)).toThrow(/-22/);
    expect(vm.reports.at(-1)).toMatch(/IOMMU_VDEVICE_ALLOC.*0000:01:03\.0.*EINVAL/);
    finish(vm);
  });
});

describe("coming and going", () => {
  it("a device unplugged while its DMA runs: the DMA ends, the guest's queues stand, the other device goes on", () => {
    const { vm, a, b } = pair();
    for (const id of [0x10, 0x08]) vm.guest.installContext(id, { tc: TC.V });
    eduDma(a.bar, DATA, 4096, false);
    eduDma(b.bar, DATA, 4096, false);
    vm.run(5_000);
    vm.unplug(a);
    vm.run();
    expect(eduOutcome(b.bar)).toBe(R.OUTCOME_DONE);
    vm.guest.run(["IODIR.INVAL_DDT", { DV: 1, DID: 0x10 }], ["IOTINVAL.VMA", {}], ["IOFENCE.C", {}]);
    expect(vm.guest.read32(REG.cqcsr) & 0xf00).toBe(0);
    finish(vm);
  });

  it("what a device did before it was unplugged does not reach the one plugged in its place", () => {
    const { vm, a } = pair();
    vm.guest.installContext(0x10, { tc: 0n });
    eduDma(a.bar, DATA, 64, false);
    vm.unplug(a);
    vm.run();
    const again = vm.assign(FIRST, 0x10);
    vm.guest.installContext(0x10, { tc: TC.V });
    expect(vm.dma(again, DATA, 64, true)).toBe(R.OUTCOME_DONE);
    finish(vm);
  });

  it("a device hot-plugged beside a running DMA gets the context the guest has for it", () => {
    const vm = new Vm(DEVICES);
    const a = vm.assign(FIRST, 0x10);
    vm.guest.enableDirectory();
    vm.guest.enableQueues();
    vm.guest.installContext(0x10, { tc: TC.V });
    vm.guest.storeContext(0x08, { tc: TC.V });
    eduDma(a.bar, DATA, 4096, false);
    vm.run(5_000);
    const b = vm.assign(SECOND, 0x08);
    expect(vm.dma(b, DATA, 64, false)).toBe(R.OUTCOME_DONE);
    expect(eduOutcome(a.bar)).toBe(R.OUTCOME_DONE);
    finish(vm);
  });

  it("a function-level reset by the guest ends DMA and interrupts, and the context stands", () => {
    const { vm, a } = pair();
    vm.guest.installContext(0x10, { tc: TC.V });
    eduDma(a.bar, DATA, 4096, false, true);
    vm.run(5_000);
    const express = a.device.config.express;
    expect(a.device.config.canReset).toBe(true);
    a.device.configWrite(express + 8, 2, 0x8000);
    vm.run();
    expect(a.intx).toBe(false);
    expect(a.device.configRead(4, 2) & 6).toBe(0);
    expect(a.device.barBase(0)).toBe(-1);
    a.device.configWrite(4, 2, 6);
    expect(eduOutcome(a.bar)).toBe(R.OUTCOME_RESET);
    expect(vm.dma(a, DATA, 64, true)).toBe(R.OUTCOME_DONE);
    expect(vm.reports).toEqual([]);
    finish(vm);
  });

  it("renumbering: the device is known by the new id alone, in directory, commands and faults", () => {
    const { vm, a } = pair();
    vm.guest.installContext(0x10, { tc: TC.V });
    vm.guest.storeContext(0x21, { tc: TC.V, fsc: vm.tables([[IOVA, DATA]]).fsc });
    expect(vm.guest.viommu.renumber(0x10, 0x21)).toBe(0);
    a.guestId = 0x21;
    expect(vm.dma(a, IOVA, 64, false)).toBe(R.OUTCOME_DONE);
    expect(vm.dma(a, IOVA + 0x1000n, 64, false)).toBe(R.OUTCOME_REFUSED);
    expect(vm.guest.takeFaults()).toEqual([expect.objectContaining({ deviceId: 0x21, cause: 13 })]);
    finish(vm);
  });

  it("a reset of the VM's IOMMU with everything on blocks all devices; a driver can start again", () => {
    const { vm, a, b } = pair();
    const stage1 = vm.tables([[IOVA, DATA]]);
    vm.guest.installContext(0x10, { tc: TC.V, fsc: stage1.fsc });
    vm.guest.installContext(0x08, { tc: TC.V });
    eduDma(a.bar, IOVA, 4096, false);
    vm.run(5_000);
    vm.guest.viommu.reset();
    vm.run();
    expect(eduOutcome(a.bar)).toBe(R.OUTCOME_REFUSED);
    expect(vm.dma(b, DATA, 64, false)).toBe(R.OUTCOME_REFUSED);
    vm.guest.enableQueues();
    vm.guest.enableDirectory();
    expect(vm.dma(a, IOVA, 64, false)).toBe(R.OUTCOME_DONE);
    expect(copy(vm, b, DATA, DATA + 0x1000n)).toBe(R.OUTCOME_DONE);
    finish(vm);
  });

  it("a device moves from one VM to another and takes nothing along", () => {
    const host = machine(DEVICES);
    const one = new Vm(host);
    const a = one.assign(FIRST, 0x10);
    one.guest.enableDirectory();
    one.guest.installContext(0x10, { tc: TC.V });
    const two = new Vm(host);
    expect(() => two.assign(FIRST, 0x20)).toThrow(HostRefusal);
    one.unplug(a);
    const moved = two.assign(FIRST, 0x20);
    two.guest.enableDirectory();
    two.guest.enableQueues();
    two.guest.installContext(0x20, { tc: TC.V });
    two.guest.store64(DATA, 0x2222n);
    one.guest.store64(DATA, 0x1111n);
    expect(copy(two, moved, DATA, DATA + 0x1000n)).toBe(R.OUTCOME_DONE);
    expect([one.guest.load32(DATA + 0x1000n), two.guest.load32(DATA + 0x1000n)]).toEqual([0, 0x2222]);
    gone(one);
    gone(two);
    expect(host.kernel.liveKinds).toEqual([]);
  });

  it("what the VMM's process leaves when it is killed is cleaned up by the kernel", () => {
    const { vm, a } = pair();
    vm.guest.installContext(0x10, { tc: TC.V, fsc: vm.tables([[IOVA, DATA]]).fsc });
    eduDma(a.bar, IOVA, 4096, false);
    vm.run(5_000);
    vm.process.exit();
    expect(vm.machine.kernel.liveKinds).toEqual([]);
  });
});

describe("a host that refuses", () => {
  const CALLS = [
    "IOMMU_IOAS_ALLOC",
    "VFIO_DEVICE_BIND_IOMMUFD",
    "IOMMU_HWPT_ALLOC",
    "IOMMU_VIOMMU_ALLOC",
    "IOMMU_VDEVICE_ALLOC",
    "IOMMU_VEVENTQ_ALLOC",
    "VFIO_DEVICE_ATTACH_IOMMUFD_PT",
    "VFIO_DEVICE_GET_REGION_INFO",
  ];

  it.each(CALLS)("%s while a VM is made: one line, and nothing is left", (call) => {
    const host = machine(DEVICES);
    host.kernel.injector = { ...NO_INJECTION, ioctl: (name) => (name === call ? -12 : 0) };
    let vm: Vm | null = null;
    let failure = "";
    try {
      vm = new Vm(host);
      vm.assign(FIRST, 0x10);
    } catch (error) {
      failure = (error as Error).message;
    }
    host.kernel.injector = NO_INJECTION;
    const said = `${failure}\n${vm?.reports.join("\n") ?? ""}`;
    expect(said).toMatch(call === "VFIO_DEVICE_GET_REGION_INFO" ? /configuration space/ : new RegExp(call));
    vm?.[Symbol.dispose]();
    for (const process of host.kernel.processes) expect(process.openFiles).toBe(0);
    for (const process of host.kernel.processes) process.exit();
    expect(host.kernel.liveKinds).toEqual([]);
  });

  it("IOMMU_IOAS_MAP: guest RAM is not mapped, the process keeps nothing of it", () => {
    const host = machine(DEVICES);
    const process = host.kernel.createProcess("vmm");
    const space = new GuestAddressSpace(process);
    host.kernel.injector = { ...NO_INJECTION, ioctl: (name) => (name === "IOMMU_IOAS_MAP" ? -12 : 0) };
    expect(() => space.mapRam(0x8000_0000n, new ArrayBuffer(0x10000), 0, 0x10000)).toThrow(/IOMMU_IOAS_MAP.*ENOMEM/);
    space[Symbol.dispose]();
    expect(process.openFiles).toBe(0);
    process.exit();
    expect(host.kernel.liveKinds).toEqual([]);
  });

  it("every call in turn, while contexts change: no exception, the device in one disposition, the hardware in the same", () => {
    for (const call of [
      "IOMMU_HWPT_ALLOC",
      "VFIO_DEVICE_ATTACH_IOMMUFD_PT",
      "IOMMU_HWPT_INVALIDATE",
      "IOMMU_DESTROY",
    ]) {
      const { vm, a } = pair();
      const stage1 = vm.tables([[IOVA, DATA]]);
      vm.machine.kernel.injector = { ...NO_INJECTION, ioctl: (name) => (name === call ? -5 : 0) };
      const contexts = [{ tc: TC.V }, { tc: 0n }, { tc: TC.V, fsc: stage1.fsc }, { tc: TC.V | TC.DTF }];
      for (const words of contexts) {
        vm.guest.installContext(0x10, words);
        // A stopped queue goes on at the command that failed, and fails again.
        vm.guest.write32(REG.cqcsr, 0xf03);
        const { disposition } = vm.guest.viommu.dispositions.find(0x10)!;
        const outcome = vm.dma(a, disposition === "nested" ? IOVA : DATA, 64, false);
        expect(outcome === R.OUTCOME_DONE, `${call}: ${disposition}`).toBe(disposition !== "blocked");
      }
      vm.machine.kernel.injector = NO_INJECTION;
      vm.process.exit();
      expect(vm.machine.kernel.liveKinds).toEqual([]);
    }
  });
});

describe("emulated and assigned devices behind one vIOMMU", () => {
  it("an edu model on the VM's own bus and one of the host's see the same tables, each by its own id", () => {
    const { vm, a } = pair();
    const { guest } = vm;
    const model = new Edu({ name: "emulated" });
    guest.viommu.plug({ handle: 1, guestId: 0x18, name: "00:03.0", ats: false, pri: false, emulated: true });
    model.connect({
      dma: guest.viommu.emulatedDma(() => 0x18),
      interrupt: { intx: () => {} },
      clock: vm.machine.clock,
    });
    model.configWrite(4, 2, 6);
    const stage1 = vm.tables([[IOVA, DATA]]);
    for (const id of [0x10, 0x18]) guest.installContext(id, { tc: TC.V, ta: 3n << 12n, fsc: stage1.fsc });
    guest.store64(DATA, 0x4711n);
    const registers = model.bars[0]!.registers;
    eduDma(registers, IOVA, 64, false);
    vm.run();
    expect(eduOutcome(registers)).toBe(R.OUTCOME_DONE);
    guest.store64(DATA, 0n);
    eduDma(registers, IOVA, 64, true);
    vm.run();
    expect(guest.load32(DATA)).toBe(0x4711);
    expect(vm.dma(a, IOVA, 64, false)).toBe(R.OUTCOME_DONE);
    eduDma(registers, IOVA + 0x1000n, 64, false);
    vm.run();
    expect(eduOutcome(registers)).toBe(R.OUTCOME_REFUSED);
    expect(vm.dma(a, IOVA + 0x1000n, 64, false)).toBe(R.OUTCOME_REFUSED);
    expect(guest.takeFaults().map(({ deviceId, cause }) => [deviceId, cause])).toEqual([
      [0x18, 13],
      [0x10, 13],
    ]);
    finish(vm);
  });
});

describe("events the host lost", () => {
  it("show as fqof in the guest's queue, with the records that came", () => {
    const { vm, a } = pair();
    vm.guest.installContext(0x10, { tc: 0n });
    let losing = false;
    vm.machine.kernel.injector = { ...NO_INJECTION, loseEvent: () => losing };
    vm.dma(a, DATA + 0x1000n, 64, false);
    expect(vm.guest.read32(REG.fqcsr) & (1 << 9)).toBe(0);
    losing = true;
    vm.dma(a, DATA, 64, false);
    losing = false;
    vm.dma(a, DATA + 0x3000n, 64, false);
    expect(vm.guest.read32(REG.fqcsr) & (1 << 9)).toBe(1 << 9);
    vm.machine.kernel.injector = NO_INJECTION;
    // After fqof nothing is recorded until the guest clears it (6.16).
    expect(vm.guest.takeFaults().map(({ iotval }) => iotval)).toEqual([DATA + 0x1000n]);
    vm.guest.write32(REG.fqcsr, (1 << 9) | 3);
    vm.dma(a, DATA + 0x2000n, 64, false);
    expect(vm.guest.takeFaults().map(({ iotval }) => iotval)).toEqual([DATA + 0x2000n]);
    finish(vm);
  });
});

describe("dirty tracking over the stage-2 parent", () => {
  it("reports the pages nested DMA wrote, once", () => {
    const { vm, a } = pair();
    expect(vm.space.canTrackDirty).toBe(true);
    const stage1 = vm.tables([
      [IOVA, DATA],
      [IOVA + 0x1000n, DATA + 0x5000n],
    ]);
    vm.guest.installContext(0x10, { tc: TC.V, fsc: stage1.fsc });
    const dirty = () => {
      const pages: bigint[] = [];
      expect(vm.space.readDirty(0x8000_0000n, 0x10_0000n, (page) => pages.push(page))).toBe(0);
      return pages;
    };
    expect(vm.space.setDirtyTracking(true)).toBe(0);
    expect(dirty()).toEqual([]);
    vm.dma(a, IOVA, 64, false);
    vm.dma(a, IOVA + 0x1000n, 64, true);
    expect(dirty()).toContain(DATA + 0x5000n);
    expect(dirty()).toEqual([]);
    vm.dma(a, IOVA, 64, true);
    expect(dirty()).toContain(DATA);
    expect(vm.space.setDirtyTracking(false)).toBe(0);
    finish(vm);
  });
});
