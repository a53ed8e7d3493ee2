// What translated code remembers of jumps (engine/assembly/jumps.ts) when a guest changes TTBR0: the kernel runs at lower addresses here, of which half a TLB is
// forgotten then. The rest is the engine's, and test/vmm/vcpu/riscv64/jumps.test.ts has it.
import { expect, it } from "vitest";
import { Board, RAM } from "./board.ts";

const VALID_TABLE = 3n;
const LEAF = 3n | (1n << 10n);
const BLOCK = 1n | (1n << 10n);
/** T0SZ = T1SZ = 16, 4 KiB granules, IPS 40 bits. */
const TCR = 16n | (16n << 16n) | (2n << 30n) | (2n << 32n);
const VA = 0x1_0000_0000n;
const FRAME = RAM + 0x3_0000n;
const ROUNDS = 1000n;
/** blr x5; sub x7, x7, #1; cbnz x7, back; b . */
const LOOP = [0xd63f00a0, 0xd10004e7, 0xb5ffffc7, 0x14000000];
/** msr ttbr0_el1, x9; isb; b to the loop. */
const CHANGE = [0xd5182009, 0xd5033fdf, 0x14000000 | (-0x42 & 0x3ffffff)];
const RET = 0xd65f03c0;

/** A table root: RAM one to one, and the page VA at a frame. */
function root(board: Board, at: bigint, frame: bigint): bigint {
  const [l1, l2, l3] = [at + 0x1000n, at + 0x2000n, at + 0x3000n] as const;
  board.store64(at, l1 | VALID_TABLE);
  board.store64(l1 + 2n * 8n, RAM | BLOCK);
  board.store64(l1 + 4n * 8n, l2 | VALID_TABLE);
  board.store64(l2, l3 | VALID_TABLE);
  board.store64(l3, frame | LEAF);
  return at;
}

it.each([false, { interval: 64, samples: 1 }])("leads where the new table says: translator %o", (translate) => {
  const board = new Board({ translate });
  const [one, two] = [root(board, RAM + 0x1_0000n, FRAME), root(board, RAM + 0x2_0000n, FRAME + 0x1000n)];
  board.place(RAM, ...LOOP);
  board.place(RAM + 0x100n, ...CHANGE.map((it) => it >>> 0));
  board.place(FRAME, 0x9100054a, RET); // add x10, x10, #1
  board.place(FRAME + 0x1000n, 0x9101914a, RET); // #100
  board.write("ttbr0_el1", one);
  board.write("tcr_el1", TCR);
  board.write("sctlr_el1", 0x30d0_0801n);
  board.core.flushTranslations(0);
  const run = (from: bigint, table: bigint): bigint => {
    board.setX(5, VA);
    board.setX(7, ROUNDS);
    board.setX(9, table);
    board.setX(10, 0n);
    board.write("pc", from);
    board.run(Number(ROUNDS) * 5 + 4);
    return board.x(10);
  };
  expect(run(RAM, one)).toBe(ROUNDS);
  for (let n = 0; n < 100; n++) {
    expect(run(RAM + 0x100n, two)).toBe(100n * ROUNDS);
    expect(run(RAM + 0x100n, one)).toBe(ROUNDS);
  }
  expect(board.core.translations > 1).toBe(translate !== false);
});
