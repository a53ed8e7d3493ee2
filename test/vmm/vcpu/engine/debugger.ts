// A debugger that sets breakpoints and watchpoints at random and always lets the guest go on: what the guest sees must be what it sees without.
import { type EngineCore, type EngineExports, Exit, type Watchpoint } from "../../../../vmm/vcpu/engine/core.ts";

const RAM = 0x8000_0000;

export class Debugger {
  /** Stops so far. */
  stops = 0;
  readonly #next: () => number;
  /** The core that holds what was set last. */
  #core: EngineCore<EngineExports> | null = null;
  #breakpoints: bigint[] = [];

  constructor(next: () => number) {
    this.#next = next;
  }

  /** What core.run(hart, budget) does. Throws for a stop where there is nothing to stop for. */
  run(core: EngineCore<EngineExports>, hart: number, budget: number): Exit {
    if (core !== this.#core || this.#next() % 8 === 0) this.set(core, hart);
    let exit = core.run(hart, budget);
    while (exit === Exit.Break) {
      this.stops++;
      const pc = core.programCounter(hart);
      if (core.watchHit === null && !this.#breakpoints.includes(pc))
        throw new Error(`stopped at ${pc.toString(16)}, where no breakpoint is`);
      if (this.#next() % 4 === 0) this.set(core, hart);
      if (core.unused === 0) throw new Error("stopped behind the end of its budget");
      exit = core.run(hart, core.unused);
    }
    return exit;
  }

  /** Other breakpoints and watchpoints than before: some near `hart`, some anywhere. */
  set(core: EngineCore<EngineExports>, hart: number): void {
    this.#core = core;
    const next = this.#next;
    const pc = core.programCounter(hart);
    this.#breakpoints = Array.from({ length: next() % 20 }, () =>
      next() % 2 === 0
        ? BigInt(RAM + ((next() % core.ramBytes) & ~1))
        : BigInt.asUintN(64, pc + BigInt((next() % 64) & ~1)),
    );
    const watchpoints = Array.from({ length: next() % 6 }, (): Watchpoint => {
      const address = RAM + (next() % core.ramBytes);
      const bytes = 1 + (next() % (next() % 4 === 0 ? 8192 : 8));
      const kinds = 1 + (next() % 3);
      const room = RAM + core.ramBytes - address;
      return { address, bytes: Math.min(bytes, room), loads: (kinds & 1) !== 0, stores: (kinds & 2) !== 0 };
    });
    core.setBreakpoints(this.#breakpoints);
    core.setWatchpoints(watchpoints);
  }
}
