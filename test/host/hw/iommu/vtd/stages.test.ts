// The stages that a PASID entry selects, from address to address or fault: first, second, nested (VT-d §3.6–3.8, §7.1.3).

import { describe, expect, it } from "vitest";
import { A, ATOMIC, D, EA, FS_LEAF, FS_TABLE, Machine, P, R, RW, SS_A, SS_D, US, W, WRITE } from "./machine.ts";

const IOVA = 0x40000n << 12n;
const TO = 0x80800;
const GOES = BigInt(TO) << 12n;

const scalable = (options = {}) => {
  const machine = new Machine(options);
  machine.start();
  return machine;
};

describe("first stage", () => {
  const first = (fields = {}, options = {}) => {
    const machine = scalable(options);
    const root = machine.makeFirstStage(0x108, fields);
    return { machine, root };
  };

  it("4 and 5 levels, 4 KiB, 2 MiB and 1 GiB", () => {
    const { machine, root } = first();
    machine.map(root, 0x40000, TO, FS_LEAF);
    machine.map(root, 0x80000, 0x90000, FS_LEAF, { level: 1 });
    machine.map(root, 0xc0000, 0x40000, FS_LEAF, { level: 2 });
    expect(machine.request(0x108, IOVA + 5n)).toBe(GOES + 5n);
    expect(machine.request(0x108, (0x80000n << 12n) + 0x12345n)).toBe((0x90000n << 12n) + 0x12345n);
    expect(machine.request(0x108, (0xc0000n << 12n) + 0x1234567n)).toBe((0x40000n << 12n) + 0x1234567n);
    const five = first({ FSPM: 1 });
    five.machine.map(five.root, 2 ** 42, TO, FS_LEAF, { levels: 5 });
    expect(five.machine.request(0x108, 1n << 54n)).toBe(GOES);
  });

  it("addresses must be canonical: for 48 bits, for 57 with 5 levels (80)", () => {
    const { machine, root } = first();
    machine.map(root, 2 ** 52 - 2 ** 35, TO, FS_LEAF);
    expect(machine.reason(0x108, 1n << 47n)).toBe(0x80);
    expect(machine.request(0x108, 0xffff_8000_0000_0000n)).toBe(GOES);
    expect(machine.reason(0x108, 0xfffe_8000_0000_0000n)).toBe(0x80);
    const five = first({ FSPM: 1 });
    expect(five.machine.reason(0x108, 1n << 47n)).toBe(0x71);
    expect(five.machine.reason(0x108, 1n << 56n)).toBe(0x80);
  });

  it("not present 71, reserved 72, unreadable 73 at the root and 70 below", () => {
    const { machine, root } = first();
    expect(machine.reason(0x108, IOVA)).toBe(0x71);
    const at = machine.map(root, 0x40000, TO, FS_LEAF);
    machine.store(at.frame, at.offset, GOES | FS_LEAF | (1n << 46n));
    expect(machine.reason(0x108, IOVA)).toBe(0x72);
    machine.store(at.frame, at.offset, GOES | FS_LEAF | (0x7ffn << 52n) | (1n << 63n));
    expect(machine.reason(0x108, IOVA)).toBe(0);
    machine.invalidate("pasidIotlb", { G: 2, DID: 5 });
    machine.inject(at.frame, at.offset);
    expect(machine.reason(0x108, IOVA)).toBe(0x70);
    machine.inject(root, 0);
    expect(machine.reason(0x108, IOVA)).toBe(0x73);
  });

  it("PS at levels 4 and 5, bits below a leaf's size, 1 GiB without FS1GP are reserved", () => {
    const reserved = (level: number, bits = 0n, options = {}, fields = {}, levels = 4): number => {
      const { machine, root } = first(fields, options);
      machine.map(root, 0x40000, 0x40000, FS_LEAF | bits, { level, levels });
      return machine.reason(0x108, IOVA);
    };
    expect(reserved(3)).toBe(0x72);
    expect(reserved(4, 0n, {}, { FSPM: 1 }, 5)).toBe(0x72);
    expect(reserved(1, 1n << 13n)).toBe(0x72);
    expect(reserved(1, 1n << 12n)).toBe(0);
    expect(reserved(2, 1n << 29n)).toBe(0x72);
    expect(reserved(2, 1n << 12n)).toBe(0);
    expect(reserved(2, 0n, { features: { FS1GP: false } })).toBe(0x72);
  });

  it("users need U/S, and R/W to write, at every level", () => {
    const rights = (leaf: bigint, table: bigint, access: number): number => {
      const { machine, root } = first();
      machine.map(root, 0x40000, TO, leaf, { table });
      return machine.reason(0x108, IOVA, { access });
    };
    expect(rights(FS_LEAF & ~US, FS_TABLE, 1)).toBe(0x81);
    expect(rights(FS_LEAF, FS_TABLE & ~US, 1)).toBe(0x81);
    expect(rights(FS_LEAF & ~RW, FS_TABLE, 1)).toBe(0);
    expect(rights(FS_LEAF & ~RW, FS_TABLE, WRITE)).toBe(0x85);
    expect(rights(FS_LEAF, FS_TABLE & ~RW, WRITE)).toBe(0x85);
    expect(rights(FS_LEAF, FS_TABLE & ~RW, ATOMIC)).toBe(0x85);
  });

  it("supervisors go by U/S = 0 too; WPE holds them to R/W", () => {
    const machine = scalable();
    const tables = machine.allocate();
    const directory = machine.setScalableContext(0x108);
    for (const [pasid, WPE] of [
      [1, 0],
      [2, 1],
    ] as const)
      machine.setPasid(directory, pasid, { PGTT: 1, DID: 5 + pasid, FSPTPTR: tables, SRE: 1, WPE });
    machine.map(tables, 0x40000, TO, P | A);
    const write = (pasid: number, privileged: boolean) =>
      machine.reason(0x108, IOVA, { pasid, privileged, access: WRITE });
    expect(machine.reason(0x108, IOVA, { pasid: 1 })).toBe(0x81);
    expect(machine.request(0x108, IOVA, { pasid: 1, privileged: true })).toBe(GOES);
    expect(write(1, true)).toBe(0);
    expect(write(2, true)).toBe(0x85);
    expect(write(1, false)).toBe(0x81);
  });

  it("RID_PRIV makes requests without PASID a supervisor's", () => {
    const machine = scalable();
    const root = machine.makeFirstStage(0x108, { SRE: 1 }, { RID_PRIV: 1 });
    machine.map(root, 0x40000, TO, P | A);
    expect(machine.request(0x108, IOVA)).toBe(GOES);
    expect(machine.request(0x108, IOVA)).toBe(GOES);
  });

  it("A on every entry used, D in the leaf of a write; EA with EAFE", () => {
    const { machine, root } = first();
    const leaf = machine.map(root, 0x40000, TO, P | RW | US, { table: P | RW | US });
    expect(machine.request(0x108, IOVA)).toBe(GOES);
    expect(machine.load(root, 0) & 0x460n).toBe(A);
    expect(machine.load(leaf.frame, leaf.offset)).toBe(GOES | P | RW | US | A);
    expect(machine.request(0x108, IOVA, { access: WRITE })).toBe(GOES);
    expect(machine.load(leaf.frame, leaf.offset)).toBe(GOES | P | RW | US | A | D);
    expect(machine.load(root, 0) & D).toBe(0n);
    const extended = first({ EAFE: 1 });
    const at = extended.machine.map(extended.root, 0x40000, TO, FS_LEAF);
    expect(extended.machine.request(0x108, IOVA)).toBe(GOES);
    expect(extended.machine.load(at.frame, at.offset)).toBe(GOES | FS_LEAF | EA);
    expect(extended.machine.load(extended.root, 0) & EA).toBe(EA);
  });

  it("nothing is marked in the leaf of an access that is refused; tables above keep what they got", () => {
    const { machine, root } = first();
    const leaf = machine.map(root, 0x40000, TO, P | US, { table: P | RW | US });
    expect(machine.reason(0x108, IOVA, { access: WRITE })).toBe(0x85);
    expect(machine.load(leaf.frame, leaf.offset)).toBe(GOES | P | US);
    expect(machine.load(root, 0) & A).toBe(A);
  });

  it("an update without snooped walks is 90, one that fails 91; bits that are set need neither", () => {
    const { machine, root } = first({ PWSNP: 0 });
    const leaf = machine.map(root, 0x40000, TO, FS_LEAF & ~D);
    expect(machine.reason(0x108, IOVA)).toBe(0);
    expect(machine.reason(0x108, IOVA, { access: WRITE })).toBe(0x90);
    const failing = first();
    const at = failing.machine.map(failing.root, 0x40000, TO, FS_LEAF & ~D);
    failing.machine.inject(at.frame, at.offset, true);
    expect(failing.machine.reason(0x108, IOVA)).toBe(0);
    expect(failing.machine.reason(0x108, IOVA, { access: WRITE })).toBe(0x91);
    expect(machine.load(leaf.frame, leaf.offset) & D).toBe(0n);
  });

  it("into the interrupt address range is 87", () => {
    const { machine, root } = first();
    machine.map(root, 0x40000, 0xfee01, FS_LEAF);
    expect(machine.reason(0x108, IOVA, { access: WRITE })).toBe(0x87);
  });
});

describe("second stage in scalable mode", () => {
  const second = (fields = {}, options = {}) => {
    const machine = scalable(options);
    const root = machine.makeSecondStage(0x108, fields);
    return { machine, root };
  };

  it("not present is 79, a right that lacks 85 and 86, beyond the width 84", () => {
    const { machine, root } = second();
    machine.map(root, 0x40000, TO, R, { table: R | W });
    machine.map(root, 0x40001, TO, W, { table: R | W });
    expect(machine.reason(0x108, IOVA)).toBe(0);
    expect(machine.reason(0x108, IOVA, { access: WRITE })).toBe(0x85);
    expect(machine.reason(0x108, IOVA + 0x1000n)).toBe(0x86);
    expect(machine.reason(0x108, IOVA + 0x1000n, { access: ATOMIC })).toBe(0x86);
    expect(machine.reason(0x108, IOVA + 0x2000n)).toBe(0x79);
    expect(machine.reason(0x108, 1n << 48n)).toBe(0x84);
  });

  it("unreadable and reserved: 7B at the root, 78 below, 7A", () => {
    const { machine, root } = second();
    const leaf = machine.map(root, 0x40000, TO, R | (1n << 62n), { table: R | W });
    expect(machine.reason(0x108, IOVA)).toBe(0x7a);
    machine.inject(leaf.frame, leaf.offset);
    expect(machine.reason(0x108, IOVA)).toBe(0x78);
    machine.inject(root, 0);
    expect(machine.reason(0x108, IOVA)).toBe(0x7b);
  });

  it("SSADE: A on every entry used, D in the leaf of a write that is granted; never without it", () => {
    const { machine, root } = second({ SSADE: 1 });
    const leaf = machine.map(root, 0x40000, TO, R | W, { table: R | W });
    const only = machine.map(root, 0x40001, TO, R, { table: R | W });
    machine.request(0x108, IOVA);
    expect(machine.load(root, 0) & 0x300n).toBe(SS_A);
    expect(machine.load(leaf.frame, leaf.offset)).toBe(GOES | R | W | SS_A);
    machine.request(0x108, IOVA, { access: WRITE });
    expect(machine.load(leaf.frame, leaf.offset)).toBe(GOES | R | W | SS_A | SS_D);
    machine.request(0x108, IOVA + 0x1000n, { access: WRITE });
    expect(machine.load(only.frame, only.offset)).toBe(GOES | R);
    const plain = second();
    const at = plain.machine.map(plain.root, 0x40000, TO, R | W, { table: R | W });
    plain.machine.request(0x108, IOVA, { access: WRITE });
    expect(plain.machine.load(at.frame, at.offset)).toBe(GOES | R | W);
  });

  it("an update that is really needed without snooped walks is 7C, one that fails 7D", () => {
    const { machine, root } = second({ SSADE: 1, PWSNP: 0 });
    const all = R | W | SS_A;
    machine.map(root, 0x40000, TO, all, { table: all });
    expect(machine.reason(0x108, IOVA)).toBe(0);
    expect(machine.reason(0x108, IOVA, { access: WRITE })).toBe(0x7c);
    const failing = second({ SSADE: 1 });
    const at = failing.machine.map(failing.root, 0x40000, TO, all, { table: all });
    failing.machine.inject(at.frame, at.offset, true);
    expect(failing.machine.reason(0x108, IOVA, { access: WRITE })).toBe(0x7d);
  });
});

describe("nested", () => {
  /** Guest-physical G is host-physical G + 0x400 pages, for the pages given; tables of the first stage too. */
  const SHIFT = 0x400;
  const nested = (fields = {}, leaf = R | W, table = R | W) => {
    const machine = scalable();
    const first = machine.allocate(1);
    const second = machine.allocate();
    const directory = machine.setScalableContext(0x108);
    const guest = (frame: number): number => frame - SHIFT;
    machine.setPasid(directory, 0, {
      ...{ PGTT: 3, AW: 2, DID: 5, FSPTPTR: guest(first), SSPTPTR: second },
      ...fields,
    });
    const places = new Map<number, { frame: number; offset: number }>();
    const give = (frame: number, bits = leaf): void => {
      places.set(frame, machine.map(second, guest(frame), frame, bits, { table }));
    };
    give(first);
    const map = (pfn: number, guestPfn: number, bits: bigint, tables = FS_TABLE) => {
      const at = machine.map(first, pfn, guestPfn, bits, {
        table: tables,
        toGuest: (frame) => {
          give(frame);
          return guest(frame);
        },
      });
      return at;
    };
    return { machine, first, second, map, give, places };
  };
  // `machine.map` follows what entries say, which are guest frames here: each machine maps one page.

  it("every table and the output go through the second stage; rights are those of both", () => {
    const { machine, map, give } = nested();
    map(0x40000, TO - SHIFT, FS_LEAF);
    give(TO, R);
    expect(machine.request(0x108, IOVA + 8n)).toBe(GOES + 8n);
    expect(machine.reason(0x108, IOVA, { access: WRITE })).toBe(0x85);
  });

  it("faults say the address of the request, never the guest-physical one", () => {
    const { machine, map } = nested();
    map(0x40000, TO - SHIFT, FS_LEAF);
    machine.status(0x108, IOVA);
    expect(machine.takeFaults()).toMatchObject([{ reason: 0x79, address: IOVA }]);
  });

  it("a first-stage table that the second stage does not have: 79, not readable 75 at the root and 76 below, too wide 74", () => {
    const { machine, second, first, map, places } = nested();
    const leaf = map(0x40000, TO - SHIFT, FS_LEAF);
    const rootPlace = places.get(first)!;
    const leafPlace = places.get(leaf.frame)!;
    const fresh = (reason: number): void => {
      machine.invalidate("iotlb", { G: 2, DID: 5 });
      expect(machine.reason(0x108, IOVA)).toBe(reason);
    };
    const rootEntry = machine.load(rootPlace.frame, rootPlace.offset);
    machine.store(rootPlace.frame, rootPlace.offset, (rootEntry & ~3n) | W);
    fresh(0x75);
    machine.store(rootPlace.frame, rootPlace.offset, 0n);
    fresh(0x79);
    machine.store(rootPlace.frame, rootPlace.offset, rootEntry);
    machine.store(leafPlace.frame, leafPlace.offset, (machine.load(leafPlace.frame, leafPlace.offset) & ~3n) | W);
    fresh(0x76);
    machine.store(first, 0, machine.load(first, 0) | (1n << 45n));
    fresh(0x79);
    expect(second).toBeGreaterThan(0);
    const narrow = nested({ AW: 2, FSPTPTR: 2 ** 36 });
    // Beyond HAW (46 bits) it is a reserved bit of the PASID entry, not a fault of the walk.
    expect(narrow.machine.reason(0x108, IOVA)).toBe(0x5a);
    const beyond = new Machine({ features: { MGAW: 39 } });
    beyond.start();
    beyond.makeNested(0x108, { FSPTPTR: 2 ** 28 });
    expect(beyond.reason(0x108, IOVA)).toBe(0x74);
  });

  it("setting A in a first-stage entry needs W of the second stage (77), and dirties it with SSADE", () => {
    const { machine, map, give, places } = nested({ SSADE: 1 });
    const leaf = map(0x40000, TO - SHIFT, P | RW | US);
    give(TO);
    const place = places.get(leaf.frame)!;
    const entry = machine.load(place.frame, place.offset);
    machine.store(place.frame, place.offset, (entry & ~3n) | R);
    expect(machine.reason(0x108, IOVA)).toBe(0x77);
    machine.store(place.frame, place.offset, entry);
    machine.invalidate("iotlb", { G: 2, DID: 5 });
    expect(machine.request(0x108, IOVA)).toBe(GOES);
    expect(machine.load(place.frame, place.offset) & 0x300n).toBe(SS_A | SS_D);
    expect(machine.load(leaf.frame, leaf.offset) & A).toBe(A);
  });

  it("the output is too wide 84, not mapped 79", () => {
    const { machine, map } = nested({ AW: 2 });
    map(0x40000, 0x7000, FS_LEAF);
    expect(machine.reason(0x108, IOVA)).toBe(0x79);
    const beyond = new Machine({ features: { MGAW: 39 } });
    beyond.start();
    const { first, second } = beyond.makeNested(0x108);
    beyond.mapAll(second);
    beyond.map(first, 0x40000, 2 ** 28, FS_LEAF);
    expect(beyond.reason(0x108, IOVA)).toBe(0x84);
  });

  it("tables of the first stage are guest-physical: a bit at HAW is reserved in them too (72)", () => {
    const { machine, first } = nested();
    machine.store(first, 0, FS_TABLE | (1n << 46n));
    expect(machine.reason(0x108, IOVA)).toBe(0x72);
  });
});
