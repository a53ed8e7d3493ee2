// Loads and stores of a small loop in translated code, which remember the page that they had last (engine/translator/region-writer.ts), against the interpreter.
import { createHash } from "node:crypto";
import { describe, expect, it } from "vitest";
import { Board, RAM } from "./board.ts";
import * as encode from "./encode.ts";
import { generator } from "./reference/integer.ts";

describe("a small loop's accesses, which remember the page that they had last", () => {
  const LOADS = [0, 1, 2, 3, 4, 5, 6];
  const ROUNDS = 200;
  const run = (
    translate: false | { interval: number; samples: number },
    funct3: number,
    from: bigint,
    stride: bigint,
  ) => {
    const board = new Board({ ramBytes: 0x1_0000, translate });
    const random = generator(7);
    for (let at = 0x4000; at < 0xe000; at += 8) board.store64(RAM + BigInt(at), BigInt(random()));
    // load x10, (x5); x11 += x10; store x11, (x6); x5 += x7; x6 += x9; x8--; loop
    board.place(
      RAM,
      encode.load(funct3, 10, 5, 0),
      encode.r(0x33, 0, 0, 11, 11, 10),
      encode.store(funct3 & 3, 6, 11, 0),
      encode.r(0x33, 0, 0, 5, 5, 7),
      encode.r(0x33, 0, 0, 6, 6, 9),
      encode.addi(8, 8, -1),
      encode.b(1, 8, 0, -24),
      encode.j(0, 0),
    );
    const seen: unknown[] = [];
    // the second time translated from the start
    for (let n = 0; n < 3; n++) {
      board.setX(5, from);
      board.setX(6, RAM + 0x8ff0n + BigInt(n));
      board.setX(7, stride);
      board.setX(8, BigInt(ROUNDS));
      board.setX(9, n === 0 ? 8n : stride);
      board.setX(11, 0n);
      board.write("scause", 0n);
      board.write("stval", 0n);
      board.pc = RAM;
      board.run(ROUNDS * 7);
      const words = [5, 6, 8, 10, 11].map((x) => board.x(x));
      seen.push([...words, board.pc, board.read("scause"), board.read("stval"), board.core.executed]);
    }
    const sum = createHash("sha256").update(board.core.ram).digest("hex");
    return { seen, sum, log: board.port.log.length, translated: board.core.translations > 0 };
  };

  it.each(LOADS)("of load %i are as interpreted, at the ends of pages, across them and beyond RAM", (funct3) => {
    const starts = [RAM + 0x4ff0n, RAM + 0x5001n, RAM + 0xd000n, RAM + 0xff00n, 0n, 1n << 63n, -4096n, RAM - 0x10n];
    for (const from of starts)
      for (const stride of [1n, 3n, 8n, -1n, -8n, 4095n, 4096n, -4096n]) {
        const plain = run(false, funct3, from, stride);
        const fast = run({ interval: 64, samples: 1 }, funct3, from, stride);
        const what = `from ${from.toString(16)} by ${stride}`;
        expect([what, fast.seen, fast.sum, fast.log]).toEqual([what, plain.seen, plain.sum, plain.log]);
      }
  });
});
