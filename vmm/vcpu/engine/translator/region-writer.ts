// A region (region.ts) as one WebAssembly function f(n, block, tlb, fetch, base) → n': it starts at block `block`, executes at most n instructions, and
// returns how many of the n are left. `base` is the virtual address of the region's first page.
//
//   block $exit
//     block $leave
//       loop $again                   a backward jump to another block: block = index, br $again
//         block $last … block $0
//           br_table block
//         end $0  code of block 0
//         end $1  code of block 1     a forward jump is a br to the block's end; a block that jumps to itself is a loop of its own
//         …
//         end $k  look for a page     behind the blocks one for each page but the first: is it still where it was, and what it was?
//       end $again
//     end $leave: n, SLOT, PAGE_VA and PAGE_BASE from `at`, the only thing that is set where an instruction is left: there are hundreds of such places
//   end $exit: state back to memory, return n
//
// It does the fast path only. Whatever the interpreter's loop would leave to step(), and whatever is not in the region, ends it at that very
// instruction: SLOT is the slot to go on at, PAGE_VA and PAGE_BASE are its page, or SLOT is 0 and PC holds a virtual address. A block whose instructions
// are more than n ends it, too, so that the interpreter uses up a budget to the instruction.
import * as layout from "../assembly/layout.ts";
import type { InstructionSet } from "./instruction-set.ts";
import { type Block, offsetOf, pageOf, type Region, type RegionPage } from "./region.ts";
import { StateWords } from "./state-words.ts";
import { Code, F64, I32, I64, moduleOf, V128 } from "./wasm-code.ts";
import { SIMD } from "./wasm-simd.ts";

/** f's type (assembly/translated.ts). */
const PARAMETERS = [I32, I32, I32, I32, I64];
const N = 0;
const BLOCK = 1;
const TLB = 2;
const FETCH = 3;
const BASE = 4;
const SLOT = 5;
/** Local (i32): a TLB entry's address, and after that free. */
export const ENTRY = 6;
/** Locals (i64): a virtual address; free. */
export const VA = 7;
export const T = 8;
export const U = 9;
/** Pages that have been looked for, a bit each, and where to go on after that. */
const FOUND = 10;
const AFTER = 11;
/** Where an instruction is left: its page's bit, its slot in the page and how many of its block are not done, from the top (#setAt). */
const AT = 12;
/** Locals (f64): free. */
export const FLOAT_A = 13;
export const FLOAT_B = 14;
export const FLOAT_R = 15;
/** Locals (v128), where the engine has vectors: free. */
export const VECTOR_A = 16;
export const VECTOR_B = 17;
const FIXED_LOCALS = [I32, I32, I64, I64, I64, I32, I32, I32, F64, F64, F64, ...(SIMD ? [V128, V128] : [])];
const FIRST_FREE = PARAMETERS.length + FIXED_LOCALS.length;
const EXIT = 0;
const LEAVE = 1;
const AGAIN = 2;

/** Bits of AT: instructions of a page, and 16 KiB of slots. */
const { UNDONE_BITS } = layout;
const SLOT_BITS = 14;

/** In a region of so many blocks words are locals from entry to exit. */
const FEW = 16;

/** Whether an address is for a load or a store: which table of the TLB. */
export const LOAD = 0;
export const STORE = layout.TLB_STORE;
export type Table = typeof LOAD | typeof STORE;

/**
 * In a region of so many blocks, so many accesses remember the page that they had last, its virtual address and host address − virtual address: nothing in a
 * region changes a TLB, so an access that stays in its page (and is aligned) needs no look-up. Larger regions would be compiled for longer than that saves.
 */
const LOOP_BLOCKS = 4;
const LAST_PAGES = 12;
/** No address is that without the bits of its offset that do not matter: an access has at most 64 bytes. */
const NO_PAGE = 2048;

interface LastPage {
  readonly page: number;
  readonly delta: number;
}

/** Not state: made and dropped while a region is translated. */
export class RegionWriter {
  code = new Code();
  readonly #pages: ReadonlyMap<number, RegionPage>;
  readonly #blocks: readonly Block[];
  readonly #index = new Map<number, number>();
  /** Of a page: its bit in FOUND and its place behind the blocks. */
  readonly #finders = new Map<number, number>();
  readonly #functionIndex: number;
  readonly #words: StateWords;
  // where the code being written is: block, its page's position, instruction, how many of the block are not done before it, depth of its own loop or −1
  #block = 0;
  #page = 0;
  #offset = 0;
  #undone = 0;
  #loop = -1;
  readonly #lastPages: LastPage[] = [];
  #lastPage: LastPage | null = null;
  /** Written where the region ends, before the state goes back to memory. */
  #atExit: () => void = () => {};
  /** Told at the beginning of each block: nothing is known there. */
  #startBlock: () => void = () => {};

  /** `functionIndex` is where the function will stand in the core's table. */
  constructor({ pages, blocks }: Region, functionIndex: number) {
    this.#pages = pages;
    this.#blocks = blocks;
    this.#functionIndex = functionIndex;
    this.#words = new StateWords(this.code, FIRST_FREE, blocks.length <= FEW);
    blocks.forEach(({ position }, index) => {
      this.#index.set(position, index);
    });
    const numbers = new Set(blocks.map(({ position }) => pageOf(position)));
    if (numbers.size > 1) [...numbers].forEach((page, bit) => void this.#finders.set(page, bit));
  }

  module(isa: InstructionSet): Uint8Array<ArrayBuffer> {
    this.#startBlock = isa.prepare?.(this) ?? (() => {});
    this.#body();
    this.#atExit();
    const whole = new Code();
    this.#words.load(whole);
    for (const { page } of this.#lastPages) {
      whole.i64(NO_PAGE);
      whole.set(page);
    }
    whole.bytes(this.code.view());
    whole.i32(0);
    whole.get(SLOT);
    whole.memory("i32.store", layout.SLOT);
    this.#words.store(whole);
    whole.get(N);
    const locals = [...FIXED_LOCALS, ...Array.from({ length: this.#words.locals }, () => I64)];
    return moduleOf(isa.imports, PARAMETERS, [I32], locals, whole);
  }

  /** First of `count` i64 locals of the front end's own, zero where the region is entered. Once, before any code. */
  scratch(count: number, atExit: () => void): number {
    this.#atExit = atExit;
    return this.#words.scratch(count);
  }

  // --- the guest's state: 64-bit words of the hart's state block, by address (state-words.ts) ---

  /** Pushes a word. */
  get(address: number): void {
    this.#words.get(address);
  }

  /** Pops into a word. */
  set(address: number): void {
    this.#words.set(address);
  }

  /** Writes a word to memory now: before a call of a function that reads it there. */
  spill(address: number): void {
    this.#words.spill(address);
  }

  /** Reads a word that a function has written in memory. */
  reload(address: number): void {
    this.#words.reload(address);
  }

  /** Calls function `index` of the instruction set's imports. */
  call(index: number): void {
    this.code.call(index);
  }

  // --- memory ---

  /**
   * Pops a virtual address into VA; ENTRY = its TLB entry; ends the region before this instruction if that does not cover `size` bytes. `lowest`: in
   * the TLB of context 0 whatever the context is.
   */
  locate(size: number, table: Table, lowest = false): void {
    const { code } = this;
    code.set(VA);
    this.#lastPage = this.#newLastPage();
    if (this.#lastPage === null) {
      this.#lookUp(size, table, lowest);
      return;
    }
    const { page, delta } = this.#lastPage;
    code.get(VA);
    code.i64(-4096 | (size - 1));
    code.op("i64.and");
    code.get(page);
    code.op("i64.ne");
    code.if();
    this.#lookUp(size, table, lowest);
    code.get(VA);
    code.i64(-4096);
    code.op("i64.and");
    code.set(page);
    code.get(ENTRY);
    code.memory("i64.load32_u", table + 8);
    code.set(delta);
    code.end();
  }

  #lookUp(size: number, table: Table, lowest: boolean): void {
    const { code } = this;
    this.#place();
    if (lowest) {
      code.i32(0);
      code.memory("i32.load", layout.TLB);
    } else code.get(TLB);
    code.op("i32.add");
    code.tee(ENTRY);
    code.memory("i64.load", table);
    code.get(VA);
    if (size > 1) {
      code.i64(size - 1);
      code.op("i64.add");
    }
    code.i64(-4096);
    code.op("i64.and", "i64.ne");
    this.leaveBeforeIf();
  }

  /** Pushes the host address of VA, after locate(). */
  host(table: Table): void {
    const { code } = this;
    code.get(VA);
    code.op("i32.wrap_i64");
    if (this.#lastPage === null) {
      code.get(ENTRY);
      code.memory("i32.load", table + 8);
    } else {
      code.get(this.#lastPage.delta);
      code.op("i32.wrap_i64");
    }
    code.op("i32.add");
  }

  /** Locals for the page that an access of a small loop has had last, null if it has none. */
  #newLastPage(): LastPage | null {
    if (this.#blocks.length > LOOP_BLOCKS || this.#lastPages.length === LAST_PAGES) return null;
    const made = { page: this.#words.newLocal(), delta: this.#words.newLocal() };
    this.#lastPages.push(made);
    return made;
  }

  // --- control ---

  /** Pops an i32: if it is not zero, leaves this instruction to the interpreter. */
  leaveBeforeIf(): void {
    this.#setAt(this.#page + this.#offset, this.#undone);
    this.code.brIf(LEAVE);
  }

  /** Pushes the page's virtual address + distance. */
  address(distance: number): void {
    const { code } = this;
    code.get(BASE);
    code.i64(this.#page + distance);
    code.op("i64.add");
  }

  /** Jumps to the page's virtual address + distance. */
  goTo(distance: number): void {
    const { code } = this;
    const position = this.#page + distance;
    const to = this.#index.get(position);
    if (to === undefined) {
      if (pageOf(distance) === 0) this.#leaveAt(position);
      else {
        this.#storePc(position);
        this.#leaveByPc();
      }
      return;
    }
    if (pageOf(distance) !== 0) this.#find(pageOf(position), to);
    if (to === this.#block && this.#loop >= 0) code.br(this.#loop);
    else if (to > this.#block) code.br(this.#levelOf(to));
    else {
      code.i32(to);
      code.set(BLOCK);
      code.br(AGAIN);
    }
  }

  /** Unless it has been done since the region was entered, looks for another page before going on at block `to` of it. */
  #find(page: number, to: number): void {
    const { code } = this;
    const bit = this.#finders.get(page)!;
    code.get(FOUND);
    code.i32(1 << bit);
    code.op("i32.and", "i32.eqz");
    code.if();
    this.#storePc(this.#blocks[to]!.position);
    code.i32(to);
    code.set(AFTER);
    code.br(this.#levelOf(this.#blocks.length + bit));
    code.end();
  }

  /** Depth at which a jump to a later block ends. */
  #levelOf(block: number): number {
    return AGAIN + this.#blocks.length + this.#finders.size - block;
  }

  #storePc(position: number): void {
    const { code } = this;
    code.i32(0);
    code.get(BASE);
    code.i64(position);
    code.op("i64.add");
    code.memory("i64.store", layout.PC);
  }

  /** Ends the region at PC. */
  #leaveByPc(): void {
    const { code } = this;
    code.i32(0);
    code.set(SLOT);
    code.br(EXIT);
  }

  /** Jumps to VA, where an instruction can begin: if a record (assembly/jumps.ts) leads to a block of this function, that is next; else ends it there. */
  goToAddress(): void {
    const { code } = this;
    code.block();
    const elsewhere = code.depth - 1;
    const leaveUnless = (): void => {
      code.op("i64.ne");
      code.brIf(elsewhere);
    };
    code.get(VA);
    code.op("i32.wrap_i64");
    code.get(VA);
    code.op("i32.wrap_i64");
    code.i32(layout.JUMP_FOLD);
    code.op("i32.shr_u", "i32.xor");
    code.i32(4);
    code.op("i32.shl");
    code.i32(layout.JUMP_INDEX);
    code.op("i32.and");
    code.tee(ENTRY);
    code.memory("i64.load", layout.JUMPS);
    code.get(VA);
    leaveUnless();
    code.get(ENTRY);
    code.memory("i64.load", layout.JUMPS + 8);
    code.i32(0);
    code.memory("i64.load", layout.JUMP_TAG);
    leaveUnless();
    code.get(ENTRY);
    code.memory("i64.load32_u", layout.JUMPS + 16);
    code.i64(this.#functionIndex);
    leaveUnless();
    code.get(ENTRY);
    code.memory("i64.load", layout.JUMPS + 24);
    code.get(BASE);
    leaveUnless();
    code.get(ENTRY);
    code.memory("i32.load", layout.JUMPS + 20);
    code.set(BLOCK);
    code.br(AGAIN);
    code.end();
    code.i32(0);
    code.get(VA);
    code.memory("i64.store", layout.PC);
    this.#leaveByPc();
  }

  /** Pushes the address of VA's entry in the fetch TLB (tlb.ts, place()). */
  #fetchEntry(): void {
    this.#place();
    this.code.get(FETCH);
    this.code.op("i32.add");
  }

  /** Pushes where VA's entry is in a table of the TLB. */
  #place(): void {
    const { code } = this;
    code.get(VA);
    code.op("i32.wrap_i64");
    code.get(VA);
    code.op("i32.wrap_i64");
    code.i32(layout.TLB_FOLD);
    code.op("i32.shr_u", "i32.xor");
    code.i32(8);
    code.op("i32.shr_u");
    code.i32(layout.TLB_INDEX);
    code.op("i32.and");
  }

  // --- the frame ---

  #body(): void {
    const { code } = this;
    const count = this.#blocks.length + this.#finders.size;
    code.block();
    code.block();
    code.loop();
    for (let n = 0; n < count; n++) code.block();
    code.get(BLOCK);
    code.brTable(
      Array.from({ length: count }, (_, n) => n),
      0,
    );
    for (let n = 0; n < this.#blocks.length; n++) {
      code.end();
      this.#writeBlock(n, this.#blocks[n]!);
    }
    for (const page of this.#finders.keys()) {
      code.end();
      this.#writeFinder(page);
    }
    code.end();
    code.end();
    this.#writeLeave();
    code.end();
  }

  #writeBlock(index: number, { position, instructions }: Block): void {
    const { code } = this;
    this.#block = index;
    this.#page = position - offsetOf(position);
    const last = instructions.at(-1);
    if (last === undefined) {
      this.#leaveAt(position);
      return;
    }
    const loops = last.target !== null && this.#page + last.target === position;
    this.#loop = loops ? code.depth : -1;
    if (loops) code.loop();
    this.#words.startBlock();
    code.get(N);
    code.i32(instructions.length);
    code.op("i32.lt_u");
    this.#setAt(position, 0);
    code.brIf(LEAVE);
    this.#addToN(-instructions.length);
    this.#startBlock();
    instructions.forEach((it, at) => {
      this.#offset = it.offset;
      this.#undone = instructions.length - at;
      it.emit(this);
    });
    if (last.flow === "next" || last.flow === "branch") this.#fallTo(last.offset + last.length);
    if (loops) code.end();
  }

  /** Whether a page is where it was, and has the code it had: the fetch TLB and DECODE_VERSION say so. Where it went on from stored PC. */
  #writeFinder(page: number): void {
    const { code } = this;
    const bit = this.#finders.get(page)!;
    const { page: decoded, version } = this.#pages.get(page)!;
    code.get(BASE);
    code.i64(page * 4096);
    code.op("i64.add");
    code.set(VA);
    this.#fetchEntry();
    code.tee(ENTRY);
    code.memory("i64.load", 0);
    code.get(VA);
    code.op("i64.eq");
    code.get(ENTRY);
    code.memory("i32.load", 8);
    code.i32(decoded);
    code.op("i32.eq", "i32.and");
    code.i32(0);
    code.memory("i32.load", decoded + layout.DECODE_VERSION);
    code.i32(version);
    code.op("i32.eq", "i32.and");
    code.if();
    code.get(FOUND);
    code.i32(1 << bit);
    code.op("i32.or");
    code.set(FOUND);
    code.get(AFTER);
    code.set(BLOCK);
    code.br(AGAIN);
    code.end();
    this.#leaveByPc();
  }

  /** At the end of a block's code: the next block's may follow directly. A block is not entered again from its own end. */
  #fallTo(distance: number): void {
    this.#loop = -1;
    if (pageOf(distance) !== 0 || this.#index.get(this.#page + distance) !== this.#block + 1) this.goTo(distance);
  }

  #addToN(count: number): void {
    this.code.get(N);
    this.code.i32(count);
    this.code.op("i32.add");
    this.code.set(N);
  }

  /** Ends the region at a position in one of its pages. */
  #leaveAt(position: number): void {
    this.#setAt(position, 0);
    this.code.br(LEAVE);
  }

  /** AT = the instruction at `position`, where `undone` instructions that N does not count any more are still to be done. */
  #setAt(position: number, undone: number): void {
    const page = this.#finders.get(pageOf(position)) ?? 0;
    this.code.i32((((page << SLOT_BITS) | (offsetOf(position) * 4)) << UNDONE_BITS) | undone);
    this.code.set(AT);
  }

  /** What all ways out at an instruction have in common. */
  #writeLeave(): void {
    const { code } = this;
    code.i32(0);
    code.get(AT);
    code.memory("i32.store", layout.UNDONE);
    code.get(N);
    code.get(AT);
    code.i32(2 ** UNDONE_BITS - 1);
    code.op("i32.and", "i32.add");
    code.set(N);
    code.get(AT);
    code.i32(UNDONE_BITS);
    code.op("i32.shr_u");
    code.i32(2 ** SLOT_BITS - 1);
    code.op("i32.and");
    code.set(SLOT);
    const pages =
      this.#finders.size > 0 ? this.#finders : new Map(this.#blocks.map(({ position }) => [pageOf(position), 0]));
    for (const [page, bit] of pages) {
      const { page: decoded } = this.#pages.get(page)!;
      if (pages.size > 1) {
        code.get(AT);
        code.i32(UNDONE_BITS + SLOT_BITS);
        code.op("i32.shr_u");
        code.i32(bit);
        code.op("i32.eq");
        code.if();
      }
      code.i32(0);
      code.get(BASE);
      code.i64(page * 4096);
      code.op("i64.add");
      code.memory("i64.store", layout.PAGE_VA);
      code.i32(0);
      code.i32(decoded);
      code.memory("i32.store", layout.PAGE_BASE);
      code.get(SLOT);
      code.i32(decoded);
      code.op("i32.add");
      code.set(SLOT);
      if (pages.size > 1) code.end();
    }
  }
}
