// `nestbox replay FILE` of a machine's run.

import type { RecordingReader } from "../../host/adapters/recording/recording-reader.ts";
import type { TracedEvent } from "../../host/base/trace.ts";
import type { BootOptions, KernelOptions } from "./boot-run.ts";
import type { MonitorOptions } from "./monitoring.ts";
import { machineRun, ReplayedSource } from "./record-machine.ts";
import type { Trip } from "./run-source.ts";

export interface MachineReplayOptions extends MonitorOptions {
  readonly trace?: string;
  readonly json?: true;
  readonly quiet?: true;
  readonly inspect?: string | true;
  /** Where images may be, besides where they were. */
  readonly image: readonly string[];
}

/** Runs the machine again; the guest prints what it printed. Throws RecordingError and ReplayDifference. */
export async function replayMachine(
  reader: RecordingReader,
  options: MachineReplayOptions,
  trip: Trip | null,
): Promise<void> {
  const { options: run, files } = machineRun(reader, options.image);
  const { trace, inspect, json, monitor, gdb, paused } = options;
  const given = {
    ...run,
    report: json === true ? ("json" as const) : ("text" as const),
    ...(trace === undefined ? {} : { trace }),
    ...(inspect === undefined ? {} : { inspect }),
    ...(options.quiet === true ? { console: "/dev/null" } : {}),
    ...(monitor === undefined ? {} : { monitor }),
    ...(gdb === undefined ? {} : { gdb }),
    ...(paused === undefined ? {} : { paused }),
  };
  const [kernel, image] = [files.get("kernel"), files.get("image")];
  const stopped =
    kernel === undefined
      ? await replayComponent(reader, image, given, trip)
      : await replayKernel(reader, kernel, { ...given, ...kernelOptions(run, files) }, trip);
  if (stopped.reached) console.error(`nestbox: replay: stopped at the event, seq ${stopped.event} of the trace`);
  else if (trip !== null) console.error("nestbox: replay: the run has no such event");
  else console.error("nestbox: replay: the run is as it was recorded");
}

/** Whether a run was stopped before its end, and the last event of the trace then. */
interface Stopped {
  readonly reached: boolean;
  readonly event: number;
}

async function replayKernel(
  reader: RecordingReader,
  kernel: string,
  options: BootOptions & KernelOptions,
  trip: Trip | null,
): Promise<Stopped> {
  const source = new ReplayedSource(reader, options.interactive === true, trip);
  let event = 0;
  const { bootKernel } = await import("./boot-kernel.ts");
  await bootKernel(kernel, { ...options, wallLimit: Number.POSITIVE_INFINITY }, (shell) => {
    source.onStopped = () => {
      event = shell.trace.last;
      shell.endTrace();
    };
    return source;
  });
  return { reached: source.reached, event };
}

/** Its guest's stack is the engine's: to go back it runs again. */
async function replayComponent(
  reader: RecordingReader,
  image: string | undefined,
  options: BootOptions,
  trip: Trip | null,
): Promise<Stopped> {
  if (trip?.back === undefined) return runComponent(reader, image, options, trip);
  const { back, ...there } = trip;
  const { trace: _trace, inspect: _inspect, ...quiet } = options;
  const first = await runComponent(reader, image, { ...quiet, report: "none", console: "/dev/null" }, there);
  const wanted = trip.to !== undefined || trip.until !== undefined;
  if (wanted && !first.reached) return first;
  reader.seek(0);
  reader.records = 0;
  return runComponent(reader, image, options, { to: Math.max(1, first.event - back) });
}

async function runComponent(
  reader: RecordingReader,
  image: string | undefined,
  options: BootOptions,
  trip: Trip | null,
): Promise<Stopped> {
  const source = new ReplayedSource(reader, false, trip);
  let event = 0;
  const { bootComponent } = await import("./boot-component.ts");
  await bootComponent(image, options, (shell) => {
    if (trip !== null) {
      const { to, until } = trip;
      const isLast = (one: TracedEvent) => (to !== undefined && one.seq >= to) || until?.(one) === true;
      shell.trace.addSink({ event: (one) => isLast(one) && source.reach() });
    }
    source.onEnd = () => {
      event = shell.trace.last;
    };
    source.onStopped = () => shell.endTrace();
    return source;
  });
  return { reached: source.reached, event };
}

function kernelOptions(run: Partial<KernelOptions>, files: ReadonlyMap<string, string>): KernelOptions {
  const [initrd, dtb] = [files.get("initrd"), files.get("dtb")];
  return {
    ...{ append: run.append ?? "", cpus: run.cpus ?? 1, nvme: run.nvme ?? [], reboot: run.reboot !== false },
    ...(run.interactive === true ? { interactive: true } : {}),
    ...(initrd === undefined ? {} : { initrd }),
    ...(dtb === undefined ? {} : { dtb }),
  };
}
