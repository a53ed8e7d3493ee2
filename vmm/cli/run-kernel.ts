// Runs a kernel machine to its end from the shell: slices of execution, and between them wall time, signals, input, the monitor's and a debugger's requests,
// and (for an interactive guest) sleeping while the machine is idle. A batch run jumps over idle time.

import { setTimeout as sleep } from "node:timers/promises";
import type { KernelMachine } from "../kernel-machine.ts";
import type { RunControl } from "../monitor/run-control.ts";
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
  /** Who may hold the machine; null: nobody. */
  readonly gate: RunGate | null;
}

/** Those who may pause the machine and ask about it. */
export interface RunGate {
  readonly control: RunControl;
  /** Ends the run. */
  readonly quitting: boolean;
  /** Does what they ask for; called between slices. */
  serve(): void;
  /** Called when they ask for something. */
  onArrival: () => void;
}

/** Longest sleep of an idle interactive machine, in ms. */
const LONGEST_SLEEP = 1000;

export async function runKernel(options: RunKernelOptions): Promise<KernelOutcome> {
  const { machine, input, termination, flush, gate } = options;
  let { wallDeadline } = options;
  let quit = false;
  let wake: AbortController | null = null;
  const wakeUp = () => wake?.abort();
  const sleepFor = async (ms: number) => {
    wake = new AbortController();
    await sleep(Math.max(0, ms), undefined, { signal: wake.signal }).catch(() => {});
    wake = null;
  };
  termination.onSignal = wakeUp;
  if (input !== null) {
    input.onBytes = (bytes) => {
      machine.type(bytes);
      wakeUp();
    };
    input.onQuit = () => {
      quit = true;
      wakeUp();
    };
  }
  if (gate !== null) {
    gate.onArrival = wakeUp;
    gate.control.onChange = wakeUp;
  }
  // Lets input and signals in; whether they, or the wall clock, have ended the run.
  const interrupted = async (): Promise<KernelOutcome | null> => {
    await new Promise((resume) => setImmediate(resume));
    gate?.serve();
    if (quit || gate?.quitting === true) return { kind: "quit" };
    if (termination.signal !== null) return { kind: "signal", signal: termination.signal };
    return performance.now() > wallDeadline ? { kind: "wall-limit" } : null;
  };
  // While somebody holds the machine wall time does not count.
  const held = async (control: RunControl): Promise<KernelOutcome | null> => {
    flush();
    while (control.paused) {
      const since = performance.now();
      await sleepFor(LONGEST_SLEEP);
      wallDeadline += performance.now() - since;
      const end = await interrupted();
      if (end !== null) return end;
    }
    return null;
  };
  // Asked before the first slice, too: a guest that reboots at once runs for ever, one machine after the other.
  for (let end = await interrupted(); ; end = await interrupted()) {
    end ??= gate?.control.paused === true ? await held(gate.control) : null;
    if (end !== null) return end;
    const stop = machine.run(gate?.control.budget);
    gate?.control.arrived();
    flush();
    if (stop.kind === "off") {
      return { kind: stop.reset === "shutdown" ? "off" : "reboot", failure: stop.failure };
    }
    if (stop.kind === "stopped") return { kind: "time-limit" };
    if (stop.kind === "idle" && gate === null && input === null && stop.until === Number.POSITIVE_INFINITY)
      return { kind: "stuck" };
    if (stop.kind !== "idle") continue;
    end = await interrupted();
    if (end !== null) return end;
    if (input === null && stop.until !== Number.POSITIVE_INFINITY) {
      machine.skipTo(stop.until);
      continue;
    }
    const from = machine.machine.clock.now;
    const slept = performance.now();
    const longest = Math.min(LONGEST_SLEEP, wallDeadline - slept);
    await sleepFor(Math.min((stop.until - from) / 1e6, longest));
    if (input !== null) machine.skipTo(Math.min(stop.until, from + (performance.now() - slept) * 1e6));
  }
}
