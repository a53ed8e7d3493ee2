// What a guest is told it has, and the extensions whose instructions do next to nothing: hints, Zimop, Zawrs.
import { describe, expect, it } from "vitest";
import { ISA_EXTENSIONS, isaString } from "../../../../vmm/vcpu/riscv64/extensions.ts";
import { Board, Exit, RAM } from "./board.ts";
import * as encode from "./encode.ts";

const WRS_NTO = 0x00d00073;
const WRS_STO = 0x01d00073;
const EAGER = { interval: 16, samples: 1 };

/** An instruction that only a hart with the extension executes (encodings: unprivileged and privileged specifications). x5 holds an odd address. */
const PROBES: Readonly<Record<string, readonly number[]>> = {
  i: [encode.r(0x33, 0, 0, 7, 6, 6)],
  m: [encode.r(0x33, 0, 1, 7, 6, 6)],
  a: [encode.amo(0, true, 7, 8, 6)],
  f: [encode.r(0x53, 0, 0, 1, 2, 3)],
  d: [encode.r(0x53, 0, 1, 1, 2, 3)],
  c: [0x8532], // c.mv a0, a2
  zicbom: [encode.i(0x0f, 2, 0, 5, 0), encode.i(0x0f, 2, 0, 5, 1), encode.i(0x0f, 2, 0, 5, 2)],
  zicbop: [0, 1, 3].map((kind) => encode.i(0x13, 6, 0, 5, kind)),
  zicboz: [encode.i(0x0f, 2, 0, 5, 4)],
  zicclsm: [encode.ld(7, 5, 0), encode.sd(7, 5, 0), encode.load(1, 7, 5, 0), encode.store(2, 5, 7, 0)],
  zicntr: [encode.csr(2, 7, 0xc00, 0), encode.csr(2, 7, 0xc01, 0), encode.csr(2, 7, 0xc02, 0)],
  zicond: [encode.r(0x33, 5, 7, 7, 6, 6), encode.r(0x33, 7, 7, 7, 6, 6)],
  zicsr: [encode.csr(1, 7, 0x140, 6)],
  zifencei: [encode.FENCE_I],
  zihintntl: [2, 3, 4, 5].map((kind) => encode.r(0x33, 0, 0, 0, 0, kind)),
  zihintpause: [0x0100000f],
  zihpm: [encode.csr(2, 7, 0xc03, 0), encode.csr(2, 7, 0xc1f, 0)],
  zimop: [0x81c04073 | (7 << 7), 0x82004073 | (7 << 7)],
  zawrs: [WRS_NTO, WRS_STO],
  zfhmin: [encode.r(0x53, 0, 0x22, 1, 2, 1), encode.i(0x07, 1, 1, 5, 0)],
  zca: [0x0001], // c.nop
  zcb: [0x9c75], // c.not s0
  zcmop: [0x6081], // c.mop.1
  zba: [encode.r(0x33, 2, 0x10, 7, 6, 6)],
  zbb: [encode.r(0x33, 7, 0x20, 7, 6, 6)],
  zbc: [encode.r(0x33, 1, 5, 7, 6, 6)],
  zbs: [encode.r(0x33, 1, 0x14, 7, 6, 6)],
  ssaia: [encode.csr(2, 7, 0xdb0, 0)],
  sstc: [encode.csr(2, 7, 0x14d, 0)],
  svadu: [], // translation.test.ts, as the next
  svinval: [0x18000073, encode.r(0x73, 0, 0x0b, 0, 5, 6), 0x18100073],
  svnapot: [],
  svpbmt: [],
};

describe("the list of extensions", () => {
  it.each(ISA_EXTENSIONS)("%s runs", (name) => {
    const probes = PROBES[name];
    if (probes === undefined) throw new Error(`${name} is listed without an instruction that shows it`);
    for (const probe of probes) {
      const board = new Board();
      board.setX(5, RAM + 0x2ffdn);
      board.setX(8, RAM + 0x2000n);
      board.execute(probe);
      expect(board.trap).toBeNull();
    }
  });

  it("makes a string in which multi-letter names stand behind underscores", () => {
    expect(isaString(["i", "m", "zicsr", "ssaia"])).toBe("rv64im_zicsr_ssaia");
    // what Linux's device-tree binding takes for an ISA string (riscv/cpus.yaml)
    expect(isaString(ISA_EXTENSIONS)).toMatch(/^rv64imafdc(?:_[zs][a-z]+)+$/);
  });

  it("names nothing twice, and Z before S", () => {
    expect(new Set(ISA_EXTENSIONS).size).toBe(ISA_EXTENSIONS.length);
    const kinds = ISA_EXTENSIONS.map((name) => (name.length === 1 ? 0 : name.startsWith("z") ? 1 : 2));
    expect(kinds).toEqual(kinds.toSorted((a, b) => a - b));
  });
});

/** Registers, fflags, traps: what a hint leaves alone. */
function state(board: Board): string {
  const registers = Array.from({ length: 32 }, (_, n) => `${board.x(n)} ${board.f(n)}`);
  return `${registers} ${board.read("sstatus")} ${board.read("scause")} ${board.read("stval")}`;
}

describe("hints", () => {
  const hints: [string, number][] = [
    ["pause", 0x0100000f],
    ["ntl.p1", 0x00200033],
    ["ntl.pall", 0x00300033],
    ["ntl.s1", 0x00400033],
    ["ntl.all", 0x00500033],
    ["c.ntl.p1", 0x900a],
    ["c.ntl.pall", 0x900e],
    ["c.ntl.s1", 0x9012],
    ["c.ntl.all", 0x9016],
    ["prefetch.i", encode.i(0x13, 6, 0, 5, 0)],
    ["prefetch.r", encode.i(0x13, 6, 0, 5, 1)],
    ["prefetch.w", encode.i(0x13, 6, 0, 5, 3)],
    ["prefetch.w of another block", encode.i(0x13, 6, 0, 5, 0x7e3)],
    ...[1, 3, 5, 7, 9, 11, 13, 15].map((n): [string, number] => [`c.mop.${n}`, 0x6081 | ((n >> 1) << 8)]),
  ];
  it.each(hints)("%s changes nothing, in user mode and of an address that is not mapped either", (_, code) => {
    for (const mode of [0n, 1n]) {
      const board = new Board();
      board.write("mode", mode);
      for (let n = 1; n < 32; n++) board.setX(n, 0xdead_beef_0000_0001n * BigInt(n));
      const before = state(board);
      board.execute(code);
      expect(state(board)).toBe(before);
      expect(board.pc).toBe(RAM + ((code & 3) === 3 ? 4n : 2n));
      expect(board.port.log).toEqual([]);
    }
  });
});

describe("Zimop", () => {
  /** 31 and 30, 27:26, 21:20 or 27:26 as the chapter's figures name the bits of n. */
  const mopR = (n: number): number => (0x81c04073 | ((n >> 4) << 30) | (((n >> 2) & 3) << 26) | ((n & 3) << 20)) >>> 0;
  const mopRR = (n: number): number => (0x82004073 | ((n >> 2) << 30) | ((n & 3) << 26)) >>> 0;

  it.each([false, EAGER] as const)(
    "mop.r.0 … 31 and mop.rr.0 … 7 write 0, into x0 nothing (translate %j)",
    (translate) => {
      const words = [
        ...Array.from({ length: 32 }, (_, n) => mopR(n)),
        ...Array.from({ length: 8 }, (_, n) => mopRR(n) | (9 << 20)),
      ];
      const board = new Board({ translate });
      for (const word of words) {
        board.place(
          RAM,
          encode.addi(7, 0, 5),
          word | (7 << 7) | (8 << 15),
          encode.r(0x33, 0, 0, 6, 6, 7),
          word | (8 << 15),
          encode.addi(6, 6, 1),
          encode.addi(12, 12, -1),
          encode.b(1, 12, 0, -24),
          encode.j(0, 0),
        );
        board.reset();
        board.setX(8, 0x1234n);
        board.setX(9, 0x5678n);
        board.setX(12, 20n);
        board.run(20 * 7);
        expect([board.trap, board.x(6), board.x(7), board.x(8), board.x(9)]).toEqual([null, 20n, 0n, 0x1234n, 0x5678n]);
      }
      expect(board.core.translations > 0).toBe(translate !== false);
    },
  );

  it("leaves every other encoding of SYSTEM with funct3 4 illegal, hypervisor loads and stores among them", () => {
    const defined = new Set<number>();
    for (let n = 0; n < 32; n++) defined.add(mopR(n) >>> 20);
    for (let n = 0; n < 8; n++) for (let rs2 = 0; rs2 < 32; rs2++) defined.add((mopRR(n) >>> 20) | rs2);
    expect(defined.size).toBe(32 + 8 * 32);
    const board = new Board();
    for (let upper = 0; upper < 4096; upper++) {
      const code = ((upper << 20) | (6 << 15) | (4 << 12) | (5 << 7) | 0x73) >>> 0;
      board.reset();
      board.execute(code);
      expect(board.trap === null, `0x${code.toString(16)}`).toBe(defined.has(upper));
    }
  });
});

describe("Zawrs", () => {
  const lr = encode.amo(2, true, 6, 5, 0);

  it.each([
    ["wrs.nto", WRS_NTO],
    ["wrs.sto", WRS_STO],
  ])("%s ends by itself, with and without a reservation, in both modes", (_, wrs) => {
    for (const harts of [1, 2]) {
      for (const mode of [0n, 1n]) {
        const board = new Board({ harts });
        board.write("mode", mode);
        board.setX(5, RAM + 0x2000n);
        board.place(RAM, wrs, lr, wrs, encode.addi(7, 7, 1), encode.j(0, 0));
        board.setX(7, 0n);
        board.pc = RAM;
        const before = board.core.executed;
        for (let n = 0; n < 3 && board.x(7) === 0n; n++) expect(board.run(100)).toBe(Exit.Budget);
        expect([board.trap, board.x(7)]).toEqual([null, 1n]);
        expect(board.core.executed - before).toBeLessThan(200);
      }
    }
  });

  it("a hart that waits gives up its turn to the one that stores what it waits for", () => {
    const [word, loop] = [RAM + 0x2000n, RAM + 0x100n];
    const run = (): { turns: number; state: string } => {
      const board = new Board({ harts: 2 });
      const { core } = board;
      // hart 0: until the doubleword is not 0; hart 1: stores 7 to it
      board.place(loop, lr, encode.b(1, 6, 0, 12), WRS_NTO, encode.j(0, -12), encode.addi(7, 6, 0), encode.WFI);
      board.place(RAM, encode.addi(6, 0, 7), encode.sd(6, 5, 0), encode.WFI);
      core.start(0, loop, 0n);
      core.start(1, RAM, 0n);
      for (const hart of [0, 1]) core.setX(hart, 5, word);
      let turns = 0;
      const ended = [false, false];
      for (; !(ended[0] && ended[1]) && turns < 20; turns++) {
        const hart = turns % 2;
        if (!ended[hart]) ended[hart] = core.run(hart, 1_000_000) === Exit.Wfi;
      }
      return { turns, state: `${core.x(0, 7)} ${core.executed} ${core.now}` };
    };
    const first = run();
    // lr, branch, wrs; the other's three; jump, lr, branch, addi, wfi
    expect(first).toEqual({ turns: 3, state: "7 11 110" });
    expect(run()).toEqual(first);
  });

  it("does not wait when an interrupt that sie enables is pending, even with interrupts off", () => {
    const board = new Board({ harts: 2 });
    board.setX(5, RAM + 0x2000n);
    board.write("sie", 1n << 5n);
    board.write("stimecmp", 0n);
    board.place(RAM, lr, WRS_NTO, encode.addi(7, 0, 1), encode.j(0, 0));
    board.pc = RAM;
    board.run(10);
    expect([board.trap, board.x(7)]).toEqual([null, 1n]);
  });
});
