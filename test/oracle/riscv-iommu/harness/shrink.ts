/** What a scenario of the RISC-V IOMMU can be simplified to. */
import { type Simplifications, shrinkScenario, simplerRequests } from "../../shrink.ts";
import type { Step } from "../generate/sequence.ts";
import { CAPABILITY } from "../implementation.ts";
import type { Scenario } from "./scenario.ts";

const OPTIONAL = ["QOSID", "END", "HPM", "PD8", "PD17", "PD20", "Svpbmt", "Svrsw60t59b", "AMO_MRIF", "T2GPA"] as const;

const BY: Simplifications<Scenario, Step> = {
  *stepsOf(step) {
    if (step.kind === "change") {
      if (step.must.length > 0) return; // a switch is one thing
      if (step.words.some(([, value]) => value >> 63n === 1n)) return; // NAPOT entries belong together
      for (let index = 0; index < step.words.length; index++) yield { ...step, words: step.words.toSpliced(index, 1) };
      return;
    }
    if (step.kind !== "request") return;
    const simpler = simplerRequests(step.request, [
      { privileged: false },
      { noWrite: true },
      { executeRequested: false },
      { iova: step.request.iova & ~0xfffn },
      { processId: null, privileged: false },
      { type: "untranslated", noWrite: false, executeRequested: false },
      { access: "read" },
    ]);
    for (const request of simpler) yield { kind: "request", request };
  },
  others: OPTIONAL.map((name) => (scenario) => {
    const { implementation } = scenario;
    const capabilities = implementation.capabilities & ~(1n << CAPABILITY[name]);
    return capabilities === implementation.capabilities
      ? scenario
      : { ...scenario, implementation: { ...implementation, capabilities } };
  }),
  words: () => true,
  // With caches, bits could merge tags or split NAPOT pages, which the oracle supposes software never does.
  bits: ({ caches }) => caches === "none",
};

/** `disagrees` is asked at most `budget` times. */
export function shrink(scenario: Scenario, disagrees: (scenario: Scenario) => boolean, budget = 4000): Scenario {
  return shrinkScenario(scenario, BY, disagrees, budget);
}
