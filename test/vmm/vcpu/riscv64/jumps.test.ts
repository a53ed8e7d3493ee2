// Translated code that jumps to addresses remembers where they led (engine/assembly/jumps.ts): each thing that what it remembers rests on is changed here, after
// the jump has been taken often, and it must be as without a translator. A loop at CODE_VA calls a function on a page of its own.
import { describe, expect, it } from "vitest";
import { restoreTree, type StateRecord, saveTree } from "../../../../host/base/state.ts";
import { JUMP_TAG, JUMPS, JUMPS_END, TLB_FETCH, TLB_STORE, TLBS } from "../../../../vmm/vcpu/engine/assembly/layout.ts";
import { Exit } from "../../../../vmm/vcpu/riscv64/core.ts";
import { Board, RAM } from "./board.ts";
import * as encode from "./encode.ts";

const EAGER = { interval: 64, samples: 1 };
const WAYS = [false, EAGER] as const;

const ROOT = RAM + 0x40000n;
const LEAVES = RAM + 0x42000n;
const CODE_VA = 0x10_0000n;
const FUNCTION_VA = 0x20_0000n;
/** Shares the function's entry in the fetch TLB: 1024 pages away. */
const ALIAS_VA = 0x60_0000n;
const CODE = RAM;
const FUNCTION = RAM + 0x1000n;
const OTHER_FUNCTION = RAM + 0x2000n;
const EMPTY_FUNCTION = RAM + 0x3000n;
/** V, R, X, U, A, D. */
const USER = 0xdbn;
const USER_VA = 0x70_0000n;
const USER_FUNCTION_VA = 0x80_0000n;
const RET = encode.jalr(0, 1, 0);
const ROUNDS = 1000n;
/** jalr x1, x5; addi x7, x7, -1; bne x7, x0, back; j . */
const LOOP = [encode.jalr(1, 5, 0), encode.addi(7, 7, -1), encode.b(1, 7, 0, -8), encode.j(0, 0)];
/** Instructions of a round: the loop's and two of the function. */
const ROUND = 5;

function map(board: Board, va: bigint, physical: bigint, flags = 0xcbn): void {
  const [two, one, zero] = [30n, 21n, 12n].map((shift) => (va >> shift) & 511n) as [bigint, bigint, bigint];
  const leaves = LEAVES + one * 0x1000n;
  board.store64(ROOT + two * 8n, (((ROOT + 0x1000n) >> 12n) << 10n) | 1n);
  board.store64(ROOT + 0x1000n + one * 8n, ((leaves >> 12n) << 10n) | 1n);
  board.store64(leaves + zero * 8n, ((physical >> 12n) << 10n) | flags);
}

/** The loop has run, and would run again from CODE_VA: x10 is the sum of what the function adds, x7 counts the rounds. */
function looped(translate: (typeof WAYS)[number] | (typeof EAGER & { capacity: number })): Board {
  const board = new Board({ translate });
  board.place(CODE, ...LOOP);
  board.place(CODE + 0x100n, encode.jalr(1, 6, 0), encode.j(0, -0x104));
  board.place(FUNCTION, encode.addi(10, 10, 1), RET);
  board.place(OTHER_FUNCTION, encode.addi(10, 10, 100), RET);
  board.place(EMPTY_FUNCTION, RET);
  map(board, CODE_VA, CODE);
  map(board, FUNCTION_VA, FUNCTION);
  map(board, ALIAS_VA, EMPTY_FUNCTION);
  board.write("satp", (8n << 60n) | (ROOT >> 12n));
  board.core.flushTranslations(0);
  again(board);
  expect([board.x(10), board.x(7)]).toEqual([ROUNDS, 0n]);
  expect(board.core.translations > 1).toBe(translate !== false);
  return board;
}

/** Runs the loop, or what calls the alias before it; x10 is what it adds up to. */
function again(board: Board, from = CODE_VA, rounds = ROUNDS): void {
  board.setX(5, FUNCTION_VA);
  board.setX(6, ALIAS_VA);
  board.setX(7, rounds);
  board.setX(10, 0n);
  board.pc = from;
  board.run(Number(rounds) * ROUND + 3);
}

describe("a jump to an address, taken often", () => {
  it.each(WAYS)("leads where the TLB says as long as it does: translator %o", (translate) => {
    const board = looped(translate);
    map(board, FUNCTION_VA, OTHER_FUNCTION);
    again(board);
    expect(board.x(10)).toBe(ROUNDS);
    board.core.flushTranslations(0);
    again(board);
    expect(board.x(10)).toBe(100n * ROUNDS);
  });

  it.each(WAYS)(
    "leads where the tables say once another page has pushed it out of the TLB: translator %o",
    (translate) => {
      const board = looped(translate);
      // until nothing is translated any more
      for (let n = 0; n < 500; n++) again(board, CODE_VA + 0x100n, 10n);
      map(board, FUNCTION_VA, OTHER_FUNCTION);
      again(board, CODE_VA + 0x100n);
      expect(board.x(10)).toBe(100n * ROUNDS);
    },
  );

  it.each(WAYS)("of the kernel leads a user nowhere: translator %o", (translate) => {
    const board = looped(translate);
    map(board, USER_VA, CODE, USER);
    map(board, USER_FUNCTION_VA, FUNCTION, USER);
    board.core.flushTranslations(0);
    board.write("mode", 0n);
    again(board, USER_VA);
    expect(board.x(10)).toBe(0n); // the loop takes FUNCTION_VA
    expect(board.read("scause")).toBe(12n);
    const user = (target: bigint): void => {
      board.write("mode", 0n);
      board.setX(5, target);
      board.setX(7, 500n);
      board.setX(10, 0n);
      board.pc = USER_VA;
      board.run(500 * ROUND);
    };
    user(USER_FUNCTION_VA);
    expect(board.x(10)).toBe(500n);
    board.write("mode", 1n);
    again(board);
    expect(board.x(10)).toBe(ROUNDS);
    user(USER_FUNCTION_VA);
    board.write("scause", 0n);
    user(FUNCTION_VA);
    expect([board.x(10), board.read("scause")]).toEqual([0n, 12n]);
  });

  it("stops at a breakpoint that is set there, and goes on", () => {
    const board = looped(EAGER);
    board.core.setBreakpoints([FUNCTION_VA]);
    board.setX(7, 10n);
    board.setX(10, 0n);
    board.pc = CODE_VA;
    expect(board.run(1000)).toBe(Exit.Break);
    expect([board.pc, board.x(7)]).toEqual([FUNCTION_VA, 10n]);
    expect(board.run(1000)).toBe(Exit.Break);
    expect([board.pc, board.x(7)]).toEqual([FUNCTION_VA, 9n]);
    board.core.setBreakpoints([]);
    expect(board.run(1000)).toBe(Exit.Budget);
    expect(board.x(10)).toBe(10n);
  });

  it("uses up budgets to the instruction, wherever they end", () => {
    const [plain, fast] = WAYS.map((translate) => looped(translate)) as [Board, Board];
    for (const board of [plain, fast]) {
      board.setX(7, 1_000_000n);
      board.pc = CODE_VA;
    }
    for (let n = 0; n < 400; n++) {
      const budget = n < 200 ? 1 + (n % 23) : 300 + n;
      for (const board of [plain, fast]) board.run(budget);
      const seen = [plain, fast].map((board) => [board.pc, board.x(7), board.x(10), board.core.executed]);
      expect(seen[1]).toEqual(seen[0]);
    }
  });

  it("is found again when translations have been dropped for want of room", () => {
    // the loop's function and the called one's, no more: the third makes both start over
    const board = looped({ ...EAGER, capacity: 2 });
    const translations = board.core.translations;
    board.place(CODE + 0x200n, encode.addi(8, 8, 1), encode.j(0, -4));
    for (let n = 0; n < 8; n++) {
      board.pc = CODE_VA + 0x200n;
      board.run(4000);
      again(board);
      expect(board.x(10)).toBe(ROUNDS);
    }
    expect(board.core.translations).toBeGreaterThan(translations + 2);
  });

  it("is no state: none is saved, and what a file says of them is not believed", () => {
    const board = looped(EAGER);
    const document = saveTree(board.core) as { state: { memory: Uint8Array }; parts: StateRecord };
    const { memory } = document.state;
    expect(memory.subarray(JUMPS, JUMPS_END).every((byte) => byte === 0)).toBe(true);
    const forged = memory.slice();
    const view = new DataView(forged.buffer);
    const fetch = TLBS + TLB_FETCH + TLB_STORE; // of supervisor mode
    view.setUint32(JUMP_TAG, fetch, true);
    for (let record = JUMPS; record < JUMP_TAG; record += 32) {
      view.setBigUint64(record, FUNCTION_VA, true);
      view.setUint32(record + 8, fetch, true);
      view.setUint32(record + 12, 1, true); // restoring counts one up
      view.setUint32(record + 16, 2000, true);
    }
    restoreTree(board.core, { ...document, state: { memory: forged } });
    again(board);
    expect(board.x(10)).toBe(ROUNDS);
  });
});
