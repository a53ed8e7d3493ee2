// Every way to set NZCV followed by every way to use it, over operands at their edges: the interpreter against the manual's definition of the conditions (C1.2.4), and translated code, which
// keeps flags as what they are made of, against the interpreter.
import { describe, expect, it } from "vitest";
import { Board, RAM } from "./board.ts";

const CODE = RAM + 0x1000n;
const OPERANDS = RAM + 0x4000n;
const RESULTS = RAM + 0x8000n;
const EDGES = [0n, 1n, 2n, 0x7fff_ffffn, 0x8000_0000n, 0xffff_ffffn, (1n << 63n) - 1n, 1n << 63n, (1n << 64n) - 1n];
const PAIRS = EDGES.flatMap((a) => EDGES.map((b) => [a, b] as const));

/** x2 = x0 op x1, flags set; X and W. */
const SETTERS: readonly (readonly [string, number])[] = [
  ["adds", 0xab010002],
  ["subs", 0xeb010002],
  ["ands", 0xea010002],
  ["bics", 0xea210002],
  ["adcs", 0xba010002],
  ["sbcs", 0xfa010002],
  ["adds w", 0x2b010002],
  ["subs w", 0x6b010002],
  ["ands w", 0x6a010002],
  ["sbcs w", 0x7a010002],
  ["ccmp x0, x1, #4, ne", 0xfa411004],
  ["ccmp w0, w1, #3, ge", 0x7a41a003],
  ["ccmn x0, x1, #9, lo", 0xba413009],
  ["cmp x0, #1", 0xf100041f],
  ["tst w0, #1", 0x7200001f],
];

/** Twice over the operands: x3 = the condition, stored with the flags, x6 counts branches taken. */
function program(setter: number, condition: number): number[] {
  const inverted = condition ^ 1;
  return [
    0xaa0903e4, // mov x4, x9
    0xaa0a03e5, // mov x5, x10
    0xaa0b03e8, // mov x8, x11
    0xa8c10480, // loop: ldp x0, x1, [x4], #16
    setter,
    (0x9a9f07e3 | (inverted << 12)) >>> 0, // cset x3, condition
    (0x54000040 | condition) >>> 0, // b.condition over the next one
    0x910004c6, // add x6, x6, #1
    0xd53b420c, // mrs x12, nzcv
    0xa88130a3, // stp x3, x12, [x5], #16
    0xd1000508, // sub x8, x8, #1
    0xb5ffff08, // cbnz x8, loop
    0x17fffff4, // b to the start
  ];
}

function run(words: readonly number[], translate: boolean): Board {
  const board = new Board({ translate: translate ? { interval: 64, samples: 1 } : false });
  board.place(CODE, ...words);
  for (const [i, [a, b]] of PAIRS.entries()) {
    board.store64(OPERANDS + BigInt(i * 16), a);
    board.store64(OPERANDS + BigInt(i * 16 + 8), b);
  }
  board.setX(9, OPERANDS);
  board.setX(10, RESULTS);
  board.setX(11, BigInt(PAIRS.length));
  board.write("pc", CODE);
  board.run(6 * PAIRS.length * 10);
  return board;
}

function holds(nzcv: number, condition: number): boolean {
  const [n, z, c, v] = [8, 4, 2, 1].map((bit) => (nzcv & bit) !== 0) as [boolean, boolean, boolean, boolean];
  const base = [z, c, n, v, c && !z, n === v, n === v && !z][condition >> 1]!;
  return (condition & 1) === 1 ? !base : base;
}

describe("conditions after each way to set flags", () => {
  it.each(SETTERS)("%s", (_name, setter) => {
    for (let condition = 0; condition < 14; condition++) {
      const words = program(setter, condition);
      const plain = run(words, false);
      const fast = run(words, true);
      expect(fast.core.translations).toBeGreaterThan(0);
      for (let i = 0; i < PAIRS.length; i++) {
        const at = RESULTS + BigInt(i * 16);
        const nzcv = Number(plain.load64(at + 8n) >> 28n);
        expect([condition, PAIRS[i], plain.load64(at)]).toEqual([
          condition,
          PAIRS[i],
          holds(nzcv, condition) ? 1n : 0n,
        ]);
        expect([condition, PAIRS[i], fast.load64(at), fast.load64(at + 8n)]).toEqual([
          ...[condition, PAIRS[i], plain.load64(at)],
          plain.load64(at + 8n),
        ]);
      }
      expect([condition, fast.x(6), fast.read("pc")]).toEqual([condition, plain.x(6), plain.read("pc")]);
    }
  });
});
