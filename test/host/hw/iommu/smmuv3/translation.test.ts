// What a transaction reads before any table, and may end at: GBPA, stream table entries, substreams, fault bits (IHI 0070 §3.3, §3.4, §5.2–5.5, §7.3).
// The stages that these select: stages.test.ts.

import { describe, expect, it } from "vitest";
import {
  C_BAD_CD,
  C_BAD_STE,
  C_BAD_STREAMID,
  C_BAD_SUBSTREAMID,
  CLASS_IN,
  F_ADDR_SIZE,
  F_CD_FETCH,
  F_STE_FETCH,
  F_STREAM_DISABLED,
  F_TRANSLATION,
} from "../../../../../host/arch/smmuv3/event-records.ts";
import { CR0_EVENTQEN, GBPA_ABORT, GBPA_UPDATE, REG } from "../../../../../host/arch/smmuv3/registers.ts";
import { DISCARDED, REFUSED } from "../../../../../host/hw/iommu/port.ts";
import { CONTEXT, type Fields, Machine, USER_RW, WRITE } from "./machine.ts";

const only = <T>(list: readonly T[]): T => {
  expect(list).toHaveLength(1);
  return list[0]!;
};

describe("without SMMUEN (§6.3.14, §3.4)", () => {
  it("GBPA passes addresses or aborts, and says nothing", () => {
    const machine = new Machine();
    expect(machine.request(3, 0x1234_5678n)).toBe(0x1234_5678n);
    expect(machine.request(3, 1n << 48n)).toBeNull();
    machine.write32(REG.GBPA, (GBPA_UPDATE | GBPA_ABORT) >>> 0);
    expect(machine.request(3, 0x1234_5678n)).toBeNull();
    machine.write32(REG.GBPA, GBPA_ABORT * 0);
    expect(machine.request(3, 0x1234_5678n), "a write without Update changes nothing").toBeNull();
  });
});

describe("stream table entries (§5.1, §5.2)", () => {
  it("a StreamID beyond the table is C_BAD_STREAMID, recorded only with RECINVSID", () => {
    const machine = new Machine();
    machine.start({ log2: 5 });
    expect(machine.request(32, 0n)).toBeNull();
    expect(only(machine.takeEvents())).toMatchObject({ number: C_BAD_STREAMID, streamId: 32, substreamId: -1 });
    const quiet = new Machine();
    quiet.start({ cr2: 0 });
    expect(quiet.request(4096, 0n)).toBeNull();
    expect(quiet.takeEvents()).toEqual([]);
  });

  it("two levels: Span 0, too large a span and an index beyond it are C_BAD_STREAMID (§5.1.1)", () => {
    const machine = new Machine();
    machine.start({});
    machine.write32(REG.CR0, CR0_EVENTQEN);
    const top = machine.allocate();
    const leaf = machine.allocate();
    machine.write64(REG.STRTAB_BASE, BigInt(top) << 12n);
    machine.write32(REG.STRTAB_BASE_CFG, 16 | (8 << 6) | (1 << 16));
    machine.write32(REG.CR0, CR0_EVENTQEN | 1);
    machine.store(top, 8 * 2, (BigInt(leaf) << 12n) | 3n);
    machine.store(top, 8 * 3, (BigInt(leaf) << 12n) | 10n);
    // A bypassing stream at index 3 of the leaf of four (Span 3).
    machine.store(leaf, 64 * 3, 9n);
    expect(machine.request(0x203, 0x1000n)).toBe(0x1000n);
    expect(machine.request(0x204, 0x1000n)).toBeNull();
    expect(machine.request(0x103, 0x1000n)).toBeNull();
    expect(machine.request(0x303, 0x1000n), "Span 10 is more than SPLIT 8 has").toBeNull();
    expect(machine.takeEvents().map(({ number, streamId }) => [number, streamId])).toEqual([
      [C_BAD_STREAMID, 0x204],
      [C_BAD_STREAMID, 0x103],
      [C_BAD_STREAMID, 0x303],
    ]);
  });

  it("what cannot be fetched is F_STE_FETCH with its address", () => {
    const machine = new Machine();
    machine.start();
    machine.inject(machine.streams, 5 * 64 + 8);
    expect(machine.request(5, 0n)).toBeNull();
    expect(only(machine.takeEvents())).toMatchObject({
      number: F_STE_FETCH,
      address: (BigInt(machine.streams) << 12n) + 5n * 64n,
    });
  });

  it("V = 0 is C_BAD_STE; Config 0 aborts silently; bypass passes to OAS and no further", () => {
    const machine = new Machine();
    machine.start();
    machine.setStream(1, { V: 0, Config: 4 });
    machine.setStream(2, { Config: 0 });
    machine.setStream(3, { Config: 4 });
    expect(machine.request(1, 0n)).toBeNull();
    expect(only(machine.takeEvents()).number).toBe(C_BAD_STE);
    expect(machine.request(2, 0n)).toBeNull();
    expect(machine.takeEvents()).toEqual([]);
    expect(machine.request(3, 0xffff_ffff_f123n)).toBe(0xffff_ffff_f123n);
    expect(machine.request(3, 1n << 48n, { access: WRITE })).toBeNull();
    expect(only(machine.takeEvents())).toMatchObject({
      number: F_ADDR_SIZE,
      stage2: false,
      class: CLASS_IN,
      read: false,
      inputAddress: 1n << 48n,
    });
  });
});

describe("substreams (§5.2, §5.3)", () => {
  const setUp = (stream: Fields) => {
    const machine = new Machine();
    machine.start();
    const table = machine.makeContextTable(16);
    const roots = [0, 1, 2].map((ssid) => {
      const root = machine.allocate();
      machine.setContext(table, ssid, { ...CONTEXT, ASID: 10 + ssid, TTB0: root * 256 });
      machine.map(root, 0x10, BASE_FRAME + ssid, USER_RW);
      return root;
    });
    machine.setStream(7, { Config: 5, S1ContextPtr: table * 64, S1CDMax: 4, ...stream });
    return { machine, table, roots };
  };
  const BASE_FRAME = 0x80300;
  const target = (ssid: number) => BigInt(BASE_FRAME + ssid) << 12n;

  it("each SubstreamID has its own descriptor; S1DSS 2 gives requests without one the first", () => {
    const { machine } = setUp({ S1DSS: 2 });
    expect(machine.request(7, 0x10000n)).toBe(target(0));
    expect(machine.request(7, 0x10000n, { ssid: 1 })).toBe(target(1));
    expect(machine.request(7, 0x10000n, { ssid: 2 })).toBe(target(2));
    expect(machine.request(7, 0x10000n, { ssid: 0 }), "SSID 0 belongs to the others").toBeNull();
    expect(only(machine.takeEvents())).toMatchObject({ number: F_STREAM_DISABLED, substreamId: -1 });
  });

  it("S1DSS 0 terminates requests without one, 1 takes them around stage 1", () => {
    const terminating = setUp({ S1DSS: 0 }).machine;
    expect(terminating.request(7, 0x10000n)).toBeNull();
    expect(only(terminating.takeEvents()).number).toBe(F_STREAM_DISABLED);
    expect(terminating.request(7, 0x10000n, { ssid: 0 })).toBe(target(0));
    const { machine } = setUp({ S1DSS: 1 });
    expect(machine.request(7, 0x10000n)).toBe(0x10000n);
    expect(machine.request(7, 1n << 50n)).toBeNull();
    expect(only(machine.takeEvents()).number).toBe(F_ADDR_SIZE);
  });

  it("an SSID beyond S1CDMax, or where there are no substreams, is C_BAD_SUBSTREAMID", () => {
    const { machine } = setUp({});
    expect(machine.request(7, 0x10000n, { ssid: 16 })).toBeNull();
    expect(only(machine.takeEvents())).toMatchObject({ number: C_BAD_SUBSTREAMID, substreamId: 16 });
    machine.makeFirstStage(8);
    expect(machine.request(8, 0n, { ssid: 0 })).toBeNull();
    machine.setStream(9, { Config: 4 });
    expect(machine.request(9, 0n, { ssid: 0 })).toBeNull();
    expect(machine.takeEvents().map(({ number }) => number)).toEqual([C_BAD_SUBSTREAMID, C_BAD_SUBSTREAMID]);
  });

  it.each([
    [1, 6],
    [2, 10],
  ])("S1Fmt %i splits at bit %i; an invalid level-1 descriptor is C_BAD_SUBSTREAMID", (S1Fmt, split) => {
    const { machine } = setUp({});
    const top = machine.allocate();
    const leaf = machine.allocate(16);
    machine.store(top, 8, (BigInt(leaf) << 12n) | 1n);
    const root = machine.allocate();
    machine.map(root, 0x10, 0x80444, USER_RW);
    machine.setContext(leaf, 5, { ...CONTEXT, TTB0: root * 256 });
    machine.setStream(8, { Config: 5, S1ContextPtr: top * 64, S1CDMax: 12, S1Fmt });
    expect(machine.request(8, 0x10000n, { ssid: 2 ** split + 5 })).toBe(0x80444000n);
    expect(machine.request(8, 0x10000n, { ssid: 2 * 2 ** split + 5 })).toBeNull();
    expect(only(machine.takeEvents()).number).toBe(C_BAD_SUBSTREAMID);
  });

  it("what cannot be fetched is F_CD_FETCH with its address; V = 0 is C_BAD_CD", () => {
    const { machine, table } = setUp({});
    machine.inject(table, 3 * 64);
    expect(machine.request(7, 0n, { ssid: 3 })).toBeNull();
    expect(only(machine.takeEvents())).toMatchObject({
      number: F_CD_FETCH,
      substreamId: 3,
      address: (BigInt(table) << 12n) + 192n,
    });
    machine.memory.faults = null;
    expect(machine.request(7, 0n, { ssid: 3 })).toBeNull();
    expect(only(machine.takeEvents())).toMatchObject({ number: C_BAD_CD, substreamId: 3, inputAddress: 0n });
  });
});

describe("fault bits (§5.5)", () => {
  it("R = 0 is silent, A = 0 completes without memory", () => {
    const machine = new Machine({ features: { TERM_MODEL: false } });
    machine.start();
    machine.makeFirstStage(1, { R: 0 });
    machine.makeFirstStage(2, { A: 0 });
    expect(machine.status(1, 0x1000n)).toBe(REFUSED);
    expect(machine.takeEvents()).toEqual([]);
    expect(machine.status(2, 0x1000n)).toBe(DISCARDED);
    expect(only(machine.takeEvents()).number).toBe(F_TRANSLATION);
  });

  it("with TERM_MODEL 1 a descriptor with A = 0 is ILLEGAL (§5.4.2)", () => {
    const machine = new Machine();
    machine.start();
    machine.makeFirstStage(2, { A: 0 });
    expect(machine.status(2, 0x1000n)).toBe(REFUSED);
    expect(only(machine.takeEvents()).number).toBe(C_BAD_CD);
  });
});
