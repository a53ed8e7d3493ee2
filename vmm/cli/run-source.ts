// Where the outside of a machine's run comes from: this computer, with or without a recording of it, or a recording (record-machine.ts).

import { createHash } from "node:crypto";
import { BlockFile } from "../../host/adapters/block-file.ts";
import type { BlockStore } from "../../host/devices/nvme/block-store.ts";
import type { Machine } from "../machine.ts";
import type { KernelPace } from "./kernel-pace.ts";

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
  readonly bytes: Uint8Array;
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
  /** A monitor may hold the machine and change it: nothing of that is recorded. */
  readonly mayBeHeld: boolean;
  /** A machine has been made: another one after a reboot. */
  machine(machine: Machine): void;
  /** The run is over; whether it was stopped on purpose. */
  end(kind: string, virtualNs: number, instructions: number): void;
  /** Has a replay been stopped at an event? */
  readonly stopped: boolean;
}

/** This computer. */
export class LiveSource implements RunSource {
  readonly live: boolean = true;
  readonly mayBeHeld: boolean = true;
  get stopped(): boolean {
    return false;
  }
  readonly #console = createHash("sha256");

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

  machine(_machine: Machine): void {}

  end(_kind: string, _virtualNs: number, _instructions: number): void {}

  /** Counts what a machine prints, on its way to where it goes. */
  protected listen(machine: Machine): void {
    const print = machine.onConsole;
    machine.onConsole = (bytes) => {
      this.#console.update(bytes);
      print(bytes);
    };
  }

  protected result(kind: string, virtualNs: number, instructions: number): RunResult {
    return { kind, virtualNs, instructions, console: this.#console.digest("hex") };
  }
}
