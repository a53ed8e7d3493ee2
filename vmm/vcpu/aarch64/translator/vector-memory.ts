// Translated loads and stores of V registers (DDI 0487, C4.1.93): single ones in every addressing form, pairs, literals, LD1 and ST1 of one to four
// registers. A TLB entry must cover all the bytes; other structures, and accesses across a page, are the interpreter's.
import { ENTRY, LOAD, STORE, type Table } from "../../engine/translator/region-writer.ts";
import { loadVector, SIMD, storeVector } from "../../engine/translator/wasm-simd.ts";
import { CPACR_EL1, SP, X } from "../assembly/layout.ts";
import type { Emitting } from "./emitting.ts";
import { clearUpper, type Emit, vectorWord } from "./vector-lanes.ts";

const bits = (code: number, low: number, width: number): number => (code >>> low) & ((1 << width) - 1);
const signed = (code: number, low: number, width: number): number => ((code >>> low) << (32 - width)) >> (32 - width);
const isLoad = (code: number): boolean => bits(code, 22, 1) === 1;

/** The word of the register in field n, which may be SP. */
export function baseWord(code: number): number {
  return bits(code, 5, 5) === 31 ? SP : X + bits(code, 5, 5) * 8;
}

/** Leaves to the interpreter unless both levels may use vectors. */
export function needVectors(x: Emitting): void {
  const { code, w, region } = x;
  if (region.vectorsOpen) return;
  region.vectorsOpen = true;
  code.i32(0);
  code.memory("i32.load", CPACR_EL1);
  code.i32(3 << 20);
  code.op("i32.and");
  code.i32(3 << 20);
  code.op("i32.ne");
  w.leaveBeforeIf();
}

const LOADS = ["i64.load8_u", "i64.load16_u", "i64.load32_u", "i64.load"] as const;
const STORES = ["i64.store8", "i64.store16", "i64.store32", "i64.store"] as const;

/** Moves 1 << scale bytes between the vector register and the host address in ENTRY + offset. */
function move(x: Emitting, register: number, scale: number, loads: boolean, offset: number): void {
  const { code } = x;
  const at = vectorWord(register);
  if (scale === 4 && SIMD) {
    if (loads) code.i32(0);
    code.get(ENTRY);
    if (!loads) code.i32(0);
    loadVector(code, loads ? offset : at);
    storeVector(code, loads ? at : offset);
    return;
  }
  for (const half of scale === 4 ? [0, 8] : [0]) {
    const access = Math.min(scale, 3);
    if (loads) code.i32(0);
    code.get(ENTRY);
    if (!loads) code.i32(0);
    code.memory(loads ? LOADS[access]! : "i64.load", half + (loads ? offset : at));
    code.memory(loads ? "i64.store" : STORES[access]!, half + (loads ? at : offset));
  }
  if (loads && scale < 4) clearUpper(x, register);
}

/** Pops a virtual address; ENTRY = the host address of the `size` bytes there. */
function locate(x: Emitting, size: number, loads: boolean): void {
  const table: Table = loads ? LOAD : STORE;
  x.w.locate(size, table);
  x.w.host(table);
  x.code.set(ENTRY);
}

/** What every access with a base looks at first. */
function open(x: Emitting, instruction: number): void {
  needVectors(x);
  x.checkBase(baseWord(instruction));
}

function pushBaseAnd(x: Emitting, instruction: number, offset: number): void {
  x.w.get(baseWord(instruction));
  if (offset === 0) return;
  x.code.i64(offset);
  x.code.op("i64.add");
}

function growBase(x: Emitting, instruction: number, by: number): void {
  if (by === 0) return;
  pushBaseAnd(x, instruction, by);
  x.w.set(baseWord(instruction));
  x.wrote(baseWord(instruction), by);
}

const scaleOf = (code: number): number => (code >>> 30) | (bits(code, 23, 1) << 2);

function single(code: number): Emit | null {
  const scale = scaleOf(code);
  if (scale > 4) return null;
  if (bits(code, 24, 1) === 0 && bits(code, 21, 1) === 1) return indexed(code, scale);
  const mode = bits(code, 10, 2);
  const scaled = bits(code, 24, 1) === 1;
  if (!scaled && mode === 2) return null;
  const by = scaled ? bits(code, 10, 12) * 2 ** scale : signed(code, 12, 9);
  return (x) => {
    open(x, code);
    pushBaseAnd(x, code, !scaled && mode === 1 ? 0 : by);
    locate(x, 1 << scale, isLoad(code));
    move(x, bits(code, 0, 5), scale, isLoad(code), 0);
    growBase(x, code, !scaled && mode !== 0 ? by : 0);
  };
}

/** With a register as offset: UXTW 2, LSL 3, SXTW 6, SXTX 7. */
function indexed(instruction: number, scale: number): Emit | null {
  const option = bits(instruction, 13, 3);
  const index = bits(instruction, 16, 5);
  if (bits(instruction, 10, 2) !== 2 || !(option & 2)) return null;
  const shift = bits(instruction, 12, 1) === 1 ? scale : 0;
  return (x) => {
    const { code, w } = x;
    open(x, instruction);
    w.get(baseWord(instruction));
    if (index === 31) code.i64(0);
    else w.get(X + index * 8);
    if (!(option & 1)) code.op("i32.wrap_i64", option & 4 ? "i64.extend_i32_s" : "i64.extend_i32_u");
    if (shift > 0) {
      code.i64(shift);
      code.op("i64.shl");
    }
    code.op("i64.add");
    locate(x, 1 << scale, isLoad(instruction));
    move(x, bits(instruction, 0, 5), scale, isLoad(instruction), 0);
  };
}

function literal(code: number): Emit | null {
  const opc = code >>> 30;
  if (opc === 3) return null;
  return (x) => {
    needVectors(x);
    x.w.address(x.it.offset + signed(code, 5, 19) * 4);
    locate(x, 4 << opc, true);
    move(x, bits(code, 0, 5), opc + 2, true, 0);
  };
}

function pair(code: number): Emit | null {
  if (code >>> 30 === 3) return null;
  const scale = (code >>> 30) + 2;
  const mode = bits(code, 23, 2);
  const by = signed(code, 15, 7) * 2 ** scale;
  return (x) => {
    open(x, code);
    pushBaseAnd(x, code, mode === 1 ? 0 : by);
    locate(x, 2 << scale, isLoad(code));
    move(x, bits(code, 0, 5), scale, isLoad(code), 0);
    move(x, bits(code, 10, 5), scale, isLoad(code), 1 << scale);
    growBase(x, code, mode === 1 || mode === 3 ? by : 0);
  };
}

/** Registers of LD1 and ST1 by their opcode. */
const REGISTERS = new Map([
  [7, 1],
  [10, 2],
  [6, 3],
  [2, 4],
]);

/** LD1, ST1 of whole registers, the base as it is or grown by their size or by a register. */
function structures(instruction: number): Emit | null {
  const registers = REGISTERS.get(bits(instruction, 12, 4));
  const post = bits(instruction, 23, 1) === 1;
  const m = bits(instruction, 16, 5);
  if (registers === undefined || bits(instruction, 21, 1) === 1 || (!post && m !== 0)) return null;
  const scale = 3 + bits(instruction, 30, 1);
  const bytes = registers << scale;
  return (x) => {
    open(x, instruction);
    pushBaseAnd(x, instruction, 0);
    locate(x, bytes, isLoad(instruction));
    for (let k = 0; k < registers; k++)
      move(x, (bits(instruction, 0, 5) + k) & 31, scale, isLoad(instruction), k << scale);
    if (!post) return;
    if (m === 31) return growBase(x, instruction, bytes);
    pushBaseAnd(x, instruction, 0);
    x.w.get(X + m * 8);
    x.code.op("i64.add");
    x.w.set(baseWord(instruction));
    x.wrote(baseWord(instruction));
  };
}

/** The code of a load or store of vectors; null if it is the interpreter's, or none. */
export function vectorAccessEmitter(code: number): Emit | null {
  if ((code & 0x3e000000) >>> 0 === 0x3c000000) return single(code);
  if ((code & 0x3e000000) >>> 0 === 0x2c000000) return pair(code);
  if ((code & 0x3f000000) >>> 0 === 0x1c000000) return literal(code);
  if ((code & 0xbf000000) >>> 0 === 0x0c000000) return structures(code);
  return null;
}
