// What a hostile guest can do, as data: an operation is a few unsigned numbers, and any numbers are an operation. So a run is an array
// that can be made from a seed, replayed, shortened and written into a test.

/** Kind, then up to four parameters; unsigned 32-bit numbers. */
export type Operation = readonly [number, number, number, number, number];

export const KINDS = [
  "write32",
  "write64",
  "read",
  "storeWord",
  "storeContext",
  "storeEntry",
  "storeProcess",
  "command",
  "command",
  "rawCommand",
  "dma",
  "dma",
  "checkedDma",
  "checkedDma",
  "run",
  "setUp",
  "reset",
  "replug",
  "renumber",
  "inject",
  "inject",
  "configWrite",
  "functionReset",
  "barWrite",
  "answer",
  "answer",
  "wellFormed",
  "wellFormed",
] as const;

export type Kind = (typeof KINDS)[number];

/** How often each kind comes, by its place in KINDS; the rest of the weight goes to the cheap ones. */
const WEIGHTS: Readonly<Record<Kind, number>> = {
  write32: 16,
  write64: 10,
  read: 12,
  storeWord: 10,
  storeContext: 6,
  storeEntry: 10,
  storeProcess: 3,
  command: 12,
  rawCommand: 3,
  dma: 4,
  checkedDma: 4,
  run: 6,
  setUp: 2,
  reset: 0.2,
  replug: 0.4,
  renumber: 0.4,
  inject: 0.7,
  configWrite: 2,
  functionReset: 0.2,
  barWrite: 3,
  answer: 2,
  wellFormed: 5,
};

/** Mulberry32: small, seeded, good enough to choose operations. */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (t ^ (t >>> 14)) >>> 0;
  }
}

const TABLE: number[] = [];
for (const kind of new Set(KINDS)) {
  for (let i = 0; i < WEIGHTS[kind] * 10; i++) TABLE.push(KINDS.indexOf(kind));
}

/** `count` operations; the first sets the IOMMU up, since most of what is interesting needs it running. */
export function makeOperations(random: Random, count: number): Operation[] {
  const operations: Operation[] = [[KINDS.indexOf("setUp"), 0, 0, 0, 0]];
  while (operations.length < count) {
    operations.push([TABLE[random.next() % TABLE.length]!, random.next(), random.next(), random.next(), random.next()]);
  }
  return operations;
}
