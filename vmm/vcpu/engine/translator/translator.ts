// Translates hot guest code to WebAssembly beside the interpreter. The core's run() stops with EXIT_TRANSLATE when samples of pc have met the same 128
// bytes of code often enough; translate() then compiles the region around the sampled slot, puts its function into the core's table and marks the
// head of every block TRANSLATED, keeping the original slot in the core's list of entries. The core calls the function when it meets the mark.
//
// Nothing that the guest can observe depends on it. When the list or the table is full, all decoded code is dropped and both start again.
import * as layout from "../assembly/layout.ts";
import type { InstructionSet } from "./instruction-set.ts";
import { findRegion } from "./region.ts";
import { RegionWriter } from "./region-writer.ts";

/** What the translator needs of the core's exports, besides the functions that the instruction set imports. */
export interface TranslatorCore {
  readonly table: WebAssembly.Table;
  dropDecodePages(): void;
}

export class Translator {
  /** Functions compiled so far. */
  compiled = 0;
  readonly #isa: InstructionSet;
  readonly #table: WebAssembly.Table;
  readonly #view: DataView;
  readonly #first: number;
  readonly #capacity: number;
  readonly #drop: () => void;
  readonly #imports: WebAssembly.Imports;
  #used = 0;

  /** At most `capacity` functions are kept. */
  constructor(memory: WebAssembly.Memory, core: TranslatorCore, isa: InstructionSet, capacity: number) {
    this.#isa = isa;
    this.#table = core.table;
    this.#view = new DataView(memory.buffer);
    this.#first = core.table.length;
    this.#capacity = capacity;
    this.#drop = () => core.dropDecodePages();
    this.#imports = { env: { memory }, core: core as unknown as WebAssembly.ModuleImports };
    core.table.grow(capacity);
  }

  /** Translates the region around the decode slot `slot` of the decode page `page`; does nothing if there is none. */
  translate(page: number, slot: number): void {
    const view = this.#view;
    const blocks = findRegion(view, page, (slot - page) / 4, this.#isa);
    if (blocks.length === 0) return;
    let entries = view.getUint32(layout.ENTRIES_USED, true);
    if (this.#used === this.#capacity || entries + blocks.length > layout.MAX_ENTRIES) {
      this.#reset();
      return;
    }
    const functionIndex = this.#first + this.#used;
    const compiled = this.#compile(new RegionWriter(page, blocks, functionIndex).module(this.#isa.imports));
    if (compiled === null) return;
    this.#table.set(functionIndex, compiled as () => void);
    this.#used++;
    this.compiled++;
    blocks.forEach((block, index) => {
      const at = page + block.instructions[0]!.offset * 4;
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
    this.#drop();
    for (let n = 0; n < this.#used; n++) this.#table.set(this.#first + n, null);
    this.#used = 0;
    this.#view.setUint32(layout.ENTRIES_USED, 0, true);
    // so much hot code would only push itself out again: be slower to translate from now on
    this.#view.setUint32(layout.TRANSLATE, Math.min(this.#view.getUint32(layout.TRANSLATE, true) * 2, 255), true);
  }
}
