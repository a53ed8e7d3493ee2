// What a request reads before any page table: translation table modes, root, context, directory and PASID entries (VT-d §3.4, §7.1.3), and legacy mode's
// way from there to an address or a fault. The stages that PASID entries select: stages.test.ts.

import { describe, expect, it } from "vitest";
import { GCMD_TE, REG } from "../../../../../host/arch/vtd/registers.ts";
import { ATOMIC, BASE, FS_LEAF, Machine, PS, R, SNP, W, WRITE } from "./machine.ts";

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
