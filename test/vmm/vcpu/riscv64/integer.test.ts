// Every integer instruction against reference/integer.ts: corner operands and random ones.
import { beforeAll, describe, expect, it } from "vitest";
import { Board, RAM } from "./board.ts";
import * as encode from "./encode.ts";
import { operands, REGISTER_IMMEDIATE, REGISTER_REGISTER } from "./reference/integer.ts";

let board: Board;
beforeAll(() => {
  board = new Board();
});

const hex = (value: bigint): string => `0x${BigInt.asUintN(64, value).toString(16)}`;

describe("instructions with two registers", () => {
  it.each(REGISTER_REGISTER)("$name computes what the specification says", ({ word, result }) => {
    board.place(RAM, word(7, 5, 6));
    for (const a of operands(12, 1)) {
      for (const b of operands(12, 2)) {
        board.pc = RAM;
        board.setX(5, a);
        board.setX(6, b);
        board.run(1);
        expect(hex(board.x(7)), `of ${hex(a)}, ${hex(b)}`).toBe(hex(result(a, b)));
      }
    }
  });

  it.each(REGISTER_REGISTER)("$name reads its operands before it writes its result", ({ word, result }) => {
    for (const a of operands(4, 3)) {
      board.setX(5, a);
      board.execute(word(5, 5, 5));
      expect(hex(board.x(5)), `of ${hex(a)} twice`).toBe(hex(result(a, a)));
    }
  });

  it.each(REGISTER_REGISTER)("$name into x0 leaves x0 zero", ({ word }) => {
    board.setX(5, 0x1234567n);
    board.setX(6, 3n);
    board.execute(word(0, 5, 6), encode.addi(8, 0, 0));
    expect(board.x(0)).toBe(0n);
    expect(board.x(8)).toBe(0n);
  });

  it.each(REGISTER_REGISTER)("$name reads x0 as zero", ({ word, result }) => {
    const a = 0xfedcba9876543210n;
    board.setX(5, a);
    board.execute(word(7, 0, 5), word(8, 5, 0));
    expect(hex(board.x(7))).toBe(hex(result(0n, a)));
    expect(hex(board.x(8))).toBe(hex(result(a, 0n)));
  });
});

describe("instructions with an immediate", () => {
  const immediates = {
    signed12: [-2048, -2047, -1, 0, 1, 5, 63, 64, 1024, 2047],
    shift6: [0, 1, 7, 31, 32, 33, 63],
    shift5: [0, 1, 7, 15, 16, 31],
    none: [0],
  };
  it.each(REGISTER_IMMEDIATE)("$name computes what the specification says", (instruction) => {
    for (const immediate of immediates[instruction.immediates]) {
      board.place(RAM, instruction.word(7, 5, immediate), instruction.word(7, 0, immediate));
      for (const a of operands(12, 4)) {
        board.pc = RAM;
        board.setX(5, a);
        board.run(1);
        const expected = hex(instruction.result(a, BigInt(immediate)));
        expect(hex(board.x(7)), `of ${hex(a)}, ${immediate}`).toBe(expected);
      }
      board.run(1);
      expect(hex(board.x(7)), `of x0, ${immediate}`).toBe(hex(instruction.result(0n, BigInt(immediate))));
    }
  });
});

describe("lui and auipc", () => {
  it.each([0, 1, 0x7ffff, 0x80000, 0xfffff])("sign-extend the upper immediate %#x", (upper) => {
    board.execute(encode.lui(5, upper), encode.u(0x17, 6, upper));
    const value = BigInt.asIntN(32, BigInt(upper) << 12n);
    expect(hex(board.x(5))).toBe(hex(value));
    expect(hex(board.x(6))).toBe(hex(RAM + 4n + value));
  });

  it("auipc adds to the address of its own instruction anywhere in a page", () => {
    const at = RAM + 0xffcn;
    board.place(at, encode.u(0x17, 6, 0x7ffff));
    board.pc = at;
    board.run(1);
    expect(hex(board.x(6))).toBe(hex(at + 0x7ffff000n));
  });
});
