import { describe, expect, it } from "vitest";
import { SeededRandom } from "../../../../host/base/seeded-random.ts";
import { Board, RAM, VECTORS } from "./board.ts";
import { randomInstruction } from "./random-instructions.ts";
import { decodeBitMask, type Memory, Reference, Undefined } from "./reference.ts";

const CODE = RAM + 0x1000n;
const DATA = 0x1_0000;
const DATA_BYTES = 0x1_0000;

/** Values at the edges as often as any others. */
function operand(random: SeededRandom): bigint {
  const any = (BigInt(random.below(2 ** 32)) << 32n) | BigInt(random.below(2 ** 32));
  const edges = [0n, 1n, 0x7fff_ffffn, 0x8000_0000n, 0xffff_ffffn, (1n << 63n) - 1n, 1n << 63n, (1n << 64n) - 1n];
  const kind = random.below(6);
  if (kind === 0) return edges[random.below(edges.length)]!;
  if (kind === 1) return any & 0xffffn;
  if (kind === 2) return BigInt.asUintN(64, -(any & 0xffffn));
  return kind === 3 ? any & 0xffff_ffffn : any;
}

/** Memory of the reference: a copy of the board's. Nothing outside is touched, or the round does not count. */
class Copy implements Memory {
  outside = false;
  readonly bytes: Uint8Array;
  readonly #view: DataView;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes.slice();
    this.#view = new DataView(this.bytes.buffer);
  }

  read(address: bigint, count: number): bigint {
    let value = 0n;
    for (let i = 0; i < count; i++) value |= BigInt(this.#byte(address + BigInt(i))) << BigInt(8 * i);
    return value;
  }

  write(address: bigint, count: number, value: bigint): void {
    for (let i = 0; i < count; i++) {
      const at = address + BigInt(i) - RAM;
      if (at < 0n || at >= BigInt(this.bytes.length)) this.outside = true;
      else this.#view.setUint8(Number(at), Number((value >> BigInt(8 * i)) & 0xffn));
    }
  }

  #byte(address: bigint): number {
    const at = address - RAM;
    if (at >= 0n && at < BigInt(this.bytes.length)) return this.bytes[Number(at)]!;
    this.outside = true;
    return 0;
  }
}

/** What a round says that reached memory outside of RAM: it compares nothing. */
const NOT_COMPARED = "not compared";

/** Executes one random instruction on both; says how they differ, "" if they do not. */
function round(board: Board, random: SeededRandom): string {
  const code = randomInstruction((bound) => random.below(bound));
  board.core.start(0, CODE, 0n);
  board.write("vbar_el1", VECTORS);
  board.place(CODE, code);
  for (let i = 0; i < 31; i++) board.setX(i, operand(random));
  board.setX(1, RAM + BigInt(DATA + 0x8000 + random.below(16)));
  board.setX(2, random.below(2) === 0 ? BigInt(random.below(256)) : BigInt.asUintN(64, -BigInt(random.below(256))));
  board.write("sp", operand(random));
  board.write("nzcv", BigInt(random.below(16)));

  const memory = new Copy(board.core.ram);
  const reference = new Reference(memory);
  for (let i = 0; i < 31; i++) reference.x[i] = board.x(i);
  reference.sp = board.read("sp");
  reference.nzcv = Number(board.read("nzcv"));
  reference.pc = CODE;
  let defined = true;
  try {
    reference.step(code);
  } catch (error) {
    if (!(error instanceof Undefined)) throw error;
    defined = false;
  }
  board.core.run(0, 1);
  const name = code.toString(16).padStart(8, "0");
  if (memory.outside) return NOT_COMPARED;
  if (!defined) return board.exception?.ec === 0 ? "" : `${name} is undefined, and was executed`;
  if ((reference.pc & 3n) !== 0n) return board.exception?.ec === 0x22 ? "" : `${name}: no alignment fault of pc`;
  const got = [
    ...Array.from({ length: 31 }, (_, i) => board.x(i)),
    board.read("sp"),
    board.read("pc"),
    board.read("nzcv"),
  ];
  const want = [...reference.x, reference.sp, BigInt.asUintN(64, reference.pc), BigInt(reference.nzcv)];
  const at = got.findIndex((value, i) => value !== want[i]);
  if (at >= 0) return `${name}: field ${at} is 0x${got[at]!.toString(16)}, not 0x${want[at]!.toString(16)}`;
  return Buffer.compare(memory.bytes, board.core.ram) === 0 ? "" : `${name}: memory differs`;
}

describe("integer instructions", () => {
  it.each([1, 2, 3, 4])("do what the manual's pseudocode does, random stream %d", (seed) => {
    const random = new SeededRandom(seed);
    const board = new Board({ ramBytes: 0x2_1000, translate: false });
    const { ram } = board.core;
    for (let i = DATA; i < DATA + DATA_BYTES; i++) ram[i] = random.below(256);
    const differ: string[] = [];
    let compared = 0;
    for (let i = 0; i < 2500; i++) {
      const message = round(board, random);
      if (message !== NOT_COMPARED) compared++;
      if (message !== "" && message !== NOT_COMPARED) differ.push(message);
    }
    expect(differ).toEqual([]);
    expect(compared).toBeGreaterThan(2300);
  });

  it("knows every bitmask immediate", () => {
    const board = new Board({ translate: false });
    const wrong: number[] = [];
    for (let field = 0; field < 0x2000; field++) {
      const [n, immr, imms] = [field >> 12, (field >> 6) & 63, field & 63];
      let value: bigint | null = null;
      try {
        value = decodeBitMask(n, imms, immr, 64);
      } catch {
        // reserved
      }
      board.reset();
      board.setX(0, 0n);
      board.execute((0xb2000000 | (field << 10) | (31 << 5)) >>> 0); // orr x0, xzr, #imm
      const got = board.exception === null ? board.x(0) : null;
      if (got !== value) wrong.push(field);
    }
    expect(wrong).toEqual([]);
  });

  it("accesses across a page, unaligned and to devices byte for byte", () => {
    const board = new Board({ translate: false });
    board.setX(1, RAM + 0x1ffdn);
    board.setX(0, 0x1122_3344_5566_7788n);
    board.execute(0xf9000020, 0xf9400022); // str x0, [x1]; ldr x2, [x1]
    expect(board.x(2)).toBe(0x1122_3344_5566_7788n);
    board.setX(1, 0x1000_0000n);
    board.port.answer = 0xfedc_ba98_7654_3210n;
    board.execute(0xa9400c22); // ldp x2, x3, [x1]
    expect(board.port.log).toEqual([
      { kind: "load", address: 0x1000_0000, size: 8 },
      { kind: "load", address: 0x1000_0008, size: 8 },
    ]);
    expect(board.x(3)).toBe(0xfedc_ba98_7654_3210n);
    expect(board.read("pc")).toBe(RAM + 4n);
  });

  it("writes the base of a store to a device once", () => {
    const board = new Board({ translate: false });
    board.setX(1, 0x1000_0000n);
    board.setX(0, 0xabn);
    board.execute(0x38001420); // strb w0, [x1], #1
    expect(board.port.log).toEqual([{ kind: "store", address: 0x1000_0000, size: 1, value: 0xabn }]);
    expect(board.x(1)).toBe(0x1000_0001n);
  });
});

describe("exclusives (B2.12)", () => {
  const LDXR = 0xc85f7c20; // ldxr x0, [x1]
  const STXR = 0xc8027c23; // stxr w2, x3, [x1]
  const AT = RAM + 0x4000n;

  function board(): Board {
    const it = new Board({ translate: false });
    it.setX(1, AT);
    it.setX(3, 77n);
    it.store64(AT, 5n);
    return it;
  }

  it("store after a load of the same bytes", () => {
    const it = board();
    it.execute(LDXR, STXR);
    expect([it.x(0), it.x(2), it.load64(AT)]).toEqual([5n, 0n, 77n]);
  });

  it("fail without a load, a second time, after CLREX, after a store of other bytes and after an exception return", () => {
    const it = board();
    it.execute(STXR);
    expect([it.x(2), it.load64(AT)]).toEqual([1n, 5n]);
    it.execute(LDXR, STXR, STXR);
    expect(it.x(2)).toBe(1n);
    it.execute(LDXR, 0xd5033f5f, STXR); // clrex
    expect(it.x(2)).toBe(1n);
    it.execute(LDXR, 0xf9000021, STXR); // str x1, [x1]
    expect([it.x(2), it.load64(AT)]).toEqual([1n, AT]);
    it.write("elr_el1", RAM + 8n);
    it.write("spsr_el1", 5n);
    it.execute(LDXR, 0xd69f03e0, STXR); // eret
    expect(it.x(2)).toBe(1n);
  });

  it("hold both halves of a pair, and want it aligned", () => {
    const it = board();
    it.setX(4, 88n);
    it.store64(AT + 8n, 6n);
    it.execute(0xc87f1420, 0xc8221023); // ldxp x0, x5, [x1]; stxp w2, x3, x4, [x1]
    expect([it.x(0), it.x(5), it.x(2), it.load64(AT), it.load64(AT + 8n)]).toEqual([5n, 6n, 0n, 77n, 88n]);
    it.setX(1, AT + 8n);
    it.execute(0xc87f1420);
    expect(it.exception).toMatchObject({ ec: 0x25, iss: 0x21, far: AT + 8n });
  });
});
