// A core's state between two runs: what is taken back goes on as what was never interrupted does, to the instruction, in the same time, with
// the same code translated; also where the guest has changed code and not fenced yet (Zifencei: until then a hart may see either).

import { createHash } from "node:crypto";
import { describe, expect, it } from "vitest";
import { restoreTree, StateError, type StateRecord, saveTree } from "../../../../host/base/state.ts";
import { decodeState, encodeState } from "../../../../host/base/state-text.ts";
import { DECODE_USED, HARTS, TLBS } from "../../../../vmm/vcpu/engine/assembly/layout.ts";
import { Board, RAM } from "./board.ts";
import * as encode from "./encode.ts";

const EAGER = { interval: 16, samples: 1 };
const FUNCTION = RAM + 0x3000n;
const ROUNDS = 600;
const CHANGED_AT = 300;
const FENCED_AT = 100;

/** Calls a function ROUNDS times that adds 1 to x7; it is made to add 2 when 300 rounds are left, and fenced when 100 are. */
function changingProgram(options: ConstructorParameters<typeof Board>[0] = { translate: EAGER }): Board {
  const board = new Board(options);
  board.place(FUNCTION, encode.addi(7, 7, 1), encode.i(0x67, 0, 0, 1, 0));
  const loop = [
    encode.i(0x67, 0, 1, 10, 0), // jalr x1, x10
    encode.b(1, 12, 13, 8),
    encode.s(0x23, 2, 10, 14, 0), // sw x14, (x10)
    encode.b(1, 12, 15, 8),
    encode.FENCE_I,
    encode.addi(12, 12, -1),
  ];
  board.place(RAM, ...loop, encode.b(1, 12, 0, -loop.length * 4), encode.WFI);
  for (const [register, value] of [
    [7, 0n],
    [10, FUNCTION],
    [12, BigInt(ROUNDS)],
    [13, BigInt(CHANGED_AT)],
    [14, BigInt(encode.addi(7, 7, 2))],
    [15, BigInt(FENCED_AT)],
  ] as const) {
    board.setX(register, value);
  }
  board.pc = RAM;
  return board;
}

/** RAM is its owner's; a test has to keep it itself. */
interface Saved {
  readonly core: StateRecord;
  readonly ram: Uint8Array;
}
const save = (board: Board): Saved => ({
  core: decodeState(encodeState(saveTree(board.core))),
  ram: board.core.ram.slice(),
});
function restore(board: Board, { core, ram }: Saved): void {
  board.core.ram.set(ram);
  restoreTree(board.core, core);
}

const SLICE = 37;
const ended = (board: Board): unknown => ({
  sum: board.x(7),
  left: board.x(12),
  pc: board.pc,
  executed: board.core.executed,
  now: board.core.now,
  translations: board.core.translations,
  ram: createHash("sha256").update(board.core.ram).digest("hex"),
});

describe("a core's state", () => {
  const slices = 130;
  const undisturbed = changingProgram();
  for (let n = 0; n < slices; n++) undisturbed.run(SLICE);

  it("belongs to a program in which old code runs on until the fence", () => {
    expect(undisturbed.x(12)).toBe(0n);
    // A round adds 1 until the fence that ends round 501, and 2 behind it: what was decoded is what runs.
    expect(undisturbed.x(7)).toBe(BigInt(ROUNDS - FENCED_AT + 1 + 2 * (FENCED_AT - 1)));
    expect(undisturbed.core.translations).toBeGreaterThan(0);
  });

  it.each([1, 2, 3, 17, 60, 64, 70, 90, 100, 110])(
    "saved before slice %i and taken back later, goes on as the undisturbed one",
    (at) => {
      for (const later of [0, 1, 5, 29]) {
        const board = changingProgram();
        for (let n = 0; n < at; n++) board.run(SLICE);
        const saved = save(board);
        for (let n = 0; n < later; n++) board.run(SLICE + n);
        restore(board, saved);
        for (let n = at; n < slices; n++) board.run(SLICE);
        expect(ended(board)).toEqual(ended(undisturbed));
      }
    },
  );

  it.each([5, 60, 75, 100])("is taken by another core as by its own, before slice %i", (at) => {
    const board = changingProgram();
    for (let n = 0; n < at; n++) board.run(SLICE);
    const other = new Board({ translate: EAGER });
    restore(other, save(board));
    expect(encodeState(saveTree(other.core))).toBe(encodeState(saveTree(board.core)));
    for (let n = at; n < slices; n++) other.run(SLICE);
    expect(ended(other)).toEqual(ended(undisturbed));
  });

  it("keeps the translations' capacity: what is full for one is full for the other", () => {
    const few = { translate: { ...EAGER, capacity: 2 } };
    const plain = changingProgram(few);
    const board = changingProgram(few);
    for (let n = 0; n < slices; n++) {
      plain.run(SLICE);
      board.run(SLICE);
      if (n % 11 === 3) restore(board, save(board));
    }
    expect(ended(board)).toEqual(ended(plain));
  });

  it("does not exist within a run", () => {
    const board = new Board();
    let error: unknown;
    board.port.during = () => {
      try {
        board.core.saveState();
      } catch (thrown) {
        error = thrown;
      }
    };
    board.setX(5, 0x1000_0000n);
    board.execute(encode.ld(6, 5, 0));
    expect(error).toBeInstanceOf(Error);
  });

  it.each<[string, (memory: Uint8Array, view: DataView) => Uint8Array | undefined]>([
    ["is too short", (memory) => memory.slice(0, 4096)],
    ["ends elsewhere than its decode pages", (memory) => memory.slice(0, -8)],
    ["has more decode pages than there can be", (_memory, view) => void view.setUint32(DECODE_USED, 70_000, true)],
    ["is of a core with more harts", (_memory, view) => void view.setUint32(HARTS, 8, true)],
    [
      "maps a virtual page behind RAM",
      (_memory, view) => {
        view.setBigUint64(TLBS, 0x4000n, true);
        view.setUint32(TLBS + 8, 0xffff_0000, true);
      },
    ],
  ])("is refused where its memory %s", (_name, spoil) => {
    const board = changingProgram();
    board.run(100);
    const document = saveTree(board.core) as { state: { memory: Uint8Array }; parts: StateRecord };
    const memory = document.state.memory.slice();
    const spoiled = spoil(memory, new DataView(memory.buffer)) ?? memory;
    expect(() => restoreTree(board.core, { ...document, state: { memory: spoiled } })).toThrow(StateError);
  });
});
