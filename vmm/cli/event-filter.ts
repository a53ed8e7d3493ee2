// Whether an event of a trace that is being made is one that somebody waits for: by the words of `nestbox trace show` (vmm/view/trace-filter.ts), as a line.

import type { TracedEvent } from "../../host/base/trace.ts";
import { TRACE_VERSION, traceLine } from "../../host/base/trace-json.ts";
import { FILTER_HELP, FilterError, makeFilter, matcher, parseFilter } from "../view/trace-filter.ts";
import { EVENT_TYPES, indexTrace } from "../view/trace-index.ts";
import { UsageError } from "./exit-codes.ts";

/** `words`: "fault", "type:dma device:00:01.0 iova:0x4000". `option` names what they were given to. Throws UsageError. */
export function eventFilter(words: string, option: string): (event: TracedEvent) => boolean {
  try {
    const isType = (EVENT_TYPES as readonly string[]).includes(words);
    const filter = isType ? makeFilter({ type: words }) : parseFilter(words);
    if (filter === null) throw new FilterError(`there are no words (${FILTER_HELP})`);
    return (event) => {
      if (filter.types !== null && !filter.types.has(event.type)) return false;
      // A trace of one event: what fits is said of a trace's columns.
      const columns = indexTrace(Buffer.from(`{"nestbox-trace":${TRACE_VERSION}}\n${traceLine(event)}\n`));
      return matcher(filter, columns)(0);
    };
  } catch (error) {
    if (error instanceof FilterError) throw new UsageError(`${option} ${words}: ${error.message}`);
    throw error;
  }
}
