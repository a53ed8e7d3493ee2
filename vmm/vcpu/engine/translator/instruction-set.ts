// What the translator asks of an instruction set: how to read a decoded slot, where control goes from there, and the code of each instruction.
import type { RegionWriter } from "./region-writer.ts";
import type { FunctionImport } from "./wasm-code.ts";

/**
 * Where control goes behind an instruction: on to the next one; there or to its target (branch); to its target only (jump); to its target, and one
 * day most likely to the next one (call). All but the first end a block.
 */
export type Flow = "next" | "branch" | "jump" | "call";

export interface Instruction {
  /** Offset in the page, bytes. */
  readonly offset: number;
  /** Bytes. */
  readonly length: number;
  readonly flow: Flow;
  /** Where a branch, jump or call goes: bytes from the page's beginning, which may be outside the page; null if not known before it is executed. */
  readonly target: number | null;
  /** Writes what the instruction does to the guest's state, and its jump; going on to the next one is the writer's. */
  emit(writer: RegionWriter): void;
}

export interface InstructionSet {
  /** Instructions begin at multiples of this. */
  readonly alignment: 2 | 4;
  /** Functions that the core exports and that instructions may call: writer.call(index). */
  readonly imports: readonly FunctionImport[];
  /** Called before a region is written, for state of the front end's own in it; what it returns is told where each block begins. */
  prepare?(writer: RegionWriter): () => void;
  /**
   * The instruction at `offset` of its page, decoded into the slot at `slot`. The slot's first eight bytes are at `first`, which is elsewhere if a
   * translated block begins there. Null if it is not decoded, or for the interpreter only: what can trap, leave or wait other than by a TLB miss.
   */
  read(view: DataView, slot: number, first: number, offset: number): Instruction | null;
}
