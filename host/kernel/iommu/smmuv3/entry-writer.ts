// The order in which a live stream table entry or context descriptor is rewritten, so that hardware that reads it in pieces and at any time sees
// the old entry or the new one (Linux: arm_smmu_write_entry). The hardware reads eight doublewords, each at once but not all together
// (IHI 0070 §3.21.3), and keeps what it read until it is told to forget: `sync`.
//
// Which bits an entry uses depends on the entry (`used`): what it does not use may change under it.
//
//     1  what the old entry does not use is given its new value
//     2  one doubleword is left that differs in bits in use: it is written, and after it what the old entry needed
//     or two and more: the entry is made invalid (V = 0) meanwhile, which breaks it for a moment

import type { HpaPfn } from "../../../base/address.ts";
import type { MemoryPort } from "../../../base/memory.ts";
import { loadDoubleword, storeDoubleword } from "../doubleword.ts";

/** Eight doublewords. */
export type Entry = readonly bigint[];

export const ENTRY_WORDS = 8;
const ALL = (1n << 64n) - 1n;

export interface EntryRules {
  /** Bits that the hardware looks at in an entry, as masks by doubleword. */
  used(entry: Entry): Entry;
  /**
   * Bits that may change under an entry although it uses them, because either value does at any time: for going from one entry to the other.
   */
  safe(from: Entry, to: Entry): Entry;
}

/** Where an entry stands, and how the hardware is made to read it anew: `sync` returns when it has forgotten what it knew. */
export interface EntryPlace {
  load(word: number): bigint;
  store(word: number, value: bigint): void;
  sync(): void;
}

/** Makes `to` the entry at `place`; true if that was hitless. */
export function writeEntry(place: EntryPlace, to: Entry, rules: EntryRules): boolean {
  const from = Array.from({ length: ENTRY_WORDS }, (_, word) => place.load(word));
  const usedBefore = rules.used(from);
  const usedAfter = rules.used(to);
  const safe = rules.safe(from, to);
  const meanwhile: bigint[] = [];
  const differing: number[] = [];
  for (let word = 0; word < ENTRY_WORDS; word++) {
    // Safe bits count only where both entries use them: else the entry that does not use them decides.
    const kept = usedBefore[word]! & ~(safe[word]! & usedAfter[word]! & usedBefore[word]!);
    meanwhile.push((from[word]! & kept) | (to[word]! & ~kept & ALL));
    if ((meanwhile[word]! & usedAfter[word]!) !== to[word]!) differing.push(word);
  }
  const critical = differing[0];
  if (critical === undefined) {
    store(place, to, 0, ENTRY_WORDS);
    return true;
  }
  if (differing.length === 1) {
    // The doubleword is written as a whole next: its unused bits can wait.
    meanwhile[critical] = from[critical]!;
    store(place, meanwhile, 0, ENTRY_WORDS);
    store(place, to, critical, critical + 1);
    store(place, to, 0, ENTRY_WORDS);
    return true;
  }
  store(place, [0n], 0, 1);
  store(place, to, 1, ENTRY_WORDS);
  store(place, to, 0, 1);
  return false;
}

/** Stores what differs of doublewords [first, end), and syncs if something did. */
function store(place: EntryPlace, entry: Entry, first: number, end: number): void {
  let changed = false;
  for (let word = first; word < end; word++) {
    if (place.load(word) === entry[word]!) continue;
    place.store(word, entry[word]!);
    changed = true;
  }
  if (changed) place.sync();
}

/** An entry in memory. */
export function entryInMemory(memory: MemoryPort<HpaPfn>, frame: HpaPfn, offset: number, sync: () => void): EntryPlace {
  return {
    load: (word) => loadDoubleword(memory, frame, offset + word * 8),
    store: (word, value) => storeDoubleword(memory, frame, offset + word * 8, value),
    sync,
  };
}
