// A core that runs as a configuration (configurations.ts) says. What drives it asks for runs, shortens and stops them from within accesses, as it would
// with the core itself: cuts, a debugger's stops and moves to another core are between it and the core, and nobody's to see.
import { restoreTree, saveTree } from "../../../../host/base/state.ts";
import { type CoreOptions, type EngineCore, type EngineExports, Exit } from "../../../../vmm/vcpu/engine/core.ts";
import type { Configuration } from "./configurations.ts";
import { Debugger } from "./debugger.ts";

export type EngineOptions = Pick<CoreOptions, "translate" | "decodePages">;

export class ConfiguredCore<Core extends EngineCore<EngineExports>> {
  /** The one that runs now: another one after a move. */
  core: Core;
  /** Moves to another core, and stops for the debugger, so far. */
  moves = 0;
  readonly #make: () => Core;
  readonly #configuration: Configuration;
  readonly #debugger: Debugger | null;
  #spare: Core | null = null;
  #runs = 0;
  /** Instructions left of the run that was asked for when the core's began, and what the core had executed then. */
  #left = 0;
  #before = 0;

  /** `make`: a core with the options that are given and the machine's; `next`: what the debugger draws. */
  constructor(make: (options: EngineOptions) => Core, configuration: Configuration, next: () => number) {
    const { translate, decodePages } = configuration;
    this.#make = () => make({ translate, ...(decodePages === undefined ? {} : { decodePages }) });
    this.#configuration = configuration;
    this.#debugger = configuration.debugged === true ? new Debugger(next) : null;
    this.core = this.#make();
  }

  get stops(): number {
    return this.#debugger?.stops ?? 0;
  }

  /** Executes `budget` instructions; less if the guest waits or calls its firmware, or the run is shortened or stopped. */
  run(hart: number, budget: number): Exit {
    const { cut = Number.POSITIVE_INFINITY, moved } = this.#configuration;
    if (moved !== undefined && ++this.#runs % moved === 0) this.#move();
    this.#left = budget;
    for (;;) {
      const { core } = this;
      this.#before = core.executed;
      const budget = Math.min(this.#left, cut);
      const exit = this.#debugger === null ? core.run(hart, budget) : this.#debugger.run(core, hart, budget);
      const executed = core.executed - this.#before;
      if (executed > budget) throw new Error(`${executed} instructions in a budget of ${budget}`);
      if (exit === Exit.Budget && executed === 0) throw new Error("a run that does nothing");
      this.#left -= executed;
      // A hart that gives up its turn has no other one to give it to here.
      if (exit !== Exit.Budget || this.#left <= 0) return exit;
    }
  }

  /** From within an access: as EngineCore's. */
  limitSlice(instructions: number): void {
    const { core } = this;
    const executed = core.executed - this.#before;
    this.#left = Math.min(this.#left, executed + instructions);
    core.limitSlice(instructions);
  }

  /** To and fro between two cores: what the other one did before is no more to be seen. */
  #move(): void {
    const other = this.#spare ?? this.#make();
    this.#spare = this.core;
    other.ram.set(this.core.ram);
    restoreTree(other, saveTree(this.core));
    this.core = other;
    this.moves++;
  }
}
