// The stages that a stream selects, from address to address or event: stage 1, stage 2, both (IHI 0070 §3.3, §5.2–5.5, §7.3.22; DDI 0487 D8).

import { describe, expect, it } from "vitest";
import {
  CLASS_CD,
  CLASS_IN,
  CLASS_TT,
  F_ACCESS,
  F_ADDR_SIZE,
  F_PERMISSION,
  F_TRANSLATION,
  F_WALK_EABT,
} from "../../../../../host/arch/smmuv3/event-records.ts";
import {
  AF,
  CONTEXT,
  DBM,
  EL0,
  EXECUTE,
  type Fields,
  Machine,
  NG,
  PXN,
  READ,
  READ_ONLY,
  S2_NORMAL,
  S2_R,
  S2_RW,
  S2_W,
  SECOND_STAGE,
  USER_RW,
  UXN,
  WRITE,
} from "./machine.ts";

const only = <T>(list: readonly T[]): T => {
  expect(list).toHaveLength(1);
  return list[0]!;
};

describe("stage 1 (DDI 0487 D8)", () => {
  it.each([
    ["4K", 12, 0, 16, 0, 0, 3],
    ["4K", 12, 0, 25, 1, 1, 3],
    ["4K", 12, 0, 34, 2, 2, 3],
    ["4K", 12, 0, 43, 3, 3, 3],
    ["4K", 12, 0, 16, 0, 0, 2],
    ["4K", 12, 0, 16, 0, 0, 1],
    ["16K", 14, 2, 16, 0, 0, 3],
    ["16K", 14, 2, 17, 1, 1, 2],
    ["16K", 14, 2, 28, 2, 2, 3],
    ["64K", 16, 1, 22, 2, 2, 2],
    ["64K", 16, 1, 16, 1, 1, 3],
  ] as const)("%s pages walk from where T0SZ says (granule 2^%i, TG0 %i, T0SZ %i, level %i, %i, leaf %i)", (...row) => {
    const [, granule, TG0, T0SZ, startLevel, , level] = row;
    const machine = new Machine();
    machine.start();
    const root = machine.allocate(16);
    const table = machine.makeContextTable();
    machine.setContext(table, 0, { ...CONTEXT, T0SZ, TG0, TTB0: root * 256 });
    machine.setStream(1, { Config: 5, S1ContextPtr: table * 64 });
    const shift = granule - 12 + (granule - 3) * (3 - level);
    // The last leaf of the input range, so that every index has bits set.
    const pfn = 2 ** (64 - T0SZ - 12) - 2 ** shift;
    const frame = 3 * 2 ** 34;
    const output = frame - (frame % 2 ** shift);
    machine.map(root, pfn, output, USER_RW, { granule, startLevel, level });
    const offset = BigInt(2 ** (shift + 12) - 0x10);
    const address = (BigInt(pfn) << 12n) + offset;
    expect(machine.request(1, address)).toBe((BigInt(output) << 12n) + offset);
    expect(machine.request(1, address), "from the TLB").toBe((BigInt(output) << 12n) + offset);
    expect(machine.takeEvents()).toEqual([]);
  });

  it("a root smaller than a page stands where TTB0 says (§5.4)", () => {
    const machine = new Machine();
    machine.start();
    // T0SZ 32 starts at level 1 with two bits of index: 32 bytes.
    const root = machine.makeFirstStage(1, { T0SZ: 32 });
    const other = machine.allocate();
    machine.map(other, 0x80000, 0x80500, USER_RW, { startLevel: 1 });
    machine.store(root, 0x7e0 + 16, machine.load(other, 16));
    machine.setContext(machine.allocate(), 0, {});
    const table = machine.makeContextTable();
    machine.setContext(table, 0, { ...CONTEXT, T0SZ: 32, TTB0: (root * 4096 + 0x7e0) / 16 });
    machine.setStream(1, { Config: 5, S1ContextPtr: table * 64 });
    expect(machine.request(1, 0x8000_0000n)).toBe(0x80500000n);
  });

  it("the upper half is TTB1's; EPD, bits out of range and TBI (§3.4.1, §5.4)", () => {
    const machine = new Machine();
    machine.start();
    const upper = machine.allocate();
    const lower = machine.makeFirstStage(1, { EPD1: 0, T1SZ: 16, TG1: 2, TTB1: upper * 256, TBI1: 1 });
    machine.map(lower, 0x10, 0x80500, USER_RW);
    machine.map(upper, 0xffff_ffff0, 0x80600, USER_RW);
    expect(machine.request(1, 0x10000n)).toBe(0x80500000n);
    expect(machine.request(1, 0xffff_ffff_ffff_0000n)).toBe(0x80600000n);
    expect(machine.request(1, 0x12ff_ffff_ffff_0000n), "TBI1").toBe(0x80600000n);
    expect(machine.request(1, 0x1200_0000_0001_0000n), "no TBI0").toBeNull();
    expect(only(machine.takeEvents())).toMatchObject({
      number: F_TRANSLATION,
      inputAddress: 0x1200_0000_0001_0000n,
      class: CLASS_IN,
      stage2: false,
    });
    machine.makeFirstStage(2, { ASID: 2 });
    expect(machine.request(2, 0xffff_ffff_ffff_0000n), "EPD1").toBeNull();
    expect(only(machine.takeEvents()).number).toBe(F_TRANSLATION);
  });

  it("each descriptor's output is checked against IPS", () => {
    const machine = new Machine();
    machine.start();
    const root = machine.makeFirstStage(1, { IPS: 1 });
    machine.map(root, 0x10, 0x100_0000, USER_RW);
    expect(machine.request(1, 0x10000n)).toBeNull();
    expect(only(machine.takeEvents()).number).toBe(F_ADDR_SIZE);
    const leaf = machine.map(root, 0x4_0000, 0x80500, USER_RW);
    // A table pointer above 36 bits.
    machine.store(root, 8, 0x10_0000_0003n | (1n << 40n));
    expect(leaf.frame).toBeGreaterThan(0);
    expect(machine.request(1, 1n << 39n)).toBeNull();
    expect(only(machine.takeEvents())).toMatchObject({ number: F_ADDR_SIZE, stage2: false, class: CLASS_IN });
  });

  it("level-0 blocks, invalid descriptors and bit 1 clear at level 3 are F_TRANSLATION", () => {
    const machine = new Machine();
    machine.start();
    const root = machine.makeFirstStage(1);
    machine.map(root, 0, 0, USER_RW, { level: 0 });
    const place = machine.map(root, 0x800_0000, 0x80500, USER_RW);
    machine.store(place.frame, place.offset, machine.load(place.frame, place.offset) & ~2n);
    for (const address of [0x1000n, 0x80_0000_0000n, 0x80_0000_1000n]) expect(machine.request(1, address)).toBeNull();
    expect(machine.takeEvents().map(({ number }) => number)).toEqual([F_TRANSLATION, F_TRANSLATION, F_TRANSLATION]);
  });

  it("a walk that memory does not answer is F_WALK_EABT with the descriptor's address", () => {
    const machine = new Machine();
    machine.start();
    const root = machine.makeFirstStage(1);
    const place = machine.map(root, 0x10, 0x80500, USER_RW);
    machine.inject(place.frame, place.offset);
    expect(machine.request(1, 0x10008n, { access: WRITE })).toBeNull();
    expect(only(machine.takeEvents())).toMatchObject({
      number: F_WALK_EABT,
      stage2: false,
      class: CLASS_TT,
      read: false,
      inputAddress: 0x10008n,
      address: (BigInt(place.frame) << 12n) + BigInt(place.offset),
    });
  });

  const rights = (machine: Machine, sid = 1): string =>
    [false, true]
      .map((privileged) =>
        [READ, WRITE, EXECUTE]
          .map((access) => (machine.request(sid, 0x10000n, { access, privileged }) === null ? "-" : "rwx"[access >> 1]))
          .join(""),
      )
      .join(" ");

  it.each([
    ["EL0 read and write", AF | EL0, {}, 0n, "rwx rw-"],
    ["EL0 read only", AF | EL0 | READ_ONLY, {}, 0n, "r-x r-x"],
    ["EL1 read and write: EL0 may execute what it cannot read", AF, {}, 0n, "--x rwx"],
    ["EL1 read only", AF | READ_ONLY, {}, 0n, "--x r-x"],
    ["UXN", AF | EL0 | READ_ONLY | UXN, {}, 0n, "r-- r-x"],
    ["PXN", AF | EL0 | READ_ONLY | PXN, {}, 0n, "r-x r--"],
    ["WXN", AF | EL0, { WXN: 1 }, 0n, "rw- rw-"],
    ["WXN of what EL1 writes", AF, { WXN: 1 }, 0n, "--x rw-"],
    ["PAN", AF | EL0 | READ_ONLY, { PAN: 1 }, 0n, "r-x --x"],
    ["PAN without EPAN does not see execute-only", AF | PXN, { PAN: 1 }, 0n, "--x rw-"],
    ["EPAN does", AF | PXN, { PAN: 1, EPAN: 1 }, 0n, "--x ---"],
    ["APTable[0]", AF | EL0, {}, 1n << 61n, "--x rwx"],
    ["APTable[1]", AF | EL0, {}, 1n << 62n, "r-x r-x"],
    ["UXNTable", AF | EL0 | READ_ONLY, {}, 1n << 60n, "r-- r-x"],
    ["PXNTable", AF | EL0 | READ_ONLY, {}, 1n << 59n, "r-x r--"],
    ["HAD ignores tables", AF | EL0, { HAD0: 1 }, 7n << 60n, "rwx rw-"],
    ["E0PD", AF | EL0, { E0PD0: 1 }, 0n, "--- rw-"],
  ] as const)("grants by AP, XN and their controls: %s", (_name, leaf, context, tableBits, expected) => {
    const machine = new Machine();
    machine.start();
    const root = machine.makeFirstStage(1, context as Fields);
    machine.map(root, 0x10, 0x80500, leaf | NG, { tableBits });
    expect(rights(machine)).toBe(expected);
    expect(rights(machine), "again, with a TLB").toBe(expected);
    const expectedEvent = expected === "--- rw-" ? F_TRANSLATION : F_PERMISSION;
    expect(machine.takeEvents()[0]?.number ?? expectedEvent).toBe(expectedEvent);
  });

  it("NS-EL2 has one privilege (STRW 2, §5.2)", () => {
    const machine = new Machine();
    machine.start();
    const root = machine.makeFirstStage(1, {}, { STRW: 2 });
    machine.map(root, 0x10, 0x80500, AF | PXN, { tableBits: 1n << 61n });
    expect(rights(machine)).toBe("rwx rwx");
    machine.map(root, 0x10, 0x80500, AF | UXN | READ_ONLY, { tableBits: 0n });
    machine.command("TLBI_EL2_ALL");
    expect(rights(machine)).toBe("r-- r--");
    // EPD0 is ignored, and there is no second table.
    expect(machine.request(1, 0xffff_ffff_ffff_0000n)).toBeNull();
  });
});

describe("stage 2 (§5.2, DDI 0487 D8)", () => {
  it.each([
    ["4K from level 1, two tables together", 12, 0, 24, 1, 1, 3],
    ["4K from level 0", 12, 0, 20, 2, 0, 3],
    ["4K from level 2, sixteen tables together", 12, 0, 30, 0, 2, 3],
    ["4K, a 2 MiB block", 12, 0, 24, 1, 1, 2],
    ["16K from level 2", 14, 2, 28, 1, 2, 3],
    ["64K from level 2", 16, 1, 24, 1, 2, 2],
  ] as const)("%s", (...row) => {
    const [, granule, S2TG, S2T0SZ, S2SL0, startLevel, level] = row;
    const machine = new Machine();
    machine.start();
    const root = machine.allocate(16);
    machine.setStream(1, { ...SECOND_STAGE, Config: 6, S2TG, S2T0SZ, S2SL0, S2TTB: root * 256 });
    const shift = granule - 12 + (granule - 3) * (3 - level);
    const pfn = 2 ** (64 - S2T0SZ - 12) - 2 ** shift;
    const output = 2 ** 26;
    machine.map(root, pfn, output, S2_RW, { granule, startLevel, level });
    const offset = BigInt(2 ** (shift + 12) - 0x10);
    expect(machine.request(1, (BigInt(pfn) << 12n) + offset)).toBe((BigInt(output) << 12n) + offset);
    expect(machine.takeEvents()).toEqual([]);
  });

  it("an IPA beyond S2T0SZ is a stage-2 F_TRANSLATION, one beyond IAS a stage-1 F_ADDR_SIZE", () => {
    const machine = new Machine();
    machine.start();
    machine.makeSecondStage(1);
    expect(machine.request(1, 1n << 40n)).toBeNull();
    expect(machine.request(1, 1n << 48n)).toBeNull();
    expect(machine.takeEvents().map(({ number, stage2, address }) => [number, stage2, address])).toEqual([
      [F_TRANSLATION, true, 1n << 40n],
      [F_ADDR_SIZE, false, 0n],
    ]);
  });

  it.each([
    ["00", 0n, "rwx rwx"],
    ["01", 1n, "rwx rw-"],
    ["10", 2n, "rw- rw-"],
    ["11", 3n, "rw- rwx"],
  ])("XN %s decides for EL0 and EL1 (XNX)", (_name, xn, expected) => {
    const machine = new Machine();
    machine.start();
    const root = machine.makeSecondStage(1);
    machine.map(root, 0x10, 0x80500, S2_RW | (xn << 53n), { startLevel: 1 });
    const text = [false, true]
      .map((privileged) =>
        [READ, WRITE, EXECUTE]
          .map((access) => (machine.request(1, 0x10000n, { access, privileged }) === null ? "-" : "rwx"[access >> 1]))
          .join(""),
      )
      .join(" ");
    expect(text).toBe(expected);
  });

  it("records F_PERMISSION and F_ACCESS with the IPA; S2R = 0 is silent", () => {
    const machine = new Machine();
    machine.start();
    const root = machine.makeSecondStage(1);
    machine.map(root, 0x10, 0x80500, AF | S2_R | S2_NORMAL, { startLevel: 1 });
    machine.map(root, 0x11, 0x80500, S2_R | S2_W | S2_NORMAL, { startLevel: 1 });
    expect(machine.request(1, 0x10010n, { access: WRITE })).toBeNull();
    expect(machine.request(1, 0x11010n)).toBeNull();
    const events = machine.takeEvents();
    expect(events[0]).toMatchObject({
      number: F_PERMISSION,
      stage2: true,
      class: CLASS_IN,
      address: 0x10000n,
      inputAddress: 0x10010n,
      read: false,
    });
    expect(events[1]).toMatchObject({ number: F_ACCESS, stage2: true, class: CLASS_IN, address: 0x11000n });
    machine.setStream(2, { ...SECOND_STAGE, Config: 6, S2TTB: root * 256, S2R: 0 });
    expect(machine.request(2, 0x20000n)).toBeNull();
    expect(machine.takeEvents()).toEqual([]);
  });
});

describe("both stages (§3.3.3)", () => {
  /** IPA = PA + 0x1000_0000 for all memory; a stream 1 with a context and stage-1 tables in it. */
  const nested = (stream: Fields = {}, context: Fields = {}, options = {}) => {
    const machine = new Machine(options);
    machine.start();
    const guest = (frame: number) => frame + 0x10000;
    const root2 = machine.allocate(2);
    for (let i = 0; i < 1024; i++) machine.map(root2, guest(0x80000 + i), 0x80000 + i, S2_RW, { startLevel: 1 });
    const root1 = machine.allocate();
    const table = machine.makeContextTable();
    machine.setContext(table, 0, { ...CONTEXT, TTB0: guest(root1) * 256, ...context });
    machine.setStream(1, {
      ...SECOND_STAGE,
      Config: 7,
      S2TTB: root2 * 256,
      S1ContextPtr: guest(table) * 64,
      ...stream,
    });
    const map1 = (pfn: number, ipa: number, attributes: bigint) => {
      // Tables point to guest frames: walk them by hand.
      let at = root1;
      for (let level = 0; level < 3; level++) {
        const offset = (Math.floor(pfn / 2 ** (9 * (3 - level))) % 512) * 8;
        let entry = machine.load(at, offset);
        if (entry === 0n) {
          entry = (BigInt(guest(machine.allocate())) << 12n) | 3n;
          machine.store(at, offset, entry);
        }
        at = Number((entry >> 12n) & 0xfffffffffn) - 0x10000;
      }
      machine.store(at, (pfn % 512) * 8, (BigInt(ipa) << 12n) | attributes | 3n);
      return { frame: at, offset: (pfn % 512) * 8 };
    };
    return { machine, guest, root2, root1, table, map1 };
  };

  it("reads descriptors and tables at IPAs and translates the result", () => {
    const { machine, guest, map1 } = nested();
    map1(0x123, guest(0x80042), USER_RW);
    expect(machine.request(1, 0x123abcn)).toBe(0x80042abcn);
    expect(machine.request(1, 0x123abcn, { access: WRITE })).toBe(0x80042abcn);
    expect(machine.takeEvents()).toEqual([]);
  });

  it("says what stage 2 faulted on: CD, TT or IN, with that IPA", () => {
    const { machine, guest, root2, root1, table, map1 } = nested();
    map1(0x123, 0x7777, USER_RW);
    expect(machine.request(1, 0x123abcn)).toBeNull();
    expect(only(machine.takeEvents())).toMatchObject({
      number: F_TRANSLATION,
      stage2: true,
      class: CLASS_IN,
      address: 0x7777000n,
      inputAddress: 0x123abcn,
    });
    machine.map(root2, guest(root1), root1, S2_W | AF | S2_NORMAL, { startLevel: 1 });
    machine.command("TLBI_NSNH_ALL");
    expect(machine.request(1, 0x124000n)).toBeNull();
    expect(only(machine.takeEvents())).toMatchObject({
      number: F_PERMISSION,
      stage2: true,
      class: CLASS_TT,
      tableRead: true,
      address: BigInt(guest(root1)) << 12n,
      inputAddress: 0x124000n,
    });
    machine.map(root2, guest(table), 0, 0n, { startLevel: 1 });
    machine.command("CFGI_STE", { SID: 1, Leaf: 1 });
    expect(machine.request(1, 0x124000n, { access: WRITE })).toBeNull();
    expect(only(machine.takeEvents())).toMatchObject({
      number: F_ACCESS,
      stage2: true,
      class: CLASS_CD,
      read: false,
      address: BigInt(guest(table)) << 12n,
    });
  });

  it("with S2PTW, tables in device memory are F_PERMISSION (§5.2)", () => {
    for (const S2PTW of [0, 1]) {
      const { machine, guest, root2, root1, map1 } = nested({ S2PTW });
      map1(0x123, guest(0x80042), USER_RW);
      machine.map(root2, guest(root1), root1, AF | S2_R | S2_W, { startLevel: 1 });
      expect(machine.request(1, 0x123000n) === null).toBe(S2PTW === 1);
      expect(machine.takeEvents().map((event) => [event.number, event.class])).toEqual(
        S2PTW === 1 ? [[F_PERMISSION, CLASS_TT]] : [],
      );
    }
  });

  it("sets AF and dirty state in both stages (§3.13)", () => {
    const { machine, guest, root2, map1 } = nested({ S2HA: 1, S2HD: 1 }, { HA: 1, HD: 1 });
    const first = map1(0x123, guest(0x80342), EL0 | READ_ONLY | DBM | NG);
    const second = machine.map(root2, guest(0x80342), 0x80342, S2_R | S2_NORMAL | DBM, { startLevel: 1 });
    const bits = () => [
      machine.load(first.frame, first.offset) & (AF | READ_ONLY),
      machine.load(second.frame, second.offset) & (AF | S2_W),
    ];
    expect(machine.request(1, 0x123000n)).toBe(0x80342000n);
    expect(bits()).toEqual([AF | READ_ONLY, AF]);
    expect(machine.request(1, 0x123000n, { access: WRITE })).toBe(0x80342000n);
    expect(bits()).toEqual([AF, AF | S2_W]);
    expect(machine.request(1, 0x123000n, { access: WRITE })).toBe(0x80342000n);
    expect(machine.takeEvents()).toEqual([]);
  });

  it("an update of a stage-1 descriptor needs stage 2 to permit writing: F_PERMISSION, CLASS TT, TTRnW 0", () => {
    const { machine, guest, root2, map1 } = nested({}, { HA: 1 });
    const place = map1(0x123, guest(0x80042), EL0 | NG);
    machine.map(root2, guest(place.frame), place.frame, AF | S2_R | S2_NORMAL, { startLevel: 1 });
    expect(machine.request(1, 0x123000n)).toBeNull();
    expect(only(machine.takeEvents())).toMatchObject({
      number: F_PERMISSION,
      stage2: true,
      class: CLASS_TT,
      tableRead: false,
      address: BigInt(guest(place.frame)) << 12n,
    });
  });

  it("AF = 0 without HA is F_ACCESS, before F_PERMISSION; AFFD takes it for 1", () => {
    const { machine, guest, map1 } = nested();
    map1(0x123, guest(0x80042), READ_ONLY);
    expect(machine.request(1, 0x123000n, { access: WRITE })).toBeNull();
    expect(only(machine.takeEvents())).toMatchObject({ number: F_ACCESS, stage2: false, class: CLASS_IN });
    const lenient = nested({}, { AFFD: 1 });
    lenient.map1(0x123, lenient.guest(0x80042), EL0);
    expect(lenient.machine.request(1, 0x123000n)).toBe(0x80042000n);
  });
});
