// Floats that the translator writes with WebAssembly's own operations, against the interpreter (which float.test.ts holds to exact arithmetic): every encoding of
// each operation, on values at which a shortcut could be wrong: the ends of the exponents, integers around 2^53, halves, NaNs, singles that are not boxed; with NX
// raised and not, in each rounding mode, a reserved one included.
import { describe, expect, it } from "vitest";
import { SeededRandom } from "../../../../host/base/seeded-random.ts";
import { floatEmitter } from "../../../../vmm/vcpu/riscv64/translator/floats.ts";
import { doubleBits, INTEGERS, MAGNITUDES, PAIRS, singleBits } from "../engine/float-operands.ts";
import { Board, RAM } from "./board.ts";
import * as encode from "./encode.ts";

const BOX = 0xffffffff00000000n;
const ofSingle = (value: number): bigint => BOX | singleBits(value);
const VALUES: readonly bigint[] = [
  ...MAGNITUDES.flatMap((value) => [doubleBits(value), doubleBits(-value), ofSingle(value), ofSingle(-value)]),
  ...[0x7ff0000000000001n, 0xfff8000000000123n, BOX | 0x7f800001n, BOX | 0xffc00000n, 0x3f800000n, 0x7ffffffff0000000n],
];

interface Operation {
  readonly name: string;
  readonly code: number;
}

/** f4 or x5 of f1, f2, f3 or x6. */
function operations(): Operation[] {
  const list: Operation[] = [];
  const add = (name: string, code: number): void => void list.push({ name, code });
  for (const format of [0, 1]) {
    const suffix = format === 1 ? "d" : "s";
    const op = (funct5: number, rm: number, rd: number, rs1: number, rs2: number): number =>
      encode.r(0x53, rm, (funct5 << 2) | format, rd, rs1, rs2);
    for (const rm of [0, 1, 7]) {
      for (const [funct5, name] of ["fadd", "fsub", "fmul", "fdiv"].entries())
        add(`${name}.${suffix} ${rm}`, op(funct5, rm, 4, 1, 2));
      add(`fsqrt.${suffix} ${rm}`, op(0x0b, rm, 4, 1, 0));
      for (const type of [0, 1, 2, 3]) {
        add(`fcvt.${type}.${suffix} ${rm}`, op(0x18, rm, 5, 1, type));
        add(`fcvt.${suffix}.${type} ${rm}`, op(0x1a, rm, 4, 6, type));
      }
      for (const [kind, name] of ["fmadd", "fmsub", "fnmsub", "fnmadd"].entries())
        add(`${name}.${suffix} ${rm}`, encode.r(0x43 + 4 * kind, rm, (3 << 2) | format, 4, 1, 2));
    }
    for (const rm of [0, 1, 2]) {
      add(`fsgnj.${suffix} ${rm}`, op(0x04, rm, 4, 1, 2));
      add(`fmv.${suffix} ${rm}`, op(0x04, rm, 4, 1, 1));
      add(`compare.${suffix} ${rm}`, op(0x14, rm, 5, 1, 2));
      add(`compare.${suffix} ${rm} to x0`, op(0x14, rm, 0, 1, 2));
    }
    add(`fadd.${suffix} of itself`, op(0, 0, 1, 1, 1));
    add(`fmv.x.${suffix}`, op(0x1c, 0, 5, 1, 0));
    add(`fmv.${suffix}.x`, op(0x1e, 0, 4, 6, 0));
  }
  for (const rm of [0, 7]) add(`fcvt.d.s ${rm}`, encode.r(0x53, rm, (0x08 << 2) | 1, 4, 1, 0));
  add("fcvt.w.d to x0", encode.r(0x53, 1, (0x18 << 2) | 1, 0, 1, 0));
  return list;
}

/** The operation and a jump back to it. */
function loop(code: number, translate: boolean): Board {
  const board = new Board({ ramBytes: 0x1_0000, translate: translate ? { interval: 64, samples: 1 } : false });
  board.write("sstatus", 3n << 13n);
  board.place(RAM, code, encode.j(0, -4));
  board.pc = RAM;
  board.run(1000);
  return board;
}

function outcome(board: Board, seed: number, draw: (of: readonly bigint[]) => bigint): string {
  for (let f = 1; f <= 4; f++) board.setF(f, draw(VALUES));
  PAIRS[seed]?.forEach((value, n) => {
    board.setF(n + 1, doubleBits(value));
  });
  board.setX(5, 0x5555n);
  board.setX(6, draw(INTEGERS));
  board.write("frm", draw([0n, 0n, 0n, 0n, 1n, 2n, 3n, 4n, 5n]));
  board.write("fflags", draw([0n, 0n, 1n, 1n, 16n]));
  board.pc = RAM;
  board.run(2);
  const words = [board.f(1), board.f(4), board.x(5), board.read("fflags"), board.pc, board.read("scause")];
  return words.map((word) => BigInt.asUintN(64, word).toString(16)).join(" ");
}

const OPERATIONS = operations();

describe("floats in translated code", () => {
  it("are written by the translator itself, most of them", () => {
    const own = OPERATIONS.filter(({ code }) => floatEmitter(code, () => {}) !== null);
    expect(own.length).toBeGreaterThan(70);
    expect(own.length).toBeLessThan(OPERATIONS.length);
  });

  it.each(OPERATIONS)("$name is what the interpreter makes of it", ({ name, code }) => {
    const plain = loop(code, false);
    const fast = loop(code, true);
    expect(fast.core.translations).toBeGreaterThan(0);
    for (let seed = 0; seed < 400; seed++) {
      const drawing = (): ((of: readonly bigint[]) => bigint) => {
        const random = new SeededRandom(seed);
        return (of) => of[random.below(of.length)]!;
      };
      const [is, shouldBe] = [outcome(fast, seed, drawing()), outcome(plain, seed, drawing())];
      if (is !== shouldBe) expect(`${name} ${seed}: ${is}`).toBe(`${name} ${seed}: ${shouldBe}`);
    }
  });
});
