// Address translation in every scheme: permissions, A and D, superpages, reserved bits, what sfence.vma must and must not forget (privileged
// specification, "Sv39", "Svadu", "Svpbmt", "Svnapot").
import { beforeAll, beforeEach, describe, expect, it } from "vitest";
import { Board, RAM } from "./board.ts";
import * as encode from "./encode.ts";

let board: Board;
beforeAll(() => {
  board = new Board();
});

const V = 1n;
const R = 2n;
const W = 4n;
const X = 8n;
const U = 16n;
const G = 32n;
const A = 64n;
const D = 128n;
const SUM = 1n << 18n;
const MXR = 1n << 19n;
const FS = 1n << 13n;
const TABLES = RAM + 0x40000n;
const FRAME = RAM + 0x20000n;
const SCHEMES = [
  { name: "Sv39", mode: 8n, levels: 3 },
  { name: "Sv48", mode: 9n, levels: 4 },
  { name: "Sv57", mode: 10n, levels: 5 },
];

const CODE = FRAME + 0x8000n;
/** Page tables built by hand: a root, one more table per level along the way, taken from TABLES upward. */
class Tables {
  next = TABLES;
  readonly root: bigint;
  readonly mode: bigint;
  readonly levels: number;
  constructor(scheme: { mode: bigint; levels: number }) {
    this.mode = scheme.mode;
    this.levels = scheme.levels;
    this.root = this.table();
  }
  table(): bigint {
    const at = this.next;
    this.next += 0x1000n;
    for (let n = 0n; n < 4096n; n += 8n) board.store64(at + n, 0n);
    return at;
  }
  /** Address of the entry that maps va at `level`, tables made on the way. */
  entry(va: bigint, level = 0): bigint {
    let table = this.root;
    for (let n = this.levels - 1; ; n--) {
      const at = table + ((va >> BigInt(12 + 9 * n)) & 511n) * 8n;
      if (n === level) return at;
      if (board.load64(at) === 0n) board.store64(at, ((this.table() >> 12n) << 10n) | V);
      table = (board.load64(at) >> 10n) << 12n;
    }
  }
  /** Maps a page (or superpage) to `physical` with the given flags. */
  map(va: bigint, physical: bigint, flags: bigint, level = 0): bigint {
    const at = this.entry(va, level);
    board.store64(at, ((physical >> 12n) << 10n) | flags);
    return at;
  }
  use(): void {
    board.write("satp", (this.mode << 60n) | (this.root >> 12n));
    board.core.flushTranslations(0);
  }
}

/** Supervisor code at CODE_VA, user code at USER_VA, both on the page CODE. */
const CODE_VA = 0x10_0000n;
const USER_VA = 0x20_0000n;
const DATA_VA = 0x30_0000n;
function set(scheme: { mode: bigint; levels: number }): Tables {
  board.reset();
  const tables = new Tables(scheme);
  tables.map(CODE_VA, CODE, V | R | X | A | D);
  tables.map(USER_VA, CODE, V | R | X | U | A | D);
  // the trap vector, so that a trapped hart stays put
  tables.map(0x8000_f000n, 0x8000_f000n, V | X | A);
  tables.use();
  return tables;
}

type Kind = "load" | "store" | "fetch" | "amo" | "lr";
/** Does one access at `va` in `mode`; returns null or the exception. */
function access(kind: Kind, va: bigint, mode: bigint, status: bigint): { cause: bigint; value: bigint } | null {
  const code = {
    load: encode.ld(7, 5, 0),
    store: encode.sd(6, 5, 0),
    fetch: encode.jalr(0, 5, 0),
    amo: encode.amo(0, true, 7, 5, 6),
    lr: encode.amo(2, true, 7, 5, 0),
  }[kind];
  board.place(CODE, code);
  board.write("mode", mode);
  board.write("sstatus", status | FS);
  board.write("scause", 99n);
  board.setX(5, va);
  board.pc = mode === 0n ? USER_VA : CODE_VA;
  board.run(kind === "fetch" ? 2 : 1);
  return board.read("scause") === 99n ? null : { cause: board.read("scause"), value: board.read("stval") };
}
const FAULT: Record<Kind, bigint> = { load: 13n, store: 15n, fetch: 12n, amo: 15n, lr: 13n };

describe.each(SCHEMES)("$name", (scheme) => {
  it("maps a page for loads, stores and fetches", () => {
    const tables = set(scheme);
    tables.map(DATA_VA, FRAME, V | R | W | A | D);
    board.store64(FRAME + 8n, 0x1234n);
    board.setX(6, 0x5678n);
    expect(access("load", DATA_VA + 8n, 1n, 0n)).toBeNull();
    expect(board.x(7)).toBe(0x1234n);
    expect(access("store", DATA_VA + 8n, 1n, 0n)).toBeNull();
    expect(board.load64(FRAME + 8n)).toBe(0x5678n);
    tables.map(DATA_VA, FRAME, V | X | A);
    board.core.flushTranslations(0);
    board.place(FRAME, encode.addi(9, 0, 77));
    expect(access("fetch", DATA_VA, 1n, 0n)).toBeNull();
    expect(board.x(9)).toBe(77n);
  });

  it("checks R, W, X and U against mode, SUM and MXR, for every combination", () => {
    const tables = set(scheme);
    for (let flags = 0n; flags < 16n; flags++) {
      // V with R, W, X, U in all combinations but the reserved W without R, and pointers
      const r = (flags & 1n) !== 0n;
      const w = (flags & 2n) !== 0n;
      const x = (flags & 4n) !== 0n;
      const u = (flags & 8n) !== 0n;
      if (!r && !x) continue;
      if (w && !r) continue;
      tables.map(DATA_VA, FRAME, V | A | D | (r ? R : 0n) | (w ? W : 0n) | (x ? X : 0n) | (u ? U : 0n));
      board.core.flushTranslations(0);
      for (const kind of ["load", "store", "fetch", "amo", "lr"] as const) {
        for (const mode of [0n, 1n]) {
          for (const status of [0n, SUM, MXR, SUM | MXR]) {
            const user = mode === 0n ? u : !u || (kind !== "fetch" && (status & SUM) !== 0n);
            const right =
              kind === "fetch" ? x : kind === "load" || kind === "lr" ? r || (x && (status & MXR) !== 0n) : w;
            const wanted = user && right ? null : { cause: FAULT[kind], value: DATA_VA };
            board.core.flushTranslations(0); // MXR and mode are written from outside
            board.place(FRAME, encode.NOP); // earlier stores went there
            expect(access(kind, DATA_VA, mode, status), `${kind} flags ${flags} mode ${mode} status ${status}`).toEqual(
              wanted,
            );
          }
        }
      }
    }
  });

  it("an access through one context leaves no permission to another", () => {
    const tables = set(scheme);
    tables.map(DATA_VA, FRAME, V | R | W | U | A | D);
    for (let round = 0; round < 2; round++) {
      expect(access("load", DATA_VA, 1n, SUM)).toBeNull();
      expect(access("store", DATA_VA, 1n, SUM)).toBeNull();
      expect(access("load", DATA_VA, 1n, 0n)?.cause).toBe(13n);
      expect(access("store", DATA_VA, 1n, 0n)?.cause).toBe(15n);
      expect(access("load", DATA_VA, 0n, 0n)).toBeNull();
    }
    tables.map(DATA_VA + 0x1000n, FRAME, V | R | W | A | D);
    expect(access("load", DATA_VA + 0x1000n, 1n, SUM)).toBeNull();
    expect(access("load", DATA_VA + 0x1000n, 0n, 0n)?.cause).toBe(13n);
  });

  it("sets A on every access and D on stores, in the leaf only (Svadu)", () => {
    const tables = set(scheme);
    for (const [kind, bits] of [
      ["load", A],
      ["lr", A],
      ["store", A | D],
      ["amo", A | D],
      ["fetch", A],
    ] as const) {
      board.place(FRAME, encode.NOP);
      const entry = tables.map(DATA_VA, FRAME, V | R | W | X);
      const before = board.load64(entry);
      board.core.flushTranslations(0);
      expect(access(kind, DATA_VA, 1n, 0n), kind).toBeNull();
      expect(board.load64(entry), kind).toBe(before | bits);
    }
  });

  it("a load followed by a store sets D", () => {
    const tables = set(scheme);
    const entry = tables.map(DATA_VA, FRAME, V | R | W);
    board.core.flushTranslations(0);
    access("load", DATA_VA, 1n, 0n);
    access("store", DATA_VA, 1n, 0n);
    expect(board.load64(entry) & (A | D)).toBe(A | D);
  });

  it("a faulting access sets nothing", () => {
    const tables = set(scheme);
    const entry = tables.map(DATA_VA, FRAME, V | R);
    board.core.flushTranslations(0);
    expect(access("store", DATA_VA, 1n, 0n)?.cause).toBe(15n);
    expect(board.load64(entry) & (A | D)).toBe(0n);
  });

  it.each([
    ["not valid", R | W | X | A | D],
    ["writable but not readable", V | W | A | D],
    ["writable and executable but not readable", V | W | X | A | D],
    ["reserved bit 54", V | R | W | X | A | D | (1n << 54n)],
    ["reserved bit 60", V | R | W | X | A | D | (1n << 60n)],
    ["memory type 3", V | R | W | X | A | D | (3n << 61n)],
    ["a pointer at the last level", V],
  ])("a leaf that is %s faults", (_, flags) => {
    const tables = set(scheme);
    tables.map(DATA_VA, FRAME, flags);
    board.core.flushTranslations(0);
    for (const kind of ["load", "store", "fetch"] as const) {
      expect(access(kind, DATA_VA, 1n, 0n)).toEqual({ cause: FAULT[kind], value: DATA_VA });
    }
  });

  it.each([
    ["A", A],
    ["D", D],
    ["U", U],
    ["a memory type", 1n << 61n],
    ["N", 1n << 63n],
    ["a reserved bit", 1n << 55n],
  ])("a pointer with %s faults", (_, bit) => {
    const tables = set(scheme);
    tables.map(DATA_VA, FRAME, V | R | A);
    const pointer = tables.entry(DATA_VA, 1);
    board.store64(pointer, board.load64(pointer) | bit);
    board.core.flushTranslations(0);
    expect(access("load", DATA_VA, 1n, 0n)?.cause).toBe(13n);
    board.store64(pointer, (board.load64(pointer) & ~bit) | G);
    expect(access("load", DATA_VA, 1n, 0n)).toBeNull();
  });

  it("superpages of every level map their whole size; misaligned ones fault", () => {
    for (let level = 1; level < scheme.levels; level++) {
      const tables = set(scheme);
      const size = 1n << BigInt(12 + 9 * level);
      const va = 1n << BigInt(12 + 9 * scheme.levels - 2);
      // RAM is the first MiB of its gigapage: the superpage that holds it starts at or below RAM
      const physical = RAM & ~(size - 1n);
      tables.map(va, physical, V | R | W | A | D, level);
      board.store64(FRAME + 0x1008n, 0x77n);
      expect(access("load", va + (FRAME - physical) + 0x1008n, 1n, 0n), `level ${level}`).toBeNull();
      expect(board.x(7)).toBe(0x77n);
      tables.map(va, physical + 0x1000n, V | R | W | A | D, level);
      board.core.flushTranslations(0);
      expect(access("load", va + (FRAME - physical) + 0x1008n, 1n, 0n)?.cause).toBe(13n);
    }
  });

  it("addresses whose upper bits are no sign extension fault", () => {
    const tables = set(scheme);
    const top = 1n << BigInt(12 + 9 * scheme.levels - 1);
    tables.map(top - 0x1000n, FRAME, V | R | A);
    tables.map((1n << 64n) - top, FRAME, V | R | A);
    expect(access("load", top - 0x1000n, 1n, 0n)).toBeNull();
    expect(access("load", (1n << 64n) - top, 1n, 0n)).toBeNull();
    expect(access("load", top, 1n, 0n)).toEqual({ cause: 13n, value: top });
    expect(access("load", (top - 0x1000n) | (1n << 63n), 1n, 0n)?.cause).toBe(13n);
    expect(access("fetch", top, 1n, 0n)).toEqual({ cause: 12n, value: top });
  });

  it("a table outside RAM is an access fault of the original access", () => {
    const tables = set(scheme);
    board.store64(tables.entry(DATA_VA, 1), ((0x1000_0000n >> 12n) << 10n) | V);
    expect(access("load", DATA_VA, 1n, 0n)).toEqual({ cause: 5n, value: DATA_VA });
    expect(access("store", DATA_VA, 1n, 0n)).toEqual({ cause: 7n, value: DATA_VA });
    expect(access("fetch", DATA_VA, 1n, 0n)).toEqual({ cause: 1n, value: DATA_VA });
  });

  it("maps devices, and remembers nothing about them", () => {
    const tables = set(scheme);
    tables.map(DATA_VA, 0x1000_0000n, V | R | W | A | D | (2n << 61n));
    board.port.log.length = 0;
    expect(access("load", DATA_VA + 0x20n, 1n, 0n)).toBeNull();
    tables.map(DATA_VA, 0x1000_1000n, V | R | W | A | D);
    expect(access("load", DATA_VA + 0x20n, 1n, 0n)).toBeNull();
    expect(board.port.log.map((it) => it.address)).toEqual([0x10000020, 0x10001020]);
  });
});

describe("accesses across two pages", () => {
  const scheme = SCHEMES[0]!;
  it("go to both pages, wherever these lie", () => {
    const tables = set(scheme);
    tables.map(DATA_VA, FRAME + 0x2000n, V | R | W | A | D);
    tables.map(DATA_VA + 0x1000n, FRAME, V | R | W | A | D);
    board.setX(6, 0x8877665544332211n);
    for (let twice = 0; twice < 2; twice++) {
      expect(access("store", DATA_VA + 0xffdn, 1n, 0n)).toBeNull();
      expect(access("load", DATA_VA + 0xffdn, 1n, 0n)).toBeNull();
      expect(board.x(7)).toBe(0x8877665544332211n);
    }
    expect(board.load64(FRAME + 0x2ff8n) >> 40n).toBe(0x332211n);
    expect(board.load64(FRAME) & 0xffffffffffn).toBe(0x8877665544n);
  });

  it.each(["load", "store"] as const)("a %s whose second page is missing faults there and does nothing", (kind) => {
    const tables = set(scheme);
    tables.map(DATA_VA, FRAME, V | R | W | A | D);
    board.store64(FRAME + 0xff8n, 0n);
    board.setX(6, -1n);
    board.setX(7, 3n);
    expect(access(kind, DATA_VA + 0xffdn, 1n, 0n)).toEqual({ cause: FAULT[kind], value: DATA_VA + 0x1000n });
    expect(board.load64(FRAME + 0xff8n)).toBe(0n);
    expect(board.x(7)).toBe(3n);
  });

  it("a fetch whose second half is missing faults with pc at the instruction and stval at the half", () => {
    const tables = set(scheme);
    tables.map(DATA_VA, FRAME, V | X | A);
    board.place(FRAME + 0xffen, encode.addi(9, 0, 5));
    access("fetch", DATA_VA + 0xffen, 1n, 0n);
    expect([board.read("scause"), board.read("stval"), board.read("sepc")]).toEqual([
      12n,
      DATA_VA + 0x1000n,
      DATA_VA + 0xffen,
    ]);
    tables.map(DATA_VA + 0x1000n, FRAME + 0x1000n, V | X | A);
    expect(access("fetch", DATA_VA + 0xffen, 1n, 0n)).toBeNull();
    expect(board.x(9)).toBe(5n);
  });

  it("a straddling instruction follows a change of the second page's mapping", () => {
    const tables = set(scheme);
    tables.map(DATA_VA, FRAME, V | X | A);
    const code = encode.addi(9, 0, 5);
    const other = encode.addi(9, 0, 1029); // differs in its upper half only
    board.ram.setUint16(Number(FRAME - RAM) + 0xffe, code & 0xffff, true);
    board.ram.setUint16(Number(FRAME - RAM) + 0x1000, code >>> 16, true);
    board.ram.setUint16(Number(FRAME - RAM) + 0x2000, other >>> 16, true);
    for (const [page, value] of [
      [FRAME + 0x1000n, 5n],
      [FRAME + 0x2000n, 1029n],
      [FRAME + 0x1000n, 5n],
    ] as const) {
      tables.map(DATA_VA + 0x1000n, page, V | X | A);
      board.core.flushTranslations(0);
      expect(access("fetch", DATA_VA + 0xffen, 1n, 0n)).toBeNull();
      expect(board.x(9)).toBe(value);
    }
  });
});

describe("Svnapot and Svpbmt", () => {
  const scheme = SCHEMES[0]!;
  const N = 1n << 63n;
  it("a 64 KiB page maps all its sixteen pages through one entry each", () => {
    const tables = set(scheme);
    for (let page = 0n; page < 16n; page++) {
      tables.map(DATA_VA + page * 0x1000n, FRAME + 0x8000n, N | V | R | A);
      board.store64(FRAME + page * 0x1000n + 16n, page + 100n);
    }
    for (let page = 0n; page < 16n; page++) {
      if (FRAME + page * 0x1000n === CODE) continue;
      expect(access("load", DATA_VA + page * 0x1000n + 16n, 1n, 0n)).toBeNull();
      expect(board.x(7)).toBe(page + 100n);
    }
  });

  it("N with another encoding, or in a superpage, is reserved", () => {
    const tables = set(scheme);
    for (const low of [0n, 1n, 4n, 0xcn]) {
      tables.map(DATA_VA, (FRAME & ~0xffffn) + low * 0x1000n, N | V | R | A);
      board.core.flushTranslations(0);
      expect(access("load", DATA_VA, 1n, 0n)?.cause, `${low}`).toBe(13n);
    }
    tables.map(1n << 30n, RAM, N | V | R | A, 1);
    expect(access("load", 1n << 30n, 1n, 0n)?.cause).toBe(13n);
  });

  it("memory types 1 and 2 are memory", () => {
    const tables = set(scheme);
    for (const type of [1n, 2n]) {
      tables.map(DATA_VA, FRAME, V | R | A | (type << 61n));
      board.core.flushTranslations(0);
      expect(access("load", DATA_VA, 1n, 0n)).toBeNull();
    }
  });

  it("bits of extensions that the machine does not offer are reserved", () => {
    const before = board;
    board = new Board({ translation: { svpbmt: false, svnapot: false } });
    try {
      const tables = set(scheme);
      for (const bits of [1n << 61n, 2n << 61n, N]) {
        tables.map(DATA_VA, (FRAME & ~0xffffn) + 0x8000n, V | R | A | bits);
        board.core.flushTranslations(0);
        expect(access("load", DATA_VA, 1n, 0n)?.cause).toBe(13n);
      }
    } finally {
      board = before;
    }
  });
});

describe("sfence.vma", () => {
  const scheme = SCHEMES[0]!;
  const forms: [string, number][] = [
    ["of everything", encode.SFENCE_VMA],
    ["of an address", encode.r(0x73, 0, 9, 0, 5, 0)],
    ["of an ASID", encode.r(0x73, 0, 9, 0, 0, 8)],
    ["of an address and an ASID", encode.r(0x73, 0, 9, 0, 5, 8)],
    ["as sinval.vma of an address", encode.r(0x73, 0, 0x0b, 0, 5, 0)],
  ];
  function fence(code: number, va: bigint): void {
    board.place(CODE, code);
    board.write("mode", 1n);
    board.setX(5, va);
    board.setX(8, 0n);
    board.pc = CODE_VA;
    board.run(1);
  }

  beforeEach(() => board.reset());

  it.each(forms)("%s makes a changed entry visible to loads, stores and fetches", (_, code) => {
    const tables = set(scheme);
    board.place(FRAME, encode.addi(9, 0, 1));
    board.place(FRAME + 0x1000n, encode.addi(9, 0, 2));
    tables.map(DATA_VA, FRAME, V | R | W | X | A | D);
    access("load", DATA_VA, 1n, 0n);
    access("store", DATA_VA + 8n, 1n, 0n);
    access("fetch", DATA_VA, 1n, 0n);
    expect(board.x(9)).toBe(1n);
    tables.map(DATA_VA, FRAME + 0x1000n, V | R | X | A | D);
    fence(code, DATA_VA + 0x123n);
    expect(access("fetch", DATA_VA, 1n, 0n)).toBeNull();
    expect(board.x(9)).toBe(2n);
    expect(access("load", DATA_VA, 1n, 0n)).toBeNull();
    expect(board.x(7) & 0xffffffffn).toBe(BigInt(encode.addi(9, 0, 2)));
    expect(access("store", DATA_VA + 8n, 1n, 0n)?.cause).toBe(15n);
  });

  it.each(forms)("%s forgets all of a superpage", (_, code) => {
    const tables = set(scheme);
    const va = 1n << 30n;
    const at = FRAME - RAM;
    tables.map(va, RAM, V | R | W | A | D, 1);
    for (let page = 0n; page < 4n; page++) access("load", va + at + page * 0x1000n, 1n, 0n);
    board.store64(tables.entry(va, 1), 0n);
    fence(code, va);
    for (let page = 0n; page < 4n; page++) {
      expect(access("load", va + at + page * 0x1000n, 1n, 0n)?.cause).toBe(13n);
    }
  });

  it("forgets superpages also when there are more of them than it remembers one by one", () => {
    const tables = set(scheme);
    const at = FRAME - RAM;
    const places = Array.from({ length: 12 }, (_, n) => BigInt(n + 1) << 30n);
    for (const va of places) {
      tables.map(va, RAM, V | R | A, 1);
      access("load", va + at, 1n, 0n);
    }
    for (const va of places) {
      board.store64(tables.entry(va, 1), 0n);
      fence(encode.r(0x73, 0, 9, 0, 5, 0), va + 0x1000n);
      expect(access("load", va + at, 1n, 0n)?.cause).toBe(13n);
    }
  });

  it("a new valid entry needs no fence: faults are not remembered", () => {
    const tables = set(scheme);
    expect(access("load", DATA_VA, 1n, 0n)?.cause).toBe(13n);
    tables.map(DATA_VA, FRAME, V | R | A);
    expect(access("load", DATA_VA, 1n, 0n)).toBeNull();
  });
});

describe("switching translation on", () => {
  it("the instruction behind csrw satp is fetched through the new tables: it may page-fault to stvec", () => {
    board.reset();
    const tables = new Tables(SCHEMES[0]!);
    tables.map(0x8000_f000n, 0x8000_f000n, V | X | A);
    board.setX(5, (8n << 60n) | (tables.root >> 12n));
    board.place(RAM, encode.csr(1, 0, 0x180, 5), encode.addi(7, 0, 1));
    board.setX(7, 0n);
    board.pc = RAM;
    board.run(2);
    expect([board.read("scause"), board.read("sepc"), board.x(7)]).toEqual([12n, RAM + 4n, 0n]);
  });

  it("an access through Bare after Sv39 is physical again", () => {
    const tables = set(SCHEMES[0]!);
    tables.map(RAM, FRAME, V | R | X | A);
    tables.map(CODE, CODE, V | R | X | A);
    board.store64(RAM + 0x800n, 1n);
    board.store64(FRAME + 0x800n, 2n);
    board.setX(5, RAM + 0x800n);
    board.place(CODE, encode.ld(7, 5, 0), encode.csr(5, 0, 0x180, 0), encode.ld(8, 5, 0));
    board.write("mode", 1n);
    board.pc = CODE;
    board.run(3);
    expect([board.x(7), board.x(8)]).toEqual([2n, 1n]);
  });
});
