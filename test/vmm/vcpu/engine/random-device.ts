// A device that interrupts, moves time, cuts runs short and stops them at random, but reproducibly; and sums up what it was asked, and when.
import type { EngineCore, EngineExports, HartMmioPort } from "../../../../vmm/vcpu/engine/core.ts";
import type { ConfiguredCore } from "./configured-core.ts";

export class RandomDevice<Core extends EngineCore<EngineExports>> implements HartMmioPort {
  high = 0;
  /** Of each access: address, size, value, time, instructions executed. */
  sum = 0;
  accesses = 0;
  /** Who runs; null: nobody yet. */
  runner: ConfiguredCore<Core> | null = null;
  readonly #next: () => number;
  readonly #interrupt: (core: Core, value: number) => void;
  readonly #accessed: (core: Core, address: number) => void;

  /** `interrupt`: raises or lowers one or another interrupt, as `value` says; `accessed` is told of every access behind that. */
  constructor(
    next: () => number,
    interrupt: (core: Core, value: number) => void,
    accessed: (core: Core, address: number) => void = () => {},
  ) {
    this.#next = next;
    this.#interrupt = interrupt;
    this.#accessed = accessed;
  }

  load(address: number, size: number): number {
    this.#meddle(address, size, 0);
    this.high = this.#next();
    return this.#next();
  }

  store(address: number, size: number, low: number, high: number): void {
    this.#meddle(address, size, low, high);
  }

  #meddle(...asked: readonly number[]): void {
    const { runner } = this;
    if (runner === null) return;
    const { core } = runner;
    this.accesses++;
    for (const word of [...asked, core.now, core.executed]) this.sum = (Math.imul(this.sum, 31) + word) | 0;
    const value = this.#next();
    if (value % 3 === 0) this.#interrupt(core, value >>> 8);
    if (value % 5 === 0) core.now += (value >>> 8) % 100_000;
    if (value % 7 === 0) runner.limitSlice((value >>> 8) % 100);
    if (value % 97 === 0) core.stop();
    this.#accessed(core, asked[0]!);
  }
}
