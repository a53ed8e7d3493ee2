// What a device's DMA meets while its guest's stage 1 comes, changes and goes: at every store that the driver makes, hardware without any cache
// is asked for one address. Hitless is what Linux's KUnit test calls so (arm-smmu-v3-test.c): every answer is the old one or the new one.

import { describe, expect, it } from "vitest";
import * as R from "../../../../../host/devices/edu/registers.ts";
import { NO_PASID } from "../../../../../host/devices/ports.ts";
import { ACCESS_READ, TRANSLATED } from "../../../../../host/hw/iommu/port.ts";
import { RAM_GPA } from "../../guest.ts";
import { eduDma, eduOutcome } from "../../machine.ts";
import { A, ABORT, BYPASS, eats, GuestMachine, must, s1dss } from "./guest-machine.ts";

const WITHOUT_CACHES = { caches: { streams: 0, contexts: 0, translations: 0 } };
/** A guest-physical address that is an IOVA of every stage 1 here, too. */
const ADDRESS = RAM_GPA + 0x8000n;

function setUp() {
  const options = { pasidBits: 4, ats: true };
  const machine = new GuestMachine({ smmus: [WITHOUT_CACHES], devices: [{ rid: A, options }] });
  const { host, user, iommufd, ioas, a, ram, parent } = machine;
  machine.vdevice(0x10n);
  const [first, second] = [machine.stage1(), machine.stage1()];
  first.stage.map(ADDRESS, ram.page());
  second.stage.map(ADDRESS, ram.page());
  // A third one that differs from the first by the context that it leads to, and by what requests without PASID are.
  const bypassing = first.contexts.streamEntry(4);
  const paging = must(user.hwpt(iommufd, a.device, ioas));
  const states: Record<string, () => number> = {
    parent: () => parent,
    "a plain HWPT": () => paging,
    abort: () => must(machine.nested(ABORT)),
    bypass: () => must(machine.nested(BYPASS)),
    "stage 1": () => must(machine.nested(first.entry)),
    "stage 1 with ATS": () => must(machine.nested(first.entry, eats(1))),
    "another stage 1": () => must(machine.nested(second.entry)),
    "stage 1 bypassed by S1DSS": () => must(machine.nested(bypassing, s1dss(1) | eats(1))),
    "another table and S1DSS": () => must(machine.nested(second.contexts.streamEntry(4), s1dss(2))),
  };
  const reach = (): number => {
    const smmu = host.iommus[0]!;
    const status = smmu.translate(A, NO_PASID, false, ACCESS_READ, Number(ADDRESS >> 12n), 0, false, -1);
    return status === TRANSLATED ? smmu.resultPfn : -1;
  };
  /** Puts the device from one state into another; where the address led before, at every store, and after. */
  const change = (from: string, to: string) => {
    const next = states[to]!();
    must(user.attach(a.vfio, states[from]!()));
    const before = reach();
    const seen = new Set<number>();
    host.memory.faults = {
      at: (_pfn, _offset, _length, store) => {
        if (!store) return 0;
        const { faults } = host.memory;
        host.memory.faults = null;
        seen.add(reach());
        host.memory.faults = faults;
        return 0;
      },
    };
    must(user.attach(a.vfio, next));
    host.memory.faults = null;
    const after = reach();
    return { before, after, seen: [...seen] };
  };
  return { machine, change };
}

describe("a device goes without a moment between", () => {
  it.each([
    ["parent", "stage 1"],
    ["stage 1", "parent"],
    ["parent", "stage 1 with ATS"],
    ["stage 1 with ATS", "parent"],
    ["parent", "stage 1 bypassed by S1DSS"],
    ["stage 1 bypassed by S1DSS", "parent"],
    ["bypass", "stage 1"],
    ["stage 1", "bypass"],
    ["stage 1", "another stage 1"],
    ["stage 1", "stage 1 with ATS"],
    ["abort", "stage 1"],
    ["stage 1", "abort"],
  ])("from %s to %s", (from, to) => {
    const { machine, change } = setUp();
    const { before, after, seen } = change(from, to);
    expect(seen.length).toBeGreaterThan(0);
    expect(seen.filter((frame) => frame !== before && frame !== after)).toEqual([]);
    expect(machine.end()).toEqual([]);
  });
});

describe("a device is refused for a moment, and reaches nothing else,", () => {
  it.each([
    ["stage 1", "another table and S1DSS"],
    ["a plain HWPT", "stage 1"],
    ["stage 1", "a plain HWPT"],
    // Config and the VMID: only a VMID of 0, as in KUnit's cases, would leave one.
    ["a plain HWPT", "parent"],
    ["parent", "a plain HWPT"],
  ])("from %s to %s: two doublewords in use change", (from, to) => {
    const { machine, change } = setUp();
    const { before, after, seen } = change(from, to);
    expect(seen).toContain(-1);
    expect(seen.filter((frame) => frame !== before && frame !== after)).toEqual([-1]);
    expect(machine.end()).toEqual([]);
  });
});

describe("DMA that is under way", () => {
  it("goes on while guests' entries are exchanged under it, and ends when its HWPT is detached", () => {
    const machine = new GuestMachine();
    const { host, user, a, ram } = machine;
    machine.vdevice(0x10n);
    const [first, second] = [machine.stage1(), machine.stage1()];
    const target = ram.page();
    for (const { stage } of [first, second]) stage.map(RAM_GPA, target);
    machine.install(first.entry);
    const bar = user.bar0(a.vfio);
    eduDma(bar, RAM_GPA, 4096, true);
    const burst = () => {
      host.clock.advanceTo(host.clock.nextDeadline);
      host.clock.fireDue();
    };
    let rounds = 0;
    for (; bar.mmioRead(R.DMA_MOVED, 4) < 4096; rounds++) {
      expect(eduOutcome(bar)).toBe(R.OUTCOME_DONE);
      machine.install(rounds % 2 === 0 ? second.entry : first.entry);
      burst();
    }
    expect(rounds).toBeGreaterThan(2);
    host.run(100_000);
    expect(eduOutcome(bar)).toBe(R.OUTCOME_DONE);
    eduDma(bar, RAM_GPA, 4096, true);
    burst();
    expect(user.detach(a.vfio)).toBe(0);
    host.run(100_000);
    expect(eduOutcome(bar)).toBe(R.OUTCOME_REFUSED);
    expect(bar.mmioRead(R.DMA_MOVED, 4)).toBeLessThan(4096);
    expect(machine.end()).toEqual([]);
  });
});
