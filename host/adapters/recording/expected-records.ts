// The records of a recording as answers: what the model asks next has to be what it asked then.

import { describeRequest } from "./answers.ts";
import { RECORD_NAMES } from "./host-records.ts";
import type { RecordingReader } from "./recording-reader.ts";

/** The model did something else than what was recorded: one line. */
export class ReplayDifference extends Error {}

export function nameOf(type: number): string {
  return RECORD_NAMES[type] ?? `something of type ${type}`;
}

export class Answers {
  readonly reader: RecordingReader;
  /** The message that is being handled, for what is said of a difference; null: none. */
  request: Uint8Array | null = null;

  constructor(reader: RecordingReader) {
    this.reader = reader;
  }

  // A record that is looked at and not taken: its type, and the number that it begins with.
  #held = 0;
  #heldNumber = 0;

  /** The number that the next record begins with, if it is of this type; else -1. It stays the next one until `take`. */
  upcoming(type: number): number {
    if (this.#held === 0) {
      if (this.reader.upcoming !== type) return -1;
      this.#held = this.reader.next();
      this.#heldNumber = this.reader.number();
    }
    return this.#held === type ? this.#heldNumber : -1;
  }

  /** Takes the record that `upcoming` has found: the fields after its number are next. */
  take(): void {
    this.#held = 0;
  }

  /** Whether all records have been taken. */
  get done(): boolean {
    return this.#held === 0 && this.reader.upcoming === 0;
  }

  /** The next record, which has to be of a type, and of a number where one is given: its fields are next. */
  expect(type: number, number?: number): RecordingReader {
    const { reader } = this;
    const found = this.#held === 0 ? reader.next() : this.#held;
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
