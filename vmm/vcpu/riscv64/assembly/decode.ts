// From an instruction to its decode slot (opcodes.ts). Encodings: the unprivileged specification's "RV32/64G Instruction Set Listings",
// Zba/Zbb/Zbc/Zbs, Zicond, Zicbom/Zicboz, Zfhmin, Zimop. The hints (pause, ntl.*, prefetch.*) decode to NOP as what they are: a fence, and operations
// into x0. Decoding depends on the instruction and its offset in the page only, never on machine state: a slot serves every
// hart, mode and virtual address. Branches within the page become slot distances; pure operations into x0 become NOP.
import {
  ADD, ADDI, ADDIW, ADDW, ADD_UW, AMO, AND, ANDI, ANDN, AUIPC, BCLR, BCLRI, BEQ, BEQ_FAR, BEXT, BEXTI, BINV, BINVI, BSET, BSETI, CBO,
  CLMUL, CLMULH, CLMULR, CLZ, CLZW, CPOP, CPOPW, CSR, CTZ, CTZW, CZERO_EQZ, CZERO_NEZ, DIV, DIVU, DIVUW, DIVW, FENCE_I, FLD, FLH, FLOAT, FLW,
  FSD, FSH, FSW, ILLEGAL, J, JAL, JALR, JAL_FAR, JR, J_FAR, LB, LBU,
  LD, LH, LHU, LI, LOAD_X0, LW, LWU, MAX, MAXU, MIN, MINU, MUL, MULH, MULHSU, MULHU, MULW, MV, NOP, OR, ORC_B, ORI, ORN, REM, REMU, REMUW,
  REMW, REV8, ROL, ROLW, ROR, RORI, RORIW, RORW, SB, SD, SEXT_B, SEXT_H, SH, SH1ADD, SH1ADD_UW, SH2ADD, SH2ADD_UW, SH3ADD, SH3ADD_UW, SLL,
  SLLI, SLLIW, SLLI_UW, SLLW, SLT, SLTI, SLTIU, SLTU, SRA, SRAI, SRAIW, SRAW, SRL, SRLI, SRLIW, SRLW, SUB, SUBW, SW, SYSTEM, XNOR, XOR, XORI,
  ZEXT_H,
} from "./opcodes";

@inline
function put(slot: usize, operation: u32, a: u32, b: u32, immediate: i32): void {
  store<u32>(slot, operation | (a << 19) | (b << 27));
  store<i32>(slot, immediate, 4);
}

/** Encodes the instruction `code` (32-bit form) at byte `offset` of its page; `compressed` is 1 if it came from a 2-byte one. */
export function decode(slot: usize, code: u32, offset: u32, compressed: u32): void {
  const rd = (code >> 7) & 31;
  const rs1 = (code >> 15) & 31;
  const rs2 = (code >> 20) & 31;
  const funct3 = (code >> 12) & 7;
  const immI = <i32>code >> 20;
  switch ((code >> 2) & 31) {
    case 0x00: // LOAD
      if (funct3 == 7) return illegal(slot, code);
      if (rd == 0) return put(slot, LOAD_X0, 0, 0, code);
      return put(slot, loadOperation(funct3) + compressed, rd, rs1, immI);
    case 0x01: // LOAD-FP
      if (funct3 == 1) return put(slot, FLH, rd, rs1, immI);
      if (funct3 == 2) return put(slot, FLW, rd, rs1, immI);
      if (funct3 == 3) return put(slot, FLD + compressed, rd, rs1, immI);
      return illegal(slot, code);
    case 0x03: // MISC-MEM
      if (funct3 == 0) return put(slot, NOP, 0, 0, 0);
      if (funct3 == 1) return put(slot, FENCE_I, 0, 0, 0);
      // cbo.inval, cbo.clean, cbo.flush, cbo.zero
      if (funct3 == 2 && rd == 0 && (immI <= 2 || immI == 4) && immI >= 0) return put(slot, CBO, 0, 0, code);
      return illegal(slot, code);
    case 0x04:
      return decodeImmediate(slot, code, compressed);
    case 0x05: // AUIPC
      if (rd == 0) return put(slot, NOP, 0, 0, 0);
      return put(slot, AUIPC, rd, 0, <i32>(code & 0xfffff000) + <i32>offset);
    case 0x06:
      return decodeImmediate32(slot, code, compressed);
    case 0x08: { // STORE
      const imm = (immI & ~31) | rd;
      if (funct3 == 0) return put(slot, SB + compressed, rs2, rs1, imm);
      if (funct3 == 1) return put(slot, SH + compressed, rs2, rs1, imm);
      if (funct3 == 2) return put(slot, SW + compressed, rs2, rs1, imm);
      if (funct3 == 3) return put(slot, SD + compressed, rs2, rs1, imm);
      return illegal(slot, code);
    }
    case 0x09: { // STORE-FP
      const imm = (immI & ~31) | rd;
      if (funct3 == 1) return put(slot, FSH, rs2, rs1, imm);
      if (funct3 == 2) return put(slot, FSW, rs2, rs1, imm);
      if (funct3 == 3) return put(slot, FSD + compressed, rs2, rs1, imm);
      return illegal(slot, code);
    }
    case 0x0b: // AMO
      return legalAmo(code, funct3, rs2) ? put(slot, AMO, 0, 0, code) : illegal(slot, code);
    case 0x0c:
      return decodeRegister(slot, code, compressed);
    case 0x0d: // LUI
      if (rd == 0) return put(slot, NOP + compressed, 0, 0, 0);
      return put(slot, LI + compressed, rd, 0, code & 0xfffff000);
    case 0x0e:
      return decodeRegister32(slot, code, compressed);
    case 0x10: // MADD, MSUB, NMSUB, NMADD
    case 0x11:
    case 0x12:
    case 0x13:
    case 0x14: // OP-FP
      return put(slot, FLOAT, 0, 0, code);
    case 0x18: { // BRANCH
      if (funct3 == 2 || funct3 == 3) return illegal(slot, code);
      const imm =
        ((<i32>(code & 0x80000000)) >> 19) | ((code & 0x80) << 4) | ((code >> 20) & 0x7e0) | ((code >> 7) & 0x1e);
      const kind = (funct3 < 2 ? funct3 : funct3 - 2) * 2 + compressed;
      if (<u32>(<i32>offset + imm) < 4096) return put(slot, BEQ + kind, rs2, rs1, imm * 4);
      return put(slot, BEQ_FAR + kind, rs2, rs1, imm);
    }
    case 0x19: // JALR
      if (funct3 != 0) return illegal(slot, code);
      return put(slot, (rd == 0 ? JR : JALR) + compressed, rd, rs1, immI);
    case 0x1b: { // JAL
      const imm =
        ((<i32>(code & 0x80000000)) >> 11) | (code & 0xff000) | ((code >> 9) & 0x800) | ((code >> 20) & 0x7fe);
      if (<u32>(<i32>offset + imm) < 4096) return put(slot, rd == 0 ? J + compressed : JAL, rd, 0, imm * 4);
      return put(slot, rd == 0 ? J_FAR + compressed : JAL_FAR, rd, 0, imm);
    }
    case 0x1c: // SYSTEM
      if (funct3 == 4) return decodeMayBeOperation(slot, code);
      return put(slot, (funct3 == 0 ? SYSTEM : CSR) + compressed, 0, 0, code);
  }
  illegal(slot, code);
}

/** An instruction that raises illegal-instruction with `bits` as stval. */
export function illegal(slot: usize, bits: u32): void {
  put(slot, ILLEGAL, 0, 0, bits);
}

/** Zimop: mop.r.n and mop.rr.n, which write 0 until an extension defines them otherwise. */
function decodeMayBeOperation(slot: usize, code: u32): void {
  const one = (code & 0xb3c00000) == 0x81c00000; // 1.00..0111..
  const two = (code & 0xb2000000) == 0x82000000; // 1.00..1
  putPure(slot, one || two ? LI : ILLEGAL, (code >> 7) & 31, 0, 0, code, 0);
}

function loadOperation(funct3: u32): u32 {
  switch (funct3) {
    case 0: return LB;
    case 1: return LH;
    case 2: return LW;
    case 3: return LD;
    case 4: return LBU;
    case 5: return LHU;
    default: return LWU;
  }
}

function legalAmo(code: u32, funct3: u32, rs2: u32): bool {
  if (funct3 != 2 && funct3 != 3) return false;
  switch (code >> 27) {
    case 0x02: return rs2 == 0; // lr
    case 0x00: case 0x01: case 0x03: case 0x04: case 0x08: case 0x0c: case 0x10: case 0x14: case 0x18: case 0x1c: return true;
  }
  return false;
}

function decodeImmediate(slot: usize, code: u32, compressed: u32): void {
  const rd = (code >> 7) & 31;
  const rs1 = (code >> 15) & 31;
  const funct3 = (code >> 12) & 7;
  const imm = <i32>code >> 20;
  const shift = imm & 63;
  const funct6 = code >> 26;
  let operation: u32 = ILLEGAL;
  let immediate = imm;
  switch (funct3) {
    case 0:
      operation = rs1 == 0 ? LI : imm == 0 ? MV : ADDI;
      break;
    case 1:
      immediate = shift;
      if (funct6 == 0) operation = SLLI;
      else if (funct6 == 0x0a) operation = BSETI;
      else if (funct6 == 0x12) operation = BCLRI;
      else if (funct6 == 0x1a) operation = BINVI;
      else if (funct6 == 0x18) {
        switch (shift) {
          case 0: operation = CLZ; break;
          case 1: operation = CTZ; break;
          case 2: operation = CPOP; break;
          case 4: operation = SEXT_B; break;
          case 5: operation = SEXT_H; break;
        }
      }
      break;
    case 2: operation = SLTI; break;
    case 3: operation = SLTIU; break;
    case 4: operation = XORI; break;
    case 5:
      immediate = shift;
      if (funct6 == 0) operation = SRLI;
      else if (funct6 == 0x10) operation = SRAI;
      else if (funct6 == 0x12) operation = BEXTI;
      else if (funct6 == 0x18) operation = RORI;
      else if (imm == 0x287) operation = ORC_B;
      else if (imm == 0x6b8) operation = REV8;
      break;
    case 6: operation = ORI; break; // with rd = x0: prefetch hints
    default: operation = ANDI; break;
  }
  putPure(slot, operation, rd, rs1, immediate, code, compressed);
}

/** An operation without side effects: into x0 it is a NOP. */
@inline
function putPure(slot: usize, operation: u32, rd: u32, rs1: u32, immediate: i32, code: u32, compressed: u32): void {
  if (operation == ILLEGAL) illegal(slot, code);
  else if (rd == 0) put(slot, NOP + compressed, 0, 0, 0);
  else put(slot, operation + compressed, rd, rs1, immediate);
}

function decodeImmediate32(slot: usize, code: u32, compressed: u32): void {
  const shift = (code >> 20) & 31;
  const funct7 = code >> 25;
  let operation: u32 = ILLEGAL;
  let immediate = <i32>code >> 20;
  switch ((code >> 12) & 7) {
    case 0: operation = ADDIW; break;
    case 1:
      immediate = shift;
      if (funct7 == 0) operation = SLLIW;
      else if (funct7 >> 1 == 0x02) {
        operation = SLLI_UW;
        immediate = (code >> 20) & 63;
      } else if (funct7 == 0x30) {
        if (shift == 0) operation = CLZW;
        else if (shift == 1) operation = CTZW;
        else if (shift == 2) operation = CPOPW;
      }
      break;
    case 5:
      immediate = shift;
      if (funct7 == 0) operation = SRLIW;
      else if (funct7 == 0x20) operation = SRAIW;
      else if (funct7 == 0x30) operation = RORIW;
      break;
  }
  putPure(slot, operation, (code >> 7) & 31, (code >> 15) & 31, immediate, code, compressed);
}

function decodeRegister(slot: usize, code: u32, compressed: u32): void {
  const rs1 = (code >> 15) & 31;
  const rs2 = (code >> 20) & 31;
  let operation: u32 = ILLEGAL;
  switch (((code >> 25) << 3) | ((code >> 12) & 7)) {
    case 0x000: operation = rs1 == 0 ? MV : ADD; break;
    case 0x001: operation = SLL; break;
    case 0x002: operation = SLT; break;
    case 0x003: operation = SLTU; break;
    case 0x004: operation = XOR; break;
    case 0x005: operation = SRL; break;
    case 0x006: operation = OR; break;
    case 0x007: operation = AND; break;
    case 0x008: operation = MUL; break;
    case 0x009: operation = MULH; break;
    case 0x00a: operation = MULHSU; break;
    case 0x00b: operation = MULHU; break;
    case 0x00c: operation = DIV; break;
    case 0x00d: operation = DIVU; break;
    case 0x00e: operation = REM; break;
    case 0x00f: operation = REMU; break;
    case 0x029: operation = CLMUL; break;
    case 0x02a: operation = CLMULR; break;
    case 0x02b: operation = CLMULH; break;
    case 0x02c: operation = MIN; break;
    case 0x02d: operation = MINU; break;
    case 0x02e: operation = MAX; break;
    case 0x02f: operation = MAXU; break;
    case 0x03d: operation = CZERO_EQZ; break;
    case 0x03f: operation = CZERO_NEZ; break;
    case 0x082: operation = SH1ADD; break;
    case 0x084: operation = SH2ADD; break;
    case 0x086: operation = SH3ADD; break;
    case 0x0a1: operation = BSET; break;
    case 0x100: operation = SUB; break;
    case 0x104: operation = XNOR; break;
    case 0x105: operation = SRA; break;
    case 0x106: operation = ORN; break;
    case 0x107: operation = ANDN; break;
    case 0x121: operation = BCLR; break;
    case 0x125: operation = BEXT; break;
    case 0x181: operation = ROL; break;
    case 0x185: operation = ROR; break;
    case 0x1a1: operation = BINV; break;
  }
  if (operation == MV) putPure(slot, MV, (code >> 7) & 31, rs2, 0, code, compressed);
  else putPure(slot, operation, (code >> 7) & 31, rs1, rs2 * 8, code, compressed);
}

function decodeRegister32(slot: usize, code: u32, compressed: u32): void {
  const rs2 = (code >> 20) & 31;
  let operation: u32 = ILLEGAL;
  switch (((code >> 25) << 3) | ((code >> 12) & 7)) {
    case 0x000: operation = ADDW; break;
    case 0x001: operation = SLLW; break;
    case 0x005: operation = SRLW; break;
    case 0x008: operation = MULW; break;
    case 0x00c: operation = DIVW; break;
    case 0x00d: operation = DIVUW; break;
    case 0x00e: operation = REMW; break;
    case 0x00f: operation = REMUW; break;
    case 0x020: operation = ADD_UW; break;
    case 0x024: if (rs2 == 0) operation = ZEXT_H; break;
    case 0x082: operation = SH1ADD_UW; break;
    case 0x084: operation = SH2ADD_UW; break;
    case 0x086: operation = SH3ADD_UW; break;
    case 0x100: operation = SUBW; break;
    case 0x105: operation = SRAW; break;
    case 0x181: operation = ROLW; break;
    case 0x185: operation = RORW; break;
  }
  putPure(slot, operation, (code >> 7) & 31, (code >> 15) & 31, rs2 * 8, code, compressed);
}
