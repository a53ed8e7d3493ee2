// Back through a replay: to the instruction before, and to the breakpoint or watchpoint before. Backwards means forwards from an earlier place: the stretch
// from there to here is run again, and what it stops at last is where to stand.

import type { GdbTarget, Halt } from "./target.ts";

/** Turns of other CPUs that a step back of one passes over; then it stands at the last instruction of any. */
const MOST_TURNS = 16;

/** Before the last instruction of a CPU. */
export function stepBack(target: GdbTarget, cpu: number, halted: (halt: Halt) => void): void {
  const past = target.past!;
  const { instructions: now } = past.here;
  const done = target.executedBy(cpu);
  const look = (place: number, turns: number): void => {
    const arrived = (): void => {
      const { turnStart } = target;
      if (target.executedBy(cpu) < done) halted({ cpu, why: "trap" });
      // Another CPU's turn: what this one did last lies before it.
      else if (turns < MOST_TURNS && turnStart > 0 && turnStart <= place) look(turnStart - 1, turns + 1);
      else target.goTo(now - 1, () => halted({ cpu: target.current, why: "trap" }), halted);
    };
    target.goTo(place, arrived, halted);
  };
  if (now === 0) halted({ cpu, why: "begin" });
  else look(now - 1, 0);
}

/** At the last place before this one where it would have stopped; at the beginning, where there is none. */
export function continueBack(target: GdbTarget, halted: (halt: Halt) => void): void {
  new Search(target, halted).stretch();
}

// Not state: a debugger is outside of the machine.
class Search {
  readonly #target: GdbTarget;
  readonly #halted: (halt: Halt) => void;
  /** Where the stretch that is run again ends. */
  #end: number;
  #last: { readonly halt: Halt; readonly at: number } | null = null;

  constructor(target: GdbTarget, halted: (halt: Halt) => void) {
    this.#target = target;
    this.#halted = halted;
    this.#end = target.past!.here.instructions;
  }

  stretch(): void {
    const from = this.#target.past!.before(this.#end);
    this.#target.goTo(from, () => this.#scan(from), this.#halted);
  }

  /** From here up to the end: what it stops at last. */
  #scan(from: number): void {
    const past = this.#target.past!;
    if (past.here.instructions >= this.#end) {
      this.#finish(from);
      return;
    }
    this.#target.runTo(this.#end, (halt, arrived) => {
      const { instructions: at } = past.here;
      if (halt.why === "interrupt") this.#halted(halt);
      else if (arrived || at >= this.#end || halt.why === "end") this.#finish(from);
      else {
        this.#last = { halt, at };
        this.#scan(from);
      }
    });
  }

  #finish(from: number): void {
    const target = this.#target;
    const last = this.#last;
    if (last !== null) target.goTo(last.at, () => this.#halted(last.halt), this.#halted);
    else if (from <= 0) target.goTo(0, () => this.#halted({ cpu: target.current, why: "begin" }), this.#halted);
    else {
      this.#end = from;
      this.stretch();
    }
  }
}
