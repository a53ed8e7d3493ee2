// Translated code against the references and against the interpreter: the same results, the same traps at the same instructions, the same counts.
import { describe, expect, it } from "vitest";
import { stream } from "../../../fuzz/cpu.ts";
import { INTERPRETED } from "../engine/configurations.ts";
import { Board, Exit, RAM } from "./board.ts";
import { coreModule } from "./core-module.ts";
import * as encode from "./encode.ts";
import { fill, ZCB_ROWS } from "./reference/compressed.ts";
import { generator, operands, REGISTER_IMMEDIATE, REGISTER_REGISTER } from "./reference/integer.ts";

const EAGER = { interval: 16, samples: 1 };
const INPUT = RAM + 0x10000n;
const OUTPUT = RAM + 0x20000n;
const BOX = 0xffffffff00000000n;
const hex = (value: bigint): string => `0x${BigInt.asUintN(64, value).toString(16)}`;

/** Runs until wfi. */
function finish(board: Board, limit = 200_000): void {
  for (let left = limit; left > 0; ) {
    const before = board.core.executed;
    if (board.run(left) === Exit.Wfi) return;
    left -= board.core.executed - before;
  }
  throw new Error("the program did not end");
}

/** A loop that loads x5, x6 from INPUT, executes `words`, stores x7 to OUTPUT; as many rounds as there are pairs. */
function overPairs(
  words: number[],
  pairs: readonly (readonly [bigint, bigint])[],
): { results: bigint[]; board: Board } {
  const board = new Board({ translate: EAGER });
  pairs.forEach(([a, b], n) => {
    board.store64(INPUT + BigInt(n * 16), a);
    board.store64(INPUT + BigInt(n * 16 + 8), b);
  });
  const size = words.reduce((sum, word) => sum + ((word & 3) === 3 ? 4 : 2), 0);
  board.place(
    RAM,
    encode.ld(5, 10, 0),
    encode.ld(6, 10, 8),
    ...words,
    encode.sd(7, 11, 0),
    encode.addi(10, 10, 16),
    encode.addi(11, 11, 8),
    encode.addi(12, 12, -1),
    encode.b(1, 12, 0, -(size + 24)),
    encode.WFI,
  );
  board.setX(10, INPUT);
  board.setX(11, OUTPUT);
  board.setX(12, BigInt(pairs.length));
  board.setX(13, RAM + 0x30000n);
  board.pc = RAM;
  finish(board);
  return { results: pairs.map((_, n) => board.load64(OUTPUT + BigInt(n * 8))), board };
}

function allPairs(): [bigint, bigint][] {
  const list: [bigint, bigint][] = [];
  for (const a of operands(6, 1)) for (const b of operands(6, 2)) list.push([a, b]);
  return list;
}

describe("translated instructions", () => {
  it.each(REGISTER_REGISTER)("$name computes what the specification says", ({ word, result }) => {
    const pairs = allPairs();
    const { results, board } = overPairs([word(7, 5, 6)], pairs);
    expect(board.core.translations).toBeGreaterThan(0);
    pairs.forEach(([a, b], n) => {
      expect(hex(results[n]!), `of ${hex(a)}, ${hex(b)}`).toBe(hex(result(a, b)));
    });
  });

  it.each(REGISTER_REGISTER)("$name with one register for everything, and with x0", ({ word, result }) => {
    const pairs = allPairs();
    const { results } = overPairs([word(5, 5, 5), word(8, 0, 6), encode.r(0x33, 4, 0, 7, 5, 8)], pairs);
    pairs.forEach(([a, b], n) => {
      expect(hex(results[n]!), `of ${hex(a)}, ${hex(b)}`).toBe(hex(result(a, a) ^ BigInt.asUintN(64, result(0n, b))));
    });
  });

  const immediates = { signed12: [-2048, -1, 0, 1, 2047], shift6: [0, 1, 31, 32, 63], shift5: [0, 1, 31], none: [0] };
  it.each(REGISTER_IMMEDIATE)("$name computes what the specification says", (instruction) => {
    const pairs = allPairs();
    for (const immediate of immediates[instruction.immediates]) {
      const { results } = overPairs([instruction.word(7, 5, immediate)], pairs);
      pairs.forEach(([a], n) => {
        expect(hex(results[n]!), `of ${hex(a)}, ${immediate}`).toBe(hex(instruction.result(a, BigInt(immediate))));
      });
    }
  });

  // x8 takes x5 (an address for loads and stores), x9 takes x6; what the instruction makes of x8 is stored
  it.each(ZCB_ROWS)("$name does what its expansion does", (row) => {
    const pairs = allPairs();
    const accesses = /^c\.(l|s[bh]$)/.test(row.name);
    const loads = row.name.startsWith("c.l");
    const halfword = fill(row, { rd: 8, rs2: 9, imm: accesses ? 2 : 0 });
    const around = (word: number): number[] => [
      encode.addi(9, 6, 0),
      ...(accesses
        ? [encode.addi(8, 13, 0), encode.sd(5, 8, 0), word, loads ? encode.addi(7, 9, 0) : encode.ld(7, 8, 0)]
        : [encode.addi(8, 5, 0), word, encode.addi(7, 8, 0)]),
    ];
    const compressed = overPairs(around(halfword), pairs);
    const expanded = overPairs(around(row.expand({ rd: 8, rs2: 9, imm: accesses ? 2 : 0 })), pairs);
    expect(compressed.board.core.translations).toBeGreaterThan(0);
    expect(compressed.results.map(hex)).toEqual(expanded.results.map(hex));
    expect(compressed.board.core.executed).toBe(expanded.board.core.executed);
  });

  const branches: [string, number, (a: bigint, b: bigint) => boolean][] = [
    ["beq", 0, (a, b) => a === b],
    ["bne", 1, (a, b) => a !== b],
    ["blt", 4, (a, b) => BigInt.asIntN(64, a) < BigInt.asIntN(64, b)],
    ["bge", 5, (a, b) => BigInt.asIntN(64, a) >= BigInt.asIntN(64, b)],
    ["bltu", 6, (a, b) => a < b],
    ["bgeu", 7, (a, b) => a >= b],
  ];
  it.each(branches)("%s", (_, funct3, taken) => {
    const pairs = allPairs();
    const { results } = overPairs([encode.addi(7, 0, 1), encode.b(funct3, 5, 6, 8), encode.addi(7, 0, 0)], pairs);
    pairs.forEach(([a, b], n) => {
      expect(results[n], `of ${hex(a)}, ${hex(b)}`).toBe(taken(a, b) ? 1n : 0n);
    });
  });

  const widths: [number, number, number, (v: bigint) => bigint][] = [
    [0, 0, 1, (v) => BigInt.asIntN(8, v)],
    [1, 1, 2, (v) => BigInt.asIntN(16, v)],
    [2, 2, 4, (v) => BigInt.asIntN(32, v)],
    [3, 3, 8, (v) => v],
    [4, 0, 1, (v) => BigInt.asUintN(8, v)],
    [5, 1, 2, (v) => BigInt.asUintN(16, v)],
    [6, 2, 4, (v) => BigInt.asUintN(32, v)],
  ];
  it.each(widths)("load %d after store %d, over a page's end and misaligned", (loaded, stored, size, extend) => {
    // x5 the value, x13 walks through a page's end a byte at a time
    const pairs = allPairs().slice(0, 64);
    const board = new Board({ translate: EAGER });
    board.place(
      RAM,
      encode.ld(5, 10, 0),
      encode.store(stored, 13, 5, 0),
      encode.load(loaded, 7, 13, 0),
      encode.sd(7, 11, 0),
      encode.addi(10, 10, 8),
      encode.addi(11, 11, 8),
      encode.addi(13, 13, 1),
      encode.addi(12, 12, -1),
      encode.b(1, 12, 0, -32),
      encode.WFI,
    );
    pairs.forEach(([a], n) => {
      board.store64(INPUT + BigInt(n * 8), a ^ 0x8182838485868788n);
    });
    board.setX(10, INPUT);
    board.setX(11, OUTPUT);
    board.setX(12, 64n);
    board.setX(13, RAM + 0x30fe0n);
    board.pc = RAM;
    finish(board);
    expect(board.core.translations).toBeGreaterThan(0);
    pairs.forEach(([a], n) => {
      const cut = BigInt.asUintN(8 * size, a ^ 0x8182838485868788n);
      expect(hex(board.load64(OUTPUT + BigInt(n * 8)))).toBe(hex(extend(cut)));
    });
  });

  it("an integer operand that the core's function reads is the one written last, by code behind it too", () => {
    // the same block again and again: what it counts up is read at its beginning, before anything of the block has written it
    const board = new Board({ translate: { interval: 64, samples: 1 } });
    const rounds = 5000;
    const [fmvDX, fmvXD] = [encode.r(0x53, 0, 0x79, 1, 5, 0), encode.r(0x53, 0, 0x71, 7, 1, 0)];
    const sum = [fmvDX, fmvXD, encode.r(0x33, 0, 0, 8, 8, 7), encode.addi(5, 5, 1), encode.addi(12, 12, -1)];
    board.place(RAM, ...sum, encode.b(1, 12, 0, -4 * sum.length), encode.WFI);
    board.write("sstatus", 1n << 13n);
    board.setX(5, 0n);
    board.setX(8, 0n);
    board.setX(12, BigInt(rounds));
    board.pc = RAM;
    finish(board);
    expect(board.core.translations).toBeGreaterThan(0);
    expect(board.x(8)).toBe(BigInt((rounds * (rounds - 1)) / 2));
  });

  it("calls and returns, near and far, link and come back", () => {
    const board = new Board({ translate: EAGER });
    const far = RAM + 0x5000n;
    board.place(far, encode.addi(7, 7, 100), encode.jalr(0, 1, 0));
    board.place(RAM + 0x200n, encode.addi(7, 7, 1), encode.jalr(0, 1, 0));
    board.place(
      RAM,
      encode.j(1, 0x200),
      encode.u(0x17, 6, 5), // auipc: RAM + 4 + 0x5000
      encode.jalr(1, 6, -4),
      encode.j(1, 0x5000 - 12),
      encode.jalr(9, 9, 20), // x9: in-page jump to RAM + 24 that links into its own base
      encode.addi(7, 7, 1000),
      encode.addi(9, 9, -20),
      encode.addi(12, 12, -1),
      encode.b(1, 12, 0, -32),
      encode.WFI,
    );
    board.setX(9, RAM + 4n);
    board.setX(7, 0n);
    board.setX(12, 500n);
    board.pc = RAM;
    // x9 = RAM + 20 after the link; − 20 + … walks: reset it every round instead
    board.place(RAM + 24n, encode.addi(9, 9, -16));
    finish(board);
    expect(board.x(7)).toBe(500n * 201n);
    expect(board.x(9)).toBe(RAM + 4n);
  });
});

describe("precision", () => {
  it("a fault in the middle of a translated block shows exactly what was executed before it", () => {
    for (const translate of [EAGER, false] as const) {
      const board = new Board({ translate });
      // x6 walks until its doubleword reaches over the end of RAM; x7 counts before, x8 behind the load
      board.place(
        RAM,
        encode.addi(7, 7, 1),
        encode.ld(9, 6, 0),
        encode.addi(8, 8, 1),
        encode.addi(6, 6, 8),
        encode.j(0, -16),
      );
      const end = RAM + BigInt(board.core.ramBytes);
      board.setX(6, end - 4n - 8n * 1000n);
      board.setX(7, 0n);
      board.setX(8, 0n);
      board.pc = RAM;
      board.run(1000 * 5 + 2);
      expect(board.trap).toEqual({ cause: 5n, value: end, pc: RAM + 4n });
      expect([board.x(6), board.x(7), board.x(8)]).toEqual([end - 4n, 1001n, 1000n]);
      expect(board.read("instret")).toBe(5002n);
    }
  });

  it("a timer interrupts a translated loop at the instruction it interrupts an interpreted one", () => {
    for (const translate of [EAGER, { interval: 7, samples: 1 }, false] as const) {
      const board = new Board({ translate });
      board.place(RAM, encode.addi(5, 5, 1), encode.addi(6, 6, 1), encode.j(0, -8));
      board.setX(5, 0n);
      board.setX(6, 0n);
      board.core.now = 0;
      board.write("stimecmp", 1000n); // 10 000 instructions
      board.write("sie", 1n << 5n);
      board.write("sstatus", 2n);
      board.pc = RAM;
      board.run(10_001);
      expect(board.read("scause")).toBe((1n << 63n) | 5n);
      expect([board.x(5), board.x(6), board.read("sepc")]).toEqual([3334n, 3333n, RAM + 4n]);
    }
  });

  it("code that changes itself is right after fence.i, translated or not", () => {
    for (const translate of [EAGER, false] as const) {
      const board = new Board({ translate });
      // a loop that stores a new addi x7, x7, k into itself every round, k from x6's upper bits
      board.place(
        RAM,
        encode.addi(7, 7, 1),
        encode.u(0x37, 13, 0x100), // 1 << 20: one more in the immediate
        encode.load(2, 5, 10, 0),
        encode.r(0x3b, 0, 0, 5, 5, 13),
        encode.store(2, 10, 5, 0),
        encode.FENCE_I,
        encode.addi(12, 12, -1),
        encode.b(1, 12, 0, -28),
        encode.WFI,
      );
      board.setX(7, 0n);
      board.setX(10, RAM);
      board.setX(12, 300n);
      board.pc = RAM;
      finish(board);
      expect(board.x(7)).toBe(BigInt((300 * 301) / 2));
    }
  });

  it("the same virtual code at two physical places runs as what it is there", () => {
    // two pages of the same addresses: each translated on its own
    const board = new Board({ translate: EAGER });
    const root = RAM + 0x40000n;
    const pages = [RAM + 0x50000n, RAM + 0x51000n];
    const va = 0x1000n;
    pages.forEach((page, n) => {
      board.place(
        page,
        encode.addi(7, 7, n === 0 ? 1 : 1000),
        encode.addi(12, 12, -1),
        encode.b(1, 12, 0, -8),
        encode.WFI,
      );
    });
    board.store64(root, (((RAM + 0x41000n) >> 12n) << 10n) | 1n);
    board.store64(RAM + 0x41000n, (((RAM + 0x42000n) >> 12n) << 10n) | 1n);
    board.setX(7, 0n);
    for (let round = 0; round < 6; round++) {
      board.store64(RAM + 0x42000n + 8n, ((pages[round % 2]! >> 12n) << 10n) | 0xcbn);
      board.write("satp", (8n << 60n) | (root >> 12n));
      board.core.flushTranslations(0);
      board.setX(12, 100n);
      board.pc = va;
      finish(board);
    }
    expect(board.x(7)).toBe(300n + 300_000n);
    expect(board.core.translations).toBeGreaterThan(1);
  });
});

describe("a page table changed without sfence.vma", () => {
  const root = RAM + 0x40000n;
  const pages = [RAM + 0x50000n, RAM + 0x51000n] as const;
  const leaf = (page: bigint, bits: bigint): bigint => ((page >> 12n) << 10n) | bits;

  /** Rounds that map page 1 elsewhere, access it by `words` (x5: address in it, x7: result) and sum the results; both pages' first words, and the sum. */
  function run(words: readonly number[], translate: typeof EAGER | false): { seen: bigint[]; board: Board } {
    const board = new Board({ translate });
    const code = RAM + 0x60000n;
    board.place(
      code,
      encode.r(0x33, 4, 0, 8, 8, 9), // the other page's entry
      encode.sd(8, 10, 8),
      ...words,
      encode.r(0x33, 0, 0, 11, 11, 7),
      encode.addi(12, 12, -1),
      encode.b(1, 12, 0, -4 * (words.length + 4)),
      encode.WFI,
    );
    board.store64(root, leaf(root + 0x1000n, 1n));
    board.store64(root + 0x1000n, leaf(root + 0x2000n, 1n));
    board.store64(root + 0x2000n, leaf(code, 0xcfn)); // 0: code
    board.store64(root + 0x2010n, leaf(root + 0x2000n, 0xc7n)); // 2: the table itself
    board.setX(5, 0x1000n);
    board.setX(8, leaf(pages[0], 0xc7n));
    board.setX(9, leaf(pages[0], 0xc7n) ^ leaf(pages[1], 0xc7n));
    board.setX(10, 0x2000n);
    board.setX(6, 1n);
    board.setX(11, 0n);
    board.setX(12, 101n);
    board.store64(pages[0], 0n);
    board.store64(pages[1], 1_000_000n);
    board.write("satp", (8n << 60n) | (root >> 12n));
    board.core.flushTranslations(0);
    board.pc = 0n;
    finish(board);
    return { seen: [board.load64(pages[0]), board.load64(pages[1]), board.x(11)], board };
  }

  const accesses: [string, number[]][] = [
    ["amoadd.d behind a store", [encode.sd(6, 5, 8), encode.amo(0, true, 7, 5, 6)]],
    ["amoadd.d alone", [encode.amo(0, true, 7, 5, 6)]],
    ["lr.d and sc.d", [encode.amo(2, true, 7, 5, 0), encode.amo(3, true, 13, 5, 6)]],
    ["a load behind a store", [encode.sd(6, 5, 0), encode.ld(7, 5, 0)]],
  ];
  it.each(accesses)("%s sees the same, interpreted and translated", (_, words) => {
    const interpreted = run(words, false);
    const translated = run(words, EAGER);
    expect(translated.board.core.translations).toBeGreaterThan(0);
    expect(translated.seen).toEqual(interpreted.seen);
    expect(translated.board.core.executed).toBe(interpreted.board.core.executed);
  });
});

describe("capacity", () => {
  it("when all functions are used, translation starts over, and the guest does not notice", () => {
    const loops = 40;
    const run = (translate: { interval: number; samples: number; capacity?: number } | false): Board => {
      const board = new Board({ translate });
      // loops in pages of their own, twenty rounds each, one after the other, three times
      for (let n = 0; n < loops; n++) {
        const next = n === loops - 1 ? 0x80000 : (n + 1) * 0x1000;
        board.place(
          RAM + BigInt(n * 0x1000),
          encode.addi(5, 0, 20),
          encode.addi(7, 7, n + 1),
          encode.addi(5, 5, -1),
          encode.b(1, 5, 0, -8),
          encode.j(0, next - n * 0x1000 - 16),
        );
      }
      board.place(RAM + 0x80000n, encode.addi(12, 12, -1), encode.b(0, 12, 0, 8), encode.j(0, -0x80008), encode.WFI);
      board.setX(7, 0n);
      board.setX(12, 3n);
      board.pc = RAM;
      finish(board);
      return board;
    };
    const few = run({ ...EAGER, capacity: 7 });
    const plain = run(false);
    expect(few.x(7)).toBe(BigInt((3 * 20 * loops * (loops + 1)) / 2));
    expect(few.core.translations).toBeGreaterThan(7);
    expect([few.core.executed, few.core.now]).toEqual([plain.core.executed, plain.core.now]);
  });
});

describe("random programs", () => {
  it("end in the same state interpreted, translated, and translated at other samples", () => {
    let translated = 0;
    for (let seed = 1; seed <= 60; seed++) {
      const plain = program(seed, false, 1_000_000);
      for (const [translate, slice] of [
        [EAGER, 1_000_000],
        [{ interval: 5, samples: 1 }, 1_000_000],
        [{ interval: 100, samples: 3 }, 333],
      ] as const) {
        const other = program(seed, translate, slice);
        expect(other.state, `seed ${seed}`).toBe(plain.state);
        translated += other.translations;
      }
    }
    expect(translated).toBeGreaterThan(100);
  });

  it("of the fuzzer, too", () => {
    for (let seed = 5000; seed < 5030; seed++)
      expect(stream(coreModule(), seed, { name: "eager", translate: EAGER }), `seed ${seed}`).toBe(
        stream(coreModule(), seed, INTERPRETED),
      );
  });

  function atomic(next: () => number, register: () => number): number {
    const kind = [0, 1, 2, 3, 4, 8, 12, 16, 20, 24, 28][next() % 11]!;
    return encode.amo(kind, next() % 2 === 0, register(), 21 + (next() % 2), kind === 2 ? 0 : register());
  }

  /** An instruction of F, D or Zfhmin on f0 … f7, with a rounding mode that may be frm's. */
  function float(next: () => number, register: () => number): number {
    const format = next() % 2;
    const [fd, f1, f2] = [next() % 8, next() % 8, next() % 8];
    const rm = [0, 0, 1, 2, 3, 4, 7, 7][next() % 8]!;
    switch (next() % 10) {
      case 8: // Zfhmin: to and from binary16
        return next() % 2 === 0
          ? encode.r(0x53, rm, 0x20 | format, fd, f1, 2)
          : encode.r(0x53, rm, 0x22, fd, f1, format);
      case 9:
        return [
          encode.i(0x07, 1, fd, 20, next() % 2048),
          encode.s(0x27, 1, 20, fd, next() % 2048),
          encode.r(0x53, 0, 0x72, register(), f1, 0),
          encode.r(0x53, 0, 0x7a, fd, register(), 0),
        ][next() % 4]!;
      case 0:
        return encode.r(0x43 + 4 * (next() % 4), rm, ((next() % 8) << 2) | format, fd, f1, f2);
      case 1:
        return encode.r(0x53, next() % 3, (0x14 << 2) | format, register(), f1, f2); // compare
      case 2:
        return encode.r(0x53, rm, (0x18 << 2) | format, register(), f1, next() % 4); // to an integer
      case 3:
        return encode.r(0x53, rm, (0x1a << 2) | format, fd, register(), next() % 4); // from an integer
      case 4:
        return next() % 2 === 0
          ? encode.i(0x07, 2 + format, fd, 20, next() % 2048)
          : encode.s(0x27, 2 + format, 20, fd, next() % 2048);
      case 5:
        return next() % 2 === 0
          ? encode.r(0x53, 0, (0x1c << 2) | format, register(), f1, 0)
          : encode.r(0x53, 0, (0x1e << 2) | format, fd, register(), 0);
      default:
        return encode.r(0x53, rm, ((next() % 4) << 2) | format, fd, f1, f2);
    }
  }

  /** Loops and branches over random code, loads, stores and atomics in two pages, floats; ends after a count of rounds. */
  function program(
    seed: number,
    translate: typeof EAGER | false,
    slice: number,
  ): { state: string; translations: number } {
    const next = generator(seed);
    const board = new Board({ translate });
    const words: number[] = [];
    const register = (): number => 5 + (next() % 5);
    const chunk = (): number => {
      const rr = REGISTER_REGISTER[next() % REGISTER_REGISTER.length]!;
      const ri = REGISTER_IMMEDIATE[next() % REGISTER_IMMEDIATE.length]!;
      switch (next() % 12) {
        case 10: // Zimop
          return ((next() % 2 === 0 ? 0x81c04073 : 0x82004073) | (register() << 7) | (register() << 15)) >>> 0;
        case 11: // Zawrs
          return next() % 2 === 0 ? 0x00d00073 : 0x01d00073;
        case 8:
          return atomic(next, register);
        case 9:
          return float(next, register);
        case 0:
          return encode.load(next() % 7, register(), 20, (next() % 2048) & 0x7ff);
        case 1:
          return encode.store(next() % 4, 20, register(), (next() % 2048) & 0x7ff);
        case 2:
          return encode.b([0, 1, 4, 5, 6, 7][next() % 6]!, register(), register(), 8);
        case 3:
          return ri.word(register(), register(), ri.immediates === "signed12" ? (next() % 4096) - 2048 : next() % 32);
        case 4:
          return encode.u(0x17, register(), next() % 16);
        default:
          return rr.word(register(), register(), register());
      }
    };
    const length = 20 + (next() % 60);
    for (let n = 0; n < length; n++) words.push(chunk());
    words.push(encode.NOP); // a branch as the last chunk lands behind it
    // an inner loop over the last part, an outer loop over all
    const inner = 4 * (2 + (next() % (length - 4)));
    words.push(encode.addi(13, 13, -1), encode.b(1, 13, 0, -inner - 4), encode.addi(13, 0, 5));
    words.push(encode.addi(12, 12, -1), encode.b(1, 12, 0, -4 * (words.length + 1)), encode.WFI);
    board.place(RAM + 0xf00n, ...words);
    for (let n = 5; n < 10; n++) board.setX(n, (BigInt(next()) << 32n) | BigInt(next()));
    board.setX(12, 60n);
    board.setX(13, 5n);
    board.setX(20, RAM + 0x30c00n);
    board.setX(21, RAM + 0x31008n);
    board.setX(22, next() % 4 === 0 ? RAM + 0x3100cn : RAM + 0x31008n);
    for (let n = 0; n < 8; n++)
      board.setF(n, n % 2 === 0 ? 0x3ff0000000000000n + BigInt(next()) : BOX | 0x3f800000n | BigInt(next() & 0xffff));
    board.write("frm", BigInt(next() % 5));
    board.write("sstatus", BigInt(1 + (next() % 3)) << 13n);
    board.pc = RAM + 0xf00n;
    for (let left = 200_000; left > 0; ) {
      const before = board.core.executed;
      if (board.run(Math.min(slice, left)) === Exit.Wfi) break;
      left -= board.core.executed - before;
    }
    let sum = 0;
    for (const byte of board.core.ram) sum = (Math.imul(sum, 31) + byte) | 0;
    const registers = Array.from({ length: 32 }, (_, n) => `${hex(board.x(n))} ${hex(board.f(n))}`);
    const state = `${registers} ${board.read("fflags")} ${board.read("sstatus")} ${hex(board.pc)} ${board.core.now} ${board.core.executed} ${sum}`;
    return { state, translations: board.core.translations };
  }
});

describe("instructions that begin in one page and end in the next", () => {
  it.each([false, { interval: 64, samples: 1 }])(
    "are each its own, in turn and changed: translator %o",
    (translate) => {
      const board = new Board({ translate });
      // two of them, 2 behind each other's pages, that add 1 and 100; each is returned from by what follows it
      const add = (page: bigint, immediate: number): void => {
        board.place(RAM + page * 0x1000n + 0xffen, encode.addi(10, 10, immediate), encode.jalr(0, 1, 0));
      };
      add(1n, 1);
      add(3n, 100);
      board.place(
        RAM,
        encode.jalr(1, 5, 0),
        encode.jalr(1, 6, 0),
        encode.addi(7, 7, -1),
        encode.b(1, 7, 0, -12),
        encode.j(0, 0),
      );
      for (const [first, second] of [
        [1, 100],
        [1, 7],
        [7, 7],
      ] as const) {
        add(1n, first);
        add(3n, second);
        board.setX(5, RAM + 0x1ffen);
        board.setX(6, RAM + 0x3ffen);
        board.setX(7, 500n);
        board.setX(10, 0n);
        board.pc = RAM;
        board.run(500 * 8);
        expect([board.x(7), board.x(10)]).toEqual([0n, 500n * BigInt(first + second)]);
      }
    },
  );
});
