// The engine with an instruction set of its own (tiny/): what any front end gets from it, interpreted and translated alike, against a slow reference that
// shares nothing with it.
import { readFileSync } from "node:fs";
import { beforeAll, describe, expect, it } from "vitest";
import { Exit, type HartMmioPort } from "../../../../vmm/vcpu/engine/core.ts";
import { generator } from "../riscv64/reference/integer.ts";
import * as layout from "./tiny/assembly/layout.ts";
import { buildTiny } from "./tiny/build.mjs";
import { Reference } from "./tiny/reference.ts";
import * as t from "./tiny/tiny.ts";

const RAM = 0x8000_0000n;
const VECTOR = RAM + 0xe000n;
const DEVICE = 0x1000_0000n;
const EAGER = { interval: 16, samples: 1 };
const BOTH = [false, EAGER] as const;

let module: WebAssembly.Module;
beforeAll(async () => {
  module = new WebAssembly.Module(readFileSync(await buildTiny()));
});

class Device implements HartMmioPort {
  high = 0;
  readonly log: string[] = [];
  during = (): void => {};
  load(address: number, size: number): number {
    this.log.push(`load ${address.toString(16)} ${size}`);
    this.during();
    this.high = 0x1234;
    return 0x5678;
  }
  store(address: number, size: number, low: number, high: number): void {
    this.log.push(`store ${address.toString(16)} ${size} ${high.toString(16)} ${low.toString(16)}`);
    this.during();
  }
}

class Board {
  readonly device = new Device();
  readonly core: t.TinyCore;
  readonly ram: DataView;

  constructor(translate: typeof EAGER | { interval: number; samples: number; capacity?: number } | false, harts = 1) {
    this.core = new t.TinyCore({ module, ramBytes: 1 << 20, mmio: this.device, harts, decodePages: 16, translate });
    this.ram = new DataView(this.core.memory.buffer, this.core.ramOffset, this.core.ramBytes);
    this.place(VECTOR, t.b(0));
    for (let hart = 0; hart < harts; hart++) this.core.write(hart, "vector", VECTOR);
  }

  place(address: bigint, ...words: number[]): void {
    words.forEach((word, n) => {
      this.ram.setUint32(Number(address - RAM) + n * 4, word, true);
    });
    this.core.fenceInstructions(0);
  }

  r(index: number): bigint {
    return this.core.r(0, index);
  }

  set(values: Readonly<Record<number, bigint>>): void {
    for (const [index, value] of Object.entries(values)) this.core.setR(0, Number(index), value);
  }

  /** Runs hart 0 in slices until it waits. */
  finish(slice = 1_000_000, limit = 1_000_000): void {
    while (this.core.executed < limit) {
      if (this.core.run(0, Math.min(slice, limit - this.core.executed)) === Exit.Wfi) return;
    }
    throw new Error("the program did not end");
  }

  /** Cause, address and pc of the exception whose handler hart 0 is in. */
  get exception(): { cause: bigint; far: bigint; pc: bigint } | null {
    const { core } = this;
    if (core.read(0, "pc") !== VECTOR) return null;
    return { cause: core.read(0, "cause"), far: core.read(0, "far"), pc: core.read(0, "elr") };
  }

  /** Everything the guest could see. */
  get state(): string {
    const { core } = this;
    let sum = 0;
    for (const byte of core.ram) sum = (Math.imul(sum, 31) + byte) | 0;
    const registers = Array.from({ length: 16 }, (_, n) => core.r(0, n).toString(16));
    return `${registers} ${core.read(0, "pc")} ${core.now} ${core.executed} ${sum}`;
  }
}

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
