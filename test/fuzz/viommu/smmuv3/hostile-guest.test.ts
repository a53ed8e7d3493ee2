// Seconds of the fuzzer, and proof that it would find what it looks for: bugs planted at the doors between rooms.

import { describe, expect, it } from "vitest";
import { REG } from "../../../../host/arch/smmuv3/registers.ts";
import { KIND } from "../../smmuv3-viommu.ts";
import { runOperations } from "../../viommu.ts";
import { makeOperations, Random } from "../operations.ts";
import { hunt as huntPlanted } from "../planted-bugs.ts";
import { HostileSmmuGuest } from "./hostile-guest.ts";

const SEEDS = 14;
const STEPS = 1_000;

const hunt = (plant: (guest: HostileSmmuGuest) => void) => huntPlanted((seed) => new HostileSmmuGuest(seed), plant);

describe("hostile guests on the guest-visible SMMUv3", () => {
  it(`${SEEDS} of them find nothing in ${STEPS} operations each`, () => {
    for (let seed = 1; seed <= SEEDS; seed++) {
      expect(runOperations(seed, makeOperations(new Random(seed), STEPS), undefined, KIND), `seed ${seed}`).toBeNull();
    }
  });
});

describe("the fuzzer finds", () => {
  it("invalidations that are dropped", () => {
    const problem = hunt((guest) => {
      guest.vm.host.invalidate = (_batch, count) => ({ done: count, errno: 0 });
    });
    expect(problem).toMatch(/the oracle says|event/);
  });

  it("a device left where it was when it should be blocked", () => {
    const problem = hunt((guest) => {
      guest.vm.host.setBlocked = () => 0;
    });
    expect(problem).toMatch(/the hardware's entry|the oracle says/);
  });

  it("an illegal command that is let through to the host", () => {
    const problem = hunt((guest) => {
      const { host } = guest.vm;
      const invalidate = host.invalidate.bind(host);
      host.invalidate = (batch, count) => {
        // A Reserved range: TG with NUM = SCALE = TTL = 0.
        for (let at = 0; at < count * 16; at += 16) {
          if (batch[at] !== 0x12) continue;
          batch.fill(0, at + 1, at + 4);
          batch[at + 9] = (batch[at + 9]! & 0xf0) | 4;
        }
        return invalidate(batch, count);
      };
    });
    expect(problem).toMatch(/the host's GERROR/);
  });

  it("a mapping of the second stage that leads out of the guest's RAM", () => {
    const problem = hunt((guest) => {
      const [iommu] = guest.vm.machine.iommus;
      const { memory } = guest.vm.machine;
      const load = memory.load64.bind(memory);
      expect(iommu!.registers.mmioRead(REG.IDR0, 4) & 3).toBe(3);
      let loads = 0;
      memory.load64 = (pfn, offset) => {
        const status = load(pfn, offset);
        if (++loads % 5000 === 0) memory.lo ^= 0x40_0000;
        return status;
      };
    });
    expect(problem).not.toBeNull();
  });
});
