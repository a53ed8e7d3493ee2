// Translated code of instructions that have no slot form: exclusives of one register, vector loads and stores (vector-memory.ts), and data processing of
// vectors, by WebAssembly's vectors (vector.ts) or the core's own functions on the registers in memory.
import { ENTRY, LOAD, STORE, T, type Table, VA } from "../../engine/translator/region-writer.ts";
import * as layout from "../assembly/layout.ts";
import type { Emitting } from "./emitting.ts";
import { floatEmitter } from "./floats.ts";
import { EXECUTE_VECTOR } from "./imports.ts";
import { vectorEmitter } from "./vector.ts";
import type { Emit } from "./vector-lanes.ts";
import { baseWord, needVectors, vectorAccessEmitter } from "./vector-memory.ts";

const field = (code: number, at: number): number => (code >>> at) & 31;

/** Which general registers and flags an instruction of vectors reads and writes. */
interface Uses {
  readonly reads: boolean;
  readonly writes: boolean;
  readonly flags: boolean;
}
const NOTHING: Uses = { reads: false, writes: false, flags: false };

/** What the vector instruction `code` (bits 27:25 set) has to do with general registers: Rn read, Rd written. */
function usesOf(code: number): Uses {
  const top = (code >>> 24) & 0x5f;
  if (top === 0x1e) {
    if (((code >>> 21) & 1) === 0)
      return { reads: ((code >>> 17) & 3) === 1, writes: ((code >>> 19) & 3) === 3, flags: false };
    if (((code >>> 10) & 63) === 0) {
      const opcode = (code >>> 16) & 7;
      const toFloat = opcode === 2 || opcode === 3 || opcode === 7;
      return { reads: toFloat, writes: !toFloat, flags: false };
    }
    const compares = ((code >>> 10) & 3) === 1 || ((code >>> 10) & 3) === 3 || ((code >>> 10) & 0xf) === 8;
    return { ...NOTHING, flags: compares };
  }
  const copies =
    ((code >>> 24) & 0xbf) === 0x0e &&
    ((code >>> 21) & 7) === 0 &&
    ((code >>> 15) & 1) === 0 &&
    ((code >>> 10) & 1) === 1;
  if (!copies) return NOTHING;
  const imm4 = (code >>> 11) & 15;
  return { reads: imm4 === 1 || imm4 === 3, writes: imm4 === 5 || imm4 === 7, flags: false };
}

const isExclusive = (code: number): boolean => (code & 0x3fa00000) >>> 0 === 0x08000000;
const isVector = (code: number): boolean => (code & 0x0e000000) >>> 0 === 0x0e000000;

export function rawTranslatable(code: number): boolean {
  return isExclusive(code) || isVector(code) || vectorAccessEmitter(code) !== null;
}

export function emitRaw(x: Emitting): void {
  const code = x.it.low >>> 0;
  if (isExclusive(code)) exclusive(x, code);
  else if (isVector(code)) vector(x, code);
  else vectorAccessEmitter(code)!(x);
}

function general(register: number): number {
  return layout.X + register * 8;
}

function vector(x: Emitting, instruction: number): void {
  const called: Emit = () => callCore(x, instruction);
  const emitter = vectorEmitter(instruction) ?? floatEmitter(instruction, called);
  if (emitter === null) {
    called(x);
    return;
  }
  needVectors(x);
  emitter(x);
}

/** The core's own function does it, on the registers in memory. */
function callCore(x: Emitting, instruction: number): void {
  const { code, w, flags } = x;
  const uses = usesOf(instruction);
  const [d, n] = [field(instruction, 0), field(instruction, 5)];
  if (uses.flags) {
    flags.settle();
    w.spill(layout.NZCV);
  }
  if (uses.reads && n !== 31) w.spill(general(n));
  code.i32(instruction);
  w.call(EXECUTE_VECTOR);
  code.op("i32.eqz");
  w.leaveBeforeIf();
  if (uses.flags) {
    w.reload(layout.NZCV);
  }
  if (uses.writes && d !== 31) w.reload(general(d));
}

/** LDXR, STXR and their ordered forms on aligned RAM, as exclusive.ts does them. */
function exclusive(x: Emitting, instruction: number): void {
  const { code, w } = x;
  const scale = instruction >>> 30;
  const loads = ((instruction >>> 22) & 1) === 1;
  const table: Table = loads ? LOAD : STORE;
  const load = (["i64.load8_u", "i64.load16_u", "i64.load32_u", "i64.load"] as const)[scale]!;
  const store = (["i64.store8", "i64.store16", "i64.store32", "i64.store"] as const)[scale]!;
  const t = field(instruction, 0);
  x.checkBase(baseWord(instruction));
  w.get(baseWord(instruction));
  w.locate(1 << scale, table);
  code.get(VA);
  code.op("i32.wrap_i64");
  code.i32((1 << scale) - 1);
  code.op("i32.and");
  w.leaveBeforeIf();
  w.host(table);
  code.tee(ENTRY);
  code.memory(load, 0);
  code.set(T);
  const name = (): void => {
    code.get(ENTRY);
    code.op("i64.extend_i32_u");
    code.i64Big(BigInt(scale) << 56n);
    code.op("i64.or");
  };
  if (loads) {
    code.i32(0);
    name();
    code.memory("i64.store", layout.MONITOR);
    code.i32(0);
    code.get(T);
    code.memory("i64.store", layout.MONITOR_LOW);
    if (t === 31) return;
    code.get(T);
    w.set(general(t));
    return;
  }
  const status = field(instruction, 16);
  code.i32(0);
  code.memory("i64.load", layout.MONITOR);
  name();
  code.op("i64.eq");
  code.i32(0);
  code.memory("i64.load", layout.MONITOR_LOW);
  code.get(T);
  code.op("i64.eq", "i32.and");
  code.i64(1);
  code.set(T);
  code.if();
  code.get(ENTRY);
  if (t === 31) code.i64(0);
  else w.get(general(t));
  code.memory(store, 0);
  code.i64(0);
  code.set(T);
  code.end();
  code.i32(0);
  code.i64(-1);
  code.memory("i64.store", layout.MONITOR);
  if (status === 31) return;
  code.get(T);
  w.set(general(status));
}
