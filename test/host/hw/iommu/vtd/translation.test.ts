// From request to address or fault: legacy and scalable mode, both stages, nested, pass-through (VT-d §3.4–3.14, §7.1.3).

import { describe, expect, it } from "vitest";
import { GCMD_TE, REG } from "../../../../../host/arch/vtd/registers.ts";
import {
  A,
  ATOMIC,
  BASE,
  D,
  EA,
  FS_LEAF,
  FS_TABLE,
  Machine,
  P,
  PS,
  R,
  RW,
  SNP,
  SS_A,
  SS_D,
  US,
  W,
  WRITE,
} from "./machine.ts";

const IOVA = 0x40000n << 12n;
const TO = 0x80800;
const GOES = BigInt(TO) << 12n;

const legacy = (options = {}, context = {}) => {
  const machine = new Machine(options);
  machine.start({ ttm: 0, wide: false });
  const root = machine.makeLegacy(0x108, context);
  return { machine, root };
};
const scalable = (options = {}) => {
  const machine = new Machine(options);
  machine.start();
  return machine;
};

describe("legacy mode", () => {
  it("walks the second stage", () => {
    const { machine, root } = legacy();
    machine.map(root, 0x40000, TO, R | W, { table: R | W });
    expect(machine.request(0x108, IOVA + 0x123n)).toBe(GOES + 0x123n);
    expect(machine.request(0x108, IOVA, { access: WRITE })).toBe(GOES);
  });

  it("3 and 5 levels, 2 MiB and 1 GiB leaves", () => {
    const { machine, root } = legacy({ features: { SAGAW: 14 } }, { AW: 1 });
    machine.map(root, 0x40000, 0x90000, R | W, { levels: 3, level: 1, table: R | W });
    expect(machine.request(0x108, IOVA + 0x12345n)).toBe((0x90000n << 12n) + 0x12345n);
    const five = legacy({}, { AW: 3 });
    five.machine.map(five.root, 2 ** 40, 0x40000, R | W, { levels: 5, level: 2, table: R | W });
    expect(five.machine.request(0x108, (1n << 52n) + 0x1234567n)).toBe((0x40000n << 12n) + 0x1234567n);
  });

  it("an absent page is no read or no write permission (05, 06), as is one without the right", () => {
    const { machine, root } = legacy();
    machine.map(root, 0x40000, TO, R, { table: R | W });
    machine.map(root, 0x40001, TO, R | W, { table: R | W });
    expect(machine.reason(0x108, IOVA, { access: WRITE })).toBe(0x05);
    expect(machine.reason(0x108, IOVA, { access: ATOMIC })).toBe(0x05);
    expect(machine.reason(0x108, IOVA + 0x2000n)).toBe(0x06);
    expect(machine.reason(0x108, IOVA + 0x2000n, { access: WRITE })).toBe(0x05);
    expect(machine.reason(0x108, IOVA + 0x1000n, { access: ATOMIC })).toBe(0);
  });

  it("structures: absent, reserved bits, invalid", () => {
    const { machine } = legacy();
    expect(machine.reason(0x208, IOVA)).toBe(0x01);
    expect(machine.reason(0x109, IOVA)).toBe(0x02);
    machine.makeLegacy(0x10a, { TT: 3 });
    expect(machine.reason(0x10a, IOVA)).toBe(0x03);
    machine.makeLegacy(0x10b, { AW: 1 });
    expect(machine.reason(0x10b, IOVA)).toBe(0x03);
    machine.makeLegacy(0x10c);
    machine.store(Number(machine.load(machine.root, 16) >> 12n), 0x0c * 16 + 8, 0x0100_0000_0502n);
    expect(machine.reason(0x10c, IOVA)).toBe(0x0b);
    machine.store(machine.root, 3 * 16, (BigInt(BASE) << 12n) | 3n);
    expect(machine.reason(0x308, IOVA)).toBe(0x0a);
    machine.store(machine.root, 4 * 16, (1n << 45n) | 1n);
    expect(machine.reason(0x408, IOVA)).toBe(0x09);
    machine.store(machine.root, 5 * 16, (1n << 46n) | 1n);
    expect(machine.reason(0x508, IOVA)).toBe(0x0a);
  });

  it("FPD of the very context that is absent keeps the record out, not the block", () => {
    const { machine } = legacy();
    machine.setContext(0x109, { P: 0, FPD: 1 });
    expect(machine.reason(0x109, IOVA)).toBe(-1);
    machine.makeLegacy(0x10a, { FPD: 1 });
    expect(machine.reason(0x10a, IOVA)).toBe(-1);
  });

  it("tables that cannot be read: the root is 03, what is below 07", () => {
    const { machine, root } = legacy();
    const leaf = machine.map(root, 0x40000, TO, R | W, { table: R | W });
    machine.inject(leaf.frame, leaf.offset);
    expect(machine.reason(0x108, IOVA)).toBe(0x07);
    machine.inject(root, 0);
    expect(machine.reason(0x108, IOVA)).toBe(0x03);
  });

  it("reserved bits of second-stage entries (0C)", () => {
    const reserved = (leaf: bigint, options = {}, at = {}): number => {
      const { machine, root } = legacy(options);
      machine.map(root, 0x40000, 0x80000, leaf, { table: R | W, ...at });
      return machine.reason(0x108, IOVA);
    };
    expect(reserved(R | (1n << 62n))).toBe(0x0c);
    expect(reserved(R | (1n << 46n))).toBe(0x0c);
    expect(reserved(R | (1n << 63n) | (0x3ffn << 52n))).toBe(0);
    expect(reserved(R | SNP)).toBe(0);
    expect(reserved(R | SNP, { features: { SC: false } })).toBe(0x0c);
    expect(reserved(R, {}, { table: R | W | SNP })).toBe(0x0c);
    expect(reserved(R, { features: { SSLPS: 2 } }, { level: 1 })).toBe(0x0c);
    expect(reserved(R, { features: { SSLPS: 1 } }, { level: 2 })).toBe(0x0c);
    expect(reserved(R, {}, { level: 3 })).toBe(0x0c);
    expect(reserved(R | (1n << 12n), {}, { level: 1 })).toBe(0x0c);
    // Of an entry that is not present nothing is reserved.
    expect(reserved(1n << 62n)).toBe(0x06);
    // PS at the level of 4 KiB leaves is ignored.
    expect(reserved(R | PS)).toBe(0);
  });

  it("addresses beyond min(MGAW, AW) fault before the walk (04)", () => {
    const { machine } = legacy({ features: { MGAW: 39 } });
    expect(machine.reason(0x108, 1n << 40n)).toBe(0x04);
    expect(machine.reason(0x108, (1n << 40n) - 1n)).toBe(0x06);
    expect(legacy().machine.reason(0x108, 1n << 48n)).toBe(0x04);
  });

  it("pass-through: below HAW, and not into the interrupt address range", () => {
    const { machine } = legacy();
    machine.setContext(0x110, { TT: 2, AW: 2, DID: 1 });
    expect(machine.request(0x110, 0x1234_5678n)).toBe(0x1234_5678n);
    expect(machine.reason(0x110, 1n << 46n)).toBe(0x04);
    machine.setContext(0x111, { TT: 2, AW: 1, DID: 1 });
    expect(machine.reason(0x111, 0n)).toBe(0x03);
  });

  it("nothing translates into the interrupt address range (0E), large pages around it included", () => {
    const { machine, root } = legacy();
    machine.map(root, 0x40000, 0xfee00, R | W, { table: R | W });
    expect(machine.reason(0x108, IOVA, { access: WRITE })).toBe(0x0e);
    machine.map(root, 0x40200, 0xfee00, R | W, { level: 1, table: R | W });
    expect(machine.request(0x108, 0x40310n << 12n)).toBe(0xfef10n << 12n);
    expect(machine.reason(0x108, 0x40210n << 12n, { access: WRITE })).toBe(0x0e);
  });

  it("PASIDs and page requests have no place (31, 32); translated requests need TT = 1 (0D)", () => {
    const { machine, root } = legacy();
    expect(machine.reason(0x108, IOVA, { pasid: 3 })).toBe(0x31);
    machine.unit.pageRequest(0x108, -1, 0x40000, 1, 7);
    expect(machine.takeReasons()).toEqual([0x32]);
    expect(machine.reason(0x108, IOVA, { translated: true })).toBe(0x0d);
    machine.setContext(0x109, { TT: 1, AW: 2, SSPTPTR: root });
    expect(machine.request(0x109, GOES, { translated: true })).toBe(GOES);
  });
});

describe("translation table modes", () => {
  const mode = (ttm: number, features = {}): number => {
    const machine = new Machine({ features });
    machine.start({ ttm });
    return machine.reason(0x108, IOVA);
  };
  it("abort-DMA mode is 33, without ADMS 30; mode 2 and scalable mode without SMTS are 30", () => {
    expect(mode(3)).toBe(0x33);
    expect(mode(3, { ADMS: false })).toBe(0x30);
    expect(mode(2)).toBe(0x30);
    expect(mode(1, { SMTS: false })).toBe(0x30);
  });

  it("RTADDR counts from SRTP on, whatever TE does", () => {
    const { machine, root } = legacy();
    machine.map(root, 0x40000, TO, R, { table: R | W });
    machine.write64(REG.RTADDR, 0n);
    expect(machine.request(0x108, IOVA)).toBe(GOES);
    machine.command(GCMD_TE, false);
    machine.command(GCMD_TE);
    expect(machine.request(0x108, IOVA)).toBe(GOES);
  });

  it("without TE requests pass, those with PASID and translated ones do not", () => {
    const machine = new Machine();
    machine.start({ enable: false });
    expect(machine.request(0x108, 0x1234n)).toBe(0x1234n);
    expect(machine.request(0x108, 0x1234n, { pasid: 1 })).toBeNull();
    expect(machine.request(0x108, 0x1234n, { translated: true })).toBeNull();
  });
});

describe("scalable mode: structures", () => {
  it("root halves by devfn 0x80, only the selected one is looked at", () => {
    const machine = scalable();
    const root = machine.makeFirstStage(0x188);
    machine.map(root, 0x40000, TO, FS_LEAF);
    // The lower half has reserved bits set.
    machine.store(machine.root, 16, 0xfffn);
    expect(machine.request(0x188, IOVA)).toBe(GOES);
    expect(machine.reason(0x108, IOVA)).toBe(0x3a);
  });

  it("root, context, directory and PASID entries: absent, unreadable, reserved, invalid", () => {
    const machine = scalable();
    expect(machine.reason(0x108, IOVA)).toBe(0x39);
    machine.store(machine.root, 16, (1n << 45n) | 1n);
    expect(machine.reason(0x108, IOVA)).toBe(0x40);
    machine.store(machine.root, 16, 0n);
    const context = machine.contextPlace(0x108);
    expect(machine.reason(0x108, IOVA)).toBe(0x41);
    machine.setScalableContext(0x109);
    machine.store(context.frame, 9 * 32 + 24, 1n);
    expect(machine.reason(0x109, IOVA)).toBe(0x42);
    machine.setScalableContext(0x10a, { RID_PASID: 8192 });
    expect(machine.reason(0x10a, IOVA)).toBe(0x43);
    machine.setScalableContext(0x10b, { PASIDDIRPTR: 2 ** 33 });
    expect(machine.reason(0x10b, IOVA)).toBe(0x50);
    const directory = machine.setScalableContext(0x10c);
    expect(machine.reason(0x10c, IOVA)).toBe(0x51);
    machine.store(directory, 0, 5n);
    expect(machine.reason(0x10c, IOVA)).toBe(0x52);
    machine.store(directory, 0, (1n << 45n) | 1n);
    expect(machine.reason(0x10c, IOVA)).toBe(0x58);
    machine.store(directory, 0, 0n);
    machine.pasidPlace(directory, 0);
    expect(machine.reason(0x10c, IOVA)).toBe(0x59);
    machine.setPasid(directory, 0, { PGTT: 0 });
    expect(machine.reason(0x10c, IOVA)).toBe(0x5b);
    machine.setPasid(directory, 0, { PGTT: 1, CD: 1 });
    expect(machine.reason(0x10c, IOVA)).toBe(0x5a);
  });

  it("FPD counts from context, directory and PASID entry, the absent one included", () => {
    const machine = scalable();
    const directory = machine.setScalableContext(0x108);
    machine.store(directory, 0, 2n);
    expect(machine.reason(0x108, IOVA)).toBe(-1);
    machine.store(directory, 0, 0n);
    machine.setPasid(directory, 0, { P: 0, FPD: 1 });
    expect(machine.reason(0x108, IOVA)).toBe(-1);
    machine.setPasid(directory, 0, { PGTT: 1, FPD: 1, FSPTPTR: BASE });
    expect(machine.reason(0x108, 0x7fff_0000_0000n)).toBe(-1);
    machine.setScalableContext(0x109, { FPD: 1, P: 0 });
    expect(machine.reason(0x109, IOVA)).toBe(-1);
  });

  it("PASIDE, the directory's size, PRE, DTE, SRE: 45, 46, 47, 44, 5D", () => {
    const machine = scalable();
    machine.setScalableContext(0x108, { PASIDE: 0, PRE: 0, DTE: 0 });
    expect(machine.reason(0x108, IOVA, { pasid: 1 })).toBe(0x45);
    expect(machine.reason(0x108, IOVA, { translated: true })).toBe(0x44);
    machine.unit.pageRequest(0x108, -1, 0x40000, 1, 7);
    expect(machine.takeReasons()).toEqual([0x47]);
    const directory = machine.setScalableContext(0x109);
    expect(machine.reason(0x109, IOVA, { pasid: 8192 })).toBe(0x46);
    expect(machine.reason(0x109, IOVA, { pasid: 8191 })).toBe(0x51);
    machine.setPasid(directory, 1, { PGTT: 1, FSPTPTR: machine.allocate() });
    expect(machine.reason(0x109, IOVA, { pasid: 1, privileged: true })).toBe(0x5d);
    expect(machine.reason(0x109, IOVA, { pasid: 1 })).toBe(0x71);
  });

  it("a record shows the PASID of a request that has one, never RID_PASID", () => {
    const machine = scalable();
    machine.makeFirstStage(0x108, {}, { RID_PASID: 7 }, 7);
    machine.status(0x108, IOVA + 0x5678n, { access: WRITE });
    expect(machine.takeFaults()).toEqual([
      {
        ...{ reason: 0x71, sourceId: 0x108, pasid: -1, type: 0, addressType: 0, privileged: false, execute: false },
        ...{ address: IOVA + 0x5000n, valid: true },
      },
    ]);
    machine.status(0x108, IOVA, { pasid: 7 });
    expect(machine.takeFaults()).toMatchObject([{ reason: 0x71, pasid: 7, type: 2 }]);
  });

  it("pass-through: 83 beyond HAW, 87 into the interrupt address range with a PASID", () => {
    const machine = scalable();
    const directory = machine.setScalableContext(0x108);
    machine.setPasid(directory, 0, { PGTT: 4 });
    machine.setPasid(directory, 1, { PGTT: 4 });
    expect(machine.request(0x108, 0x1234_5678n)).toBe(0x1234_5678n);
    expect(machine.reason(0x108, 1n << 46n)).toBe(0x83);
    expect(machine.reason(0x108, 0xfee0_0000n, { pasid: 1 })).toBe(0x87);
  });
});

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
