// Runs an RV64 machine to its end from the shell: slices of execution, and between them wall time, signals, input and (for an interactive
// guest) sleeping while the machine is idle. A batch run jumps over idle time.

import { setTimeout as sleep } from "node:timers/promises";
import type { KernelMachine } from "../kernel-machine.ts";
import type { ConsoleInput } from "./console.ts";
import type { Termination } from "./termination.ts";

export type KernelOutcome =
  | { readonly kind: "off"; readonly failure: boolean }
  | { readonly kind: "reboot"; readonly failure: boolean }
  | { readonly kind: "time-limit" | "wall-limit" | "quit" }
  | { readonly kind: "signal"; readonly signal: NodeJS.Signals }
  /** Idle with nothing that could ever wake it. */
  | { readonly kind: "stuck" };

export interface RunKernelOptions {
  readonly machine: KernelMachine;
  /** performance.now() at which the run is over. */
  readonly wallDeadline: number;
  readonly input: ConsoleInput | null;
  readonly termination: Termination;
  /** Called between slices, before the machine sleeps: console output goes out. */
  readonly flush: () => void;
}

/** Longest sleep of an idle interactive machine, in ms. */
const LONGEST_SLEEP = 1000;

export async function runKernel(options: RunKernelOptions): Promise<KernelOutcome> {
  const { machine, wallDeadline, input, termination, flush } = options;
  let quit = false;
  let wake: AbortController | null = null;
  termination.onSignal = () => wake?.abort();
  if (input !== null) {
    input.onBytes = (bytes) => {
      machine.type(bytes);
      wake?.abort();
    };
    input.onQuit = () => {
      quit = true;
      wake?.abort();
    };
  }
  // Lets input and signals in; whether they, or the wall clock, have ended the run.
  const interrupted = async (): Promise<KernelOutcome | null> => {
    await new Promise((resume) => setImmediate(resume));
    if (quit) return { kind: "quit" };
    if (termination.signal !== null) return { kind: "signal", signal: termination.signal };
    return performance.now() > wallDeadline ? { kind: "wall-limit" } : null;
  };
  // Asked before the first slice, too: a guest that reboots at once runs for ever, one machine after the other.
  for (let end = await interrupted(); ; end = await interrupted()) {
    if (end !== null) return end;
    const stop = machine.run();
    flush();
    if (stop.kind === "off") {
      return { kind: stop.reset === "shutdown" ? "off" : "reboot", failure: stop.failure };
    }
    if (stop.kind === "stopped") return { kind: "time-limit" };
    if (stop.kind === "idle" && input === null && stop.until === Number.POSITIVE_INFINITY) return { kind: "stuck" };
    if (stop.kind !== "idle") continue;
    end = await interrupted();
    if (end !== null) return end;
    if (input === null) {
      machine.skipTo(stop.until);
      continue;
    }
    wake = new AbortController();
    const from = machine.machine.clock.now;
    const slept = performance.now();
    const longest = Math.min(LONGEST_SLEEP, wallDeadline - slept);
    const ms = Math.max(0, Math.min((stop.until - from) / 1e6, longest));
    await sleep(ms, undefined, { signal: wake.signal }).catch(() => {});
    wake = null;
    machine.skipTo(Math.min(stop.until, from + (performance.now() - slept) * 1e6));
  }
}
