// A device whose state was taken, disturbed and given back goes on as one that was left alone, and so does another device that is given it.

import { describe, expect, it } from "vitest";
import { restoreTree, type Stateful } from "../../../host/base/state.ts";
import { Edu } from "../../../host/devices/edu/edu.ts";
import * as R from "../../../host/devices/edu/registers.ts";
import { MemoryBlockStore } from "../../../host/devices/nvme/block-store.ts";
import { ATS_SUCCESS, type AtsPort, noTranslation } from "../../../host/devices/ports.ts";
import { digest, machineOf, memoryPart, saved } from "../saved-machine.ts";
import { BenchBus, MESSAGE_PAGE } from "./bench-bus.ts";
import { Random, step } from "./nvme/hostile-guest.ts";
import { DATA, NvmeTestDriver } from "./nvme/test-driver.ts";

const SEEDS = Array.from({ length: 25 }, (_, seed) => seed);

/** An edu device on a bus whose IOMMU translates page n to n + 16, or has it ask for the page first. */
class EduBench {
  readonly device = new Edu({ name: "edu", pasidBits: 8, ats: true, pri: true, misbehaviour: true });
  readonly bus = new BenchBus(this.device);
  readonly machine: Stateful;
  /** What the device was seen to do. */
  readonly seen: unknown[] = [];

  constructor() {
    const translation = noTranslation();
    const ats: AtsPort = {
      translation,
      translate: (pfn, pasid, noWrite) => {
        Object.assign(translation, { pfn: pfn + 16, sizeLog2: 12 + (pfn & 1), read: true });
        translation.write = !noWrite && pfn < 8;
        this.seen.push(["translate", pfn, pasid, noWrite]);
        return ATS_SUCCESS;
      },
      readTranslated: (...transfer) => this.bus.read(...transfer),
      writeTranslated: (...transfer) => this.bus.write(...transfer),
      pageRequest: (...request) => this.seen.push(["page request", ...request]),
      stopMarker: (pasid) => this.seen.push(["stop marker", pasid]),
      invalidationCompleted: (itag) => this.seen.push(["invalidated", itag, this.bus.clock.now]),
    };
    this.bus.ats = ats;
    this.bus.enable();
    this.bus.enableMsi(0x40);
    this.machine = machineOf(this.bus.clock, { device: this.device, memory: memoryPart(this.bus.memory) });
  }

  /** Software lets the device use everything it has. */
  allowAll(): void {
    for (const [capability, at, value] of [
      [0x1b, 6, 5],
      [0x0f, 6, 0x8000],
      [0x13, 12, 32],
      [0x13, 4, 1],
    ] as const) {
      this.device.configWrite(this.bus.findExtendedCapability(capability) + at, at === 12 ? 4 : 2, value);
    }
  }

  run(random: Random, steps: number): void {
    const { device, bus, seen } = this;
    for (let i = 0; i < steps; i++) {
      switch (random.below(10)) {
        case 0:
        case 1: {
          const address = BigInt(random.below(16) * 4096 + random.below(64));
          const toRam = random.below(2) === 0;
          const write64 = (at: number, value: bigint) => device.mmioWrite(at, 8, Number(value), 0);
          write64(toRam ? R.DMA_DESTINATION : R.DMA_SOURCE, address);
          write64(toRam ? R.DMA_SOURCE : R.DMA_DESTINATION, BigInt(R.BUFFER + random.below(64)));
          write64(R.DMA_COUNT, BigInt(random.below(300)));
          write64(R.DMA_COMMAND, BigInt(R.COMMAND_RUN | (toRam ? R.COMMAND_TO_RAM : 0) | R.COMMAND_INTERRUPT));
          break;
        }
        case 2:
          device.mmioWrite(R.TRANSLATION_MODE, 4, random.below(4), 0);
          device.mmioWrite(R.PASID, 4, random.pick([0, R.PASID_VALID | 3, R.PASID_VALID | R.PASID_PRIVILEGED | 4]), 0);
          break;
        case 3:
          device.mmioWrite(random.pick([R.FACTORIAL, R.LIVENESS, R.INTERRUPT_RAISE]), 4, random.below(12), 0);
          device.mmioWrite(R.STATUS, 4, R.STATUS_RAISE_INTERRUPT, 0);
          break;
        case 4:
          device.mmioWrite(R.INVALIDATION_DELAY, 4, random.pick([0, 500, 3000]), 0);
          device.mmioWrite(R.MISBEHAVIOUR, 4, random.below(3) === 0 ? random.below(64) : 0, 0);
          break;
        case 5: {
          const done = device.atsTarget!.invalidate(random.below(16), 4, random.pick([-1, 3]), false, random.below(32));
          seen.push(["complete at once", done]);
          break;
        }
        case 6: {
          const group = device.mmioRead(R.PAGE_REQUEST_GROUP, 4);
          const pasid = random.pick([-1, 3, 4]);
          device.atsTarget!.pageResponse(pasid, (group + 511) & 511, random.pick([0, 0, 1, 15]));
          break;
        }
        case 7:
          if (random.below(8) === 0) device.reset();
          else device.mmioWrite(R.INTERRUPT_ACKNOWLEDGE, 4, 0xffffffff, 0);
          this.allowAll();
          bus.enable();
          break;
        case 8:
          // Interrupts by message or by pin; asleep and awake.
          device.configWrite(bus.findCapability(0x05) + 2, 2, random.below(2));
          device.configWrite(bus.findCapability(0x01) + 4, 2, random.below(4) === 0 ? 3 : 0);
          break;
        default:
          bus.run(random.pick([0, 400, 1000, 5000]));
      }
      for (let at = R.DMA_OUTCOME; at < R.STOP_MARKER; at += 4) seen.push(device.mmioRead(at, 4));
      seen.push(device.mmioRead(R.FACTORIAL, 4), device.mmioRead(R.INTERRUPT_STATUS, 4), device.configRead(4, 4));
    }
  }

  /** All that it did from here on. */
  after(random: Random, steps: number): unknown {
    const { bus, seen } = this;
    for (const list of [seen, bus.transfers, bus.messages, bus.pins]) list.length = 0;
    this.run(random, steps);
    bus.run(100_000);
    return structuredClone([seen, bus.transfers, bus.messages, bus.pins, bus.clock.now, digest(this.machine)]);
  }
}

describe("an edu device", () => {
  it.each(SEEDS)("goes on as if its state had never been taken (seed %i)", (seed) => {
    const random = new Random(seed);
    const bench = new EduBench();
    bench.allowAll();
    bench.run(random, 60);
    const document = saved(bench.machine);
    const [now, again, disturbed] = [random.copy(), random.copy(), new Random(seed + 1000)];
    const expected = bench.after(now, 60);
    bench.run(disturbed, 30);
    restoreTree(bench.machine, document);
    expect(bench.after(again, 60)).toEqual(expected);
    const other = new EduBench();
    restoreTree(other.machine, document);
    expect(other.after(random.copy(), 60)).toEqual(expected);
  });

  it("has invalidations and a burst under way in such a run", () => {
    const bench = new EduBench();
    bench.allowAll();
    bench.device.mmioWrite(R.INVALIDATION_DELAY, 4, 1000, 0);
    for (const itag of [7, 9]) expect(bench.device.atsTarget!.invalidate(0, 1, -1, false, itag)).toBe(false);
    const document = saved(bench.machine);
    bench.bus.run(1000);
    restoreTree(bench.machine, document);
    bench.seen.length = 0;
    bench.bus.run(1000);
    expect(bench.seen).toEqual([
      ["invalidated", 7, 1000],
      ["invalidated", 9, 1000],
    ]);
  });
});

class NvmeBench {
  readonly driver: NvmeTestDriver;
  readonly machine: Stateful;
  readonly seen: unknown[] = [];

  constructor(blockBytes: 512 | 4096) {
    this.driver = new NvmeTestDriver(new MemoryBlockStore(1 << 20, blockBytes));
    const { bus, controller } = this.driver;
    this.machine = machineOf(bus.clock, { device: controller, memory: memoryPart(bus.memory) });
  }

  /** The driver's own memory of where its queues are. */
  get place(): Pick<NvmeTestDriver, "nextId"> & { queues: NvmeTestDriver["queues"]; refuse: BenchBus["refuse"] } {
    return {
      nextId: this.driver.nextId,
      queues: structuredClone(this.driver.queues),
      refuse: this.driver.bus.refuse,
    };
  }

  set place(place) {
    this.driver.nextId = place.nextId;
    this.driver.queues.clear();
    for (const [id, queue] of place.queues) this.driver.queues.set(id, { ...queue });
    this.driver.bus.refuse = place.refuse;
  }

  after(random: Random, steps: number): unknown {
    const { bus, controller } = this.driver;
    bus.transfers.length = bus.messages.length = bus.pins.length = 0;
    const registers: number[] = [];
    for (let i = 0; i < steps; i++) {
      step(this.driver, random);
      for (const register of [0x0c, 0x14, 0x1c, 0x24]) registers.push(this.driver.read(register));
      registers.push(controller.configRead(4, 4));
    }
    bus.run(10_000_000);
    return structuredClone([registers, bus.transfers, bus.messages, bus.pins, bus.clock.now, digest(this.machine)]);
  }
}

describe("an NVMe controller", () => {
  it.each(SEEDS)("goes on as if its state had never been taken, under a guest that does anything (seed %i)", (seed) => {
    const random = new Random(seed);
    const blockBytes = random.pick([512, 4096] as const);
    const bench = new NvmeBench(blockBytes);
    bench.driver.enable();
    for (let i = 0; i < 60; i++) step(bench.driver, random);
    const document = saved(bench.machine);
    const { place } = bench;
    const expected = bench.after(random.copy(), 40);
    for (let i = 0; i < 30; i++) step(bench.driver, new Random(seed + 1000));
    restoreTree(bench.machine, document);
    bench.place = place;
    expect(bench.after(random.copy(), 40)).toEqual(expected);
    const other = new NvmeBench(blockBytes);
    restoreTree(other.machine, document);
    other.place = place;
    expect(other.after(random.copy(), 40)).toEqual(expected);
  });

  it("answers what was in flight, in a drive that knew nothing of its queues", () => {
    const bench = new NvmeBench(512);
    const { driver } = bench;
    driver.enable();
    driver.createIoQueue(1);
    driver.transfer(true, 5, 1, DATA);
    const asynchronous = driver.place(0, 0x0c);
    driver.ring(0);
    driver.bus.run(1_000_000);
    const ids = [1, 2, 3].map(() => driver.place(1, 2, { 1: 1, 6: DATA + 0x1000, 10: 5 }));
    driver.ring(1);
    driver.bus.run(11_000);
    const document = saved(bench.machine);
    const { place } = bench;
    const other = new NvmeBench(512);
    restoreTree(other.machine, document);
    other.place = place;
    other.driver.bus.run(1_000_000);
    expect(other.driver.takeAll(1).map(({ commandId, status }) => [commandId, status])).toEqual(
      ids.map((id) => [id, 0]),
    );
    // A doorbell that does not exist: an error event, which completes the request (NVMe 1.4 §5.2).
    other.driver.write(0x1000 + 8 * 9, 1);
    other.driver.bus.run(1_000_000);
    expect(other.driver.takeAll(0).map(({ commandId }) => commandId)).toEqual([asynchronous]);
  });

  it.each([
    [
      "a completion queue that does not exist",
      "submission",
      [{ id: 1, pfn: 1, entries: 4, completion: 9 }],
      "not there",
    ],
    ["a queue of one entry", "completion", [{ id: 1, pfn: 1, entries: 1, interrupts: true, vector: 0 }], "too few"],
    [
      "a queue number it does not have",
      "completion",
      [{ id: 99, pfn: 1, entries: 2, interrupts: true, vector: 0 }],
      "below",
    ],
    ["a turn past its queues", "turn", 999, "below"],
  ])("refuses a document with %s", (_, field, value, message) => {
    const bench = new NvmeBench(512);
    const tree = saved(bench.machine) as { parts: { device: { state: Record<string, unknown> } } };
    tree.parts.device.state[field] = value;
    expect(() => restoreTree(bench.machine, tree as never)).toThrow(message);
  });

  it("refuses the content of a store of another size", () => {
    const document = saved(new NvmeBench(512).machine);
    expect(() => restoreTree(new NvmeBench(4096).machine, document)).toThrow(
      "machine/device/store: blocks are 2048, not 256",
    );
  });
});

it("a message vector that waits behind its mask is sent after the restore", () => {
  const bench = new NvmeBench(512);
  const { driver } = bench;
  driver.enable();
  driver.enableMessages();
  const control = driver.bus.findCapability(0x11) + 2;
  driver.controller.configWrite(control, 2, 0xc000);
  driver.place(0, 0x06, { 6: DATA, 10: 1 });
  driver.ring(0);
  driver.bus.run(1_000_000);
  const document = saved(bench.machine);
  const other = new NvmeBench(512);
  restoreTree(other.machine, document);
  other.driver.controller.configWrite(control, 2, 0x8000);
  expect(other.driver.bus.messages).toEqual([{ address: MESSAGE_PAGE << 12n, data: 0 }]);
});
