// Stage 1 of EL1&0 (DDI 0487, D8): tables written here bit by bit, faults by level, class and address.
import { describe, expect, it } from "vitest";
import { Board, RAM, VECTORS } from "./board.ts";

const LDR = 0xf9400020; // ldr x0, [x1]
const STR = 0xf9000020; // str x0, [x1]
const LDTR = 0xf8400820; // ldtr x0, [x1]
const STTR = 0xf8000820; // sttr x0, [x1]
const ISB = 0xd5033fdf;

const VALID_TABLE = 3n;
const PAGE = 3n;
const BLOCK = 1n;
const AF = 1n << 10n;
const EL0 = 1n << 6n;
const READ_ONLY = 1n << 7n;
const PXN = 1n << 53n;
const UXN = 1n << 54n;

const L0 = RAM + 0x2_0000n;
const L1 = RAM + 0x2_1000n;
const L2 = RAM + 0x2_2000n;
const L3 = RAM + 0x2_3000n;
const UPPER = RAM + 0x2_4000n;
const FRAME = RAM + 0x3_0000n;
/** T0SZ = T1SZ = 16, 4 KiB granules, IPS 40 bits. */
const TCR = 16n | (16n << 16n) | (2n << 30n) | (2n << 32n);
/** VA of L3's first page, and RAM one to one by a block below 4 GiB. */
const VA = 0x4000_0000_0000n >> 8n;

interface Setting {
  readonly leaf?: bigint;
  readonly l2?: bigint;
  readonly tcr?: bigint;
}

/** MMU on: RAM one to one for EL1 and EL0's code; page VA by `leaf`. */
function board({ leaf = FRAME | PAGE | AF, l2 = L3 | VALID_TABLE, tcr = TCR }: Setting = {}): Board {
  const it = new Board({ translate: false });
  const [i0, i1, i2, i3] = [39n, 30n, 21n, 12n].map((shift) => (VA >> shift) & 511n) as [
    bigint,
    bigint,
    bigint,
    bigint,
  ];
  it.store64(L0 + i0 * 8n, L1 | VALID_TABLE);
  it.store64(L1 + i1 * 8n, L2 | VALID_TABLE);
  it.store64(L2 + i2 * 8n, l2);
  it.store64(L3 + i3 * 8n, leaf);
  if (i0 !== 0n) it.store64(L0, L1 | VALID_TABLE);
  it.store64(L1 + 2n * 8n, RAM | BLOCK | AF | READ_ONLY | EL0); // one GiB: what both levels execute, nothing may write it
  it.store64(UPPER, L1 | VALID_TABLE);
  it.write("ttbr0_el1", L0);
  it.write("ttbr1_el1", UPPER);
  it.write("tcr_el1", tcr);
  it.write("sctlr_el1", 0x30d0_0801n);
  it.core.flushTranslations(0);
  it.setX(1, VA + 8n);
  it.store64(FRAME + 8n, 0xf00dn);
  return it;
}

function el0(it: Board): Board {
  it.write("el", 0n);
  it.write("spsel", 0n);
  return it;
}

describe("translation", () => {
  it("walks four levels, and takes blocks", () => {
    const it = board();
    it.execute(LDR);
    expect([it.exception, it.x(0)]).toEqual([null, 0xf00dn]);
    const block = board({ l2: RAM | BLOCK | AF });
    block.setX(1, VA + (FRAME - RAM) + 8n);
    block.execute(LDR);
    expect([block.exception, block.x(0)]).toEqual([null, 0xf00dn]);
  });

  it.each<[string, Setting, number, number]>([
    ["an invalid leaf", { leaf: 0n }, LDR, 0x07],
    ["a store there", { leaf: 0n }, STR, 0x47],
    ["a block where a page must be", { leaf: FRAME | BLOCK | AF }, LDR, 0x07],
    ["an invalid table", { l2: 0n }, LDR, 0x06],
    ["no access flag", { leaf: FRAME | PAGE }, LDR, 0x0b],
    ["a store without the right", { leaf: FRAME | PAGE | AF | READ_ONLY }, STR, 0x4f],
    ["an output beyond the 40 bits", { leaf: (1n << 41n) | PAGE | AF }, LDR, 0x03],
    ["a table beyond RAM", { l2: (0x10_0000_0000n - 0x1000n) | VALID_TABLE }, LDR, 0x17],
    ["EPD0", { tcr: TCR | (1n << 7n) }, LDR, 0x04],
    ["an address beyond T0SZ", { tcr: (TCR & ~63n) | 28n }, LDR, 0x04],
  ])("%s is a data abort with its status", (_name, setting, code, iss) => {
    const it = board(setting);
    it.write("vbar_el1", VECTORS);
    // code stays reachable through TTBR1 where TTBR0 is what is broken
    const upper = 0xffff_0000_0000_0000n;
    it.place(RAM, code);
    it.write("pc", upper + RAM);
    it.write("vbar_el1", upper + VECTORS);
    it.core.run(0, 1);
    const esr = it.read("esr_el1");
    expect([esr >> 26n, esr & 0x1ffffffn, it.read("far_el1"), it.read("elr_el1")]).toEqual([
      0x25n,
      BigInt(iss),
      VA + 8n,
      upper + RAM,
    ]);
  });

  it("EL0 needs AP[1]; LDTR and STTR are as EL0, and report themselves at EL1", () => {
    const it = el0(board());
    it.execute(LDR);
    expect(it.exception).toMatchObject({ vector: 0x400, ec: 0x24, iss: 0x0f, far: VA + 8n });
    const privileged = board();
    privileged.execute(LDTR);
    expect(privileged.exception).toMatchObject({ vector: 0x200, ec: 0x25, iss: 0x0f });
    const stores = board({ leaf: FRAME | PAGE | AF | EL0 | READ_ONLY });
    stores.execute(LDTR, STTR);
    expect(stores.x(0)).toBe(0xf00dn);
    expect(stores.exception).toMatchObject({ ec: 0x25, iss: 0x4f });
  });

  it.each([
    ["PXN at EL1", FRAME | PAGE | AF | PXN, 1, 0x21],
    ["what EL0 may write, at EL1", FRAME | PAGE | AF | EL0, 1, 0x21],
    ["UXN at EL0", FRAME | PAGE | AF | EL0 | READ_ONLY | UXN, 0, 0x20],
    ["EL1's page at EL0", FRAME | PAGE | AF, 0, 0x20],
  ])("does not execute %s", (_name, leaf, level, ec) => {
    const it = board({ leaf });
    if (level === 0) el0(it);
    it.write("pc", VA + 0x10n);
    it.core.run(0, 1);
    expect(it.exception).toMatchObject({ ec, iss: 0x0f, far: VA + 0x10n, elr: VA + 0x10n });
  });

  it("what tables take away, leaves do not give back", () => {
    const it = board({ l2: L3 | VALID_TABLE | (1n << 62n) });
    it.execute(STR);
    expect(it.exception).toMatchObject({ ec: 0x25, iss: 0x4f });
  });

  it("a cached translation holds until TLBI by its address, by all, or a new TTBR0", () => {
    for (const [code, operand] of [
      [0xd5088722, VA >> 12n], // tlbi vae1, x2
      [0xd508871f, 0n], // tlbi vmalle1
      [0xd5182002, L0 | (1n << 48n)], // msr ttbr0_el1, x2
    ] as const) {
      const it = board();
      it.execute(LDR);
      it.store64(L3 + ((VA >> 12n) & 511n) * 8n, (FRAME + 0x1000n) | PAGE | AF);
      it.store64(FRAME + 0x1008n, 0xbeefn);
      it.execute(LDR);
      expect(it.x(0)).toBe(0xf00dn);
      it.setX(2, operand);
      it.execute(code, ISB, LDR);
      expect(it.x(0)).toBe(0xbeefn);
    }
  });

  it("decoded code is what it was until IC IVAU of its line", () => {
    const it = board({ leaf: FRAME | PAGE | AF | READ_ONLY | EL0 });
    it.place(FRAME, 0xd2800020, 0x17ffffff); // mov x0, #1; b .-4
    it.write("pc", VA);
    it.core.run(0, 1);
    expect(it.x(0)).toBe(1n);
    it.ram.setUint32(Number(FRAME - RAM), 0xd2800040, true); // mov x0, #2
    it.write("pc", VA);
    it.core.run(0, 1);
    expect(it.x(0)).toBe(1n);
    it.setX(2, VA);
    it.execute(0xd50b7522, ISB); // ic ivau, x2
    it.write("pc", VA);
    it.core.run(0, 1);
    expect(it.x(0)).toBe(2n);
  });

  it("maintenance by address faults as cache maintenance", () => {
    const it = board({ leaf: 0n });
    it.execute(0xd50b7e21); // dc civac, x1
    expect(it.exception).toMatchObject({ ec: 0x25, iss: 0x147, far: VA + 8n });
  });

  it("AT answers in PAR_EL1", () => {
    const it = board();
    it.execute(0xd5087801); // at s1e1r, x1
    expect(it.read("par_el1") & 0xfffffffff001n).toBe(FRAME);
    it.execute(0xd5087841); // at s1e0r, x1
    expect(it.read("par_el1") & 0x7fn).toBe(0x1fn); // permission, level 3
  });

  it("TBI lets the top byte pass in TTBR0's half only", () => {
    const it = board({ tcr: TCR | (1n << 37n) });
    it.setX(1, (0xa5n << 56n) | (VA + 8n));
    it.execute(LDR);
    expect([it.exception, it.x(0)]).toEqual([null, 0xf00dn]);
    const without = board();
    without.setX(1, (0xa5n << 56n) | (VA + 8n));
    without.execute(LDR);
    expect(without.exception).toMatchObject({ ec: 0x25, iss: 0x04 });
  });
});

describe("a new address space", () => {
  const UPPER_VA = 0xffff_0000_0000_0000n + VA;
  /** ldr x0, [x1] through TTBR1's half, whose leaf changes meanwhile; then what `code` with x2 does, and the load again. */
  function reloaded(leafBits: bigint, code: number, operand: (it: Board) => bigint): bigint {
    const it = board({ leaf: FRAME | PAGE | AF | leafBits });
    it.setX(1, UPPER_VA + 8n);
    it.execute(LDR);
    expect(it.x(0)).toBe(0xf00dn);
    it.store64(L3 + ((VA >> 12n) & 511n) * 8n, (FRAME + 0x1000n) | PAGE | AF | leafBits);
    it.store64(FRAME + 0x1008n, 0xbeefn);
    it.setX(2, operand(it));
    it.execute(code, ISB, LDR);
    return it.x(0);
  }
  const NOT_GLOBAL = 1n << 11n;
  const TTBR0 = 0xd5182002; // msr ttbr0_el1, x2
  const TTBR1 = 0xd5182022;

  it("keeps what is global in TTBR1's half", () => {
    expect(reloaded(0n, TTBR0, () => L0 | (5n << 48n))).toBe(0xf00dn);
    expect(reloaded(0n, TTBR1, () => UPPER | (5n << 48n))).toBe(0xf00dn);
  });

  it("makes void what is not, and all of another TTBR1's table (D8.13)", () => {
    expect(reloaded(NOT_GLOBAL, TTBR1, () => UPPER | (5n << 48n))).toBe(0xbeefn);
    const other = (it: Board): bigint => {
      it.store64(UPPER + 0x1000n, L1 | VALID_TABLE);
      return UPPER + 0x1000n;
    };
    expect(reloaded(0n, TTBR1, other)).toBe(0xbeefn);
  });
});

describe("TLBI for all CPUs", () => {
  /** CPU 1 has the page cached; CPU 0 executes `code` with x2; what CPU 1 then loads. */
  function seenByOther(code: number): bigint {
    const it = board();
    const two = new Board({ translate: false, harts: 2 });
    two.core.ram.set(it.core.ram);
    two.core.fenceInstructions(0);
    for (const cpu of [0, 1]) {
      two.core.start(cpu, RAM, 0n);
      for (const name of ["ttbr0_el1", "ttbr1_el1", "tcr_el1", "sctlr_el1"] as const)
        two.core.write(cpu, name, it.read(name));
      two.core.flushTranslations(cpu);
      two.core.setX(cpu, 1, VA + 8n);
    }
    two.place(RAM, LDR, code, ISB);
    two.core.run(1, 1);
    expect(two.core.x(1, 0)).toBe(0xf00dn);
    two.store64(L3 + ((VA >> 12n) & 511n) * 8n, (FRAME + 0x1000n) | PAGE | AF);
    two.store64(FRAME + 0x1008n, 0xbeefn);
    two.core.write(0, "pc", RAM + 4n);
    two.core.setX(0, 2, VA >> 12n);
    two.core.run(0, 1);
    two.core.write(1, "pc", RAM);
    two.core.run(1, 1);
    return two.core.x(1, 0);
  }

  it.each([
    ["VAE1IS", 0xd5088322, 0xbeefn],
    ["VMALLE1IS", 0xd508831f, 0xbeefn],
    ["VAE1, which is for its own CPU", 0xd5088722, 0xf00dn],
  ])("%s", (_name, code, value) => {
    expect(seenByOther(code)).toBe(value);
  });
});
