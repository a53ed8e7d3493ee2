// An IOMMU whose state was taken, disturbed and given back goes on as if nothing had been, and so does another that is given it: stale
// translations included, for what it caches is the model's truth.

import { describe, expect, it } from "vitest";
import { REG } from "../../../../../host/arch/riscv/registers.ts";
import { restoreTree, type Stateful } from "../../../../../host/base/state.ts";
import type { AtsTarget } from "../../../../../host/devices/ports.ts";
import { Random } from "../../../devices/nvme/hostile-guest.ts";
import { digest, machineOf, memoryPart, saved } from "../../../saved-machine.ts";
import { type Fields, G, Machine, USER_RW, USER_RWX } from "./machine.ts";

const SEEDS = Array.from({ length: 8 }, (_, seed) => seed);
const DEVICES = [1, 2, 3, 4, 5] as const;
const PAGES = 24;

class Bench {
  readonly machine: Machine;
  readonly tree: Stateful;
  readonly seen: unknown[] = [];
  readonly #leaves: { frame: number; offset: number }[] = [];
  readonly #contexts = new Map<number, Fields>();

  /** Five devices: host spaces, one machine's, one with processes; caches so small that all of them overflow. */
  constructor() {
    const machine = new Machine(
      {
        caches: { devices: 4, processes: 2, translations: 16, messages: 4 },
        automaticDelayNs: 700,
        atsTimeoutNs: 20_000,
        atsTags: 3,
      },
      512,
    );
    this.machine = machine;
    machine.enableFaultQueue(7, true);
    machine.enableCommandQueue(8, true);
    machine.useDirectory(1);
    const guest = machine.makeSecondStageRoot();
    machine.mapMemoryOneToOne(guest, 3);
    const roots = DEVICES.map(() => machine.makeRoot());
    for (const root of roots) {
      for (let page = 0; page < PAGES; page++) {
        this.#leaves.push(machine.map(root, 3, page, 0x80100 + page, page % 5 === 0 ? USER_RW | G : USER_RWX));
      }
      this.#leaves.push(machine.map(root, 3, 0x400, 0x80200, USER_RW, { level: 1 }));
    }
    const [first, second, third, fourth] = roots as [number, number, number, number];
    const processes = machine.makeProcessDirectory(1);
    for (const id of [1, 2, 3, 4]) {
      machine.setProcess(processes, id, { fsc_MODE: 8, fsc_PPN: roots[id % 4]!, PSCID: 40 + id, ENS: 1 });
    }
    const secondStage = { iohgatp_MODE: 8, iohgatp_PPN: guest };
    this.#device(1, { fsc_MODE: 8, fsc_PPN: first, PSCID: 1, EN_ATS: 1, EN_PRI: 1 });
    this.#device(2, { fsc_MODE: 8, fsc_PPN: second, PSCID: 2 });
    this.#device(3, { fsc_MODE: 8, fsc_PPN: third, PSCID: 1, ...secondStage, GSCID: 7, EN_ATS: 1 });
    this.#device(4, { PDTV: 1, fsc_MODE: 1, fsc_PPN: processes });
    this.#device(5, { fsc_MODE: 8, fsc_PPN: fourth, PSCID: 1, ...secondStage, GSCID: 8, SADE: 1 });
    // It answers invalidations when the test says so.
    const target: AtsTarget = {
      invalidate: (...request) => {
        this.seen.push(["invalidate", ...request]);
        return false;
      },
      pageResponse: (...response) => this.seen.push(["response", ...response]),
    };
    machine.iommu.findTarget = (deviceId) => (deviceId === 1 || deviceId === 3 ? target : undefined);
    const bytes = machine.memory.banks[0]!.bytes;
    this.tree = machineOf(machine.clock, { iommu: machine.iommu, memory: memoryPart(bytes) });
  }

  #device(id: number, fields: Fields): void {
    this.#contexts.set(id, fields);
    this.machine.setDevice(id, fields);
  }

  #step(random: Random): void {
    const { machine, seen } = this;
    const device = random.pick(DEVICES);
    const page = random.below(8) === 0 ? 0x400 + random.below(512) : random.below(PAGES + 1);
    switch (random.below(28)) {
      case 0: {
        // Tables change, and nobody is told.
        const place = random.pick(this.#leaves);
        const flags = BigInt(random.pick([USER_RW, USER_RWX, 0]));
        machine.store(place.frame, place.offset, (BigInt(0x80300 + random.below(64)) << 10n) | flags);
        break;
      }
      case 1:
        machine.setDevice(device, { ...this.#contexts.get(device)!, DTF: random.below(2) });
        break;
      case 2: {
        const gscid = random.pick([{}, { GV: 1, GSCID: 7 }, { GV: 1, GSCID: 8 }]);
        const pscid = random.pick([{}, { PSCV: 1, PSCID: random.pick([1, 2, 41]) }]);
        machine.queue("IOTINVAL.VMA", { ...gscid, ...pscid, ...random.pick([{}, { AV: 1, ADDR: page }]) });
        break;
      }
      case 3:
        machine.queue("IOTINVAL.GVMA", random.pick([{}, { GV: 1, GSCID: 7 }]));
        break;
      case 4:
        machine.queue("IODIR.INVAL_DDT", random.pick([{}, { DV: 1, DID: device }, { DV: 1, DID: device }]));
        break;
      case 5:
        machine.queue("IODIR.INVAL_PDT", { DV: 1, DID: 4, PID: 1 + random.below(4) });
        break;
      case 6:
        machine.queue("ATS.INVAL", { RID: random.pick([1, 3, 9]), ADDR: page });
        if (random.below(2) === 0) machine.queue("IOFENCE.C", {});
        break;
      case 7:
        machine.iommu.invalidationCompleted(random.pick([1, 3]), random.below(3));
        break;
      case 8:
        machine.iommu.pageRequest(device, -1, page, random.below(512), 7);
        break;
      case 9: {
        // Counters: an event with a filter, and the cycle counter close to its end.
        machine.write64(REG.iohpmevt1 + 8 * random.below(4), BigInt(random.below(9)) | (BigInt(device) << 36n));
        if (random.below(3) === 0)
          machine.write64(REG.iohpmcycles, 0x7fff_ffff_ffff_ff00n - BigInt(random.below(4000)));
        break;
      }
      case 10:
        // Errors are cleared, interrupts acknowledged, masked and let go.
        machine.write32(REG.cqcsr, 0xf03);
        machine.write32(REG.ipsr, 0xf);
        machine.write32(REG.icvec, 0x3210);
        machine.write32(REG.msi_cfg_tbl + 16 * random.below(4) + 12, random.below(2));
        machine.write64(REG.msi_cfg_tbl + 16 * random.below(4), BigInt(0x80000 + 500 + random.below(8)) << 12n);
        break;
      case 11:
        machine.write64(REG.tr_req_iova, BigInt(page) << 12n);
        machine.write64(REG.tr_req_ctl, 1n | 8n | (BigInt(device) << 40n));
        break;
      case 12:
        seen.push(machine.iommu.translateForDevice(device, -1, page, false, false, false));
        seen.push({ ...machine.iommu.atsTranslation });
        break;
      case 13:
        this.#pass(random.pick([100, 700, 3000, 30_000]));
        break;
      default: {
        const pasid = device === 4 && random.below(4) > 0 ? 1 + random.below(5) : -1;
        const access = random.pick([1, 1, 2, 4]);
        const privileged = random.below(6) === 0;
        const address = (BigInt(page) << 12n) | 8n;
        seen.push(machine.request(device, address, { pasid, access, privileged }));
      }
    }
  }

  #pass(ns: number): void {
    const { clock } = this.machine;
    const end = clock.now + ns;
    while (clock.nextDeadline <= end) {
      clock.advanceTo(clock.nextDeadline);
      clock.fireDue();
    }
    clock.advanceTo(end);
  }

  run(random: Random, steps: number): void {
    const { machine, seen } = this;
    for (let i = 0; i < steps; i++) {
      this.#step(random);
      for (const register of [REG.cqh, REG.cqcsr, REG.fqt, REG.pqt, REG.ipsr, REG.iocountovf, REG.tr_req_ctl]) {
        seen.push(machine.read32(register));
      }
      for (let counter = 0; counter < 4; counter++) seen.push(machine.read64(REG.iohpmctr1 + 8 * counter));
      seen.push(machine.read64(REG.tr_response), machine.clock.nextDeadline);
    }
  }

  after(random: Random): unknown {
    this.seen.length = 0;
    this.run(random, 150);
    return [...this.seen, digest(this.tree)];
  }
}

describe("a RISC-V IOMMU", () => {
  it.each(SEEDS)("goes on as if its state had never been taken (seed %i)", (seed) => {
    const random = new Random(seed);
    const bench = new Bench();
    bench.run(random, 250);
    const document = saved(bench.tree);
    const expected = bench.after(random.copy());
    bench.run(new Random(seed + 1000), 100);
    restoreTree(bench.tree, document);
    expect(bench.after(random.copy())).toEqual(expected);
    const other = new Bench();
    restoreTree(other.tree, document);
    expect(other.after(random.copy())).toEqual(expected);
  });

  it("goes on after a second restore of the same document as after the first", () => {
    const bench = new Bench();
    const random = new Random(77);
    bench.run(random, 200);
    const document = saved(bench.tree);
    restoreTree(bench.tree, document);
    expect(saved(bench.tree)).toEqual(document);
  });

  it("uses a translation that tables no longer hold, after the restore as before it", () => {
    const bench = new Bench();
    const { machine } = bench;
    expect(machine.request(1, 0x3000n)).toBe(0x80103000n);
    machine.memory.banks[0]!.bytes.fill(0);
    const document = saved(bench.tree);
    const other = new Bench();
    restoreTree(other.tree, document);
    expect(other.machine.request(1, 0x3000n)).toBe(0x80103000n);
    expect(other.machine.request(1, 0x4000n)).toBeNull();
  });

  it.each([
    ["a context without a tag", "tags", { tags: [], live: [] }, "space has no tag"],
    [
      "a tag with the stamp of empty entries",
      "tags",
      { tags: [{ machine: -1, space: -2, variant: 0, stamp: 0, sizes: 0, split: 0 }], live: [] },
      "stamp was never given out",
    ],
    ["a live tag that is none of its tags", "tags", { tags: [], live: [0] }, "live has no tag 0 to name"],
    ["a cache of another size", "devices", { slots: [], floor: 0, victim: 0 }, "slots are 0, not 4"],
    ["a first word that is no record", "devices", { slots: [1, 2, 3, 4], floor: 0, victim: 0 }, "is no record"],
  ])("refuses a document with %s", (_, cache, state, message) => {
    const bench = new Bench();
    bench.machine.request(1, 0x3000n);
    interface Node {
      state: unknown;
      parts: Record<string, Node>;
    }
    const tree = saved(bench.tree) as unknown as Node;
    tree.parts.iommu!.parts.caches!.parts[cache]!.state = state;
    expect(() => restoreTree(bench.tree, tree as never)).toThrow(message);
  });
});
