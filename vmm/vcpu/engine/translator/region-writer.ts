// A region (region.ts) as one WebAssembly function f(n, block, tlb) → n': it starts at block `block`, executes at most n instructions, and returns how
// many of the n are left. Words of the guest's state that the region touches are locals from entry to exit.
//
//   block $exit
//     loop $again                     a backward jump to another block: block = index, br $again
//       block $last … block $0
//         br_table block
//       end $0  code of block 0
//       end $1  code of block 1       a forward jump is a br to the block's end; a block that jumps to itself is a loop of its own
//       …
//   end $exit: SLOT = slot, state back to memory, return n
//
// It does the fast path only. Whatever the interpreter's loop would leave to step(), and whatever is not in the region, ends it at that very
// instruction: SLOT is the slot to go on at, or 0 and PC holds a virtual address outside the page. A block whose instructions are more than n ends it,
// too, so that the interpreter uses up a budget to the instruction.
import * as layout from "../assembly/layout.ts";
import type { Instruction, InstructionSet } from "./instruction-set.ts";
import type { Block } from "./region.ts";
import { Code, I32, I64, moduleOf, V128 } from "./wasm-code.ts";
import { SIMD } from "./wasm-simd.ts";

const PARAMETERS = [I32, I32, I32];
const N = 0;
const BLOCK = 1;
const TLB = 2;
const SLOT = 3;
/** Local (i32): a TLB entry's address, and after that free. */
export const ENTRY = 4;
/** Locals (i64): a virtual address; free. */
export const VA = 5;
export const T = 6;
export const U = 7;
/** Locals (v128), where the engine has vectors: free. */
export const VECTOR_A = 8;
export const VECTOR_B = 9;
const FIXED_LOCALS = [I32, I32, I64, I64, I64, ...(SIMD ? [V128, V128] : [])];
const FIRST_STATE = PARAMETERS.length + FIXED_LOCALS.length;
const EXIT = 0;
const AGAIN = 1;

/** Whether an address is for a load or a store: which table of the TLB. */
export const LOAD = 0;
export const STORE = layout.TLB_STORE;
export type Table = typeof LOAD | typeof STORE;

/** Not state: made and dropped while a region is translated. */
export class RegionWriter {
  readonly code = new Code();
  readonly #page: number;
  readonly #blocks: readonly Block[];
  readonly #index = new Map<number, number>();
  /** Locals of the state's words, by address. */
  readonly #locals = new Map<number, number>();
  readonly #written = new Set<number>();
  readonly #functionIndex: number;
  // where the code being written is: block, instruction, how many of the block are not done before it, depth of the block's own loop or −1
  #block = 0;
  #offset = 0;
  #undone = 0;
  #loop = -1;
  #scratch = 0;
  /** Written where the region ends, before the state goes back to memory. */
  #atExit: () => void = () => {};
  /** Told at the beginning of each block: nothing is known there. */
  #startBlock: () => void = () => {};

  /** `functionIndex` is where the function will stand in the core's table. */
  constructor(page: number, blocks: readonly Block[], functionIndex: number) {
    this.#page = page;
    this.#blocks = blocks;
    this.#functionIndex = functionIndex;
    blocks.forEach((block, index) => {
      this.#index.set(block.instructions[0]!.offset, index);
    });
  }

  module({ imports, prepare }: InstructionSet): Uint8Array<ArrayBuffer> {
    const preparation = prepare?.(this);
    this.#startBlock = preparation ?? (() => {});
    this.#body();
    this.#atExit();
    const whole = new Code();
    for (const [address, local] of this.#locals) {
      whole.i32(0);
      whole.memory("i64.load", address);
      whole.set(local);
    }
    whole.bytes(this.code.view());
    whole.i32(0);
    whole.get(SLOT);
    whole.memory("i32.store", layout.SLOT);
    for (const address of this.#written) {
      whole.i32(0);
      whole.get(this.#locals.get(address)!);
      whole.memory("i64.store", address);
    }
    whole.get(N);
    const locals = [...FIXED_LOCALS, ...Array.from({ length: this.#scratch + this.#locals.size }, () => I64)];
    return moduleOf(imports, PARAMETERS, [I32], locals, whole);
  }

  /** First of `count` i64 locals of the front end's own, zero where the region is entered. Once, before any code. */
  scratch(count: number, atExit: () => void): number {
    this.#scratch = count;
    this.#atExit = atExit;
    return FIRST_STATE;
  }

  // --- the guest's state: 64-bit words of the hart's state block, by address ---

  /** Pushes a word. */
  get(address: number): void {
    this.code.get(this.#local(address));
  }

  /** Pops into a word. */
  set(address: number): void {
    this.code.set(this.#local(address));
    this.#written.add(address);
  }

  /** Writes a word to memory now: before a call of a function that reads it there. */
  spill(address: number): void {
    const { code } = this;
    code.i32(0);
    this.get(address);
    code.memory("i64.store", address);
  }

  /** Reads a word that a function has written in memory. */
  reload(address: number): void {
    const { code } = this;
    code.i32(0);
    code.memory("i64.load", address);
    this.set(address);
  }

  #local(address: number): number {
    let local = this.#locals.get(address);
    if (local === undefined) {
      local = FIRST_STATE + this.#scratch + this.#locals.size;
      this.#locals.set(address, local);
    }
    return local;
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
    // tlb.ts, place()
    code.tee(VA);
    code.i64(8);
    code.op("i64.shr_u");
    code.get(VA);
    code.i64(layout.TLB_FOLD);
    code.op("i64.shr_u");
    code.i64(layout.TLB_FOLDED);
    code.op("i64.and", "i64.xor", "i32.wrap_i64");
    code.i32(layout.TLB_INDEX);
    code.op("i32.and");
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
    code.get(ENTRY);
    code.memory("i32.load", table + 8);
    code.op("i32.add");
  }

  // --- control ---

  /** Pops an i32: if it is not zero, leaves this instruction to the interpreter. */
  leaveBeforeIf(): void {
    this.code.if();
    this.#addToN(this.#undone);
    this.#leaveAt(this.#offset);
    this.code.end();
  }

  /** Pushes the page's virtual address + offset. */
  address(offset: number): void {
    const { code } = this;
    code.i32(0);
    code.memory("i64.load", layout.PAGE_VA);
    code.i64(offset);
    code.op("i64.add");
  }

  /** Jumps to an offset of the page. */
  goTo(offset: number): void {
    const { code } = this;
    const to = this.#index.get(offset);
    if (to === undefined) this.#leaveAt(offset);
    else if (to === this.#block && this.#loop >= 0) code.br(this.#loop);
    else if (to > this.#block) code.br(AGAIN + this.#blocks.length - to);
    else {
      code.i32(to);
      code.set(BLOCK);
      code.br(AGAIN);
    }
  }

  /** Jumps to the page's virtual address + distance, outside the page. */
  goOutside(distance: number): void {
    const { code } = this;
    code.i32(0);
    this.address(distance);
    code.memory("i64.store", layout.PC);
    code.i32(0);
    code.set(SLOT);
    code.br(EXIT);
  }

  /** Jumps to VA, where an instruction can begin: within the page to its slot, which may be a block of this region; else by PC. */
  goToAddress(): void {
    const { code } = this;
    code.get(VA);
    code.i32(0);
    code.memory("i64.load", layout.PAGE_VA);
    code.op("i64.sub");
    code.tee(T);
    code.i64(4096);
    code.op("i64.lt_u");
    code.if();
    code.get(T);
    code.op("i32.wrap_i64");
    code.i32(2);
    code.op("i32.shl");
    code.i32(this.#page);
    code.op("i32.add");
    code.tee(SLOT);
    code.memory("i32.load16_u", 0);
    code.i32(layout.TRANSLATED);
    code.op("i32.eq");
    code.if();
    code.get(SLOT);
    code.memory("i32.load", 4);
    code.i32(layout.ENTRY_BYTES);
    code.op("i32.mul");
    code.tee(ENTRY);
    code.memory("i32.load", layout.ENTRIES + 12);
    code.set(BLOCK);
    code.get(ENTRY);
    code.memory("i32.load", layout.ENTRIES + 8);
    code.i32(this.#functionIndex);
    code.op("i32.eq");
    code.brIf(AGAIN);
    code.end();
    code.br(EXIT);
    code.end();
    code.i32(0);
    code.get(VA);
    code.memory("i64.store", layout.PC);
    code.i32(0);
    code.set(SLOT);
    code.br(EXIT);
  }

  // --- the frame ---

  #body(): void {
    const { code } = this;
    const count = this.#blocks.length;
    code.block();
    code.loop();
    for (let n = 0; n < count; n++) code.block();
    code.get(BLOCK);
    code.brTable(
      Array.from({ length: count }, (_, n) => n),
      0,
    );
    for (let n = 0; n < count; n++) {
      code.end();
      this.#writeBlock(n, this.#blocks[n]!.instructions);
    }
    code.end();
    code.end();
  }

  #writeBlock(index: number, instructions: readonly Instruction[]): void {
    const { code } = this;
    const first = instructions[0]!;
    const last = instructions[instructions.length - 1]!;
    const loops = last.target === first.offset;
    this.#block = index;
    this.#loop = loops ? code.depth : -1;
    if (loops) code.loop();
    code.get(N);
    code.i32(instructions.length);
    code.op("i32.lt_u");
    code.if();
    this.#leaveAt(first.offset);
    code.end();
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

  /** At the end of a block's code: the next block's may follow directly. A block is not entered again from its own end. */
  #fallTo(offset: number): void {
    this.#loop = -1;
    if (this.#index.get(offset) !== this.#block + 1) this.goTo(offset);
  }

  #addToN(count: number): void {
    this.code.get(N);
    this.code.i32(count);
    this.code.op("i32.add");
    this.code.set(N);
  }

  /** Ends the region at an offset of the page. */
  #leaveAt(offset: number): void {
    this.code.i32(this.#page + offset * 4);
    this.code.set(SLOT);
    this.code.br(EXIT);
  }
}
