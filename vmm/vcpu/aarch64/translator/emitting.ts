// An instruction while its code is written: its operands by the fields of its slot (assembly/opcodes.ts), each pushed where it is asked for.
import type { RegionWriter } from "../../engine/translator/region-writer.ts";
import type { Code } from "../../engine/translator/wasm-code.ts";
import { NZCV, SINK, SP, X, ZERO } from "../assembly/layout.ts";
import type { AArch64Instruction } from "./aarch64.ts";
import type { Flags } from "./flags.ts";

const ZERO_FIELD = ZERO - X;
export const SINK_FIELD = SINK - X;

/** Keeps the low 32 bits of what is on the stack. */
export function low(code: Code): void {
  code.op("i32.wrap_i64", "i64.extend_i32_u");
}

/** Pushes a register by its field: XZR is a constant. */
export function pushRegister(w: RegionWriter, field: number): void {
  if (field === ZERO_FIELD) w.code.i64(0);
  else w.get(X + field);
}

/** Pops into a register by its field: XZR takes nothing. */
export function popRegister(w: RegionWriter, field: number): void {
  if (field === SINK_FIELD) w.code.op("drop");
  else w.set(X + field);
}

/** What is known where code is being written, whatever the instruction. Not state: made and dropped while a region is translated. */
export class RegionState {
  readonly flags: Flags;
  /** Vectors may be used: looked at before in this block. (What changes that ends a region.) */
  vectorsOpen = false;
  /** SP has been found a multiple of 16 in this block, and has kept that. */
  stackAligned = false;

  constructor(flags: Flags) {
    this.flags = flags;
  }

  startBlock(): void {
    this.flags.startBlock();
    this.vectorsOpen = false;
    this.stackAligned = false;
  }
}

/** Not state: made and dropped while a region is translated. */
export class Emitting {
  readonly code: Code;
  readonly w: RegionWriter;
  readonly it: AArch64Instruction;
  readonly flags: Flags;
  readonly region: RegionState;

  constructor(it: AArch64Instruction, w: RegionWriter, region: RegionState) {
    this.it = it;
    this.w = w;
    this.code = w.code;
    this.flags = region.flags;
    this.region = region;
  }

  /** Field m as an amount; the low half of the immediate; see opcodes.ts. */
  get shift(): number {
    return this.it.m;
  }
  get how(): number {
    return this.it.low;
  }

  d(): void {
    pushRegister(this.w, this.it.d);
  }
  n(): void {
    pushRegister(this.w, this.it.n);
  }
  m(): void {
    pushRegister(this.w, this.it.m);
  }
  third(): void {
    pushRegister(this.w, this.it.low);
  }
  constant(): void {
    this.code.i64Big(this.it.immediate);
  }

  /** Pushes PSTATE.C. */
  carry(): void {
    this.flags.settle();
    this.w.get(NZCV);
    this.code.i64(1);
    this.code.op("i64.shr_u");
    this.code.i64(1);
    this.code.op("i64.and");
  }
  condition(bits: number): void {
    this.flags.condition(bits);
  }
  /** Before an access with that base: a stack pointer out of line is the interpreter's (stack-pointer.ts). */
  checkBase(word: number): void {
    const { code, w, region } = this;
    if (word !== SP || region.stackAligned) return;
    region.stackAligned = true;
    w.get(SP);
    code.op("i32.wrap_i64");
    code.i32(15);
    code.op("i32.and");
    w.leaveBeforeIf();
  }
  /** A register has been written; `by`: with what it was and that added. */
  wrote(word: number, by = 1): void {
    if (word === SP && by % 16 !== 0) this.region.stackAligned = false;
  }
  leaveIf(): void {
    this.w.leaveBeforeIf();
  }
}
