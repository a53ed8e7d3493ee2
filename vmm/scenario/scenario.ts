// What a scenario file exports: a name, a body, and what it wants of the runner. Bodies are synchronous and play the guest driver
// through the context they get (context.ts).

import type { ScenarioContext } from "./context.ts";

export interface ScenarioOptions {
  /** Parameter sweep: the body runs once for each value, named after it. */
  readonly sweep?: readonly SweepValue[];
  /** Virtual time after which the scenario has failed, ns. Default 1 s. */
  readonly timeLimit?: number;
}

export type SweepValue = string | number | bigint | boolean;

export interface Scenario {
  readonly kind: "nestbox-scenario";
  readonly name: string;
  readonly body: (t: ScenarioContext) => void;
  readonly options: ScenarioOptions;
}

/** Declares a scenario. The file exports it as default, or several as an array. */
export function scenario(name: string, body: (t: ScenarioContext) => void): Scenario;
export function scenario(name: string, options: ScenarioOptions, body: (t: ScenarioContext) => void): Scenario;
export function scenario(
  name: string,
  second: ScenarioOptions | ((t: ScenarioContext) => void),
  third?: (t: ScenarioContext) => void,
): Scenario {
  const body = typeof second === "function" ? second : third!;
  return { kind: "nestbox-scenario", name, body, options: typeof second === "function" ? {} : second };
}

/** An expectation that did not hold. */
export class ExpectationFailed extends Error {}

/** True for what `scenario` made, also by another copy of this module. */
export function isScenario(value: unknown): value is Scenario {
  if (typeof value !== "object" || value === null) return false;
  const { kind, name, body, options } = value as { readonly [F in keyof Scenario]?: unknown };
  const complete =
    typeof name === "string" && typeof body === "function" && typeof options === "object" && options !== null;
  return kind === "nestbox-scenario" && complete;
}
