// Runs an RV64 machine to its end from the shell: slices of execution, and between them wall time, input and (for an interactive guest)
// sleeping while the machine is idle. A batch run jumps over idle time.

import { setTimeout as sleep } from "node:timers/promises";
import type { Rv64Machine } from "../rv64-machine.ts";
import type { ConsoleInput } from "./console.ts";

export type KernelOutcome =
  | { readonly kind: "off"; readonly failure: boolean }
  | { readonly kind: "reboot" }
  | { readonly kind: "time-limit" | "wall-limit" | "quit" }
  /** Idle with nothing that could ever wake it. */
  | { readonly kind: "stuck" };

export interface RunKernelOptions {
  readonly machine: Rv64Machine;
  readonly wallLimitMs: number;
  readonly input: ConsoleInput | null;
}

export async function runKernel({ machine, wallLimitMs, input }: RunKernelOptions): Promise<KernelOutcome> {
  const started = performance.now();
  let quit = false;
  let wake: AbortController | null = null;
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
  for (let slices = 0; ; slices++) {
    const stop = machine.run();
    if (quit) return { kind: "quit" };
    if (performance.now() - started > wallLimitMs) return { kind: "wall-limit" };
    switch (stop.kind) {
      case "off":
        return stop.reset === "shutdown" ? { kind: "off", failure: stop.failure } : { kind: "reboot" };
      case "stopped":
        return { kind: "time-limit" };
      case "idle":
        if (input === null) {
          if (stop.until === Number.POSITIVE_INFINITY) return { kind: "stuck" };
          machine.skipTo(stop.until);
        } else {
          wake = new AbortController();
          const from = machine.machine.clock.now;
          const slept = performance.now();
          const ms = Math.min((stop.until - from) / 1e6, 1000);
          await sleep(ms, undefined, { signal: wake.signal }).catch(() => {});
          wake = null;
          machine.skipTo(Math.min(stop.until, from + (performance.now() - slept) * 1e6));
        }
        break;
      case "slice":
        // Let input and signals in now and then.
        if (input !== null && slices % 4 === 0) await new Promise((resume) => setImmediate(resume));
        break;
    }
  }
}
