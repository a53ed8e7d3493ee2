// A kind that no shared file knows goes through all of them, in each shape a kind can have.

import { describe, expect, it } from "vitest";
import { Clock } from "../../host/base/clock.ts";
import { Trace, type TracedEvent } from "../../host/base/trace.ts";
import { HostDescriptionError, parseHost } from "../../host/description.ts";
import type { DmaPort } from "../../host/devices/ports.ts";
import { Host } from "../../host/host.ts";
import { ComponentMachine } from "../../vmm/component-machine.ts";
import { CountingCalls } from "../../vmm/counting-calls.ts";
import { RAM_BASE, VIOMMU_BASE } from "../../vmm/memory-map.ts";
import { runScenario } from "../../vmm/scenario/run-scenario.ts";
import { scenario } from "../../vmm/scenario/scenario.ts";
import { MOST_DOMAINS } from "../../vmm/vfio/mapped-domains.ts";
import { vmTree } from "../../vmm/view/machine-tree.ts";
import type { ViommuKindName } from "../../vmm/viommu/kinds.ts";
import {
  BYPASS,
  GUEST,
  OPERATION_ENTER,
  OPERATION_MAP,
  OPERATION_UNMAP,
  PAGE,
  QUEUE_PAGE,
  RUN_BYTES,
} from "./formats.ts";
import { type Shape, TRIVIAL_HOST, trivialKind } from "./viommu.ts";

const DESCRIPTION = {
  name: "trivial host",
  iommus: [{ name: "iommu0", kind: "trivial" }],
  devices: [
    { model: "edu", bdf: "0000:00:01.0", iommu: "iommu0" },
    { model: "edu", bdf: "0000:00:02.0", iommu: "iommu0" },
  ],
};
const MEMORY = 16 * 2 ** 20;
/** Requester ids in the guest: crossed over, so that a mix-up of guest and host ids fails. */
const FIRST = 0x10;
const SECOND = 0x08;

class Vm {
  readonly clock = new Clock();
  readonly trace = new Trace(this.clock);
  readonly host: Host;
  readonly machine: ComponentMachine;
  readonly calls: CountingCalls;
  readonly reports: string[] = [];
  readonly events: TracedEvent[] = [];
  readonly #process: { readonly name: string };

  constructor(shape: Shape) {
    const description = parseHost(DESCRIPTION, "test", TRIVIAL_HOST.hardware);
    this.host = new Host(description, { clock: this.clock, trace: this.trace, kinds: TRIVIAL_HOST });
    const process = this.host.createProcess();
    this.#process = process;
    this.calls = new CountingCalls(process);
    this.machine = new ComponentMachine({
      clock: this.clock,
      trace: this.trace,
      calls: this.calls,
      memoryBytes: MEMORY,
      kind: trivialKind(shape),
      report: (line) => this.reports.push(line),
    });
    for (const [hostName, routingId] of [
      ["0000:00:01.0", FIRST],
      ["0000:00:02.0", SECOND],
    ] as const) {
      const entry = this.machine.assignment.assign({ ...this.host.assignable(hostName), routingId });
      entry.device.configWrite(4, 2, 6);
    }
  }

  /** The device's own DMA: the bytes read, or null where it is refused. */
  read(routingId: number, iova: number): number | null {
    const bytes = new Uint8Array(1);
    const status = this.#dma(routingId).read(Math.floor(iova / 4096), iova % 4096, bytes, 0, 1, -1);
    this.machine.machine.settle();
    return status === 0 ? bytes[0]! : null;
  }

  write(routingId: number, iova: number, value: number): boolean {
    const status = this.#dma(routingId).write(Math.floor(iova / 4096), iova % 4096, Uint8Array.of(value), 0, 1, -1);
    this.machine.machine.settle();
    return status === 0;
  }

  /** The guest's store of a register; what the operation answered. */
  store(register: number, value: bigint | number, size: 4 | 8 = 4): number {
    const wide = BigInt(value);
    this.machine.machine.store(VIOMMU_BASE + register, size, Number(wide & 0xffffffffn), Number(wide >> 32n));
    return this.load(GUEST.STATUS);
  }

  load(register: number): number {
    return this.machine.machine.load(VIOMMU_BASE + register, 4);
  }

  /** Byte of guest RAM. */
  ram(gpa: number): Uint8Array {
    return new Uint8Array(this.machine.ram.buffer, gpa - RAM_BASE, 1);
  }

  /** Stores a list of runs at a guest-physical page. */
  list(gpa: number, runs: readonly (readonly [from: number, to: number, pages: number, permissions: number])[]): void {
    const view = new DataView(this.machine.ram.buffer, gpa - RAM_BASE, 4096);
    new Uint8Array(this.machine.ram.buffer, gpa - RAM_BASE, 4096).fill(0);
    runs.forEach((run, i) => {
      run.forEach((value, field) => {
        view.setBigUint64(i * RUN_BYTES + field * 8, BigInt(value), true);
      });
    });
  }

  /** Everything that happens in `act`, as the trace has it. */
  during(act: () => void): TracedEvent[] {
    const events: TracedEvent[] = [];
    const sink = { event: (event: TracedEvent) => events.push(event) };
    this.trace.addSink(sink);
    act();
    this.trace.removeSink(sink);
    return events;
  }

  /** Ends everything; what the host still holds. */
  end(): number {
    this.machine[Symbol.dispose]();
    this.host.endProcess(this.#process.name);
    return this.host.liveObjects;
  }

  #dma(routingId: number): DmaPort {
    const entry = this.machine.assignment.devices.find((candidate) => candidate.routingId === routingId)!;
    return this.host.dmaOf(entry.request.hostName);
  }
}

const TABLE = RAM_BASE + 0x10000;
const OLD = RAM_BASE + 0x20000;
const NEW = RAM_BASE + 0x30000;
const IOVA = 0x5000;
const page = (address: number): number => address / 4096;

const nestingShapes: Shape[] = ["viommu", "hwpt", "hardware queue"];

describe.each(nestingShapes)("stage 1 of the guest's own, shape %s", (shape) => {
  it("takes a device from blocked to bypass to nested, and back, each as the guest says", () => {
    const vm = new Vm(shape);
    vm.ram(OLD)[0] = 42;
    vm.list(TABLE, [[page(IOVA), page(OLD), 1, 3]]);
    expect(vm.read(FIRST, OLD), "blocked: nothing was set up").toBeNull();
    vm.store(GUEST.DEVICE, FIRST);
    expect(vm.store(GUEST.STAGE1, BYPASS, 8)).toBe(0);
    expect(vm.read(FIRST, OLD), "bypass: IOVA is GPA").toBe(42);
    expect(vm.store(GUEST.STAGE1, page(TABLE), 8)).toBe(0);
    expect(vm.read(FIRST, IOVA), "nested: the guest's table leads there").toBe(42);
    expect(vm.read(FIRST, OLD), "nested: nothing else is mapped").toBeNull();
    expect(vm.read(SECOND, IOVA), "the other device is still blocked").toBeNull();
    expect(vm.store(GUEST.STAGE1, 0, 8)).toBe(0);
    expect(vm.read(FIRST, IOVA)).toBeNull();
    expect(vm.end()).toBe(0);
  });

  it("reaches the frame that the guest's table names, and keeps the old one until the guest invalidates", () => {
    const vm = new Vm(shape);
    vm.list(TABLE, [[page(IOVA), page(OLD), 1, 3]]);
    vm.store(GUEST.DEVICE, FIRST);
    vm.store(GUEST.STAGE1, page(TABLE), 8);
    expect(vm.write(FIRST, IOVA, 1)).toBe(true);
    expect(vm.ram(OLD)[0]).toBe(1);
    vm.list(TABLE, [[page(IOVA), page(NEW), 1, 3]]);
    vm.write(FIRST, IOVA, 2);
    expect(vm.ram(OLD)[0], "cached").toBe(2);
    expect(vm.store(GUEST.INVALIDATE, FIRST)).toBe(0);
    vm.write(FIRST, IOVA, 3);
    expect([vm.ram(OLD)[0], vm.ram(NEW)[0]]).toEqual([2, 3]);
    expect(vm.end()).toBe(0);
  });

  it("invalidates the device it names and no other", () => {
    const vm = new Vm(shape);
    vm.list(TABLE, [[page(IOVA), page(OLD), 1, 3]]);
    for (const device of [FIRST, SECOND]) {
      vm.store(GUEST.DEVICE, device);
      vm.store(GUEST.STAGE1, page(TABLE), 8);
      vm.write(device, IOVA, 1);
    }
    vm.list(TABLE, [[page(IOVA), page(NEW), 1, 3]]);
    vm.store(GUEST.INVALIDATE, SECOND);
    vm.write(FIRST, IOVA, 7);
    vm.write(SECOND, IOVA, 8);
    expect([vm.ram(OLD)[0], vm.ram(NEW)[0]]).toEqual([7, 8]);
    expect(vm.end()).toBe(0);
  });

  it("never leaves what stage 2 maps, whatever the guest's table says", () => {
    const vm = new Vm(shape);
    vm.list(TABLE, [[page(IOVA), page(RAM_BASE + MEMORY), 1, 3]]);
    vm.store(GUEST.DEVICE, FIRST);
    vm.store(GUEST.STAGE1, page(TABLE), 8);
    expect(vm.write(FIRST, IOVA, 1)).toBe(false);
    vm.store(GUEST.STAGE1, page(0x1000), 8);
    expect(vm.read(FIRST, IOVA), "a table where there is no memory").toBeNull();
    expect(vm.end()).toBe(0);
  });

  it("shows in the machine's tree with its own registers", () => {
    const vm = new Vm(shape);
    vm.store(GUEST.DEVICE, FIRST);
    const { machine, pci, assignment, memoryBytes } = vm.machine;
    const tree = vmTree({ machine, pci, assignment, memoryBytes });
    expect(tree.viommus).toMatchObject({ viommu0: { registers: { DEVICE: "0x10" } } });
    expect(vm.end()).toBe(0);
  });
});

describe("events", () => {
  it("reach the guest under its own id, where there is a vIOMMU object", () => {
    const vm = new Vm("viommu");
    vm.list(TABLE, []);
    vm.store(GUEST.DEVICE, FIRST);
    vm.store(GUEST.STAGE1, page(TABLE), 8);
    vm.write(FIRST, IOVA, 1);
    vm.clock.advance(1);
    vm.machine.machine.settle();
    expect(vm.load(GUEST.FAULT_DEVICE)).toBe(FIRST);
    expect(vm.load(GUEST.FAULT_WRITE)).toBe(1);
    expect(vm.load(GUEST.FAULT_PAGE)).toBe(page(IOVA));
    expect(vm.end()).toBe(0);
  });

  it("stay with the host where there is none", () => {
    const vm = new Vm("hwpt");
    vm.list(TABLE, []);
    vm.store(GUEST.DEVICE, FIRST);
    vm.store(GUEST.STAGE1, page(TABLE), 8);
    vm.write(FIRST, IOVA, 1);
    vm.clock.advance(1);
    vm.machine.machine.settle();
    expect(vm.load(GUEST.FAULT_DEVICE)).toBe(0xffffffff);
    expect(vm.calls.counts).not.toHaveProperty("IOMMU_VIOMMU_ALLOC");
    expect(vm.calls.counts).not.toHaveProperty("IOMMU_VEVENTQ_ALLOC");
    expect(vm.end()).toBe(0);
  });
});

describe("a queue that the hardware executes", () => {
  const QUEUE = RAM_BASE + 0x40000;
  const START = 0;

  it("is started by the guest's store with no system call between that and the hardware", () => {
    const vm = new Vm("hardware queue");
    vm.list(TABLE, [[page(IOVA), page(OLD), 1, 3]]);
    vm.store(GUEST.DEVICE, FIRST);
    vm.store(GUEST.STAGE1, page(TABLE), 8);
    vm.write(FIRST, IOVA, 1);
    expect(vm.store(GUEST.QUEUE, QUEUE, 8)).toBe(0);
    vm.list(TABLE, [[page(IOVA), page(NEW), 1, 3]]);
    new DataView(vm.machine.ram.buffer).setUint32(QUEUE - RAM_BASE + START * 4, FIRST, true);
    const events = vm.during(() => vm.machine.machine.store(VIOMMU_BASE + QUEUE_PAGE + PAGE.TAIL, 4, START + 1, 0));
    expect(events.map(({ type }) => type)).toEqual(["mmio", "command"]);
    expect(events[0]).toMatchObject({ device: "viommu0-page", write: true });
    expect(events[1]).toMatchObject({ where: "host", name: "FORGET" });
    expect(vm.load(QUEUE_PAGE + PAGE.HEAD)).toBe(START + 1);
    vm.write(FIRST, IOVA, 2);
    expect(vm.ram(NEW)[0]).toBe(2);
    expect(vm.end()).toBe(0);
  });

  it("cannot name a device that is not the guest's", () => {
    const vm = new Vm("hardware queue");
    vm.list(TABLE, [[page(IOVA), page(OLD), 1, 3]]);
    vm.store(GUEST.DEVICE, FIRST);
    vm.store(GUEST.STAGE1, page(TABLE), 8);
    vm.write(FIRST, IOVA, 1);
    vm.store(GUEST.QUEUE, QUEUE, 8);
    vm.list(TABLE, [[page(IOVA), page(NEW), 1, 3]]);
    new DataView(vm.machine.ram.buffer).setUint32(QUEUE - RAM_BASE, 0x77, true);
    vm.machine.machine.store(VIOMMU_BASE + QUEUE_PAGE + PAGE.TAIL, 4, 1, 0);
    vm.write(FIRST, IOVA, 2);
    expect(vm.ram(OLD)[0], "nothing was forgotten").toBe(2);
    expect(vm.end()).toBe(0);
  });

  it("outside guest RAM is refused, and a new one takes the place of the old", () => {
    const vm = new Vm("hardware queue");
    expect(vm.store(GUEST.QUEUE, RAM_BASE + MEMORY, 8)).not.toBe(0);
    expect(vm.store(GUEST.QUEUE, QUEUE, 8)).toBe(0);
    expect(vm.store(GUEST.QUEUE, QUEUE + 0x1000, 8)).toBe(0);
    expect(vm.load(QUEUE_PAGE + PAGE.HEAD)).toBe(0);
    expect(vm.end()).toBe(0);
  });
});

describe("a kind without nesting", () => {
  const LENGTH = 0x2000;
  const operate = (vm: Vm, operation: number, iova: number, gpa: number, length: number, domain = 5): number => {
    vm.store(GUEST.DOMAIN, domain);
    vm.store(GUEST.IOVA, iova, 8);
    vm.store(GUEST.GPA, gpa, 8);
    vm.store(GUEST.LENGTH, length, 8);
    return vm.store(GUEST.OPERATION, operation);
  };

  it("fills domains by map and unmap, over plain address spaces", () => {
    const vm = new Vm("mapped");
    vm.store(GUEST.DEVICE, FIRST);
    expect(operate(vm, OPERATION_ENTER, 0, 0, 0)).toBe(0);
    expect(vm.write(FIRST, IOVA, 1), "an empty domain").toBe(false);
    expect(operate(vm, OPERATION_MAP, IOVA, OLD, LENGTH)).toBe(0);
    expect(vm.write(FIRST, IOVA + 0x1000, 9)).toBe(true);
    expect(vm.ram(OLD + 0x1000)[0]).toBe(9);
    expect(vm.write(SECOND, IOVA, 1), "the other device is in no domain").toBe(false);
    expect(operate(vm, OPERATION_UNMAP, IOVA, 0, LENGTH)).toBe(0);
    expect(vm.write(FIRST, IOVA + 0x1000, 10), "unmapped, and nothing stale").toBe(false);
    expect(vm.ram(OLD + 0x1000)[0]).toBe(9);
    expect(vm.calls.counts).not.toHaveProperty("IOMMU_HWPT_INVALIDATE");
    expect(vm.end()).toBe(0);
  });

  it("has so many domains and no more, whatever numbers the guest names", () => {
    const vm = new Vm("mapped");
    const map = (domain: number) => operate(vm, OPERATION_MAP, IOVA, OLD, LENGTH, domain);
    for (let domain = 0; domain < MOST_DOMAINS; domain++) expect(map(domain * 7919)).toBe(0);
    expect(map(1), "ENOSPC").toBe(28);
    expect(operate(vm, OPERATION_UNMAP, IOVA, 0, LENGTH, 0), "those there are go on").toBe(0);
    expect(map(0)).toBe(0);
    expect(vm.end()).toBe(0);
  });

  it("maps nothing outside guest RAM", () => {
    const vm = new Vm("mapped");
    expect(operate(vm, OPERATION_MAP, IOVA, RAM_BASE + MEMORY - 0x1000, LENGTH)).toBe(14);
    expect(operate(vm, OPERATION_MAP, IOVA, 0x1000, LENGTH)).toBe(14);
    expect(vm.end()).toBe(0);
  });

  it("shares a domain between devices, and passes everything in bypass", () => {
    const vm = new Vm("mapped");
    for (const device of [FIRST, SECOND]) {
      vm.store(GUEST.DEVICE, device);
      operate(vm, OPERATION_ENTER, 0, 0, 0);
    }
    operate(vm, OPERATION_MAP, IOVA, OLD, LENGTH);
    vm.write(FIRST, IOVA, 3);
    expect(vm.read(SECOND, IOVA)).toBe(3);
    vm.store(GUEST.DEVICE, SECOND);
    expect(vm.store(GUEST.STAGE1, BYPASS, 8)).toBe(0);
    expect(vm.read(SECOND, OLD)).toBe(3);
    expect(vm.end()).toBe(0);
  });
});

describe("a host's description", () => {
  it("names the kinds there are when it asks for another", () => {
    expect(() => parseHost(DESCRIPTION, "mine")).toThrow(HostDescriptionError);
    expect(() => parseHost(DESCRIPTION, "mine")).toThrow(
      /^mine: iommus\.0\.kind: no kind of IOMMU "trivial" \(there is /,
    );
  });

  it("leaves an IOMMU's options to its kind", () => {
    const wrong = { ...DESCRIPTION, iommus: [{ name: "iommu0", kind: "trivial", options: { bigEndian: true } }] };
    expect(() => parseHost(wrong, "mine", TRIVIAL_HOST.hardware)).toThrow(/^mine: iommus\.0\.options: .*bigEndian/);
  });
});

describe("a scenario for every kind", () => {
  it("runs on one that no shared file knows, and hears of faults what its table says", () => {
    const description = parseHost(DESCRIPTION, "trivial host", TRIVIAL_HOST.hardware);
    const kinds = { viommus: { trivial: trivialKind("viommu") }, host: TRIVIAL_HOST };
    const bodies = scenario.each(
      "story",
      (t, kind) => {
        // The types of a kind that ships: only what all kinds have is used.
        const vm = t.vm({ kind: kind as ViommuKindName, assign: ["0000:00:01.0@00:02.0"] });
        const device = vm.device("00:02.0");
        const stage1 = vm.stage1();
        const page = vm.ram.allocate();
        stage1.map(0x4000n, page, 4096n);
        device.installContext(stage1);
        t.expect(device.dmaWrite(0x4000n, Uint8Array.of(7)).ok, "mapped");
        t.equal(vm.ram.read(page, 1), Uint8Array.of(7), "guest RAM");
        t.equal(device.dmaRead(0x4000n, 1).bytes, Uint8Array.of(7), "what the device reads");
        device.dmaRead(0x9000n, 1);
        t.advance(1);
        vm.expectFault({ what: "not mapped", device, iova: 0x9000n, write: false });
        stage1.unmap(0x4000n, 4096n);
        t.expect(device.dmaRead(0x4000n, 1).ok, "stale");
        vm.iommu.invalidate({ stage1 });
        vm.iommu.fence();
        t.expect(!device.dmaRead(0x4000n, 1).ok, "invalidated");
        t.advance(1);
        vm.takeFaults();
        device.installContext("blocked");
        t.expect(!device.dmaRead(0x4000n, 1).ok, "blocked");
      },
      kinds.viommus,
    );
    expect(bodies.map(({ name }) => name)).toEqual(["story (trivial)"]);
    const result = runScenario(bodies[0]!, { seed: 0, defaultHost: description, findHost: () => description, kinds });
    expect(result.message).toBe("");
    expect(result.passed).toBe(true);
  });
});
