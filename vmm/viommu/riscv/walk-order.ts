// In which order a walk loads: down the directories, down the first stage (levels count down to 0), each entry behind the second-stage loads that
// find it; then the second stage, or a table of messages, for the address that gave. Never back up.

import type { WalkStep } from "../explainer.ts";

const WALK_TABLES = ["DDT", "PDT", "stage1", "MSI", "stage2"];

/** True if a load cannot belong to the walk whose loads so far are given. */
export function beginsAnew(walk: readonly WalkStep[], next: WalkStep): boolean {
  for (let i = walk.length - 1; i >= 0; i--) {
    const last = walk[i]!;
    if (isImplicit(last)) continue;
    if (!isImplicit(next)) return height(next) >= height(last);
    // What an implicit second-stage walk serves is below a directory entry, and below the table it came from.
    const { table, level } = last;
    const ended = WALK_TABLES.indexOf(table) > WALK_TABLES.indexOf("stage1");
    return ended || (table === "stage1" && next.serves! >= level);
  }
  // Nothing but implicit loads so far: one of the same level begins again.
  const last = walk.at(-1)!;
  return isImplicit(next) && (next.serves! > last.serves! || (next.serves === last.serves && next.level >= last.level));
}

const isImplicit = (step: WalkStep): boolean => step.table === "stage2" && step.serves !== undefined;

/** How far up a walk a load stands: tables in the order they are gone through, levels within. */
function height({ table, level }: WalkStep): number {
  return level - 8 * WALK_TABLES.indexOf(table);
}
