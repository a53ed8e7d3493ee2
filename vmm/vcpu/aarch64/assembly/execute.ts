// The interpreter's loop over decoded slots. Registers, TLBs and slots live in linear memory at constant addresses; in locals are the slot pointer, the
// countdown and the current page. A case is one operation of opcodes.ts.
//
// Nothing in here calls a function: one call anywhere would make the compiler keep the locals on the stack everywhere. What is rare or long
// (missed TLBs, system registers, undecoded slots, exceptions) breaks out of the switch with no target: the loop ends, and step() does that one
// instruction. A jump within the page adds to the slot pointer; every other one breaks with `to` set, and the fetch TLB gives the decode page. A target
// that is not a multiple of 4 finds no page of that number: step() takes the alignment fault.
import {
  ldp, ldpSignedWords, ldpWords, ldrb, ldrh, ldrsb, ldrsbWord, ldrsh, ldrshWord, ldrsw, ldrw, ldrx, stp, stpWords, strb, strh, strw, strx, zeroBlock,
} from "./access";
import {
  countSigns, divideSigned, divideSignedWord, divideUnsigned, divideUnsignedWord, extended, flagsOfDifference, flagsOfDifferenceWord, flagsOfSum,
  flagsOfSumWord, low, multiplyHighSigned, reverseBits, shifted, shiftedWord, swapHalfwordBytes, swapWordBytes,
} from "./arithmetic";
import { multiplyHigh } from "../../engine/assembly/arithmetic";
import { PAGE_MASK, RESUME, STEP } from "../../engine/assembly/isa";
import { LEFT, PAGE_BASE, PAGE_VA, PC, REFETCH, SLOT } from "../../engine/assembly/layout";
import { dataTable, fetchTable, place } from "../../engine/assembly/tlb";
import { EL, NZCV, SP, SPSEL } from "./layout";
import { NO_CONTEXT, SP_FIELD } from "./stack-pointer";
import {
  ADC, ADCS, ADCS_W, ADC_W, ADD, ADDI, ADDI_W, ADDS, ADDSI, ADDSI_W, ADDS_EXTEND, ADDS_EXTEND_W, ADDS_SHIFT, ADDS_SHIFT_W, ADDS_W, ADD_EXTEND,
  ADD_EXTEND_W, ADD_SHIFT, ADD_SHIFT_W, ADD_W, ADR, AND, ANDI, ANDS, ANDSI, ANDSI_W, ANDS_SHIFT, ANDS_SHIFT_W, ANDS_W, AND_SHIFT, AND_SHIFT_W, AND_W,
  ASRV, ASRV_W, B, BFI, BFI_W, BFXIL, BFXIL_W, BIC, BICS_SHIFT, BICS_SHIFT_W, BIC_SHIFT, BIC_SHIFT_W, BIC_W, BL, BLR, BL_FAR, BR, B_COND, B_COND_FAR,
  B_FAR, CBNZ, CBNZ_FAR, CBNZ_W, CBNZ_W_FAR, CBZ, CBZ_FAR, CBZ_W, CBZ_W_FAR, CCMN, CCMN_W, CCMP, CCMP_W, CLS, CLS_W, CLZ, CLZ_W, CSEL, CSEL_W, CSINC,
  CSINC_W, CSINV, CSINV_W, CSNEG, CSNEG_W, EON_SHIFT, EON_SHIFT_W, EOR, EORI, EORI_W, EOR_SHIFT, EOR_SHIFT_W, EOR_W, EXTR, EXTR_W, LDP, LDPSW,
  LDPSW_WB, LDP_W, LDP_WB, LDP_W_WB, LDRB, LDRB_REG, LDRB_USER, LDRB_WB, LDRH, LDRH_REG, LDRH_USER, LDRH_WB, LDRSB, LDRSB_REG, LDRSB_USER, LDRSB_W,
  LDRSB_WB, LDRSB_W_REG, LDRSB_W_USER, LDRSB_W_WB, LDRSH, LDRSH_REG, LDRSH_USER, LDRSH_W, LDRSH_WB, LDRSH_W_REG, LDRSH_W_USER, LDRSH_W_WB, LDRSW,
  LDRSW_LITERAL, LDRSW_REG, LDRSW_USER, LDRSW_WB, LDRW, LDRW_LITERAL, LDRW_REG, LDRW_USER, LDRW_WB, LDRX, LDRX_LITERAL, LDRX_REG, LDRX_USER, LDRX_WB,
  LSLV, LSLV_W, LSRV, LSRV_W, MADD, MADD_W, MOV, MOVI, MOVK, MOVK_W, MOV_W, MRS_EL0, MRS_EL1, MSUB, MSUB_W, NOP, ORN_SHIFT, ORN_SHIFT_W, ORR, ORRI,
  ORRI_W, ORR_SHIFT, ORR_SHIFT_W, ORR_W, RBIT, RBIT_W, REV, REV16, REV16_W, REV32, REV_W, RORV, RORV_W, SBC, SBCS, SBCS_W, SBC_W, SBF, SBF_W, SDIV,
  SDIV_W, SMADDL, SMSUBL, SMULH, STP, STP_W, STP_WB, STP_W_WB, STRB, STRB_REG, STRB_USER, STRB_WB, STRH, STRH_REG, STRH_USER, STRH_WB, STRW, STRW_REG,
  STRW_USER, STRW_WB, STRX, STRX_REG, STRX_USER, STRX_WB, SUB, SUBS, SUBSI, SUBSI_W, SUBS_EXTEND, SUBS_EXTEND_W, SUBS_SHIFT, SUBS_SHIFT_W, SUBS_W,
  SUB_EXTEND, SUB_EXTEND_W, SUB_SHIFT, SUB_SHIFT_W, SUB_W, TBNZ, TBNZ_FAR, TBZ, TBZ_FAR, UBFIZ, UBFX, UDIV, UDIV_W, UMADDL, UMSUBL, UMULH, ZVA,
} from "./opcodes";
import {
  a, accessOffset, b, carry, d, distance, growth, holds, how, immediate, otherwise, set, setBase, setDifference, setDifferenceWord, setLink, setLogic,
  setLogicWord, setSum, setSumWord, setWithCarry, setWithCarryWord, shift, third,
} from "./slot-fields";

@inline
function save(ip: usize, n: u32, pageVa: u64, pageBase: usize): void {
  store<u64>(PC, pageVa + (<u64>(ip - pageBase) >> 2));
  store<u32>(LEFT, n);
  store<u32>(SLOT, ip);
  store<u64>(PAGE_VA, pageVa);
  store<u32>(PAGE_BASE, pageBase);
}

/** `tlb`; where the base is SP and SP is no multiple of 16 a table that holds nothing: step() looks whether that is a fault (stack-pointer.ts). */
@inline
function based(tlb: usize, ip: usize): usize {
  return load<u16>(ip, 4) == SP_FIELD && (load<u32>(SP) & 15) != 0 ? dataTable(NO_CONTEXT) : tlb;
}

/** No instruction begins there. */
const NOWHERE: u64 = 1;

/** Runs at most `n` instructions from slot `ip`; PAGE_VA and PAGE_BASE describe its page. Leaves PC and LEFT; returns RESUME or STEP. */
export function execute(ip: usize, n: u32): u32 {
  let pageVa = load<u64>(PAGE_VA);
  let pageBase: usize = load<u32>(PAGE_BASE);
  const tlb = dataTable(load<u32>(EL));
  const userTlb = dataTable(0);
  const fetch = fetchTable(load<u32>(EL));
  let to = NOWHERE;
  for (;;) {
    if (n == 0) {
      save(ip, n, pageVa, pageBase);
      return RESUME;
    }
    n--;
    switch (<i32>load<u16>(ip)) {
      case REFETCH:
        n++;
        to = pageVa + (<u64>(ip - pageBase) >> 2);
        break;
      case NOP:  ip += 16; continue;
      case MOVI: set(ip, immediate(ip)); ip += 16; continue;
      case ADR: set(ip, pageVa + immediate(ip)); ip += 16; continue;
      case MOVK: set(ip, (a(ip) & ~(<u64>0xffff << shift(ip))) | immediate(ip)); ip += 16; continue;
      case MOVK_W: set(ip, low((a(ip) & ~(<u64>0xffff << shift(ip))) | immediate(ip))); ip += 16; continue;
      case MOV: set(ip, b(ip)); ip += 16; continue;
      case MOV_W: set(ip, low(b(ip))); ip += 16; continue;
      case ADDI: set(ip, a(ip) + immediate(ip)); ip += 16; continue;
      case ADDI_W: set(ip, low(a(ip) + immediate(ip))); ip += 16; continue;
      case ADDSI: setSum(ip, a(ip), immediate(ip)); ip += 16; continue;
      case ADDSI_W: setSumWord(ip, <u32>a(ip), <u32>immediate(ip)); ip += 16; continue;
      case SUBSI: setDifference(ip, a(ip), immediate(ip)); ip += 16; continue;
      case SUBSI_W: setDifferenceWord(ip, <u32>a(ip), <u32>immediate(ip)); ip += 16; continue;
      case ANDI: set(ip, a(ip) & immediate(ip)); ip += 16; continue;
      case ORRI: set(ip, a(ip) | immediate(ip)); ip += 16; continue;
      case ORRI_W: set(ip, low(a(ip) | immediate(ip))); ip += 16; continue;
      case EORI: set(ip, a(ip) ^ immediate(ip)); ip += 16; continue;
      case EORI_W: set(ip, low(a(ip) ^ immediate(ip))); ip += 16; continue;
      case ANDSI: setLogic(ip, a(ip) & immediate(ip)); ip += 16; continue;
      case ANDSI_W: setLogicWord(ip, <u32>(a(ip) & immediate(ip))); ip += 16; continue;
      case UBFX: set(ip, (a(ip) >> shift(ip)) & immediate(ip)); ip += 16; continue;
      case UBFIZ: set(ip, (a(ip) & immediate(ip)) << shift(ip)); ip += 16; continue;
      case SBF: set(ip, <u64>(<i64>(a(ip) << shift(ip)) >> immediate(ip))); ip += 16; continue;
      case SBF_W: set(ip, <u64>(<u32>(<i32>(<u32>a(ip) << <u32>shift(ip)) >> <i32>immediate(ip)))); ip += 16; continue;
      case BFI: set(ip, (d(ip) & ~(immediate(ip) << shift(ip))) | ((a(ip) & immediate(ip)) << shift(ip))); ip += 16; continue;
      case BFI_W: set(ip, low((d(ip) & ~(immediate(ip) << shift(ip))) | ((a(ip) & immediate(ip)) << shift(ip)))); ip += 16; continue;
      case BFXIL: set(ip, (d(ip) & ~immediate(ip)) | ((a(ip) >> shift(ip)) & immediate(ip))); ip += 16; continue;
      case BFXIL_W: set(ip, low((d(ip) & ~immediate(ip)) | ((a(ip) >> shift(ip)) & immediate(ip)))); ip += 16; continue;
      case EXTR: {
        const amount = immediate(ip);
        set(ip, amount == 0 ? b(ip) : (b(ip) >> amount) | (a(ip) << (64 - amount)));
        ip += 16;
        continue;
      }
      case EXTR_W: set(ip, low(((low(b(ip)) | (a(ip) << 32)) >> immediate(ip)))); ip += 16; continue;
      case ADD: set(ip, a(ip) + b(ip)); ip += 16; continue;
      case ADD_W: set(ip, low(a(ip) + b(ip))); ip += 16; continue;
      case SUB: set(ip, a(ip) - b(ip)); ip += 16; continue;
      case SUB_W: set(ip, low(a(ip) - b(ip))); ip += 16; continue;
      case AND: set(ip, a(ip) & b(ip)); ip += 16; continue;
      case AND_W: set(ip, low(a(ip) & b(ip))); ip += 16; continue;
      case ORR: set(ip, a(ip) | b(ip)); ip += 16; continue;
      case ORR_W: set(ip, low(a(ip) | b(ip))); ip += 16; continue;
      case EOR: set(ip, a(ip) ^ b(ip)); ip += 16; continue;
      case EOR_W: set(ip, low(a(ip) ^ b(ip))); ip += 16; continue;
      case BIC: set(ip, a(ip) & ~b(ip)); ip += 16; continue;
      case BIC_W: set(ip, low(a(ip) & ~b(ip))); ip += 16; continue;
      case ADDS: setSum(ip, a(ip), b(ip)); ip += 16; continue;
      case ADDS_W: setSumWord(ip, <u32>a(ip), <u32>b(ip)); ip += 16; continue;
      case SUBS: setDifference(ip, a(ip), b(ip)); ip += 16; continue;
      case SUBS_W: setDifferenceWord(ip, <u32>a(ip), <u32>b(ip)); ip += 16; continue;
      case ANDS: setLogic(ip, a(ip) & b(ip)); ip += 16; continue;
      case ANDS_W: setLogicWord(ip, <u32>(a(ip) & b(ip))); ip += 16; continue;
      case ADD_SHIFT: set(ip, a(ip) + shifted(b(ip), how(ip))); ip += 16; continue;
      case ADD_SHIFT_W: set(ip, <u64>(<u32>a(ip) + shiftedWord(<u32>b(ip), how(ip)))); ip += 16; continue;
      case SUB_SHIFT: set(ip, a(ip) - shifted(b(ip), how(ip))); ip += 16; continue;
      case SUB_SHIFT_W: set(ip, <u64>(<u32>a(ip) - shiftedWord(<u32>b(ip), how(ip)))); ip += 16; continue;
      case AND_SHIFT: set(ip, a(ip) & shifted(b(ip), how(ip))); ip += 16; continue;
      case AND_SHIFT_W: set(ip, <u64>(<u32>a(ip) & shiftedWord(<u32>b(ip), how(ip)))); ip += 16; continue;
      case BIC_SHIFT: set(ip, a(ip) & ~shifted(b(ip), how(ip))); ip += 16; continue;
      case BIC_SHIFT_W: set(ip, <u64>(<u32>a(ip) & ~shiftedWord(<u32>b(ip), how(ip)))); ip += 16; continue;
      case ORR_SHIFT: set(ip, a(ip) | shifted(b(ip), how(ip))); ip += 16; continue;
      case ORR_SHIFT_W: set(ip, <u64>(<u32>a(ip) | shiftedWord(<u32>b(ip), how(ip)))); ip += 16; continue;
      case ORN_SHIFT: set(ip, a(ip) | ~shifted(b(ip), how(ip))); ip += 16; continue;
      case ORN_SHIFT_W: set(ip, <u64>(<u32>a(ip) | ~shiftedWord(<u32>b(ip), how(ip)))); ip += 16; continue;
      case EOR_SHIFT: set(ip, a(ip) ^ shifted(b(ip), how(ip))); ip += 16; continue;
      case EOR_SHIFT_W: set(ip, <u64>(<u32>a(ip) ^ shiftedWord(<u32>b(ip), how(ip)))); ip += 16; continue;
      case EON_SHIFT: set(ip, a(ip) ^ ~shifted(b(ip), how(ip))); ip += 16; continue;
      case EON_SHIFT_W: set(ip, <u64>(<u32>a(ip) ^ ~shiftedWord(<u32>b(ip), how(ip)))); ip += 16; continue;
      case ADDS_SHIFT: setSum(ip, a(ip), shifted(b(ip), how(ip))); ip += 16; continue;
      case ADDS_SHIFT_W: setSumWord(ip, <u32>a(ip), <u32>shiftedWord(<u32>b(ip), how(ip))); ip += 16; continue;
      case SUBS_SHIFT: setDifference(ip, a(ip), shifted(b(ip), how(ip))); ip += 16; continue;
      case SUBS_SHIFT_W: setDifferenceWord(ip, <u32>a(ip), <u32>shiftedWord(<u32>b(ip), how(ip))); ip += 16; continue;
      case ANDS_SHIFT: setLogic(ip, a(ip) & shifted(b(ip), how(ip))); ip += 16; continue;
      case ANDS_SHIFT_W: setLogicWord(ip, <u32>(<u32>a(ip) & shiftedWord(<u32>b(ip), how(ip)))); ip += 16; continue;
      case BICS_SHIFT: setLogic(ip, a(ip) & ~shifted(b(ip), how(ip))); ip += 16; continue;
      case BICS_SHIFT_W: setLogicWord(ip, <u32>(<u32>a(ip) & ~shiftedWord(<u32>b(ip), how(ip)))); ip += 16; continue;
      case ADD_EXTEND: set(ip, a(ip) + extended(b(ip), how(ip))); ip += 16; continue;
      case ADD_EXTEND_W: set(ip, low(a(ip) + extended(b(ip), how(ip)))); ip += 16; continue;
      case SUB_EXTEND: set(ip, a(ip) - extended(b(ip), how(ip))); ip += 16; continue;
      case SUB_EXTEND_W: set(ip, low(a(ip) - extended(b(ip), how(ip)))); ip += 16; continue;
      case ADDS_EXTEND: setSum(ip, a(ip), extended(b(ip), how(ip))); ip += 16; continue;
      case ADDS_EXTEND_W: setSumWord(ip, <u32>a(ip), <u32>extended(b(ip), how(ip))); ip += 16; continue;
      case SUBS_EXTEND: setDifference(ip, a(ip), extended(b(ip), how(ip))); ip += 16; continue;
      case SUBS_EXTEND_W: setDifferenceWord(ip, <u32>a(ip), <u32>extended(b(ip), how(ip))); ip += 16; continue;
      case ADC: set(ip, a(ip) + b(ip) + carry()); ip += 16; continue;
      case ADC_W: set(ip, low(a(ip) + b(ip) + carry())); ip += 16; continue;
      case SBC: set(ip, a(ip) + ~b(ip) + carry()); ip += 16; continue;
      case SBC_W: set(ip, low(a(ip) + ~b(ip) + carry())); ip += 16; continue;
      case ADCS: setWithCarry(ip, a(ip), b(ip), carry()); ip += 16; continue;
      case ADCS_W: setWithCarryWord(ip, <u32>a(ip), <u32>b(ip), <u32>carry()); ip += 16; continue;
      case SBCS: setWithCarry(ip, a(ip), ~b(ip), carry()); ip += 16; continue;
      case SBCS_W: setWithCarryWord(ip, <u32>a(ip), ~<u32>b(ip), <u32>carry()); ip += 16; continue;
      case CSEL: set(ip, holds(ip) ? a(ip) : b(ip)); ip += 16; continue;
      case CSEL_W: set(ip, low(holds(ip) ? a(ip) : b(ip))); ip += 16; continue;
      case CSINC: set(ip, holds(ip) ? a(ip) : b(ip) + 1); ip += 16; continue;
      case CSINC_W: set(ip, low(holds(ip) ? a(ip) : b(ip) + 1)); ip += 16; continue;
      case CSINV: set(ip, holds(ip) ? a(ip) : ~b(ip)); ip += 16; continue;
      case CSINV_W: set(ip, low(holds(ip) ? a(ip) : ~b(ip))); ip += 16; continue;
      case CSNEG: set(ip, holds(ip) ? a(ip) : 0 - b(ip)); ip += 16; continue;
      case CSNEG_W: set(ip, low(holds(ip) ? a(ip) : 0 - b(ip))); ip += 16; continue;
      case CCMP: store<u32>(NZCV, holds(ip) ? flagsOfDifference(a(ip), b(ip) + <u64>load<u32>(ip, 12)) : otherwise(ip)); ip += 16; continue;
      case CCMP_W: store<u32>(NZCV, holds(ip) ? flagsOfDifferenceWord(<u32>a(ip), <u32>b(ip) + load<u32>(ip, 12)) : otherwise(ip)); ip += 16; continue;
      case CCMN: store<u32>(NZCV, holds(ip) ? flagsOfSum(a(ip), b(ip) + <u64>load<u32>(ip, 12)) : otherwise(ip)); ip += 16; continue;
      case CCMN_W: store<u32>(NZCV, holds(ip) ? flagsOfSumWord(<u32>a(ip), <u32>b(ip) + load<u32>(ip, 12)) : otherwise(ip)); ip += 16; continue;
      case MADD: set(ip, third(ip) + a(ip) * b(ip)); ip += 16; continue;
      case MADD_W: set(ip, low(third(ip) + a(ip) * b(ip))); ip += 16; continue;
      case MSUB: set(ip, third(ip) - a(ip) * b(ip)); ip += 16; continue;
      case MSUB_W: set(ip, low(third(ip) - a(ip) * b(ip))); ip += 16; continue;
      case SMADDL: set(ip, third(ip) + <u64>(<i64><i32>a(ip) * <i64><i32>b(ip))); ip += 16; continue;
      case UMADDL: set(ip, third(ip) + low(a(ip)) * low(b(ip))); ip += 16; continue;
      case SMSUBL: set(ip, third(ip) - <u64>(<i64><i32>a(ip) * <i64><i32>b(ip))); ip += 16; continue;
      case UMSUBL: set(ip, third(ip) - low(a(ip)) * low(b(ip))); ip += 16; continue;
      case SMULH: set(ip, multiplyHighSigned(a(ip), b(ip))); ip += 16; continue;
      case UMULH: set(ip, multiplyHigh(a(ip), b(ip))); ip += 16; continue;
      case UDIV: set(ip, divideUnsigned(a(ip), b(ip))); ip += 16; continue;
      case UDIV_W: set(ip, <u64>divideUnsignedWord(<u32>a(ip), <u32>b(ip))); ip += 16; continue;
      case SDIV: set(ip, divideSigned(a(ip), b(ip))); ip += 16; continue;
      case SDIV_W: set(ip, <u64>divideSignedWord(<u32>a(ip), <u32>b(ip))); ip += 16; continue;
      case LSLV: set(ip, a(ip) << (b(ip) & 63)); ip += 16; continue;
      case LSLV_W: set(ip, <u64>(<u32>a(ip) << (<u32>b(ip) & 31))); ip += 16; continue;
      case LSRV: set(ip, a(ip) >> (b(ip) & 63)); ip += 16; continue;
      case LSRV_W: set(ip, <u64>(<u32>a(ip) >> (<u32>b(ip) & 31))); ip += 16; continue;
      case ASRV: set(ip, <u64>(<i64>a(ip) >> (b(ip) & 63))); ip += 16; continue;
      case ASRV_W: set(ip, <u64>(<u32>(<i32>a(ip) >> (<i32>b(ip) & 31)))); ip += 16; continue;
      case RORV: set(ip, rotr<u64>(a(ip), b(ip) & 63)); ip += 16; continue;
      case RORV_W: set(ip, <u64>rotr<u32>(<u32>a(ip), <u32>b(ip) & 31)); ip += 16; continue;
      case CLZ: set(ip, clz<u64>(a(ip))); ip += 16; continue;
      case CLZ_W: set(ip, <u64>clz<u32>(<u32>a(ip))); ip += 16; continue;
      case CLS: set(ip, countSigns(a(ip))); ip += 16; continue;
      case CLS_W: set(ip, countSigns(<u64>(<i64><i32>a(ip))) - 32); ip += 16; continue;
      case RBIT: set(ip, reverseBits(a(ip))); ip += 16; continue;
      case RBIT_W: set(ip, reverseBits(a(ip)) >> 32); ip += 16; continue;
      case REV: set(ip, rotr<u64>(swapWordBytes(a(ip)), 32)); ip += 16; continue;
      case REV_W: set(ip, swapWordBytes(low(a(ip)))); ip += 16; continue;
      case REV16: set(ip, swapHalfwordBytes(a(ip))); ip += 16; continue;
      case REV16_W: set(ip, low(swapHalfwordBytes(a(ip)))); ip += 16; continue;
      case REV32: set(ip, swapWordBytes(a(ip))); ip += 16; continue;
      case B: ip += distance(ip); continue;
      case B_FAR: to = pageVa + (<u64>(ip - pageBase) >> 2) + immediate(ip); break;
      case BL: setLink(pageVa + (<u64>(ip - pageBase) >> 2) + 4); ip += distance(ip); continue;
      case BL_FAR: to = pageVa + (<u64>(ip - pageBase) >> 2) + immediate(ip); setLink(pageVa + (<u64>(ip - pageBase) >> 2) + 4); break;
      case BR:
        if (!(a(ip) & 3)) to = a(ip);
        break;
      case BLR:
        if (a(ip) & 3) break;
        to = a(ip);
        setLink(pageVa + (<u64>(ip - pageBase) >> 2) + 4);
        break;
      case B_COND: if ((load<u16>(ip, 2) >> load<u32>(NZCV)) & 1) ip += distance(ip); else ip += 16; continue;
      case B_COND_FAR:
        if ((load<u16>(ip, 2) >> load<u32>(NZCV)) & 1) {
          to = pageVa + (<u64>(ip - pageBase) >> 2) + immediate(ip);
          break;
        }
        ip += 16;
        continue;
      case CBZ: if (a(ip) == 0) ip += distance(ip); else ip += 16; continue;
      case CBZ_FAR:
        if (a(ip) == 0) {
          to = pageVa + (<u64>(ip - pageBase) >> 2) + immediate(ip);
          break;
        }
        ip += 16;
        continue;
      case CBZ_W: if (<u32>a(ip) == 0) ip += distance(ip); else ip += 16; continue;
      case CBZ_W_FAR:
        if (<u32>a(ip) == 0) {
          to = pageVa + (<u64>(ip - pageBase) >> 2) + immediate(ip);
          break;
        }
        ip += 16;
        continue;
      case CBNZ: if (a(ip) != 0) ip += distance(ip); else ip += 16; continue;
      case CBNZ_FAR:
        if (a(ip) != 0) {
          to = pageVa + (<u64>(ip - pageBase) >> 2) + immediate(ip);
          break;
        }
        ip += 16;
        continue;
      case CBNZ_W: if (<u32>a(ip) != 0) ip += distance(ip); else ip += 16; continue;
      case CBNZ_W_FAR:
        if (<u32>a(ip) != 0) {
          to = pageVa + (<u64>(ip - pageBase) >> 2) + immediate(ip);
          break;
        }
        ip += 16;
        continue;
      case TBZ: if (!((a(ip) >> shift(ip)) & 1)) ip += distance(ip); else ip += 16; continue;
      case TBZ_FAR:
        if (!((a(ip) >> shift(ip)) & 1)) {
          to = pageVa + (<u64>(ip - pageBase) >> 2) + immediate(ip);
          break;
        }
        ip += 16;
        continue;
      case TBNZ: if ((a(ip) >> shift(ip)) & 1) ip += distance(ip); else ip += 16; continue;
      case TBNZ_FAR:
        if ((a(ip) >> shift(ip)) & 1) {
          to = pageVa + (<u64>(ip - pageBase) >> 2) + immediate(ip);
          break;
        }
        ip += 16;
        continue;
      case MRS_EL0: set(ip, load<u64>(<usize>load<u32>(ip, 8))); ip += 16; continue;
      case MRS_EL1:
        if (!(load<u32>(EL) & load<u32>(SPSEL))) break;
        set(ip, load<u64>(<usize>load<u32>(ip, 8)));
        ip += 16;
        continue;
      case ZVA: if (!(zeroBlock(tlb, a(ip)))) break; ip += 16; continue;
      case STRB: if (!(strb(based(tlb, ip), ip, a(ip) + immediate(ip)))) break; ip += 16; continue;
      case STRH: if (!(strh(based(tlb, ip), ip, a(ip) + immediate(ip)))) break; ip += 16; continue;
      case STRW: if (!(strw(based(tlb, ip), ip, a(ip) + immediate(ip)))) break; ip += 16; continue;
      case STRX: if (!(strx(based(tlb, ip), ip, a(ip) + immediate(ip)))) break; ip += 16; continue;
      case LDRB: if (!(ldrb(based(tlb, ip), ip, a(ip) + immediate(ip)))) break; ip += 16; continue;
      case LDRH: if (!(ldrh(based(tlb, ip), ip, a(ip) + immediate(ip)))) break; ip += 16; continue;
      case LDRW: if (!(ldrw(based(tlb, ip), ip, a(ip) + immediate(ip)))) break; ip += 16; continue;
      case LDRX: if (!(ldrx(based(tlb, ip), ip, a(ip) + immediate(ip)))) break; ip += 16; continue;
      case LDRSB: if (!(ldrsb(based(tlb, ip), ip, a(ip) + immediate(ip)))) break; ip += 16; continue;
      case LDRSH: if (!(ldrsh(based(tlb, ip), ip, a(ip) + immediate(ip)))) break; ip += 16; continue;
      case LDRSW: if (!(ldrsw(based(tlb, ip), ip, a(ip) + immediate(ip)))) break; ip += 16; continue;
      case LDRSB_W: if (!(ldrsbWord(based(tlb, ip), ip, a(ip) + immediate(ip)))) break; ip += 16; continue;
      case LDRSH_W: if (!(ldrshWord(based(tlb, ip), ip, a(ip) + immediate(ip)))) break; ip += 16; continue;
      case STRB_WB: {
        const base = a(ip);
        if (!strb(based(tlb, ip), ip, base + accessOffset(ip))) break;
        setBase(ip, base + growth(ip));
        ip += 16;
        continue;
      }
      case STRH_WB: {
        const base = a(ip);
        if (!strh(based(tlb, ip), ip, base + accessOffset(ip))) break;
        setBase(ip, base + growth(ip));
        ip += 16;
        continue;
      }
      case STRW_WB: {
        const base = a(ip);
        if (!strw(based(tlb, ip), ip, base + accessOffset(ip))) break;
        setBase(ip, base + growth(ip));
        ip += 16;
        continue;
      }
      case STRX_WB: {
        const base = a(ip);
        if (!strx(based(tlb, ip), ip, base + accessOffset(ip))) break;
        setBase(ip, base + growth(ip));
        ip += 16;
        continue;
      }
      case LDRB_WB: {
        const base = a(ip);
        if (!ldrb(based(tlb, ip), ip, base + accessOffset(ip))) break;
        setBase(ip, base + growth(ip));
        ip += 16;
        continue;
      }
      case LDRH_WB: {
        const base = a(ip);
        if (!ldrh(based(tlb, ip), ip, base + accessOffset(ip))) break;
        setBase(ip, base + growth(ip));
        ip += 16;
        continue;
      }
      case LDRW_WB: {
        const base = a(ip);
        if (!ldrw(based(tlb, ip), ip, base + accessOffset(ip))) break;
        setBase(ip, base + growth(ip));
        ip += 16;
        continue;
      }
      case LDRX_WB: {
        const base = a(ip);
        if (!ldrx(based(tlb, ip), ip, base + accessOffset(ip))) break;
        setBase(ip, base + growth(ip));
        ip += 16;
        continue;
      }
      case LDRSB_WB: {
        const base = a(ip);
        if (!ldrsb(based(tlb, ip), ip, base + accessOffset(ip))) break;
        setBase(ip, base + growth(ip));
        ip += 16;
        continue;
      }
      case LDRSH_WB: {
        const base = a(ip);
        if (!ldrsh(based(tlb, ip), ip, base + accessOffset(ip))) break;
        setBase(ip, base + growth(ip));
        ip += 16;
        continue;
      }
      case LDRSW_WB: {
        const base = a(ip);
        if (!ldrsw(based(tlb, ip), ip, base + accessOffset(ip))) break;
        setBase(ip, base + growth(ip));
        ip += 16;
        continue;
      }
      case LDRSB_W_WB: {
        const base = a(ip);
        if (!ldrsbWord(based(tlb, ip), ip, base + accessOffset(ip))) break;
        setBase(ip, base + growth(ip));
        ip += 16;
        continue;
      }
      case LDRSH_W_WB: {
        const base = a(ip);
        if (!ldrshWord(based(tlb, ip), ip, base + accessOffset(ip))) break;
        setBase(ip, base + growth(ip));
        ip += 16;
        continue;
      }
      case STRB_REG: if (!(strb(based(tlb, ip), ip, a(ip) + extended(b(ip), how(ip))))) break; ip += 16; continue;
      case STRH_REG: if (!(strh(based(tlb, ip), ip, a(ip) + extended(b(ip), how(ip))))) break; ip += 16; continue;
      case STRW_REG: if (!(strw(based(tlb, ip), ip, a(ip) + extended(b(ip), how(ip))))) break; ip += 16; continue;
      case STRX_REG: if (!(strx(based(tlb, ip), ip, a(ip) + extended(b(ip), how(ip))))) break; ip += 16; continue;
      case LDRB_REG: if (!(ldrb(based(tlb, ip), ip, a(ip) + extended(b(ip), how(ip))))) break; ip += 16; continue;
      case LDRH_REG: if (!(ldrh(based(tlb, ip), ip, a(ip) + extended(b(ip), how(ip))))) break; ip += 16; continue;
      case LDRW_REG: if (!(ldrw(based(tlb, ip), ip, a(ip) + extended(b(ip), how(ip))))) break; ip += 16; continue;
      case LDRX_REG: if (!(ldrx(based(tlb, ip), ip, a(ip) + extended(b(ip), how(ip))))) break; ip += 16; continue;
      case LDRSB_REG: if (!(ldrsb(based(tlb, ip), ip, a(ip) + extended(b(ip), how(ip))))) break; ip += 16; continue;
      case LDRSH_REG: if (!(ldrsh(based(tlb, ip), ip, a(ip) + extended(b(ip), how(ip))))) break; ip += 16; continue;
      case LDRSW_REG: if (!(ldrsw(based(tlb, ip), ip, a(ip) + extended(b(ip), how(ip))))) break; ip += 16; continue;
      case LDRSB_W_REG: if (!(ldrsbWord(based(tlb, ip), ip, a(ip) + extended(b(ip), how(ip))))) break; ip += 16; continue;
      case LDRSH_W_REG: if (!(ldrshWord(based(tlb, ip), ip, a(ip) + extended(b(ip), how(ip))))) break; ip += 16; continue;
      case STRB_USER: if (!(strb(based(userTlb, ip), ip, a(ip) + immediate(ip)))) break; ip += 16; continue;
      case STRH_USER: if (!(strh(based(userTlb, ip), ip, a(ip) + immediate(ip)))) break; ip += 16; continue;
      case STRW_USER: if (!(strw(based(userTlb, ip), ip, a(ip) + immediate(ip)))) break; ip += 16; continue;
      case STRX_USER: if (!(strx(based(userTlb, ip), ip, a(ip) + immediate(ip)))) break; ip += 16; continue;
      case LDRB_USER: if (!(ldrb(based(userTlb, ip), ip, a(ip) + immediate(ip)))) break; ip += 16; continue;
      case LDRH_USER: if (!(ldrh(based(userTlb, ip), ip, a(ip) + immediate(ip)))) break; ip += 16; continue;
      case LDRW_USER: if (!(ldrw(based(userTlb, ip), ip, a(ip) + immediate(ip)))) break; ip += 16; continue;
      case LDRX_USER: if (!(ldrx(based(userTlb, ip), ip, a(ip) + immediate(ip)))) break; ip += 16; continue;
      case LDRSB_USER: if (!(ldrsb(based(userTlb, ip), ip, a(ip) + immediate(ip)))) break; ip += 16; continue;
      case LDRSH_USER: if (!(ldrsh(based(userTlb, ip), ip, a(ip) + immediate(ip)))) break; ip += 16; continue;
      case LDRSW_USER: if (!(ldrsw(based(userTlb, ip), ip, a(ip) + immediate(ip)))) break; ip += 16; continue;
      case LDRSB_W_USER: if (!(ldrsbWord(based(userTlb, ip), ip, a(ip) + immediate(ip)))) break; ip += 16; continue;
      case LDRSH_W_USER: if (!(ldrshWord(based(userTlb, ip), ip, a(ip) + immediate(ip)))) break; ip += 16; continue;
      case LDRW_LITERAL: if (!(ldrw(tlb, ip, pageVa + immediate(ip)))) break; ip += 16; continue;
      case LDRX_LITERAL: if (!(ldrx(tlb, ip, pageVa + immediate(ip)))) break; ip += 16; continue;
      case LDRSW_LITERAL: if (!(ldrsw(tlb, ip, pageVa + immediate(ip)))) break; ip += 16; continue;
      case STP_W: if (!(stpWords(based(tlb, ip), ip, a(ip) + accessOffset(ip)))) break; ip += 16; continue;
      case STP: if (!(stp(based(tlb, ip), ip, a(ip) + accessOffset(ip)))) break; ip += 16; continue;
      case LDP_W: if (!(ldpWords(based(tlb, ip), ip, a(ip) + accessOffset(ip)))) break; ip += 16; continue;
      case LDP: if (!(ldp(based(tlb, ip), ip, a(ip) + accessOffset(ip)))) break; ip += 16; continue;
      case LDPSW: if (!(ldpSignedWords(based(tlb, ip), ip, a(ip) + accessOffset(ip)))) break; ip += 16; continue;
      case STP_W_WB: {
        const base = a(ip);
        if (!stpWords(based(tlb, ip), ip, base + accessOffset(ip))) break;
        setBase(ip, base + growth(ip));
        ip += 16;
        continue;
      }
      case STP_WB: {
        const base = a(ip);
        if (!stp(based(tlb, ip), ip, base + accessOffset(ip))) break;
        setBase(ip, base + growth(ip));
        ip += 16;
        continue;
      }
      case LDP_W_WB: {
        const base = a(ip);
        if (!ldpWords(based(tlb, ip), ip, base + accessOffset(ip))) break;
        setBase(ip, base + growth(ip));
        ip += 16;
        continue;
      }
      case LDP_WB: {
        const base = a(ip);
        if (!ldp(based(tlb, ip), ip, base + accessOffset(ip))) break;
        setBase(ip, base + growth(ip));
        ip += 16;
        continue;
      }
      case LDPSW_WB: {
        const base = a(ip);
        if (!ldpSignedWords(based(tlb, ip), ip, base + accessOffset(ip))) break;
        setBase(ip, base + growth(ip));
        ip += 16;
        continue;
      }
    }
    if (to == NOWHERE) {
      save(ip, n, pageVa, pageBase);
      return STEP;
    }
    const entry = fetch + place(to);
    if (load<u64>(entry) != (to & ~<u64>0xffc)) {
      store<u64>(PC, to);
      store<u32>(LEFT, n);
      return RESUME;
    }
    pageVa = to & PAGE_MASK;
    pageBase = load<u32>(entry, 8);
    ip = pageBase + ((<u32>to & 0xffc) << 2);
    to = NOWHERE;
  }
  return RESUME;
}
