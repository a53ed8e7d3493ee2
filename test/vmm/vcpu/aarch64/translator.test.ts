// Translated code against the interpreter: random programs that loop, with everything the translator knows and much that it leaves to the interpreter. Registers, vectors, flags, memory, time
// and instruction counts must be the same at every budget. (The interpreter is held by integer.test.ts and second-opinion.test.ts.)
import { describe, expect, it } from "vitest";
import { SeededRandom } from "../../../../host/base/seeded-random.ts";
import { Board, RAM, VECTORS } from "./board.ts";
import { randomInstruction } from "./random-instructions.ts";
import { randomVector, randomVectorInstruction } from "./random-vector-instructions.ts";

const CODE = RAM + 0x1000n;
const DATA = 0x1_0000;
const LENGTH = 150;

const movz = (d: number, value: number, half: number): number => (0xd2800000 | (half << 21) | (value << 5) | d) >>> 0;
const movk = (d: number, value: number, half: number): number => (0xf2800000 | (half << 21) | (value << 5) | d) >>> 0;
/** x1 = the middle of the data, x2 = a small index. */
const BASES = [movz(1, 0x8001, 1), movk(1, 0x8004, 0), movz(2, 24, 0)];
/** Goes on behind the instruction that an exception names: mrs x30, elr_el1; add x30, x30, #4; msr elr_el1, x30; eret. */
const SKIP = [0xd538403e, 0x910013de, 0xd518403e, 0xd69f03e0];

function branches(code: number): boolean {
  return ((code >>> 26) & 0b000111) === 0b000101;
}

/** A loop of random instructions; branches among them go forward, by up to eight. */
function program(random: SeededRandom): number[] {
  const below = (bound: number): number => random.below(bound);
  const words: number[] = [];
  while (words.length < LENGTH) {
    if (below(12) === 0) words.push(...BASES);
    const forward = (1 + below(8)) * 32;
    const kind = below(14);
    if (kind === 0)
      words.push((0x54000000 | forward | below(16)) >>> 0); // b.cond
    else if (kind === 1) words.push(((below(2) << 31) | 0x34000000 | (below(2) << 24) | forward | below(31)) >>> 0);
    else if (kind === 2) words.push(((below(2) << 31) | 0x36000000 | (below(64) << 19) | forward | below(31)) >>> 0);
    else if (kind === 3)
      words.push([0xc85f7c20, 0x885ffc25, 0xc8037c26, 0x8806fc27, 0x085f7c28, 0xd53b4200][below(6)]!); // exclusives, mrs x0, nzcv
    else if (kind === 4)
      words.push([0xf8400823, 0x38000824, 0xd50b7421, 0xd53bd043, 0xd5384105, 0xd53b00e6][below(6)]!); // LDTR, STTR, DC ZVA, MRS
    else if (kind < 8) {
      words.push(randomVectorInstruction(below));
    } else {
      const code = randomInstruction(below);
      if (!branches(code)) words.push(code);
    }
  }
  for (let n = 0; n < 9; n++) words.push(0xd503201f);
  words.push((0x14000000 | (-words.length & 0x3ffffff)) >>> 0); // b to the start
  return words;
}

function prepared(words: readonly number[], seed: number, translate: boolean): Board {
  const random = new SeededRandom(seed);
  const below = (bound: number): number => random.below(bound);
  const board = new Board({ ramBytes: 0x2_1000, translate: translate ? { interval: 64, samples: 1 } : false });
  for (let vector = 0; vector < 0x800; vector += 0x80) board.place(VECTORS + BigInt(vector), ...SKIP);
  board.place(CODE, ...words);
  for (let i = 0; i < 0x1_0000; i++) board.core.ram[DATA + i] = below(256);
  for (let i = 0; i < 31; i++) board.setX(i, (BigInt(below(2 ** 32)) << 32n) | BigInt(below(2 ** 32)));
  for (let i = 0; i < 32; i++) board.core.setV(0, i, randomVector(below));
  board.setX(1, RAM + BigInt(DATA) + 0x8004n);
  board.setX(2, 24n);
  board.write("cpacr_el1", 3n << 20n);
  board.write("tpidr_el0", 0x1234n);
  board.write("sp", RAM + BigInt(DATA) + 0x4000n);
  board.write("pc", CODE);
  return board;
}

function state(board: Board): unknown {
  return {
    x: Array.from({ length: 31 }, (_, i) => board.x(i).toString(16)),
    v: Array.from({ length: 32 }, (_, i) => board.core.v(0, i).toString(16)),
    rest: (["sp", "pc", "nzcv", "elr_el1", "esr_el1", "far_el1", "spsr_el1", "fpcr", "instret"] as const).map((it) =>
      board.read(it).toString(16),
    ),
    now: board.core.now,
  };
}

describe("translated code", () => {
  it.each(Array.from({ length: 24 }, (_, i) => i + 1))("does what the interpreter does, program %d", (seed) => {
    const words = program(new SeededRandom(seed));
    const plain = prepared(words, seed, false);
    const fast = prepared(words, seed, true);
    const budgets = new SeededRandom(seed + 1000);
    for (let slice = 0; slice < 120; slice++) {
      const budget = 1 + budgets.below(slice % 3 === 0 ? 20 : 900);
      plain.run(budget);
      fast.run(budget);
      expect([slice, state(fast)]).toEqual([slice, state(plain)]);
    }
    expect(Buffer.compare(plain.core.ram, fast.core.ram)).toBe(0);
    expect(fast.core.translations).toBeGreaterThan(0);
  });
});

describe("a region that uses many registers", () => {
  // Few of them are held in locals throughout; the flags are in memory then, and made of what set them only where that was in this region.
  it("has the carry that was in the register, where it is entered again each round", () => {
    const add = (d: number, n: number, m: number): number => (0x8b000000 | (m << 16) | (n << 5) | d) >>> 0;
    const words = [0xd53be055, 0x9a1f0000]; // mrs x21, cntvct_el0, the interpreter's; adc x0, x0, xzr
    for (let n = 0; n < 24; n++) {
      const d = 1 + (n % 12);
      words.push(add(d, d, (d % 12) + 1), add(d, d, d), (0xb4000020 | 20) >>> 0); // cbz x20, to the next
    }
    words.push(0xf1000673, (0x54000001 | (((-words.length - 1) & 0x7ffff) * 32)) >>> 0, 0xd503207f); // subs x19, x19, #1; b.ne; wfi
    for (const translate of [false, { interval: 64, samples: 1 }]) {
      const board = new Board({ translate });
      for (let i = 0; i < 31; i++) board.setX(i, BigInt(i));
      board.setX(0, 0n);
      board.setX(19, 1000n);
      board.place(RAM, ...words);
      board.write("pc", RAM);
      for (let runs = 0; runs < 1000 && board.x(19) !== 0n; runs++) board.run(1000);
      expect(board.core.translations > 0).toBe(translate !== false);
      // the first round begins without one; each SUBS leaves one
      expect(board.x(0)).toBe(999n);
    }
  });
});
