// Runs one scenario: makes its context, calls its body, disposes of everything, and says how it went.

import { Clock } from "../../host/base/clock.ts";
import { Trace, type TracedEvent, type TraceSink } from "../../host/base/trace.ts";
import { RecentEvents } from "../../host/base/trace-json.ts";
import type { HostDescription } from "../../host/description.ts";
import { ScenarioContext, type ScenarioKinds } from "./context.ts";
import { ExpectationFailed, type Scenario } from "./scenario.ts";
import { describeThrown, isInstance, textOf } from "./thrown.ts";

export interface ScenarioRunOptions {
  readonly seed: number;
  readonly defaultHost: HostDescription;
  readonly findHost: (name: string) => HostDescription;
  /** Kinds of IOMMU; default those that ship. */
  readonly kinds?: ScenarioKinds;
  /** Gets the whole trace. */
  readonly sink?: TraceSink;
  readonly sweepValue?: unknown;
  /** Called at each step with its name; may look at the context. */
  readonly onStep?: (name: string, context: ScenarioContext) => void;
  /** Called when the body has ended, before everything is disposed of. */
  readonly onEnd?: (context: ScenarioContext) => void;
}

export interface ScenarioResult {
  readonly name: string;
  readonly passed: boolean;
  /**
   * "expectation": one did not hold; "error": the scenario, the host or nestbox threw; "leak", "time-limit" (virtual); "wall-limit": given
   * up by whoever ran it.
   */
  readonly kind: "pass" | "expectation" | "error" | "leak" | "time-limit" | "wall-limit";
  /** One line. */
  readonly message: string;
  /** Where in the scenario, as the engine says; "" where that is nowhere. */
  readonly stack: string;
  readonly virtualNs: number;
  readonly steps: readonly string[];
  /** What the VMM reported on the way. */
  readonly messages: readonly string[];
  /** The end of the trace. */
  readonly recent: readonly TracedEvent[];
}

const DEFAULT_TIME_LIMIT = 1e9;

/** What one run of a scenario is called: its name, and the value of a sweep. */
export function runName(scenario: Scenario, sweepValue: unknown): string {
  return sweepValue === undefined ? scenario.name : `${scenario.name} [${textOf(sweepValue)}]`;
}

/** A promise, or the generator of a body that has not begun. */
function isLater(value: unknown): boolean {
  if (typeof value !== "object" || value === null) return false;
  const then: unknown = (value as { then?: unknown }).then;
  return typeof then === "function" || /Generator\]$/.test(Object.prototype.toString.call(value));
}

export function runScenario(scenario: Scenario, options: ScenarioRunOptions): ScenarioResult {
  const clock = new Clock();
  const trace = new Trace(clock);
  clock.trace = trace;
  const recent = new RecentEvents(200);
  trace.addSink(recent);
  if (options.sink !== undefined) trace.addSink(options.sink);
  const limit = scenario.options.timeLimit ?? DEFAULT_TIME_LIMIT;
  const context = new ScenarioContext({
    clock,
    trace,
    seed: options.seed,
    sweepValue: options.sweepValue,
    defaultHost: options.defaultHost,
    findHost: options.findHost,
    ...(options.kinds === undefined ? {} : { kinds: options.kinds }),
    onStep: options.onStep ?? (() => {}),
    report: () => {},
  });
  const name = runName(scenario, options.sweepValue);
  let failure: Pick<ScenarioResult, "kind" | "message" | "stack"> | null = null;
  const failed = (error: unknown): typeof failure => {
    return { kind: isInstance(error, ExpectationFailed) ? "expectation" : "error", ...describeThrown(error) };
  };
  try {
    const returned: unknown = scenario.body(context);
    if (isLater(returned)) {
      // Whatever it comes to, nobody listens: its VMs are gone by then.
      Promise.resolve(returned).catch(() => {});
      const message = "the body of a scenario is synchronous: it must not be async, for nobody waits for it";
      failure = { kind: "error", message, stack: "" };
    } else {
      options.onEnd?.(context);
    }
  } catch (error) {
    failure = failed(error);
  }
  const virtualNs = clock.now;
  // Before taking down: what a failure is explained by, not the clean-up.
  const last = recent.all();
  try {
    const leak = context.close();
    if (leak !== null) failure ??= { kind: "leak", message: `the host still holds ${leak}`, stack: "" };
  } catch (error) {
    failure ??= failed(error);
  }
  if (failure === null && virtualNs > limit) {
    failure = { kind: "time-limit", message: `took ${virtualNs} ns of virtual time, the limit is ${limit}`, stack: "" };
  }
  return {
    name,
    passed: failure === null,
    kind: failure?.kind ?? "pass",
    message: failure?.message ?? "",
    stack: failure?.stack ?? "",
    virtualNs,
    steps: context.steps,
    messages: context.messages,
    recent: last,
  };
}
