// A replayed kernel machine in this process that is led through its run: to events, back, and what it is then.

import { createHash } from "node:crypto";
import { RecordingReader } from "../../../host/adapters/recording/recording-reader.ts";
import type { StateRecord, StateValue } from "../../../host/base/state.ts";
import { bootKernel } from "../../../vmm/cli/boot-kernel.ts";
import { machineRun, ReplayedSource } from "../../../vmm/cli/record-machine.ts";
import { Timeline, type TimelineParts } from "../../../vmm/cli/timeline.ts";
import { saveWhole } from "../../../vmm/whole-machine.ts";

class Done extends Error {}

/** What is done where the machine stands: a generator that yields the event to go to next. */
export type Script = (standing: Standing) => Generator<number>;

export interface Standing {
  readonly event: number;
  readonly instructions: number;
  /** Of all of the machine's state, the host's under it, and RAM: hashes by their places. */
  state(): ReadonlyMap<string, string>;
  readonly moves: number;
}

class ScriptedTimeline extends Timeline {
  readonly #parts: TimelineParts;
  readonly #script: Generator<number>;

  constructor(parts: TimelineParts, script: Script) {
    super({ ...parts, keeps: true });
    this.#parts = parts;
    const timeline = this;
    this.#script = script({
      get event() {
        return timeline.here.event;
      },
      get instructions() {
        return timeline.here.instructions;
      },
      get moves() {
        return timeline.moves;
      },
      state: () => this.#state(),
    });
    parts.control.pause();
  }

  override passed(): void {
    super.passed();
    if (!this.#parts.control.paused) return;
    const next = this.#script.next();
    if (next.done === true) throw new Done();
    this.toEvent(next.value, () => {});
  }

  #state(): ReadonlyMap<string, string> {
    const { clock, trace } = this.#parts.shell;
    const { machine, run } = this.world;
    const hashes = new Map<string, string>();
    collect(saveWhole({ clock, trace, host: run.host, machine }), "", hashes);
    return hashes;
  }
}

function collect(value: StateRecord, path: string, into: Map<string, string>): void {
  for (const [name, part] of Object.entries(value.parts ?? {})) collect(part as StateRecord, `${path}/${name}`, into);
  for (const [name, field] of Object.entries(value.state as StateRecord)) into.set(`${path}: ${name}`, hashOf(field));
}

function hashOf(value: StateValue): string {
  if (value instanceof Uint8Array) return createHash("sha256").update(value).digest("hex");
  return JSON.stringify(value, (_key, inner: unknown) =>
    inner instanceof Uint8Array ? hashOf(inner) : typeof inner === "bigint" ? `0x${inner.toString(16)}` : inner,
  );
}

/** Leads the run of a recording. */
export async function lead(recording: string, script: Script): Promise<void> {
  const reader = RecordingReader.open(recording);
  const { options, files } = machineRun(reader, []);
  class Led extends ReplayedSource {
    override timeline(parts: Omit<TimelineParts, "replay">): Timeline {
      return new ScriptedTimeline({ ...parts, replay: this }, script);
    }
  }
  const [initrd, dtb] = [files.get("initrd"), files.get("dtb")];
  const kernel = {
    ...{ append: options.append ?? "", cpus: options.cpus ?? 1, nvme: options.nvme ?? [], reboot: true },
    ...(initrd === undefined ? {} : { initrd }),
    ...(dtb === undefined ? {} : { dtb }),
    ...(options.interactive === true ? { interactive: true as const } : {}),
  };
  const quiet = { report: "none" as const, console: "/dev/null", wallLimit: Number.POSITIVE_INFINITY };
  try {
    await bootKernel(
      files.get("kernel")!,
      { ...options, ...kernel, ...quiet },
      () => new Led(reader, options.interactive === true, {}),
    );
    throw new Error("the run has ended under its script");
  } catch (error) {
    if (!(error instanceof Done)) throw error;
  } finally {
    reader.close();
  }
}

/** The places in which two states differ. */
export function differences(a: ReadonlyMap<string, string>, b: ReadonlyMap<string, string>): string[] {
  return [...new Set([...a.keys(), ...b.keys()])].filter((place) => a.get(place) !== b.get(place));
}
