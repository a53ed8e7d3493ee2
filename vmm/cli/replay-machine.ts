// `nestbox replay FILE` of a machine's run.

import type { RecordingReader } from "../../host/adapters/recording/recording-reader.ts";
import type { TracedEvent } from "../../host/base/trace.ts";
import { bootComponent } from "./boot-component.ts";
import { bootKernel, type KernelOptions } from "./boot-kernel.ts";
import { machineRun, ReplayedSource } from "./record-machine.ts";
import type { RunShell } from "./run-shell.ts";

export interface MachineReplayOptions {
  readonly trace?: string;
  readonly json?: true;
  readonly quiet?: true;
  readonly inspect?: string | true;
  /** Where images may be, besides where they were. */
  readonly image: readonly string[];
}

/**
 * Runs the machine again; the guest prints what it printed. `last`: whether to stop after what brought this event; null: after none. Throws
 * RecordingError and ReplayDifference.
 */
export async function replayMachine(
  reader: RecordingReader,
  options: MachineReplayOptions,
  last: ((event: TracedEvent) => boolean) | null,
): Promise<void> {
  const { options: run, files } = machineRun(reader, options.image);
  const source = new ReplayedSource(reader, run.interactive === true);
  const sourceOf = (shell: RunShell): ReplayedSource => {
    if (last !== null) shell.trace.addSink({ event: (event) => last(event) && source.reach() });
    source.onStopped = () => shell.endTrace();
    return source;
  };
  const { trace, inspect, json } = options;
  const output = {
    report: json === true ? ("json" as const) : ("text" as const),
    ...(trace === undefined ? {} : { trace }),
    ...(inspect === undefined ? {} : { inspect }),
    ...(options.quiet === true ? { console: "/dev/null" } : {}),
  };
  const [kernel, initrd, dtb] = [files.get("kernel"), files.get("initrd"), files.get("dtb")];
  if (kernel === undefined) {
    await bootComponent(files.get("image"), { ...run, ...output }, sourceOf);
  } else {
    const given: KernelOptions = {
      ...{ append: run.append ?? "", cpus: run.cpus ?? 1, nvme: run.nvme ?? [], reboot: run.reboot !== false },
      ...(run.interactive === true ? { interactive: true } : {}),
      ...(initrd === undefined ? {} : { initrd }),
      ...(dtb === undefined ? {} : { dtb }),
    };
    const unlimited = { wallLimit: Number.POSITIVE_INFINITY };
    await bootKernel(kernel, { ...run, ...output, ...given, ...unlimited }, sourceOf);
  }
  if (last !== null && !source.reached) console.error("nestbox: replay: the run has no such event");
  else console.error(`nestbox: replay: ${last === null ? "the run is as it was recorded" : "stopped at the event"}`);
}
