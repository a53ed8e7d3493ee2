/** Everything that an SMMU may answer: the oracle's front door. */
import { everyOutcome } from "../latitude.ts";
import type { Memory } from "../memory.ts";
import { CachedTables, type MemoryHistory } from "./cached-tables.ts";
import type { Identification, Programming } from "./identification.ts";
import type { Outcome, Request } from "./outcome.ts";
import { DirectTables } from "./tables.ts";
import { translate } from "./translate.ts";

/** What an SMMU without caches may answer. Null: too many possibilities to enumerate. `memory` is left as it is. */
export function allowedOutcomes(
  identification: Identification,
  programming: Programming,
  memory: Memory,
  request: Request,
): Outcome[] | null {
  return everyOutcome((choose) => translate(identification, programming, new DirectTables(memory), request, choose));
}

/** What an SMMU with caches may answer, given what memory held and which invalidations were done. */
export function allowedOutcomesWithCaches(
  identification: Identification,
  programming: Programming,
  history: MemoryHistory,
  request: Request,
): Outcome[] | null {
  return everyOutcome((choose) => {
    const tables = new CachedTables(history, choose);
    const outcome = translate(identification, programming, tables, request, choose);
    tables.settle();
    return outcome;
  });
}
