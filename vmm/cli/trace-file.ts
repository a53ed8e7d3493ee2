// Reads a trace file for the commands that look at one.

import type { TracedEvent } from "../../host/base/trace.ts";
import { parseTrace, TraceFormatError } from "../../host/base/trace-json.ts";
import { UsageError } from "./exit-codes.ts";
import { readInput } from "./input-file.ts";

/** Bytes of a trace: what fits into one string. */
const LONGEST = 0x1fff_ffe8;

/** All events of the file, up to where it was cut off (said on standard error). Throws UsageError for what is no trace. */
export function readTraceFile(file: string): TracedEvent[] {
  const text = readInput(file, LONGEST, `trace ${file}`).toString("utf8");
  try {
    const cut = (line: number) =>
      process.stderr.write(`nestbox: ${file}: line ${line} is cut off; the trace ends before it\n`);
    return [...parseTrace(text, cut)];
  } catch (error) {
    if (error instanceof TraceFormatError) throw new UsageError(`${file}: ${error.message}`);
    throw error;
  }
}
