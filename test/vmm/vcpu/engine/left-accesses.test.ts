// Loads and stores that translated code leaves: a device's, and RAM's whose page the TLB does not know. Translated code goes on behind them by itself
// (engine/assembly/translated.ts), unless what they set in motion has to be seen to first. Everything is compared with the interpreter, slice by slice.
import { describe, expect, it } from "vitest";
import { Exit } from "../../../../vmm/vcpu/engine/core.ts";
import { Board, DEVICE, EAGER, RAM, VECTOR } from "./board.ts";
import { Debugger } from "./debugger.ts";
import * as t from "./tiny/tiny.ts";

const TICK_NS = 100;
const NEVER = 2n ** 64n - 1n;
const DATA = RAM + 0x20000n;

/** A loop in which half of the instructions leave translated code: two for a device, one for RAM that was flushed from the TLB before. */
function program(board: Board): void {
  board.place(
    RAM,
    ...[
      t.ldr(1, 5, 8),
      t.add(2, 2, 1, 3),
      t.str(2, 5, 16),
      t.flush(7),
      t.ldr(4, 7, 8),
      t.add(4, 4, 0, 1),
      t.str(4, 7, 8),
    ],
    ...[t.add(3, 3, 0, 1), t.cmp(3, 6), t.blt(-9), t.WFI],
  );
  // the handler tells the device, which calls the interrupt off, and counts
  board.place(VECTOR, t.str(8, 5, 24), t.add(8, 8, 0, 1), t.ERET);
  board.set({ 5: DEVICE, 6: 120n, 7: DATA });
}

type Happening = (board: Board) => void;
/** In the next tick after so many ns. */
const at = (board: Board, ns: number): void =>
  board.core.write(0, "deadline", BigInt(Math.floor((board.core.now + ns) / TICK_NS)));

/** What a device can do to the CPU within an access of its. */
const HAPPENINGS: Readonly<Record<string, Happening>> = {
  "an interrupt at once": (board) => at(board, 0),
  "an interrupt some instructions later": (board) => at(board, 120),
  "an interrupt, and the run ends": (board) => {
    at(board, 0);
    board.core.stop();
  },
  "the run ends": ({ core }) => core.stop(),
  "the slice ends now": ({ core }) => core.limitSlice(0),
  "the slice ends soon": ({ core }) => core.limitSlice(4),
  "time passes": ({ core }) => {
    core.now += 1000;
  },
  "time passes, and an interrupt falls due": (board) => {
    at(board, 800);
    board.core.now += 1000;
  },
  "translations are forgotten": ({ core }) => core.flushTranslations(0),
  "the code changes behind the access, and is fetched again": (board) => {
    board.place(RAM + 4n, t.add(2, 2, 1, 7));
  },
};

function run(
  translate: typeof EAGER | false,
  slice: number,
  happen: Happening,
  every: number,
  watch?: Debugger,
): string[] {
  const board = new Board(translate);
  board.core.write(0, "deadline", NEVER);
  board.core.setMasked(0, false);
  program(board);
  let accesses = 0;
  board.device.during = () => {
    if (board.device.log.at(-1)!.startsWith("store 10000018")) board.core.write(0, "deadline", NEVER);
    else if (++accesses % every === 0) happen(board);
  };
  const states: string[] = [];
  let exit: Exit;
  do {
    exit = watch === undefined ? board.core.run(0, slice) : watch.run(board.core, 0, slice);
    const { core, device } = board;
    states.push(
      `${exit} ${core.read(0, "pc")} ${core.now} ${core.executed} ${board.r(2)} ${board.r(4)} ${device.log.length}`,
    );
    if (states.length > 10_000) throw new Error("the program did not end");
  } while (exit !== Exit.Wfi);
  if (watch === undefined) expect(board.core.translations > 0).toBe(translate !== false);
  expect(board.device.log.length).toBeGreaterThanOrEqual(240);
  return [...states, board.state, `${board.r(8)} interrupts`];
}

describe("what a device does within an access", () => {
  it.each(Object.keys(HAPPENINGS))("%s: seen by the next instruction, interpreted and translated", (name) => {
    for (const slice of [100_000, 97, 5]) {
      for (const every of [1, 3, 7]) {
        const interpreted = run(false, slice, HAPPENINGS[name]!, every);
        expect(interpreted.at(-1) !== "0 interrupts").toBe(name.includes("an interrupt"));
        expect(run(EAGER, slice, HAPPENINGS[name]!, every)).toEqual(interpreted);
      }
    }
  });

  it("and all of it by turns, under a debugger that stops at accesses, too", () => {
    const happenings = Object.values(HAPPENINGS);
    let stops = 0;
    for (let seed = 1; seed <= 20; seed++) {
      const turns = (): Happening => {
        let state = seed;
        return (board) => {
          state = (Math.imul(state, 1103515245) + 12345) >>> 0;
          happenings[(state >>> 16) % happenings.length]!(board);
        };
      };
      const interpreted = run(false, 1000, turns(), 2);
      expect(run(EAGER, 1000, turns(), 2)).toEqual(interpreted);
      let random = seed;
      const watch = new Debugger(() => {
        random = (Math.imul(random, 1664525) + 1013904223) >>> 0;
        return random >>> 8;
      });
      expect(run(EAGER, 1000, turns(), 2, watch)).toEqual(interpreted);
      stops += watch.stops;
    }
    expect(stops).toBeGreaterThan(100);
  });
});

/** Behind three instructions: a loop over them until r3 is r6. */
const COUNTED = [t.add(3, 3, 0, 1), t.cmp(3, 6), t.blt(-5), t.WFI];

/** What comes of a board that interprets, and of one that translates. */
function both<T>(translate: typeof EAGER, outcome: (board: Board) => T): readonly [T, T] {
  const [interpreting, translating] = [new Board(false), new Board(translate)];
  const outcomes = [outcome(interpreting), outcome(translating)] as const;
  expect([interpreting.core.translations > 0, translating.core.translations > 0]).toEqual([false, true]);
  return outcomes;
}

describe("an access of RAM", () => {
  it("that is watched stops the CPU before it, each time", () => {
    const [interpreted, translated] = both(EAGER, (board) => {
      program(board);
      board.core.run(0, 200);
      board.core.setWatchpoints([{ address: Number(DATA) + 8, bytes: 8, loads: true, stores: true }]);
      const stops: string[] = [];
      for (let exit: Exit = Exit.Break; exit === Exit.Break; ) {
        exit = board.core.run(0, 100_000);
        stops.push(
          `${exit} ${board.core.read(0, "pc")} ${board.core.executed} ${board.r(4)} ${board.core.watchHit?.address}`,
        );
      }
      return stops;
    });
    expect(interpreted.length).toBe(2 * (120 - 200 / 10) + 1);
    expect(translated).toEqual(interpreted);
  });

  it("behind a loop is not done before a slice that has room for it, wherever slices end", () => {
    // a loop that is translated before what stands behind it has run
    const code = [t.add(1, 1, 0, 1), t.cmp(1, 6), t.blt(-2), t.ldr(4, 7, 0), t.add(4, 4, 0, 1), t.str(4, 7, 0)];
    code.push(t.movi(1, 0), t.add(3, 3, 0, 1), t.cmp(3, 9), t.blt(-9), t.WFI);
    for (let slice = 1; slice < 40; slice++) {
      const [interpreted, translated] = both({ interval: 40, samples: 1 }, (board) => {
        board.place(RAM, ...code);
        board.set({ 6: 20n, 7: DATA, 9: 40n });
        const counts: string[] = [];
        while (board.core.run(0, slice) !== Exit.Wfi) counts.push(`${board.core.read(0, "pc")} ${board.core.executed}`);
        return [...counts, board.state];
      });
      expect(translated, `slices of ${slice}`).toEqual(interpreted);
    }
  });

  it("or of a device that faults in the kernel, whose handler goes on behind it, is an instruction like any other", () => {
    const [interpreted, translated] = both(EAGER, (board) => {
      board.place(RAM, t.ldr(1, 5, 4), t.add(2, 2, 0, 1), t.str(1, 5, 4), ...COUNTED);
      // loads fault at RAM, stores 8 bytes behind it
      board.place(VECTOR, t.add(8, 8, 0, 1), t.setElr(11), t.ERET);
      board.set({ 5: DEVICE, 6: 200n, 11: RAM + 4n });
      let states = "";
      for (let n = 0; n < 300; n++) {
        if (n % 7 === 0) board.set({ 11: RAM + (n % 2 === 0 ? 4n : 12n) });
        states += `${board.core.run(0, 13)} ${board.state}\n`;
      }
      return states;
    });
    expect(translated).toBe(interpreted);
  });

  it("that faults behind others goes on in the handler, in its mode, with what was executed before", () => {
    const [interpreted, translated] = both(EAGER, (board) => {
      const table = RAM + 0x30000n;
      const page = (va: number, to: bigint, rights: bigint): void =>
        board.ram.setBigUint64(Number(table - RAM) + (va >> 12) * 8, to | rights, true);
      page(0x1000, RAM, 3n);
      page(0x2000, DATA, 7n);
      page(0x3000, DATA, 1n);
      page(0xe000, VECTOR, 1n);
      board.core.write(0, "vector", 0xe000n);
      board.place(RAM, t.ldr(1, 7, 8), t.add(2, 2, 1, 1), t.ldr(4, 9, 0), ...COUNTED);
      // behind the load that the kernel may do and a user may not
      board.place(VECTOR, t.ldr(10, 9, 0), t.add(8, 8, 0, 1), t.add(11, 12, 0, 12), t.setElr(11), t.ERET);
      board.set({ 6: 300n, 7: 0x2000n, 9: 0x3000n, 12: 0x1000n });
      board.core.write(0, "table", table);
      // to the user's code
      page(0xd000, RAM + 0xd000n, 1n);
      board.place(RAM + 0xd000n, t.setElr(12), t.setSavedMode(13), t.ERET);
      board.core.write(0, "pc", 0xd000n);
      board.finish();
      expect([board.r(3), board.r(8)]).toEqual([300n, 300n]);
      return board.state;
    });
    expect(translated).toBe(interpreted);
  });
});
