// Loads and stores of V registers (DDI 0487, C4.1.93): single registers of 1 to 16 bytes in every addressing form, pairs, literals, and the structures of
// LD1…LD4, ST1…ST4 and LD1R…LD4R.
import { ACCESS_LOAD, ACCESS_STORE, CONTINUE, PAGE_MASK, RESUME } from "../../engine/assembly/isa";
import { PC, TLB_STORE, VALUE } from "../../engine/assembly/layout";
import { OUTSIDE, readMemory, writeMemory } from "../../engine/assembly/memory-access";
import { dataTable } from "../../engine/assembly/tlb";
import { AArch64 } from "./aarch64";
import { loadEntry } from "./access";
import { extended } from "./arithmetic";
import { extension } from "./decode-register";
import { UNDEFINED } from "./faults";
import { lane, setLane, vector } from "./lanes";
import { EL, LANES, X } from "./layout";
import { orSp, signedField, source } from "./slot";
import { checkBase } from "./stack-pointer";

/** Executes a load or store with bit 26 set. CONTINUE, RESUME or UNDEFINED. */
export function executeSimdMemory(code: u32): u32 {
  switch ((code >> 28) & 3) {
    case 0: return code >> 31 ? UNDEFINED : structures(code);
    case 1: return (code >> 24) & 1 ? UNDEFINED : literal(code);
    case 2: return pair(code);
  }
  return single(code);
}

/** Ends an instruction that has accessed memory: with `status`, the base written. */
function finish(status: u32, code: u32, base: u64): u32 {
  if (status == RESUME) return RESUME;
  store<u64>(<usize>X + orSp(code >> 5), base);
  if (status != OUTSIDE) return CONTINUE;
  store<u64>(PC, load<u64>(PC) + 4);
  return RESUME;
}

/** Reads 1 << scale bytes to `at` (16 bytes there, the rest zero). */
function fetch(at: usize, va: u64, scale: u32): u32 {
  let status = readMemory<AArch64>(va, scale == 4 ? 8 : 1 << scale);
  if (status == RESUME) return RESUME;
  const low = load<u64>(VALUE);
  let high: u64 = 0;
  if (scale == 4) {
    const second = readMemory<AArch64>(va + 8, 8);
    if (second == RESUME) return RESUME;
    high = load<u64>(VALUE);
    status = max(status, second);
  }
  store<u64>(at, low);
  store<u64>(at, high, 8);
  return status;
}

function put(at: usize, va: u64, scale: u32): u32 {
  if (scale < 4) return writeMemory<AArch64>(va, 1 << scale, load<u64>(at));
  const first = writeMemory<AArch64>(va, 8, load<u64>(at));
  if (first == RESUME) return RESUME;
  const second = writeMemory<AArch64>(va + 8, 8, load<u64>(at, 8));
  return second == RESUME ? RESUME : max(first, second);
}

function single(code: u32): u32 {
  const opc = (code >> 22) & 3;
  const scale = (code >> 30) | ((opc & 2) << 1);
  if (scale > 4) return UNDEFINED;
  const base = load<u64>(<usize>X + orSp(code >> 5));
  let va = base;
  let after = base;
  if ((code >> 24) & 1) va += <u64>((code >> 10) & 0xfff) << scale;
  else if ((code >> 21) & 1) {
    const option = (code >> 13) & 7;
    if (((code >> 10) & 3) != 2 || !(option & 2)) return UNDEFINED;
    va += extended(load<u64>(<usize>X + source(code >> 16)), <u32>extension(option, (code >> 12) & 1 ? scale : 0));
  } else {
    const by = <u64>signedField(code, 20, 12);
    switch ((code >> 10) & 3) {
      case 0: va += by; break;
      case 1: after += by; break;
      case 2: return UNDEFINED;
      case 3:
        va += by;
        after += by;
        break;
    }
  }
  if (checkBase(code) == RESUME) return RESUME;
  const at = vector(code);
  return finish(opc & 1 ? fetch(at, va, scale) : put(at, va, scale), code, after);
}

function literal(code: u32): u32 {
  const opc = code >> 30;
  if (opc == 3) return UNDEFINED;
  const status = fetch(vector(code), load<u64>(PC) + <u64>(signedField(code, 23, 5) << 2), opc + 2);
  if (status != OUTSIDE) return status;
  store<u64>(PC, load<u64>(PC) + 4);
  return RESUME;
}

/** Neither register is written unless both have been read. */
function pair(code: u32): u32 {
  const opc = code >> 30;
  if (opc == 3) return UNDEFINED;
  if (checkBase(code) == RESUME) return RESUME;
  const scale = opc + 2;
  const mode = (code >> 23) & 3;
  const by = <u64>(signedField(code, 21, 15) << scale);
  const base = load<u64>(<usize>X + orSp(code >> 5));
  const va = mode == 1 ? base : base + by;
  const after = mode == 1 || mode == 3 ? base + by : base;
  const first = vector(code);
  const second = vector(code >> 10);
  const next = va + (<u64>1 << scale);
  let status: u32;
  if ((code >> 22) & 1) {
    status = fetch(LANES, va, scale);
    if (status == RESUME) return RESUME;
    const other = fetch(second, next, scale);
    if (other == RESUME) return RESUME;
    store<u64>(first, load<u64>(LANES));
    store<u64>(first, load<u64>(LANES, 8), 8);
    status = max(status, other);
  } else {
    status = put(first, va, scale);
    if (status == RESUME) return RESUME;
    const other = put(second, next, scale);
    if (other == RESUME) return RESUME;
    status = max(status, other);
  }
  return finish(status, code, after);
}

function structures(code: u32): u32 {
  const post = (code >> 23) & 1;
  const m = (code >> 16) & 31;
  if (!post && m) return UNDEFINED;
  const base = load<u64>(<usize>X + orSp(code >> 5));
  let bytes: u32;
  let status: u32;
  if ((code >> 24) & 1) {
    bytes = singleStructureBytes(code);
    if (bytes == 0) return UNDEFINED;
    if (checkBase(code) == RESUME) return RESUME;
    status = singleStructure(code, base);
  } else {
    if ((code >> 21) & 1) return UNDEFINED;
    const registers = multipleRegisters((code >> 12) & 15);
    const interleave = multipleInterleave((code >> 12) & 15);
    const size = (code >> 10) & 3;
    const q = (code >> 30) & 1;
    if (registers == 0 || (interleave > 1 && size == 3 && !q)) return UNDEFINED;
    if (checkBase(code) == RESUME) return RESUME;
    bytes = registers * (8 << q);
    status = multipleStructures(code, base, registers, interleave, size, 8 << q);
  }
  const by: u64 = m == 31 ? <u64>bytes : load<u64>(<usize>X + source(m));
  return finish(status, code, post ? base + by : base);
}

/** Registers of LD1…LD4's opcode; 0: reserved. */
function multipleRegisters(opcode: u32): u32 {
  switch (opcode) {
    case 0: case 2: return 4;
    case 4: case 6: return 3;
    case 8: case 10: return 2;
    case 7: return 1;
  }
  return 0;
}

/** Elements of a structure. */
function multipleInterleave(opcode: u32): u32 {
  return opcode == 0 ? 4 : opcode == 4 ? 3 : opcode == 8 ? 2 : 1;
}

/** The host address of `bytes` bytes at va that lie in one page which the TLB knows; 0 if they do not. */
function cached(va: u64, bytes: u32, access: u32): usize {
  if ((<u32>va & 0xfff) + bytes > 4096) return 0;
  const entry = loadEntry(dataTable(load<u32>(EL)), va) + access * TLB_STORE;
  return load<u64>(entry) == (va & PAGE_MASK) ? <u32>va + load<u32>(entry, 8) : 0;
}

/** A fault may leave registers or memory partly written, and the base as it was: the instruction is executed again (B2.2). */
function multipleStructures(code: u32, base: u64, registers: u32, interleave: u32, size: u32, bytes: u32): u32 {
  const loads = (code >> 22) & 1;
  const count = bytes >> size;
  let va = base;
  let status = CONTINUE;
  let host = cached(base, registers * bytes, loads ? ACCESS_LOAD : ACCESS_STORE);
  for (let group: u32 = 0; group < registers / interleave; group++) {
    for (let i: u32 = 0; i < count; i++) {
      for (let s: u32 = 0; s < interleave; s++) {
        const register = vector((code & 31) + group + s);
        if (loads && bytes == 8 && i == 0 && host) store<u64>(register, 0, 8);
        if (host) {
          if (loads) setLane(register, size, i, lane(host, size, 0));
          else setLane(host, size, 0, lane(register, size, i));
          host += 1 << size;
          continue;
        }
        if (loads) {
          const got = readMemory<AArch64>(va, 1 << size);
          if (got == RESUME) return RESUME;
          if (bytes == 8 && i == 0) store<u64>(register, 0, 8);
          setLane(register, size, i, load<u64>(VALUE));
          status = max(status, got);
        } else {
          const done = writeMemory<AArch64>(va, 1 << size, lane(register, size, i));
          if (done == RESUME) return RESUME;
          status = max(status, done);
        }
        va += <u64>(1 << size);
      }
    }
  }
  return status;
}

/** log2 of an element's bytes for a single structure; 4: reserved. LD1R and its kin: as their size says. */
function singleScale(code: u32): u32 {
  const opcode = (code >> 14) & 3; // opcode<2:1>
  const size = (code >> 10) & 3;
  const s = (code >> 12) & 1;
  switch (opcode) {
    case 0: return 0;
    case 1: return size & 1 ? 4 : 1;
    case 2:
      if (size & 2) return 4;
      return size & 1 ? (s ? 4 : 3) : 2;
  }
  return (code >> 22) & 1 && !s ? size : 4;
}

@inline
function singleSelements(code: u32): u32 {
  return ((((code >> 13) & 1) << 1) | ((code >> 21) & 1)) + 1;
}

function singleStructureBytes(code: u32): u32 {
  const scale = singleScale(code);
  return scale == 4 ? 0 : singleSelements(code) << scale;
}

function singleStructure(code: u32, base: u64): u32 {
  const scale = singleScale(code);
  const loads = (code >> 22) & 1;
  const replicates = ((code >> 14) & 3) == 3;
  const q = (code >> 30) & 1;
  const place = (q << 3) | (((code >> 12) & 1) << 2) | ((code >> 10) & 3);
  let va = base;
  let status = CONTINUE;
  for (let s: u32 = 0; s < singleSelements(code); s++) {
    const register = vector((code & 31) + s);
    if (loads) {
      const got = readMemory<AArch64>(va, 1 << scale);
      if (got == RESUME) return RESUME;
      const value = load<u64>(VALUE);
      if (replicates) {
        for (let i: u32 = 0; i < 16 >> scale; i++) setLane(register, scale, i, value);
        if (!q) store<u64>(register, 0, 8);
      } else setLane(register, scale, place >> scale, value);
      status = max(status, got);
    } else {
      const done = writeMemory<AArch64>(va, 1 << scale, lane(register, scale, place >> scale));
      if (done == RESUME) return RESUME;
      status = max(status, done);
    }
    va += <u64>(1 << scale);
  }
  return status;
}

