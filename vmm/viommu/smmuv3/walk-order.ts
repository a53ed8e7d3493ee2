// In which order a walk loads (IHI 0070 §3.3.2, §3.3.3): stream table, context descriptors, stage 1 with levels that count up to 3, each of these but
// the stream table behind the stage-2 loads that find it, and stage 2 for the address that stage 1 gave.

import type { WalkStep } from "../explainer.ts";

const STRUCTURES = ["L1STD", "STE", "L1CD", "CD"];

/** True if a load cannot belong to the walk whose loads so far are given. */
export function beginsAnew(walk: readonly WalkStep[], next: WalkStep): boolean {
  const last = walk.at(-1)!;
  if (next.table !== "stage2") {
    const before = walk.findLast(({ table }) => table !== "stage2");
    if (before !== undefined && rank(next) <= rank(before)) return true;
    if (last.table !== "stage2") return false;
    // Stage 2 found this entry, or an address that ends a walk.
    return last.serves === undefined
      ? next.table !== "L1CD" && next.table !== "CD"
      : next.table !== "stage1" || next.level !== last.serves;
  }
  if (last.table === "stage2") {
    if (last.serves === next.serves && last.input === next.input && next.level > last.level) return false;
    // Behind the loads for a descriptor that hardware marks (§3.13) come those for the next one, or for the address it gave.
    return last.serves === undefined || (next.serves !== undefined && next.serves <= last.serves);
  }
  if (next.serves === undefined) return last.table === "CD";
  return last.table === "stage1" && next.serves < last.level;
}

function rank({ table, level }: WalkStep): number {
  const at = STRUCTURES.indexOf(table);
  return at < 0 ? STRUCTURES.length + level : at;
}
