// NZCV in translated code. Where flags are set, only what they are made of is kept, in locals: kind, a, b. They become NZCV where something needs that: an
// instruction that cannot use them as they are, or the end of the region. Operands of 32 bits are kept 32 bits up, which gives the same four flags.
//
//   kind 0: the word NZCV holds; 1: flags of a − b; 2: of a + b; 3: of a, a logical result
import type { RegionWriter } from "../../engine/translator/region-writer.ts";
import type { Op } from "../../engine/translator/wasm-code.ts";
import { NZCV } from "../assembly/layout.ts";
import { PACK_FLAGS } from "./imports.ts";

export const WORD = 0;
export const DIFFERENCE = 1;
export const SUM = 2;
export const LOGIC = 3;
export type Kind = typeof WORD | typeof DIFFERENCE | typeof SUM | typeof LOGIC;

/** By condition code, of a − b; MI, PL, VS, VC need the difference itself. */
const DIFFERENCE_CONDITIONS: readonly (Op | null)[] = [
  ...(["i64.eq", "i64.ne", "i64.ge_u", "i64.lt_u", null, null, null, null] as const),
  ...(["i64.gt_u", "i64.le_u", "i64.ge_s", "i64.lt_s", "i64.gt_s", "i64.le_s"] as const),
];
/** Of a against zero; a number: always that. */
const LOGIC_CONDITIONS: readonly (Op | 0 | 1)[] = [
  ...(["i64.eq", "i64.ne", 0, 1, "i64.lt_s", "i64.ge_s", 0, 1] as const),
  ...([0, 1, "i64.ge_s", "i64.lt_s", "i64.gt_s", "i64.le_s"] as const),
];

/** Condition codes by the bits that a slot holds (assembly/slot.ts, conditionBits). */
const CODES = new Map<number, number>(Array.from({ length: 15 }, (_, code) => [bitsOf(code), code]));

/** For each value of NZCV a bit: condition `code` holds (14 and 15 always do). */
export function conditionBits(code: number): number {
  return bitsOf(code === 15 ? 14 : code);
}

function bitsOf(code: number): number {
  let bits = 0;
  for (let nzcv = 0; nzcv < 16; nzcv++) {
    const [n, z, c, v] = [8, 4, 2, 1].map((bit) => (nzcv & bit) !== 0) as [boolean, boolean, boolean, boolean];
    const base = [z, c, n, v, c && !z, n === v, n === v && !z, true][code >> 1]!;
    if (base !== ((code & 1) === 1)) bits |= 1 << nzcv;
  }
  return bits;
}

/** Not state: made and dropped while a region is translated. */
export class Flags {
  readonly #w: RegionWriter;
  readonly #kind: number;
  readonly #a: number;
  readonly #b: number;
  /** What is known of the kind at this point; null: nothing. With #orWord it may be WORD instead. */
  #known: Kind | null = null;
  #orWord = false;

  constructor(w: RegionWriter) {
    this.#w = w;
    this.#kind = w.scratch(3, () => {
      this.#known = null;
      this.settle();
    });
    this.#a = this.#kind + 1;
    this.#b = this.#kind + 2;
  }

  startBlock(): void {
    this.#known = null;
    this.#orWord = false;
  }

  /** Pops b, then a: they are what the flags are of. LOGIC: pops a. */
  keep(kind: Kind): void {
    const { code } = this.#w;
    if (kind !== LOGIC) code.set(this.#b);
    code.set(this.#a);
    this.#setKind(kind);
  }

  /** Pushes a and b as they were kept. */
  a(): void {
    this.#w.code.get(this.#a);
  }
  b(): void {
    this.#w.code.get(this.#b);
  }

  /** Within an `if` only: the flags are a constant there. Afterwards they are of `kind`, or that. */
  constantOr(value: number, kind: Kind): void {
    const { code } = this.#w;
    code.i64(value);
    this.#w.set(NZCV);
    code.i64(WORD);
    code.set(this.#kind);
    this.#known = kind;
    this.#orWord = true;
  }

  /** Pops NZCV as a number. */
  setWord(): void {
    this.#w.set(NZCV);
    this.#setKind(WORD);
  }

  #setKind(kind: Kind): void {
    this.#w.code.i64(kind);
    this.#w.code.set(this.#kind);
    this.#known = kind;
    this.#orWord = false;
  }

  /** Makes the word NZCV hold. */
  settle(): void {
    if (this.#known === WORD) return;
    const { code } = this.#w;
    code.get(this.#kind);
    code.i64(WORD);
    code.op("i64.ne");
    code.if();
    code.get(this.#kind);
    code.get(this.#a);
    code.get(this.#b);
    this.#w.call(PACK_FLAGS);
    this.#w.set(NZCV);
    code.i64(WORD);
    code.set(this.#kind);
    code.end();
    this.#known = WORD;
    this.#orWord = false;
  }

  /** Pushes an i32: whether the condition with these bits holds. */
  condition(bits: number): void {
    const { code } = this.#w;
    if (bits === 0xffff) {
      code.i32(1);
      return;
    }
    const condition = CODES.get(bits)!;
    if (this.#orWord && this.#direct(condition)) {
      this.#ofWord(bits);
      code.get(this.#kind);
      code.i64(WORD);
      code.op("i64.ne", "select");
      return;
    }
    if (!this.#orWord && this.#direct(condition)) return;
    this.settle();
    this.#ofWord(bits);
  }

  #ofWord(bits: number): void {
    const { code } = this.#w;
    code.i32(bits);
    this.#w.get(NZCV);
    code.op("i32.wrap_i64", "i32.shr_u");
    code.i32(1);
    code.op("i32.and");
  }

  /** Pushes the condition of a and b as they are; false, and nothing pushed, where that is not known or takes NZCV. */
  #direct(condition: number): boolean {
    const { code } = this.#w;
    if (this.#known === DIFFERENCE) {
      const op = DIFFERENCE_CONDITIONS[condition]!;
      if (op !== null) {
        this.a();
        this.b();
        code.op(op);
        return true;
      }
      if (condition !== 4 && condition !== 5) return false;
      this.a();
      this.b();
      code.op("i64.sub");
      code.i64(0);
      code.op(condition === 4 ? "i64.lt_s" : "i64.ge_s");
      return true;
    }
    if (this.#known === SUM && condition < 2) {
      this.a();
      this.b();
      code.op("i64.add");
      code.i64(0);
      code.op(condition === 0 ? "i64.eq" : "i64.ne");
      return true;
    }
    if (this.#known !== LOGIC) return false;
    const op = LOGIC_CONDITIONS[condition]!;
    if (typeof op === "number") code.i32(op);
    else {
      this.a();
      code.i64(0);
      code.op(op);
    }
    return true;
  }
}
