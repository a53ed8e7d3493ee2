// The engine with an instruction set of its own (tiny/): what any front end gets from it, interpreted and translated alike, against a slow reference that
// shares nothing with it.
import { describe, expect, it } from "vitest";
import * as engine from "../../../../vmm/vcpu/engine/assembly/layout.ts";
import { Exit } from "../../../../vmm/vcpu/engine/core.ts";
import { generator } from "../riscv64/reference/integer.ts";
import { BOTH, Board, DEVICE, EAGER, RAM } from "./board.ts";
import * as layout from "./tiny/assembly/layout.ts";
import { Reference } from "./tiny/reference.ts";
import * as t from "./tiny/tiny.ts";

/** A loop of 1,000 rounds that computes, calls, loads and stores: r1 the sum. */
function loop(board: Board): void {
  board.place(RAM + 0x3000n, t.mix(4, 1, 2), t.add(1, 1, 4, 0), t.br(15));
  board.place(
    RAM,
    t.ldr(2, 5, 8),
    t.add(2, 2, 3, 1),
    t.str(2, 5, 8),
    t.bl(0xc00 - 3),
    t.add(3, 3, 0, 1),
    t.cmp(3, 6),
    t.blt(-6),
    t.WFI,
  );
  board.set({ 5: RAM + 0x4000n, 6: 1000n });
}

describe("programs", () => {
  it("end as the reference says, interpreted and translated", () => {
    const plain = new Board(false);
    loop(plain);
    const reference = new Reference(plain.core.ram.slice(), RAM);
    reference.r[5] = RAM + 0x4000n;
    reference.r[6] = 1000n;
    reference.run(100_000);
    for (const translate of BOTH) {
      const board = new Board(translate);
      loop(board);
      board.finish();
      expect(board.core.translations > 0).toBe(translate !== false);
      expect(Array.from({ length: 16 }, (_, n) => board.r(n))).toEqual(reference.r);
      expect([board.core.executed, board.core.read(0, "pc")]).toEqual([reference.executed, reference.pc]);
    }
  });

  it("run translated without leaving it for every instruction", () => {
    const board = new Board(EAGER);
    loop(board);
    board.finish();
    // 10 instructions a round
    expect(board.core.steps).toBeLessThan(board.core.executed / 3);
  });

  it("of long straight code are entered in each line of it, not at their beginning alone", () => {
    const board = new Board(EAGER);
    board.place(RAM, ...Array.from({ length: 128 }, () => t.add(1, 1, 0, 1)));
    board.place(RAM + 0x200n, t.add(3, 3, 0, 1), t.cmp(3, 6), t.blt(-130), t.WFI);
    board.set({ 6: 100n });
    board.finish();
    expect(board.r(1)).toBe(12_800n);
    const view = new DataView(board.core.memory.buffer);
    const slotAt = (offset: number): number => view.getUint16(engine.DECODE_POOL + offset * 4, true);
    expect(view.getUint32(engine.DECODE_POOL + engine.DECODE_PHYSICAL, true)).toBe(0);
    expect([0, 128, 256, 384, 512].map(slotAt)).toEqual(Array(5).fill(engine.TRANSLATED));
  });

  it("of random instructions end alike, interpreted, translated at different samples, sliced, and in the reference", () => {
    let translated = 0;
    for (let seed = 1; seed <= 24; seed++) {
      const first = new Board(false);
      const registers = randomProgram(first, seed);
      const reference = new Reference(first.core.ram.slice(), RAM);
      reference.r.splice(0, 16, ...registers);
      reference.run(20_000);
      first.finish();
      expect(
        Array.from({ length: 16 }, (_, n) => first.r(n)),
        `seed ${seed}`,
      ).toEqual(reference.r);
      expect(first.core.executed).toBe(reference.executed);
      for (const [translate, slice] of [
        [EAGER, 1_000_000],
        [{ interval: 5, samples: 1 }, 333],
        [{ interval: 40, samples: 2 }, 7],
      ] as const) {
        const other = new Board(translate);
        randomProgram(other, seed);
        other.finish(slice);
        expect(other.state, `seed ${seed}`).toBe(first.state);
        translated += other.core.translations;
      }
    }
    expect(translated).toBeGreaterThan(50);
  });

  /** Loops over random arithmetic, branches, calls, loads and stores across a page's end; returns the registers it starts with. */
  function randomProgram(board: Board, seed: number): bigint[] {
    const next = generator(seed);
    const register = (): number => next() % 8;
    const words: number[] = [];
    const length = 20 + (next() % 60);
    for (let n = 0; n < length; n++) {
      const kinds = [
        () => t.movi(register(), (next() % 65536) - 32768),
        () => t.add(register(), register(), register(), (next() % 4096) - 2048),
        () => t.cmp(register(), register()),
        () => t.beq(2),
        () => t.blt(2 + (next() % 2)),
        () => t.ldr(register(), 10, (next() % 512) * 4 + (next() % 4)),
        () => t.str(register(), 10, (next() % 512) * 4 + (next() % 4)),
        () => t.mix(register(), register(), register()),
        () => t.b(2),
      ];
      words.push(kinds[next() % kinds.length]!());
    }
    const back = 2 + (next() % length);
    words.push(t.add(8, 8, 8, 0), t.add(8, 8, 8, 0)); // what a last branch skips
    words.push(t.bl((0x1000 - 0x300) / 4 - words.length)); // to another page
    words.push(t.add(11, 11, 13, -1), t.cmp(12, 11));
    words.push(t.blt(-back), t.WFI);
    board.place(RAM + 0x1000n, t.mix(9, 9, 8), t.br(15));
    board.place(RAM, t.b(0xc0));
    board.place(RAM + 0x300n, ...words);
    const registers = Array.from({ length: 16 }, (_, n) => (n < 8 ? (BigInt(next()) << 32n) | BigInt(next()) : 0n));
    registers[10] = RAM + 0x4e00n;
    registers[11] = 50n;
    registers.forEach((value, n) => {
      board.core.setR(0, n, value);
    });
    return registers;
  }
});

describe("precision", () => {
  it("a budget is used to the instruction, wherever translated blocks end", () => {
    const whole = new Board(false);
    loop(whole);
    whole.core.run(0, 2000);
    for (const translate of BOTH) {
      for (const slice of [1, 2, 3, 7, 13, 400]) {
        const board = new Board(translate);
        loop(board);
        for (let left = 2000; left > 0; ) {
          const before = board.core.executed;
          expect(board.core.run(0, Math.min(slice, left))).toBe(Exit.Budget);
          expect(board.core.executed - before).toBe(Math.min(slice, left));
          left -= Math.min(slice, left);
        }
        expect(board.state).toBe(whole.state);
      }
    }
  });

  it("the timer interrupts at its instruction, and not while masked", () => {
    for (const translate of BOTH) {
      const board = new Board(translate);
      board.place(RAM, t.add(1, 1, 0, 1), t.add(2, 2, 0, 1), t.b(-2));
      board.core.write(0, "deadline", 1000n); // 100 ns each, 10 ns an instruction
      expect(board.core.run(0, 10_000)).toBe(Exit.Budget);
      expect(board.exception).toBeNull();
      board.core.setMasked(0, false);
      board.core.write(0, "deadline", 2000n);
      board.core.run(0, 10_001);
      expect(board.exception).toEqual({ cause: BigInt(layout.INTERRUPT), far: 0n, pc: RAM + 8n });
      expect([board.r(1), board.r(2)]).toEqual([6667n, 6667n]);
    }
  });

  it("a fault in the middle of a translated block shows exactly what was executed before it", () => {
    for (const translate of BOTH) {
      const board = new Board(translate);
      board.place(RAM, t.add(1, 1, 0, 1), t.ldr(2, 5, 0), t.add(3, 3, 0, 1), t.add(5, 5, 0, 8), t.b(-4));
      const end = RAM + BigInt(board.core.ramBytes);
      board.set({ 5: end - 4n - 8n * 500n });
      board.core.run(0, 500 * 5 + 2);
      expect(board.exception).toEqual({ cause: BigInt(layout.FAULT_BUS), far: end, pc: RAM + 4n });
      expect([board.r(1), board.r(3), board.r(5)]).toEqual([501n, 500n, end - 4n]);
      expect(board.core.executed).toBe(2502);
    }
  });

  it("a jump to where no instruction can begin faults there, from within the page and without", () => {
    for (const translate of BOTH) {
      for (const target of [RAM + 0x22n, RAM + 0x5001n]) {
        const board = new Board(translate);
        // r4 is an aligned target for 200 rounds, then `target`
        board.place(RAM, t.add(3, 3, 0, 1), t.cmp(3, 6), t.blt(2), t.add(4, 7, 0, 0), t.br(4));
        board.set({ 4: RAM, 6: 200n, 7: target });
        board.core.run(0, 199 * 4 + 5);
        expect(board.exception).toEqual({ cause: BigInt(layout.FAULT_ALIGNMENT), far: target, pc: target });
        expect(board.core.translations > 0).toBe(translate !== false);
        expect(board.r(3)).toBe(200n);
      }
    }
  });
});

describe("devices", () => {
  it("see every access outside RAM, with time exact; misaligned ones are bus errors", () => {
    for (const translate of BOTH) {
      const board = new Board(translate);
      board.place(RAM, t.ldr(1, 5, 8), t.str(1, 5, 16), t.add(3, 3, 0, 1), t.cmp(3, 6), t.blt(-4), t.ldr(1, 5, 4));
      board.set({ 5: DEVICE, 6: 3n });
      const times: number[] = [];
      board.device.during = () => times.push(board.core.now);
      board.core.run(0, 16);
      expect(board.device.log).toEqual(
        Array.from({ length: 3 }, () => ["load 10000008 8", "store 10000010 8 1234 5678"]).flat(),
      );
      expect(times).toEqual([10, 20, 60, 70, 110, 120]);
      expect(board.exception).toEqual({ cause: BigInt(layout.FAULT_BUS), far: DEVICE + 4n, pc: RAM + 20n });
    }
  });

  it("may cut a slice short or stop the run", () => {
    for (const translate of BOTH) {
      const board = new Board(translate);
      board.place(RAM, t.str(1, 5, 0), t.b(-1));
      board.set({ 5: DEVICE });
      board.device.during = () => {
        if (board.device.log.length === 3) board.core.limitSlice(4);
        if (board.device.log.length === 8) board.core.stop();
      };
      expect(board.core.run(0, 1000)).toBe(Exit.Budget);
      expect(board.core.executed).toBe(9);
      expect(board.core.run(0, 1000)).toBe(Exit.Stop);
      expect(board.device.log.length).toBe(8);
    }
  });

  it("that are asked every few instructions do not keep the code around from being translated", () => {
    const board = new Board({ interval: 256, samples: 1 });
    board.place(RAM, t.ldr(4, 5, 0), t.add(3, 3, 0, 1), t.cmp(3, 6), t.blt(-3), t.WFI);
    board.set({ 5: DEVICE, 6: 1000n });
    board.finish();
    expect(board.device.log.length).toBe(1000);
    expect(board.core.translations).toBeGreaterThan(0);
  });

  it("may look at other harts, and the one that runs goes on as itself", () => {
    for (const translate of BOTH) {
      const board = new Board(translate, 2);
      board.place(RAM, t.str(1, 5, 0), t.add(1, 1, 0, 1), t.cmp(1, 6), t.blt(-3), t.WFI);
      board.set({ 5: DEVICE, 6: 50n });
      board.core.setR(1, 1, 1000n);
      board.device.during = () => {
        expect(board.core.interruptPending(1)).toBe(false);
        board.core.flushTranslations(1);
      };
      board.finish();
      expect([board.r(1), board.core.r(1, 1), board.device.log.length]).toEqual([50n, 1000n, 50]);
    }
  });

  it("are not where firmware calls go: those leave with pc behind them", () => {
    const board = new Board(false);
    board.place(RAM, t.CALL, t.WFI);
    expect([board.core.run(0, 10), board.core.read(0, "pc")]).toEqual([Exit.Call, RAM + 4n]);
    expect([board.core.run(0, 10), board.core.read(0, "pc")]).toEqual([Exit.Wfi, RAM + 8n]);
    expect(board.core.executed).toBe(2);
  });
});

describe("translations of addresses", () => {
  const table = RAM + 0x8000n;
  const mapped = (board: Board, page: number, to: bigint, bits: bigint): void => {
    board.ram.setBigUint64(Number(table - RAM) + page * 8, to | bits, true);
  };

  it("a context has its own: what the kernel may access, a user may not", () => {
    for (const translate of BOTH) {
      const board = new Board(translate);
      mapped(board, 0, RAM, 3n);
      mapped(board, 1, RAM + 0x1000n, 5n); // the kernel's, writable
      board.core.write(0, "table", table);
      board.core.write(0, "pc", 0n);
      // 100 rounds of loads and stores as kernel; then the load again as user
      board.place(
        RAM,
        t.ldr(1, 5, 0),
        t.str(1, 5, 8),
        t.add(3, 3, 0, 1),
        t.cmp(3, 6),
        t.blt(-4),
        t.setElr(7),
        t.setSavedMode(0),
        t.ERET,
      );
      board.set({ 5: 0x1000n, 6: 100n, 7: 0n });
      board.core.run(0, 100 * 5 + 4);
      expect(board.exception).toEqual({ cause: BigInt(layout.FAULT_PERMISSION), far: 0x1000n, pc: 0n });
      expect(board.r(3)).toBe(100n);
      expect(board.core.mode(0)).toBe(1);
    }
  });

  it("loads do not open a page to stores", () => {
    for (const translate of BOTH) {
      const board = new Board(translate);
      mapped(board, 0, RAM, 1n);
      board.core.write(0, "table", table);
      board.core.write(0, "pc", 0n);
      board.place(RAM, t.ldr(1, 5, 0), t.add(3, 3, 0, 1), t.cmp(3, 6), t.blt(-3), t.str(1, 5, 0));
      board.set({ 5: 0x100n, 6: 100n });
      board.core.run(0, 401);
      expect(board.exception).toEqual({ cause: BigInt(layout.FAULT_PERMISSION), far: 0x100n, pc: 16n });
    }
  });

  it("stay until they are flushed; a flush of one address takes its whole 64 KiB along", () => {
    for (const translate of BOTH) {
      const board = new Board(translate);
      mapped(board, 0, RAM, 3n);
      for (let page = 16; page < 32; page++) mapped(board, page, RAM + 0x20000n + BigInt(page - 16) * 0x1000n, 23n);
      for (let page = 0; page < 16; page++) {
        board.ram.setBigUint64(0x20000 + page * 0x1000, 1n, true);
        board.ram.setBigUint64(0x40000 + page * 0x1000, 1000n, true);
      }
      // r1 sums the sixteen pages' first words
      const sum = [
        t.movi(4, 0),
        t.ldr(2, 5, 0),
        t.add(1, 1, 2, 0),
        t.add(5, 5, 8, 0),
        t.add(4, 4, 0, 1),
        t.cmp(4, 6),
        t.blt(-5),
      ];
      board.place(RAM, ...sum, t.WFI, t.flush(7), t.WFI);
      board.core.write(0, "table", table);
      board.core.write(0, "pc", 0n);
      const again = (): bigint => {
        board.set({ 1: 0n, 5: 0x10000n, 6: 16n, 8: 0x1000n });
        board.core.write(0, "pc", 0n);
        board.finish();
        return board.r(1);
      };
      expect(again()).toBe(16n);
      for (let page = 16; page < 32; page++) mapped(board, page, RAM + 0x40000n + BigInt(page - 16) * 0x1000n, 23n);
      expect(again()).toBe(16n);
      board.set({ 7: 0x13000n });
      board.core.write(0, "pc", 32n);
      board.finish();
      expect(again()).toBe(16_000n);
    }
  });

  it("that lead to no RAM for a table or for code are bus errors", () => {
    const board = new Board(false);
    board.core.write(0, "table", 0x1000n);
    board.core.write(0, "pc", 0x2000n);
    board.core.write(0, "vector", 0x3000n);
    const before = board.core.executed;
    expect(board.core.run(0, 100)).toBe(Exit.Budget);
    expect(board.core.executed - before).toBe(100);
    expect([board.core.read(0, "cause"), board.core.read(0, "far")]).toEqual([BigInt(layout.FAULT_BUS), 0x3000n]);
  });
});

describe("capacity and harts", () => {
  it("when functions or decode pages run out, decoding starts over and the guest does not notice", () => {
    const run = (translate: false | { interval: number; samples: number; capacity?: number }): Board => {
      const board = new Board(translate);
      // 40 pages of code, 16 decode pages; each with a loop of its own
      for (let n = 0; n < 40; n++) {
        const next = (n + 1) * 0x1000 + 0x10000;
        const at = n * 0x1000 + 0x10000;
        board.place(
          RAM + BigInt(at),
          t.movi(2, 0),
          t.add(1, 1, 0, n + 1),
          t.add(2, 2, 0, 1),
          t.cmp(2, 6),
          t.blt(-3),
          t.b((next - at - 20) / 4),
        );
      }
      board.place(RAM, t.b(0x4000));
      board.place(RAM + 0x38000n, t.add(3, 3, 0, 1), t.cmp(3, 7), t.blt(2), t.WFI, t.br(9));
      board.set({ 6: 20n, 7: 3n, 9: RAM + 0x10000n });
      board.finish();
      return board;
    };
    const few = run({ ...EAGER, capacity: 7 });
    const plain = run(false);
    expect(few.r(1)).toBe(BigInt((3 * 20 * 40 * 41) / 2));
    expect(few.core.translations).toBeGreaterThan(20);
    expect(few.state).toBe(plain.state);
  });

  it("harts have state of their own, share time and code translated once, and are told of a switch", () => {
    for (const translate of BOTH) {
      const board = new Board(translate, 3);
      const { core } = board;
      board.place(RAM, t.add(1, 1, 2, 0), t.add(3, 3, 0, 1), t.b(-2));
      for (let hart = 0; hart < 3; hart++) core.setR(hart, 2, BigInt(hart + 1));
      for (let round = 0; round < 20; round++) for (let hart = 0; hart < 3; hart++) core.run(hart, 30);
      for (let hart = 0; hart < 3; hart++) {
        expect([core.r(hart, 1), core.r(hart, 3)]).toEqual([BigInt(200 * (hart + 1)), 200n]);
        expect(core.switches(hart)).toBeGreaterThanOrEqual(19);
      }
      expect([core.executed, core.now]).toEqual([1800, 18_000]);
      if (translate !== false) expect(core.translations).toBe(1);
    }
  });
});
