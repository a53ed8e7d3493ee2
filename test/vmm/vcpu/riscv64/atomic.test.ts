// The A extension: AMOs against bigint arithmetic, lr/sc and what breaks a reservation.
import { beforeAll, beforeEach, describe, expect, it } from "vitest";
import { Board, RAM } from "./board.ts";
import * as encode from "./encode.ts";
import { operands } from "./reference/integer.ts";

let board: Board;
beforeAll(() => {
  board = new Board();
});
beforeEach(() => board.reset());

const DATA = RAM + 0x2000n;
const min = (a: bigint, b: bigint): bigint => (a < b ? a : b);
const max = (a: bigint, b: bigint): bigint => (a > b ? a : b);
const AMOS = [
  { name: "amoadd", funct5: 0x00, signed: true, result: (a: bigint, b: bigint) => a + b },
  { name: "amoswap", funct5: 0x01, signed: true, result: (_: bigint, b: bigint) => b },
  { name: "amoxor", funct5: 0x04, signed: true, result: (a: bigint, b: bigint) => a ^ b },
  { name: "amoor", funct5: 0x08, signed: true, result: (a: bigint, b: bigint) => a | b },
  { name: "amoand", funct5: 0x0c, signed: true, result: (a: bigint, b: bigint) => a & b },
  { name: "amomin", funct5: 0x10, signed: true, result: min },
  { name: "amomax", funct5: 0x14, signed: true, result: max },
  { name: "amominu", funct5: 0x18, signed: false, result: min },
  { name: "amomaxu", funct5: 0x1c, signed: false, result: max },
];

describe.each([32, 64])("AMOs of %d bits", (width) => {
  const wide = width === 64;
  it.each(AMOS)("$name returns the old value, sign-extended, and stores the result", ({ funct5, signed, result }) => {
    board.place(RAM, encode.amo(funct5, wide, 7, 5, 6));
    const cut = signed ? BigInt.asIntN : BigInt.asUintN;
    for (const a of operands(6, 1)) {
      for (const b of operands(6, 2)) {
        board.store64(DATA, a);
        board.pc = RAM;
        board.setX(5, DATA);
        board.setX(6, b);
        board.run(1);
        const stored = BigInt.asUintN(width, result(cut(width, a), cut(width, b)));
        const whole = wide ? stored : ((BigInt.asUintN(64, a) >> 32n) << 32n) | stored;
        expect(board.load64(DATA).toString(16), `${a}, ${b}`).toBe(whole.toString(16));
        expect(board.x(7)).toBe(BigInt.asUintN(64, BigInt.asIntN(width, a)));
      }
    }
  });

  it.each(AMOS)("$name works with rd = rs1 = rs2 and with rd = x0", ({ funct5, signed, result }) => {
    const cut = signed ? BigInt.asIntN : BigInt.asUintN;
    board.store64(DATA, 5n);
    board.setX(5, DATA);
    board.setX(6, DATA);
    board.execute(encode.amo(funct5, wide, 5, 5, 5), encode.amo(1, wide, 0, 6, 0));
    expect(board.x(5)).toBe(5n);
    expect(board.load64(DATA) & 0xffffffffn).toBe(0n);
    board.store64(DATA, 5n);
    board.setX(5, DATA);
    board.execute(encode.amo(funct5, wide, 0, 5, 5));
    const stored = BigInt.asUintN(width, result(cut(width, 5n), cut(width, DATA)));
    expect(board.load64(DATA)).toBe(stored);
    expect(board.x(0)).toBe(0n);
  });

  it("a misaligned address is store/AMO address misaligned, for lr load address misaligned", () => {
    for (const [funct5, cause] of [
      [0, 6n],
      [1, 6n],
      [3, 6n],
      [2, 4n],
    ] as const) {
      board.reset();
      board.setX(5, DATA + 2n);
      board.execute(encode.amo(funct5, wide, 7, 5, 0));
      expect(board.trap).toEqual({ cause, value: DATA + 2n, pc: RAM });
    }
  });

  it("aq and rl change nothing that one hart can see", () => {
    board.store64(DATA, 1n);
    board.setX(5, DATA);
    board.setX(6, 2n);
    board.execute(encode.amo(0, wide, 7, 5, 6) | (3 << 25));
    expect(board.load64(DATA)).toBe(3n);
  });
});

describe("lr and sc", () => {
  const lr = (wide = true): number => encode.amo(2, wide, 7, 5, 0);
  const sc = (wide = true): number => encode.amo(3, wide, 8, 5, 6);
  const prepare = (): void => {
    board.store64(DATA, 0xffffffff_80000000n);
    board.setX(5, DATA);
    board.setX(6, 99n);
    board.setX(8, 77n);
  };

  it.each([true, false])("sc after lr stores and returns 0 (doubleword: %s)", (wide) => {
    prepare();
    board.execute(lr(wide), sc(wide));
    expect(board.x(7)).toBe(0xffffffff_80000000n);
    expect(board.x(8)).toBe(0n);
    expect(board.load64(DATA)).toBe(wide ? 99n : 0xffffffff_00000063n);
  });

  it("sc without a reservation fails with a non-zero code and stores nothing", () => {
    prepare();
    board.execute(sc());
    expect(board.x(8)).toBe(1n);
    expect(board.load64(DATA)).toBe(0xffffffff_80000000n);
  });

  it("a second sc fails: every sc gives up the reservation", () => {
    prepare();
    board.execute(lr(), sc(), sc());
    expect(board.x(8)).toBe(1n);
  });

  it("a failed sc gives up the reservation too", () => {
    prepare();
    board.setX(9, DATA + 64n);
    board.execute(lr(), encode.amo(3, true, 8, 9, 6), sc());
    expect(board.x(8)).toBe(1n);
  });

  it("sc to another address, or of another size, fails", () => {
    prepare();
    board.setX(9, DATA + 8n);
    board.execute(lr(), encode.amo(3, true, 8, 9, 6));
    expect(board.x(8)).toBe(1n);
    prepare();
    board.execute(lr(true), sc(false));
    expect(board.x(8)).toBe(1n);
  });

  it("sc fails if the word changed in between", () => {
    prepare();
    board.setX(9, 5n);
    board.execute(lr(), encode.sd(9, 5, 0), sc());
    expect(board.x(8)).toBe(1n);
    expect(board.load64(DATA)).toBe(5n);
  });

  it("sc fails if a device changed the word in between", () => {
    prepare();
    board.place(RAM, lr(), sc());
    board.pc = RAM;
    board.run(1);
    board.store64(DATA, 1n);
    board.run(1);
    expect(board.x(8)).toBe(1n);
  });

  it("lr with a non-zero rs2 field is illegal", () => {
    board.execute(encode.amo(2, true, 7, 5, 6));
    expect(board.trap?.cause).toBe(2n);
  });
});
