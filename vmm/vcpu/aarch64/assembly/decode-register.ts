// Data processing on registers (DDI 0487, C4.1.94): slots of arithmetic, logic, conditional selects and compares, products, shifts and counts.
import {
  ADC, ADCS, ADD, ADDS, ADDS_EXTEND, ADDS_SHIFT, ADD_EXTEND, ADD_SHIFT, AND, ANDS, ANDS_SHIFT, AND_SHIFT, ASRV, BIC, BICS_SHIFT, BIC_SHIFT, CCMN,
  CCMP, CLS, CLS_W, CLZ, CLZ_W, CSEL, CSINC, CSINV, CSNEG, EON_SHIFT, EOR, EOR_SHIFT, LSLV, LSRV, MADD, MOV, MSUB, ORN_SHIFT, ORR, ORR_SHIFT, RAW,
  RBIT, RBIT_W, REV, REV16, REV16_W, REV32, REV_W, RORV, SBC, SBCS, SDIV, SMADDL, SMSUBL, SMULH, SUB, SUBS, SUBS_EXTEND, SUBS_SHIFT, SUB_EXTEND,
  SUB_SHIFT, UDIV, UMADDL, UMSUBL, UMULH,
} from "./opcodes";
import { conditionBits, illegal, orSp, put, source, target } from "./slot";

export function decodeRegister(slot: usize, code: u32): void {
  if (!((code >> 28) & 1)) {
    if (!((code >> 24) & 1)) logicalShifted(slot, code);
    else if ((code >> 21) & 1) addExtended(slot, code);
    else addShifted(slot, code);
    return;
  }
  switch ((code >> 21) & 15) {
    case 0: withCarry(slot, code); return;
    case 2: compareOnCondition(slot, code); return;
    case 4: select(slot, code); return;
    case 6:
      if ((code >> 30) & 1) oneSource(slot, code);
      else twoSources(slot, code);
      return;
  }
  if ((code >> 24) & 1) threeSources(slot, code);
  else illegal(slot, code);
}

/** The 32-bit form of an operation is the one behind it. */
@inline
function form(operation: u32, code: u32): u32 {
  return code >> 31 ? operation : operation + 1;
}

function logicalShifted(slot: usize, code: u32): void {
  const amount = (code >> 10) & 63;
  if (amount > 31 && !(code >> 31)) return illegal(slot, code);
  const shift = ((code >> 22) & 3) * 64 + amount;
  const d = target(code);
  const n = source(code >> 5);
  const m = source(code >> 16);
  const plain = amount == 0;
  let operation: u32 = 0;
  switch (((code >> 28) & 6) | ((code >> 21) & 1)) {
    case 0: operation = plain ? AND : AND_SHIFT; break;
    case 1: operation = plain ? BIC : BIC_SHIFT; break;
    case 2:
      if (plain && ((code >> 5) & 31) == 31) operation = MOV;
      else operation = plain ? ORR : ORR_SHIFT;
      break;
    case 3: operation = ORN_SHIFT; break;
    case 4: operation = plain ? EOR : EOR_SHIFT; break;
    case 5: operation = EON_SHIFT; break;
    case 6: operation = plain ? ANDS : ANDS_SHIFT; break;
    case 7: operation = BICS_SHIFT; break;
  }
  put(slot, form(operation, code), d, n, m, shift);
}

function addShifted(slot: usize, code: u32): void {
  const amount = (code >> 10) & 63;
  const type = (code >> 22) & 3;
  if (type == 3 || (amount > 31 && !(code >> 31))) return illegal(slot, code);
  const plain = amount == 0;
  let operation: u32 = 0;
  switch ((code >> 29) & 3) {
    case 0: operation = plain ? ADD : ADD_SHIFT; break;
    case 1: operation = plain ? ADDS : ADDS_SHIFT; break;
    case 2: operation = plain ? SUB : SUB_SHIFT; break;
    case 3: operation = plain ? SUBS : SUBS_SHIFT; break;
  }
  put(slot, form(operation, code), target(code), source(code >> 5), source(code >> 16), type * 64 + amount);
}

/** What extension `option` does, as opcodes.ts has it: bits above the operand, signed, and how far left. */
export function extension(option: u32, amount: u32): u64 {
  const above: u32 = 64 - (8 << (option & 3));
  return above | ((option >> 2) << 8) | (amount << 16);
}

function addExtended(slot: usize, code: u32): void {
  const amount = (code >> 10) & 7;
  if (amount > 4 || (code >> 22) & 3) return illegal(slot, code);
  const option = (code >> 13) & 7;
  let operation: u32 = 0;
  const sets = (code >> 29) & 1;
  switch ((code >> 29) & 3) {
    case 0: operation = ADD_EXTEND; break;
    case 1: operation = ADDS_EXTEND; break;
    case 2: operation = SUB_EXTEND; break;
    case 3: operation = SUBS_EXTEND; break;
  }
  put(slot, form(operation, code), sets ? target(code) : orSp(code), orSp(code >> 5), source(code >> 16), extension(option, amount));
}

function withCarry(slot: usize, code: u32): void {
  if (code & 0xfc00) return illegal(slot, code);
  let operation: u32 = 0;
  switch ((code >> 29) & 3) {
    case 0: operation = ADC; break;
    case 1: operation = ADCS; break;
    case 2: operation = SBC; break;
    case 3: operation = SBCS; break;
  }
  put(slot, form(operation, code), target(code), source(code >> 5), source(code >> 16), 0);
}

function compareOnCondition(slot: usize, code: u32): void {
  if (code & 0x410 || !((code >> 29) & 1)) return illegal(slot, code);
  const immediate = (code >> 11) & 1;
  const operation: u32 = (code >> 30) & 1 ? CCMP : CCMN;
  const operand = (code >> 16) & 31;
  const rest = <u64>conditionBits((code >> 12) & 15) | (<u64>(code & 15) << 16) | (immediate ? <u64>operand << 32 : 0);
  put(slot, form(operation, code), 0, source(code >> 5), source(immediate ? 31 : operand), rest);
}

function select(slot: usize, code: u32): void {
  if (code & 0x20000800) return illegal(slot, code);
  let operation: u32 = 0;
  switch (((code >> 29) & 2) | ((code >> 10) & 1)) {
    case 0: operation = CSEL; break;
    case 1: operation = CSINC; break;
    case 2: operation = CSINV; break;
    case 3: operation = CSNEG; break;
  }
  put(slot, form(operation, code), target(code), source(code >> 5), source(code >> 16), conditionBits((code >> 12) & 15));
}

function oneSource(slot: usize, code: u32): void {
  const wide = code >> 31;
  let operation: u32 = 0;
  if ((code & 0x203f0000) == 0) {
    switch ((code >> 10) & 63) {
      case 0: operation = wide ? RBIT : RBIT_W; break;
      case 1: operation = wide ? REV16 : REV16_W; break;
      case 2: operation = wide ? REV32 : REV_W; break;
      case 3: operation = wide ? REV : 0; break;
      case 4: operation = wide ? CLZ : CLZ_W; break;
      case 5: operation = wide ? CLS : CLS_W; break;
    }
  }
  if (operation) put(slot, operation, target(code), source(code >> 5), 0, 0);
  else illegal(slot, code);
}

function twoSources(slot: usize, code: u32): void {
  let operation: u32 = 0;
  if (!((code >> 29) & 1)) {
    switch ((code >> 10) & 63) {
      case 2: operation = UDIV; break;
      case 3: operation = SDIV; break;
      case 8: operation = LSLV; break;
      case 9: operation = LSRV; break;
      case 10: operation = ASRV; break;
      case 11: operation = RORV; break;
      case 16: case 17: case 18: case 19: case 20: case 21: case 22: case 23: // CRC32, CRC32C
        put(slot, RAW, 0, 0, 0, code);
        return;
    }
  }
  if (operation) put(slot, form(operation, code), target(code), source(code >> 5), source(code >> 16), 0);
  else illegal(slot, code);
}

/** The third source stands in the immediate. */
function threeSources(slot: usize, code: u32): void {
  const subtracts = (code >> 15) & 1;
  let operation: u32 = 0;
  switch ((code >> 21) & 7) {
    case 0: operation = form(subtracts ? MSUB : MADD, code); break;
    case 1: operation = subtracts ? SMSUBL : SMADDL; break;
    case 2: operation = subtracts ? 0 : SMULH; break;
    case 5: operation = subtracts ? UMSUBL : UMADDL; break;
    case 6: operation = subtracts ? 0 : UMULH; break;
  }
  const long = ((code >> 21) & 7) != 0;
  if ((code >> 29) & 3 || operation == 0 || (long && !(code >> 31))) return illegal(slot, code);
  put(slot, operation, target(code), source(code >> 5), source(code >> 16), source(code >> 10));
}
