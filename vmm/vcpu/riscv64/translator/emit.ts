// A region (region.ts) as one WebAssembly function f(n, block, tlb) → n': it starts at block `block`, executes at most n instructions, and returns how
// many of the n are left. Guest registers that the region touches are locals from entry to exit.
//
//   block $exit
//     loop $again                     a backward jump to another block: block = index, br $again
//       block $last … block $0
//         br_table block
//       end $0  code of block 0
//       end $1  code of block 1       a forward jump is a br to the block's end; a block that jumps to itself is a loop of its own
//       …
//   end $exit: SLOT = slot, registers back to memory, return n
//
// It does the fast path only. Whatever the interpreter's loop would leave to step(), and whatever is not in the region, ends it at that very
// instruction: SLOT is the slot to go on at, or 0 and PC holds a virtual address outside the page. A block whose instructions are more than n ends it,
// too, so that the interpreter uses up a budget to the instruction.
import * as layout from "../assembly/layout.ts";
import * as o from "../assembly/opcodes.ts";
import { INTEGER_OPERATIONS, type Operands } from "./integer-operations.ts";
import { type Block, endsBlock, type Instruction, targetOf } from "./region.ts";
import { Code, type FunctionImport, I32, I64, type MemoryOp, moduleOf, type Op } from "./wasm-code.ts";

export const PARAMETERS = [I32, I32, I32];
const N = 0;
const BLOCK = 1;
const TLB = 2;
const SLOT = 3;
const ENTRY = 4;
const VA = 5;
const T = 6;
const U = 7;
const FIXED_LOCALS = [I32, I32, I64, I64, I64];
const FIRST_REGISTER = PARAMETERS.length + FIXED_LOCALS.length;
const EXIT = 0;
const AGAIN = 1;

const LOADS = new Map<number, { op: MemoryOp; size: number }>([
  [o.LB, { op: "i64.load8_s", size: 1 }],
  [o.LH, { op: "i64.load16_s", size: 2 }],
  [o.LW, { op: "i64.load32_s", size: 4 }],
  [o.LD, { op: "i64.load", size: 8 }],
  [o.LBU, { op: "i64.load8_u", size: 1 }],
  [o.LHU, { op: "i64.load16_u", size: 2 }],
  [o.LWU, { op: "i64.load32_u", size: 4 }],
]);
const STORES = new Map<number, { op: MemoryOp; size: number }>([
  [o.SB, { op: "i64.store8", size: 1 }],
  [o.SH, { op: "i64.store16", size: 2 }],
  [o.SW, { op: "i64.store32", size: 4 }],
  [o.SD, { op: "i64.store", size: 8 }],
]);
const FLOAT_LOADS = new Map<number, { op: MemoryOp; size: number }>([
  [o.FLH, { op: "i64.load16_u", size: 2 }],
  [o.FLW, { op: "i64.load32_u", size: 4 }],
  [o.FLD, { op: "i64.load", size: 8 }],
]);
const FLOAT_STORES = new Map<number, { op: MemoryOp; size: number }>([
  [o.FSH, { op: "i64.store16", size: 2 }],
  [o.FSW, { op: "i64.store32", size: 4 }],
  [o.FSD, { op: "i64.store", size: 8 }],
]);
/** What a value of so many bytes is boxed in (NaN boxing). */
const BOXES = new Map<number, bigint>([
  [2, 0xffffffffffff0000n],
  [4, 0xffffffff00000000n],
]);
/** sstatus.FS Dirty. */
const FS_DIRTY = 0x6000;
/** Functions of the core that a region may call, as its module imports them. */
const IMPORTS: readonly FunctionImport[] = [
  { name: "executeFloat", parameters: [I32], results: [I32] },
  { name: "carrylessMultiply", parameters: [I32, I64, I64], results: [I64] },
];
const FLOAT_FUNCTION = 0;
const CARRYLESS_FUNCTION = 1;
/** What an AMO stores: old op operand, or the one of the two for which old op operand chooses. */
const ATOMICS = new Map<number, { op: Op; choose: boolean }>([
  [0x00, { op: "i64.add", choose: false }],
  [0x04, { op: "i64.xor", choose: false }],
  [0x08, { op: "i64.or", choose: false }],
  [0x0c, { op: "i64.and", choose: false }],
  [0x10, { op: "i64.lt_s", choose: true }],
  [0x14, { op: "i64.gt_s", choose: true }],
  [0x18, { op: "i64.lt_u", choose: true }],
  [0x1c, { op: "i64.gt_u", choose: true }],
]);
const CARRYLESS = new Set([o.CLMUL, o.CLMULH, o.CLMULR]);
const CONDITIONS = new Map<number, Op>([
  [o.BEQ, "i64.eq"],
  [o.BNE, "i64.ne"],
  [o.BLT, "i64.lt_s"],
  [o.BGE, "i64.ge_s"],
  [o.BLTU, "i64.lt_u"],
  [o.BGEU, "i64.ge_u"],
  [o.BEQ_FAR, "i64.eq"],
  [o.BNE_FAR, "i64.ne"],
  [o.BLT_FAR, "i64.lt_s"],
  [o.BGE_FAR, "i64.ge_s"],
  [o.BLTU_FAR, "i64.lt_u"],
  [o.BGEU_FAR, "i64.ge_u"],
]);

/** True for operations (even opcodes) that can be translated. */
export function translatable(operation: number): boolean {
  return (
    operation === o.NOP ||
    operation === o.AUIPC ||
    endsBlock(operation) ||
    operation === o.AMO ||
    operation === o.FLOAT ||
    CARRYLESS.has(operation) ||
    FLOAT_LOADS.has(operation) ||
    FLOAT_STORES.has(operation) ||
    LOADS.has(operation) ||
    STORES.has(operation) ||
    INTEGER_OPERATIONS.has(operation)
  );
}

class RegionWriter {
  readonly code = new Code();
  readonly #page: number;
  readonly #blocks: readonly Block[];
  readonly #index = new Map<number, number>();
  readonly #registers = new Map<number, number>();
  readonly #written = new Set<number>();
  readonly #functionIndex: number;

  constructor(page: number, blocks: readonly Block[], functionIndex: number) {
    this.#page = page;
    this.#blocks = blocks;
    this.#functionIndex = functionIndex;
    blocks.forEach((block, index) => {
      this.#index.set(block.instructions[0]!.offset, index);
    });
  }

  module(): Uint8Array<ArrayBuffer> {
    this.#body();
    const whole = new Code();
    for (const [register, local] of this.#registers) {
      whole.i32(0);
      whole.memory("i64.load", layout.X + register * 8);
      whole.set(local);
    }
    whole.bytes(this.code.view());
    whole.i32(0);
    whole.get(SLOT);
    whole.memory("i32.store", layout.SLOT);
    for (const register of this.#written) {
      whole.i32(0);
      whole.get(this.#registers.get(register)!);
      whole.memory("i64.store", layout.X + register * 8);
    }
    whole.get(N);
    const locals = [...FIXED_LOCALS, ...Array.from(this.#registers, () => I64)];
    return moduleOf(IMPORTS, PARAMETERS, [I32], locals, whole);
  }

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
      this.#block(n);
    }
    code.end();
    code.end();
  }

  #block(index: number): void {
    const { code } = this;
    const { instructions } = this.#blocks[index]!;
    const first = instructions[0]!;
    const last = instructions[instructions.length - 1]!;
    const loops = targetOf(last) === first.offset;
    const self = code.depth;
    if (loops) code.loop();
    code.get(N);
    code.i32(instructions.length);
    code.op("i32.lt_u");
    code.if();
    this.#leaveAt(first.offset);
    code.end();
    this.#addToN(-instructions.length);
    instructions.forEach((it, at) => {
      this.#instruction(it, instructions.length - at, index, loops ? self : -1);
    });
    if (!endsBlock(last.operation)) this.#fallTo(last.offset + last.length, index);
    if (loops) code.end();
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

  /** If the i32 on the stack is not zero, ends the region before `it`, `undone` instructions before the block's end. */
  #leaveBeforeIf(it: Instruction, undone: number): void {
    this.code.if();
    this.#addToN(undone);
    this.#leaveAt(it.offset);
    this.code.end();
  }

  /** Jumps from block `from` to an offset of the page. */
  #goTo(offset: number, from: number, self: number): void {
    const { code } = this;
    const to = this.#index.get(offset);
    if (to === undefined) this.#leaveAt(offset);
    else if (to === from && self >= 0) code.br(self);
    else if (to > from) code.br(AGAIN + this.#blocks.length - to);
    else {
      code.i32(to);
      code.set(BLOCK);
      code.br(AGAIN);
    }
  }

  /** At the end of a block's code: the next block's may follow directly. */
  #fallTo(offset: number, from: number): void {
    if (this.#index.get(offset) !== from + 1) this.#goTo(offset, from, -1);
  }

  #register(register: number): number {
    let local = this.#registers.get(register);
    if (local === undefined) {
      local = FIRST_REGISTER + this.#registers.size;
      this.#registers.set(register, local);
    }
    return local;
  }

  #get(register: number): void {
    if (register === 0) this.code.i64(0);
    else this.code.get(this.#register(register));
  }

  /** Pops into a register. */
  #set(register: number): void {
    this.code.set(this.#register(register));
    this.#written.add(register);
  }

  /** Pushes the page's virtual address + offset. */
  #address(offset: number): void {
    const { code } = this;
    code.i32(0);
    code.memory("i64.load", layout.PAGE_VA);
    code.i64(offset);
    code.op("i64.add");
  }

  #instruction(it: Instruction, undone: number, block: number, self: number): void {
    const { code } = this;
    const load = LOADS.get(it.operation);
    const stored = STORES.get(it.operation);
    const condition = CONDITIONS.get(it.operation);
    if (it.operation === o.NOP) return;
    if (it.operation === o.AUIPC) {
      this.#address(it.immediate);
      this.#set(it.a);
    } else if (load !== undefined) {
      this.#translate(it.b, it.immediate, load.size, 0, it, undone);
      this.#host(0);
      code.memory(load.op, 0);
      this.#set(it.a);
    } else if (stored !== undefined) {
      this.#translate(it.b, it.immediate, stored.size, layout.TLB_STORE, it, undone);
      this.#host(layout.TLB_STORE);
      this.#get(it.a);
      code.memory(stored.op, 0);
    } else if (it.operation === o.AMO) this.#atomic(it, undone);
    else if (it.operation === o.FLOAT) this.#float(it, undone);
    else if (CARRYLESS.has(it.operation)) {
      code.i32(it.operation);
      this.#get(it.b);
      this.#get(it.immediate / 8);
      code.call(CARRYLESS_FUNCTION);
      this.#set(it.a);
    } else if (FLOAT_LOADS.has(it.operation)) {
      const { op, size } = FLOAT_LOADS.get(it.operation)!;
      this.#needFloats(it, undone);
      this.#translate(it.b, it.immediate, size, 0, it, undone);
      code.i32(0);
      this.#host(0);
      code.memory(op, 0);
      const box = BOXES.get(size);
      if (box !== undefined) {
        code.i64Big(box);
        code.op("i64.or");
      }
      code.memory("i64.store", layout.F + it.a * 8);
    } else if (FLOAT_STORES.has(it.operation)) {
      const { op, size } = FLOAT_STORES.get(it.operation)!;
      this.#needFloats(it, undone);
      this.#translate(it.b, it.immediate, size, layout.TLB_STORE, it, undone);
      this.#host(layout.TLB_STORE);
      code.i32(0);
      code.memory("i64.load", layout.F + it.a * 8);
      code.memory(op, 0);
    } else if (condition !== undefined) {
      this.#get(it.b);
      this.#get(it.a);
      code.op(condition);
      code.if();
      const target = targetOf(it);
      if (target >= 0) this.#goTo(target, block, self);
      else this.#leaveFor(it.offset + it.immediate);
      code.end();
      this.#fallTo(it.offset + it.length, block);
    } else if (endsBlock(it.operation)) this.#jump(it, block, self);
    else {
      INTEGER_OPERATIONS.get(it.operation)!(this.#operands(it, undone));
      this.#set(it.a);
    }
  }

  /** VA = base + immediate, ENTRY = its TLB entry; ends the region before `it` if that does not cover `size` bytes. */
  #translate(base: number, immediate: number, size: number, table: number, it: Instruction, undone: number): void {
    const { code } = this;
    this.#get(base);
    code.i64(immediate);
    code.op("i64.add");
    code.tee(VA);
    code.i64(8);
    code.op("i64.shr_u", "i32.wrap_i64");
    code.i32(0xff0);
    code.op("i32.and");
    code.get(TLB);
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
    this.#leaveBeforeIf(it, undone);
  }

  /** Pushes the host address of VA. */
  #host(table: number): void {
    const { code } = this;
    code.get(VA);
    code.op("i32.wrap_i64");
    code.get(ENTRY);
    code.memory("i32.load", table + 8);
    code.op("i32.add");
  }

  /** Ends the region before `it` unless sstatus.FS is Dirty. */
  #needFloats(it: Instruction, undone: number): void {
    const { code } = this;
    code.i32(0);
    code.memory("i64.load", layout.SSTATUS);
    code.i64(FS_DIRTY);
    code.op("i64.and");
    code.i64(FS_DIRTY);
    code.op("i64.ne");
    this.#leaveBeforeIf(it, undone);
  }

  /** The core's own function does it, on the register files in memory: integer operands go there before, an integer result comes from there. */
  #float(it: Instruction, undone: number): void {
    const { code } = this;
    const instruction = it.immediate >>> 0;
    const kind = (instruction & 0x7f) === 0x53 ? instruction >>> 27 : -1;
    const rd = (instruction >>> 7) & 31;
    const rs1 = (instruction >>> 15) & 31;
    this.#needFloats(it, undone);
    // fcvt from an integer, fmv from an integer register
    if ((kind === 0x1a || kind === 0x1e) && rs1 !== 0) {
      code.i32(0);
      this.#get(rs1);
      code.memory("i64.store", layout.X + rs1 * 8);
    }
    code.i32(instruction);
    code.call(FLOAT_FUNCTION);
    code.op("i32.eqz");
    this.#leaveBeforeIf(it, undone);
    // compare, fcvt to an integer, fmv to an integer register and fclass
    if ((kind === 0x14 || kind === 0x18 || kind === 0x1c) && rd !== 0) {
      code.i32(0);
      code.memory("i64.load", layout.X + rd * 8);
      this.#set(rd);
    }
  }

  /** lr, sc and AMOs on aligned RAM, as access.ts does them. */
  #atomic(it: Instruction, undone: number): void {
    const { code } = this;
    const instruction = it.immediate >>> 0;
    const rd = (instruction >>> 7) & 31;
    const rs1 = (instruction >>> 15) & 31;
    const rs2 = (instruction >>> 20) & 31;
    const wide = (instruction & 0x1000) !== 0;
    const kind = instruction >>> 27;
    const size = wide ? 8 : 4;
    const table = kind === 2 ? 0 : layout.TLB_STORE;
    this.#translate(rs1, 0, size, table, it, undone);
    code.get(VA);
    code.op("i32.wrap_i64");
    code.i32(size - 1);
    code.op("i32.and");
    this.#leaveBeforeIf(it, undone);
    this.#host(table);
    code.tee(ENTRY);
    code.memory(wide ? "i64.load" : "i64.load32_s", 0);
    code.set(T);
    if (kind === 2) {
      code.i32(0);
      this.#reservation(wide);
      code.memory("i64.store", layout.RESERVATION);
      code.i32(0);
      code.get(T);
      code.memory("i64.store", layout.RESERVED_VALUE);
    } else if (kind === 3) this.#storeConditional(rs2, wide);
    else {
      this.#get(rs2);
      if (!wide) code.op("i64.extend32_s");
      code.set(U);
      code.get(ENTRY);
      const how = ATOMICS.get(kind);
      if (how === undefined) code.get(U);
      else {
        code.get(T);
        code.get(U);
        if (how.choose) {
          code.get(T);
          code.get(U);
          code.op(how.op, "select");
        } else code.op(how.op);
      }
      code.memory(wide ? "i64.store" : "i64.store32", 0);
    }
    if (rd === 0) return;
    code.get(T);
    this.#set(rd);
  }

  /** Pushes what RESERVATION holds for the word at ENTRY. */
  #reservation(wide: boolean): void {
    this.code.get(ENTRY);
    this.code.op("i64.extend_i32_u");
    this.code.i64(wide ? 1 : 0);
    this.code.op("i64.or");
  }

  /** sc to ENTRY, whose value is in T; leaves 0 or 1 in T. */
  #storeConditional(rs2: number, wide: boolean): void {
    const { code } = this;
    code.i32(0);
    code.memory("i64.load", layout.RESERVATION);
    this.#reservation(wide);
    code.op("i64.eq");
    code.i32(0);
    code.memory("i64.load", layout.RESERVED_VALUE);
    code.get(T);
    code.op("i64.eq", "i32.and");
    code.i64(1);
    code.set(T);
    code.if();
    code.get(ENTRY);
    this.#get(rs2);
    code.memory(wide ? "i64.store" : "i64.store32", 0);
    code.i64(0);
    code.set(T);
    code.end();
    code.i32(0);
    code.i64(-1);
    code.memory("i64.store", layout.RESERVATION);
  }

  /** Ends the region at PAGE_VA + distance, outside the page. */
  #leaveFor(distance: number): void {
    const { code } = this;
    code.i32(0);
    this.#address(distance);
    code.memory("i64.store", layout.PC);
    code.i32(0);
    code.set(SLOT);
    code.br(EXIT);
  }

  #jump(it: Instruction, block: number, self: number): void {
    const { code } = this;
    const indirect = it.operation === o.JALR || it.operation === o.JR;
    if (indirect) {
      this.#get(it.b);
      code.i64(it.immediate);
      code.op("i64.add");
      code.i64(-2);
      code.op("i64.and");
      code.set(VA);
    }
    if (it.operation === o.JAL || it.operation === o.JAL_FAR || it.operation === o.JALR) {
      this.#address(it.offset + it.length);
      this.#set(it.a);
    }
    if (indirect) this.#indirect();
    else if (targetOf(it) >= 0) this.#goTo(targetOf(it), block, self);
    else this.#leaveFor(it.offset + it.immediate);
  }

  /** Jumps to VA: within the page to its slot, which may be a block of this region; else by PC. */
  #indirect(): void {
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
    code.i32(o.TRANSLATED);
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

  #operands(it: Instruction, undone: number): Operands {
    const { code } = this;
    return {
      code,
      rs1: () => this.#get(it.b),
      rs2: () => this.#get(it.immediate / 8),
      immediate: () => code.i64(it.immediate),
      amount: () => code.i64(it.immediate),
      t: T,
      u: U,
      leaveIf: () => this.#leaveBeforeIf(it, undone),
      value: VA,
    };
  }
}

/** The module of a region; `functionIndex` is where its function will stand in the core's table. */
export function writeRegion(page: number, blocks: readonly Block[], functionIndex: number): Uint8Array<ArrayBuffer> {
  return new RegionWriter(page, blocks, functionIndex).module();
}
