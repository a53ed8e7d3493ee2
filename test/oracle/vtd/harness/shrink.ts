/**
 * Makes a disagreeing scenario small: drops steps, quadwords and injected faults, clears bits, simplifies requests, as long as it still disagrees.
 */
import type { Request } from "../outcome.ts";
import type { Scenario, Step } from "./scenario.ts";

/**
 * With caches, only steps go: memory of another content could merge tags, which the oracle supposes software never does. `disagrees` is asked at most `budget`
 * times.
 */
export function shrink(scenario: Scenario, disagrees: (scenario: Scenario) => boolean, budget = 3000): Scenario {
  let left = budget;
  let best = scenario;
  const attempt = (change: Partial<Scenario>): boolean => {
    if (left <= 0) return false;
    left--;
    const candidate = { ...best, ...change };
    if (!disagrees(candidate)) return false;
    best = candidate;
    return true;
  };
  for (let before: Scenario | null = null; before !== best && left > 0; ) {
    before = best;
    dropSome(
      () => best.steps,
      (steps) => attempt({ steps }),
    );
    if (best.caches === "none")
      dropSome(
        () => [...best.memory.words],
        (words) => attempt({ memory: { ...best.memory, words: new Map(words) } }),
      );
    dropSome(
      () => [...best.memory.injected],
      (injected) => attempt({ memory: { ...best.memory, injected: new Map(injected) } }),
    );
    for (const [index, step] of best.steps.entries())
      for (const simpler of simplerSteps(step)) attempt({ steps: best.steps.with(index, simpler) });
    if (best.caches === "none") for (const address of best.memory.words.keys()) clearBits(address);
  }
  return best;

  function clearBits(address: bigint): void {
    for (let at = 63n; at >= 0n; at--) {
      const value = best.memory.words.get(address) ?? 0n;
      if (((value >> at) & 1n) === 0n) continue;
      attempt({ memory: { ...best.memory, words: new Map(best.memory.words).set(address, value & ~(1n << at)) } });
    }
  }
}

/** Drops runs of items, long ones first. */
function dropSome<T>(items: () => readonly T[], attempt: (items: T[]) => boolean): void {
  for (let length = Math.ceil(items().length / 2); length >= 1; length = length === 1 ? 0 : Math.ceil(length / 2)) {
    for (let at = items().length - length; at > -length; at -= length) {
      const from = Math.max(at, 0);
      const now = items();
      if (from < now.length) attempt([...now.slice(0, from), ...now.slice(from + length)]);
    }
  }
}

function* simplerSteps(step: Step): Generator<Step> {
  if (step.kind !== "request") return;
  const { request } = step;
  const changes: Partial<Request>[] = [
    { privileged: false },
    { access: "read" },
    { address: request.address & ~0xfffn },
    { pasid: null },
    { kind: "untranslated" },
  ];
  for (const change of changes) {
    const simpler = { ...request, ...change };
    const different = (Object.keys(change) as (keyof Request)[]).some((name) => simpler[name] !== request[name]);
    if (different) yield { kind: "request", request: simpler };
  }
}
