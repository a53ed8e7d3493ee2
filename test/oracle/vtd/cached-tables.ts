/**
 * Memory with a history, read as a unit with caches may read it (§6.1, §6.2): a load gives the value that memory holds, or one that it held earlier, if that
 * could be cached and no invalidation since had to drop it. Which one is a choice like any other (`../latitude.ts`).
 *
 * This is an upper bound of what is legal, made as small as stays sound: an entry may be cached whenever memory held it, walked or not. A paging entry on the way
 * that was dropped can still stand for what was cached below it, but only for that. Paging entries are found by domain (and PASID), not by the tables' root
 * (§6.2): a walk may go on in tables that the domain had earlier, through entries that are cached still. Of software it supposes that a domain id means one second
 * stage, and one with a PASID one first stage, once everything is invalidated (§6.2.1); and that large pages and tables replace each other with an invalidation
 * in between.
 */
import { type Choose, Impossible } from "../latitude.ts";
import { injectedOnLoad } from "../memory.ts";
import { WordHistory } from "../word-history.ts";
import { covers, type Descriptor, decodeInvalidation, type Invalidation } from "./invalidation.ts";
import type { Update } from "./outcome.ts";
import { type EntryMeaning, type EntryTag, refusesStores, type Tables } from "./tables.ts";

export class MemoryHistory extends WordHistory {
  readonly #invalidations: { readonly time: number; readonly invalidation: Invalidation }[] = [];

  /** Roots that walks started at, by what finds the entries below, and when last. */
  readonly #roots = new Map<string, Map<bigint, number>>();

  /** Notes where walks may have started. */
  noteRoots(walked: Iterable<readonly [key: string, root: bigint]>): void {
    for (const [key, root] of walked) {
      const known = this.#roots.get(key) ?? new Map<bigint, number>();
      this.#roots.set(key, known);
      known.set(root, this.time);
    }
  }

  /** Other roots that a walk started at earlier, and the moment after. */
  otherRoots(key: string, root: bigint): readonly (readonly [root: bigint, before: number])[] {
    const known = [...(this.#roots.get(key) ?? [])];
    return known.filter(([other]) => other !== root).map(([other, last]) => [other, last + 1] as const);
  }

  /** Whether an invalidation since `until` was of this domain, of what leads to an entry that holds the domain. */
  droppedByDomain(until: number, tag: EntryTag, did: bigint): boolean {
    const meaning: EntryMeaning = { cacheable: true, leaf: true, span: 0n, did };
    return this.#invalidations.some(
      ({ time, invalidation }) => time >= until && covers(invalidation, tag, meaning) === true,
    );
  }

  /** A descriptor whose completion a wait has told. */
  invalidate(descriptor: Descriptor): void {
    const invalidation = decodeInvalidation(descriptor);
    if (invalidation !== null) this.drop(invalidation);
  }

  drop(invalidation: Invalidation): void {
    this.#invalidations.push({ time: this.pass(), invalidation });
  }

  /**
   * Whether an entry that memory held until `until` may still be cached. A number: it was dropped at that moment, but what was cached below it before may be
   * there.
   */
  mayRemain(until: number, tag: EntryTag, meaning: EntryMeaning): boolean | number {
    if (!meaning.cacheable) return false;
    let answer: boolean | number = true;
    for (const { time, invalidation } of this.#invalidations) {
      if (time < until) continue;
      const covered = covers(invalidation, tag, meaning);
      if (covered === true) return false;
      if (covered === "pointer-only" && answer === true) answer = time;
    }
    return answer;
  }
}

/** A value that a load may give: since when memory held it, until when, and when it was dropped, if it was. */
interface Candidate {
  readonly values: readonly bigint[];
  from: number;
  readonly until: number;
  droppedAt: number | null;
}

/** One run over a history. Updates stay in the run: the caller commits what the unit really did. */
export class CachedTables implements Tables {
  readonly updates: Update[] = [];
  /** Where walks started. */
  readonly walked: [key: string, root: bigint][] = [];
  readonly #history: MemoryHistory;
  readonly #choose: Choose;
  /** Something on the way is not what the unit would find now, and so far nothing below it is known to have been cached before that moment. By walk under way. */
  readonly #owing = new Map<"first-stage" | "second-stage", number | null>();
  /** A stale root or directory entry: whether it was dropped depends on the domain, which the entry below holds. */
  #above: { readonly until: number; readonly tag: EntryTag } | null = null;

  constructor(history: MemoryHistory, choose: Choose) {
    this.#history = history;
    this.#choose = choose;
  }

  load(
    address: bigint,
    quadwords: number,
    tag: EntryTag,
    meaning: (values: readonly bigint[]) => EntryMeaning,
  ): readonly bigint[] | null {
    const { now } = this.#history;
    if (injectedOnLoad(now, address, quadwords * 8) !== null) return null;
    const candidates: Candidate[] = [];
    for (const { values, from, until } of this.#history.values(address, quadwords)) {
      const fresh = until === Number.POSITIVE_INFINITY;
      const remains = fresh || this.#history.mayRemain(until, tag, meaning(values));
      if (remains === false) continue;
      const droppedAt = remains === true ? null : remains;
      const flags = FLAGS[tag.kind] ?? 0n;
      const same = candidates.find((candidate) =>
        candidate.values.every((value, at) => supersedes(value, values[at]!, flags)),
      );
      if (same === undefined) candidates.push({ values, from, until, droppedAt });
      else {
        same.from = Math.min(same.from, from);
        if (droppedAt === null) same.droppedAt = null;
      }
    }
    const taken = candidates.length === 1 ? candidates[0]! : candidates[this.#choose(candidates.length, "§6.2")]!;
    if (tag.kind === "first-stage" || tag.kind === "second-stage") this.#judgeWalk(tag, meaning(taken.values), taken);
    else this.#judgeStructure(tag, meaning(taken.values), taken);
    return taken.values;
  }

  #judgeStructure(tag: EntryTag, { did }: EntryMeaning, { until }: Candidate): void {
    const above = this.#above;
    this.#above = null;
    if (above !== null && did !== null && this.#history.droppedByDomain(above.until, above.tag, did))
      throw new Impossible("what led here was dropped with the domain");
    const leads = tag.kind === "root" || tag.kind === "pasid-directory";
    if (leads && did === null && until !== Number.POSITIVE_INFINITY) this.#above = { until, tag };
  }

  #judgeWalk(
    tag: EntryTag & { readonly kind: "first-stage" | "second-stage" },
    meaning: EntryMeaning,
    { from, droppedAt }: Candidate,
  ): void {
    const { kind } = tag;
    let owing = this.#owing.get(kind) ?? null;
    // An entry that was there before, and was not dropped since, is where the unit may go on from without what led to it.
    const known = owing !== null && droppedAt === null && from < owing;
    if (known && this.#history.mayRemain(owing!, tag, meaning) === true) owing = null;
    if (droppedAt !== null) owing = earlier(owing, droppedAt);
    this.#owing.set(kind, owing);
    if (!meaning.leaf) return;
    if (owing !== null) throw new Impossible("what led here was dropped, and nothing found through it can have stayed");
  }

  startOfWalk(kind: "first-stage" | "second-stage", did: bigint, pasid: bigint | null, root: bigint): bigint {
    const key = `${kind} ${did} ${pasid}`;
    this.walked.push([key, root]);
    const others = this.#history.otherRoots(key, root);
    this.#owing.set(kind, null);
    if (others.length === 0) return root;
    const other = others[this.#choose(others.length + 1, "§6.2: tables that the domain had earlier") - 1];
    if (other === undefined) return root;
    // What this walk finds is cached from now on, however it came there.
    this.walked.push([key, other[0]]);
    this.#owing.set(kind, other[1]);
    return other[0];
  }

  /** After a run: one that went through what was dropped and met nothing that was cached below has no outcome. */
  settle(): void {
    if ([...this.#owing.values()].some((moment) => moment !== null))
      throw new Impossible("what led here was dropped, and the walk met nothing cached");
  }

  update(update: Update, before: bigint): boolean {
    if (refusesStores(this.#history.now, update.address)) return false;
    // An atomic update is of the entry that memory holds; where a cached one differs, the walk is done again (§3.6.3).
    if ((this.#history.now.words.get(update.address) ?? 0n) !== before)
      throw new Impossible("the entry in memory is another");
    this.updates.push(update);
    return true;
  }
}

/** Accessed and dirty flags, which hardware sets by itself. */
const FLAGS: Partial<Record<EntryTag["kind"], bigint>> = {
  "first-stage": (3n << 5n) | (1n << 10n),
  "second-stage": 3n << 8n,
};

/** An older value that lacks nothing but flags says nothing more: it cannot be updated any more where one is needed, and is the same where not. */
function supersedes(newer: bigint, older: bigint, flags: bigint): boolean {
  return ((newer ^ older) & ~flags) === 0n && (older & ~newer) === 0n;
}

function earlier(one: number | null, other: number): number {
  return one === null || other < one ? other : one;
}
