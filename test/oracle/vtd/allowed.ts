/** Everything that a unit may answer: the oracle's front door. */
import { everyOutcome } from "../latitude.ts";
import type { Memory } from "../memory.ts";
import { CachedTables, type MemoryHistory } from "./cached-tables.ts";
import type { Identification, Programming } from "./capabilities.ts";
import { type InterruptOutcome, type InterruptRequest, remap } from "./interrupt.ts";
import type { Outcome, Request } from "./outcome.ts";
import { DirectTables } from "./tables.ts";
import { translate } from "./translate.ts";

/** What a unit without caches may answer. Null: too many possibilities to enumerate. `memory` is left as it is. */
export function allowedOutcomes(
  identification: Identification,
  programming: Programming,
  memory: Memory,
  request: Request,
): Outcome[] | null {
  return everyOutcome((choose) => translate(identification, programming, new DirectTables(memory), request, choose));
}

/** What a unit with caches may answer, given what memory held and which invalidations were done. The history notes that it was asked. */
export function allowedOutcomesWithCaches(
  identification: Identification,
  programming: Programming,
  history: MemoryHistory,
  request: Request,
): Outcome[] | null {
  const walked: CachedTables["walked"] = [];
  const outcomes = everyOutcome((choose) => {
    const tables = new CachedTables(history, choose);
    const outcome = translate(identification, programming, tables, request, choose);
    tables.settle();
    walked.push(...tables.walked);
    return outcome;
  });
  history.noteRoots(walked);
  return outcomes;
}

/** What may become of an interrupt request; `history` null: without caches. */
export function allowedInterrupts(
  identification: Identification,
  programming: Programming,
  memory: Memory | MemoryHistory,
  request: InterruptRequest,
): InterruptOutcome[] | null {
  return everyOutcome((choose) => {
    const tables =
      memory instanceof Object && "now" in memory ? new CachedTables(memory, choose) : new DirectTables(memory);
    return remap(identification, programming, tables, request, choose);
  });
}
