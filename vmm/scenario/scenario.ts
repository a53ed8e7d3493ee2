// What a scenario file exports: a name, a body, and what it wants of the runner. Bodies are synchronous and play the guest driver
// through the context they get (context.ts).

import type { ViommuKind } from "../viommu/kind.ts";
import { VIOMMU_KINDS, type ViommuKindName } from "../viommu/kinds.ts";
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
  /** Where it was declared: a stack, as the engine writes it. */
  readonly declared: string;
}

function declare(name: string, body: (t: ScenarioContext) => void): Scenario;
function declare(name: string, options: ScenarioOptions, body: (t: ScenarioContext) => void): Scenario;
function declare(
  name: string,
  second: ScenarioOptions | ((t: ScenarioContext) => void),
  third?: (t: ScenarioContext) => void,
): Scenario {
  const body = typeof second === "function" ? second : third;
  const options = typeof second === "function" ? {} : second;
  const wrong = declarationProblem(name, options, body);
  if (wrong !== null) throw new TypeError(`scenario(name, options?, body): ${wrong}`);
  return { kind: "nestbox-scenario", name, body: body!, options, declared: new Error("declared").stack ?? "" };
}

/**
 * The same story on every kind of guest-visible IOMMU: a scenario each, whose body makes its VMs with `kind`. What a guest hears of a fault it
 * expects by `what`, in every kind's words.
 */
function each<Name extends string = ViommuKindName>(name: string, body: EachBody<Name>, kinds?: Kinds): Scenario[];
function each<Name extends string = ViommuKindName>(
  name: string,
  options: ScenarioOptions,
  body: EachBody<Name>,
  kinds?: Kinds,
): Scenario[];
function each(
  name: string,
  second: ScenarioOptions | EachBody<string>,
  third?: EachBody<string> | Kinds,
  fourth?: Kinds,
): Scenario[] {
  const [options, body, kinds] =
    typeof second === "function"
      ? [{}, second, third as Kinds | undefined]
      : [second, third as EachBody<string>, fourth];
  return Object.keys(kinds ?? VIOMMU_KINDS).map((kind) => declare(`${name} (${kind})`, options, (t) => body(t, kind)));
}

type Kinds = Readonly<Record<string, ViommuKind>>;
type EachBody<Name> = (t: ScenarioContext, kind: Name) => void;

/** Declares a scenario. The file exports it as default, or several as an array. Throws TypeError for what is none. */
export const scenario = Object.assign(declare, { each });

/** What is wrong with a declaration; null if nothing is. */
function declarationProblem(name: unknown, options: unknown, body: unknown): string | null {
  if (typeof name !== "string" || name.trim() === "") return "the name is a text";
  if (typeof body !== "function") return "the body is a function";
  if (typeof options !== "object" || options === null) return "the options are an object";
  const { sweep, timeLimit } = options as { readonly [F in keyof ScenarioOptions]?: unknown };
  if (sweep !== undefined && !(Array.isArray(sweep) && sweep.length > 0 && sweep.every(isSweepValue))) {
    return "sweep is a list of texts, numbers, bigints or booleans, one at the least";
  }
  if (timeLimit !== undefined && !(typeof timeLimit === "number" && timeLimit >= 0))
    return "timeLimit is a number of ns";
  return null;
}

function isSweepValue(value: unknown): value is SweepValue {
  return ["string", "number", "bigint", "boolean"].includes(typeof value);
}

/** An expectation that did not hold. */
export class ExpectationFailed extends Error {}

/** Every scenario that a module exports, by whatever name, alone or in a list. */
export function exportedScenarios(module: Readonly<Record<string, unknown>>): Scenario[] {
  return Object.values(module)
    .flatMap((value) => (Array.isArray(value) ? (value as unknown[]) : [value]))
    .filter(isScenario);
}

/** True for what `scenario` made, also by another copy of this module. */
export function isScenario(value: unknown): value is Scenario {
  if (typeof value !== "object" || value === null) return false;
  const { kind, name, body, options, declared } = value as { readonly [F in keyof Scenario]?: unknown };
  return (
    kind === "nestbox-scenario" && typeof declared === "string" && declarationProblem(name, options, body) === null
  );
}
