// What runs of component guests and of kernels have in common: what is asked for, where the outside comes from, how they end.

import type { Tree } from "../view/machine-tree.ts";
import { EXIT_PASS } from "./exit-codes.ts";
import type { HostRunOptions } from "./host-run.ts";
import { machineTree } from "./machine-tree.ts";
import type { MonitorOptions } from "./monitoring.ts";
import type { RunShell, ShellOptions } from "./run-shell.ts";
import type { RunSource } from "./run-source.ts";
import type { ViommuChoice } from "./viommu-choice.ts";

export interface BootOptions extends ShellOptions, HostRunOptions, MonitorOptions {
  readonly memory?: number;
  readonly timeLimit?: number;
  /** ns. */
  readonly wallLimit?: number;
  readonly seed: number;
  readonly viommu: ViommuChoice;
  /** true: the whole tree. */
  readonly inspect?: string | true;
}

/** Of a kernel. */
export interface KernelOptions {
  readonly initrd?: string;
  readonly append: string;
  /** Flattened device tree to boot with, and where the machine's own is written instead of booting. */
  readonly dtb?: string;
  readonly dumpDtb?: string;
  readonly cpus: number;
  readonly nvme: readonly string[];
  readonly interactive?: true;
  /** Whether a guest's reboot starts the machine anew; otherwise it ends the run. */
  readonly reboot: boolean;
}

/** Makes the source of a run, once its shell is there. */
export type SourceOf<Options = BootOptions> = (shell: RunShell, options: Options) => RunSource;

/** A replay ends at the event that it was to end at. */
export const STOPPED = { status: EXIT_PASS, detail: "stopped at the event" };

/** ns. */
export const DEFAULT_WALL_LIMIT = 60e9;

/** The machine at its end as --inspect [PATH] asks for it. */
export function inspected(
  inspect: string | true | undefined,
  ...[run, vm]: Parameters<typeof machineTree>
): { readonly tree?: Tree[string] } {
  return inspect === undefined ? {} : { tree: machineTree(run, vm, inspect === true ? undefined : inspect) };
}
