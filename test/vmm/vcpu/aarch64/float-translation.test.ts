// Scalar floats that the translator writes with WebAssembly's own operations, against the interpreter: every encoding of each operation, on values at which a
// shortcut could be wrong (the ends of the exponents, integers around 2^53, halves, NaNs), with IXC raised and not, in each rounding mode, with and without
// FPCR.FZ and DN. Compares are followed by what reads their flags.
import { describe, expect, it } from "vitest";
import { SeededRandom } from "../../../../host/base/seeded-random.ts";
import { floatEmitter } from "../../../../vmm/vcpu/aarch64/translator/floats.ts";
import { FLOAT_FLAGS } from "../../../../vmm/vcpu/engine/assembly/layout.ts";
import { doubleBits, INTEGERS, MAGNITUDES, PAIRS, singleBits } from "../engine/float-operands.ts";
import { Board, RAM } from "./board.ts";

const DOUBLES = MAGNITUDES.flatMap((value) => [doubleBits(value), doubleBits(-value)]).concat([
  ...[0x7ff0000000000001n, 0xfff8000000000123n, 2n ** 53n, 2n ** 64n - 3n],
]);
const SINGLES = MAGNITUDES.flatMap((value) => [singleBits(value), singleBits(-value)]).concat([
  0x7f800001n,
  0xffc00000n,
]);
const VALUES: readonly bigint[] = [...DOUBLES, ...SINGLES, ...DOUBLES.map((it) => (0x1234n << 64n) | it)];

const TWO_SOURCES = ["fmul", "fdiv", "fadd", "fsub", "fmax", "fmin", "fmaxnm", "fminnm", "fnmul"];

interface Operation {
  readonly name: string;
  readonly codes: readonly number[];
}

/** cset w7, condition. */
const setIf = (condition: number): number => (0x1a9f07e7 | ((condition ^ 1) << 12)) >>> 0;
/** fcmp d1, d2. */
const COMPARE = 0x1e622020;

/** v4 or x5 of v1, v2, v3 or x6. */
function operations(): Operation[] {
  const list: Operation[] = [];
  const add = (name: string, ...codes: number[]): void => void list.push({ name, codes: codes.map((it) => it >>> 0) });
  for (const type of [0, 1]) {
    const [suffix, format] = [type === 1 ? "d" : "s", type * 2 ** 22];
    const two = (opcode: number): number => 0x1e220800 + format + opcode * 2 ** 12 + 0x24;
    for (const [opcode, name] of TWO_SOURCES.entries()) add(`${name} ${suffix}`, two(opcode));
    add(`fadd ${suffix} of itself`, 0x1e212821 + format);
    for (const opcode of [0, 1, 2, 3, 4, 5])
      add(`one source ${opcode} ${suffix}`, 0x1e204000 + format + opcode * 2 ** 15 + 0x24);
    for (const negated of [0, 1])
      for (const subtracts of [0, 1])
        add(`fmadd ${negated}${subtracts} ${suffix}`, 0x1f020c24 + format + negated * 2 ** 21 + subtracts * 2 ** 15);
    for (const imm of [0x00, 0x70, 0x78, 0x9f, 0xc5, 0x3a])
      add(`fmov ${suffix} #${imm}`, 0x1e201004 + format + imm * 2 ** 13);
    for (const wide of [0, 1])
      for (const mode of [0, 1, 2, 3])
        for (const opcode of mode === 0 ? [0, 1, 2, 3, 4, 5] : [0, 1]) {
          const toFloat = opcode === 2 || opcode === 3;
          const registers = toFloat ? 0xc4 : 0x25;
          const code = 0x1e200000 + wide * 2 ** 31 + format + mode * 2 ** 19 + opcode * 2 ** 16 + registers;
          add(`integer ${wide} ${mode} ${opcode} ${suffix}`, code);
        }
    for (let condition = 0; condition < 16; condition++)
      add(`fcsel ${suffix} ${condition}`, COMPARE, 0x1e220c24 + format + condition * 2 ** 12);
    for (const opcode of [0, 8, 16, 24])
      for (let condition = 0; condition < 14; condition++)
        add(`fcmp ${opcode} ${suffix}, then condition ${condition}`, 0x1e222020 + format + opcode, setIf(condition));
    add(`fccmp ${suffix}`, COMPARE, 0x1e22b423 + format, setIf(4));
  }
  add("scvtf d, d", 0x5e61d824);
  add("fcvtzs d, d", 0x5ee1b824);
  return list;
}

/** The operation and a jump back to it. */
function loop(codes: readonly number[], translate: boolean): Board {
  const board = new Board({ ramBytes: 0x1_0000, translate: translate ? { interval: 64, samples: 1 } : false });
  board.write("cpacr_el1", 3n << 20n);
  board.place(RAM, ...codes, (0x14000000 | (-codes.length & 0x3ffffff)) >>> 0);
  board.write("pc", RAM);
  board.run(1000);
  return board;
}

const FZ = 1n << 24n;
const DN = 1n << 25n;
const CONTROLS = [0n, 0n, 0n, 0n, FZ, DN, FZ | DN, 1n << 22n, 2n << 22n, 3n << 22n];

function outcome(board: Board, length: number, seed: number, draw: (of: readonly bigint[]) => bigint): string {
  for (let v = 1; v <= 4; v++) board.core.setV(0, v, draw(VALUES));
  PAIRS[seed]?.forEach((value, n) => {
    board.core.setV(0, n + 1, doubleBits(value));
  });
  for (const x of [5, 7]) board.setX(x, 0x5555n);
  board.setX(6, BigInt.asUintN(64, draw(INTEGERS)));
  board.write("fpcr", draw(CONTROLS));
  const memory = new DataView(board.core.memory.buffer);
  memory.setUint32(FLOAT_FLAGS, Number(draw([0n, 0n, 1n, 1n, 16n])), true);
  board.write("pc", RAM);
  board.run(length);
  const registers = (["nzcv", "pc", "esr_el1"] as const).map((it) => board.read(it));
  const flags = BigInt(memory.getUint32(FLOAT_FLAGS, true));
  const words = [flags, board.core.v(0, 1), board.core.v(0, 4), board.x(5), board.x(7), ...registers];
  return words.map((word) => word.toString(16)).join(" ");
}

const OPERATIONS = operations();

describe("floats in translated code", () => {
  it("are written by the translator itself, most of them", () => {
    const own = OPERATIONS.filter(({ codes }) =>
      codes.every((it) => (it & 0x0e000000) !== 0x0e000000 || floatEmitter(it, () => {})),
    );
    expect(own.length).toBeGreaterThan(120);
    expect(own.length).toBeLessThan(OPERATIONS.length);
  });

  it.each(OPERATIONS)("$name is what the interpreter makes of it", ({ name, codes }) => {
    const plain = loop(codes, false);
    const fast = loop(codes, true);
    expect(fast.core.translations).toBeGreaterThan(0);
    for (let seed = 0; seed < 300; seed++) {
      const drawing = (): ((of: readonly bigint[]) => bigint) => {
        const random = new SeededRandom(seed);
        return (of) => of[random.below(of.length)]!;
      };
      const length = codes.length + 1;
      const [is, shouldBe] = [outcome(fast, length, seed, drawing()), outcome(plain, length, seed, drawing())];
      if (is !== shouldBe) expect(`${name} ${seed}: ${is}`).toBe(`${name} ${seed}: ${shouldBe}`);
    }
  });
});
