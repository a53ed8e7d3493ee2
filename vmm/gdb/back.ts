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
  if (now === 0) return halted({ cpu, why: "begin" });
  const look = (place: number, turns: number): void => {
    past.toInstruction(place, () => {
      if (target.executedBy(cpu) < done) return halted({ cpu, why: "trap" });
      const { turnStart } = target;
      // Another CPU's turn: what this one did last lies before it.
      if (turns < MOST_TURNS && turnStart > 0 && turnStart <= place) return look(turnStart - 1, turns + 1);
      past.toInstruction(now - 1, () => halted({ cpu: target.current, why: "trap" }));
    });
  };
  look(now - 1, 0);
}

/** At the last place before this one where it would have stopped; at the beginning, where there is none. */
export function continueBack(target: GdbTarget, halted: (halt: Halt) => void): void {
  const past = target.past!;
  let end = past.here.instructions;
  let last: { readonly halt: Halt; readonly at: number } | null = null;
  /** From `from` up to `end`: what it stops at last. */
  const stretch = (): void => {
    const from = past.before(end);
    past.toInstruction(from, () => scan(from));
  };
  const scan = (from: number): void => {
    const { instructions: here } = past.here;
    if (here >= end) return finish(from);
    target.runTo(end, (halt, arrived) => {
      const { instructions: at } = past.here;
      if (halt.why === "interrupt") return halted(halt);
      if (arrived || at >= end || halt.why === "end") return finish(from);
      last = { halt, at };
      scan(from);
    });
  };
  const finish = (from: number): void => {
    if (last !== null) {
      const { halt, at } = last;
      past.toInstruction(at, () => halted(halt));
    } else if (from <= 0) past.toInstruction(0, () => halted({ cpu: target.current, why: "begin" }));
    else {
      end = from;
      stretch();
    }
  };
  stretch();
}
