// Seconds of the fuzzer, and proof that it would find what it looks for: bugs planted at the doors between rooms.

import { describe, expect, it } from "vitest";
import { runOperations } from "../../viommu.ts";
import { KIND } from "../../vtd-viommu.ts";
import { makeOperations, Random } from "../operations.ts";
import { hunt as huntPlanted } from "../planted-bugs.ts";
import { HostileVtdGuest } from "./hostile-guest.ts";

const SEEDS = 16;
const STEPS = 1_000;

const hunt = (plant: (guest: HostileVtdGuest) => void) => huntPlanted((seed) => new HostileVtdGuest(seed), plant);

describe("hostile guests on the guest-visible VT-d unit", () => {
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
    expect(problem).toMatch(/the oracle says/);
  });

  it("a device left where it was when it should be blocked", () => {
    const problem = hunt((guest) => {
      const { host } = guest.vm;
      const setBlocked = host.setBlocked.bind(host);
      host.setBlocked = (device, pasid) => (pasid === undefined ? 0 : setBlocked(device, pasid));
    });
    expect(problem).toMatch(/the hardware's entry|the oracle says/);
  });

  it("a PASID left where it was when it should be blocked", () => {
    const problem = hunt((guest) => {
      const { host } = guest.vm;
      const setBlocked = host.setBlocked.bind(host);
      host.setBlocked = (device, pasid) => (pasid === undefined ? setBlocked(device) : 0);
    });
    expect(problem).toMatch(/PASID [1-7].*(the hardware's entry|the oracle says)/);
  });

  it("a first stage of another width than the guest's", () => {
    const problem = hunt((guest) => {
      const { host } = guest.vm;
      const setNested = host.setNested.bind(host);
      host.setNested = (device, data, ...more) => {
        const other = data.slice();
        other[16] = 57;
        return setNested(device, other, ...more);
      };
    });
    expect(problem).toMatch(/the oracle says|the hardware's entry/);
  });

  it("a mapping of the second stage that leads out of the guest's RAM", () => {
    const problem = hunt((guest) => {
      const { memory } = guest.vm.machine;
      const load = memory.load64.bind(memory);
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
