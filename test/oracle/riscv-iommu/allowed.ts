/**
 * All that an implementation without caches may answer to a request, with the effects on memory: the oracle's front door.
 */
import type { Implementation } from "./implementation.ts";
import { everyOutcome } from "./latitude.ts";
import { copyMemory, type Memory } from "./memory.ts";
import type { DirectoryPointer, Outcome, Request } from "./outcome.ts";
import { DirectTables } from "./tables.ts";
import { translate } from "./translate.ts";

/** Null: too many possibilities to enumerate. `memory` is left as it is. */
export function allowedOutcomes(
  implementation: Implementation,
  ddtp: DirectoryPointer,
  memory: Memory,
  request: Request,
): Outcome[] | null {
  return everyOutcome((choose) =>
    translate(implementation, ddtp, new DirectTables(copyMemory(memory)), request, choose),
  );
}
