// Data processing with an immediate (DDI 0487, C4.1.92): slots of ADR, ADD, AND, MOV, bit fields, EXTR and their kin.
import {
  ADDI, ADDI_W, ADDSI, ADDSI_W, ADR, ANDI, ANDSI, ANDSI_W, BFI, BFI_W, BFXIL, BFXIL_W, EORI, EORI_W, EXTR, EXTR_W, MOVI, MOVK, MOVK_W, ORRI, ORRI_W,
  SBF, SBF_W, SUBSI, SUBSI_W, UBFIZ, UBFX,
} from "./opcodes";
import { illegal, orSp, put, signedField, source, target } from "./slot";

/** The low `count` bits; count 1…64. */
@inline
function ones(count: u32): u64 {
  return count == 64 ? <u64>-1 : ((<u64>1) << count) - 1;
}

export function decodeImmediate(slot: usize, code: u32, offset: u32): void {
  const wide = code >> 31;
  const d = code & 31;
  const n = (code >> 5) & 31;
  switch ((code >> 23) & 7) {
    case 0: case 1: { // ADR, ADRP: the immediate counts from the page
      const distance = (signedField(code, 23, 5) << 2) | <i64>((code >> 29) & 3);
      put(slot, ADR, target(d), 0, 0, <u64>(wide ? distance << 12 : distance + <i64>offset));
      return;
    }
    case 2: addSubtract(slot, code); return;
    case 4: logical(slot, code); return;
    case 5: moveWide(slot, code); return;
    case 6: bitField(slot, code); return;
    case 7: { // EXTR
      const amount = (code >> 10) & 63;
      if ((code & 0x60200000) != 0 || ((code >> 22) & 1) != wide || (!wide && amount > 31)) break;
      put(slot, wide ? EXTR : EXTR_W, target(d), source(n), source(code >> 16), amount);
      return;
    }
  }
  illegal(slot, code);
}

function addSubtract(slot: usize, code: u32): void {
  let value = <u64>((code >> 10) & 0xfff);
  if (code & (1 << 22)) value <<= 12;
  const wide = code >> 31;
  const n = orSp(code >> 5);
  const subtracts = (code >> 30) & 1;
  if (code & (1 << 29)) {
    const operation: u32 = subtracts ? (wide ? SUBSI : SUBSI_W) : wide ? ADDSI : ADDSI_W;
    put(slot, operation, target(code), n, 0, value);
  } else put(slot, wide ? ADDI : ADDI_W, orSp(code), n, 0, subtracts ? 0 - value : value);
}

/** The bitmask immediate N:immr:imms (DecodeBitMasks); 0 if reserved, which no bitmask is. */
export function bitmask(code: u32, wide: u32): u64 {
  const n = (code >> 22) & 1;
  const rotation = (code >> 16) & 63;
  const length = (code >> 10) & 63;
  if (n && !wide) return 0;
  const pattern = (n << 6) | (~length & 63);
  if (pattern < 2) return 0;
  const size: u32 = 1 << (31 - clz<u32>(pattern));
  const set = (length & (size - 1)) + 1;
  if (set == size) return 0;
  const turn = rotation & (size - 1);
  let element = ones(set);
  if (turn) element = ((element >> turn) | (element << (size - turn))) & ones(size);
  for (let width = size; width < 64; width <<= 1) element |= element << width;
  return wide ? element : element & 0xffffffff;
}

function logical(slot: usize, code: u32): void {
  const wide = code >> 31;
  const mask = bitmask(code, wide);
  if (mask == 0) return illegal(slot, code);
  const n = source(code >> 5);
  switch ((code >> 29) & 3) {
    case 0: put(slot, ANDI, orSp(code), n, 0, mask); return;
    case 1: put(slot, wide ? ORRI : ORRI_W, orSp(code), n, 0, mask); return;
    case 2: put(slot, wide ? EORI : EORI_W, orSp(code), n, 0, mask); return;
  }
  put(slot, wide ? ANDSI : ANDSI_W, target(code), n, 0, mask);
}

function moveWide(slot: usize, code: u32): void {
  const wide = code >> 31;
  const shift = ((code >> 21) & 3) * 16;
  if (!wide && shift > 16) return illegal(slot, code);
  const value = <u64>((code >> 5) & 0xffff) << shift;
  const d = target(code);
  switch ((code >> 29) & 3) {
    case 0: put(slot, MOVI, d, 0, 0, wide ? ~value : ~value & 0xffffffff); return;
    case 2: put(slot, MOVI, d, 0, 0, value); return;
    case 3: put(slot, wide ? MOVK : MOVK_W, d, source(code), shift, value); return;
  }
  illegal(slot, code);
}

/** SBFM, BFM, UBFM, as what they do: a field of n moved down to bit 0, or from bit 0 up. */
function bitField(slot: usize, code: u32): void {
  const wide = code >> 31;
  const from = (code >> 16) & 63; // immr
  const last = (code >> 10) & 63; // imms
  const bits: u32 = wide ? 64 : 32;
  if (((code >> 22) & 1) != wide || from >= bits || last >= bits) return illegal(slot, code);
  const down = last >= from;
  const mask = down ? ones(last - from + 1) : ones(last + 1);
  const shift = down ? from : bits - from;
  const d = target(code);
  const n = source(code >> 5);
  switch ((code >> 29) & 3) {
    case 0: {
      // the field's top bit to the register's top, then down, signed; its bottom bit ends at bit 0 or at `shift`
      const up: u32 = bits - 1 - last;
      put(slot, wide ? SBF : SBF_W, d, n, up, down ? up + from : up - (bits - from));
      return;
    }
    case 1:
      // bits of d that are kept are read from its own word
      if (down) put(slot, wide ? BFXIL : BFXIL_W, d, n, shift, mask);
      else put(slot, wide ? BFI : BFI_W, d, n, shift, mask);
      return;
    case 2: put(slot, down ? UBFX : UBFIZ, d, n, shift, mask); return;
  }
  illegal(slot, code);
}
