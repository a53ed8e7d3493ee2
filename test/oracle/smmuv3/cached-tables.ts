/**
 * Memory with a history, read as an SMMU with caches may read it (§3.17, §3.21, §4.3, §4.4): a load gives the value that memory holds, or one that it held
 * earlier, if that could be cached and no invalidation since had to drop it. Which one is a choice like any other (`../latitude.ts`).
 *
 * This is an upper bound of what is legal, made as small as stays sound: an entry may be cached whenever memory held it, walked or not. It supposes of software
 * what the architecture asks for: a {world, VMID, ASID} stands for one stage-1 table, a VMID for one stage 2; global pages appear only where a VMID has one
 * stage-1 table; tables and contexts keep their guest pages; fields of structures that TLBs may hold do not change; blocks and tables replace each other by
 * break-before-make.
 */
import { type Choose, Impossible } from "../latitude.ts";
import { injectedOnLoad } from "../memory.ts";
import { WordHistory } from "../word-history.ts";
import type { Command } from "./adapter.ts";
import { covers, coversCombined, decodeInvalidation, type Invalidation } from "./invalidation.ts";
import type { Update } from "./outcome.ts";
import type { EntryMeaning, EntryTag, Tables } from "./tables.ts";

export class MemoryHistory extends WordHistory {
  readonly #invalidations: { readonly time: number; readonly invalidation: Invalidation }[] = [];

  /** A command whose completion a CMD_SYNC has awaited. */
  invalidate(command: Command): void {
    const time = this.pass();
    const invalidation = decodeInvalidation(command);
    if (invalidation !== null) this.#invalidations.push({ time, invalidation });
  }

  /**
   * Whether an entry that memory held until `until` may still be cached. A number: the table descriptor was dropped at that moment, but leaf entries made
   * through it before may be there.
   */
  mayRemain(until: number, tag: EntryTag, meaning: EntryMeaning): boolean | number {
    if (!meaning.cacheable) return false;
    const since = this.#invalidations.filter(({ time }) => time >= until);
    let answer: boolean | number = true;
    for (const { time, invalidation } of since) {
      const covered = covers(invalidation, tag, meaning);
      if (covered === true) answer = false;
      else if (covered === "pointer-only" && answer === true) answer = time;
    }
    if (answer === true || tag.kind !== "stage-2" || tag.under === null || !meaning.leaf) return answer;
    // TLBI_S2_IPA leaves entries that combine both stages (§4.4.3); what drops those leaves entries of stage 2 alone.
    const { under, final, global } = tag;
    if (final && !since.some(({ invalidation }) => coversCombined(invalidation, under, global))) return true;
    return answer;
  }
}

/** A value that a load may give: since when memory held it, and for table descriptors when it was dropped, if it was. */
interface Candidate {
  readonly values: readonly bigint[];
  from: number;
  droppedAt: number | null;
}

/** One run over a history. Updates stay in the run: the caller commits what the SMMU really did. */
export class CachedTables implements Tables {
  readonly updates: Update[] = [];
  readonly #history: MemoryHistory;
  readonly #choose: Choose;
  /** The walk of a stage took a table descriptor that was dropped at a moment: it can only stand for a leaf entry made before. */
  readonly #leafBefore = new Map<"stage-1" | "stage-2", number>();

  constructor(history: MemoryHistory, choose: Choose) {
    this.#history = history;
    this.#choose = choose;
  }

  load(
    address: bigint,
    doublewords: number,
    tag: EntryTag,
    meaning: (values: readonly bigint[]) => EntryMeaning,
  ): readonly bigint[] | null {
    const { now } = this.#history;
    if (injectedOnLoad(now, address, doublewords * 8) !== null) return null;
    const candidates: Candidate[] = [];
    for (const { values, from, until } of this.#history.values(address, doublewords)) {
      const fresh = until === Number.POSITIVE_INFINITY;
      const remains = fresh || this.#history.mayRemain(until, tag, meaning(values));
      if (remains === false) continue;
      const droppedAt = remains === true ? null : remains;
      const same = candidates.find((candidate) => candidate.values.every((value, index) => value === values[index]));
      if (same === undefined) candidates.push({ values, from, droppedAt });
      else {
        same.from = Math.min(same.from, from);
        if (droppedAt === null) same.droppedAt = null;
      }
    }
    const taken = candidates.length === 1 ? candidates[0]! : candidates[this.#choose(candidates.length, "§3.17")]!;
    if (tag.kind === "stage-1" || tag.kind === "stage-2") this.#judgeWalk(tag, meaning(taken.values), taken);
    return taken.values;
  }

  #judgeWalk(
    tag: EntryTag & { readonly kind: "stage-1" | "stage-2" },
    meaning: EntryMeaning,
    { from, droppedAt }: Candidate,
  ): void {
    const before = this.#leafBefore.get(tag.kind);
    if (!meaning.leaf) {
      if (droppedAt !== null && (before === undefined || droppedAt < before)) this.#leafBefore.set(tag.kind, droppedAt);
      return;
    }
    this.#leafBefore.delete(tag.kind);
    if (before === undefined) return;
    if (from >= before || this.#history.mayRemain(before, tag, meaning) !== true)
      throw new Impossible("the table descriptor was dropped, and no leaf entry made through it can have stayed");
  }

  /** After a run: one that went through a gone table descriptor and met no leaf entry below it has no outcome. */
  settle(): void {
    if (this.#leafBefore.size > 0) throw new Impossible("the table descriptor was dropped, and the walk met no leaf");
  }

  update(update: Update, before: bigint): void {
    // An atomic update is of the descriptor that memory holds; a cached one that differs is read again (§3.13).
    if ((this.#history.now.words.get(update.address) ?? 0n) === before) this.updates.push(update);
    else if (update.required) throw new Impossible("the descriptor in memory is another");
  }
}
