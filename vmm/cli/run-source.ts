// Where the outside of a machine's run comes from: this computer, with or without a recording of it, or a recording (record-machine.ts).

import { createHash } from "node:crypto";
import { BlockFile } from "../../host/adapters/block-file.ts";
import type { TracedEvent } from "../../host/base/trace.ts";
import type { BlockStore } from "../../host/devices/nvme/block-store.ts";
import type { SystemCalls } from "../../host/uapi/system-calls.ts";
import type { Machine } from "../machine.ts";
import type { KernelPace } from "./kernel-pace.ts";
import type { PacedRun } from "./recorded-pace.ts";
import type { Timeline, TimelineParts } from "./timeline.ts";

/** What came of a run, as a recording keeps it. */
export interface RunResult {
  readonly kind: string;
  readonly virtualNs: number;
  readonly instructions: number;
  /** SHA-256 of all that the guest printed. */
  readonly console: string;
}

/** A file that a run begins from. */
export interface RunImage {
  readonly role: "kernel" | "initrd" | "dtb" | "image";
  readonly file: string;
  readonly contents: () => Uint8Array;
}

/** Where a replay is to end: at an event by its number, or at the first that fits; so many events before that, or before the run's end. */
export interface Trip {
  readonly to?: number;
  readonly until?: (event: TracedEvent) => boolean;
  readonly back?: number;
}

export interface RunSource {
  /** The files that the run begins from have been read. */
  begin(images: readonly RunImage[]): void;
  /** A drive in a file. Throws BlockFileError. */
  openBlockFile(
    path: string,
    blockBytes: 512 | 4096,
    onProblem: (message: string) => void,
  ): BlockStore & { close(): void };
  /** `live`: opens the terminal and the clock. */
  pace(live: () => KernelPace): KernelPace;
  /** Files of drives must be there. */
  readonly live: boolean;
  /** The process's system calls, as the VMM makes them. */
  calls(process: SystemCalls): SystemCalls;
  /** A machine has been made: another one after a reboot. */
  machine(machine: Machine): void;
  /** Where its run stands: set by whoever runs it. */
  run: PacedRun;
  /** A monitor is about to do this to the machine (JSON). */
  changes(change: string): void;
  /** Of a guest that holds the thread from its first instruction to its last: has what came from outside come at its traps. */
  serveAtTraps(machine: Machine): void;
  /** Does to the machine what a monitor did: set by whoever runs it. */
  onChange: (change: string) => void;
  /** The run is over; whether it was stopped on purpose. */
  end(kind: string, virtualNs: number, instructions: number): void;
  /** Something came from outside behind what has been read: whoever runs the machine must not run past it. */
  onPlaced: () => void;
  /** Where a replay is to go; null: to its end. */
  readonly trip: Trip | null;
  /** A replay's run as something to stand in; null: this is none. */
  timeline(parts: Omit<TimelineParts, "replay">): Timeline | null;
  /** The run ends before its end, because somebody says so. */
  cut(): void;
  /** Has a replay been stopped before its end? */
  readonly stopped: boolean;
}

/** This computer. */
export class LiveSource implements RunSource {
  readonly live: boolean = true;
  run: PacedRun = { place: () => ({ instructions: 0, ns: 0 }), settle: () => {} };
  onChange: (change: string) => void = () => {};
  onPlaced: () => void = () => {};
  readonly trip: Trip | null = null;
  get stopped(): boolean {
    return false;
  }
  /** Of all that the guest has printed. */
  protected console = createHash("sha256");

  begin(_images: readonly RunImage[]): void {}

  openBlockFile(
    path: string,
    blockBytes: 512 | 4096,
    onProblem: (message: string) => void,
  ): BlockStore & { close(): void } {
    return new BlockFile({ path, blockBytes, onProblem });
  }

  pace(live: () => KernelPace): KernelPace {
    return live();
  }

  calls(process: SystemCalls): SystemCalls {
    return process;
  }

  machine(_machine: Machine): void {}

  changes(_change: string): void {}

  serveAtTraps(_machine: Machine): void {}

  timeline(_parts: Omit<TimelineParts, "replay">): Timeline | null {
    return null;
  }

  cut(): void {}

  end(_kind: string, _virtualNs: number, _instructions: number): void {}

  /** Counts what a machine prints, on its way to where it goes. */
  protected listen(machine: Machine): void {
    const print = machine.onConsole;
    machine.onConsole = (bytes) => {
      this.console.update(bytes);
      print(bytes);
    };
  }

  protected result(kind: string, virtualNs: number, instructions: number): RunResult {
    return { kind, virtualNs, instructions, console: this.console.copy().digest("hex") };
  }
}
