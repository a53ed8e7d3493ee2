// The interpreter's loop over decoded slots. Registers, TLBs and slots live in linear memory at constant addresses; in locals are the slot pointer,
// the countdown and the current page. A case is one operation of opcodes.ts; `+ 1` is its compressed form (labelled even where there is none:
// only a dense row of cases becomes one br_table).
//
// Nothing in here calls a function: one call anywhere would make the compiler keep the locals on the stack everywhere. What is rare or long
// (missed TLBs, CSRs, undecoded slots, traps) breaks out of the switch with no target: the loop ends, and step() does that one instruction. A jump
// within the page adds to the slot pointer; every other one breaks with `target` set, and the fetch TLB gives the decode page.
import { place } from "../../engine/assembly/tlb";
import { multiplyHigh } from "../../engine/assembly/arithmetic";
import { PAGE_MASK, RESUME, STEP } from "../../engine/assembly/isa";
import { LEFT, PAGE_BASE, PAGE_VA, PC, REFETCH, SLOT, TLB_STORE } from "../../engine/assembly/layout";
import {
  divide, divideUnsigned, divideUnsignedWord, divideWord, orCombine, remainder, remainderUnsigned, remainderUnsignedWord,
  remainderWord, word,
} from "./integer";
import { F, SSTATUS, X } from "./layout";
import {
  ADD, ADDI, ADDIW, ADDW, ADD_UW, AND, ANDI, ANDN, AUIPC, BCLR, BCLRI, BEQ, BEQ_FAR, BEXT, BEXTI, BGE, BGEU, BGEU_FAR, BGE_FAR, BINV,
  BINVI, BLT, BLTU, BLTU_FAR, BLT_FAR, BNE, BNE_FAR, BSET, BSETI, CLZ, CLZW, CPOP, CPOPW, CTZ, CTZW, CZERO_EQZ, CZERO_NEZ, DIV, DIVU, DIVUW, DIVW,
  FLD, FLW, FSD, FSW, J, JAL, JALR, JAL_FAR, JR, J_FAR, LB, LBU, LD, LH, LHU, LI, LW, LWU, MAX, MAXU, MIN,
  MINU, MUL, MULH, MULHSU, MULHU, MULW, MV, NOP, OR, ORC_B, ORI, ORN, REM, REMU, REMUW, REMW, REV8, ROL, ROLW, ROR, RORI, RORIW,
  RORW, SB, SD, SEXT_B, SEXT_H, SH, SH1ADD, SH1ADD_UW, SH2ADD, SH2ADD_UW, SH3ADD, SH3ADD_UW, SLL, SLLI, SLLIW, SLLI_UW, SLLW, SLT, SLTI,
  SLTIU, SLTU, SRA, SRAI, SRAIW, SRAW, SRL, SRLI, SRLIW, SRLW, SUB, SUBW, SW, XNOR, XOR, XORI, ZEXT_H,
} from "./opcodes";
import { dataTlb, fetchTlb, SSTATUS_FS } from "./translate";

@inline
function r1(ip: usize): u64 {
  return load<u64>(load<u8>(ip, 3), X);
}

@inline
function r2(ip: usize): u64 {
  return load<u64>(load<u8>(ip, 4), X);
}

/** The register in field a: the second operand of branches, what a store stores. */
@inline
function ra(ip: usize): u64 {
  return load<u64>(load<u8>(ip, 2), X);
}

@inline
function fa(ip: usize): u64 {
  return load<u64>(load<u8>(ip, 2), F);
}

@inline
function immediate(ip: usize): u64 {
  return <u64>(<i64>load<i32>(ip, 4));
}

@inline
function shift(ip: usize): u64 {
  return <u64>load<u8>(ip, 4);
}

@inline
function set(ip: usize, value: u64): void {
  store<u64>(load<u8>(ip, 2), value, X);
}

@inline
function setFloat(ip: usize, value: u64): void {
  store<u64>(load<u8>(ip, 2), value, F);
}

@inline
function save(ip: usize, n: u32, pageVa: u64, pageBase: usize): void {
  store<u64>(PC, pageVa + (<u64>(ip - pageBase) >> 2));
  store<u32>(LEFT, n);
  store<u32>(SLOT, ip);
  store<u64>(PAGE_VA, pageVa);
  store<u32>(PAGE_BASE, pageBase);
}

@inline
function floatsDirty(): bool {
  return (load<u64>(SSTATUS) & SSTATUS_FS) == SSTATUS_FS;
}

/** No jump target has bit 0 set. */
const NOWHERE: u64 = 1;

/** Runs at most `n` instructions from slot `ip`; PAGE_VA and PAGE_BASE describe its page. Leaves PC and LEFT; returns RESUME or STEP. */
export function execute(ip: usize, n: u32): u32 {
  let pageVa = load<u64>(PAGE_VA);
  let pageBase: usize = load<u32>(PAGE_BASE);
  const tlb = dataTlb();
  const fetch = fetchTlb();
  let target = NOWHERE;
  for (;;) {
    if (n == 0) {
      save(ip, n, pageVa, pageBase);
      return RESUME;
    }
    n--;
    switch (<i32>load<u16>(ip)) {
      case REFETCH: case REFETCH + 1:
        n++;
        target = pageVa + (<u64>(ip - pageBase) >> 2);
        break;
      case NOP: ip += 16; continue;
      case NOP + 1: ip += 8; continue;
      case LI: set(ip, <u64>immediate(ip)); ip += 16; continue;
      case LI + 1: set(ip, <u64>immediate(ip)); ip += 8; continue;
      case MV: set(ip, r1(ip)); ip += 16; continue;
      case MV + 1: set(ip, r1(ip)); ip += 8; continue;
      case ADDI: set(ip, r1(ip) + immediate(ip)); ip += 16; continue;
      case ADDI + 1: set(ip, r1(ip) + immediate(ip)); ip += 8; continue;
      case SLTI: case SLTI + 1: set(ip, <u64>(<i64>r1(ip) < <i64>immediate(ip))); ip += 16; continue;
      case SLTIU: case SLTIU + 1: set(ip, <u64>(r1(ip) < immediate(ip))); ip += 16; continue;
      case XORI: set(ip, r1(ip) ^ immediate(ip)); ip += 16; continue;
      case XORI + 1: set(ip, r1(ip) ^ immediate(ip)); ip += 8; continue;
      case ORI: case ORI + 1: set(ip, r1(ip) | immediate(ip)); ip += 16; continue;
      case ANDI: set(ip, r1(ip) & immediate(ip)); ip += 16; continue;
      case ANDI + 1: set(ip, r1(ip) & immediate(ip)); ip += 8; continue;
      case SLLI: set(ip, r1(ip) << shift(ip)); ip += 16; continue;
      case SLLI + 1: set(ip, r1(ip) << shift(ip)); ip += 8; continue;
      case SRLI: set(ip, r1(ip) >> shift(ip)); ip += 16; continue;
      case SRLI + 1: set(ip, r1(ip) >> shift(ip)); ip += 8; continue;
      case SRAI: set(ip, <u64>(<i64>r1(ip) >> shift(ip))); ip += 16; continue;
      case SRAI + 1: set(ip, <u64>(<i64>r1(ip) >> shift(ip))); ip += 8; continue;
      case ADDIW: set(ip, word(<u32>r1(ip) + <u32>immediate(ip))); ip += 16; continue;
      case ADDIW + 1: set(ip, word(<u32>r1(ip) + <u32>immediate(ip))); ip += 8; continue;
      case SLLIW: case SLLIW + 1: set(ip, word(<u32>r1(ip) << <u32>shift(ip))); ip += 16; continue;
      case SRLIW: case SRLIW + 1: set(ip, word(<u32>r1(ip) >> <u32>shift(ip))); ip += 16; continue;
      case SRAIW: case SRAIW + 1: set(ip, word(<u32>(<i32>r1(ip) >> <i32>shift(ip)))); ip += 16; continue;
      case ADD: set(ip, r1(ip) + r2(ip)); ip += 16; continue;
      case ADD + 1: set(ip, r1(ip) + r2(ip)); ip += 8; continue;
      case SUB: set(ip, r1(ip) - r2(ip)); ip += 16; continue;
      case SUB + 1: set(ip, r1(ip) - r2(ip)); ip += 8; continue;
      case SLL: case SLL + 1: set(ip, r1(ip) << (r2(ip) & 63)); ip += 16; continue;
      case SLT: case SLT + 1: set(ip, <u64>(<i64>r1(ip) < <i64>r2(ip))); ip += 16; continue;
      case SLTU: case SLTU + 1: set(ip, <u64>(r1(ip) < r2(ip))); ip += 16; continue;
      case XOR: set(ip, r1(ip) ^ r2(ip)); ip += 16; continue;
      case XOR + 1: set(ip, r1(ip) ^ r2(ip)); ip += 8; continue;
      case SRL: case SRL + 1: set(ip, r1(ip) >> (r2(ip) & 63)); ip += 16; continue;
      case SRA: case SRA + 1: set(ip, <u64>(<i64>r1(ip) >> (r2(ip) & 63))); ip += 16; continue;
      case OR: set(ip, r1(ip) | r2(ip)); ip += 16; continue;
      case OR + 1: set(ip, r1(ip) | r2(ip)); ip += 8; continue;
      case AND: set(ip, r1(ip) & r2(ip)); ip += 16; continue;
      case AND + 1: set(ip, r1(ip) & r2(ip)); ip += 8; continue;
      case ADDW: set(ip, word(<u32>r1(ip) + <u32>r2(ip))); ip += 16; continue;
      case ADDW + 1: set(ip, word(<u32>r1(ip) + <u32>r2(ip))); ip += 8; continue;
      case SUBW: set(ip, word(<u32>r1(ip) - <u32>r2(ip))); ip += 16; continue;
      case SUBW + 1: set(ip, word(<u32>r1(ip) - <u32>r2(ip))); ip += 8; continue;
      case SLLW: case SLLW + 1: set(ip, word(<u32>r1(ip) << (<u32>r2(ip) & 31))); ip += 16; continue;
      case SRLW: case SRLW + 1: set(ip, word(<u32>r1(ip) >> (<u32>r2(ip) & 31))); ip += 16; continue;
      case SRAW: case SRAW + 1: set(ip, word(<u32>(<i32>r1(ip) >> (<i32>r2(ip) & 31)))); ip += 16; continue;
      case AUIPC: case AUIPC + 1: set(ip, pageVa + immediate(ip)); ip += 16; continue;
      case JAL: case JAL + 1: set(ip, pageVa + (<u64>(ip - pageBase) >> 2) + 4); ip += load<i32>(ip, 4); continue;
      case JAL_FAR: case JAL_FAR + 1: target = pageVa + (<u64>(ip - pageBase) >> 2); set(ip, target + 4); target += immediate(ip); break;
      case J: case J + 1: ip += load<i32>(ip, 4); continue;
      case J_FAR: case J_FAR + 1: target = pageVa + (<u64>(ip - pageBase) >> 2) + immediate(ip); break;
      case JALR: {
        const to = (r1(ip) + immediate(ip)) & ~1;
        set(ip, pageVa + (<u64>(ip - pageBase) >> 2) + 4);
        if (to - pageVa < 4096) {
          ip = pageBase + (<u32>(to - pageVa) << 2);
          continue;
        }
        target = to;
        break;
      }
      case JALR + 1: {
        const to = (r1(ip) + immediate(ip)) & ~1;
        set(ip, pageVa + (<u64>(ip - pageBase) >> 2) + 2);
        if (to - pageVa < 4096) {
          ip = pageBase + (<u32>(to - pageVa) << 2);
          continue;
        }
        target = to;
        break;
      }
      case JR: case JR + 1: {
        const to = (r1(ip) + immediate(ip)) & ~1;
        if (to - pageVa < 4096) {
          ip = pageBase + (<u32>(to - pageVa) << 2);
          continue;
        }
        target = to;
        break;
      }
      case BEQ: if (r1(ip) == ra(ip)) ip += load<i32>(ip, 4); else ip += 16; continue;
      case BEQ + 1: if (r1(ip) == ra(ip)) ip += load<i32>(ip, 4); else ip += 8; continue;
      case BNE: if (r1(ip) != ra(ip)) ip += load<i32>(ip, 4); else ip += 16; continue;
      case BNE + 1: if (r1(ip) != ra(ip)) ip += load<i32>(ip, 4); else ip += 8; continue;
      case BLT: case BLT + 1: if (<i64>r1(ip) < <i64>ra(ip)) ip += load<i32>(ip, 4); else ip += 16; continue;
      case BGE: case BGE + 1: if (<i64>r1(ip) >= <i64>ra(ip)) ip += load<i32>(ip, 4); else ip += 16; continue;
      case BLTU: case BLTU + 1: if (r1(ip) < ra(ip)) ip += load<i32>(ip, 4); else ip += 16; continue;
      case BGEU: case BGEU + 1: if (r1(ip) >= ra(ip)) ip += load<i32>(ip, 4); else ip += 16; continue;
      case BEQ_FAR:
        if (r1(ip) == ra(ip)) {
          target = pageVa + (<u64>(ip - pageBase) >> 2) + immediate(ip);
          break;
        }
        ip += 16;
        continue;
      case BEQ_FAR + 1:
        if (r1(ip) == ra(ip)) {
          target = pageVa + (<u64>(ip - pageBase) >> 2) + immediate(ip);
          break;
        }
        ip += 8;
        continue;
      case BNE_FAR:
        if (r1(ip) != ra(ip)) {
          target = pageVa + (<u64>(ip - pageBase) >> 2) + immediate(ip);
          break;
        }
        ip += 16;
        continue;
      case BNE_FAR + 1:
        if (r1(ip) != ra(ip)) {
          target = pageVa + (<u64>(ip - pageBase) >> 2) + immediate(ip);
          break;
        }
        ip += 8;
        continue;
      case BLT_FAR: case BLT_FAR + 1:
        if (<i64>r1(ip) < <i64>ra(ip)) {
          target = pageVa + (<u64>(ip - pageBase) >> 2) + immediate(ip);
          break;
        }
        ip += 16;
        continue;
      case BGE_FAR: case BGE_FAR + 1:
        if (<i64>r1(ip) >= <i64>ra(ip)) {
          target = pageVa + (<u64>(ip - pageBase) >> 2) + immediate(ip);
          break;
        }
        ip += 16;
        continue;
      case BLTU_FAR: case BLTU_FAR + 1:
        if (r1(ip) < ra(ip)) {
          target = pageVa + (<u64>(ip - pageBase) >> 2) + immediate(ip);
          break;
        }
        ip += 16;
        continue;
      case BGEU_FAR: case BGEU_FAR + 1:
        if (r1(ip) >= ra(ip)) {
          target = pageVa + (<u64>(ip - pageBase) >> 2) + immediate(ip);
          break;
        }
        ip += 16;
        continue;
      case LB: case LB + 1: {
        const va = r1(ip) + immediate(ip);
        const entry = tlb + place(va);
        if (load<u64>(entry) == (va & PAGE_MASK)) {
          set(ip, <u64>(<i64>load<i8>(<u32>va + load<u32>(entry, 8))));
          ip += 16;
          continue;
        }
        break;
      }
      case LH: {
        const va = r1(ip) + immediate(ip);
        const entry = tlb + place(va);
        if (load<u64>(entry) == ((va + 1) & PAGE_MASK)) {
          set(ip, <u64>(<i64>load<i16>(<u32>va + load<u32>(entry, 8))));
          ip += 16;
          continue;
        }
        break;
      }
      case LH + 1: {
        const va = r1(ip) + immediate(ip);
        const entry = tlb + place(va);
        if (load<u64>(entry) == ((va + 1) & PAGE_MASK)) {
          set(ip, <u64>(<i64>load<i16>(<u32>va + load<u32>(entry, 8))));
          ip += 8;
          continue;
        }
        break;
      }
      case LW: {
        const va = r1(ip) + immediate(ip);
        const entry = tlb + place(va);
        if (load<u64>(entry) == ((va + 3) & PAGE_MASK)) {
          set(ip, <u64>(<i64>load<i32>(<u32>va + load<u32>(entry, 8))));
          ip += 16;
          continue;
        }
        break;
      }
      case LW + 1: {
        const va = r1(ip) + immediate(ip);
        const entry = tlb + place(va);
        if (load<u64>(entry) == ((va + 3) & PAGE_MASK)) {
          set(ip, <u64>(<i64>load<i32>(<u32>va + load<u32>(entry, 8))));
          ip += 8;
          continue;
        }
        break;
      }
      case LD: {
        const va = r1(ip) + immediate(ip);
        const entry = tlb + place(va);
        if (load<u64>(entry) == ((va + 7) & PAGE_MASK)) {
          set(ip, load<u64>(<u32>va + load<u32>(entry, 8)));
          ip += 16;
          continue;
        }
        break;
      }
      case LD + 1: {
        const va = r1(ip) + immediate(ip);
        const entry = tlb + place(va);
        if (load<u64>(entry) == ((va + 7) & PAGE_MASK)) {
          set(ip, load<u64>(<u32>va + load<u32>(entry, 8)));
          ip += 8;
          continue;
        }
        break;
      }
      case LBU: {
        const va = r1(ip) + immediate(ip);
        const entry = tlb + place(va);
        if (load<u64>(entry) == (va & PAGE_MASK)) {
          set(ip, <u64>load<u8>(<u32>va + load<u32>(entry, 8)));
          ip += 16;
          continue;
        }
        break;
      }
      case LBU + 1: {
        const va = r1(ip) + immediate(ip);
        const entry = tlb + place(va);
        if (load<u64>(entry) == (va & PAGE_MASK)) {
          set(ip, <u64>load<u8>(<u32>va + load<u32>(entry, 8)));
          ip += 8;
          continue;
        }
        break;
      }
      case LHU: {
        const va = r1(ip) + immediate(ip);
        const entry = tlb + place(va);
        if (load<u64>(entry) == ((va + 1) & PAGE_MASK)) {
          set(ip, <u64>load<u16>(<u32>va + load<u32>(entry, 8)));
          ip += 16;
          continue;
        }
        break;
      }
      case LHU + 1: {
        const va = r1(ip) + immediate(ip);
        const entry = tlb + place(va);
        if (load<u64>(entry) == ((va + 1) & PAGE_MASK)) {
          set(ip, <u64>load<u16>(<u32>va + load<u32>(entry, 8)));
          ip += 8;
          continue;
        }
        break;
      }
      case LWU: case LWU + 1: {
        const va = r1(ip) + immediate(ip);
        const entry = tlb + place(va);
        if (load<u64>(entry) == ((va + 3) & PAGE_MASK)) {
          set(ip, <u64>load<u32>(<u32>va + load<u32>(entry, 8)));
          ip += 16;
          continue;
        }
        break;
      }
      case SB: {
        const va = r1(ip) + immediate(ip);
        const entry = tlb + place(va);
        if (load<u64>(entry, TLB_STORE) == (va & PAGE_MASK)) {
          store<u8>(<u32>va + load<u32>(entry, TLB_STORE + 8), <u8>ra(ip));
          ip += 16;
          continue;
        }
        break;
      }
      case SB + 1: {
        const va = r1(ip) + immediate(ip);
        const entry = tlb + place(va);
        if (load<u64>(entry, TLB_STORE) == (va & PAGE_MASK)) {
          store<u8>(<u32>va + load<u32>(entry, TLB_STORE + 8), <u8>ra(ip));
          ip += 8;
          continue;
        }
        break;
      }
      case SH: {
        const va = r1(ip) + immediate(ip);
        const entry = tlb + place(va);
        if (load<u64>(entry, TLB_STORE) == ((va + 1) & PAGE_MASK)) {
          store<u16>(<u32>va + load<u32>(entry, TLB_STORE + 8), <u16>ra(ip));
          ip += 16;
          continue;
        }
        break;
      }
      case SH + 1: {
        const va = r1(ip) + immediate(ip);
        const entry = tlb + place(va);
        if (load<u64>(entry, TLB_STORE) == ((va + 1) & PAGE_MASK)) {
          store<u16>(<u32>va + load<u32>(entry, TLB_STORE + 8), <u16>ra(ip));
          ip += 8;
          continue;
        }
        break;
      }
      case SW: {
        const va = r1(ip) + immediate(ip);
        const entry = tlb + place(va);
        if (load<u64>(entry, TLB_STORE) == ((va + 3) & PAGE_MASK)) {
          store<u32>(<u32>va + load<u32>(entry, TLB_STORE + 8), <u32>ra(ip));
          ip += 16;
          continue;
        }
        break;
      }
      case SW + 1: {
        const va = r1(ip) + immediate(ip);
        const entry = tlb + place(va);
        if (load<u64>(entry, TLB_STORE) == ((va + 3) & PAGE_MASK)) {
          store<u32>(<u32>va + load<u32>(entry, TLB_STORE + 8), <u32>ra(ip));
          ip += 8;
          continue;
        }
        break;
      }
      case SD: {
        const va = r1(ip) + immediate(ip);
        const entry = tlb + place(va);
        if (load<u64>(entry, TLB_STORE) == ((va + 7) & PAGE_MASK)) {
          store<u64>(<u32>va + load<u32>(entry, TLB_STORE + 8), ra(ip));
          ip += 16;
          continue;
        }
        break;
      }
      case SD + 1: {
        const va = r1(ip) + immediate(ip);
        const entry = tlb + place(va);
        if (load<u64>(entry, TLB_STORE) == ((va + 7) & PAGE_MASK)) {
          store<u64>(<u32>va + load<u32>(entry, TLB_STORE + 8), ra(ip));
          ip += 8;
          continue;
        }
        break;
      }
      case FLW: case FLW + 1: {
        if (!floatsDirty()) break;
        const va = r1(ip) + immediate(ip);
        const entry = tlb + place(va);
        if (load<u64>(entry) == ((va + 3) & PAGE_MASK)) {
          setFloat(ip, <u64>load<u32>(<u32>va + load<u32>(entry, 8)) | 0xffffffff00000000);
          ip += 16;
          continue;
        }
        break;
      }
      case FLD: {
        if (!floatsDirty()) break;
        const va = r1(ip) + immediate(ip);
        const entry = tlb + place(va);
        if (load<u64>(entry) == ((va + 7) & PAGE_MASK)) {
          setFloat(ip, load<u64>(<u32>va + load<u32>(entry, 8)));
          ip += 16;
          continue;
        }
        break;
      }
      case FLD + 1: {
        if (!floatsDirty()) break;
        const va = r1(ip) + immediate(ip);
        const entry = tlb + place(va);
        if (load<u64>(entry) == ((va + 7) & PAGE_MASK)) {
          setFloat(ip, load<u64>(<u32>va + load<u32>(entry, 8)));
          ip += 8;
          continue;
        }
        break;
      }
      case FSW: case FSW + 1: {
        if (!floatsDirty()) break;
        const va = r1(ip) + immediate(ip);
        const entry = tlb + place(va);
        if (load<u64>(entry, TLB_STORE) == ((va + 3) & PAGE_MASK)) {
          store<u32>(<u32>va + load<u32>(entry, TLB_STORE + 8), <u32>fa(ip));
          ip += 16;
          continue;
        }
        break;
      }
      case FSD: {
        if (!floatsDirty()) break;
        const va = r1(ip) + immediate(ip);
        const entry = tlb + place(va);
        if (load<u64>(entry, TLB_STORE) == ((va + 7) & PAGE_MASK)) {
          store<u64>(<u32>va + load<u32>(entry, TLB_STORE + 8), fa(ip));
          ip += 16;
          continue;
        }
        break;
      }
      case FSD + 1: {
        if (!floatsDirty()) break;
        const va = r1(ip) + immediate(ip);
        const entry = tlb + place(va);
        if (load<u64>(entry, TLB_STORE) == ((va + 7) & PAGE_MASK)) {
          store<u64>(<u32>va + load<u32>(entry, TLB_STORE + 8), fa(ip));
          ip += 8;
          continue;
        }
        break;
      }
      case MUL: set(ip, r1(ip) * r2(ip)); ip += 16; continue;
      case MUL + 1: set(ip, r1(ip) * r2(ip)); ip += 8; continue;
      case MULH: case MULH + 1: set(ip, multiplyHigh(r1(ip), r2(ip)) - (<i64>r1(ip) < 0 ? r2(ip) : 0) - (<i64>r2(ip) < 0 ? r1(ip) : 0)); ip += 16; continue;
      case MULHSU: case MULHSU + 1: set(ip, multiplyHigh(r1(ip), r2(ip)) - (<i64>r1(ip) < 0 ? r2(ip) : 0)); ip += 16; continue;
      case MULHU: case MULHU + 1: set(ip, multiplyHigh(r1(ip), r2(ip))); ip += 16; continue;
      case DIV: case DIV + 1: set(ip, divide(r1(ip), r2(ip))); ip += 16; continue;
      case DIVU: case DIVU + 1: set(ip, divideUnsigned(r1(ip), r2(ip))); ip += 16; continue;
      case REM: case REM + 1: set(ip, remainder(r1(ip), r2(ip))); ip += 16; continue;
      case REMU: case REMU + 1: set(ip, remainderUnsigned(r1(ip), r2(ip))); ip += 16; continue;
      case MULW: case MULW + 1: set(ip, word(<u32>r1(ip) * <u32>r2(ip))); ip += 16; continue;
      case DIVW: case DIVW + 1: set(ip, word(divideWord(<u32>r1(ip), <u32>r2(ip)))); ip += 16; continue;
      case DIVUW: case DIVUW + 1: set(ip, word(divideUnsignedWord(<u32>r1(ip), <u32>r2(ip)))); ip += 16; continue;
      case REMW: case REMW + 1: set(ip, word(remainderWord(<u32>r1(ip), <u32>r2(ip)))); ip += 16; continue;
      case REMUW: case REMUW + 1: set(ip, word(remainderUnsignedWord(<u32>r1(ip), <u32>r2(ip)))); ip += 16; continue;
      case ADD_UW: set(ip, r2(ip) + <u64>(<u32>r1(ip))); ip += 16; continue;
      case ADD_UW + 1: set(ip, r2(ip) + <u64>(<u32>r1(ip))); ip += 8; continue;
      case SH1ADD: case SH1ADD + 1: set(ip, r2(ip) + (r1(ip) << 1)); ip += 16; continue;
      case SH2ADD: case SH2ADD + 1: set(ip, r2(ip) + (r1(ip) << 2)); ip += 16; continue;
      case SH3ADD: case SH3ADD + 1: set(ip, r2(ip) + (r1(ip) << 3)); ip += 16; continue;
      case SH1ADD_UW: case SH1ADD_UW + 1: set(ip, r2(ip) + (<u64>(<u32>r1(ip)) << 1)); ip += 16; continue;
      case SH2ADD_UW: case SH2ADD_UW + 1: set(ip, r2(ip) + (<u64>(<u32>r1(ip)) << 2)); ip += 16; continue;
      case SH3ADD_UW: case SH3ADD_UW + 1: set(ip, r2(ip) + (<u64>(<u32>r1(ip)) << 3)); ip += 16; continue;
      case SLLI_UW: case SLLI_UW + 1: set(ip, <u64>(<u32>r1(ip)) << shift(ip)); ip += 16; continue;
      case ANDN: case ANDN + 1: set(ip, r1(ip) & ~r2(ip)); ip += 16; continue;
      case ORN: case ORN + 1: set(ip, r1(ip) | ~r2(ip)); ip += 16; continue;
      case XNOR: case XNOR + 1: set(ip, ~(r1(ip) ^ r2(ip))); ip += 16; continue;
      case CLZ: case CLZ + 1: set(ip, clz(r1(ip))); ip += 16; continue;
      case CTZ: case CTZ + 1: set(ip, ctz(r1(ip))); ip += 16; continue;
      case CPOP: case CPOP + 1: set(ip, popcnt(r1(ip))); ip += 16; continue;
      case CLZW: case CLZW + 1: set(ip, <u64>clz(<u32>r1(ip))); ip += 16; continue;
      case CTZW: case CTZW + 1: set(ip, <u64>ctz(<u32>r1(ip))); ip += 16; continue;
      case CPOPW: case CPOPW + 1: set(ip, <u64>popcnt(<u32>r1(ip))); ip += 16; continue;
      case MAX: case MAX + 1: set(ip, <i64>r1(ip) > <i64>r2(ip) ? r1(ip) : r2(ip)); ip += 16; continue;
      case MAXU: case MAXU + 1: set(ip, r1(ip) > r2(ip) ? r1(ip) : r2(ip)); ip += 16; continue;
      case MIN: case MIN + 1: set(ip, <i64>r1(ip) < <i64>r2(ip) ? r1(ip) : r2(ip)); ip += 16; continue;
      case MINU: case MINU + 1: set(ip, r1(ip) < r2(ip) ? r1(ip) : r2(ip)); ip += 16; continue;
      case SEXT_B: set(ip, <u64>(<i64><i8>r1(ip))); ip += 16; continue;
      case SEXT_B + 1: set(ip, <u64>(<i64><i8>r1(ip))); ip += 8; continue;
      case SEXT_H: set(ip, <u64>(<i64><i16>r1(ip))); ip += 16; continue;
      case SEXT_H + 1: set(ip, <u64>(<i64><i16>r1(ip))); ip += 8; continue;
      case ZEXT_H: set(ip, r1(ip) & 0xffff); ip += 16; continue;
      case ZEXT_H + 1: set(ip, r1(ip) & 0xffff); ip += 8; continue;
      case ROL: case ROL + 1: set(ip, rotl<u64>(r1(ip), r2(ip))); ip += 16; continue;
      case ROR: case ROR + 1: set(ip, rotr<u64>(r1(ip), r2(ip))); ip += 16; continue;
      case RORI: case RORI + 1: set(ip, rotr<u64>(r1(ip), shift(ip))); ip += 16; continue;
      case ROLW: case ROLW + 1: set(ip, word(rotl<u32>(<u32>r1(ip), <u32>r2(ip)))); ip += 16; continue;
      case RORW: case RORW + 1: set(ip, word(rotr<u32>(<u32>r1(ip), <u32>r2(ip)))); ip += 16; continue;
      case RORIW: case RORIW + 1: set(ip, word(rotr<u32>(<u32>r1(ip), <u32>shift(ip)))); ip += 16; continue;
      case ORC_B: case ORC_B + 1: set(ip, orCombine(r1(ip))); ip += 16; continue;
      case REV8: case REV8 + 1: set(ip, bswap<u64>(r1(ip))); ip += 16; continue;
      case BCLR: case BCLR + 1: set(ip, r1(ip) & ~(<u64>1 << (r2(ip) & 63))); ip += 16; continue;
      case BCLRI: case BCLRI + 1: set(ip, r1(ip) & ~(<u64>1 << shift(ip))); ip += 16; continue;
      case BEXT: case BEXT + 1: set(ip, (r1(ip) >> (r2(ip) & 63)) & 1); ip += 16; continue;
      case BEXTI: case BEXTI + 1: set(ip, (r1(ip) >> shift(ip)) & 1); ip += 16; continue;
      case BINV: case BINV + 1: set(ip, r1(ip) ^ (<u64>1 << (r2(ip) & 63))); ip += 16; continue;
      case BINVI: case BINVI + 1: set(ip, r1(ip) ^ (<u64>1 << shift(ip))); ip += 16; continue;
      case BSET: case BSET + 1: set(ip, r1(ip) | (<u64>1 << (r2(ip) & 63))); ip += 16; continue;
      case BSETI: case BSETI + 1: set(ip, r1(ip) | (<u64>1 << shift(ip))); ip += 16; continue;
      case CZERO_EQZ: case CZERO_EQZ + 1: set(ip, r2(ip) == 0 ? 0 : r1(ip)); ip += 16; continue;
      case CZERO_NEZ: case CZERO_NEZ + 1: set(ip, r2(ip) == 0 ? r1(ip) : 0); ip += 16; continue;
    }
    if (target == NOWHERE) break;
    const entry = fetch + place(target);
    if (load<u64>(entry) != (target & PAGE_MASK)) {
      store<u64>(PC, target);
      store<u32>(LEFT, n);
      return RESUME;
    }
    pageVa = target & PAGE_MASK;
    pageBase = load<u32>(entry, 8);
    ip = pageBase + ((<u32>target & 0xffe) << 2);
    target = NOWHERE;
  }
  save(ip, n, pageVa, pageBase);
  return STEP;
}
