// AArch64 as the translator sees it: decoded slots (assembly/opcodes.ts) as instructions, and where control goes from each.
import type { Flow, Instruction, InstructionSet } from "../../engine/translator/instruction-set.ts";
import type { RegionWriter } from "../../engine/translator/region-writer.ts";
import * as o from "../assembly/opcodes.ts";
import { emit, prepare, translatable } from "./emit.ts";
import { IMPORTS } from "./imports.ts";

/** What leaves the straight line; everything else goes on. */
const BRANCHES = [o.B_COND, o.CBZ, o.CBZ_W, o.CBNZ, o.CBNZ_W, o.TBZ, o.TBNZ];
const FLOWS = new Map<number, Flow>([
  ...BRANCHES.flatMap((it): [number, Flow][] => [
    [it, "branch"],
    [it + 1, "branch"],
  ]),
  [o.B, "jump"],
  [o.B_FAR, "jump"],
  [o.BR, "jump"],
  [o.BL, "call"],
  [o.BL_FAR, "call"],
  [o.BLR, "call"],
]);
/** Those whose immediate is the distance to a target in the page, in slot bytes. */
const NEAR = new Set<number>([o.B, o.BL, ...BRANCHES]);

/** The same in bytes of code, to another page. */
const FAR = new Set<number>([o.B_FAR, o.BL_FAR, ...BRANCHES.map((it) => it + 1)]);

export class AArch64Instruction implements Instruction {
  readonly offset: number;
  readonly operation: number;
  readonly length = 4;
  readonly flow: Flow;
  readonly target: number | null;
  /** Registers as offsets behind X (layout.ts). */
  readonly d: number;
  readonly n: number;
  readonly m: number;
  /** The immediate, signed, and its halves as signed numbers. */
  readonly immediate: bigint;
  readonly low: number;
  readonly high: number;

  constructor(view: DataView, slot: number, first: number, offset: number) {
    this.offset = offset;
    this.operation = view.getUint16(first, true);
    this.d = view.getUint16(first + 2, true);
    this.n = view.getUint16(first + 4, true);
    this.m = view.getUint16(first + 6, true);
    this.immediate = view.getBigInt64(slot + 8, true);
    this.low = view.getInt32(slot + 8, true);
    this.high = view.getInt32(slot + 12, true);
    this.flow = FLOWS.get(this.operation) ?? "next";
    if (NEAR.has(this.operation)) this.target = offset + this.low / 4;
    else this.target = FAR.has(this.operation) ? offset + Number(this.immediate) : null;
  }

  emit(writer: RegionWriter): void {
    emit(this, writer);
  }
}

export const AARCH64: InstructionSet = {
  alignment: 4,
  imports: IMPORTS,
  prepare,
  read(view, slot, first, offset) {
    const it = new AArch64Instruction(view, slot, first, offset);
    return translatable(it) ? it : null;
  },
};
