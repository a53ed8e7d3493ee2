// Advanced SIMD that the translator writes with WebAssembly's vectors, against the interpreter, which does it lane by lane (and is itself held by
// second-opinion.test.ts and structures.test.ts): each encoding that differs in more than its registers, on registers with lanes at their edges. Every
// instruction of a program has a destination of its own and sources that stay, so that each result is seen.
import { describe, expect, it } from "vitest";
import { SeededRandom } from "../../../../host/base/seeded-random.ts";
import { QC } from "../../../../vmm/vcpu/aarch64/assembly/layout.ts";
import { vectorEmitter } from "../../../../vmm/vcpu/aarch64/translator/vector.ts";
import { vectorAccessEmitter } from "../../../../vmm/vcpu/aarch64/translator/vector-memory.ts";
import { Board, RAM } from "./board.ts";
import { randomVector, randomVectorInstruction } from "./random-vector-instructions.ts";

const DATA = 0x4000;
/** Instructions of a program; a load has up to four destinations. */
const DESTINATIONS = 6;
/** x1 = the middle of the data again, before each access that may move it: movz x1, #0x8000, lsl #16; movk x1, #0x5008. */
const BASE = [0xd2b00001, 0xf28a0101];
const isAccess = (code: number): boolean => (code & 0x0e000000) !== 0x0e000000;

/** Groups of encodings, by mask and value; how many different ones of each there are at least. */
const GROUPS: readonly (readonly [name: string, mask: number, value: number, least: number])[] = [
  ["three same", 0x9f200400, 0x0e200400, 136],
  ["two-register miscellaneous", 0x9f3e0c00, 0x0e200800, 50],
  ["shift by immediate, immediate", 0x9f800400, 0x0f000400, 200],
  ["copy", 0x9fe08400, 0x0e000400, 60],
  ["scalar copy", 0xffe0fc00, 0x5e000400, 20],
  ["EXT", 0xbfe08400, 0x2e000000, 20],
  ["TBL", 0xbfe09c00, 0x0e000000, 8],
  ["ZIP, UZP, TRN", 0xbf208c00, 0x0e000800, 30],
  ["FMOV", 0x7f20fc00, 0x1e200000, 6],
  ["LD1, ST1", 0xbfa00000, 0x0c000000, 16],
  ["LD1, ST1, post-indexed", 0xbfa00000, 0x0c800000, 16],
  ["pairs", 0x3e000000, 0x2c000000, 18],
  ["single", 0x3b000000, 0x38000000, 20],
  ["single, scaled", 0x3b000000, 0x39000000, 8],
];

/** What is different in kind: all but registers; an access's offset does not count, an immediate of data processing does where it says lanes or shifts. */
function kindOf(code: number): number {
  if ((code & 0x3b000000) >>> 0 === 0x39000000) return (code & 0xffc00000) >>> 0;
  if ((code & 0x3a000000) >>> 0 === 0x28000000) return (code & 0xffc00000) >>> 0;
  if ((code & 0x3b200000) >>> 0 === 0x38000000) return (code & 0xffe00c00) >>> 0;
  if (isAccess(code)) return (code & 0xffe0fc00) >>> 0;
  const fields =
    (code & 0x9f800400) === 0x0f000400 || (code & 0x9fe08400) === 0x0e000400 || (code & 0x3f000000) === 0x1e000000;
  return (code & (fields ? 0xfffffc00 : 0xffe0fc00)) >>> 0;
}

/** One of each kind that the translator writes itself, of many random ones. */
function kinds(): number[] {
  const random = new SeededRandom(1);
  const below = (bound: number): number => random.below(bound);
  const moves = [0x9e660000, 0x9e670000, 0x9eae0000, 0x9eaf0000, 0x1e260000, 0x1e270000];
  const found = new Map<number, number>();
  for (let n = 0; n < 60_000; n++) {
    const code = n < moves.length ? moves[n]! : randomVectorInstruction(below) >>> 0;
    if ((isAccess(code) ? vectorAccessEmitter(code) : vectorEmitter(code)) !== null) found.set(kindOf(code), code);
  }
  return [...found.values()];
}

const ofGroup = (code: number, ...names: string[]): boolean =>
  GROUPS.some(([name, mask, value]) => names.includes(name) && (code & mask) >>> 0 === value);

/** The same instruction with sources among V24 to V31 (or X24 to X30), and destination `d`. */
function placed(code: number, d: number, below: (bound: number) => number): number {
  const isImmediate = (code & 0x9ff80400) >>> 0 === 0x0f000400;
  if (isAccess(code) || isImmediate) return ((code & ~31) | d) >>> 0;
  const withoutM = ((code & ~0x3ff) | ((24 + below(7)) << 5) | d) >>> 0;
  if (!ofGroup(code, "three same", "EXT", "TBL", "ZIP, UZP, TRN")) return withoutM;
  return ((withoutM & ~(31 << 16)) | ((24 + below(8)) << 16)) >>> 0;
}

function prepared(words: readonly number[], seed: number, translate: boolean): Board {
  const random = new SeededRandom(seed);
  const below = (bound: number): number => random.below(bound);
  const board = new Board({ ramBytes: 0x1_0000, translate: translate ? { interval: 64, samples: 1 } : false });
  board.place(RAM, ...words);
  for (let i = 0; i < 0x2000; i++) board.core.ram[DATA + i] = below(256);
  for (let i = 0; i < 31; i++) board.setX(i, (BigInt(below(2 ** 32)) << 32n) | BigInt(below(2 ** 32)));
  for (let i = 0; i < 32; i++) board.core.setV(0, i, randomVector(below));
  board.setX(2, 24n);
  board.write("cpacr_el1", 3n << 20n);
  board.write("pc", RAM);
  return board;
}

const state = (board: Board): unknown => ({
  x: Array.from({ length: 31 }, (_, i) => board.x(i).toString(16)),
  v: Array.from({ length: 32 }, (_, i) => board.core.v(0, i).toString(16)),
  saturated: new DataView(board.core.memory.buffer).getUint32(QC, true),
  rest: (["pc", "esr_el1", "instret"] as const).map((it) => board.read(it).toString(16)),
});

describe("vectors in translated code", () => {
  const all = kinds();

  it.each(GROUPS)("are of each group: %s", (_, mask, value, least) => {
    expect(all.filter((code) => (code & mask) >>> 0 === value).length).toBeGreaterThanOrEqual(least);
  });

  it("are what the interpreter makes of them", () => {
    for (let first = 0; first < all.length; first += DESTINATIONS) {
      const random = new SeededRandom(first);
      const below = (bound: number): number => random.below(bound);
      const some = all.slice(first, first + DESTINATIONS).map((code, at) => placed(code, 4 * at, below));
      const words = some.flatMap((code) => [...BASE, code]);
      words.push((0x14000000 | (-words.length & 0x3ffffff)) >>> 0);
      const plain = prepared(words, first, false);
      const fast = prepared(words, first, true);
      for (let loop = 0; loop < 3; loop++) {
        for (const board of [plain, fast]) new DataView(board.core.memory.buffer).setUint32(QC, 0, true);
        plain.run(words.length * 40);
        fast.run(words.length * 40);
        const names = some.map((code) => code.toString(16));
        expect([names, loop, state(fast)]).toEqual([names, loop, state(plain)]);
      }
      expect(fast.core.translations).toBeGreaterThan(0);
      const same = Buffer.compare(plain.core.ram, fast.core.ram) === 0;
      if (!same) expect(some.map((code) => code.toString(16))).toEqual("the same bytes in memory");
    }
  });
});
