// Seconds of the fuzzer, and proof that it would find what it looks for: bugs planted at the doors between rooms.

import { describe, expect, it } from "vitest";
import { runOperations, shrink } from "../viommu.ts";
import { HostileGuest } from "./hostile-guest.ts";
import { makeOperations, type Operation, Random } from "./operations.ts";
import { hunt as huntPlanted } from "./planted-bugs.ts";

const SEEDS = 30;
const STEPS = 1_500;

const hunt = (plant: (guest: HostileGuest) => void) => huntPlanted((seed) => new HostileGuest(seed), plant);

describe("hostile guests on the guest-visible IOMMU", () => {
  it(`${SEEDS} of them find nothing in ${STEPS} operations each`, () => {
    for (let seed = 1; seed <= SEEDS; seed++) {
      expect(runOperations(seed, makeOperations(new Random(seed), STEPS)), `seed ${seed}`).toBeNull();
    }
  });

  it("a seed replayed gives the same trace", () => {
    const operations = makeOperations(new Random(7), 400);
    const run = () => {
      const lines: string[] = [];
      const put = (event: unknown) =>
        lines.push(JSON.stringify(event, (_key, value) => (typeof value === "bigint" ? `${value}n` : value)));
      expect(runOperations(7, operations, put)).toBeNull();
      return lines;
    };
    expect(run()).toEqual(run());
  });
});

describe("the fuzzer finds", () => {
  it("invalidations that are dropped", () => {
    const problem = hunt((guest) => {
      guest.vm.iommus[0]!.host.invalidate = (_batch, count) => ({ done: count, errno: 0 });
    });
    expect(problem).toMatch(/the oracle says/);
  });

  it("a device left where it was when it should be blocked", () => {
    const problem = hunt((guest) => {
      guest.vm.iommus[0]!.host.setBlocked = () => 0;
    });
    expect(problem).toMatch(/the hardware's context|the oracle says/);
  });

  it("a stage 2 that maps a frame that is not the guest's", () => {
    const problem = hunt((guest) => {
      const { process, space } = guest.vm;
      const stray = process.memory.allocate(4096);
      // 0x10 is a page that hostile tables point to.
      const argument = process.memory.allocate(4096);
      const bytes = new DataView(
        process.memory.bytes(argument, 40).buffer,
        process.memory.bytes(argument, 40).byteOffset,
      );
      bytes.setUint32(0, 40, true);
      bytes.setUint32(4, 7, true);
      bytes.setUint32(8, 1, true);
      bytes.setBigUint64(16, stray, true);
      bytes.setBigUint64(24, 4096n, true);
      bytes.setBigUint64(32, 0x1_0000n, true);
      expect(process.ioctl(space.iommufd, 0x3b85, argument)).toBe(0);
    });
    expect(problem).toMatch(/reached host frame|the oracle says/);
  });

  it("faults that carry another device's id", () => {
    const problem = hunt((guest) => {
      const { host } = guest.vm.iommus[0]!;
      const events = host.events.bind(host);
      host.events = () =>
        events().map((event) => {
          if (event.kind === "fault") event.record[5] = event.record[5]! ^ 0x18;
          return event;
        });
    });
    expect(problem).toMatch(/the oracle says|records/);
  });

  it("a vIOMMU object that is not given back", () => {
    const problem = hunt((guest) => {
      guest.vm.iommus[0]!.host[Symbol.dispose] = () => {};
    });
    expect(problem).toMatch(/descriptors left open|left in the host/);
  });

  it("and shortens a run to what the problem needs", () => {
    const operations = makeOperations(new Random(3), 64);
    expect(shrink(3, operations, "no such problem", 20)).toEqual(operations);
    // A problem of our own making: two operations, in this order, whatever stands between them.
    const needed = [operations[9]!, operations[40]!];
    const run = (_seed: number, tried: readonly Operation[]) => {
      const steps = Math.max(...needed.map((operation) => tried.indexOf(operation) + 1));
      return needed.every((operation) => tried.includes(operation)) ? { problem: `at ${steps}`, steps } : null;
    };
    expect(shrink(3, operations, "at 41", 400, run)).toEqual(needed);
  });
});
