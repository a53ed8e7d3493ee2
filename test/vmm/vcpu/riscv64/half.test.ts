// Zfhmin against exact rational arithmetic (reference/float.ts): every binary16 widened, binary32 and binary64 narrowed in five rounding modes, moves,
// loads and stores with NaN boxes of 16 bits; interpreted and translated.
import { describe, expect, it } from "vitest";
import { Board, RAM } from "./board.ts";
import * as encode from "./encode.ts";
import * as ieee from "./reference/float.ts";
import { generator } from "./reference/integer.ts";

const MODES: readonly ieee.Mode[] = [0, 1, 2, 3, 4];
const FORMATS = [
  { format: ieee.SINGLE, fmt: 0, box: 0xffffffff00000000n },
  { format: ieee.DOUBLE, fmt: 1, box: 0n },
];
const BOX16 = 0xffffffffffff0000n;
const hex = (value: bigint): string => `0x${BigInt.asUintN(64, value).toString(16)}`;
/** fcvt.TO.FROM: funct7 0100000 | fmt of the result, rs2 = fmt of the operand. */
const convert = (to: number, from: number, rm: number, rd: number, rs1: number): number =>
  encode.r(0x53, rm, 0x20 | to, rd, rs1, from);
/** The value of a whole register as binary16: the canonical NaN unless it is boxed. */
const operand = (bits: bigint): ieee.Value =>
  ieee.decode(bits >= BOX16 ? bits & 0xffffn : ieee.canonicalNaN(ieee.HALF), ieee.HALF);

const EAGER = { interval: 16, samples: 1 };
const INPUT = RAM + 0x10000n;
const OUTPUT = RAM + 0x60000n;

/**
 * Executes `word`, which makes f4 of f1, on every input with fflags 0; returns f4 and fflags of each. One loop, so that it is translated where `translate`
 * says so.
 */
function overInputs(
  word: number,
  inputs: readonly bigint[],
  translate: typeof EAGER | false,
  frm = 0n,
): [bigint, number][] {
  const board = new Board({ translate });
  inputs.forEach((bits, n) => {
    board.store64(INPUT + BigInt(n * 8), bits);
  });
  board.place(
    RAM,
    encode.csr(5, 0, 1, 0),
    encode.i(0x07, 3, 1, 10, 0),
    word,
    encode.s(0x27, 3, 11, 4, 0),
    encode.csr(2, 5, 1, 0),
    encode.store(0, 11, 5, 8),
    encode.addi(10, 10, 8),
    encode.addi(11, 11, 16),
    encode.addi(12, 12, -1),
    encode.b(1, 12, 0, -36),
    encode.j(0, 0),
  );
  board.setX(10, INPUT);
  board.setX(11, OUTPUT);
  board.setX(12, BigInt(inputs.length));
  board.write("frm", frm);
  board.pc = RAM;
  board.run(10 * inputs.length + 1);
  expect(board.trap).toBeNull();
  expect(board.core.translations > 0).toBe(translate !== false);
  return inputs.map((_, n) => {
    const at = OUTPUT + BigInt(n * 16);
    return [board.load64(at), board.ram.getUint8(Number(at - RAM) + 8)];
  });
}

function compare(
  word: number,
  inputs: readonly bigint[],
  expected: (bits: bigint) => ieee.Outcome,
  told: string,
  frm = 0n,
): void {
  const wanted = inputs.map(expected);
  for (const translate of [false, EAGER] as const) {
    overInputs(word, inputs, translate, frm).forEach(([bits, flags], n) => {
      const seen = `${hex(bits)} flags ${flags}`;
      const want = `${hex(wanted[n]!.bits)} flags ${wanted[n]!.flags}`;
      if (seen !== want) expect(seen, `${told} of ${hex(inputs[n]!)}`).toBe(want);
    });
  }
}

const CHUNK = 8192;

describe("Zfhmin", () => {
  it.each(FORMATS)("fcvt.$format.name.h widens every binary16 exactly", ({ format, fmt, box }) => {
    for (let from = 0; from < 0x10000; from += CHUNK) {
      const inputs = Array.from({ length: CHUNK }, (_, n) => BOX16 | BigInt(from + n));
      const exact = (bits: bigint): ieee.Outcome => {
        const { bits: value, flags } = ieee.convert(operand(bits), format, 0);
        return { bits: value | box, flags };
      };
      compare(convert(fmt, 2, 0, 4, 1), inputs, exact, `fcvt.${format.name}.h`);
    }
  });

  it.each(FORMATS)("fcvt.h.$format.name rounds in every mode and raises exactly its flags", ({ format, fmt, box }) => {
    const next = generator(fmt + 5);
    const inputs = ieee.corners(format);
    // around and below binary16's subnormals, around its greatest number, and ties between its neighbours
    const places = format.precision - 1n;
    for (let n = 0; n < 1500; n++) {
      const exponent = format.emax + BigInt((next() % 46) - 28);
      let fraction = ((BigInt(next()) << 32n) | BigInt(next())) & ((1n << places) - 1n);
      if (n % 3 === 0) fraction = (fraction >> (places - 12n)) << (places - 12n);
      inputs.push(((BigInt(next()) & 1n) << (format.width - 1n)) | (exponent << places) | fraction);
    }
    for (let n = 0; n < 500; n++) inputs.push(ieee.randomOperand(format, next));
    const boxed = inputs.map((bits) => bits | box);
    for (const mode of MODES) {
      const narrowed = (bits: bigint): ieee.Outcome => {
        const { bits: value, flags } = ieee.convert(ieee.decode(bits & ~box, format), ieee.HALF, mode);
        return { bits: value | BOX16, flags };
      };
      compare(convert(2, fmt, mode, 4, 1), boxed, narrowed, `fcvt.h.${format.name} rm ${mode}`);
      compare(convert(2, fmt, 7, 4, 1), boxed, narrowed, `fcvt.h.${format.name} frm ${mode}`, BigInt(mode));
    }
  });

  it("an operand that is not boxed to 16 bits is the canonical NaN, for fmv.x.h and fsh its low bits", () => {
    const board = new Board();
    board.setX(5, RAM + 0x800n);
    board.setF(1, 0xffffffff_00003c00n); // boxed as binary32 only
    board.execute(convert(0, 2, 0, 2, 1), convert(1, 2, 0, 3, 1), encode.r(0x53, 0, 0x72, 6, 1, 0));
    expect([hex(board.f(2)), hex(board.f(3)), hex(board.x(6))]).toEqual([
      "0xffffffff7fc00000",
      "0x7ff8000000000000",
      "0x3c00",
    ]);
    expect(board.read("fflags")).toBe(0n);
    board.execute(encode.s(0x27, 1, 5, 1, 0));
    expect(board.ram.getUint32(0x800, true)).toBe(0x3c00);
  });

  it.each([false, EAGER] as const)(
    "flh and fmv.h.x box, fmv.x.h sign-extends, fsh stores 16 bits, over a page's end too (translate %j)",
    (translate) => {
      const board = new Board({ translate });
      board.place(
        RAM,
        encode.i(0x07, 1, 1, 13, 0), // flh f1, 0(x13)
        encode.r(0x53, 0, 0x72, 6, 1, 0), // fmv.x.h x6, f1
        encode.r(0x53, 0, 0x7a, 2, 6, 0), // fmv.h.x f2, x6
        encode.s(0x27, 1, 14, 2, 2), // fsh f2, 2(x14)
        encode.addi(13, 13, 1),
        encode.addi(14, 14, 1),
        encode.addi(12, 12, -1),
        encode.b(1, 12, 0, -28),
        encode.j(0, 0),
      );
      const [from, to, count] = [0x2fd0, 0x4fd0, 64];
      for (let n = 0; n < count + 2; n++) board.ram.setUint8(from + n, (n * 37 + 0x80) & 0xff);
      board.ram.setUint8(to + count + 3, 0x77);
      board.setX(12, BigInt(count));
      board.setX(13, RAM + BigInt(from));
      board.setX(14, RAM + BigInt(to));
      board.pc = RAM;
      board.run(count * 8);
      expect(board.trap).toBeNull();
      expect(board.core.translations > 0).toBe(translate !== false);
      for (let n = 0; n <= count; n++) expect(board.ram.getUint8(to + 2 + n)).toBe(board.ram.getUint8(from + n));
      expect(board.ram.getUint8(to + count + 3)).toBe(0x77);
      const last = board.ram.getUint16(from + count - 1, true);
      expect(hex(board.f(1))).toBe(hex(BOX16 | BigInt(last)));
      expect(hex(board.x(6))).toBe(hex(BigInt.asIntN(16, BigInt(last))));
    },
  );

  const touching: [string, number][] = [
    ["flh", encode.i(0x07, 1, 1, 5, 0)],
    ["fsh", encode.s(0x27, 1, 5, 1, 0)],
    ["fmv.x.h", encode.r(0x53, 0, 0x72, 6, 1, 0)],
    ["fmv.h.x", encode.r(0x53, 0, 0x7a, 1, 6, 0)],
    ["fcvt.s.h", convert(0, 2, 0, 1, 2)],
    ["fcvt.h.d", convert(2, 1, 0, 1, 2)],
  ];
  it.each(touching)("%s is illegal while FS is Off and makes it Dirty otherwise", (_, code) => {
    const board = new Board();
    board.write("sstatus", 0n);
    board.setX(5, RAM + 0x800n);
    board.execute(code);
    expect(board.trap).toEqual({ cause: 2n, value: BigInt(code), pc: RAM });
    board.reset();
    board.setX(5, RAM + 0x800n);
    board.execute(code);
    expect([board.trap, board.read("sstatus")]).toEqual([null, 3n << 13n]);
  });

  it("flh and fsh are accesses of two bytes to a device", () => {
    const board = new Board();
    board.setX(5, 0x1000_0002n);
    board.setF(1, 0x1234_5678_9abc_def0n);
    board.port.answer = 0xabcdn;
    board.execute(touching[1]![1], touching[0]![1]);
    expect(board.port.log).toEqual([
      { kind: "store", address: 0x1000_0002, size: 2, value: 0xdef0n },
      { kind: "load", address: 0x1000_0002, size: 2 },
    ]);
    expect(hex(board.f(1))).toBe(hex(BOX16 | 0xabcdn));
  });

  it("flh and fsh fault as loads and stores", () => {
    for (const [code, cause] of [
      [touching[0]![1], 5n],
      [touching[1]![1], 7n],
    ] as const) {
      const board = new Board();
      board.setX(5, 0x1000_0001n); // misaligned, no RAM
      board.execute(code);
      expect(board.trap).toEqual({ cause, value: 0x1000_0001n, pc: RAM });
    }
  });
});
