// The invalidation queue (VT-d §6.5.2): order, waits, errors and how software goes on, device TLBs and their time.

import { describe, expect, it } from "vitest";
import { encodeDescriptor } from "../../../../../host/arch/vtd/invalidation-descriptors.ts";
import {
  EVENT_IM,
  EVENT_IP,
  FSTS_IQE,
  FSTS_ITE,
  GCMD_QIE,
  GSTS_LEVELS,
  REG,
} from "../../../../../host/arch/vtd/registers.ts";
import { Machine } from "./machine.ts";

const queue = (options = {}, start = {}) => {
  const machine = new Machine(options);
  machine.start(start);
  const status = machine.allocate();
  const wait = (fields = {}) => machine.queue("wait", { SW: 1, STDATA: 2, STADDR: BigInt(status) << 10n, ...fields });
  const done = () => machine.load(status, 0) & 0xffff_ffffn;
  return { machine, wait, done, status };
};

describe("waits", () => {
  it("write their status, then interrupt, IQH behind them", () => {
    const { machine, wait, done } = queue();
    machine.write32(REG.IEDATA, 0x31);
    machine.write32(REG.IEADDR, 0xfee01000);
    machine.write32(REG.IECTL, 0);
    wait({ IF: 1 });
    machine.unit.drain();
    expect([done(), machine.messages, machine.read32(REG.ICS), machine.read32(REG.IQH)]).toEqual([
      ...[2n, [[0xfee01000, 0x31]], 1, 32],
    ]);
  });

  it("IF while IWC is still set is silent; IWC cleared lets the next one interrupt", () => {
    const { machine, wait } = queue();
    machine.write32(REG.IEADDR, 0xfee01000);
    machine.write32(REG.IECTL, 0);
    wait({ IF: 1, SW: 0 });
    wait({ IF: 1, SW: 0 });
    machine.unit.drain();
    expect(machine.messages).toHaveLength(1);
    machine.write32(REG.ICS, 1);
    expect(machine.read32(REG.ICS)).toBe(0);
    wait({ IF: 1, SW: 0 });
    machine.unit.drain();
    expect(machine.messages).toHaveLength(2);
  });

  it("a masked interrupt is held as IP; clearing IM sends it, clearing IWC forgets it", () => {
    const { machine, wait } = queue();
    machine.write32(REG.IEADDR, 0xfee01000);
    wait({ IF: 1, SW: 0 });
    machine.unit.drain();
    expect(machine.messages).toEqual([]);
    expect(machine.read32(REG.IECTL)).toBe((EVENT_IM | EVENT_IP) >>> 0);
    machine.write32(REG.ICS, 1);
    expect(machine.read32(REG.IECTL)).toBe(EVENT_IM);
    wait({ IF: 1, SW: 0 });
    machine.unit.drain();
    machine.write32(REG.IECTL, 0);
    expect(machine.messages).toHaveLength(1);
    expect(machine.read32(REG.IECTL)).toBe(0);
  });

  it("PD without PDS is reserved", () => {
    const { machine, wait } = queue({ features: { PDS: false } });
    wait({ PD: 1 });
    machine.unit.drain();
    expect(machine.read32(REG.IQERCD)).toBe(4);
    const fit = queue();
    fit.wait({ PD: 1 });
    fit.machine.unit.drain();
    expect(fit.done()).toBe(2n);
  });
});

describe("errors", () => {
  const error = (words: readonly [bigint, bigint], options = {}, start = {}, upper?: readonly bigint[]): number => {
    const { machine } = queue(options, start);
    machine.queueWords(...words, upper);
    machine.unit.drain();
    expect((machine.read32(REG.FSTS) & FSTS_IQE) !== 0).toBe(machine.read32(REG.IQERCD) !== 0);
    // IQH stays at the offending descriptor.
    if (machine.read32(REG.IQERCD) !== 0) expect(machine.read32(REG.IQH)).toBe(0);
    return machine.read32(REG.IQERCD);
  };

  it("unknown types 3; reserved fields and granularities 4", () => {
    expect(error([0n, 0n])).toBe(3);
    expect(error([10n, 0n])).toBe(3);
    expect(error([0x201n, 0n])).toBe(3);
    expect(error([1n, 0n])).toBe(4);
    expect(error([2n, 0n])).toBe(4);
    expect(error([6n | (1n << 4n), 0n])).toBe(4);
    expect(error([7n | (2n << 4n), 0n])).toBe(4);
    expect(error([5n, 1n])).toBe(4);
    expect(error([5n | (1n << 8n), 0n])).toBe(4);
    expect(error(encodeDescriptor("iotlb", { G: 3, AM: 37 }))).toBe(4);
    expect(error(encodeDescriptor("iotlb", { G: 3, AM: 36 }))).toBe(0);
    expect(error(encodeDescriptor("wait"), {}, {}, [0n, 1n])).toBe(4);
  });

  it("descriptors of PASIDs need 256-bit ones and scalable mode; scalable mode needs 256-bit ones (5), mode 2 is 7", () => {
    expect(error(encodeDescriptor("pasidCache", { G: 3 }), {}, { ttm: 0, wide: false })).toBe(3);
    expect(error(encodeDescriptor("pasidCache", { G: 3 }), {}, { ttm: 0 })).toBe(3);
    expect(error(encodeDescriptor("wait"), {}, { wide: false })).toBe(5);
    expect(error(encodeDescriptor("wait"), {}, { ttm: 2 })).toBe(7);
  });

  it("a tail outside the queue is 1, a misaligned one 6, a descriptor that cannot be read 2", () => {
    const { machine } = queue();
    machine.write32(REG.IQT, 0x2000);
    machine.unit.drain();
    expect(machine.read32(REG.IQERCD)).toBe(1);
    const odd = queue().machine;
    odd.write32(REG.IQT, 0x10);
    odd.unit.drain();
    expect(odd.read32(REG.IQERCD)).toBe(6);
    const unreadable = queue().machine;
    unreadable.inject(unreadable.ring, 0);
    unreadable.write32(REG.IQT, 32);
    unreadable.unit.drain();
    expect(unreadable.read32(REG.IQERCD)).toBe(2);
  });

  it("what stood before has been done, what follows waits; cleared, the same descriptor is fetched again", () => {
    const { machine, wait, done } = queue();
    wait({ STDATA: 1 });
    machine.queueWords(0n, 0n);
    wait({ STDATA: 2 });
    machine.unit.drain();
    expect([done(), machine.read32(REG.IQH)]).toEqual([1n, 32]);
    machine.write32(REG.IQT, machine.read32(REG.IQT));
    machine.unit.drain();
    expect(done()).toBe(1n);
    // As Linux does: the bad one becomes a wait.
    machine.storeWords(machine.ring, 32, encodeDescriptor("wait"));
    machine.write32(REG.FSTS, FSTS_IQE);
    machine.unit.drain();
    expect([done(), machine.read32(REG.IQH), machine.read32(REG.FSTS)]).toEqual([2n, 96, 0]);
  });

  it("QIE goes off only when the queue is empty, and IQH with it", () => {
    const { machine, wait } = queue();
    wait();
    machine.command(GCMD_QIE, false);
    expect(machine.read32(REG.GSTS) & GCMD_QIE).toBe(GCMD_QIE);
    machine.unit.drain();
    machine.command(GCMD_QIE, false);
    expect([machine.read32(REG.GSTS) & GCMD_QIE, machine.read32(REG.IQH)]).toEqual([0, 0]);
    // A tail that is not 0 when QIE goes on: the descriptors before it are fetched at once.
    machine.command(GCMD_QIE);
    machine.unit.drain();
    expect(machine.read32(REG.IQH)).toBe(32);
    expect(GSTS_LEVELS).toBe(0x96ffffff);
  });
});

describe("device TLBs", () => {
  const slow = (options = {}) => {
    const all = queue(options);
    const asked: [number, number, number, boolean][] = [];
    let tag = -1;
    all.machine.unit.findTarget = (id) =>
      id !== 0x108
        ? undefined
        : {
            invalidate: (pfn, pages, pasid, global, itag) => {
              asked.push([pfn, pages, pasid, global]);
              tag = itag;
              return false;
            },
            pageResponse: () => {},
          };
    return { ...all, asked, complete: () => all.machine.unit.invalidationCompleted(0x108, tag) };
  };

  it("a wait comes behind their completions", () => {
    const { machine, wait, done, asked, complete } = slow();
    machine.queue("deviceTlb", { SID: 0x108, ADDR: 0x40003, S: 1 });
    machine.queue("pasidDeviceTlb", { SID: 0x109, PASID: 3 });
    wait();
    machine.unit.drain();
    expect(asked).toEqual([[0x40000, 8, -1, false]]);
    expect(done()).toBe(0n);
    complete();
    machine.clock.advance(60_000_001);
    machine.unit.drain();
    // Nobody is at 0x109: its time is up.
    expect(machine.read32(REG.FSTS) & FSTS_ITE).toBe(FSTS_ITE);
    expect(machine.read32(REG.IQERCD + 4) & 0xffff).toBe(0x109);
  });

  it("one that is not answered: ITE with the source id, the wait is aborted, the queue stands until ITE is cleared", () => {
    const { machine, wait, done, complete } = slow();
    machine.queue("deviceTlb", { SID: 0x108, ADDR: 1 });
    wait({ STDATA: 7 });
    wait({ STDATA: 9 });
    machine.unit.drain();
    machine.clock.advance(60_000_001);
    machine.unit.drain();
    expect([machine.read32(REG.FSTS) & FSTS_ITE, machine.read32(REG.IQERCD + 4) & 0xffff, done()]).toEqual([
      ...[FSTS_ITE, 0x108, 0n],
    ]);
    complete();
    machine.unit.drain();
    expect(done()).toBe(0n);
    machine.write32(REG.FSTS, FSTS_ITE);
    machine.unit.drain();
    // The first wait never writes; the second was not under way.
    expect(done()).toBe(9n);
    expect(machine.read32(REG.IQH)).toBe(96);
  });

  it("everything is 0x7FFF…F with S", () => {
    const { machine, asked } = slow();
    machine.invalidate("pasidDeviceTlb", { SID: 0x108, PASID: 5, S: 1, G: 1, ADDR: 2n ** 51n - 1n });
    expect(asked).toEqual([[0, Number.POSITIVE_INFINITY, 5, true]]);
  });
});

it("a descriptor can be made to be lost on purpose, by its name", () => {
  const { machine, wait, done } = queue();
  const names: string[] = [];
  machine.unit.skipCommand = (name) => {
    names.push(name);
    return name === "wait";
  };
  machine.queue("iotlb", { G: 1 });
  wait();
  machine.unit.drain();
  expect([names, done(), machine.read32(REG.IQH)]).toEqual([["iotlb", "wait"], 0n, 64]);
});
