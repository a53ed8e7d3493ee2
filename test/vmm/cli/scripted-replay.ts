// A replayed kernel machine in this process that is led through its run: to events, back, and what it is then.

import { createHash } from "node:crypto";
import { RecordingReader } from "../../../host/adapters/recording/recording-reader.ts";
import type { StateRecord, StateValue } from "../../../host/base/state.ts";
import { bootKernel } from "../../../vmm/cli/boot-kernel.ts";
import { KeptPages, KeptUnits } from "../../../vmm/cli/kept-pages.ts";
import { machineTree } from "../../../vmm/cli/machine-tree.ts";
import { machineRun, ReplayedSource } from "../../../vmm/cli/record-machine.ts";
import { Timeline, type TimelineParts } from "../../../vmm/cli/timeline.ts";
import type { KernelMachine } from "../../../vmm/kernel-machine.ts";
import { HART, HART_STATE, HART_STATE_BYTES, SAVED_HARTS } from "../../../vmm/vcpu/engine/assembly/layout.ts";
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
  /** Memories are hashed by units, those that did not change once. */
  readonly #pages = new KeptPages();

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
    // First: what looking leaves behind in the process's scratch memory is then the same.
    const inspect = JSON.stringify(machineTree(run, this.world.parts));
    const hashes = new Map<string, string>();
    collect(
      saveWhole({ clock, trace, host: run.host, machine }, (memory) => this.#pages.keep(memory)),
      "",
      hashes,
    );
    // What decoding and translating remember below RAM depends on where runs were cut, and changes nothing that a guest sees; its CPUs' registers are of it.
    for (const place of hashes.keys()) if (place.startsWith("/vm/cpu/core")) hashes.delete(place);
    hashes.set("CPUs", hashOf(registersOf(machine)));
    hashes.set("inspect", inspect);
    hashes.set("ids", JSON.stringify(run.counters(this.world.assignment).ids));
    return hashes;
  }
}

/** The registers of all CPUs as the core keeps them. */
function registersOf({ parts, cpus }: KernelMachine): StateRecord {
  const { memory } = parts.core;
  const selected = new DataView(memory.buffer).getUint32(HART, true);
  return Object.fromEntries(
    cpus.map(({ cpu, state, pc }) => {
      const at = cpu === selected ? HART_STATE : SAVED_HARTS + cpu * HART_STATE_BYTES;
      return [`${cpu}`, { state, pc, registers: new Uint8Array(memory.buffer, at, HART_STATE_BYTES).slice() }];
    }),
  );
}

function collect(value: StateRecord, path: string, into: Map<string, string>): void {
  for (const [name, part] of Object.entries(value.parts ?? {})) collect(part as StateRecord, `${path}/${name}`, into);
  for (const [name, field] of Object.entries(value.state as StateRecord)) into.set(`${path}: ${name}`, hashOf(field));
}

const unitHashes = new WeakMap<Uint8Array, string>();
function hashOfUnits({ units }: KeptUnits): string {
  const all = createHash("sha256");
  for (const unit of units) {
    const known = unit === null ? "zeroes" : (unitHashes.get(unit) ?? hashOf(unit));
    if (unit !== null) unitHashes.set(unit, known);
    all.update(`${known},`);
  }
  return all.digest("hex");
}

function hashOf(value: StateValue): string {
  if (value instanceof KeptUnits) return hashOfUnits(value);
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
