// The tiny instruction set (assembly/index.ts) around the core: encodings, what the VMM would use, what the translator needs.
import { PC } from "../../../../../vmm/vcpu/engine/assembly/layout.ts";
import { type CoreOptions, EngineCore, type EngineExports } from "../../../../../vmm/vcpu/engine/core.ts";
import type { Flow, Instruction, InstructionSet } from "../../../../../vmm/vcpu/engine/translator/instruction-set.ts";
import { LOAD, type RegionWriter, STORE, VA } from "../../../../../vmm/vcpu/engine/translator/region-writer.ts";
import { I64 } from "../../../../../vmm/vcpu/engine/translator/wasm-code.ts";
import * as layout from "./assembly/layout.ts";

const word = (opcode: number, d: number, n: number, m: number, low: number): number =>
  ((opcode << 24) | (d << 20) | (n << 16) | (m << 12) | (low & 0xfff)) >>> 0;
const far = (opcode: number, instructions: number): number => ((opcode << 24) | (instructions & 0xffff)) >>> 0;
const system = (kind: number, n = 0): number => word(0x0c, 0, n, 0, kind);

export const movi = (d: number, value: number): number => ((0x01 << 24) | (d << 20) | (value & 0xffff)) >>> 0;
/** d = n + m + value (−2048 … 2047). */
export const add = (d: number, n: number, m: number, value: number): number => word(0x02, d, n, m, value);
export const cmp = (n: number, m: number): number => word(0x03, 0, n, m, 0);
/** Distances are in instructions. */
export const b = (distance: number): number => far(0x04, distance);
export const beq = (distance: number): number => far(0x05, distance);
export const blt = (distance: number): number => far(0x06, distance);
/** Links r15. */
export const bl = (distance: number): number => far(0x07, distance);
export const br = (n: number): number => word(0x08, 0, n, 0, 0);
export const ldr = (d: number, n: number, offset: number): number => word(0x09, d, n, 0, offset);
export const str = (d: number, n: number, offset: number): number => word(0x0a, d, n, 0, offset);
export const mix = (d: number, n: number, m: number): number => word(0x0b, d, n, m, 0);
export const WFI = system(0);
export const CALL = system(1);
export const refetch = (n: number): number => system(2, n);
export const setTable = (n: number): number => system(3, n);
export const flush = (n: number): number => system(4, n);
export const ERET = system(5);
export const setElr = (n: number): number => system(6, n);
export const setSavedMode = (n: number): number => system(7, n);

const FLOWS = new Map<number, Flow>([
  [layout.B, "jump"],
  [layout.B_FAR, "jump"],
  [layout.BR, "jump"],
  [layout.BEQ, "branch"],
  [layout.BLT, "branch"],
  [layout.BL, "call"],
  [layout.BL_FAR, "call"],
]);
const DIRECT = new Set([layout.B, layout.B_FAR, layout.BEQ, layout.BLT, layout.BL, layout.BL_FAR]);
const LAST = layout.MIX;

class TinyInstruction implements Instruction {
  readonly length = 4;
  readonly offset: number;
  readonly flow: Flow;
  readonly target: number | null;
  readonly operation: number;
  readonly d: number;
  readonly n: number;
  readonly m: number;
  readonly immediate: number;

  constructor(view: DataView, slot: number, first: number, offset: number) {
    this.offset = offset;
    this.operation = view.getUint16(first, true);
    this.d = layout.R + view.getUint16(first + 2, true);
    this.n = layout.R + view.getUint16(first + 4, true);
    this.m = layout.R + view.getUint16(first + 6, true);
    // the second half of a slot stays where it is when a block begins there
    this.immediate = Number(view.getBigInt64(slot + 8, true));
    this.flow = FLOWS.get(this.operation) ?? "next";
    this.target = DIRECT.has(this.operation) ? offset + this.immediate : null;
  }

  emit(w: RegionWriter): void {
    const { code } = w;
    switch (this.operation) {
      case layout.MOVI:
        code.i64(this.immediate);
        w.set(this.d);
        break;
      case layout.ADD:
        w.get(this.n);
        w.get(this.m);
        code.i64(this.immediate);
        code.op("i64.add", "i64.add");
        w.set(this.d);
        break;
      case layout.CMP:
        w.get(this.n);
        w.set(layout.FLAG_A);
        w.get(this.m);
        w.set(layout.FLAG_B);
        break;
      case layout.BEQ:
      case layout.BLT:
        w.get(layout.FLAG_A);
        w.get(layout.FLAG_B);
        code.op(this.operation === layout.BEQ ? "i64.eq" : "i64.lt_s");
        code.if();
        w.goTo(this.target!);
        code.end();
        break;
      case layout.BL:
      case layout.BL_FAR:
        w.address(this.offset + 4);
        w.set(layout.R + 15 * 8);
        w.goTo(this.target!);
        break;
      case layout.B:
      case layout.B_FAR:
        w.goTo(this.target!);
        break;
      case layout.BR:
        w.get(this.n);
        code.tee(VA);
        code.op("i32.wrap_i64");
        code.i32(3);
        code.op("i32.and");
        w.leaveBeforeIf();
        w.goToAddress();
        break;
      case layout.LDR:
        this.#locate(w, LOAD);
        code.memory("i64.load", 0);
        w.set(this.d);
        break;
      case layout.STR:
        this.#locate(w, STORE);
        w.get(this.d);
        code.memory("i64.store", 0);
        break;
      default: // mix
        w.get(this.n);
        w.get(this.m);
        w.call(0);
        w.set(this.d);
    }
  }

  #locate(w: RegionWriter, table: typeof LOAD | typeof STORE): void {
    w.get(this.n);
    w.code.i64(this.immediate);
    w.code.op("i64.add");
    w.locate(8, table);
    w.host(table);
  }
}

const TINY: InstructionSet = {
  alignment: 4,
  imports: [{ name: "mix", parameters: [I64, I64], results: [I64] }],
  read(view, slot, first, offset) {
    const operation = view.getUint16(first, true);
    return operation > layout.ILLEGAL && operation <= LAST ? new TinyInstruction(view, slot, first, offset) : null;
  },
};

const STATE = {
  pc: PC,
  flagA: layout.FLAG_A,
  flagB: layout.FLAG_B,
  vector: layout.VECTOR,
  elr: layout.ELR,
  cause: layout.CAUSE,
  far: layout.FAR,
  table: layout.TABLE,
  deadline: layout.DEADLINE,
} as const;

export class TinyCore extends EngineCore<EngineExports> {
  constructor(options: CoreOptions) {
    super(options, TINY, () => {});
    for (let hart = 0; hart < this.harts; hart++) this.start(hart, 0x8000_0000n);
  }

  /** Kernel mode, interrupts off, no timer, registers 0. */
  start(hart: number, pc: bigint): void {
    this.clear(hart, () => {
      this.view.setUint32(layout.MODE, 1, true);
      this.view.setUint32(layout.MASKED, 1, true);
    });
    this.write(hart, "deadline", (1n << 64n) - 1n);
    this.write(hart, "pc", pc);
  }

  r(hart: number, index: number): bigint {
    return this.view.getBigUint64(this.at(hart, layout.R) + index * 8, true);
  }
  setR(hart: number, index: number, value: bigint): void {
    this.view.setBigUint64(this.at(hart, layout.R) + index * 8, BigInt.asUintN(64, value), true);
  }
  read(hart: number, name: keyof typeof STATE): bigint {
    return this.view.getBigUint64(this.at(hart, STATE[name]), true);
  }
  write(hart: number, name: keyof typeof STATE, value: bigint): void {
    this.view.setBigUint64(this.at(hart, STATE[name]), value, true);
  }
  mode(hart: number): number {
    return this.view.getUint32(this.at(hart, layout.MODE), true);
  }
  setMasked(hart: number, masked: boolean): void {
    this.view.setUint32(this.at(hart, layout.MASKED), masked ? 1 : 0, true);
  }
  switches(hart: number): number {
    return this.view.getUint32(this.at(hart, layout.SWITCHES), true);
  }
  /** How often the interpreter's loop gave an instruction up, since the machine was made. */
  get steps(): number {
    return this.view.getUint32(layout.CALLS, true);
  }
}
