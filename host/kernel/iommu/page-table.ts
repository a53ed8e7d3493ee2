// The page tables that drivers write: a radix tree of tables whose entries are 8 bytes, in whatever form an architecture gives them
// (`TableShape`, each driver's).
//
//     map    largest leaf that address, frame and length allow; all or nothing
//     unmap  clears leaves, splits a leaf that is only partly covered, takes out tables that become empty
//     sync   (by the domain, after it invalidated) frees the tables taken out: hardware may still have walked them before
//
// Levels are counted from the smallest leaves (0) up. A table's entries in use are counted, so an empty one is known without a scan.
// Addresses are page-frame numbers of 4 KiB, whatever the smallest leaf; entries are written as 32-bit halves.

import type { HpaPfn } from "../../base/address.ts";
import type { PhysicalMemory } from "../../base/memory.ts";
import type { Stateful, StateReader, StateRecord } from "../../base/state.ts";
import { EINVAL, ENOMEM, ERANGE } from "../../uapi/errno.ts";
import type { HostFrames } from "../host-frames.ts";
import { numbersOf, refillMap } from "../same-objects.ts";

/** Bits of a leaf beside its frame and its kind. */
export interface LeafBits {
  readonly lo: number;
  readonly hi: number;
}

/** What an architecture's tables look like. */
export interface TableShape {
  /** As a state document says it. */
  readonly name: string;
  readonly levels: number;
  /** log2 of a table's entries. */
  readonly stride: number;
  /** Entries of the root, which stand in as many pages as they need, aligned to their size. */
  readonly rootEntries: number;
  /** Pages of 4 KiB that a table has, and that the smallest leaf covers. */
  readonly granulePages: number;
  /** Highest level with leaves. */
  readonly largestLeaf: number;
  /** Bits of a physical address that the hardware drives; nothing beyond can be mapped. */
  readonly physicalBits: number;
  /** Where an entry's frame number begins, and what of the high half belongs to it. */
  readonly frameShift: number;
  readonly frameHigh: number;
  /** Bits of an entry's low half any of which says that there is one. */
  readonly presentBits: number;
  /** Low half of an entry that points to a table. */
  readonly tableBits: number;
  /** Errno of a mapping where there is one already. */
  readonly occupied: number;
  /** Bits that say it is a leaf, of this level. */
  leafKind(level: number): number;
  isLeaf(lo: number, level: number): boolean;
  /** The bits of IOMMU_* protection flags, or a negated errno. */
  leafBits(protection: number): LeafBits | number;
  /** A writable leaf that was written to; only where dirty state is tracked. */
  isDirty(lo: number, hi: number): boolean;
  /** The low half of a dirty leaf made clean. */
  cleaned(lo: number): number;
}

interface TakenOut {
  readonly frame: HpaPfn;
}

/** Told of page-table pages coming and going, for accounting. */
export interface TableAccounting {
  created(): void;
  destroyed(): void;
  /** True to let this allocation fail. */
  fails(): boolean;
}

export class PageTable<Shape extends TableShape = TableShape> implements Stateful {
  root: HpaPfn;
  readonly shape: Shape;
  /** Entries of a table, and pages that an entry of each level covers. */
  readonly #entries: number;
  readonly #spans: readonly number[];
  /** Frame numbers that an entry's low half can tell apart. */
  readonly #frameLow: number;
  readonly #present: number;
  readonly #frames: HostFrames;
  readonly #memory: PhysicalMemory<HpaPfn>;
  readonly #accounting: TableAccounting;
  /** Entries in use of every table but the root. */
  readonly #used = new Map<number, number>();
  #takenOut: TakenOut[] = [];
  #clearedLevels = 0;

  private constructor(root: HpaPfn, shape: Shape, frames: HostFrames, accounting: TableAccounting) {
    this.root = root;
    this.shape = shape;
    const entries = 2 ** shape.stride;
    this.#entries = entries;
    this.#spans = Array.from({ length: shape.levels }, (_, level) => shape.granulePages * entries ** level);
    this.#frameLow = 2 ** (32 - shape.frameShift);
    this.#present = shape.presentBits;
    this.#frames = frames;
    this.#memory = frames.memory;
    this.#accounting = accounting;
  }

  /** An empty table, or -ENOMEM. */
  static create<Shape extends TableShape>(
    shape: Shape,
    frames: HostFrames,
    accounting: TableAccounting,
  ): PageTable<Shape> | number {
    if (accounting.fails()) return -ENOMEM;
    const pages = rootPages(shape);
    const root = frames.allocate(pages, pages);
    if (root < 0) return root;
    accounting.created();
    return new PageTable(root as HpaPfn, shape, frames, accounting);
  }

  /** One more than the last page-frame number of the input address space. */
  get inputPages(): number {
    return this.#spans[this.shape.levels - 1]! * this.shape.rootEntries;
  }

  /** Tables taken out and not freed yet: the next invalidation must include non-leaf entries. */
  get hasTakenOut(): boolean {
    return this.#takenOut.length > 0;
  }

  /** Levels of the leaves that unmaps cleared or split since the last sync: bit n for level n. */
  get clearedLevels(): number {
    return this.#clearedLevels;
  }

  /** Table pages, the root counted once. */
  get tables(): number {
    return this.#used.size + 1;
  }

  /**
   * Maps `pages` from input frame `input` to output frame `output`. -EINVAL outside the table's input range, -ERANGE for memory that the
   * hardware cannot address, what the shape says where something is mapped and for what its protection grants, -ENOMEM; on an error
   * nothing has changed.
   */
  map(input: number, output: number, pages: number, protection: number): number {
    if (input < 0 || pages <= 0 || input + pages > this.inputPages) return -EINVAL;
    if (output + pages > 2 ** (this.shape.physicalBits - 12)) return -ERANGE;
    const bits = this.shape.leafBits(protection);
    if (typeof bits === "number") return bits;
    let at = input;
    const end = input + pages;
    while (at < end) {
      const mapped = this.#mapSome(this.root, this.shape.levels - 1, at, output + (at - input), end - at, bits);
      if (mapped < 0) {
        this.unmap(input, at - input);
        this.#freeTakenOut();
        return mapped;
      }
      at += mapped;
    }
    return 0;
  }

  /** Maps leaves of one table, as many as fit in it; pages mapped, or a negated errno with nothing changed. */
  #mapSome(table: HpaPfn, level: number, input: number, output: number, pages: number, bits: LeafBits): number {
    const span = this.#spans[level]!;
    const index = this.#index(level, input);
    if (pages >= span && input % span === 0 && output % span === 0 && level <= this.shape.largestLeaf) {
      return this.#fill(table, level, index, output, Math.floor(pages / span), bits);
    }
    if (level === 0) return -EINVAL;
    let child: HpaPfn;
    this.#memory.load64((table + (index >> 9)) as HpaPfn, (index & 511) * 8);
    const { lo, hi } = this.#memory;
    let fresh = false;
    if ((lo & this.#present) === 0) {
      const frame = this.#newTable();
      if (frame < 0) return frame;
      child = frame as HpaPfn;
      fresh = true;
    } else if (this.shape.isLeaf(lo, level)) {
      return -this.shape.occupied;
    } else {
      child = this.#frameOf(lo, hi);
    }
    const within = span - (input % span);
    const result = this.#mapSome(child, level - 1, input, output, Math.min(pages, within), bits);
    if (fresh) {
      // Linked in only when its entries stand: hardware never sees a half-made table.
      if (result < 0) this.#freeTable(child);
      else this.#link(table, index, child, 1);
    }
    return result;
  }

  /** Writes up to `count` consecutive leaves of one table; pages mapped or a negated errno. */
  #fill(table: HpaPfn, level: number, index: number, output: number, count: number, bits: LeafBits): number {
    const memory = this.#memory;
    const span = this.#spans[level]!;
    const limit = this.#entriesOf(table);
    const last = Math.min(limit, index + count);
    for (let i = index; i < last; i++) {
      memory.load64((table + (i >> 9)) as HpaPfn, (i & 511) * 8);
      if ((memory.lo & this.#present) !== 0) {
        if (i === index) return -this.shape.occupied;
        // What was free before it is mapped by this call; the next one meets the obstacle and reports it.
        return this.#fill(table, level, index, output, i - index, bits);
      }
    }
    const kind = this.shape.leafKind(level) | bits.lo;
    const { frameShift } = this.shape;
    const frameLow = this.#frameLow;
    let low = output % frameLow;
    let high = Math.floor(output / frameLow);
    for (let i = index; i < last; i++) {
      memory.store64(
        (table + (i >> 9)) as HpaPfn,
        (i & 511) * 8,
        ((low << frameShift) | kind) >>> 0,
        (high | bits.hi) >>> 0,
      );
      low += span;
      if (low < frameLow) continue;
      high += Math.floor(low / frameLow);
      low %= frameLow;
    }
    this.#count(table, last - index);
    return (last - index) * span;
  }

  /** Unmaps what is mapped in [input, +pages); returns the pages unmapped. */
  unmap(input: number, pages: number): number {
    if (pages <= 0 || input < 0 || input >= this.inputPages) return 0;
    const end = Math.min(input + pages, this.inputPages);
    return this.#unmapIn(this.root, this.shape.levels - 1, input, end);
  }

  #unmapIn(table: HpaPfn, level: number, input: number, end: number): number {
    const memory = this.#memory;
    const span = this.#spans[level]!;
    let unmapped = 0;
    let at = input;
    while (at < end) {
      const index = this.#index(level, at);
      const start = at - (at % span);
      const next = Math.min(end, start + span);
      memory.load64((table + (index >> 9)) as HpaPfn, (index & 511) * 8);
      const { lo, hi } = memory;
      if ((lo & this.#present) !== 0) {
        const whole = at === start && next === start + span;
        const leaf = this.shape.isLeaf(lo, level);
        if (leaf && whole) {
          this.#clear(table, index);
          this.#clearedLevels |= 1 << level;
          unmapped += span;
        } else if (leaf && level > 0) {
          const child = this.#split(table, index, level, lo, hi);
          if (child >= 0) unmapped += this.#unmapIn(child as HpaPfn, level - 1, at, next);
        } else if (!leaf) {
          const child = this.#frameOf(lo, hi);
          unmapped += this.#unmapIn(child, level - 1, at, next);
          if (this.#used.get(child) === 0) {
            this.#clear(table, index);
            this.#used.delete(child);
            this.#takenOut.push({ frame: child });
          }
        }
      }
      at = next;
    }
    return unmapped;
  }

  /** Replaces a large leaf by a table of leaves that map the same; the table's frame or -ENOMEM. */
  #split(table: HpaPfn, index: number, level: number, lo: number, hi: number): number {
    const child = this.#newTable();
    if (child < 0) return child;
    const span = this.#spans[level - 1]!;
    const first = this.#frameOf(lo, hi);
    const { frameHigh, frameShift } = this.shape;
    const bits = (lo & (2 ** frameShift - 1) & ~this.shape.leafKind(level)) | this.shape.leafKind(level - 1);
    for (let i = 0; i < this.#entries; i++) {
      this.#store(child as HpaPfn, i, first + i * span, bits, hi & ~frameHigh);
    }
    this.#used.set(child, this.#entries);
    this.#link(table, index, child as HpaPfn, 0);
    this.#clearedLevels |= 1 << level;
    return child;
  }

  /** Frees the tables that unmaps took out. Only after the hardware was told to forget them. */
  sync(): void {
    this.#clearedLevels = 0;
    this.#freeTakenOut();
  }

  #freeTakenOut(): void {
    for (const { frame } of this.#takenOut) {
      this.#frames.release(frame, this.shape.granulePages);
      this.#accounting.destroyed();
    }
    this.#takenOut = [];
  }

  /** Output frame of an input frame, or -1 if none is mapped. */
  lookup(input: number): number {
    let table = this.root;
    if (input < 0 || input >= this.inputPages) return -1;
    for (let level = this.shape.levels - 1; level >= 0; level--) {
      const index = this.#index(level, input);
      this.#memory.load64((table + (index >> 9)) as HpaPfn, (index & 511) * 8);
      const { lo, hi } = this.#memory;
      if ((lo & this.#present) === 0) return -1;
      if (this.shape.isLeaf(lo, level)) return this.#frameOf(lo, hi) + (input % this.#spans[level]!);
      table = this.#frameOf(lo, hi);
    }
    return -1;
  }

  /** Visits every dirty leaf in [input, +pages), makes it clean unless `keep`. `report` gets first frame and pages. */
  readDirty(input: number, pages: number, keep: boolean, report: (first: number, pages: number) => void): void {
    const end = Math.min(input + pages, this.inputPages);
    this.#dirtyIn(this.root, this.shape.levels - 1, input, end, keep, report);
  }

  #dirtyIn(
    table: HpaPfn,
    level: number,
    input: number,
    end: number,
    keep: boolean,
    report: (first: number, pages: number) => void,
  ): void {
    const memory = this.#memory;
    const span = this.#spans[level]!;
    let at = input;
    while (at < end) {
      const index = this.#index(level, at);
      const next = Math.min(end, at - (at % span) + span);
      const page = (table + (index >> 9)) as HpaPfn;
      memory.load64(page, (index & 511) * 8);
      const { lo, hi } = memory;
      if ((lo & this.#present) === 0) {
        // Nothing is mapped here.
      } else if (!this.shape.isLeaf(lo, level)) {
        this.#dirtyIn(this.#frameOf(lo, hi), level - 1, at, next, keep, report);
      } else if (this.shape.isDirty(lo, hi)) {
        if (!keep) memory.compareExchange64(page, (index & 511) * 8, lo, hi, this.shape.cleaned(lo), hi);
        report(at, next - at);
      }
      at = next;
    }
  }

  /** Frees every table. Only when no hardware refers to the root. */
  free(): void {
    this.#freeTakenOut();
    for (const frame of this.#used.keys()) {
      this.#frames.release(frame as HpaPfn, this.shape.granulePages);
      this.#accounting.destroyed();
    }
    this.#used.clear();
    this.#frames.release(this.root, rootPages(this.shape));
    this.#accounting.destroyed();
  }

  #index(level: number, input: number): number {
    const index = Math.floor(input / this.#spans[level]!);
    return level === this.shape.levels - 1 ? index : index % this.#entries;
  }

  #entriesOf(table: HpaPfn): number {
    return table === this.root ? this.shape.rootEntries : this.#entries;
  }

  #store(table: HpaPfn, index: number, frame: number, lo: number, hi: number): void {
    const page = (table + (index >> 9)) as HpaPfn;
    const low = (((frame % this.#frameLow) << this.shape.frameShift) | lo) >>> 0;
    this.#memory.store64(page, (index & 511) * 8, low, (Math.floor(frame / this.#frameLow) | hi) >>> 0);
  }

  #link(table: HpaPfn, index: number, child: HpaPfn, change: number): void {
    this.#store(table, index, child, this.shape.tableBits, 0);
    this.#count(table, change);
  }

  #clear(table: HpaPfn, index: number): void {
    this.#memory.store64((table + (index >> 9)) as HpaPfn, (index & 511) * 8, 0, 0);
    this.#count(table, -1);
  }

  /** Frame of an entry. */
  #frameOf(lo: number, hi: number): HpaPfn {
    return ((lo >>> this.shape.frameShift) + (hi & this.shape.frameHigh) * this.#frameLow) as HpaPfn;
  }

  #count(table: HpaPfn, change: number): void {
    if (table !== this.root) this.#used.set(table, this.#used.get(table)! + change);
  }

  #newTable(): number {
    if (this.#accounting.fails()) return -ENOMEM;
    const { granulePages } = this.shape;
    const frame = this.#frames.allocate(granulePages, granulePages);
    if (frame < 0) return frame;
    this.#used.set(frame, 0);
    this.#accounting.created();
    return frame;
  }

  #freeTable(frame: HpaPfn): void {
    this.#used.delete(frame);
    this.#frames.release(frame, this.shape.granulePages);
    this.#accounting.destroyed();
  }

  /** The tables are in memory. A table of the document's shape takes over all of its frames. */
  saveState(): StateRecord {
    return {
      root: this.root,
      shape: this.shape.name,
      used: [...this.#used].map(([frame, entries]) => ({ frame, entries })),
      takenOut: this.#takenOut.map(({ frame }) => frame),
      clearedLevels: this.#clearedLevels,
    };
  }

  restoreState(state: StateReader): void {
    const shape = state.text("shape");
    if (shape !== this.shape.name) state.fail("shape", `is ${shape} in the document, ${this.shape.name} here`);
    this.root = state.number("root") as HpaPfn;
    const used = state.records("used").map((saved) => [saved.number("frame"), saved.number("entries")] as const);
    refillMap(this.#used, used);
    this.#clearedLevels = state.number("clearedLevels");
    this.#takenOut = numbersOf(state, "takenOut").map((frame) => ({ frame: frame as HpaPfn }));
  }
}

/** Pages of 4 KiB of the root, a power of two. */
function rootPages({ rootEntries }: TableShape): number {
  return Math.max(1, rootEntries / 512);
}
