// Instructions against an implementation that shares nothing with ours: Unicorn, where Debian's python3-unicorn is installed. CI installs it.
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { SeededRandom } from "../../../../host/base/seeded-random.ts";
import { Board, RAM, VECTORS } from "./board.ts";
import { randomInstruction } from "./random-instructions.ts";
import { randomVector, randomVectorInstruction } from "./random-vector-instructions.ts";

const PYTHON = "/usr/bin/python3";
const script = fileURLToPath(new URL("second-opinion.py", import.meta.url));
const present = spawnSync(PYTHON, ["-c", "import unicorn"]).status === 0;
if (!present) console.warn("SKIPPED: no second opinion on AArch64 instructions (Debian package python3-unicorn)");

const CODE = RAM + 0x1000n;
const DATA = 0x1_0000;
const BYTES = 0x1_0000;

interface Case {
  readonly code: number;
  readonly x: readonly bigint[];
  readonly v: readonly bigint[];
  readonly sp: bigint;
  readonly nzcv: number;
  readonly fpcr: bigint;
}

interface Answer {
  readonly ok: boolean;
  readonly x: readonly string[];
  readonly v: readonly string[];
  readonly sp: string;
  readonly nzcv: number;
  readonly fpsr: number;
  readonly memory: readonly (readonly [number, number])[];
}

const hex = (value: bigint | number): string => `0x${value.toString(16)}`;

function draw(random: SeededRandom, vectors: boolean): Case {
  const below = (bound: number): number => random.below(bound);
  const word = (): bigint => (BigInt(below(2 ** 32)) << 32n) | BigInt(below(2 ** 32));
  const x = Array.from({ length: 31 }, () => word() >> BigInt([0, 0, 33, 56][below(4)]!));
  x[1] = RAM + BigInt(DATA + 0x8000 + below(16));
  x[2] = BigInt(below(64));
  const modes = [0, 0, 1, 2, 3, 4, 8, 16];
  return {
    code: vectors ? randomVectorInstruction(below) : randomInstruction(below),
    x,
    v: Array.from({ length: 32 }, () => randomVector(below)),
    sp: word() & ~15n,
    nzcv: below(16),
    fpcr: vectors ? BigInt(modes[below(modes.length)]!) << 22n : 0n,
  };
}

function initial(): Uint8Array {
  return Uint8Array.from({ length: BYTES }, (_, i) => (i * 7 + (i >> 8)) & 255);
}

/** How the core differs from the answer; "" if it does not. */
function compare(board: Board, one: Case, answer: Answer): string {
  const { core } = board;
  core.start(0, CODE - 4n, 0n);
  core.ram.set(initial(), DATA);
  board.write("cpacr_el1", 3n << 20n);
  board.write("vbar_el1", VECTORS);
  board.place(CODE - 4n, 0xd51b4400, one.code, 0xd53b4420); // msr fpcr, x0; …; mrs x0, fpsr
  board.setX(0, one.fpcr);
  core.run(0, 1);
  one.x.forEach((value, i) => {
    board.setX(i, value);
  });
  one.v.forEach((value, i) => {
    core.setV(0, i, value);
  });
  board.write("sp", one.sp);
  board.write("nzcv", BigInt(one.nzcv));
  core.run(0, 1);
  const executed = board.exception === null;
  if (executed !== answer.ok) return executed ? "was executed" : `exception class ${board.exception?.ec}`;
  if (!executed) return "";
  const got = [
    ...Array.from({ length: 31 }, (_, i) => board.x(i)),
    ...Array.from({ length: 32 }, (_, i) => core.v(0, i)),
    board.read("sp"),
    board.read("nzcv"),
  ];
  const want = [...answer.x, ...answer.v, answer.sp].map(BigInt).concat(BigInt(answer.nzcv));
  const at = got.findIndex((value, i) => value !== want[i]);
  if (at >= 0) return `field ${at} is ${hex(got[at]!)}, not ${hex(want[at]!)}`;
  const memory = initial();
  for (const [offset, byte] of answer.memory) memory[offset] = byte;
  if (Buffer.compare(memory, core.ram.subarray(DATA, DATA + BYTES)) !== 0) return "memory differs";
  if (board.read("pc") !== CODE + 4n) return "";
  core.run(0, 1);
  return board.x(0) === BigInt(answer.fpsr) ? "" : `FPSR is ${hex(board.x(0))}, not ${hex(answer.fpsr)}`;
}

/** Where the two may differ: branches leave Unicorn's mapped code; PMULL of 64 bits is the cryptographic extension; MMIO is no memory to Unicorn. */
function comparable({ code }: Case): boolean {
  const branches = ((code >>> 26) & 0b000111) === 0b000101;
  const polynomial = (code & 0xbfe0fc00) >>> 0 === 0x0ee0e000;
  const wildIndex = (code & 0x3b206c00) >>> 0 === 0x38204800;
  const literal = (code & 0x3b000000) >>> 0 === 0x18000000;
  return !branches && !polynomial && !wildIndex && !literal;
}

describe.skipIf(!present)("against Unicorn", () => {
  it.each([
    ["integer instructions", false, 1],
    ["integer instructions", false, 2],
    ["floating point and Advanced SIMD", true, 3],
    ["floating point and Advanced SIMD", true, 4],
    ["floating point and Advanced SIMD", true, 5],
  ])("%s, random stream", (_name, vectors, seed) => {
    const random = new SeededRandom(seed);
    const cases = Array.from({ length: 1000 }, () => draw(random, vectors)).filter(comparable);
    const lines = cases.map((it) =>
      JSON.stringify({
        ...it,
        code: hex(it.code),
        x: it.x.map(hex),
        v: it.v.map(hex),
        sp: hex(it.sp),
        fpcr: hex(it.fpcr),
      }),
    );
    const result = spawnSync(PYTHON, [script], {
      input: `${lines.join("\n")}\n`,
      encoding: "utf8",
      maxBuffer: 2 ** 30,
    });
    expect(result.stderr).toBe("");
    const answers = result.stdout.trim().split("\n");
    const board = new Board({ ramBytes: 0x2_1000, translate: false });
    const differ = cases.flatMap((it, i) => {
      const message = compare(board, it, JSON.parse(answers[i]!) as Answer);
      return message === "" ? [] : [`${hex(it.code)}: ${message}`];
    });
    expect(answers).toHaveLength(cases.length);
    expect(differ).toEqual([]);
  });
});
