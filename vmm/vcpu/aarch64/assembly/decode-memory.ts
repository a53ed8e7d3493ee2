// Loads and stores (DDI 0487, C4.1.93): slots of the forms that the loop executes; exclusives and what has no form go to step() as they are.
import { extension } from "./decode-register";
import {
  LDP, LDPSW, LDPSW_WB, LDP_W, LDP_WB, LDP_W_WB, LDRB, LDRSB, LDRSB_W, LDRSW_LITERAL, LDRW_LITERAL, LDRX_LITERAL, NOP, RAW, STP, STP_W, STP_WB,
  STP_W_WB, STRB, STRB_REG, STRB_USER, STRB_WB, STRX,
} from "./opcodes";
import { illegal, orSp, put, signedField, source, target } from "./slot";

export function decodeMemory(slot: usize, code: u32, offset: u32): void {
  const vector = (code >> 26) & 1;
  switch ((code >> 28) & 3) {
    case 0:
      if (vector || (code >> 24) & 1) break; // LD1…ST4
      if ((code & 0x00a00000) == 0x00800000) ordered(slot, code);
      else put(slot, RAW, 0, 0, 0, code);
      return;
    case 1:
      if (!((code >> 24) & 1)) {
        if (vector) break;
        literal(slot, code, offset);
        return;
      }
      illegal(slot, code); // tags, memory copies: not here
      return;
    case 2:
      if (vector) break;
      pair(slot, code);
      return;
    case 3:
      if (vector) break;
      single(slot, code);
      return;
  }
  if (vector) put(slot, RAW, 0, 0, 0, code);
  else illegal(slot, code);
}

/** LDAR, STLR and their kin: as plain ones, for memory is sequentially consistent. */
function ordered(slot: usize, code: u32): void {
  const size = code >> 30;
  const loads = (code >> 22) & 1;
  const data = loads ? target(code) : source(code);
  put(slot, (loads ? LDRB : STRB) + size, data, orSp(code >> 5), 0, 0);
}

/** The operation for size and opc (C4.1.93.29); 0: PRFM, 1: none. */
function access(size: u32, opc: u32): u32 {
  switch (opc) {
    case 0: return STRB + size;
    case 1: return LDRB + size;
    case 2: return size == 3 ? 0 : LDRSB + size;
  }
  return size < 2 ? LDRSB_W + size : 1;
}

@inline
function isStore(operation: i32): bool {
  return operation <= STRX;
}

function literal(slot: usize, code: u32, offset: u32): void {
  const from = <u64>(<i64>offset + (signedField(code, 23, 5) << 2));
  switch (code >> 30) {
    case 0: put(slot, LDRW_LITERAL, target(code), 0, 0, from); return;
    case 1: put(slot, LDRX_LITERAL, target(code), 0, 0, from); return;
    case 2: put(slot, LDRSW_LITERAL, target(code), 0, 0, from); return;
  }
  put(slot, NOP, 0, 0, 0, 0);
}

function single(slot: usize, code: u32): void {
  const operation = access(code >> 30, (code >> 22) & 3);
  if (operation == 1) return illegal(slot, code);
  const n = orSp(code >> 5);
  if ((code >> 24) & 1) {
    const size = code >> 30;
    if (operation == 0) put(slot, NOP, 0, 0, 0, 0);
    else put(slot, operation, isStore(operation) ? source(code) : target(code), n, 0, <u64>((code >> 10) & 0xfff) << size);
    return;
  }
  const kind = (code >> 10) & 3;
  if ((code >> 21) & 1) {
    if (kind != 2) return illegal(slot, code); // atomics
    const option = (code >> 13) & 7;
    if (!(option & 2)) return illegal(slot, code);
    if (operation == 0) return put(slot, NOP, 0, 0, 0, 0);
    const amount: u32 = (code >> 12) & 1 ? code >> 30 : 0;
    const data = isStore(operation) ? source(code) : target(code);
    put(slot, operation - STRB + STRB_REG, data, n, source(code >> 16), extension(option, amount));
    return;
  }
  const by = signedField(code, 20, 12);
  if (operation == 0) { // PRFUM; nothing else of PRFM has these forms
    if (kind == 0) put(slot, NOP, 0, 0, 0, 0);
    else illegal(slot, code);
    return;
  }
  const data = isStore(operation) ? source(code) : target(code);
  switch (kind) {
    case 0: put(slot, operation, data, n, 0, <u64>by); return;
    case 1: put(slot, operation - STRB + STRB_WB, data, n, 0, <u64>by << 32); return;
    case 2: put(slot, operation - STRB + STRB_USER, data, n, 0, <u64>by); return;
  }
  put(slot, operation - STRB + STRB_WB, data, n, 0, (<u64>by << 32) | (<u64>by & 0xffffffff));
}

function pair(slot: usize, code: u32): void {
  const opc = code >> 30;
  const loads = (code >> 22) & 1;
  const mode = (code >> 23) & 3; // no allocate, post-indexed, offset, pre-indexed
  if (opc == 3 || (opc == 1 && (!loads || mode == 0))) return illegal(slot, code);
  const by = signedField(code, 21, 15) << (opc == 2 ? 3 : 2);
  const written = mode == 1 || mode == 3;
  let operation: u32;
  if (!loads) operation = opc == 2 ? (written ? STP_WB : STP) : written ? STP_W_WB : STP_W;
  else if (opc == 1) operation = written ? LDPSW_WB : LDPSW;
  else operation = opc == 2 ? (written ? LDP_WB : LDP) : written ? LDP_W_WB : LDP_W;
  const first = loads ? target(code) : source(code);
  const second = loads ? target(code >> 10) : source(code >> 10);
  const access: u64 = mode == 1 ? 0 : <u64>by & 0xffffffff;
  put(slot, operation, first, orSp(code >> 5), second, access | (written ? <u64>by << 32 : 0));
}

