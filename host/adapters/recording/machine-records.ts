// The records of a machine's run, beside those of its drives (host-records.ts): what came from outside while it ran, each with its place in the run.

import type { RecordingReader } from "./recording-reader.ts";
import type { RecordingWriter } from "./recording-writer.ts";

/** Of these records. */
export const MACHINE_RECORDS_VERSION = 2;
export const MACHINE_KIND = "machine";

/** Where in its run a machine stood, however its run was cut into slices. */
export interface RunPlace {
  /** Instructions that all CPUs have executed since the run began; traps of a component guest. */
  readonly instructions: number;
  /** Virtual time, ns. */
  readonly ns: number;
  /** The machine had found that all its CPUs wait. */
  readonly idle: boolean;
}

export const TYPED = 64; // place, bytes for the console
export const WAITED = 65; // place, instant at which the idle machine went on (double, ns)
export const ENDED_BY = 66; // place, how (index into OUTSIDE_ENDS), name of the signal
export const CHANGED = 67; // place, what a monitor did to the machine (JSON)

export const OUTSIDE_ENDS = ["wall-limit", "quit", "signal"] as const;

/** A record that says where it was. */
export interface PlacedRecord extends RunPlace {
  readonly type: number;
}

export function isPlaced(type: number): boolean {
  return type >= TYPED && type <= CHANGED;
}

export function writePlace(writer: RecordingWriter, { instructions, ns, idle }: RunPlace): void {
  writer.number(instructions);
  writer.double(ns);
  writer.flag(idle);
}

export function readPlace(reader: RecordingReader): RunPlace {
  return { instructions: reader.number(), ns: reader.double(), idle: reader.flag() };
}

export const MACHINE_RECORD_NAMES: Readonly<Record<number, string>> = {
  [TYPED]: "console input",
  [WAITED]: "the end of a wait",
  [ENDED_BY]: "the end of the run from outside",
  [CHANGED]: "a monitor's change",
};
