/**
 * The physical memory of the oracle: pages that exist, a map of 8-byte words in them (absent ones are zero), and faults injected by word.
 * Where there is no page, accesses fault. Values are those a little-endian reader sees; who stores big-endian structures swaps.
 */

/**
 * What an access to a word meets. "access": loads and stores are refused (PMA or PMP). "corrupt": loads return poisoned data. "read-only":
 * stores are refused.
 */
export type Injected = "access" | "corrupt" | "read-only";

export interface Memory {
  /** Page-frame numbers (address >> 12) of the pages that exist. */
  readonly pages: Set<bigint>;
  /** 8-byte words by address; addresses are multiples of 8. */
  readonly words: Map<bigint, bigint>;
  readonly injected: Map<bigint, Injected>;
}

export function emptyMemory(): Memory {
  return { pages: new Set(), words: new Map(), injected: new Map() };
}

export function copyMemory(memory: Memory): Memory {
  return { pages: new Set(memory.pages), words: new Map(memory.words), injected: new Map(memory.injected) };
}

export function word(memory: Memory, address: bigint): bigint {
  return memory.words.get(address) ?? 0n;
}

/** Reads a structure in place: a number of words, or the four bytes at a multiple of four as a single value. */
export function structureAt(memory: Memory, address: bigint, bytes: number): bigint[] {
  if (bytes === 4) {
    const whole = word(memory, address & ~7n);
    return [(address & 4n) === 0n ? whole & 0xffff_ffffn : whole >> 32n];
  }
  const values: bigint[] = [];
  for (let offset = 0; offset < bytes; offset += 8) values.push(word(memory, address + BigInt(offset)));
  return values;
}

/** Stores four or eight bytes. */
export function store(memory: Memory, address: bigint, bytes: number, value: bigint): void {
  if (value >> BigInt(8 * bytes) !== 0n) throw new RangeError(`0x${value.toString(16)} does not fit ${bytes} bytes`);
  if (bytes === 8) {
    memory.words.set(address, value);
    return;
  }
  const at = address & ~7n;
  const whole = word(memory, at);
  const shift = (address & 4n) === 0n ? 0n : 32n;
  memory.words.set(at, (whole & ~(0xffff_ffffn << shift)) | (value << shift));
}

/** What a load of `bytes` bytes at `address` meets: an access fault anywhere comes before corruption anywhere (§3.3.1, steps in order). */
export function injectedOnLoad(memory: Memory, address: bigint, bytes: number): "access" | "corrupt" | null {
  if (!memory.pages.has(address >> 12n)) return "access";
  let corrupt = false;
  for (let at = address & ~7n; at < address + BigInt(bytes); at += 8n) {
    const injected = memory.injected.get(at);
    if (injected === "access") return "access";
    if (injected === "corrupt") corrupt = true;
  }
  return corrupt ? "corrupt" : null;
}

/** Memory as one run sees it: what the run stores stays in the run. */
export class RunMemory {
  readonly base: Memory;
  readonly #own: Memory;
  constructor(base: Memory) {
    this.base = base;
    this.#own = { pages: base.pages, words: new Map(), injected: base.injected };
  }

  structureAt(address: bigint, bytes: number): bigint[] {
    return structureAt(this.#owning(address, bytes), address, bytes);
  }

  store(address: bigint, bytes: number, value: bigint): void {
    store(this.#owning(address, bytes), address, bytes, value);
  }

  #owning(address: bigint, bytes: number): Memory {
    const { words } = this.#own;
    for (let at = address & ~7n; at < address + BigInt(bytes); at += 8n) {
      if (!words.has(at)) words.set(at, word(this.base, at));
    }
    return this.#own;
  }
}
