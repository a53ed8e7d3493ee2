/** All hand-made cases, and each as a scenario, so that any SMMU can be put to them: `run(scenarioOfCase(each), subject)`. */
import type { Scenario } from "../harness/scenario.ts";
import { ATS_CASES } from "./ats-cases.ts";
import { CONFIGURATION_CASES } from "./configuration-cases.ts";
import type { Case } from "./expected.ts";
import { request } from "./scene.ts";
import { TRANSLATION_CASES } from "./translation-cases.ts";

export const CASES: readonly Case[] = [...CONFIGURATION_CASES, ...TRANSLATION_CASES, ...ATS_CASES];

/** The case's expectation is the oracle's answer: `cases.test.ts` sees to that. */
export function scenarioOfCase(each: Case): Scenario {
  const { identification, programming, memory } = each.scene();
  return {
    identification,
    programming,
    memory,
    caches: "none",
    steps: [{ kind: "request", request: request(each.request) }],
  };
}
