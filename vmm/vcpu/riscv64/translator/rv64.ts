// RV64 as the translator sees it: decoded slots (assembly/opcodes.ts) as instructions, and where control goes from each.
import type { Flow, Instruction, InstructionSet } from "../../engine/translator/instruction-set.ts";
import type { RegionWriter } from "../../engine/translator/region-writer.ts";
import * as o from "../assembly/opcodes.ts";
import { emit, IMPORTS, prepare, translatable } from "./emit.ts";

/** What leaves the straight line; everything else goes on. */
const FLOWS = new Map<number, Flow>([
  ...[o.BEQ, o.BNE, o.BLT, o.BGE, o.BLTU, o.BGEU].map((it): [number, Flow] => [it, "branch"]),
  ...[o.BEQ_FAR, o.BNE_FAR, o.BLT_FAR, o.BGE_FAR, o.BLTU_FAR, o.BGEU_FAR].map((it): [number, Flow] => [it, "branch"]),
  ...[o.J, o.J_FAR, o.JR].map((it): [number, Flow] => [it, "jump"]),
  ...[o.JAL, o.JAL_FAR, o.JALR].map((it): [number, Flow] => [it, "call"]),
]);
/** Those whose immediate is the distance to a target in the page, in slot bytes. */
const NEAR = new Set([o.BEQ, o.BNE, o.BLT, o.BGE, o.BLTU, o.BGEU, o.J, o.JAL]);

/** The same in bytes of code, to another page. */
const FAR = new Set([o.BEQ_FAR, o.BNE_FAR, o.BLT_FAR, o.BGE_FAR, o.BLTU_FAR, o.BGEU_FAR, o.J_FAR, o.JAL_FAR]);

export class Rv64Instruction implements Instruction {
  readonly offset: number;
  /** Even opcode of opcodes.ts. */
  readonly operation: number;
  readonly length: 2 | 4;
  readonly flow: Flow;
  readonly target: number | null;
  readonly a: number;
  readonly b: number;
  readonly immediate: number;

  constructor(view: DataView, at: number, offset: number) {
    const operation = view.getUint16(at, true);
    this.offset = offset;
    this.operation = operation & ~1;
    this.length = (operation & 1) === 1 ? 2 : 4;
    this.a = view.getUint8(at + 2) / 8;
    this.b = view.getUint8(at + 3) / 8;
    this.immediate = view.getInt32(at + 4, true);
    this.flow = FLOWS.get(this.operation) ?? "next";
    if (NEAR.has(this.operation)) this.target = offset + this.immediate / 4;
    else this.target = FAR.has(this.operation) ? offset + this.immediate : null;
  }

  emit(writer: RegionWriter): void {
    emit(this, writer);
  }
}

export const RV64: InstructionSet = {
  alignment: 2,
  imports: IMPORTS,
  prepare,
  read(view, _slot, first, offset) {
    const operation = view.getUint16(first, true) & ~1;
    return translatable(operation) ? new Rv64Instruction(view, first, offset) : null;
  },
};
