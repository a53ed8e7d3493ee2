// The run of a replayed machine, in which it can be made to stand anywhere. On the way checkpoints are kept: the machine with all it stands on as a document
// (vmm/whole-machine.ts), its memories by pages that neighbours share. To stand somewhere the machine takes on the nearest checkpoint before it, and runs on.
//
// A document finds the host's objects by name and makes none. Where they are not those of now, a machine and a host are put together as the run began, their
// objects made by the calls that made them then (call-log.ts), and these take the document on. Where that cannot be, the run begins again.

import { restoreTree, StateError, type StateRecord } from "../../host/base/state.ts";
import type { TracedEvent } from "../../host/base/trace.ts";
import type { Journey, Place } from "../monitor/monitor.ts";
import type { RunControl, Waiter } from "../monitor/run-control.ts";
import { restoreWhole, saveWhole, type WholeMachine } from "../whole-machine.ts";
import type { CallLog } from "./call-log.ts";
import { KeptPages, type KeptUnits } from "./kept-pages.ts";
import type { KernelWorld } from "./kernel-world.ts";
import type { ReplayMark } from "./record-machine.ts";
import type { RunShell } from "./run-shell.ts";

/** What a timeline needs of the replay. */
export interface ReplayedRun {
  /** The calls of the process that was made last. */
  readonly log: CallLog;
  mark(): ReplayMark;
  return(mark: ReplayMark): void;
  /** The recording from its beginning. */
  restart(): void;
}

export interface TimelineParts {
  readonly shell: RunShell;
  readonly replay: ReplayedRun;
  readonly control: RunControl;
  /** Puts host and machine together as the run begins. */
  readonly begin: () => KernelWorld;
  /** Another machine stands for the run. */
  readonly onWorld: (world: KernelWorld, timeline: Timeline) => void;
  /** Whether anybody may want to go back. */
  readonly keeps: boolean;
}

interface Checkpoint extends Place {
  readonly boots: number;
  /** Calls that the process had made. */
  readonly made: number;
  readonly state: StateRecord;
  readonly memories: readonly KeptUnits[];
  readonly replay: ReplayMark;
  readonly counts: ReadonlyMap<number, number>;
  /** Events that sinks had been given. */
  readonly given: number;
}

/** ms of running between two checkpoints, and how many times longer than keeping one took. */
const SPACING = 400;
const WORTH = 4;
/** Instructions between two, at least. */
const NEAREST = 1_000_000;
const MOST = 40;
const MOST_BYTES = 2 ** 30;

const CLOCK_AT_ZERO: StateRecord = { state: { now: 0, nextId: 1, queue: [] } };
const TRACE_AT_ZERO: StateRecord = { state: { cause: 0, seq: 0 } };

export class Timeline implements Journey {
  /** How often the machine has been put elsewhere. */
  moves = 0;
  readonly #parts: TimelineParts;
  readonly #pages = new KeptPages();
  /** By place, ascending; the first is where the run begins. */
  #checkpoints: Checkpoint[] = [];
  #spacing = SPACING;
  /** When a checkpoint was last kept or taken on, and what keeping one cost, ms. */
  #since = performance.now();
  #cost = 0;
  /** Events that sinks were given on this way through the run, and the most there were on any. */
  #given = 0;
  #most = 0;
  #world: KernelWorld;

  /** Begins the run. */
  constructor(parts: TimelineParts) {
    this.#parts = parts;
    // Before the first event: the events have the numbers that they have in a trace.
    parts.shell.trace.addSink({ event: () => this.#count() });
    this.#world = parts.begin();
    parts.onWorld(this.#world, this);
  }

  get here(): Place {
    const { world } = this;
    const { shell } = this.#parts;
    return { instructions: world.instructions, event: shell.trace.last };
  }

  get world(): KernelWorld {
    return this.#world;
  }

  set world(world: KernelWorld) {
    this.#world = world;
    this.#parts.onWorld(world, this);
  }

  /** The machine is between two slices. */
  passed(): void {
    if (!this.#parts.keeps) return;
    const last = this.#checkpoints.at(-1);
    const isTime = performance.now() - this.#since >= Math.max(this.#spacing, WORTH * this.#cost);
    if (last === undefined || (isTime && this.here.instructions - last.instructions >= NEAREST)) this.#keep();
  }

  /** Instructions at the last checkpoint that lies before this many: what comes until then is soon run through again. */
  before(instructions: number): number {
    return this.#checkpoints.findLast((one) => one.instructions < instructions)?.instructions ?? 0;
  }

  /** Between two slices: has the machine stand behind what brought an event of the trace; tells `waiter` then. */
  toEvent(event: number, waiter: Waiter): void {
    this.#seek((place) => place.event < event);
    const { control } = this.#parts;
    if (this.here.event >= event) this.#stand(waiter);
    else control.untilEvent(({ seq }: TracedEvent) => seq >= event, 1, waiter);
  }

  /** The same, where so many instructions have been executed. */
  toInstruction(instructions: number, waiter: Waiter): void {
    this.#seek((place) => place.instructions < instructions);
    const { instructions: now } = this.here;
    if (now >= instructions) this.#stand(waiter);
    else this.#parts.control.step(instructions - now, waiter);
  }

  /** At the beginning. */
  #stand(waiter: Waiter): void {
    const { control } = this.#parts;
    control.whenStopped(waiter);
    control.stand({ reason: "start" });
  }

  /** Puts the machine at the last checkpoint that fits, or at the beginning; where it stands, if that is nearer. */
  #seek(fits: (place: Place) => boolean): void {
    const { here } = this;
    const target = this.#checkpoints.findLast(fits) ?? this.#checkpoints[0]!;
    if (fits(here) && here.instructions >= target.instructions) return;
    this.moves++;
    this.#since = performance.now();
    if (!this.#takeOn(target)) this.#begin();
    this.#parts.shell.traceMuted = this.#given < this.#most;
  }

  #keep(): void {
    const { world } = this;
    const { replay } = this.#parts;
    const from = performance.now();
    const memories: KeptUnits[] = [];
    const state = saveWhole(this.#whole, (memory) => {
      const kept = this.#pages.keep(memory);
      memories.push(kept);
      return kept;
    });
    this.#checkpoints.push({
      ...this.here,
      boots: world.boots,
      made: replay.log.made,
      state,
      memories,
      replay: replay.mark(),
      counts: world.run.calls.mark(),
      given: this.#given,
    });
    this.#since = performance.now();
    this.#cost = this.#since - from;
    if (this.#checkpoints.length > MOST || this.#pages.bytes > MOST_BYTES) this.#thin();
  }

  /** Every other one goes, and from now on they are farther apart. */
  #thin(): void {
    this.#checkpoints = this.#checkpoints.filter((_one, index) => index % 2 === 0);
    this.#spacing *= 2;
    this.#pages.measure(this.#checkpoints.flatMap(({ memories }) => memories));
  }

  /** False: it cannot be taken on, and the machine of now is good for nothing any more. */
  #takeOn(checkpoint: Checkpoint): boolean {
    const { replay } = this.#parts;
    try {
      if (checkpoint.boots !== this.world.boots || checkpoint.made !== replay.log.made) {
        if (!this.#makeObjects(checkpoint)) return false;
      }
      restoreWhole(this.#whole, checkpoint.state);
    } catch (error) {
      if (!(error instanceof StateError)) throw error;
      return false;
    }
    this.world.run.calls.return(checkpoint.counts);
    replay.return(checkpoint.replay);
    this.#given = checkpoint.given;
    return true;
  }

  /** A machine and a host as the run begins, and in them what was made until the checkpoint. */
  #makeObjects({ boots, made }: Checkpoint): boolean {
    if (boots !== 0) return false;
    const { replay } = this.#parts;
    const { log } = replay;
    this.#begin();
    let followed = false;
    this.#parts.shell.silently(() => {
      this.world.run.host.soundly(() => {
        followed = replay.log.follow(log, made);
      });
    });
    return followed;
  }

  #begin(): void {
    const { shell, replay, begin } = this.#parts;
    const { clock, trace } = shell;
    shell.traceMuted = true;
    this.#given = 0;
    this.world.run.abandon();
    replay.restart();
    restoreTree(clock, CLOCK_AT_ZERO);
    restoreTree(trace, TRACE_AT_ZERO);
    shell.forgetMachines();
    this.world = shell.silently(begin);
  }

  get #whole(): WholeMachine {
    const { world } = this;
    const { shell } = this.#parts;
    return { clock: shell.clock, trace: shell.trace, host: world.run.host, machine: world.machine };
  }

  #count(): void {
    this.#given++;
    if (this.#given < this.#most) return;
    this.#most = this.#given;
    this.#parts.shell.traceMuted = false;
  }
}
