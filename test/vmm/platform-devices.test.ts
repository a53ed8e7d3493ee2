// Platform devices in a VM: registers on its bus, a level-sensitive wire, DMA under an id of the device's own behind a vIOMMU. The host is the
// model's vfio-platform, reached by system calls; the guest is a scenario.

import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { Clock } from "../../host/base/clock.ts";
import { restoreTree, saveTree } from "../../host/base/state.ts";
import { decodeState, encodeState } from "../../host/base/state-text.ts";
import { Trace } from "../../host/base/trace.ts";
import { parseHost } from "../../host/description.ts";
import * as R from "../../host/devices/edu/registers.ts";
import { Host } from "../../host/host.ts";
import { Arm64Machine } from "../../vmm/arm64-machine.ts";
import { Assignment } from "../../vmm/assignment.ts";
import { ASSIGNMENT_FORM, parseAssignment } from "../../vmm/assignment-text.ts";
import { ComponentMachine } from "../../vmm/component-machine.ts";
import { GICD_BASE, PLATFORM_BASE, RAM_BASE } from "../../vmm/memory-map.ts";
import { Rv64Machine } from "../../vmm/rv64-machine.ts";
import type { ScenarioContext } from "../../vmm/scenario/context.ts";
import { runScenario } from "../../vmm/scenario/run-scenario.ts";
import { scenario } from "../../vmm/scenario/scenario.ts";
import type { ScenarioVm } from "../../vmm/scenario/vm.ts";
import { buildHart } from "../../vmm/vcpu/riscv64/build.mjs";
import { RISCV } from "../../vmm/viommu/riscv/kind.ts";
import { restoreWhole, saveWhole } from "../../vmm/whole-machine.ts";
import { eduDma } from "../host/kernel/machine.ts";
import { coreModule } from "./vcpu/aarch64/core-module.ts";

const HOST = parseHost(
  {
    name: "platform",
    iommus: [
      { name: "iommu0", kind: "riscv" },
      { name: "iommu1", kind: "riscv" },
    ],
    devices: [{ model: "edu", bdf: "0000:00:01.0", iommu: "iommu0" }],
    platform: [
      { model: "edu", name: "edu0", iommu: "iommu0", deviceId: 0x7777 },
      { model: "edu", name: "edu1", iommu: "iommu1", deviceId: 0x7777 },
      { model: "edu", name: "bare" },
    ],
  },
  "platform",
);
const GUEST_ID = 0x1234;
const IOVA = 0x5000n;

function run(body: (t: ScenarioContext) => void): void {
  const result = runScenario(scenario("s", body), { seed: 0, defaultHost: HOST, findHost: () => HOST });
  if (!result.passed) throw new Error(`${result.message}\n${result.stack}`);
}

function onHost() {
  const clock = new Clock();
  const trace = new Trace(clock);
  return { clock, trace, host: new Host(HOST, { clock, trace }) };
}

/** A component machine on the host, with nothing assigned. */
function assembled(viommu: boolean) {
  const { clock, trace, host } = onHost();
  const calls = host.createProcess();
  const machine = new ComponentMachine({ clock, trace, calls, memoryBytes: 2 ** 20, viommu, report: () => {} });
  return { clock, trace, host, machine };
}

/** Lets all that is to come happen. */
function settle(machine: ComponentMachine, clock: Clock): void {
  for (let i = 0; i < 100 && clock.nextDeadline < Number.POSITIVE_INFINITY; i++) {
    clock.advanceTo(clock.nextDeadline);
    machine.machine.settle();
  }
}

/** A device at GUEST_ID behind a stage 1 that maps IOVA to a page of its own. */
function translated(vm: ScenarioVm) {
  const device = vm.platformDevice(GUEST_ID);
  const stage1 = vm.stage1();
  const page = vm.ram.allocate();
  stage1.map(IOVA, page, 4096n);
  device.installContext(stage1);
  return { device, stage1, page };
}

function finish(t: ScenarioContext, device: { edu: { running: boolean } }): void {
  for (let i = 0; device.edu.running && i < 1000; i++) t.advance(1000);
}

describe("an assigned platform device", () => {
  it("does DMA through its guest's first stage, under an id that is neither the host's nor a PCI function's", () =>
    run((t) => {
      const vm = t.vm({ assign: [`edu0@0x${GUEST_ID.toString(16)}`, "0000:00:01.0@00:02.0"] });
      const { device, page } = translated(vm);
      vm.ram.write(page, Uint8Array.of(1, 2, 3, 4));
      device.edu.start({ iova: IOVA, length: 64, direction: "from-ram" });
      finish(t, device);
      expect(device.edu.outcome).toBe("done");
      device.edu.start({ iova: IOVA + 256n, length: 64, direction: "to-ram" });
      finish(t, device);
      expect([...vm.ram.read(page + 256n, 4)]).toEqual([1, 2, 3, 4]);
      expect(device.dmaRead(IOVA + 4096n, 4)).toMatchObject({ ok: false, stalled: false });
      expect(vm.expectFault({ what: "not mapped", device, iova: IOVA + 4096n, write: false })).toMatchObject({
        deviceId: GUEST_ID,
      });
      expect(vm.device("00:02.0").dmaRead(IOVA, 4).ok, "the other device has a context of its own").toBe(false);
    }));

  it("has its registers on the bus from PLATFORM_BASE on, one device after the other", () =>
    run((t) => {
      const vm = t.vm({ assign: ["edu0@0x10", "edu1@0x11"] });
      const { bus } = vm.machine.machine;
      expect(bus.ranges.filter(({ name }) => name.startsWith("edu"))).toMatchObject([
        { name: "edu0", base: PLATFORM_BASE, size: R.EDU_BAR_BYTES },
        { name: "edu1", base: PLATFORM_BASE + R.EDU_BAR_BYTES, size: R.EDU_BAR_BYTES },
      ]);
      expect(vm.machine.machine.load(PLATFORM_BASE, 4)).toBe(R.IDENTIFICATION_VALUE);
      expect(vm.machine.assignment.viommus.map(({ key }) => key)).toEqual(["iommu0", "iommu1"]);
    }));

  it("raises its wire, which stays up until the device is served, and comes again if it is touched and not served", () =>
    run((t) => {
      const vm = t.vm({ assign: [`edu0@0x${GUEST_ID.toString(16)}`] });
      const { device } = translated(vm);
      const { interrupt, edu } = device;
      edu.start({ iova: IOVA, length: 64, direction: "from-ram", interrupt: true });
      for (let i = 0; i < 10; i++) t.advance(1000);
      expect(vm.takeInterrupts()).toEqual([interrupt]);
      expect(edu.read32(R.INTERRUPT_STATUS), "touched").toBe(R.INTERRUPT_DMA);
      expect(vm.takeInterrupts(), "not served: it is up again").toEqual([interrupt]);
      edu.write32(R.INTERRUPT_ACKNOWLEDGE, R.INTERRUPT_DMA);
      expect(vm.takeInterrupts()).toEqual([]);
    }));

  it("unplugged, it is gone from bus and vIOMMU, and its place is free; its host device may be assigned again", () =>
    run((t) => {
      const vm = t.vm({ assign: [`edu0@0x${GUEST_ID.toString(16)}`] });
      const { device } = translated(vm);
      vm.unassign(device);
      expect(vm.machine.machine.load(PLATFORM_BASE, 4)).toBe(0xffffffff);
      expect(device.dmaRead(IOVA, 4).ok).toBe(false);
      const again = vm.assignPlatform("edu0@0x77");
      expect(again.disposition).toBe("blocked");
      expect(again.entry).toMatchObject({ regions: [{ base: PLATFORM_BASE }], wires: [0] });
    }));

  it("without a vIOMMU uses guest-physical addresses", () => {
    const { machine, host, clock } = assembled(false);
    const { regions } = machine.assignment.platform.assign({ ...host.assignable("edu0"), guestId: GUEST_ID });
    const { registers } = machine.assignment.platform.entries[0]!.device.regions[0]!;
    new Uint8Array(machine.ram.buffer).set([7, 8], 0x3000);
    eduDma(registers, BigInt(RAM_BASE + 0x3000), 2, false);
    settle(machine, clock);
    eduDma(registers, BigInt(RAM_BASE + 0x5000), 2, true);
    settle(machine, clock);
    expect([...new Uint8Array(machine.ram.buffer, 0x5000, 2)]).toEqual([7, 8]);
    expect(machine.assignment.viommus).toEqual([]);
    expect(regions).toEqual([{ base: PLATFORM_BASE, size: R.EDU_BAR_BYTES }]);
    expect(machine.platform.device?.("platform-edu", 0)?.iommu).toBe(-1);
  });

  it("that the host takes away reads all ones and leaves the VM as it was", () =>
    run((t) => {
      const vm = t.vm({ assign: [`edu0@0x${GUEST_ID.toString(16)}`] });
      const { device } = translated(vm);
      t.host().pullOut("edu0");
      expect(device.edu.read32(R.IDENTIFICATION)).toBe(0xffffffff);
      vm.unassign(device);
      expect(vm.platformDevices).toEqual([]);
    }));

  it("is known to a component guest by its registers, its id, its IOMMU and its wire", () =>
    run((t) => {
      const vm = t.vm({ assign: ["edu1@0x20", "edu0@0x10"] });
      const { platform } = vm.machine;
      expect(platform.regions["platform-edu"]).toEqual([
        { base: PLATFORM_BASE, size: R.EDU_BAR_BYTES },
        { base: PLATFORM_BASE + R.EDU_BAR_BYTES, size: R.EDU_BAR_BYTES },
      ]);
      const device = (index: number) => platform.device?.("platform-edu", index);
      expect(device(0)).toEqual({ id: 0x20, iommu: 0, line: vm.platformDevices[0]!.interrupt });
      expect(device(1)).toEqual({ id: 0x10, iommu: 1, line: vm.platformDevices[1]!.interrupt });
      expect(device(2)).toBeNull();
      expect(platform.device?.("ram", 0)).toBeNull();
      expect(new Set(vm.platformDevices.map(({ interrupt }) => interrupt)).size).toBe(2);
    }));
});

describe("a machine with a platform device, written down and read back", () => {
  it("goes on where it was: its DMA, its wire that is up and masked in the host", () => {
    const build = () => {
      const made = assembled(false);
      made.machine.assignment.platform.assign({ ...made.host.assignable("edu0"), guestId: GUEST_ID });
      const { registers } = made.machine.assignment.platform.entries[0]!.device.regions[0]!;
      const world = { clock: made.clock, trace: made.trace, host: made.host, machine: made.machine };
      return { ...made, registers, world };
    };
    const first = build();
    eduDma(first.registers, BigInt(RAM_BASE), 200, false, true);
    first.registers.mmioWrite(R.INTERRUPT_RAISE, 4, 2, 0);
    first.clock.advance(1500);
    first.machine.machine.settle();
    const saved = saveWhole(first.world);
    const again = build();
    restoreWhole(again.world, decodeState(encodeState(saved)));
    const outcomes = [first, again].map(({ machine, registers, clock }) => {
      settle(machine, clock);
      return [
        machine.interrupts.take(),
        registers.mmioRead(R.INTERRUPT_STATUS, 4),
        machine.interrupts.take(),
        registers.mmioRead(R.DMA_MOVED, 4),
        clock.now,
      ];
    });
    expect(outcomes[1]).toEqual(outcomes[0]);
    expect(outcomes[0]!.slice(1, 4)).toEqual([2 | R.INTERRUPT_DMA, -1, 200]);
  });

  it("is refused by a machine without it", () => {
    const made = assembled(false);
    made.machine.assignment.platform.assign({ ...made.host.assignable("edu0"), guestId: GUEST_ID });
    const saved = saveTree(made.machine.assignment.platform);
    expect(() => restoreTree(assembled(false).machine.assignment.platform, saved)).toThrow(
      /devices are more than the 0 here/,
    );
  });
});

describe("a kernel machine", () => {
  it("of AArch64 takes the wire to the GIC as a shared peripheral interrupt of its own", () => {
    const { clock, trace, host } = onHost();
    const arm64 = new Arm64Machine({ core: coreModule(), clock, trace, memoryBytes: 4 * 2 ** 20, cpus: 1 });
    const assignment = arm64.iommuWorld({
      ...{ configuration: {}, calls: host.createProcess(), kind: RISCV, report: () => {} },
      viommu: false,
    });
    const { device } = assignment.platform.assign({ ...host.assignable("edu0"), guestId: GUEST_ID });
    const pending = () => {
      // GICD_ISPENDR7 (IHI 0048B §4.3.7): interrupts 224 to 255; ids from 256 on are in ISPENDR8.
      const words = [7, 8].map((n) => arm64.machine.load(GICD_BASE + 0x200 + 4 * n, 4));
      return words.map((word) => word >>> 0);
    };
    expect(pending()).toEqual([0, 0]);
    device.regions[0]!.registers.mmioWrite(R.INTERRUPT_RAISE, 4, 1, 0);
    arm64.machine.settle();
    // SPI 224 is interrupt 256: behind the wires and the messages.
    expect(pending()).toEqual([0, 1]);
    device.regions[0]!.registers.mmioWrite(R.INTERRUPT_ACKNOWLEDGE, 4, 1, 0);
    arm64.machine.settle();
    expect(pending()).toEqual([0, 0]);
  });

  it("takes the wire to its interrupt controller, and without wires refuses the device", async () => {
    const core = await WebAssembly.compile(readFileSync(await buildHart()));
    const { clock, trace, host } = onHost();
    const rv64 = new Rv64Machine({ core, clock, trace, memoryBytes: 4 * 2 ** 20, harts: 1 });
    const world = { configuration: {}, calls: host.createProcess(), kind: RISCV, report: () => {} };
    const assignment = rv64.iommuWorld(world);
    const { device, wires } = assignment.platform.assign({ ...host.assignable("edu0"), guestId: GUEST_ID });
    const levels: [number, boolean][] = [];
    const setWire = rv64.aplic.setWire.bind(rv64.aplic);
    rv64.aplic.setWire = (source, asserted) => {
      levels.push([source, asserted]);
      setWire(source, asserted);
    };
    device.regions[0]!.registers.mmioWrite(R.INTERRUPT_RAISE, 4, 1, 0);
    rv64.machine.settle();
    expect(levels).toEqual([[48 + wires[0]!, true]]);
    const wireless = new Assignment({
      ...{ machine: rv64.machine, memory: rv64.memory, pci: rv64.pci, kind: RISCV, configuration: {} },
      wires: { viommu: () => {}, intx: () => {} },
      calls: host.createProcess(),
      ram: { buffer: rv64.core.memory.buffer, offset: rv64.core.ramOffset, length: 4 * 2 ** 20 },
      report: () => {},
    });
    expect(() => wireless.platform.assign({ ...host.assignable("edu1"), guestId: 1 })).toThrow(/has no wires/);
  });
});

describe("refusals", () => {
  const refused = (act: (vm: ScenarioVm) => void): string => {
    let message = "taken";
    run((t) => {
      const vm = t.vm({ assign: ["0000:00:01.0@00:02.0"] });
      const before = [vm.machine.assignment.viommus.length, vm.machine.machine.bus.ranges.length];
      try {
        act(vm);
      } catch (error) {
        message = (error as Error).message;
      }
      expect([vm.machine.assignment.viommus.length, vm.machine.machine.bus.ranges.length], "nothing is left").toEqual(
        before,
      );
    });
    return message;
  };

  it.each([
    ["a name that is no device's", "edu9@0x10", /has no device edu9 .*edu0, edu1/],
    ["a device without an IOMMU", "bare@0x10", /vfio-platform does not take bare: EINVAL/],
    ["an id that a PCI function has at the vIOMMU", "edu0@0x10", /guest device 0x10 \(host edu0\).*behind viommu0/],
    [
      "a vIOMMU over another IOMMU",
      "edu1@0x30/iommu0",
      /behind IOMMU "iommu1", vIOMMU "iommu0" is a slice of "iommu0"/,
    ],
    ["a platform device in a PCI place", "edu0@00:03.0", /edu0 is on no bus.*edu0@0x400/],
  ])("%s", (_, text, message) => {
    expect(refused((vm) => vm.assignPlatform(text))).toMatch(message);
  });

  it("a PCI function in a platform place", () => {
    expect(refused((vm) => vm.assignPlatform("0000:00:01.0@0x10"))).toMatch(/is a PCI function/);
  });

  it("a device that is another VM's", () => {
    run((t) => {
      t.vm({ assign: ["edu0@0x10"] });
      expect(() => t.vm({ assign: ["edu0@0x10"] })).toThrow(/guest device 0x10 \(host edu0\): EINVAL/);
    });
  });
});

describe("HOST@GUEST", () => {
  it("takes an id of up to 23 bits for a platform device", () => {
    expect(parseAssignment("edu0@0x400")).toEqual({ hostName: "edu0", place: { guestId: 0x400 } });
    expect(parseAssignment("edu0@0x7FFFFF/other")).toEqual({
      hostName: "edu0",
      place: { guestId: 0x7fffff },
      viommu: "other",
    });
    for (const text of ["edu0@0x800000", "edu0@400x", "edu0@", "edu0@0x", "@0x4"]) {
      expect(parseAssignment(text), text).toBeUndefined();
    }
    expect(ASSIGNMENT_FORM).toContain("edu0@0x400");
  });
});
