// Several harts in one core, and that a run depends on its inputs only.
import { describe, expect, it } from "vitest";
import { Board, Exit, RAM } from "./board.ts";
import * as encode from "./encode.ts";
import { generator } from "./reference/integer.ts";

const DATA = RAM + 0x2000n;

describe("harts", () => {
  it("have registers, CSRs, translations and interrupt files of their own", () => {
    const board = new Board({ harts: 3 });
    const { core } = board;
    board.place(
      RAM,
      encode.addi(5, 10, 100),
      encode.csr(1, 0, 0x140, 10),
      encode.csr(1, 0, 0x150, 6),
      encode.csr(1, 0, 0x151, 7),
      encode.j(0, 0),
    );
    for (let hart = 0; hart < 3; hart++) {
      core.start(hart, RAM, 7n);
      core.setX(hart, 6, 0xc0n);
      core.setX(hart, 7, BigInt(2 << hart));
    }
    for (let hart = 0; hart < 3; hart++) core.run(hart, 4);
    for (let hart = 0; hart < 3; hart++) {
      expect(core.x(hart, 5)).toBe(BigInt(100 + hart));
      expect(core.x(hart, 11)).toBe(7n);
      expect(core.read(hart, "sscratch")).toBe(BigInt(hart));
      core.raiseIdentity(hart, hart + 1);
      expect(core.read(hart, "topIdentity")).toBe(BigInt(hart + 1));
    }
    core.raiseIdentity(3, 1);
    core.raiseIdentity(-1, 1);
  });

  it("start as SBI HSM says: S-mode, satp 0, SIE 0, a0 the hart, a1 opaque, everything of an earlier life gone", () => {
    const board = new Board({ harts: 2 });
    const { core } = board;
    core.write(1, "satp", 8n << 60n);
    core.write(1, "sstatus", 2n);
    core.write(1, "sie", 0x222n);
    core.setX(1, 5, 9n);
    core.raiseIdentity(1, 4);
    core.start(1, RAM + 0x100n, 0xabcn);
    expect(["pc", "mode", "satp", "sstatus", "sie"].map((name) => core.read(1, name as "pc"))).toEqual([
      RAM + 0x100n,
      1n,
      0n,
      0n,
      0n,
    ]);
    expect([core.x(1, 5), core.x(1, 10), core.x(1, 11)]).toEqual([0n, 1n, 0xabcn]);
    expect(core.interruptPending(1)).toBe(false);
  });

  it("share time: what one executes passes for all", () => {
    const board = new Board({ harts: 2 });
    const { core } = board;
    board.place(RAM, encode.j(0, 0));
    core.now = 0;
    for (const hart of [0, 1]) core.start(hart, RAM, 0n);
    core.run(0, 100);
    core.run(1, 50);
    expect(core.now).toBe(1500);
    expect(core.executed).toBe(150);
    expect(core.read(1, "instret")).toBe(50n);
  });

  it("may be looked at, flushed and started from within another's MMIO access", () => {
    const board = new Board({ harts: 2 });
    const { core, port } = board;
    board.place(RAM, encode.load(2, 6, 5, 0), encode.addi(7, 7, 1), encode.j(0, 0));
    core.start(0, RAM, 0n);
    core.setX(0, 5, 0x1000_0000n);
    port.answer = 5n;
    port.during = () => {
      expect(core.interruptPending(1)).toBe(false);
      core.flushTranslations(1);
      core.fenceInstructions(1);
      core.start(1, RAM + 8n, 0x77n);
      core.setX(1, 6, 99n);
      core.raiseIdentity(1, 3);
    };
    core.run(0, 3);
    expect([core.x(0, 6), core.x(0, 7), core.read(0, "pc")]).toEqual([5n, 1n, RAM + 8n]);
    core.run(1, 10);
    expect([core.x(1, 6), core.x(1, 11), core.read(1, "pc")]).toEqual([99n, 0x77n, RAM + 8n]);
  });

  it("lose a reservation when another hart has run", () => {
    const board = new Board({ harts: 2 });
    const { core } = board;
    board.place(RAM, encode.amo(2, true, 7, 5, 0), encode.amo(3, true, 8, 5, 6));
    for (const hart of [0, 1]) {
      core.start(hart, RAM, 0n);
      core.setX(hart, 5, DATA);
    }
    core.run(0, 1);
    core.run(1, 1);
    core.run(0, 1);
    expect(core.x(0, 8)).toBe(1n);
  });

  it("count together with AMOs and with lr/sc, whatever the slices", () => {
    for (const slice of [3, 5, 17, 100]) {
      const board = new Board({ harts: 4 });
      const { core } = board;
      // lr.d x7; addi x7, x7, 1; sc.d x8, x7; bnez x8, -12; amoadd.d (x9), x6; addi x10, -1; bnez x10, back; wfi
      board.place(
        RAM,
        encode.amo(2, true, 7, 5, 0),
        encode.addi(7, 7, 1),
        encode.amo(3, true, 8, 5, 7),
        encode.b(1, 8, 0, -12),
        encode.amo(0, true, 0, 9, 6),
        encode.addi(12, 12, -1),
        encode.b(1, 12, 0, -24),
        encode.WFI,
      );
      board.store64(DATA, 0n);
      board.store64(DATA + 64n, 0n);
      for (let hart = 0; hart < 4; hart++) {
        core.start(hart, RAM, 0n);
        core.setX(hart, 5, DATA);
        core.setX(hart, 9, DATA + 64n);
        core.setX(hart, 6, 1n);
        core.setX(hart, 12, 50n);
      }
      const waiting = new Set<number>();
      for (let round = 0; round < 20_000 && waiting.size < 4; round++) {
        // a loop of four instructions needs a slice of at least four to get through
        for (let hart = 0; hart < 4; hart++)
          if (!waiting.has(hart) && core.run(hart, slice + 4) === Exit.Wfi) waiting.add(hart);
      }
      expect(waiting.size).toBe(4);
      expect([board.load64(DATA), board.load64(DATA + 64n)]).toEqual([200n, 200n]);
    }
  });

  it("fence.i on one hart shows it another's store to code; the other keeps what it had until its own", () => {
    const board = new Board({ harts: 2 });
    const { core } = board;
    board.place(RAM, encode.FENCE_I, encode.addi(5, 0, 1), encode.j(0, -8));
    for (const hart of [0, 1]) core.start(hart, RAM, 0n);
    core.run(0, 3);
    core.run(1, 3);
    board.ram.setUint32(4, encode.addi(5, 0, 2), true);
    core.run(0, 3);
    core.run(1, 3);
    expect([core.x(0, 5), core.x(1, 5)]).toEqual([2n, 2n]);
  });
});

describe("determinism", () => {
  function life(slices: () => number): string {
    const board = new Board();
    const next = generator(5);
    for (let at = 0; at < 4096; at += 4) board.ram.setUint32(at, next(), true);
    board.core.fenceInstructions(0);
    board.write("stimecmp", 100n);
    board.write("sie", 0x222n);
    board.write("sstatus", (1n << 13n) | 2n);
    for (let n = 1; n < 32; n++) board.setX(n, RAM + BigInt(next() & 0xfff));
    let left = 20_000;
    while (left > 0) {
      const before = board.core.executed;
      board.run(Math.min(left, slices()));
      left -= board.core.executed - before;
    }
    const state = [];
    for (let n = 0; n < 32; n++) state.push(board.x(n), board.f(n));
    let sum = 0;
    for (const byte of board.core.ram) sum = (Math.imul(sum, 31) + byte) | 0;
    return `${state} ${board.pc} ${board.read("scause")} ${board.core.now} ${sum} ${JSON.stringify(board.port.log, (_, v) => String(v))}`;
  }

  it("twice the same, and the same in slices of any size", () => {
    const next = generator(9);
    const whole = life(() => 20_000);
    expect(life(() => 20_000)).toBe(whole);
    expect(life(() => 1 + (next() % 50))).toBe(whole);
    expect(life(() => 1)).toBe(whole);
  });
});
