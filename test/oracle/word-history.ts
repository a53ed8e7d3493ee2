/** Memory, and what its words held before: the part of an oracle with caches that is the same for every kind. */
import type { Memory } from "./memory.ts";

/** What a word held until a moment (exclusive). */
interface Past {
  readonly until: number;
  readonly value: bigint;
}

export interface HeldValues {
  readonly values: readonly bigint[];
  /** The moments they came and went; `until` is infinite while they are there. */
  readonly from: number;
  readonly until: number;
}

export class WordHistory {
  readonly now: Memory;
  #time = 0;
  readonly #past = new Map<bigint, Past[]>();

  /** The memory given is used, not copied. */
  constructor(now: Memory) {
    this.now = now;
  }

  /** The moment of the last change or `pass()`. */
  get time(): number {
    return this.#time;
  }

  /** A moment in which no word changes; its number. */
  pass(): number {
    return ++this.#time;
  }

  /** Words changed at one moment. */
  change(words: Iterable<readonly [bigint, bigint]>): void {
    this.#time++;
    for (const [address, value] of words) {
      const before = this.now.words.get(address) ?? 0n;
      if (before === value) continue;
      const past = this.#past.get(address) ?? [];
      past.push({ until: this.#time, value: before });
      this.#past.set(address, past);
      this.now.words.set(address, value);
    }
  }

  /** Values of a structure of so many words, newest first; the newest is there still. */
  values(address: bigint, words: number): HeldValues[] {
    const places = Array.from({ length: words }, (_, index) => address + BigInt(index) * 8n);
    const moments = new Set(places.flatMap((at) => (this.#past.get(at) ?? []).map(({ until }) => until)));
    const ends = [Number.POSITIVE_INFINITY, ...[...moments].sort((a, b) => b - a)];
    return ends.map((until, index) => ({
      values: places.map((at) => this.#before(at, until)),
      from: ends[index + 1] ?? 0,
      until,
    }));
  }

  /** The word just before the moment `time`. */
  #before(address: bigint, time: number): bigint {
    for (const past of this.#past.get(address) ?? []) if (past.until >= time) return past.value;
    return this.now.words.get(address) ?? 0n;
  }
}
