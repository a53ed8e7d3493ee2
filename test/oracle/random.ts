/** A small deterministic generator of random numbers (mulberry32): the same seed gives the same configuration on every machine. */
export class Random {
  #state: number;
  constructor(seed: number) {
    // Neighbouring seeds must not give neighbouring streams.
    this.#state = Math.imul(seed ^ 0x9e3779b9, 0x85ebca6b) >>> 0;
    for (let warm = 0; warm < 3; warm++) this.word();
  }

  /** 32 random bits. */
  word(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let mixed = this.#state;
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return (mixed ^ (mixed >>> 14)) >>> 0;
  }

  /** An integer from 0 to `count` - 1. */
  below(count: number): number {
    return Math.floor((this.word() / 2 ** 32) * count);
  }

  /** True in `percent` of a hundred cases. */
  chance(percent: number): boolean {
    return this.word() / 2 ** 32 < percent / 100;
  }

  pick<T>(from: readonly T[]): T {
    return from[this.below(from.length)]!;
  }

  /** `count` random bits. */
  bits(count: number | bigint): bigint {
    const wide = (BigInt(this.word()) << 32n) | BigInt(this.word());
    return wide & ((1n << BigInt(count)) - 1n);
  }

  /** One bit in `percent` of a hundred cases, at position `at`. */
  flag(percent: number, at: bigint): bigint {
    return this.chance(percent) ? 1n << at : 0n;
  }
}
