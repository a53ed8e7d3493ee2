// CSRs: which exist, what can be written, side effects of the instructions that access them.
import { beforeAll, beforeEach, describe, expect, it } from "vitest";
import { Board, RAM } from "./board.ts";
import * as encode from "./encode.ts";

let board: Board;
beforeAll(() => {
  board = new Board();
});
beforeEach(() => board.reset());

const SSTATUS = 0x100;
const SIE = 0x104;
const STVEC = 0x105;
const SIP = 0x144;
const SATP = 0x180;
const ONES = (1n << 64n) - 1n;
/** Writes `value` to a CSR and returns what reads back. */
function roundTrip(csr: number, value: bigint): bigint {
  board.setX(5, value);
  board.execute(encode.csr(1, 0, csr, 5), encode.csr(2, 6, csr, 0));
  expect(board.trap).toBeNull();
  return board.x(6);
}

describe("writable fields", () => {
  const UXL = 2n << 32n;
  it.each([
    ["sstatus: SIE, SPIE, SPP, FS, SUM, MXR; UXL reads 2, SD follows FS", SSTATUS, ONES, (1n << 63n) | UXL | 0xc6122n],
    [
      "sstatus: VS and XS stay 0, UBE stays 0, UXL cannot become 1",
      SSTATUS,
      (1n << 32n) | (3n << 9n) | (3n << 15n) | 64n,
      UXL,
    ],
    ["sie: SSIE, STIE, SEIE", SIE, ONES, 0x222n],
    ["sip: SSIP only", SIP, ONES, 2n],
    ["stvec: 4-byte aligned, direct", STVEC, 0x8000_0000n, 0x8000_0000n],
    ["stvec: vectored", STVEC, 0x8000_0001n, 0x8000_0001n],
    ["sepc: bit 0 is 0", 0x141, ONES, ONES - 1n],
    ["sscratch", 0x140, 0x123456789abcdef0n, 0x123456789abcdef0n],
    ["scause", 0x142, (1n << 63n) | 9n, (1n << 63n) | 9n],
    ["stval", 0x143, ONES, ONES],
    ["scounteren: every counter", 0x106, ONES, 0xffffffffn],
    ["senvcfg: FIOM, CBIE, CBCFE, CBZE", 0x10a, ONES, 0xf1n],
    ["fcsr: flags and mode", 0x003, ONES, 0xffn],
    ["fflags", 0x001, ONES, 31n],
    ["frm", 0x002, ONES, 7n],
    ["siselect holds 0x1ff", 0x150, 0x1ffn, 0x1ffn],
    ["stimecmp", 0x14d, ONES, ONES],
  ])("%s", (_, csr, written, read) => {
    expect(roundTrip(csr, written).toString(16)).toBe(read.toString(16));
  });

  it("stvec keeps its mode when a reserved one is written", () => {
    board.write("stvec", 0x8000_f001n);
    expect(roundTrip(STVEC, 0x8000_e002n)).toBe(0x8000_e001n);
  });

  it("senvcfg.CBIE keeps its value when the reserved one is written", () => {
    board.write("senvcfg", 0x10n);
    expect(roundTrip(0x10a, 0x60n)).toBe(0x50n);
  });

  it("fflags and frm are parts of fcsr", () => {
    roundTrip(0x003, 0b101_10011n);
    board.execute(encode.csr(2, 6, 1, 0), encode.csr(2, 7, 2, 0));
    expect([board.x(6), board.x(7)]).toEqual([0b10011n, 0b101n]);
  });
});

describe("satp", () => {
  it.each([8n, 9n, 10n])("takes mode %s; ASID reads 0", (mode) => {
    // an identity-mapped gigapage under the root, so that the code runs on
    const root = RAM + 0x10000n;
    const levels = Number(mode) - 5;
    for (let level = 0; level < levels - 2; level++) {
      const table = root + BigInt(level) * 0x1000n;
      board.store64(table, (((table + 0x1000n) >> 12n) << 10n) | 1n);
    }
    const last = root + BigInt(levels - 3) * 0x1000n;
    board.store64(last, 0n);
    for (let level = 0; level < levels - 3; level++) {
      board.store64(root + BigInt(level) * 0x1000n, (((root + BigInt(level + 1) * 0x1000n) >> 12n) << 10n) | 1n);
    }
    board.store64(last + 2n * 8n, ((RAM >> 12n) << 10n) | 0xcfn);
    const value = (mode << 60n) | (0xffffn << 44n) | (root >> 12n);
    expect(roundTrip(SATP, value).toString(16)).toBe(((mode << 60n) | (root >> 12n)).toString(16));
  });

  it.each([1n, 7n, 11n, 15n])("a write with the unsupported mode %s changes nothing", (mode) => {
    expect(roundTrip(SATP, 0x1234n)).toBe(0x1234n);
    expect(roundTrip(SATP, (mode << 60n) | 0x5678n)).toBe(0x1234n);
  });

  it("modes that the machine does not offer are unsupported", () => {
    const small = new Board({ translation: { sv48: false, sv57: false } });
    for (const mode of [9n, 10n]) {
      small.setX(5, mode << 60n);
      small.execute(encode.csr(1, 0, SATP, 5), encode.csr(2, 6, SATP, 0));
      expect(small.x(6)).toBe(0n);
    }
  });
});

describe("what the instructions do", () => {
  const SSCRATCH = 0x140;
  it.each([
    [1, 0xf0n, 0x3cn, 0x3cn],
    [2, 0xf0n, 0x3cn, 0xfcn],
    [3, 0xf0n, 0x3cn, 0xc0n],
  ])("kind %d of a register: %s with %s gives %s, and the old value", (kind, old, operand, after) => {
    board.write("sscratch", old);
    board.setX(5, operand);
    board.execute(encode.csr(kind, 6, SSCRATCH, 5));
    expect([board.x(6), board.read("sscratch")]).toEqual([old, after]);
    board.write("sscratch", old);
    board.setX(5, operand);
    board.execute(encode.csr(kind, 5, SSCRATCH, 5));
    expect([board.x(5), board.read("sscratch")]).toEqual([old, after]);
  });

  it.each([
    [5, 0xf0n, 0x1cn, 0x1cn],
    [6, 0xf0n, 0x1cn, 0xfcn],
    [7, 0xf0n, 0x1cn, 0xe0n],
  ])("kind %d of an immediate: %s with %s gives %s", (kind, old, operand, after) => {
    board.write("sscratch", old);
    board.execute(encode.csr(kind, 6, SSCRATCH, Number(operand)));
    expect([board.x(6), board.read("sscratch")]).toEqual([old, after]);
  });

  it("set and clear with x0 or 0 do not write: read-only CSRs may be read that way", () => {
    for (const kind of [2, 3, 6, 7]) {
      board.reset();
      board.execute(encode.csr(kind, 6, 0xc01, 0));
      expect(board.trap).toBeNull();
    }
  });

  it.each([1, 2, 3, 5, 6, 7])("kind %d that writes a read-only CSR is illegal", (kind) => {
    for (const csr of [0xc00, 0xc01, 0xc02, 0xc03, 0xc1f, 0xdb0]) {
      board.reset();
      const code = encode.csr(kind, 6, csr, 5);
      board.execute(code);
      expect(board.trap).toEqual({ cause: 2n, value: BigInt(code), pc: RAM });
    }
  });

  it("csrrw of a read-only CSR from x0 is a write, too", () => {
    board.execute(encode.csr(1, 6, 0xc01, 0));
    expect(board.trap?.cause).toBe(2n);
  });
});

describe("which CSRs exist", () => {
  const existing = new Set([
    0x001, 0x002, 0x003, 0x100, 0x104, 0x105, 0x106, 0x10a, 0x140, 0x141, 0x142, 0x143, 0x144, 0x14d, 0x150, 0x151,
    0x15c, 0x180, 0xdb0,
  ]);
  for (let counter = 0xc00; counter < 0xc20; counter++) existing.add(counter);
  it("exactly the supervisor's: all others are illegal from S-mode, machine and hypervisor CSRs among them", () => {
    board.execute(encode.csr(1, 0, 0x150, 5)); // a select that sireg accepts
    for (let csr = 0; csr < 4096; csr++) {
      board.reset();
      board.setX(5, 0x70n);
      board.execute(encode.csr(1, 0, 0x150, 5), encode.csr(2, 6, csr, 0));
      expect(board.trap === null, `csr 0x${csr.toString(16)}`).toBe(existing.has(csr));
    }
  });

  it("U-mode sees the floating-point CSRs and the counters that scounteren opens", () => {
    for (const open of [0n, 1n, 2n, 4n, 8n, 1n << 20n, 1n << 31n]) {
      for (const csr of existing) {
        board.reset();
        board.write("scounteren", open);
        board.write("mode", 0n);
        board.execute(encode.csr(2, 6, csr, 0));
        const counter = csr >= 0xc00 && csr <= 0xc1f && ((open >> BigInt(csr - 0xc00)) & 1n) === 1n;
        expect(board.trap === null, `csr 0x${csr.toString(16)}, scounteren ${open}`).toBe(csr < 0x100 || counter);
      }
    }
  });
});

describe("counters", () => {
  it("time advances by the instructions executed, in ticks of the timebase", () => {
    board.core.now = 5_000_000;
    board.execute(encode.csr(2, 6, 0xc01, 0));
    expect(board.x(6)).toBe(50_000n);
    board.place(RAM, encode.j(0, 0));
    board.pc = RAM;
    board.run(1000);
    board.execute(encode.csr(2, 6, 0xc01, 0));
    // 1 + 1000 instructions of 10 ns, a tick of 100 ns
    expect(board.x(6)).toBe(50_100n);
  });

  it("hpmcounter3 … hpmcounter31 (Zihpm) read 0", () => {
    for (let counter = 0xc03; counter < 0xc20; counter++) {
      board.reset();
      board.setX(6, 5n);
      board.execute(encode.csr(2, 6, counter, 0));
      expect([board.trap, board.x(6)]).toEqual([null, 0n]);
    }
  });

  it("instret and cycle count the hart's instructions", () => {
    board.execute(
      encode.csr(2, 6, 0xc02, 0),
      encode.NOP,
      encode.NOP,
      encode.csr(2, 7, 0xc02, 0),
      encode.csr(2, 8, 0xc00, 0),
    );
    expect(board.x(7) - board.x(6)).toBe(3n);
    expect(board.x(8) - board.x(7)).toBe(1n);
  });
});
