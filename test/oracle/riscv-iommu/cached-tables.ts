/**
 * Memory with a history, read as an implementation with caches may read it (§3.8): a load gives the value that memory holds, or one that it
 * held earlier, if that could be cached (V=1) and no invalidation since had to drop it. Which one is a choice like any other (`latitude.ts`).
 *
 * This is an upper bound of what is legal, made as small as stays sound: an entry may be cached whenever memory held it, walked or not, since
 * implementations may walk ahead. It supposes of software what §3.8 asks for: one table per tag. A GSCID stands for one second stage, a PSCID in it
 * for one first stage, global pages appear only where a GSCID has one first stage, and guest pages that hold process directories do not move.
 */

import { type Choose, Impossible } from "../latitude.ts";
import { injectedOnLoad, RunMemory } from "../memory.ts";
import { WordHistory } from "../word-history.ts";
import { type Command, covers, decodeInvalidation, type Invalidation } from "./invalidation.ts";
import type { TableWrite } from "./outcome.ts";
import type { EntryMeaning, EntryTag, Loaded, Tables } from "./tables.ts";

export class MemoryHistory extends WordHistory {
  readonly #invalidations: { readonly time: number; readonly invalidation: Invalidation }[] = [];

  /** A command whose completion an IOFENCE.C has awaited. */
  invalidate(command: Command): void {
    const time = this.pass();
    const invalidation = decodeInvalidation(command);
    if (invalidation !== null) this.#invalidations.push({ time, invalidation });
  }

  /** Earlier values of a structure, newest first, each with the moment it ended. */
  earlier(address: bigint, bytes: number): { readonly values: readonly bigint[]; readonly until: number }[] {
    const [, ...gone] = this.values(address & ~7n, Math.ceil(bytes / 8));
    if (bytes !== 4) return gone;
    const half = (whole: bigint): bigint => ((address & 4n) === 0n ? whole & 0xffff_ffffn : whole >> 32n);
    return gone.map(({ values, until }) => ({ values: values.map(half), until }));
  }

  /**
   * Whether an entry that memory held until `until` may still be cached. A number: the pointer itself was dropped at that moment, but leaf entries
   * made through it before may be there.
   */
  mayRemain(until: number, tag: EntryTag, meaning: EntryMeaning): boolean | number {
    if (!meaning.valid) return false; // V=0 is never cached
    let answer: true | number = true;
    for (const { time, invalidation } of this.#invalidations) {
      if (time < until) continue;
      const covered = covers(invalidation, tag, meaning);
      if (covered === true) return false;
      if (covered === "pointer-only" && answer === true) answer = time;
    }
    return answer;
  }
}

/** One run over a history. Updates stay in the run: the caller commits what the implementation really did. */
export class CachedTables implements Tables {
  readonly writes: TableWrite[] = [];
  readonly optional: TableWrite[] = [];
  readonly #history: MemoryHistory;
  readonly #choose: Choose;
  readonly #memory: RunMemory;
  /**
   * The walk of either stage took a pointer that was dropped: it can only stand for a leaf entry made before that moment (not before it was gone from
   * memory: until it was dropped, it was walked through). Null while no such pointer was taken.
   */
  readonly #leafBefore: Record<"first-stage" | "second-stage", number | null> = {
    "first-stage": null,
    "second-stage": null,
  };

  constructor(history: MemoryHistory, choose: Choose) {
    this.#history = history;
    this.#choose = choose;
    this.#memory = new RunMemory(history.now);
  }

  load(address: bigint, bytes: number, tag: EntryTag, meaning: (values: readonly bigint[]) => EntryMeaning): Loaded {
    const current = this.#memory.structureAt(address, bytes);
    const injected = injectedOnLoad(this.#history.now, address, bytes);
    const candidates: { values: readonly bigint[]; droppedAt: number | null }[] = [
      { values: current, droppedAt: null },
    ];
    for (const { values, until } of this.#history.earlier(address, bytes)) {
      const remains = this.#history.mayRemain(until, tag, meaning(values));
      if (remains === false) continue;
      const droppedAt = remains === true ? null : remains;
      const same = candidates.find((candidate) => candidate.values.every((value, index) => value === values[index]));
      if (same === undefined) candidates.push({ values, droppedAt });
      else if (droppedAt === null) same.droppedAt = null;
    }
    const taken = candidates.length === 1 ? candidates[0]! : candidates[this.#choose(candidates.length, "§3.8")]!;
    if (tag.table === "first-stage" || tag.table === "second-stage")
      this.#judgeWalk(tag, meaning(taken.values), taken.droppedAt);
    return { injected, values: taken.values };
  }

  #judgeWalk(
    tag: EntryTag & { table: "first-stage" | "second-stage" },
    meaning: EntryMeaning,
    droppedAt: number | null,
  ): void {
    const before = this.#leafBefore[tag.table];
    if (!meaning.leaf) {
      if (droppedAt !== null) this.#leafBefore[tag.table] = before === null || droppedAt < before ? droppedAt : before;
      return;
    }
    this.#leafBefore[tag.table] = null;
    if (before !== null && this.#history.mayRemain(before, tag, meaning) !== true) {
      throw new Impossible("the pointer was dropped, and no leaf entry made through it can have stayed");
    }
  }

  /** After a run: one that went through a dropped pointer and met no leaf entry below it has no outcome. */
  settle(): void {
    if (this.#leafBefore["first-stage"] !== null || this.#leafBefore["second-stage"] !== null) {
      throw new Impossible("the pointer was dropped, and the walk met no leaf");
    }
  }

  update(address: bigint, bytes: number, before: bigint, after: bigint): "done" | "access" {
    // Compare and retry (§3.4): an entry that is not what memory holds is not updated but read again.
    if (this.#memory.structureAt(address, bytes)[0] !== before) throw new Impossible("the entry in memory is another");
    if (this.#history.now.injected.get(address & ~7n) === "read-only") return "access";
    this.#memory.store(address, bytes, after);
    this.writes.push({ address, bytes, value: after });
    return "done";
  }

  permit(address: bigint, bytes: number, mask: bigint): void {
    this.optional.push({ address, bytes, value: mask });
  }
}
