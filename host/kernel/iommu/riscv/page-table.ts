// The page tables this driver writes: Sv39/48/57 for a first stage, Sv39x4/48x4/57x4 for a second one (privileged specification,
// "Sv39" and "Two-stage address translation"; the root of a second stage is four pages, 16 KiB aligned).
//
//     map    largest leaf that address, frame and length allow: 4 KiB, 2 MiB, 1 GiB (512 GiB); all or nothing
//     unmap  clears leaves, splits a leaf that is only partly covered, takes out tables that become empty
//     sync   (by the domain, after it invalidated) frees the tables taken out: hardware may still have walked them before
//
// Leaves carry A and U always and D where writable, so hardware never needs to write; only a table that tracks dirty pages is
// written with D clear and relies on GADE. A table's entries in use are counted, so an empty one is known without a scan.
// Addresses are page-frame numbers; entries are written as 32-bit halves.

import type { HpaPfn } from "../../../base/address.ts";
import type { PhysicalMemory } from "../../../base/memory.ts";
import type { Stateful, StateReader, StateRecord } from "../../../base/state.ts";
import { EADDRINUSE, EINVAL, ENOMEM, EOPNOTSUPP, ERANGE } from "../../../uapi/errno.ts";
import type { HostFrames } from "../../host-frames.ts";
import { numbersOf, refillMap } from "../../same-objects.ts";
import { IOMMU_NOEXEC, IOMMU_READ, IOMMU_WRITE } from "../driver.ts";

const V = 1;
const R = 2;
const W = 4;
const X = 8;
const U = 16;
const A = 64;
const D = 128;
const RWX = R | W | X;
const ENTRIES = 512;
/** Entries' PPN starts at bit 10: the low word holds 22 bits of it. */
const PPN_LOW = 2 ** 22;

/** Levels of a mode by its number in iosatp / iohgatp. */
export const MODE_LEVELS: Readonly<Record<number, number>> = { 8: 3, 9: 4, 10: 5 };

export interface PageTableShape {
  /** 3, 4 or 5. */
  readonly levels: number;
  readonly secondStage: boolean;
  /** Leaves start clean; hardware sets D. */
  readonly tracksDirty: boolean;
  /** Bits of a physical address that the hardware drives (PAS); nothing beyond can be mapped. */
  readonly physicalBits: number;
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

export class PageTable implements Stateful {
  root: HpaPfn;
  readonly shape: PageTableShape;
  readonly #frames: HostFrames;
  readonly #memory: PhysicalMemory<HpaPfn>;
  readonly #accounting: TableAccounting;
  /** Entries in use of every table but the root. */
  readonly #used = new Map<number, number>();
  #takenOut: TakenOut[] = [];

  private constructor(root: HpaPfn, shape: PageTableShape, frames: HostFrames, accounting: TableAccounting) {
    this.root = root;
    this.shape = shape;
    this.#frames = frames;
    this.#memory = frames.memory;
    this.#accounting = accounting;
  }

  /** An empty table, or -ENOMEM. */
  static create(shape: PageTableShape, frames: HostFrames, accounting: TableAccounting): PageTable | number {
    if (accounting.fails()) return -ENOMEM;
    const pages = shape.secondStage ? 4 : 1;
    const root = frames.allocate(pages, pages);
    if (root < 0) return root;
    accounting.created();
    return new PageTable(root as HpaPfn, shape, frames, accounting);
  }

  /** One more than the last page-frame number of the input address space (second stage: 2 bits wider). */
  get inputPages(): number {
    return ENTRIES ** this.shape.levels * (this.shape.secondStage ? 4 : 1);
  }

  /** Tables taken out and not freed yet: the next invalidation must include non-leaf entries. */
  get hasTakenOut(): boolean {
    return this.#takenOut.length > 0;
  }

  /** Table pages, the root counted once. */
  get tables(): number {
    return this.#used.size + 1;
  }

  /**
   * Maps `pages` from input frame `input` to output frame `output`. -EINVAL outside the table's input range, -ERANGE for memory that the
   * hardware cannot address, -EADDRINUSE where
   * something is mapped, -EOPNOTSUPP for a mapping that grants nothing, -ENOMEM; on an error nothing has changed.
   */
  map(input: number, output: number, pages: number, prot: number): number {
    if (input < 0 || pages <= 0 || input + pages > this.inputPages) return -EINVAL;
    if (output + pages > 2 ** (this.shape.physicalBits - 12)) return -ERANGE;
    let flags = V | U | A;
    if ((prot & IOMMU_READ) !== 0) flags |= R;
    // W without R is a reserved encoding.
    if ((prot & IOMMU_WRITE) !== 0) flags |= this.shape.tracksDirty ? R | W : R | W | D;
    if ((prot & IOMMU_NOEXEC) === 0) flags |= X;
    if ((flags & RWX) === 0) return -EOPNOTSUPP;
    let at = input;
    const end = input + pages;
    while (at < end) {
      const mapped = this.#mapSome(this.root, this.shape.levels - 1, at, output + (at - input), end - at, flags);
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
  #mapSome(table: HpaPfn, level: number, input: number, output: number, pages: number, flags: number): number {
    const span = ENTRIES ** level;
    const index = this.#index(level, input);
    if (pages >= span && input % span === 0 && output % span === 0 && level <= 3) {
      return this.#fill(table, level, index, output, Math.floor(pages / span), flags);
    }
    if (level === 0) return -EINVAL;
    let child: HpaPfn;
    this.#memory.load64((table + (index >> 9)) as HpaPfn, (index & 511) * 8);
    const { lo, hi } = this.#memory;
    let fresh = false;
    if ((lo & V) === 0) {
      const frame = this.#newTable();
      if (frame < 0) return frame;
      child = frame as HpaPfn;
      fresh = true;
    } else if ((lo & RWX) !== 0) {
      return -EADDRINUSE;
    } else {
      child = frameOf(lo, hi);
    }
    const within = span - (input % span);
    const result = this.#mapSome(child, level - 1, input, output, Math.min(pages, within), flags);
    if (fresh) {
      // Linked in only when its entries stand: hardware never sees a half-made table.
      if (result < 0) this.#freeTable(child);
      else this.#store(table, index, child, V, 1);
    }
    return result;
  }

  /** Writes up to `count` consecutive leaves of one table; pages mapped or -EADDRINUSE. */
  #fill(table: HpaPfn, level: number, index: number, output: number, count: number, flags: number): number {
    const memory = this.#memory;
    const span = ENTRIES ** level;
    const limit = this.#entriesOf(table);
    const last = Math.min(limit, index + count);
    for (let i = index; i < last; i++) {
      memory.load64((table + (i >> 9)) as HpaPfn, (i & 511) * 8);
      if ((memory.lo & V) !== 0) {
        if (i === index) return -EADDRINUSE;
        // What was free before it is mapped by this call; the next one meets the obstacle and reports it.
        return this.#fill(table, level, index, output, i - index, flags);
      }
    }
    let frame = output;
    for (let i = index; i < last; i++) {
      memory.store64((table + (i >> 9)) as HpaPfn, (i & 511) * 8, low(frame, flags), Math.floor(frame / PPN_LOW));
      frame += span;
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
    const span = ENTRIES ** level;
    let unmapped = 0;
    let at = input;
    while (at < end) {
      const index = this.#index(level, at);
      const start = at - (at % span);
      const next = Math.min(end, start + span);
      memory.load64((table + (index >> 9)) as HpaPfn, (index & 511) * 8);
      const { lo, hi } = memory;
      if ((lo & V) !== 0) {
        const whole = at === start && next === start + span;
        if ((lo & RWX) !== 0 && whole) {
          this.#store(table, index, 0, 0, -1);
          unmapped += span;
        } else if ((lo & RWX) !== 0) {
          const child = this.#split(table, index, level, lo, hi);
          if (child >= 0) unmapped += this.#unmapIn(child as HpaPfn, level - 1, at, next);
        } else {
          const child = frameOf(lo, hi);
          unmapped += this.#unmapIn(child, level - 1, at, next);
          if (this.#used.get(child) === 0) {
            this.#store(table, index, 0, 0, -1);
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
    const span = ENTRIES ** (level - 1);
    const first = frameOf(lo, hi);
    for (let i = 0; i < ENTRIES; i++) this.#store(child as HpaPfn, i, first + i * span, lo & 0x3ff, 0);
    this.#used.set(child, ENTRIES);
    this.#store(table, index, child, V, 0);
    return child;
  }

  /** Frees the tables that unmaps took out. Only after the hardware was told to forget them. */
  sync(): void {
    this.#freeTakenOut();
  }

  #freeTakenOut(): void {
    for (const { frame } of this.#takenOut) {
      this.#frames.release(frame);
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
      if ((lo & V) === 0) return -1;
      if ((lo & RWX) !== 0) return frameOf(lo, hi) + (input % ENTRIES ** level);
      table = frameOf(lo, hi);
    }
    return -1;
  }

  /** Visits every writable leaf with D set in [input, +pages), clears D unless `keep`. `report` gets first frame and pages. */
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
    const span = ENTRIES ** level;
    let at = input;
    while (at < end) {
      const index = this.#index(level, at);
      const next = Math.min(end, at - (at % span) + span);
      const page = (table + (index >> 9)) as HpaPfn;
      memory.load64(page, (index & 511) * 8);
      const { lo, hi } = memory;
      if ((lo & V) !== 0 && (lo & RWX) === 0) {
        this.#dirtyIn(frameOf(lo, hi), level - 1, at, next, keep, report);
      } else if ((lo & (V | W | D)) === (V | W | D)) {
        if (!keep) memory.compareExchange64(page, (index & 511) * 8, lo, hi, lo & ~D, hi);
        report(at, next - at);
      }
      at = next;
    }
  }

  /** Frees every table. Only when no hardware refers to the root. */
  free(): void {
    this.#freeTakenOut();
    for (const frame of this.#used.keys()) {
      this.#frames.release(frame as HpaPfn);
      this.#accounting.destroyed();
    }
    this.#used.clear();
    this.#frames.release(this.root, this.shape.secondStage ? 4 : 1);
    this.#accounting.destroyed();
  }

  #index(level: number, input: number): number {
    const index = Math.floor(input / ENTRIES ** level);
    return level === this.shape.levels - 1 ? index : index % ENTRIES;
  }

  #entriesOf(table: HpaPfn): number {
    return table === this.root && this.shape.secondStage ? 4 * ENTRIES : ENTRIES;
  }

  #store(table: HpaPfn, index: number, frame: number, flags: number, change: number): void {
    const page = (table + (index >> 9)) as HpaPfn;
    this.#memory.store64(page, (index & 511) * 8, low(frame, flags), Math.floor(frame / PPN_LOW));
    if (change !== 0) this.#count(table, change);
  }

  #count(table: HpaPfn, change: number): void {
    if (table !== this.root) this.#used.set(table, this.#used.get(table)! + change);
  }

  #newTable(): number {
    if (this.#accounting.fails()) return -ENOMEM;
    const frame = this.#frames.allocate();
    if (frame < 0) return frame;
    this.#used.set(frame, 0);
    this.#accounting.created();
    return frame;
  }

  #freeTable(frame: HpaPfn): void {
    this.#used.delete(frame);
    this.#frames.release(frame);
    this.#accounting.destroyed();
  }

  /** The tables are in memory. A table of the document's shape takes over all of its frames. */
  saveState(): StateRecord {
    return {
      root: this.root,
      shape: shapeName(this.shape),
      used: [...this.#used].map(([frame, entries]) => ({ frame, entries })),
      takenOut: this.#takenOut.map(({ frame }) => frame),
    };
  }

  restoreState(state: StateReader): void {
    const shape = state.text("shape");
    if (shape !== shapeName(this.shape))
      state.fail("shape", `is ${shape} in the document, ${shapeName(this.shape)} here`);
    this.root = state.number("root") as HpaPfn;
    const used = state.records("used").map((saved) => [saved.number("frame"), saved.number("entries")] as const);
    refillMap(this.#used, used);
    this.#takenOut = numbersOf(state, "takenOut").map((frame) => ({ frame: frame as HpaPfn }));
  }
}

function low(frame: number, flags: number): number {
  return (((frame % PPN_LOW) << 10) | flags) >>> 0;
}

/** PPN of an entry (bits 53:10). */
function frameOf(lo: number, hi: number): HpaPfn {
  return ((lo >>> 10) + (hi & 0x3fffff) * PPN_LOW) as HpaPfn;
}

function shapeName({ levels, secondStage, tracksDirty, physicalBits }: PageTableShape): string {
  return `${levels} levels of a ${secondStage ? "second" : "first"} stage, ${physicalBits} bits${tracksDirty ? ", dirty" : ""}`;
}
