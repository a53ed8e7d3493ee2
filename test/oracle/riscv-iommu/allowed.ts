/**
 * All that an implementation without caches may answer to a request, with the effects on memory: the oracle's front door.
 */

import { everyOutcome } from "../latitude.ts";
import type { Memory } from "../memory.ts";
import { CachedTables, MemoryHistory } from "./cached-tables.ts";
import type { Implementation } from "./implementation.ts";
import type { DirectoryPointer, Outcome, Request } from "./outcome.ts";
import { type PageRequest, type PageRequestOutcome, pageRequest } from "./page-request.ts";
import { DirectTables } from "./tables.ts";
import { translate } from "./translate.ts";

/** Null: too many possibilities to enumerate. `memory` is left as it is. */
export function allowedOutcomes(
  implementation: Implementation,
  ddtp: DirectoryPointer,
  memory: Memory,
  request: Request,
): Outcome[] | null {
  return everyOutcome((choose) => translate(implementation, ddtp, new DirectTables(memory), request, choose));
}

/** All that an implementation with caches may answer, given what memory held and which invalidations were done (§3.8). */
export function allowedOutcomesWithCaches(
  implementation: Implementation,
  ddtp: DirectoryPointer,
  history: MemoryHistory,
  request: Request,
): Outcome[] | null {
  return everyOutcome((choose) => {
    const tables = new CachedTables(history, choose);
    const outcome = translate(implementation, ddtp, tables, request, choose);
    tables.settle();
    return outcome;
  });
}

/** What may become of a page request while the queue has room; `memory` comes with its past where the implementation has caches. */
export function allowedPageRequestOutcomes(
  implementation: Implementation,
  ddtp: DirectoryPointer,
  memory: Memory | MemoryHistory,
  request: PageRequest,
): PageRequestOutcome[] | null {
  return everyOutcome((choose) => {
    const tables = memory instanceof MemoryHistory ? new CachedTables(memory, choose) : new DirectTables(memory);
    return pageRequest(implementation, ddtp, tables, request, "ready");
  });
}
