// Jumps and branches: targets, links, page crossings; and code that is changed, shared or straddles pages.
import { beforeAll, beforeEach, describe, expect, it } from "vitest";
import { Board, RAM } from "./board.ts";
import * as encode from "./encode.ts";
import { operands } from "./reference/integer.ts";

let board: Board;
beforeAll(() => {
  board = new Board();
});
beforeEach(() => board.reset());

const s64 = (value: bigint): bigint => BigInt.asIntN(64, value);
const BRANCHES = [
  { name: "beq", funct3: 0, taken: (a: bigint, b: bigint) => a === b },
  { name: "bne", funct3: 1, taken: (a: bigint, b: bigint) => a !== b },
  { name: "blt", funct3: 4, taken: (a: bigint, b: bigint) => s64(a) < s64(b) },
  { name: "bge", funct3: 5, taken: (a: bigint, b: bigint) => s64(a) >= s64(b) },
  { name: "bltu", funct3: 6, taken: (a: bigint, b: bigint) => a < b },
  { name: "bgeu", funct3: 7, taken: (a: bigint, b: bigint) => a >= b },
];
const FROM = RAM + 0x3800n;

describe("branches", () => {
  it.each(BRANCHES)("$name compares as the specification says", ({ funct3, taken }) => {
    board.place(FROM, encode.b(funct3, 5, 6, 64));
    for (const a of operands(5, 1)) {
      for (const b of operands(5, 2)) {
        board.pc = FROM;
        board.setX(5, a);
        board.setX(6, b);
        board.run(1);
        expect(board.pc, `${a}, ${b}`).toBe(FROM + (taken(a, b) ? 64n : 4n));
      }
    }
  });

  it.each(BRANCHES)("$name reaches -4096 … 4094 bytes", ({ funct3, taken }) => {
    for (const offset of [-4096, -2050, -2048, -2, 2, 2046, 2048, 4094]) {
      for (const equal of [true, false]) {
        board.place(FROM, encode.b(funct3, 5, 6, offset));
        board.pc = FROM;
        board.setX(5, 1n);
        board.setX(6, equal ? 1n : 2n);
        board.run(1);
        expect(board.pc, `${offset}`).toBe(FROM + (taken(1n, equal ? 1n : 2n) ? BigInt(offset) : 4n));
      }
    }
  });
});

describe("jumps", () => {
  it.each([-(1 << 19), -4096, -2050, -2, 2, 4, 2046, 2048, 4096, (1 << 19) - 2])(
    "jal by %d links behind itself",
    (offset) => {
      const from = RAM + 0x80800n;
      for (const rd of [0, 1]) {
        board.place(from, encode.j(rd, offset));
        board.pc = from;
        board.setX(1, 5n);
        board.run(1);
        expect(board.pc).toBe(from + BigInt(offset));
        expect(board.x(1)).toBe(rd === 0 ? 5n : from + 4n);
        expect(board.x(0)).toBe(0n);
      }
    },
  );

  it.each([0n, 0x100n, 0x1000n, -0x1000n, 0x7ffn])("jalr to %s from here clears bit 0 and links", (distance) => {
    for (const rd of [0, 1, 5]) {
      const target = FROM + distance;
      board.place(FROM, encode.jalr(rd, 5, -16));
      board.pc = FROM;
      board.setX(5, target + 16n);
      board.run(1);
      expect(board.pc).toBe(target & ~1n);
      if (rd !== 0) expect(board.x(rd)).toBe(FROM + 4n);
    }
  });

  it("a jump to where nothing is mapped faults at its target, with the link written", () => {
    board.place(FROM, encode.jalr(1, 5, 0), encode.NOP);
    board.pc = FROM;
    board.setX(5, 0x1000n);
    board.run(2);
    expect(board.trap).toEqual({ cause: 1n, value: 0x1000n, pc: 0x1000n });
    expect(board.x(1)).toBe(FROM + 4n);
  });
});

describe("code and pages", () => {
  const END = RAM + 0x4000n;
  it("runs straight over the end of a page", () => {
    board.place(END - 8n, encode.addi(5, 0, 1), encode.addi(6, 0, 2), encode.addi(7, 0, 3));
    board.pc = END - 8n;
    board.run(3);
    expect([board.x(5), board.x(6), board.x(7), board.pc]).toEqual([1n, 2n, 3n, END + 4n]);
  });

  it("executes an instruction whose halves lie in two pages, every time and as a jump target", () => {
    // li x5, 0 twice compressed; straddling addi x5, x5, 1; bne x5, x6, back
    board.place(END - 6n, 0x4281, 0x0001, encode.addi(5, 5, 1), encode.b(1, 5, 6, -4));
    board.setX(6, 10n);
    board.pc = END - 6n;
    board.run(2 + 20);
    expect([board.x(5), board.pc]).toEqual([10n, END + 6n]);
  });

  it.each([
    ["jal", encode.j(1, 0x40), 0x40n],
    ["branch backwards", encode.b(0, 0, 0, -0x40), -0x40n],
    ["auipc", encode.u(0x17, 5, 1), 4n],
    ["jump to itself", encode.j(0, 0), 0n],
  ])("a straddling %s computes from its own address", (_, code, distance) => {
    board.place(END - 2n, code);
    board.pc = END - 2n;
    board.run(1);
    expect(board.pc).toBe(END - 2n + distance);
    if (distance === 4n) expect(board.x(5)).toBe(END - 2n + 0x1000n);
    if (distance === 0x40n) expect(board.x(1)).toBe(END + 2n);
  });

  it("can jump into the middle of an instruction", () => {
    // the immediate of the lui holds c.li x5, 1 (0x4285)
    board.place(RAM, ((0x4285 << 16) | 0x0000_0037 | (6 << 7)) >>> 0);
    board.pc = RAM;
    board.run(1);
    board.pc = RAM + 2n;
    board.run(1);
    expect(board.x(5)).toBe(1n);
    expect(board.x(6)).toBe(0x4285_0000n);
  });

  it("sees its own stores to code after fence.i", () => {
    const patch = encode.addi(7, 0, 2);
    board.setX(5, RAM + 0x100n);
    board.setX(6, BigInt(patch));
    board.place(RAM + 0x100n, encode.addi(7, 0, 1), encode.jalr(0, 1, 0));
    board.execute(
      encode.jalr(1, 5, 0),
      encode.NOP,
      encode.store(2, 5, 6, 0),
      encode.FENCE_I,
      encode.jalr(1, 5, 0),
      encode.NOP,
    );
    board.run(4);
    expect(board.x(7)).toBe(2n);
  });

  it("sees a device's store to code after fence.i, and code it did not touch goes on", () => {
    board.place(RAM + 0x100n, encode.addi(7, 7, 1), encode.jalr(0, 1, 0));
    board.place(RAM, encode.j(1, 0x100), encode.FENCE_I, encode.j(1, 0xf8), encode.NOP);
    board.pc = RAM;
    board.setX(7, 0n);
    board.run(3);
    board.ram.setUint32(0x100, encode.addi(7, 7, 100), true);
    board.run(4);
    expect(board.x(7)).toBe(101n);
  });

  it("runs a working set larger than the decode cache", () => {
    const small = new Board({ decodePages: 4 });
    for (let page = 0; page < 32; page++) {
      small.place(RAM + BigInt(page * 4096), encode.addi(5, 5, 1), encode.j(0, page === 31 ? -(31 * 4096) - 4 : 4092));
    }
    small.setX(5, 0n);
    small.pc = RAM;
    small.run(32 * 2 * 3);
    expect(small.x(5)).toBe(96n);
    expect(small.pc).toBe(RAM);
  });

  it("a straddling instruction survives the decode cache being emptied by its second page", () => {
    const small = new Board({ decodePages: 4 });
    for (let page = 1; page <= 12; page++) {
      const end = RAM + BigInt(page * 4096);
      small.place(end - 2n, encode.addi(5, 5, 1), encode.j(0, page === 12 ? -(11 * 4096) - 4 : 4092));
    }
    small.setX(5, 0n);
    small.pc = RAM + 4094n;
    small.run(12 * 2 * 2);
    expect(small.x(5)).toBe(24n);
    expect(small.pc).toBe(RAM + 4094n);
  });
});
