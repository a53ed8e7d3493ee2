// The records of a recording as answers: what the model asks next has to be what it asked then.

import { describeRequest } from "./answers.ts";
import { RECORD_NAMES } from "./host-records.ts";
import { isPlaced, MACHINE_RECORD_NAMES, type PlacedRecord, readPlace } from "./machine-records.ts";
import type { ReaderMark, RecordingReader } from "./recording-reader.ts";

/** The model did something else than what was recorded: one line. */
export class ReplayDifference extends Error {}

export function nameOf(type: number): string {
  return RECORD_NAMES[type] ?? MACHINE_RECORD_NAMES[type] ?? `something of type ${type}`;
}

export interface AnswersMark {
  readonly reader: ReaderMark;
  readonly held: PlacedRecord | null;
}

export class Answers {
  readonly reader: RecordingReader;
  /** The message that is being handled, for what is said of a difference; null: none. */
  request: Uint8Array | null = null;

  constructor(reader: RecordingReader) {
    this.reader = reader;
  }

  /** A record that is looked at and not taken: what stands before its fields. */
  #held: PlacedRecord | null = null;

  /** The next record, if it is one of a machine's run with a place in it; it stays the next one until `take`. */
  get placed(): PlacedRecord | null {
    if (this.#held === null && isPlaced(this.reader.upcoming)) {
      this.#held = { type: this.reader.next(), ...readPlace(this.reader) };
    }
    return this.#held;
  }

  /** Called when a record has been read to its end, and the next one has a place in the run: whoever runs must not run past it. */
  onPlaced: () => void = () => {};

  /** A record other than those with a place has been read to its end. */
  read(): void {
    if (this.placed !== null) this.onPlaced();
  }

  /** Takes the record that `placed` has found: the fields behind its place are next. */
  take(): void {
    this.#held = null;
  }

  /** Which record comes next, to come back to. */
  mark(): AnswersMark {
    return { reader: this.reader.mark(), held: this.#held };
  }

  return(mark: AnswersMark): void {
    this.reader.return(mark.reader);
    this.#held = mark.held;
  }

  /** Whether all records have been taken. */
  get done(): boolean {
    return this.#held === null && this.reader.upcoming === 0;
  }

  /** The next record, which has to be of a type, and of a number where one is given: its fields are next. */
  expect(type: number, number?: number): RecordingReader {
    const { reader } = this;
    const found = this.#held === null ? reader.next() : this.#held.type;
    if (found !== type) {
      throw this.different(`the model asks for ${nameOf(type)}, the recording has ${nameOf(found)}`);
    }
    if (number !== undefined) {
      const recorded = reader.number();
      if (recorded !== number) {
        throw this.different(`the model asks for ${nameOf(type)} (${number}), the recording has that of ${recorded}`);
      }
    }
    return reader;
  }

  /** The first difference there was: what threw it may have caught it, too. */
  difference: ReplayDifference | null = null;

  different(what: string): ReplayDifference {
    const during = this.request === null ? "" : `, while ${describeRequest(this.request)} is handled`;
    const difference = new ReplayDifference(`record ${this.reader.records}${during}: ${what}`);
    this.difference ??= difference;
    return difference;
  }

  /** Bytes of a length that the model knows. */
  fill(into: Uint8Array): void {
    const bytes = this.reader.bytes();
    if (bytes.length !== into.length) {
      throw this.different(`the model reads ${into.length} bytes, the recording has ${bytes.length}`);
    }
    into.set(bytes);
  }
}
