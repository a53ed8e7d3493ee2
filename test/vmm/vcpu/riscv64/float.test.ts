// F and D against exact rational arithmetic (reference/float.ts): every operation, both formats, five rounding modes, values and flags; with
// fflags clear and with NX already raised, which is when the core takes shortcuts.
import { beforeAll, describe, expect, it } from "vitest";
import { Board, RAM } from "./board.ts";
import * as encode from "./encode.ts";
import * as ieee from "./reference/float.ts";
import { generator, operands } from "./reference/integer.ts";

let board: Board;
beforeAll(() => {
  board = new Board();
});

const BOX = 0xffffffff00000000n;
const FORMATS = [ieee.SINGLE, ieee.DOUBLE];
const MODES: readonly ieee.Mode[] = [0, 1, 2, 3, 4];
const fmt = (format: ieee.Format): number => (format === ieee.DOUBLE ? 1 : 0);
const boxed = (bits: bigint, format: ieee.Format): bigint => (format === ieee.SINGLE ? bits | BOX : bits);
const hex = (value: bigint): string => `0x${BigInt.asUintN(64, value).toString(16)}`;
const opFp = (funct5: number, format: ieee.Format, rm: number, rd: number, rs1: number, rs2: number): number =>
  encode.r(0x53, rm, (funct5 << 2) | fmt(format), rd, rs1, rs2);

/** Runs the one instruction at RAM on f1, f2, f3 and compares f4 and fflags with the outcome of the reference. */
function check(
  inputs: readonly bigint[],
  format: ieee.Format,
  before: number,
  expected: ieee.Outcome,
  told: () => string,
): void {
  for (let n = 0; n < inputs.length; n++) board.setF(n + 1, boxed(inputs[n]!, format));
  board.write("fflags", BigInt(before));
  board.pc = RAM;
  board.run(1);
  const seen = `${hex(board.f(4))} flags ${Number(board.read("fflags"))}`;
  const wanted = `${hex(boxed(expected.bits, format))} flags ${before | expected.flags}`;
  if (seen !== wanted) expect(seen, told()).toBe(wanted);
}

/** All pairs of corners, and random pairs. */
function* pairs(format: ieee.Format, random: number, seed: number): Generator<[bigint, bigint]> {
  const corners = ieee.corners(format);
  for (const a of corners) for (const b of corners) yield [a, b];
  const next = generator(seed);
  for (let n = 0; n < random; n++) yield [ieee.randomOperand(format, next), ieee.randomOperand(format, next)];
}

const BINARY = [
  { name: "fadd", funct5: 0, result: ieee.add },
  {
    name: "fsub",
    funct5: 1,
    result: (a: ieee.Value, b: ieee.Value, f: ieee.Format, m: ieee.Mode) => ieee.add(a, ieee.negate(b), f, m),
  },
  { name: "fmul", funct5: 2, result: ieee.multiply },
  { name: "fdiv", funct5: 3, result: ieee.divide },
];

describe.each(FORMATS)("arithmetic of format $name", (format) => {
  it.each(BINARY)("$name is rounded correctly and raises exactly its flags", ({ name, funct5, result }) => {
    for (const mode of MODES) {
      board.place(RAM, opFp(funct5, format, mode, 4, 1, 2));
      for (const [a, b] of pairs(format, 1500, funct5 + mode)) {
        const expected = result(ieee.decode(a, format), ieee.decode(b, format), format, mode);
        const told = (): string => `${name} rm ${mode} of ${hex(a)}, ${hex(b)}`;
        check([a, b], format, 0, expected, told);
        check([a, b], format, ieee.NX, expected, told);
      }
    }
  });

  it("fsqrt is rounded correctly and raises exactly its flags", () => {
    for (const mode of MODES) {
      board.place(RAM, opFp(0x0b, format, mode, 4, 1, 0));
      const next = generator(mode + 10);
      const inputs = ieee.corners(format);
      for (let n = 0; n < 400; n++) inputs.push(ieee.randomOperand(format, next));
      for (const a of inputs) {
        const expected = ieee.squareRoot(ieee.decode(a, format), format, mode);
        const told = (): string => `fsqrt rm ${mode} of ${hex(a)}`;
        check([a], format, 0, expected, told);
        check([a], format, ieee.NX, expected, told);
      }
    }
  });

  const fused = [
    { name: "fmadd", opcode: 0x43, product: false, addend: false },
    { name: "fmsub", opcode: 0x47, product: false, addend: true },
    { name: "fnmsub", opcode: 0x4b, product: true, addend: false },
    { name: "fnmadd", opcode: 0x4f, product: true, addend: true },
  ];
  it.each(fused)("$name rounds once", ({ name, opcode, product, addend }) => {
    const corners = ieee.corners(format);
    for (const mode of MODES) {
      board.place(RAM, encode.r(opcode, mode, (3 << 2) | fmt(format), 4, 1, 2));
      const next = generator(mode + opcode);
      for (let n = 0; n < 6000; n++) {
        const pick = (): bigint => (n % 3 === 0 ? corners[next() % corners.length]! : ieee.randomOperand(format, next));
        const [a, b, c] = [pick(), pick(), pick()];
        const left = product ? ieee.negate(ieee.decode(a, format)) : ieee.decode(a, format);
        const right = addend ? ieee.negate(ieee.decode(c, format)) : ieee.decode(c, format);
        const expected = ieee.fuse(left, ieee.decode(b, format), right, format, mode);
        const told = (): string => `${name} rm ${mode} of ${hex(a)}, ${hex(b)}, ${hex(c)}`;
        check([a, b, c], format, n & 1 ? ieee.NX : 0, expected, told);
      }
    }
  });

  it("fmadd of a product and nearly its negative leaves the rounding error of the product", () => {
    for (const mode of MODES) {
      board.place(RAM, encode.r(0x43, mode, (3 << 2) | fmt(format), 4, 1, 2));
      const next = generator(mode + 77);
      for (let n = 0; n < 400; n++) {
        const [a, b] = [ieee.randomOperand(format, next), ieee.randomOperand(format, next)];
        const product = ieee.multiply(ieee.decode(a, format), ieee.decode(b, format), format, 0);
        const c = product.bits ^ (1n << (format.width - 1n));
        const expected = ieee.fuse(
          ieee.decode(a, format),
          ieee.decode(b, format),
          ieee.decode(c, format),
          format,
          mode,
        );
        check([a, b, c], format, 0, expected, () => `fmadd rm ${mode} of ${hex(a)}, ${hex(b)}, ${hex(c)}`);
      }
    }
  });

  it("fmin and fmax prefer numbers to NaNs and order the zeros", () => {
    for (const greater of [false, true]) {
      board.place(RAM, opFp(5, format, greater ? 1 : 0, 4, 1, 2));
      for (const [a, b] of pairs(format, 500, 9)) {
        const [x, y] = [ieee.decode(a, format), ieee.decode(b, format)];
        const flags = [x, y].some((v) => v.kind === "nan" && v.signaling) ? ieee.NV : 0;
        const ordered = ieee.order(x, y);
        const negative = (bits: bigint): boolean => bits >> (format.width - 1n) === 1n;
        let bits: bigint;
        if (x.kind === "nan") bits = y.kind === "nan" ? ieee.canonicalNaN(format) : b;
        else if (y.kind === "nan") bits = a;
        else if (ordered === 0) bits = negative(a) !== greater ? a : b;
        else bits = (ordered === -1) !== greater ? a : b;
        check([a, b], format, 0, { bits, flags }, () => `${greater ? "fmax" : "fmin"} of ${hex(a)}, ${hex(b)}`);
      }
    }
  });

  it("fsgnj, fsgnjn and fsgnjx move signs and raise nothing, NaNs included", () => {
    const sign = 1n << (format.width - 1n);
    for (const kind of [0, 1, 2]) {
      board.place(RAM, opFp(4, format, kind, 4, 1, 2));
      for (const [a, b] of pairs(format, 100, 5)) {
        const other = kind === 0 ? b & sign : kind === 1 ? (b & sign) ^ sign : (a ^ b) & sign;
        check(
          [a, b],
          format,
          0,
          { bits: (a & ~sign) | other, flags: 0 },
          () => `fsgnj ${kind} of ${hex(a)}, ${hex(b)}`,
        );
      }
    }
  });
});

/** Like check, for results in x4. */
function checkInteger(
  inputs: readonly bigint[],
  format: ieee.Format,
  expected: ieee.Outcome,
  told: () => string,
): void {
  for (let n = 0; n < inputs.length; n++) board.setF(n + 1, boxed(inputs[n]!, format));
  board.write("fflags", 0n);
  board.pc = RAM;
  board.run(1);
  const seen = `${hex(board.x(4))} flags ${Number(board.read("fflags"))}`;
  const wanted = `${hex(expected.bits)} flags ${expected.flags}`;
  if (seen !== wanted) expect(seen, told()).toBe(wanted);
}

describe.each(FORMATS)("comparisons and conversions of format $name", (format) => {
  it("feq is quiet, flt and fle signal on every NaN", () => {
    for (const kind of [0, 1, 2]) {
      board.place(RAM, opFp(0x14, format, kind, 4, 1, 2));
      for (const [a, b] of pairs(format, 500, 6)) {
        const [x, y] = [ieee.decode(a, format), ieee.decode(b, format)];
        const ordered = ieee.order(x, y);
        const signaling = [x, y].some((v) => v.kind === "nan" && v.signaling);
        const flags = signaling || (kind !== 2 && ordered === null) ? ieee.NV : 0;
        const holds = ordered !== null && (kind === 2 ? ordered === 0 : kind === 1 ? ordered < 0 : ordered <= 0);
        checkInteger([a, b], format, { bits: holds ? 1n : 0n, flags }, () => `compare ${kind} of ${hex(a)}, ${hex(b)}`);
      }
    }
  });

  it.each(ieee.INTEGER_TYPES)("fcvt.$name.f saturates with NV and rounds with NX", (type) => {
    const next = generator(type.code);
    const inputs = ieee.corners(format);
    for (let n = 0; n < 500; n++) inputs.push(ieee.randomOperand(format, next));
    for (const mode of MODES) {
      board.place(RAM, opFp(0x18, format, mode, 4, 1, type.code));
      for (const a of inputs) {
        const expected = ieee.toInteger(ieee.decode(a, format), type, mode);
        checkInteger([a], format, expected, () => `fcvt.${type.name} rm ${mode} of ${hex(a)}`);
      }
    }
  });

  it.each(ieee.INTEGER_TYPES)("fcvt.f.$name rounds correctly", (type) => {
    for (const mode of MODES) {
      board.place(RAM, opFp(0x1a, format, mode, 4, 1, type.code));
      for (const a of operands(200, type.code + 20)) {
        board.setX(1, a);
        const expected = ieee.fromInteger(a, type, format, mode);
        check([], format, 0, expected, () => `fcvt from ${type.name} rm ${mode} of ${hex(a)}`);
      }
    }
  });

  it("fclass tells the ten classes apart", () => {
    board.place(RAM, opFp(0x1c, format, 1, 4, 1, 0));
    const places = format.precision - 1n;
    const sign = 1n << (format.width - 1n);
    const classes: [bigint, number][] = [
      [ieee.infinity(true, format), 0],
      [sign | (5n << places), 1],
      [sign | 1n, 2],
      [sign, 3],
      [0n, 4],
      [(1n << places) - 1n, 5],
      [1n << places, 6],
      [ieee.infinity(false, format), 7],
      [ieee.infinity(false, format) + 1n, 8],
      [ieee.canonicalNaN(format), 9],
      [sign | ieee.canonicalNaN(format), 9],
    ];
    for (const [bits, index] of classes) {
      checkInteger([bits], format, { bits: 1n << BigInt(index), flags: 0 }, () => `fclass of ${hex(bits)}`);
    }
  });
});

describe("conversions between the formats", () => {
  it("fcvt.s.d rounds correctly; subnormal results raise UF only if inexact", () => {
    const next = generator(99);
    const inputs = ieee.corners(ieee.DOUBLE);
    for (let n = 0; n < 2000; n++) inputs.push(ieee.randomOperand(ieee.DOUBLE, next));
    for (let n = 0; n < 500; n++)
      inputs.push((BigInt(1023 - 155 + (next() % 32)) << 52n) | (BigInt(next()) << (BigInt(next() % 3) * 10n)));
    for (const mode of MODES) {
      board.place(RAM, opFp(8, ieee.SINGLE, mode, 4, 1, 1));
      for (const a of inputs) {
        const expected = ieee.convert(ieee.decode(a, ieee.DOUBLE), ieee.SINGLE, mode);
        const wanted = { bits: expected.bits | BOX, flags: expected.flags };
        check([a], ieee.DOUBLE, 0, wanted, () => `fcvt.s.d rm ${mode} of ${hex(a)}`);
      }
    }
  });

  it("fcvt.d.s is exact", () => {
    const next = generator(98);
    const inputs = ieee.corners(ieee.SINGLE);
    for (let n = 0; n < 500; n++) inputs.push(ieee.randomOperand(ieee.SINGLE, next));
    board.place(RAM, opFp(8, ieee.DOUBLE, 0, 4, 1, 0));
    for (const a of inputs) {
      const expected = ieee.convert(ieee.decode(a, ieee.SINGLE), ieee.DOUBLE, 0);
      board.setF(1, a | BOX);
      board.write("fflags", 0n);
      board.pc = RAM;
      board.run(1);
      expect(`${hex(board.f(4))} ${board.read("fflags")}`, hex(a)).toBe(`${hex(expected.bits)} ${expected.flags}`);
    }
  });
});

describe("the register file", () => {
  it("a binary32 operand that is not NaN-boxed is the canonical NaN, but fmv.x.w, fsw and fsd see its bits (§21.2)", () => {
    board.setF(1, 0x12345678_3f800000n);
    board.setF(2, BOX | 0x3f800000n);
    board.setX(5, RAM + 0x800n);
    board.execute(
      opFp(0, ieee.SINGLE, 0, 3, 1, 2),
      opFp(0x1c, ieee.SINGLE, 0, 6, 1, 0),
      encode.s(0x27, 2, 5, 1, 0),
      encode.s(0x27, 3, 5, 1, 8),
      opFp(0x1c, ieee.SINGLE, 1, 7, 1, 0),
    );
    expect(hex(board.f(3))).toBe(hex(BOX | 0x7fc00000n));
    expect(board.x(6)).toBe(0x3f800000n);
    expect(board.ram.getUint32(0x800, true)).toBe(0x3f800000);
    expect(board.load64(RAM + 0x808n)).toBe(0x12345678_3f800000n);
    expect(board.x(7)).toBe(1n << 9n);
  });

  it("flw and fmv.w.x box, fld and fmv.d.x take all bits, fmv.x.w sign-extends", () => {
    board.store64(RAM + 0x800n, 0x1111222280000001n);
    board.setX(5, RAM + 0x800n);
    board.execute(
      encode.i(0x07, 2, 1, 5, 0),
      encode.i(0x07, 3, 2, 5, 0),
      opFp(0x1c, ieee.SINGLE, 0, 6, 1, 0),
      opFp(0x1e, ieee.SINGLE, 0, 3, 6, 0),
      opFp(0x1c, ieee.DOUBLE, 0, 7, 2, 0),
      opFp(0x1e, ieee.DOUBLE, 0, 4, 7, 0),
    );
    expect(hex(board.f(1))).toBe("0xffffffff80000001");
    expect(hex(board.f(2))).toBe("0x1111222280000001");
    expect(hex(board.x(6))).toBe("0xffffffff80000001");
    expect(hex(board.f(3))).toBe("0xffffffff80000001");
    expect(hex(board.f(4))).toBe("0x1111222280000001");
  });
});

describe("rounding mode and sstatus.FS", () => {
  it("rm 7 takes the mode from frm", () => {
    for (const mode of MODES) {
      board.reset();
      board.write("frm", BigInt(mode));
      board.setF(1, 0x3ff0000000000000n);
      board.setF(2, 0x4008000000000000n);
      board.execute(opFp(3, ieee.DOUBLE, 7, 4, 1, 2));
      const expected = ieee.divide(
        ieee.decode(0x3ff0000000000000n, ieee.DOUBLE),
        ieee.decode(0x4008000000000000n, ieee.DOUBLE),
        ieee.DOUBLE,
        mode,
      );
      expect(hex(board.f(4))).toBe(hex(expected.bits));
    }
  });

  const word = opFp(0, ieee.DOUBLE, 7, 4, 1, 2);
  it.each([5n, 6n, 7n])("a dynamic rounding mode of %s is illegal", (frm) => {
    board.reset();
    board.write("frm", frm);
    board.execute(word);
    expect(board.trap).toEqual({ cause: 2n, value: BigInt(word), pc: RAM });
  });

  it.each([5, 6])("a static rounding mode of %s is illegal", (rm) => {
    for (const funct5 of [0, 1, 2, 3, 0x0b, 0x18, 0x1a]) {
      board.reset();
      board.execute(opFp(funct5, ieee.DOUBLE, rm, 4, 1, 0));
      expect(board.trap?.cause, `funct5 ${funct5}`).toBe(2n);
    }
  });

  const touching: [string, number][] = [
    ["fadd.d", opFp(0, ieee.DOUBLE, 0, 4, 1, 2)],
    ["fmadd.s", encode.r(0x43, 0, 3 << 2, 4, 1, 2)],
    ["fld", encode.i(0x07, 3, 1, 5, 0)],
    ["flw", encode.i(0x07, 2, 1, 5, 0)],
    ["fsd", encode.s(0x27, 3, 5, 1, 0)],
    ["fsw", encode.s(0x27, 2, 5, 1, 0)],
    ["c.fld", 0x2088],
    ["c.fsd", 0xa088],
    ["csrr fflags", encode.csr(2, 6, 1, 0)],
    ["csrw frm", encode.csr(1, 0, 2, 5)],
    ["csrr fcsr", encode.csr(2, 6, 3, 0)],
  ];
  it.each(touching)("%s is illegal while FS is Off", (_, code) => {
    board.reset();
    board.write("sstatus", 0n);
    board.setX(5, RAM + 0x800n);
    board.setX(9, RAM + 0x800n);
    board.execute(code);
    expect(board.trap).toEqual({ cause: 2n, value: BigInt(code), pc: RAM });
  });

  it("a write of a floating-point register makes FS Dirty and SD read 1 (§4.1.1)", () => {
    for (const fs of [1n, 2n]) {
      board.reset();
      board.write("sstatus", fs << 13n);
      board.execute(opFp(0, ieee.DOUBLE, 0, 4, 1, 2), encode.csr(2, 6, 0x100, 0));
      expect(hex(board.x(6))).toBe(hex((1n << 63n) | (2n << 32n) | (3n << 13n)));
    }
  });
});
