// `nestbox boot [IMAGE]`: a component guest on a component machine over a modelled host.

import { existsSync } from "node:fs";
import { packageFile } from "../../host/adapters/package-root.ts";
import { ComponentMachine } from "../component-machine.ts";
import { ComponentVcpu, type GuestOutcome } from "../vcpu/component/component-vcpu.ts";
import { type PreparedComponent, prepareComponent } from "../vcpu/component/prepare.ts";
import { type BootOptions, DEFAULT_WALL_LIMIT, inspected, type SourceOf, STOPPED } from "./boot-run.ts";
import { EXIT_FAILED, EXIT_PASS, EXIT_TIME_LIMIT, UsageError } from "./exit-codes.ts";
import { assignmentsOf, HostRun } from "./host-run.ts";
import { readInput } from "./input-file.ts";
import { RunningVm } from "./monitored-vm.ts";
import { Monitoring, monitorAt } from "./monitoring.ts";
import { RunShell } from "./run-shell.ts";
import type { RunSource } from "./run-source.ts";
import { viommuOf } from "./viommu-choice.ts";
import { runGuarded } from "./wall-limit.ts";

const DEFAULT_IMAGE = packageFile("guest-fixtures/build/nested-dma.wasm");
/** Bytes of an image file. */
const LARGEST_IMAGE = 256 * 2 ** 20;
const DEFAULT_MEMORY = 64 * 2 ** 20;

/** Runs the guest; the exit status. */
export async function bootComponent(
  file: string | undefined,
  options: BootOptions,
  sourceOf: SourceOf,
): Promise<number> {
  const path = file ?? DEFAULT_IMAGE;
  if (file === undefined && !existsSync(path))
    throw new UsageError("the default guest is not built; run: npm run build");
  const bytes = readInput(path, LARGEST_IMAGE);
  const image = await prepareComponent(Uint8Array.from(bytes)); // it changes what it is given
  if ("error" in image) throw new UsageError(`${path}: ${image.error}`);
  const shell = new RunShell(options);
  const source = sourceOf(shell, options);
  source.begin([{ role: "image", file: path, contents: () => bytes }]);
  const run = new HostRun(shell, options, undefined, source);
  const machine = new ComponentMachine({
    clock: shell.clock,
    trace: shell.trace,
    calls: run.calls,
    memoryBytes: options.memory ?? DEFAULT_MEMORY,
    ...viommuOf(options.viommu),
    allowSharedGroup: options.allowSharedGroup === true,
    report: (message) => shell.message(message),
  });
  machine.machine.timeLimit = options.timeLimit ?? Number.POSITIVE_INFINITY;
  shell.watchMachine(machine.machine, { lines: true });
  source.machine(machine.machine);
  run.assignAll(machine.assignment, assignmentsOf(options.assign));
  const monitoring = options.monitor === undefined ? null : await Monitoring.open(options, shell.trace);
  try {
    return await runGuest({ path, image, options, shell, source, run, machine, monitoring });
  } finally {
    await monitoring?.close({ status: EXIT_FAILED, detail: "the run failed" });
  }
}

interface GuestRun {
  readonly path: string;
  readonly image: PreparedComponent;
  readonly options: BootOptions;
  readonly shell: RunShell;
  readonly source: RunSource;
  readonly run: HostRun;
  readonly machine: ComponentMachine;
  readonly monitoring: Monitoring | null;
}

async function runGuest(given: GuestRun): Promise<number> {
  const { path, image, options, shell, source, run, machine, monitoring } = given;
  const { counters } = machine.machine;
  source.run = {
    place: () => ({ instructions: counters.traps, ns: shell.clock.now }),
    settle: () => machine.machine.settle(),
  };
  const vm = new RunningVm({
    ...{ run, vm: machine, position: () => ({ traps: counters.traps }) },
    changes: (change) => source.changes(change),
    quit: () => machine.machine.stop("requested"),
    ...(source.live ? {} : { replay: null }),
  });
  source.onChange = (change) => vm.again(change);
  source.serveAtTraps(machine.machine);
  if (monitoring !== null) {
    shell.message(monitorAt(options));
    monitoring.hold({ vm, progress: () => counters.traps, interrupt: () => {} });
    monitoring.serveAtTraps(machine.machine);
  }
  const vcpu = new ComponentVcpu({ image, memory: machine.ram, port: machine.machine, platform: machine.platform });
  const wallLimit = options.wallLimit ?? (monitoring === null ? DEFAULT_WALL_LIMIT : Number.POSITIVE_INFINITY);
  const outcome = vcpu.run((body) => runGuarded(body, wallLimit / 1e6));
  // After the wall limit the engine has dropped whatever was on the stack: what the machine holds is not looked at again.
  const counted = run.counters(machine.assignment);
  source.end(outcome.kind, shell.clock.now, 0);
  const { status, detail } = source.stopped ? STOPPED : verdict(outcome, machine, path, shell);
  await monitoring?.close({ status, detail });
  const tree = inspected(options.inspect, run, machine);
  if (outcome.kind !== "wall-limit") run.close(machine);
  return shell.finish({ status, detail, ...tree }, counted);
}

function verdict(
  outcome: GuestOutcome,
  machine: ComponentMachine,
  path: string,
  shell: RunShell,
): { status: number; detail: string } {
  switch (outcome.kind) {
    case "exited":
      return outcome.status === 0
        ? { status: EXIT_PASS, detail: "" }
        : { status: EXIT_FAILED, detail: `the guest exited with status ${outcome.status}` };
    case "trapped":
      shell.message(`${path}: the guest trapped: ${outcome.message}`);
      for (const frame of outcome.stack) console.error(`    at ${frame}`);
      return { status: EXIT_FAILED, detail: `trap: ${outcome.message}` };
    case "stopped":
      return machine.machine.stopReason === "time-limit"
        ? { status: EXIT_TIME_LIMIT, detail: "the limit on virtual time (--time-limit)" }
        : { status: EXIT_PASS, detail: "ended on request" };
    case "wall-limit":
      shell.message(`${path}: the guest did not end within the wall limit (--wall-limit); an endless loop?`);
      return { status: EXIT_TIME_LIMIT, detail: "the limit on wall time (--wall-limit)" };
    case "refused":
      throw new UsageError(`${path}: ${outcome.message}`);
  }
}
