// The code of each AArch64 instruction in a region (engine/translator/region-writer.ts): the fast path only, as execute.ts has it, and the parts of step.ts
// that neither trap nor leave: exclusives on RAM, vectors.
import { ENTRY, LOAD, type RegionWriter, STORE, T, type Table, U, VA } from "../../engine/translator/region-writer.ts";
import type { MemoryOp } from "../../engine/translator/wasm-code.ts";
import * as layout from "../assembly/layout.ts";
import * as o from "../assembly/opcodes.ts";
import type { AArch64Instruction } from "./aarch64.ts";
import { Emitting, low, popRegister, RegionState, SINK_FIELD } from "./emitting.ts";
import { DIFFERENCE, Flags, type Kind, LOGIC, SUM } from "./flags.ts";
import { PACK_CARRY } from "./imports.ts";
import { extended, OPERATIONS, shifted, shiftedWord } from "./operations.ts";
import { emitRaw, rawTranslatable } from "./raw.ts";

type Emit = (x: Emitting) => void;

const REGIONS = new WeakMap<RegionWriter, RegionState>();

/** InstructionSet.prepare. */
export function prepare(w: RegionWriter): () => void {
  const region = new RegionState(new Flags(w));
  REGIONS.set(w, region);
  return () => region.startBlock();
}

/** Pops a 64-bit value of which the low 32 bits count, pushes them 32 bits up. */
function up(x: Emitting): void {
  x.code.i64(32);
  x.code.op("i64.shl");
}

/** An operation that sets flags of n and what `operand` pushes. */
const settingFlags =
  (kind: Kind, operand: Emit, word: boolean): Emit =>
  (x) => {
    const { code, flags } = x;
    x.n();
    if (word) up(x);
    operand(x);
    if (word) up(x);
    flags.keep(kind);
    if (x.it.d === SINK_FIELD) return;
    flags.a();
    flags.b();
    code.op(kind === DIFFERENCE ? "i64.sub" : "i64.add");
    if (word) {
      code.i64(32);
      code.op("i64.shr_u");
    }
    popRegister(x.w, x.it.d);
  };
const settingLogic =
  (operand: Emit, inverts: boolean, word: boolean): Emit =>
  (x) => {
    const { code, flags } = x;
    x.n();
    operand(x);
    if (inverts) {
      code.i64(-1);
      code.op("i64.xor");
    }
    code.op("i64.and");
    if (word) up(x);
    flags.keep(LOGIC);
    if (x.it.d === SINK_FIELD) return;
    flags.a();
    if (word) {
      code.i64(32);
      code.op("i64.shr_u");
    }
    popRegister(x.w, x.it.d);
  };
/** ADCS, SBCS: NZCV by the core's function, for what they are of does not say it in two words. */
const settingCarry =
  (subtracts: boolean, word: boolean): Emit =>
  (x) => {
    const { code, flags, w } = x;
    x.carry();
    code.set(U);
    x.m();
    if (subtracts) {
      code.i64(-1);
      code.op("i64.xor");
    }
    code.set(T);
    x.n();
    code.get(T);
    code.get(U);
    code.i32(word ? 0 : 1);
    w.call(PACK_CARRY);
    // the sum before the flags: the destination may be n, the flags are read no more
    x.n();
    code.get(T);
    code.op("i64.add");
    code.get(U);
    code.op("i64.add");
    if (word) low(code);
    popRegister(w, x.it.d);
    flags.setWord();
  };
/** CCMP, CCMN. */
const conditionalCompare =
  (kind: Kind, word: boolean): Emit =>
  (x) => {
    const { code, flags } = x;
    flags.condition(x.how & 0xffff);
    code.if();
    x.n();
    if (word) up(x);
    x.m();
    code.i64(x.it.high);
    code.op("i64.add");
    if (word) up(x);
    flags.keep(kind);
    code.else();
    flags.constantOr((x.how >>> 16) & 15, kind);
    code.end();
  };

const withWord = (operation: number, make: (word: boolean) => Emit): [number, Emit][] => [
  [operation, make(false)],
  [operation + 1, make(true)],
];

interface Access {
  readonly op: MemoryOp;
  readonly size: number;
  readonly store?: true;
  /** A signed load to 32 bits. */
  readonly toWord?: true;
}
/** In the order of STRB … LDRSH_W. */
const ACCESSES: readonly Access[] = [
  { op: "i64.store8", size: 1, store: true },
  { op: "i64.store16", size: 2, store: true },
  { op: "i64.store32", size: 4, store: true },
  { op: "i64.store", size: 8, store: true },
  { op: "i64.load8_u", size: 1 },
  { op: "i64.load16_u", size: 2 },
  { op: "i64.load32_u", size: 4 },
  { op: "i64.load", size: 8 },
  { op: "i64.load8_s", size: 1 },
  { op: "i64.load16_s", size: 2 },
  { op: "i64.load32_s", size: 4 },
  { op: "i64.load8_s", size: 1, toWord: true },
  { op: "i64.load16_s", size: 2, toWord: true },
];

/** Transfers what `address` pushes the place of. A base that is `written` keeps its new value where it is the destination, too. */
function transfer(x: Emitting, access: Access, address: Emit, written: boolean, lowest = false): void {
  const { code, w, it } = x;
  const table: Table = access.store ? STORE : LOAD;
  x.checkBase(layout.X + it.n);
  address(x);
  w.locate(access.size, table, lowest);
  w.host(table);
  if (access.store) x.d();
  code.memory(access.op, 0);
  if (!access.store) {
    if (access.toWord) low(code);
    popRegister(w, written && it.d === it.n ? SINK_FIELD : it.d);
  }
  if (written) grow(x);
}

function grow(x: Emitting): void {
  x.n();
  x.code.i64(x.it.high);
  x.code.op("i64.add");
  popRegister(x.w, x.it.n);
  x.wrote(layout.X + x.it.n, x.it.high);
}

const baseAnd =
  (offset: (x: Emitting) => void): Emit =>
  (x) => {
    x.n();
    offset(x);
    x.code.op("i64.add");
  };
const immediateOffset = baseAnd((x) => x.constant());
const lowOffset = baseAnd((x) => x.code.i64(x.how));
const registerOffset = baseAnd(extended);
const fromPage: Emit = (x) => x.w.address(Number(x.it.immediate));

const PAIRS: readonly (readonly [number, "store" | "load" | "signed", 4 | 8])[] = [
  [o.STP_W, "store", 4],
  [o.STP, "store", 8],
  [o.LDP_W, "load", 4],
  [o.LDP, "load", 8],
  [o.LDPSW, "signed", 4],
];

const pair =
  (kind: "store" | "load" | "signed", size: 4 | 8, written: boolean): Emit =>
  (x) => {
    const { code, w, it } = x;
    const table: Table = kind === "store" ? STORE : LOAD;
    x.checkBase(layout.X + it.n);
    lowOffset(x);
    w.locate(2 * size, table);
    w.host(table);
    code.set(ENTRY);
    if (kind === "store") {
      const op = size === 8 ? "i64.store" : "i64.store32";
      code.get(ENTRY);
      x.d();
      code.memory(op, 0);
      code.get(ENTRY);
      x.m();
      code.memory(op, size);
    } else {
      const op = size === 8 ? "i64.load" : kind === "signed" ? "i64.load32_s" : "i64.load32_u";
      for (const [field, offset] of [
        [it.d, 0],
        [it.m, size],
      ] as const) {
        code.get(ENTRY);
        code.memory(op, offset);
        popRegister(w, written && field === it.n ? SINK_FIELD : field);
      }
    }
    if (written) grow(x);
  };

const zeroBlock: Emit = (x) => {
  const { code, w } = x;
  x.n();
  w.locate(1, STORE);
  w.host(STORE);
  code.i32(-64);
  code.op("i32.and");
  code.set(ENTRY);
  for (let offset = 0; offset < 64; offset += 8) {
    code.get(ENTRY);
    code.i64(0);
    code.memory("i64.store", offset);
  }
};

/** Pushes the word of the state at the address in the immediate. */
const stateWord: Emit = (x) => {
  x.code.i32(0);
  x.code.memory("i64.load", x.how);
  popRegister(x.w, x.it.d);
};

function goTo(x: Emitting): void {
  x.w.goTo(x.it.target!);
}

const branchIf =
  (condition: Emit): Emit =>
  (x) => {
    condition(x);
    x.code.if();
    goTo(x);
    x.code.end();
  };
const zeroTest =
  (isZero: boolean, word: boolean): Emit =>
  (x) => {
    x.n();
    if (word) x.code.op("i32.wrap_i64", "i32.eqz");
    else x.code.op("i64.eqz");
    if (!isZero) x.code.op("i32.eqz");
  };
const bitTest =
  (isZero: boolean): Emit =>
  (x) => {
    x.n();
    x.code.i64(x.shift);
    x.code.op("i64.shr_u", "i32.wrap_i64");
    x.code.i32(1);
    x.code.op("i32.and");
    if (isZero) x.code.op("i32.eqz");
  };

function link(x: Emitting): void {
  x.w.address(x.it.offset + 4);
  x.w.set(layout.X + 30 * 8);
}

const indirect =
  (links: boolean): Emit =>
  (x) => {
    const { code, w } = x;
    x.n();
    code.tee(VA);
    code.op("i32.wrap_i64");
    code.i32(3);
    code.op("i32.and");
    w.leaveBeforeIf();
    if (links) link(x);
    w.goToAddress();
  };

const near = (operation: number, emit: Emit): [number, Emit][] => [
  [operation, emit],
  [operation + 1, emit],
];

const EMITTERS = new Map<number, Emit>([
  [o.NOP, () => {}],
  [
    o.ADR,
    (x) => {
      x.w.address(0);
      x.constant();
      x.code.op("i64.add");
      popRegister(x.w, x.it.d);
    },
  ],
  ...Array.from(OPERATIONS, ([operation, push]): [number, Emit] => [
    operation,
    (x) => {
      push(x);
      popRegister(x.w, x.it.d);
      const adds = operation === o.ADDI && x.it.n === x.it.d;
      x.wrote(layout.X + x.it.d, adds ? Number(BigInt.asIntN(32, x.it.immediate)) : undefined);
    },
  ]),
  ...withWord(o.ADDSI, (word) => settingFlags(SUM, (x) => x.constant(), word)),
  ...withWord(o.SUBSI, (word) => settingFlags(DIFFERENCE, (x) => x.constant(), word)),
  ...withWord(o.ADDS, (word) => settingFlags(SUM, (x) => x.m(), word)),
  ...withWord(o.SUBS, (word) => settingFlags(DIFFERENCE, (x) => x.m(), word)),
  ...withWord(o.ADDS_SHIFT, (word) => settingFlags(SUM, word ? shiftedWord : shifted, word)),
  ...withWord(o.SUBS_SHIFT, (word) => settingFlags(DIFFERENCE, word ? shiftedWord : shifted, word)),
  ...withWord(o.ADDS_EXTEND, (word) => settingFlags(SUM, extended, word)),
  ...withWord(o.SUBS_EXTEND, (word) => settingFlags(DIFFERENCE, extended, word)),
  ...withWord(o.ANDSI, (word) => settingLogic((x) => x.constant(), false, word)),
  ...withWord(o.ANDS, (word) => settingLogic((x) => x.m(), false, word)),
  ...withWord(o.ANDS_SHIFT, (word) => settingLogic(word ? shiftedWord : shifted, false, word)),
  ...withWord(o.BICS_SHIFT, (word) => settingLogic(word ? shiftedWord : shifted, true, word)),
  ...withWord(o.ADCS, (word) => settingCarry(false, word)),
  ...withWord(o.SBCS, (word) => settingCarry(true, word)),
  ...withWord(o.CCMP, (word) => conditionalCompare(DIFFERENCE, word)),
  ...withWord(o.CCMN, (word) => conditionalCompare(SUM, word)),
  ...ACCESSES.flatMap((access, i): [number, Emit][] => [
    [o.STRB + i, (x) => transfer(x, access, immediateOffset, false)],
    [o.STRB_WB + i, (x) => transfer(x, access, lowOffset, true)],
    [o.STRB_REG + i, (x) => transfer(x, access, registerOffset, false)],
    [o.STRB_USER + i, (x) => transfer(x, access, immediateOffset, false, true)],
  ]),
  [o.LDRW_LITERAL, (x) => transfer(x, { op: "i64.load32_u", size: 4 }, fromPage, false)],
  [o.LDRX_LITERAL, (x) => transfer(x, { op: "i64.load", size: 8 }, fromPage, false)],
  [o.LDRSW_LITERAL, (x) => transfer(x, { op: "i64.load32_s", size: 4 }, fromPage, false)],
  ...PAIRS.flatMap(([operation, kind, size]): [number, Emit][] => [
    [operation, pair(kind, size, false)],
    [operation - o.STP_W + o.STP_W_WB, pair(kind, size, true)],
  ]),
  [o.ZVA, zeroBlock],
  [o.MRS_EL0, stateWord],
  [
    o.MRS_EL1,
    (x) => {
      const { code, w } = x;
      for (const field of [layout.EL, layout.SPSEL]) {
        code.i32(0);
        code.memory("i32.load", field);
      }
      code.op("i32.and", "i32.eqz");
      w.leaveBeforeIf();
      stateWord(x);
    },
  ],
  ...near(o.B, goTo),
  ...near(o.BL, (x) => {
    link(x);
    goTo(x);
  }),
  [o.BR, indirect(false)],
  [o.BLR, indirect(true)],
  ...near(
    o.B_COND,
    branchIf((x) => x.condition(x.it.d)),
  ),
  ...near(o.CBZ, branchIf(zeroTest(true, false))),
  ...near(o.CBZ_W, branchIf(zeroTest(true, true))),
  ...near(o.CBNZ, branchIf(zeroTest(false, false))),
  ...near(o.CBNZ_W, branchIf(zeroTest(false, true))),
  ...near(o.TBZ, branchIf(bitTest(true))),
  ...near(o.TBNZ, branchIf(bitTest(false))),
  [o.RAW, emitRaw],
]);

/** True for what can be translated. */
export function translatable(it: AArch64Instruction): boolean {
  return EMITTERS.has(it.operation) && (it.operation !== o.RAW || rawTranslatable(it.low >>> 0));
}

export function emit(it: AArch64Instruction, w: RegionWriter): void {
  EMITTERS.get(it.operation)!(new Emitting(it, w, REGIONS.get(w)!));
}
