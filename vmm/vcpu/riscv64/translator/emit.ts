// The code of each RV64 instruction in a region (engine/translator/region-writer.ts): the fast path only, as execute.ts has it, and the parts of step.ts
// that neither trap nor leave: lr, sc and AMOs on RAM, floats.
import { ENTRY, LOAD, type RegionWriter, STORE, T, type Table, U, VA } from "../../engine/translator/region-writer.ts";
import { type FunctionImport, I32, I64, type MemoryOp, type Op } from "../../engine/translator/wasm-code.ts";
import * as layout from "../assembly/layout.ts";
import * as o from "../assembly/opcodes.ts";
import { floatEmitter } from "./floats.ts";
import { INTEGER_OPERATIONS, type Operands } from "./integer-operations.ts";
import type { Rv64Instruction } from "./rv64.ts";

interface Access {
  readonly op: MemoryOp;
  readonly size: number;
}
const LOADS = new Map<number, Access>([
  [o.LB, { op: "i64.load8_s", size: 1 }],
  [o.LH, { op: "i64.load16_s", size: 2 }],
  [o.LW, { op: "i64.load32_s", size: 4 }],
  [o.LD, { op: "i64.load", size: 8 }],
  [o.LBU, { op: "i64.load8_u", size: 1 }],
  [o.LHU, { op: "i64.load16_u", size: 2 }],
  [o.LWU, { op: "i64.load32_u", size: 4 }],
]);
const STORES = new Map<number, Access>([
  [o.SB, { op: "i64.store8", size: 1 }],
  [o.SH, { op: "i64.store16", size: 2 }],
  [o.SW, { op: "i64.store32", size: 4 }],
  [o.SD, { op: "i64.store", size: 8 }],
]);
const FLOAT_LOADS = new Map<number, Access>([
  [o.FLH, { op: "i64.load16_u", size: 2 }],
  [o.FLW, { op: "i64.load32_u", size: 4 }],
  [o.FLD, { op: "i64.load", size: 8 }],
]);
const FLOAT_STORES = new Map<number, Access>([
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
export const IMPORTS: readonly FunctionImport[] = [
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

type Emit = (it: Rv64Instruction, w: RegionWriter) => void;

const EMITTERS = new Map<number, Emit>([
  [o.NOP, () => {}],
  [
    o.AUIPC,
    (it, w) => {
      w.address(it.immediate);
      set(w, it.a);
    },
  ],
  [o.AMO, atomic],
  [o.FLOAT, float],
  ...pairs(LOADS, load),
  ...pairs(STORES, store),
  ...pairs(FLOAT_LOADS, floatLoad),
  ...pairs(FLOAT_STORES, floatStore),
  ...pairs(CONDITIONS, branch),
  ...[o.J, o.J_FAR, o.JR, o.JAL, o.JAL_FAR, o.JALR].map((operation): [number, Emit] => [operation, jump]),
  ...[o.CLMUL, o.CLMULH, o.CLMULR].map((operation): [number, Emit] => [operation, carrylessMultiply]),
  ...pairs(INTEGER_OPERATIONS, (it, w, operation) => {
    operation(operands(it, w));
    set(w, it.a);
  }),
]);

function pairs<T>(table: ReadonlyMap<number, T>, how: (it: Rv64Instruction, w: RegionWriter, what: T) => void) {
  return Array.from(table, ([operation, what]): [number, Emit] => [operation, (it, w) => how(it, w, what)]);
}

/** True for operations (even opcodes) that can be translated. */
export function translatable(operation: number): boolean {
  return EMITTERS.has(operation);
}

export function emit(it: Rv64Instruction, w: RegionWriter): void {
  EMITTERS.get(it.operation)!(it, w);
}

/** Pushes an integer register. */
function get(w: RegionWriter, register: number): void {
  if (register === 0) w.code.i64(0);
  else w.get(layout.X + register * 8);
}

/** Pops into one, which is not x0. */
function set(w: RegionWriter, register: number): void {
  w.set(layout.X + register * 8);
}

function operands(it: Rv64Instruction, w: RegionWriter): Operands {
  const { code } = w;
  return {
    code,
    rs1: () => get(w, it.b),
    rs2: () => get(w, it.immediate / 8),
    immediate: () => code.i64(it.immediate),
    amount: () => code.i64(it.immediate),
    t: T,
    u: U,
    leaveIf: () => w.leaveBeforeIf(),
  };
}

/** Pushes rs1 + immediate and looks it up. */
function locate(it: Rv64Instruction, w: RegionWriter, size: number, table: Table): void {
  get(w, it.b);
  w.code.i64(it.immediate);
  w.code.op("i64.add");
  w.locate(size, table);
}

function load(it: Rv64Instruction, w: RegionWriter, { op, size }: Access): void {
  locate(it, w, size, LOAD);
  w.host(LOAD);
  w.code.memory(op, 0);
  set(w, it.a);
}

function store(it: Rv64Instruction, w: RegionWriter, { op, size }: Access): void {
  locate(it, w, size, STORE);
  w.host(STORE);
  get(w, it.a);
  w.code.memory(op, 0);
}

/** Blocks in which sstatus.FS has been found Dirty before: what changes that ends a region. */
const FLOATS_OPEN = new WeakSet<RegionWriter>();

/** InstructionSet.prepare. */
export function prepare(w: RegionWriter): () => void {
  return () => void FLOATS_OPEN.delete(w);
}

/** Leaves to the interpreter unless sstatus.FS is Dirty. */
function needFloats(w: RegionWriter): void {
  const { code } = w;
  if (FLOATS_OPEN.has(w)) return;
  FLOATS_OPEN.add(w);
  code.i32(0);
  code.memory("i64.load", layout.SSTATUS);
  code.i64(FS_DIRTY);
  code.op("i64.and");
  code.i64(FS_DIRTY);
  code.op("i64.ne");
  w.leaveBeforeIf();
}

function floatLoad(it: Rv64Instruction, w: RegionWriter, { op, size }: Access): void {
  const { code } = w;
  needFloats(w);
  locate(it, w, size, LOAD);
  code.i32(0);
  w.host(LOAD);
  code.memory(op, 0);
  const box = BOXES.get(size);
  if (box !== undefined) {
    code.i64Big(box);
    code.op("i64.or");
  }
  code.memory("i64.store", layout.F + it.a * 8);
}

function floatStore(it: Rv64Instruction, w: RegionWriter, { op, size }: Access): void {
  const { code } = w;
  needFloats(w);
  locate(it, w, size, STORE);
  w.host(STORE);
  code.i32(0);
  code.memory("i64.load", layout.F + it.a * 8);
  code.memory(op, 0);
}

function float(it: Rv64Instruction, w: RegionWriter): void {
  const instruction = it.immediate >>> 0;
  const called = (): void => callFloat(w, instruction);
  needFloats(w);
  (floatEmitter(instruction, called) ?? called)(w);
}

/** The core's own function does it, on the register files in memory: integer operands go there before, an integer result comes from there. */
function callFloat(w: RegionWriter, instruction: number): void {
  const kind = (instruction & 0x7f) === 0x53 ? instruction >>> 27 : -1;
  const rd = (instruction >>> 7) & 31;
  const rs1 = (instruction >>> 15) & 31;
  // fcvt from an integer, fmv from an integer register
  if ((kind === 0x1a || kind === 0x1e) && rs1 !== 0) w.spill(layout.X + rs1 * 8);
  w.code.i32(instruction);
  w.call(FLOAT_FUNCTION);
  w.code.op("i32.eqz");
  w.leaveBeforeIf();
  // compare, fcvt to an integer, fmv to an integer register and fclass
  if ((kind === 0x14 || kind === 0x18 || kind === 0x1c) && rd !== 0) w.reload(layout.X + rd * 8);
}

function carrylessMultiply(it: Rv64Instruction, w: RegionWriter): void {
  w.code.i32(it.operation);
  get(w, it.b);
  get(w, it.immediate / 8);
  w.call(CARRYLESS_FUNCTION);
  set(w, it.a);
}

/** lr, sc and AMOs on aligned RAM, as atomic.ts does them. */
function atomic(it: Rv64Instruction, w: RegionWriter): void {
  const { code } = w;
  const instruction = it.immediate >>> 0;
  const rd = (instruction >>> 7) & 31;
  const rs1 = (instruction >>> 15) & 31;
  const rs2 = (instruction >>> 20) & 31;
  const wide = (instruction & 0x1000) !== 0;
  const kind = instruction >>> 27;
  const size = wide ? 8 : 4;
  const table = kind === 2 ? LOAD : STORE;
  get(w, rs1);
  w.locate(size, table);
  code.get(VA);
  code.op("i32.wrap_i64");
  code.i32(size - 1);
  code.op("i32.and");
  w.leaveBeforeIf();
  w.host(table);
  code.tee(ENTRY);
  code.memory(wide ? "i64.load" : "i64.load32_s", 0);
  code.set(T);
  if (kind === 2) {
    code.i32(0);
    reservation(w, wide);
    code.memory("i64.store", layout.RESERVATION);
    code.i32(0);
    code.get(T);
    code.memory("i64.store", layout.RESERVED_VALUE);
  } else if (kind === 3) storeConditional(w, rs2, wide);
  else {
    get(w, rs2);
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
  set(w, rd);
}

/** Pushes what RESERVATION holds for the word at ENTRY. */
function reservation(w: RegionWriter, wide: boolean): void {
  w.code.get(ENTRY);
  w.code.op("i64.extend_i32_u");
  w.code.i64(wide ? 1 : 0);
  w.code.op("i64.or");
}

/** sc to ENTRY, whose value is in T; leaves 0 or 1 in T. */
function storeConditional(w: RegionWriter, rs2: number, wide: boolean): void {
  const { code } = w;
  code.i32(0);
  code.memory("i64.load", layout.RESERVATION);
  reservation(w, wide);
  code.op("i64.eq");
  code.i32(0);
  code.memory("i64.load", layout.RESERVED_VALUE);
  code.get(T);
  code.op("i64.eq", "i32.and");
  code.i64(1);
  code.set(T);
  code.if();
  code.get(ENTRY);
  get(w, rs2);
  code.memory(wide ? "i64.store" : "i64.store32", 0);
  code.i64(0);
  code.set(T);
  code.end();
  code.i32(0);
  code.i64(-1);
  code.memory("i64.store", layout.RESERVATION);
}

function branch(it: Rv64Instruction, w: RegionWriter, condition: Op): void {
  get(w, it.b);
  get(w, it.a);
  w.code.op(condition);
  w.code.if();
  w.goTo(it.target!);
  w.code.end();
}

function jump(it: Rv64Instruction, w: RegionWriter): void {
  const { code } = w;
  const indirect = it.operation === o.JALR || it.operation === o.JR;
  if (indirect) {
    get(w, it.b);
    code.i64(it.immediate);
    code.op("i64.add");
    code.i64(-2);
    code.op("i64.and");
    code.set(VA);
  }
  if (it.operation === o.JAL || it.operation === o.JAL_FAR || it.operation === o.JALR) {
    w.address(it.offset + it.length);
    set(w, it.a);
  }
  if (indirect) w.goToAddress();
  else w.goTo(it.target!);
}
