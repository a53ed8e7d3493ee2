// The events of a trace as lines: those that fit a filter, of a file as it is, or (follow) as it grows while something runs.

import { closeSync, fstatSync, openSync, readSync, watch } from "node:fs";
import { TRACE_VERSION, TraceFormatError, traceLine } from "../../host/base/trace-json.ts";
import { rowsThatFit, type TraceFilter } from "../view/trace-filter.ts";
import { eventAt, indexTrace } from "../view/trace-index.ts";
import { eventText } from "../view/trace-text.ts";
import { UsageError } from "./exit-codes.ts";
import { fileProblem } from "./input-file.ts";

const HEADER = `{"nestbox-trace":${TRACE_VERSION}}\n`;
/** Bytes read at once from a file that grows. */
const PIECE = 16 * 2 ** 20;

/** Lines for a person, or the trace's own. */
export function* fittingLines(bytes: Uint8Array, filter: TraceFilter, json: boolean): Generator<string> {
  const columns = indexTrace(bytes);
  for (const row of rowsThatFit(filter, columns)) {
    const event = eventAt(columns, row);
    yield json ? traceLine(event) : `${String(event.seq).padStart(8)} ${eventText(event)}`;
  }
}

/** Whole lines of a file, in pieces that are traces of their own, as they are written. Not state: of one file that is read. */
export class GrowingTrace {
  readonly #file: string;
  readonly #fd: number;
  #at = 0;
  #lines = 0;
  #rest = Buffer.alloc(0);

  /** Throws UsageError. */
  constructor(file: string) {
    this.#file = file;
    try {
      this.#fd = openSync(file, "r");
    } catch (error) {
      throw new UsageError(`trace ${file}: ${fileProblem(error)}`);
    }
  }

  /** What came since the last call, as a trace; null: no whole line. Throws UsageError where the file has become shorter: it is another one then. */
  next(): Buffer | null {
    const { size } = fstatSync(this.#fd);
    if (size < this.#at)
      throw new UsageError(`trace ${this.#file}: it was cut off or begun anew while it was followed`);
    const piece = Buffer.alloc(Math.min(PIECE, size - this.#at));
    const read = readSync(this.#fd, piece, 0, piece.length, this.#at);
    if (read === 0) return null;
    this.#at += read;
    const bytes = Buffer.concat([this.#rest, piece.subarray(0, read)]);
    const end = bytes.lastIndexOf(10) + 1;
    this.#rest = Buffer.from(bytes.subarray(end));
    if (end === 0) return this.next();
    const whole = bytes.subarray(0, end);
    // Behind the first piece the file's own header stands no more.
    const trace = this.#lines === 0 ? Buffer.from(whole) : Buffer.concat([Buffer.from(HEADER), whole]);
    this.#lines++;
    return trace;
  }

  close(): void {
    closeSync(this.#fd);
  }
}

/** Gives lines to `print` until `ended`. Throws UsageError. */
export async function follow(
  file: string,
  filter: TraceFilter,
  json: boolean,
  print: (lines: readonly string[]) => void,
  ended: Promise<void>,
): Promise<void> {
  const trace = new GrowingTrace(file);
  let problem: unknown = null;
  const take = (): void => {
    for (let piece = trace.next(); piece !== null; piece = trace.next()) {
      print([...fittingLines(piece, filter, json)]);
    }
  };
  try {
    await new Promise<void>((done) => {
      const look = (): void => {
        try {
          take();
        } catch (error) {
          problem = error;
          watcher.close();
          done();
        }
      };
      const watcher = watch(file, look);
      // Once it is watched: what is written before would go unseen until the next change.
      look();
      void ended.then(() => {
        watcher.close();
        done();
      });
    });
    if (problem !== null) throw problem;
    take();
  } catch (error) {
    if (error instanceof TraceFormatError) throw new UsageError(`${file}: ${error.message}`);
    throw error;
  } finally {
    trace.close();
  }
}
