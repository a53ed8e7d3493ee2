// Runs a kernel machine to its end from the shell: slices of execution, and between them what the outside brings (kernel-pace.ts). A batch run
// jumps over idle time; an interactive one sleeps while the machine is idle.

import type { KernelMachine } from "../kernel-machine.ts";
import type { RunControl } from "../monitor/run-control.ts";
import type { KernelPace, OutsideEnd } from "./kernel-pace.ts";

export type KernelOutcome =
  | { readonly kind: "off"; readonly failure: boolean }
  | { readonly kind: "reboot"; readonly failure: boolean }
  | { readonly kind: "time-limit" }
  | OutsideEnd
  /** Idle with nothing that could ever wake it. */
  | { readonly kind: "stuck" };

export interface RunKernelOptions {
  /** The machine: another one, where a replay has gone back. */
  readonly machine: () => KernelMachine;
  readonly pace: KernelPace;
  /** Called between slices, before the machine sleeps: console output goes out. */
  readonly flush: () => void;
  /** Who may hold the machine; null: nobody. */
  readonly control: RunControl | null;
}

export async function runKernel({ machine, pace, flush, control }: RunKernelOptions): Promise<KernelOutcome> {
  pace.onBytes = (bytes) => machine().type(bytes);
  // Asked before the first slice, too: a guest that reboots at once runs for ever, one machine after the other.
  for (let end = await pace.between(); ; end = await pace.between()) {
    if (end !== null) return end;
    const stop = machine().run(Math.min(control?.budget ?? Number.POSITIVE_INFINITY, pace.budget));
    control?.arrived();
    flush();
    if (stop.kind === "off") {
      return { kind: stop.reset === "shutdown" ? "off" : "reboot", failure: stop.failure };
    }
    if (stop.kind === "stopped") return { kind: "time-limit" };
    if (stop.kind === "idle" && !pace.interactive && stop.until === Number.POSITIVE_INFINITY) return { kind: "stuck" };
    if (stop.kind !== "idle") continue;
    const { moves } = pace;
    pace.isIdle = true;
    end = await pace.between();
    // What was to be waited for is not what there is to wait for elsewhere.
    if (end === null && pace.moves === moves) {
      const { now } = machine().machine.clock;
      machine().skipTo(pace.interactive ? await pace.idle(now, stop.until) : stop.until);
    }
    pace.isIdle = false;
    if (end !== null) return end;
  }
}
