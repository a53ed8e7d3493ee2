/** What was stored in memory by a request, and whether an outcome permits it. */
import { type Memory, word } from "./memory.ts";

/** Words of the stored pages (numbers) that now differ from memory before the request. */
export function storedWords(
  subject: { word(address: bigint): bigint },
  before: Memory,
  { storedPages }: { readonly storedPages: Iterable<bigint> },
): [bigint, bigint][] {
  const changed: [bigint, bigint][] = [];
  for (const page of storedPages) {
    for (let at = page << 12n; at < (page + 1n) << 12n; at += 8n) {
      const value = subject.word(at);
      if (value !== word(before, at)) changed.push([at, value]);
    }
  }
  return changed;
}

export interface WordUpdate {
  readonly address: bigint;
  /** Bits of the word, and what they become; left out: they are set. */
  readonly mask: bigint;
  readonly value?: bigint;
  /** False: it may be found done or not done. */
  readonly required: boolean;
}

/** Null: what changed is what the updates say. */
export function wrongStores(
  memory: Memory,
  updates: readonly WordUpdate[],
  changed: readonly (readonly [bigint, bigint])[],
): string | null {
  const now = new Map(changed);
  for (const at of new Set([...now.keys(), ...updates.map(({ address }) => address)])) {
    const before = word(memory, at);
    let must = before;
    let free = 0n;
    for (const { address, mask, value = mask, required } of updates) {
      if (address !== at) continue;
      if (required) must = (must & ~mask) | value;
      else free |= (before ^ value) & mask;
    }
    // What is required by one rule is not free by another.
    free &= ~(must ^ before);
    const seen = now.get(at) ?? before;
    if (((seen ^ must) & ~free) !== 0n) return `expected ${hex(must)} at ${hex(at)}, got ${hex(seen)}`;
  }
  return null;
}

export function hex(value: bigint): string {
  return `0x${value.toString(16)}`;
}
