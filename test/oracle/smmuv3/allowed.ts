/** Everything that an SMMU may answer: the oracle's front door. */
import { everyOutcome } from "../latitude.ts";
import type { Memory } from "../memory.ts";
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
