// Code that a guest changes, or puts elsewhere, while translations of it are in use: what a front end gets from the engine, interpreted and translated alike.
import { describe, expect, it } from "vitest";
import { BOTH, Board, EAGER, RAM, VECTOR } from "./board.ts";
import * as t from "./tiny/tiny.ts";

describe("changed code", () => {
  /** A loop of `rounds` that adds a constant from a line of its own; that line's word is replaced by `patch` in every round, then the line fenced. */
  function patching(board: Board, rounds: bigint): void {
    board.place(RAM + 0x2280n, t.add(1, 1, 0, 1), t.br(15));
    board.place(
      RAM,
      t.bl(0x8a0),
      t.add(4, 4, 7, 0), // the word pair's low half: one more in the immediate
      t.str(4, 5, 0),
      t.refetch(5),
      t.add(3, 3, 0, 1),
      t.cmp(3, 6),
      t.blt(-6),
      t.WFI,
    );
    const pair = board.ram.getBigUint64(0x2280, true);
    board.set({ 4: pair, 5: RAM + 0x2280n, 6: rounds, 7: 1n });
  }

  it("is seen behind the invalidation of its line, interpreted and translated", () => {
    for (const translate of BOTH) {
      const board = new Board(translate);
      patching(board, 300n);
      board.finish();
      expect(board.r(1)).toBe((300n * 301n) / 2n);
    }
  });

  it("costs no translation but those of its own page", () => {
    const board = new Board(EAGER);
    patching(board, 100n);
    board.finish();
    const page = board.core.translations;
    // invalidations of lines that are not code, or that have not changed, cost nothing
    board.place(RAM, t.add(3, 3, 0, 1), t.refetch(5), t.refetch(8), t.cmp(3, 6), t.blt(-4), t.WFI);
    board.set({ 3: 0n, 5: RAM + 0x4000n, 6: 20_000n, 8: RAM });
    board.core.write(0, "pc", RAM);
    const steps = board.core.steps;
    board.finish();
    expect(board.core.translations - page).toBeLessThan(4);
    // two refetches a round, and each time into the translated code behind it
    expect(board.core.steps - steps).toBeLessThan(20_000 * 6);
  });

  it("of a page with another's translation stays what it is under both addresses", () => {
    for (const translate of BOTH) {
      const board = new Board(translate);
      const table = RAM + 0x8000n;
      const map = (page: number, to: bigint, bits: bigint): void => {
        board.ram.setBigUint64(Number(table - RAM) + page * 8, to | bits, true);
      };
      map(0, RAM, 7n);
      board.place(RAM + 0x5000n, t.add(1, 1, 0, 1), t.br(15));
      board.place(RAM + 0x6000n, t.add(1, 1, 0, 100), t.br(15));
      board.place(
        RAM,
        t.bl(0x400), // page 1
        t.ldr(4, 5, 8), // exchange pages 1 and 2
        t.ldr(8, 5, 16),
        t.str(8, 5, 8),
        t.str(4, 5, 16),
        t.flush(9),
        t.flush(10),
        t.add(3, 3, 0, 1),
        t.cmp(3, 6),
        t.blt(-9),
        t.WFI,
      );
      map(1, RAM + 0x5000n, 7n);
      map(2, RAM + 0x6000n, 7n);
      map(3, table, 7n);
      board.core.write(0, "table", table);
      board.core.write(0, "pc", 0n);
      board.set({ 5: 0x3000n, 6: 200n, 9: 0x1000n, 10: 0x2000n });
      board.finish();
      expect(board.r(1)).toBe(100n * 101n);
    }
  });
});

// A region whose blocks lie in several pages expects them where they were. Each program calls another page often enough to be translated with it, changes
// something about that page, and calls again.
describe("code that another page is called from", () => {
  const table = RAM + 0x8000n;
  const ROUNDS = 12;
  const CALLS = 40;

  /** Virtual pages 0, 3 and 7: the program, the table, where exceptions go (it waits there). Page 1 is what is called; it may access all. */
  function board(translate: typeof EAGER | false, ...program: number[]): Board {
    const it = new Board(translate);
    for (const [page, to] of [
      [0, RAM],
      [1, RAM + 0x5000n],
      [2, RAM + 0x6000n],
      [3, table],
      [7, VECTOR],
    ] as const)
      it.ram.setBigUint64(Number(table - RAM) + page * 8, to | 7n, true);
    it.place(RAM, ...program);
    it.place(RAM + 0x5000n, t.add(1, 1, 0, 1), t.br(15));
    it.place(RAM + 0x6000n, t.add(1, 1, 0, 100), t.br(15));
    it.place(VECTOR, t.WFI);
    it.core.write(0, "vector", 0x7000n);
    it.core.write(0, "table", table);
    it.core.write(0, "pc", 0n);
    it.set({ 5: 0x3000n, 6: BigInt(ROUNDS), 9: 0x1000n, 10: 0x2000n, 11: BigInt(CALLS), 12: 0x1000n });
    return it;
  }

  /** What the rounds add up to if the called page is one of these in turn. */
  const sum = (...steps: number[]): bigint =>
    BigInt(Array.from({ length: ROUNDS }, (_, n) => CALLS * steps[n % steps.length]!).reduce((x, y) => x + y));
  const again = (instructions: number): number[] => [t.add(3, 3, 0, 1), t.cmp(3, 6), t.blt(-instructions - 2), t.WFI];
  const exchange = [t.ldr(4, 5, 8), t.ldr(8, 5, 16), t.str(8, 5, 8), t.str(4, 5, 16), t.flush(9), t.flush(10)];

  it("goes to the page that is there now, by a direct jump", () => {
    for (const translate of BOTH) {
      const calls = [t.movi(2, 0), t.bl(0x400 - 1), t.add(2, 2, 0, 1), t.cmp(2, 11), t.blt(-3), ...exchange];
      const it = board(translate, ...calls, ...again(calls.length));
      it.finish();
      expect(it.core.translations > 0).toBe(translate !== false);
      expect(it.r(1)).toBe(sum(1, 100));
    }
  });

  it("and by an indirect one", () => {
    for (const translate of BOTH) {
      // called directly, too, so that both pages are of one region; the indirect call is the first behind an exchange
      const calls = [
        ...[t.movi(2, 0), t.movi(15, 12), t.br(12), t.bl(0x400 - 3)],
        ...[t.add(2, 2, 0, 1), t.cmp(2, 11), t.blt(-5), ...exchange],
      ];
      const it = board(translate, ...calls, ...again(calls.length));
      it.finish();
      expect(it.r(1)).toBe(sum(2, 200));
    }
  });

  it("faults where there is none any more", () => {
    for (const translate of BOTH) {
      const calls = [t.movi(2, 0), t.bl(0x400 - 1), t.add(2, 2, 0, 1), t.cmp(2, 11), t.blt(-3)];
      const it = board(translate, ...calls, t.str(0, 5, 8), t.flush(9), ...again(calls.length + 2));
      it.finish();
      expect([it.r(1), it.core.read(0, "far"), it.core.read(0, "elr")]).toEqual([BigInt(CALLS), 0x1000n, 0x1000n]);
    }
  });

  it("finds what has become of the code there", () => {
    for (const translate of BOTH) {
      // the called page is data of page 4: its first instruction and its like are exchanged
      const calls = [t.movi(2, 0), t.bl(0x400 - 1), t.add(2, 2, 0, 1), t.cmp(2, 11), t.blt(-3)];
      const patch = [t.ldr(4, 13, 0), t.str(7, 13, 0), t.add(7, 4, 0, 0), t.refetch(13)];
      const it = board(translate, ...calls, ...patch, ...again(calls.length + patch.length));
      it.ram.setBigUint64(Number(table - RAM) + 4 * 8, (RAM + 0x5000n) | 7n, true);
      const pair = it.ram.getBigUint64(0x5000, true);
      it.set({ 7: (pair & ~0xffffffffn) | BigInt(t.add(1, 1, 0, 7)), 13: 0x4000n });
      it.finish();
      expect(it.r(1)).toBe(sum(1, 7));
    }
  });

  it("knows under which address it was called", () => {
    for (const translate of BOTH) {
      // pages 1 and 5 are the same; what is called adds its own address: directly under the one, indirectly under the other
      const calls = [
        ...[t.movi(2, 0), t.bl(0x400 - 1), t.movi(15, 16), t.br(12)],
        ...[t.add(2, 2, 0, 1), t.cmp(2, 11), t.blt(-5)],
      ];
      const it = board(translate, ...calls, ...again(calls.length));
      it.ram.setBigUint64(Number(table - RAM) + 5 * 8, (RAM + 0x5000n) | 7n, true);
      it.place(RAM + 0x5000n, t.add(14, 15, 0, 0), t.bl(1), t.add(1, 1, 15, 0), t.br(14));
      it.set({ 12: 0x5000n });
      it.finish();
      expect(it.r(1)).toBe(sum(0x1008 + 0x5008));
    }
  });
});
