/**
 * Makes a disagreeing scenario small: drops steps, words and injected faults, clears bits, simplifies steps, as long as it still disagrees. What a
 * kind's steps and scenarios can be simplified to is the kind's.
 */
import type { Memory } from "./memory.ts";

interface Shrinkable<Step> {
  readonly memory: Memory;
  readonly steps: readonly Step[];
}

export interface Simplifications<S extends Shrinkable<Step>, Step> {
  readonly stepsOf: (step: Step) => Iterable<Step>;
  /** Each gives a simpler scenario, or the same. */
  readonly others?: readonly ((scenario: S) => S)[];
  /** What may be taken from memory without making the scenario one that the oracle does not suppose: whole words, single bits. */
  readonly words: (scenario: S) => boolean;
  readonly bits: (scenario: S) => boolean;
}

/** `disagrees` is asked at most `budget` times. */
export function shrinkScenario<S extends Shrinkable<Step>, Step>(
  scenario: S,
  by: Simplifications<S, Step>,
  disagrees: (scenario: S) => boolean,
  budget: number,
): S {
  let left = budget;
  let best = scenario;
  const attempt = (candidate: S): void => {
    if (left <= 0) return;
    left--;
    if (disagrees(candidate)) best = candidate;
  };
  const withMemory = (change: Partial<Memory>): S => ({ ...best, memory: { ...best.memory, ...change } });
  for (let before: S | null = null; before !== best && left > 0; ) {
    before = best;
    dropSome(
      () => best.steps,
      (steps) => attempt({ ...best, steps }),
    );
    if (by.words(best))
      dropSome(
        () => [...best.memory.words],
        (words) => attempt(withMemory({ words: new Map(words) })),
      );
    dropSome(
      () => [...best.memory.injected],
      (injected) => attempt(withMemory({ injected: new Map(injected) })),
    );
    for (const [index, step] of best.steps.entries())
      for (const simpler of by.stepsOf(step)) attempt({ ...best, steps: best.steps.with(index, simpler) });
    for (const simplify of by.others ?? []) {
      const simpler = simplify(best);
      if (simpler !== best) attempt(simpler);
    }
    if (by.bits(best)) for (const address of best.memory.words.keys()) clearBits(address);
  }
  return best;

  function clearBits(address: bigint): void {
    for (let at = 63n; at >= 0n; at--) {
      const value = best.memory.words.get(address) ?? 0n;
      if (((value >> at) & 1n) === 0n) continue;
      attempt(withMemory({ words: new Map(best.memory.words).set(address, value & ~(1n << at)) }));
    }
  }
}

/** Drops runs of items, long ones first. */
function dropSome<T>(items: () => readonly T[], attempt: (items: T[]) => void): void {
  for (let length = Math.ceil(items().length / 2); length >= 1; length = length === 1 ? 0 : Math.ceil(length / 2)) {
    for (let at = items().length - length; at > -length; at -= length) {
      const from = Math.max(at, 0);
      const now = items();
      if (from < now.length) attempt([...now.slice(0, from), ...now.slice(from + length)]);
    }
  }
}

/** What `changes` make of a request where they make a difference. */
export function* simplerRequests<Request extends object>(
  request: Request,
  changes: readonly Partial<Request>[],
): Generator<Request> {
  for (const change of changes) {
    const simpler = { ...request, ...change };
    if ((Object.keys(change) as (keyof Request)[]).some((name) => simpler[name] !== request[name])) yield simpler;
  }
}
