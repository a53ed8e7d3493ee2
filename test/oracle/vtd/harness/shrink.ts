/** What a scenario of VT-d can be simplified to. */
import { type Simplifications, shrinkScenario, simplerRequests } from "../../shrink.ts";
import type { Scenario, Step } from "./scenario.ts";

/** With caches, only steps go: memory of another content could merge tags, which the oracle supposes software never does. */
const withoutCaches = ({ caches }: Scenario): boolean => caches === "none";

const BY: Simplifications<Scenario, Step> = {
  *stepsOf(step) {
    if (step.kind !== "request") return;
    const simpler = simplerRequests(step.request, [
      { privileged: false },
      { access: "read" },
      { address: step.request.address & ~0xfffn },
      { pasid: null },
      { kind: "untranslated" },
    ]);
    for (const request of simpler) yield { kind: "request", request };
  },
  words: withoutCaches,
  bits: withoutCaches,
};

/** `disagrees` is asked at most `budget` times. */
export function shrink(scenario: Scenario, disagrees: (scenario: Scenario) => boolean, budget = 3000): Scenario {
  return shrinkScenario(scenario, BY, disagrees, budget);
}
