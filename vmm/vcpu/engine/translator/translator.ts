// Translates hot guest code to WebAssembly beside the interpreter. The core's run() stops with EXIT_TRANSLATE when samples of pc have met the same 128
// bytes of code often enough; translate() then compiles the region around the sampled slot, puts its function into the core's table and marks the
// head of every block TRANSLATED, keeping the original slot in the core's list of entries. The core calls the function when it meets the mark.
//
// Nothing that the guest can observe depends on it. When the list or the table is full, every mark is taken back and both start again; decoded code stays
// what it is, for a guest that has changed code and not fenced must not see from that what is translated.
import type { Stateful, StateReader, StateRecord } from "../../../../host/base/state.ts";
import * as layout from "../assembly/layout.ts";
import { compileRegion } from "./compile.ts";
import type { Instruction, InstructionSet } from "./instruction-set.ts";
import {
  type Block,
  findRegion,
  MAX_PAGES,
  offsetOf,
  pageOf,
  type Region,
  type RegionPage,
  readSlot,
} from "./region.ts";
import { RegionWriter } from "./region-writer.ts";

/** What the translator needs of the core's exports, besides the functions that the instruction set imports. */
export interface TranslatorCore {
  readonly table: WebAssembly.Table;
  /** What jumps lead to has changed (assembly/jumps.ts). */
  forgetJumps(): void;
}

/** What a function is made of: decode pages by their distance, and of each block its position and how many instructions it has. */
interface Made {
  readonly pages: ReadonlyMap<number, RegionPage>;
  readonly blocks: readonly (readonly [position: number, count: number])[];
}

/** Pages between those of a region: a direct jump goes 128 MiB (AArch64), and not every page is MAX_PAGES jumps away. */
const FARTHEST = (MAX_PAGES * 2 ** 27) / 4096;

export class Translator implements Stateful {
  /** Functions compiled so far. */
  compiled = 0;
  readonly #isa: InstructionSet;
  readonly #core: TranslatorCore;
  readonly #view: DataView; // not state: the core's memory
  readonly #first: number;
  readonly #capacity: number;
  readonly #imports: WebAssembly.Imports;
  /** Of the functions in the table. */
  readonly #made: Made[] = [];

  /** At most `capacity` functions are kept. */
  constructor(memory: WebAssembly.Memory, core: TranslatorCore, isa: InstructionSet, capacity: number) {
    this.#isa = isa;
    this.#core = core;
    this.#view = new DataView(memory.buffer);
    this.#first = core.table.length;
    this.#capacity = capacity;
    this.#imports = { env: { memory }, core: core as unknown as WebAssembly.ModuleImports };
    core.table.grow(capacity);
  }

  /**
   * Translates the region around the decode slot `slot` of the running hart's page; does nothing if there is none, or if each of its blocks has a
   * translation (a sample may meet the middle of one, too).
   */
  translate(page: number, slot: number): void {
    const view = this.#view;
    const region = findRegion(view, (slot - page) / 4, this.#isa, (distance) => this.#pageAt(page, distance));
    const heads = region.blocks.map((block) => headOf(region.pages, block.position));
    const fresh = heads.filter((at) => view.getUint16(at, true) !== layout.TRANSLATED).length;
    if (fresh === 0) return;
    let entries = view.getUint32(layout.ENTRIES_USED, true);
    if (this.#made.length === this.#capacity || entries + fresh > layout.MAX_ENTRIES) {
      this.#reset();
      return;
    }
    const functionIndex = this.#first + this.#made.length;
    const compiled = this.#compile(new RegionWriter(region, functionIndex).module(this.#isa));
    if (compiled === null) return;
    this.#core.table.set(functionIndex, compiled as () => void);
    const blocks = region.blocks.map(({ position, instructions }) => [position, instructions.length] as const);
    this.#made.push({ pages: region.pages, blocks });
    this.compiled++;
    heads.forEach((at, index) => {
      let entry = entries;
      // a block that has an older translation leads to the new one: it has more of what is around it
      if (view.getUint16(at, true) === layout.TRANSLATED) entry = view.getUint32(at + 4, true);
      else {
        view.setBigUint64(layout.ENTRIES + entry * layout.ENTRY_BYTES, view.getBigUint64(at, true), true);
        view.setUint32(at, layout.TRANSLATED, true);
        view.setUint32(at + 4, entry, true);
        entries++;
      }
      const record = layout.ENTRIES + entry * layout.ENTRY_BYTES;
      view.setUint32(record + 8, functionIndex, true);
      view.setUint32(record + 12, index, true);
      view.setBigInt64(record + 16, BigInt(pageOf(region.blocks[index]!.position) * 4096), true);
    });
    view.setUint32(layout.ENTRIES_USED, entries, true);
    // what leads elsewhere now; and after a #reset() none is looked for before there is a translation again
    this.#core.forgetJumps();
  }

  /** The decode page `distance` pages behind the running hart's, which is `page`; 0 if its fetch TLB does not know. */
  #pageAt(page: number, distance: number): number {
    if (distance === 0) return page;
    const view = this.#view;
    const va = BigInt.asUintN(64, view.getBigUint64(layout.PAGE_VA, true) + BigInt(distance * 4096));
    const low = Number(BigInt.asUintN(32, va));
    // tlb.ts, place()
    const place = ((low ^ (low >>> layout.TLB_FOLD)) >>> 8) & layout.TLB_INDEX;
    const entry = view.getUint32(layout.FETCH_TABLE, true) + place;
    return view.getBigUint64(entry, true) === va ? view.getUint32(entry + 8, true) : 0;
  }

  /** The module's function; null, and no further translations, if the engine refuses (a browser's main thread compiles small modules only). */
  #compile(bytes: Uint8Array<ArrayBuffer>): WebAssembly.ExportValue | null {
    try {
      return new WebAssembly.Instance(compileRegion(bytes), this.#imports).exports.f!;
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      this.#view.setUint32(layout.TRANSLATE, 0, true);
      return null;
    }
  }

  #reset(): void {
    const view = this.#view;
    this.#made.forEach(({ pages, blocks }, n) => {
      for (const [position] of blocks) this.#unmark(headOf(pages, position), this.#first + n);
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
  #unmark(slot: number, functionIndex: number): void {
    if (!this.#leadsTo(slot, functionIndex)) return;
    const view = this.#view;
    const entry = layout.ENTRIES + view.getUint32(slot + 4, true) * layout.ENTRY_BYTES;
    view.setBigUint64(slot, view.getBigUint64(entry, true), true);
  }

  #clear(): void {
    for (let n = 0; n < this.#made.length; n++) this.#core.table.set(this.#first + n, null);
    this.#made.length = 0;
  }

  /** Functions are not written down but what they are made of: where they go on is marked in decoded code, which is the core's state. */
  saveState(): StateRecord {
    return {
      compiled: this.compiled,
      regions: this.#made.map(({ pages, blocks }) => ({
        pages: Array.from(pages, ([distance, { page, version }]) => [distance, page, version]),
        blocks: blocks.map(([position, count]) => [position, count]),
      })),
    };
  }

  restoreState(state: StateReader): void {
    const made = state.records("regions").map((region) => this.#readRegion(region));
    if (made.length > this.#capacity) state.fail("regions", `are more than ${this.#capacity}`);
    const view = this.#view;
    const entries = view.getUint32(layout.ENTRIES_USED, true);
    for (let n = 0; n < entries; n++) {
      const entry = layout.ENTRIES + n * layout.ENTRY_BYTES;
      const region = made[view.getUint32(entry + 8, true) - this.#first];
      if (region === undefined) state.fail("regions", `have none for entry ${n}`);
      const block = region.blocks[view.getUint32(entry + 12, true)];
      if (block === undefined || view.getBigInt64(entry + 16, true) !== BigInt(pageOf(block[0]) * 4096))
        state.fail("regions", `have no such block as entry ${n} leads to`);
    }
    this.#clear();
    made.forEach((region, n) => {
      this.#made.push(region);
      const functionIndex = this.#first + n;
      if (!this.#isMarked(region, functionIndex)) return;
      const blocks = region.blocks.map((block) => this.#block(region, block, state));
      const writer = new RegionWriter({ pages: region.pages, blocks }, functionIndex);
      const compiled = this.#compile(writer.module(this.#isa));
      if (compiled === null) state.fail("regions", `${n} is not compiled by this engine`);
      this.#core.table.set(functionIndex, compiled as () => void);
    });
    this.compiled = state.number("compiled");
  }

  #readRegion(region: StateReader): Made {
    // one that is not in use, too: translations stay in the list when all decode pages are dropped
    const count = this.#view.getUint32(layout.DECODE_PAGES, true);
    const numbers = (key: string, length: number): readonly (readonly number[])[] =>
      region.list(key).map((list): readonly number[] => {
        const whole = Array.isArray(list) && list.length === length && list.every((it) => Number.isSafeInteger(it));
        return whole ? list : region.fail(key, `are not lists of ${length} whole numbers`);
      });
    const pages = new Map<number, RegionPage>();
    for (const [distance, page, version] of numbers("pages", 3)) {
      const index = (page! - layout.DECODE_POOL) / layout.DECODE_PAGE_BYTES;
      if (!Number.isInteger(index) || index < 0 || index >= count)
        region.fail("pages", "have one that is no decode page");
      if (Math.abs(distance!) > FARTHEST) region.fail("pages", "are too far apart");
      pages.set(distance!, { page: page!, version: version! });
    }
    if (pages.size > MAX_PAGES) region.fail("pages", `are more than ${MAX_PAGES}`);
    const blocks = numbers("blocks", 2).map(([position, count]): readonly [number, number] => {
      const held = pages.has(pageOf(position!)) && count! >= 1 && offsetOf(position!) + count! <= 4096;
      return held ? [position!, count!] : region.fail("blocks", "have one outside the pages");
    });
    return { pages, blocks };
  }

  /** Whether decoded code still leads to a function. */
  #isMarked({ pages, blocks }: Made, functionIndex: number): boolean {
    return blocks.some(([position]) => this.#leadsTo(headOf(pages, position), functionIndex));
  }

  /** Whether a slot is marked as the head of a block of a function: not if its page was emptied or dropped. */
  #leadsTo(slot: number, functionIndex: number): boolean {
    const view = this.#view;
    if (slot >= this.#endOfPages || view.getUint16(slot, true) !== layout.TRANSLATED) return false;
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

  /** A block as it was translated; without instructions if its page has been emptied or dropped since: nothing leads there. */
  #block({ pages }: Made, [position, count]: readonly [number, number], state: StateReader): Block {
    const { page, version } = pages.get(pageOf(position))!;
    const instructions: Instruction[] = [];
    const gone = page >= this.#endOfPages || this.#view.getUint32(page + layout.DECODE_VERSION, true) !== version;
    if (gone) return { position, instructions };
    for (let offset = offsetOf(position); instructions.length < count; ) {
      const it = offset < 4096 ? readSlot(this.#view, page, offset, this.#isa) : null;
      if (it === null) return state.fail("regions", "have code that is not decoded");
      instructions.push(it);
      offset += it.length;
    }
    return { position, instructions };
  }
}

/** The slot of a block's first instruction. */
function headOf(pages: Region["pages"], position: number): number {
  return pages.get(pageOf(position))!.page + offsetOf(position) * 4;
}
