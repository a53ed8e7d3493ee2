// Translated code of instructions that have no slot form: exclusives of one register, vector loads and stores, and data processing of vectors, which the
// core's own functions do on the registers in memory.
import { ENTRY, LOAD, STORE, T, type Table, VA } from "../../engine/translator/region-writer.ts";
import * as layout from "../assembly/layout.ts";
import type { Emitting } from "./emitting.ts";
import { EXECUTE_VECTOR } from "./imports.ts";

const field = (code: number, at: number): number => (code >>> at) & 31;
const SP_REGISTER = layout.SP;

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

type RawKind = "exclusive" | "vector-access" | "vector-pair" | "vector";

function kindOf(code: number): RawKind | null {
  if ((code & 0x3fa00000) >>> 0 === 0x08000000) return "exclusive";
  if ((code & 0x0e000000) >>> 0 === 0x0e000000) return "vector";
  if ((code & 0x3e000000) >>> 0 === 0x2c000000) return code >>> 30 === 3 ? null : "vector-pair";
  if ((code & 0x3e000000) >>> 0 !== 0x3c000000) return null;
  if (scaleOf(code) > 4 || (((code >>> 24) & 1) === 0 && ((code >>> 21) & 1) === 1)) return null;
  return ((code >>> 24) & 1) === 0 && ((code >>> 10) & 3) === 2 ? null : "vector-access";
}

export function rawTranslatable(code: number): boolean {
  return kindOf(code) !== null;
}

export function emitRaw(x: Emitting): void {
  const code = x.it.low >>> 0;
  switch (kindOf(code)) {
    case "exclusive":
      exclusive(x, code);
      break;
    case "vector":
      vector(x, code);
      break;
    case "vector-pair":
      vectorPair(x, code);
      break;
    default:
      vectorAccess(x, code);
  }
}

function general(register: number): number {
  return layout.X + register * 8;
}

function vector(x: Emitting, instruction: number): void {
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

/** Leaves to the interpreter unless both levels may use vectors. */
function needVectors(x: Emitting): void {
  const { code, w } = x;
  code.i32(0);
  code.memory("i32.load", layout.CPACR_EL1);
  code.i32(3 << 20);
  code.op("i32.and");
  code.i32(3 << 20);
  code.op("i32.ne");
  w.leaveBeforeIf();
}

const scaleOf = (code: number): number => (code >>> 30) | ((code >>> 21) & 4);
const signed = (code: number, low: number, bits: number): number => ((code >>> low) << (32 - bits)) >> (32 - bits);
const base = (code: number): number => (field(code, 5) === 31 ? SP_REGISTER : general(field(code, 5)));
const vectorWord = (register: number): number => layout.V + register * 16;

/** Moves 1 << scale bytes between the vector register and the host address in ENTRY + offset. */
function move(x: Emitting, register: number, scale: number, loads: boolean, offset: number): void {
  const { code } = x;
  const at = vectorWord(register);
  const bytes = Math.min(1 << scale, 8);
  const load = ({ 1: "i64.load8_u", 2: "i64.load16_u", 4: "i64.load32_u", 8: "i64.load" } as const)[
    bytes as 1 | 2 | 4 | 8
  ];
  const store = ({ 1: "i64.store8", 2: "i64.store16", 4: "i64.store32", 8: "i64.store" } as const)[
    bytes as 1 | 2 | 4 | 8
  ];
  if (!loads) {
    for (const half of scale === 4 ? [0, 8] : [0]) {
      code.get(ENTRY);
      code.i32(0);
      code.memory("i64.load", at + half);
      code.memory(store, offset + half);
    }
    return;
  }
  code.i32(0);
  code.get(ENTRY);
  code.memory(load, offset);
  code.memory("i64.store", at);
  code.i32(0);
  if (scale === 4) {
    code.get(ENTRY);
    code.memory("i64.load", offset + 8);
  } else code.i64(0);
  code.memory("i64.store", at + 8);
}

/** ENTRY = the host address of base + offset, `size` bytes of it. */
function place(x: Emitting, instruction: number, offset: number, size: number, loads: boolean): void {
  const { code, w } = x;
  const table: Table = loads ? LOAD : STORE;
  needVectors(x);
  w.get(base(instruction));
  code.i64(offset);
  code.op("i64.add");
  w.locate(size, table);
  w.host(table);
  code.set(ENTRY);
}

function growBase(x: Emitting, instruction: number, by: number): void {
  if (by === 0) return;
  x.w.get(base(instruction));
  x.code.i64(by);
  x.code.op("i64.add");
  x.w.set(base(instruction));
}

function vectorAccess(x: Emitting, instruction: number): void {
  const scale = scaleOf(instruction);
  const loads = ((instruction >>> 22) & 1) === 1;
  let offset: number;
  let growth = 0;
  if (((instruction >>> 24) & 1) === 1) offset = ((instruction >>> 10) & 0xfff) << scale;
  else {
    offset = signed(instruction, 12, 9);
    const mode = (instruction >>> 10) & 3;
    if (mode !== 0) growth = offset;
    if (mode === 1) offset = 0;
  }
  place(x, instruction, offset, 1 << scale, loads);
  move(x, field(instruction, 0), scale, loads, 0);
  growBase(x, instruction, growth);
}

function vectorPair(x: Emitting, instruction: number): void {
  const scale = (instruction >>> 30) + 2;
  const loads = ((instruction >>> 22) & 1) === 1;
  const mode = (instruction >>> 23) & 3;
  const by = signed(instruction, 15, 7) * (1 << scale);
  place(x, instruction, mode === 1 ? 0 : by, 2 << scale, loads);
  move(x, field(instruction, 0), scale, loads, 0);
  move(x, field(instruction, 10), scale, loads, 1 << scale);
  growBase(x, instruction, mode === 1 || mode === 3 ? by : 0);
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
  w.get(base(instruction));
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
