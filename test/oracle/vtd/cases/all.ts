/** Every hand-made case, and each as a scenario for another unit. */
import type { Scenario } from "../harness/scenario.ts";
import { ATS_CASES } from "./ats-cases.ts";
import type { Case } from "./expected.ts";
import { request } from "./scene.ts";
import { STRUCTURE_CASES } from "./structure-cases.ts";
import { WALK_CASES } from "./walk-cases.ts";

export const CASES: readonly Case[] = [...STRUCTURE_CASES, ...WALK_CASES, ...ATS_CASES];

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
