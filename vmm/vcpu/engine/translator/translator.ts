// Translates hot guest code to WebAssembly beside the interpreter. The core's run() stops with EXIT_TRANSLATE when samples of pc have met the same 128
// bytes of code often enough; translate() then compiles the region around the sampled slot, puts its function into the core's table and marks the
// head of every block TRANSLATED, keeping the original slot in the core's list of entries. The core calls the function when it meets the mark.
//
// Nothing that the guest can observe depends on it. When the list or the table is full, every mark is taken back and both start again; decoded code stays
// what it is, for a guest that has changed code and not fenced must not see from that what is translated.
import type { Stateful, StateReader, StateRecord } from "../../../../host/base/state.ts";
import * as layout from "../assembly/layout.ts";
import type { InstructionSet } from "./instruction-set.ts";
import { type Block, findRegion, readSlot } from "./region.ts";
import { RegionWriter } from "./region-writer.ts";

/** What the translator needs of the core's exports, besides the functions that the instruction set imports. */
export interface TranslatorCore {
  readonly table: WebAssembly.Table;
}

interface Region {
  readonly page: number;
  readonly blocks: readonly (readonly number[])[];
}

export class Translator implements Stateful {
  /** Functions compiled so far. */
  compiled = 0;
  readonly #isa: InstructionSet;
  readonly #table: WebAssembly.Table;
  readonly #view: DataView; // not state: the core's memory
  readonly #first: number;
  readonly #capacity: number;
  readonly #imports: WebAssembly.Imports;
  /** What the functions in the table are made of: a decode page, and the offsets in it of each block's instructions. */
  readonly #regions: Region[] = [];

  /** At most `capacity` functions are kept. */
  constructor(memory: WebAssembly.Memory, core: TranslatorCore, isa: InstructionSet, capacity: number) {
    this.#isa = isa;
    this.#table = core.table;
    this.#view = new DataView(memory.buffer);
    this.#first = core.table.length;
    this.#capacity = capacity;
    this.#imports = { env: { memory }, core: core as unknown as WebAssembly.ModuleImports };
    core.table.grow(capacity);
  }

  /**
   * Translates the region around the decode slot `slot` of the decode page `page`; does nothing if there is none, or if each of its blocks has a
   * translation (a sample may meet the middle of one, too).
   */
  translate(page: number, slot: number): void {
    const view = this.#view;
    const blocks = findRegion(view, page, (slot - page) / 4, this.#isa);
    const headOf = (block: Block): number => page + block.instructions[0]!.offset * 4;
    if (blocks.every((block) => view.getUint16(headOf(block), true) === layout.TRANSLATED)) return;
    let entries = view.getUint32(layout.ENTRIES_USED, true);
    if (this.#regions.length === this.#capacity || entries + blocks.length > layout.MAX_ENTRIES) {
      this.#reset();
      return;
    }
    const functionIndex = this.#first + this.#regions.length;
    const compiled = this.#compile(new RegionWriter(page, blocks, functionIndex).module(this.#isa));
    if (compiled === null) return;
    this.#table.set(functionIndex, compiled as () => void);
    this.#regions.push({ page, blocks: blocks.map((block) => block.instructions.map((it) => it.offset)) });
    this.compiled++;
    blocks.forEach((block, index) => {
      const at = headOf(block);
      // a block that has an older translation keeps it
      if (view.getUint16(at, true) === layout.TRANSLATED) return;
      const entry = layout.ENTRIES + entries * layout.ENTRY_BYTES;
      view.setBigUint64(entry, view.getBigUint64(at, true), true);
      view.setUint32(entry + 8, functionIndex, true);
      view.setUint32(entry + 12, index, true);
      view.setUint32(at, layout.TRANSLATED, true);
      view.setUint32(at + 4, entries, true);
      entries++;
    });
    view.setUint32(layout.ENTRIES_USED, entries, true);
  }

  /** The module's function; null, and no further translations, if the engine refuses (a browser's main thread compiles small modules only). */
  #compile(bytes: Uint8Array<ArrayBuffer>): WebAssembly.ExportValue | null {
    try {
      return new WebAssembly.Instance(new WebAssembly.Module(bytes), this.#imports).exports.f!;
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      this.#view.setUint32(layout.TRANSLATE, 0, true);
      return null;
    }
  }

  #reset(): void {
    const view = this.#view;
    this.#regions.forEach(({ page, blocks }, n) => {
      for (const offsets of blocks) this.#unmark(page, page + offsets[0]! * 4, this.#first + n);
    });
    const end = this.#endOfPages;
    for (let page = layout.DECODE_POOL; page < end; page += layout.DECODE_PAGE_BYTES) {
      for (let at = 0; at < 32; at += 4) view.setUint32(page + layout.DECODE_HEAT + at, 0, true);
    }
    this.#clear();
    view.setUint32(layout.ENTRIES_USED, 0, true);
    // so much hot code would only push itself out again: be slower to translate from now on
    view.setUint32(layout.TRANSLATE, Math.min(view.getUint32(layout.TRANSLATE, true) * 2, 255), true);
  }

  /** Puts the original slot back where a block of function `functionIndex` begins. */
  #unmark(page: number, slot: number, functionIndex: number): void {
    if (!this.#leadsTo(page, slot, functionIndex)) return;
    const view = this.#view;
    const entry = layout.ENTRIES + view.getUint32(slot + 4, true) * layout.ENTRY_BYTES;
    view.setBigUint64(slot, view.getBigUint64(entry, true), true);
  }

  #clear(): void {
    for (let n = 0; n < this.#regions.length; n++) this.#table.set(this.#first + n, null);
    this.#regions.length = 0;
  }

  /** Functions are not written down but what they are made of: where they go on is marked in decoded code, which is the core's state. */
  saveState(): StateRecord {
    return {
      compiled: this.compiled,
      regions: this.#regions.map(({ page, blocks }) => ({ page, blocks: blocks.map((block) => [...block]) })),
    };
  }

  restoreState(state: StateReader): void {
    const regions = state.records("regions").map((region) => this.#readRegion(region));
    if (regions.length > this.#capacity) state.fail("regions", `are more than ${this.#capacity}`);
    const view = this.#view;
    const entries = view.getUint32(layout.ENTRIES_USED, true);
    for (let n = 0; n < entries; n++) {
      const index = view.getUint32(layout.ENTRIES + n * layout.ENTRY_BYTES + 8, true) - this.#first;
      if (index < 0 || index >= regions.length) state.fail("regions", `have none for entry ${n}`);
    }
    this.#clear();
    regions.forEach((region, n) => {
      this.#regions.push(region);
      const functionIndex = this.#first + n;
      if (!this.#isMarked(region, functionIndex)) return;
      const blocks = region.blocks.map((offsets) => this.#block(region.page, offsets, state));
      const compiled = this.#compile(new RegionWriter(region.page, blocks, functionIndex).module(this.#isa));
      if (compiled === null) state.fail("regions", `${n} is not compiled by this engine`);
      this.#table.set(functionIndex, compiled as () => void);
    });
    this.compiled = state.number("compiled");
  }

  #readRegion(region: StateReader): Region {
    const page = region.number("page");
    // one that is not in use, too: translations stay in the list when all decode pages are dropped
    const pages = this.#view.getUint32(layout.DECODE_PAGES, true);
    const index = (page - layout.DECODE_POOL) / layout.DECODE_PAGE_BYTES;
    if (!Number.isInteger(index) || index < 0 || index >= pages) region.fail("page", "is no decode page");
    const blocks = region.list("blocks").map((block): readonly number[] => {
      if (!Array.isArray(block) || block.length === 0) return region.fail("blocks", "have an empty one");
      return block.every((at) => Number.isInteger(at) && at >= 0 && at < 4096)
        ? block
        : region.fail("blocks", "have an offset outside a page");
    });
    return { page, blocks };
  }

  /** Whether decoded code still leads to a function. */
  #isMarked({ page, blocks }: Region, functionIndex: number): boolean {
    return blocks.some((offsets) => this.#leadsTo(page, page + offsets[0]! * 4, functionIndex));
  }

  /** Whether a slot is marked as the head of a block of a function: not if its page was emptied or dropped. */
  #leadsTo(page: number, slot: number, functionIndex: number): boolean {
    const view = this.#view;
    if (page >= this.#endOfPages || view.getUint16(slot, true) !== layout.TRANSLATED) return false;
    const entry = view.getUint32(slot + 4, true);
    return (
      entry < view.getUint32(layout.ENTRIES_USED, true) &&
      view.getUint32(layout.ENTRIES + entry * layout.ENTRY_BYTES + 8, true) === functionIndex
    );
  }

  /** Behind the last decode page in use. */
  get #endOfPages(): number {
    return layout.DECODE_POOL + this.#view.getUint32(layout.DECODE_USED, true) * layout.DECODE_PAGE_BYTES;
  }

  #block(page: number, offsets: readonly number[], state: StateReader): Block {
    const instructions = offsets.map(
      (at) => readSlot(this.#view, page, at, this.#isa) ?? state.fail("regions", "have code that is not decoded"),
    );
    return { instructions };
  }
}
