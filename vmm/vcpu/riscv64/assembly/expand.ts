// The C extension, Zcb and Zcmop: a compressed instruction as the 32-bit instruction it stands for ("RVC Instruction Set Listings" and the
// chapters "Zc*" and "Zimop" of the unprivileged specification); 0, which is no legal instruction, for reserved encodings. Hints expand to writes of x0, which decode to nothing.

@inline
function iType(opcode: u32, funct3: u32, rd: u32, rs1: u32, imm: u32): u32 {
  return (imm << 20) | (rs1 << 15) | (funct3 << 12) | (rd << 7) | opcode;
}

@inline
function rType(opcode: u32, funct3: u32, funct7: u32, rd: u32, rs1: u32, rs2: u32): u32 {
  return (funct7 << 25) | (rs2 << 20) | (rs1 << 15) | (funct3 << 12) | (rd << 7) | opcode;
}

function sType(opcode: u32, funct3: u32, rs1: u32, rs2: u32, imm: u32): u32 {
  return ((imm >> 5) << 25) | (rs2 << 20) | (rs1 << 15) | (funct3 << 12) | ((imm & 31) << 7) | opcode;
}

function jType(rd: u32, imm: u32): u32 {
  return (
    (((imm >> 20) & 1) << 31) | (((imm >> 1) & 0x3ff) << 21) | (((imm >> 11) & 1) << 20) | (((imm >> 12) & 0xff) << 12) | (rd << 7) | 0x6f
  );
}

function bType(funct3: u32, rs1: u32, rs2: u32, imm: u32): u32 {
  return (
    (((imm >> 12) & 1) << 31) | (((imm >> 5) & 0x3f) << 25) | (rs2 << 20) | (rs1 << 15) | (funct3 << 12) |
    (((imm >> 1) & 15) << 8) | (((imm >> 11) & 1) << 7) | 0x63
  );
}

@inline
function field(c: u32, from: u32, bits: u32, to: u32): u32 {
  return ((c >> from) & ((1 << bits) - 1)) << to;
}

/** The 6-bit signed immediate of CI, sign-extended to 32 bits. */
@inline
function immediate6(c: u32): u32 {
  return <u32>(<i32>((field(c, 12, 1, 5) | field(c, 2, 5, 0)) << 26) >> 26);
}

/** Zcb's loads and stores of bytes and halfwords. */
function expandNarrowAccess(c: u32, rs1: u32, rd: u32): u32 {
  const byteOffset = field(c, 5, 1, 1) | field(c, 6, 1, 0);
  const halfOffset = field(c, 5, 1, 1);
  switch ((c >> 10) & 7) {
    case 0: return iType(0x03, 4, rd, rs1, byteOffset); // c.lbu
    case 1: return iType(0x03, c & 0x40 ? 1 : 5, rd, rs1, halfOffset); // c.lh, c.lhu
    case 2: return sType(0x23, 0, rs1, rd, byteOffset); // c.sb
    case 3: return c & 0x40 ? 0 : sType(0x23, 1, rs1, rd, halfOffset); // c.sh
  }
  return 0;
}

/** Zcb's operations on one register. */
function expandUnary(r: u32, kind: u32): u32 {
  switch (kind) {
    case 0: return iType(0x13, 7, r, r, 0xff); // c.zext.b
    case 1: return iType(0x13, 1, r, r, 0x604); // c.sext.b
    case 2: return rType(0x3b, 4, 4, r, r, 0); // c.zext.h
    case 3: return iType(0x13, 1, r, r, 0x605); // c.sext.h
    case 4: return rType(0x3b, 0, 4, r, r, 0); // c.zext.w
    case 5: return iType(0x13, 4, r, r, <u32>-1); // c.not
  }
  return 0;
}

export function expand(c: u32): u32 {
  const funct3 = (c >> 13) & 7;
  const rd = (c >> 7) & 31;
  const rs2 = (c >> 2) & 31;
  const rdp = 8 + ((c >> 2) & 7);
  const rs1p = 8 + ((c >> 7) & 7);
  const wordOffset = field(c, 10, 3, 3) | field(c, 6, 1, 2) | field(c, 5, 1, 6);
  const doubleOffset = field(c, 10, 3, 3) | field(c, 5, 2, 6);
  switch (c & 3) {
    case 0:
      switch (funct3) {
        case 0: { // c.addi4spn
          const imm = field(c, 11, 2, 4) | field(c, 7, 4, 6) | field(c, 6, 1, 2) | field(c, 5, 1, 3);
          return imm == 0 ? 0 : iType(0x13, 0, rdp, 2, imm);
        }
        case 1: return iType(0x07, 3, rdp, rs1p, doubleOffset); // c.fld
        case 2: return iType(0x03, 2, rdp, rs1p, wordOffset); // c.lw
        case 3: return iType(0x03, 3, rdp, rs1p, doubleOffset); // c.ld
        case 4: return expandNarrowAccess(c, rs1p, rdp);
        case 5: return sType(0x27, 3, rs1p, rdp, doubleOffset); // c.fsd
        case 6: return sType(0x23, 2, rs1p, rdp, wordOffset); // c.sw
        case 7: return sType(0x23, 3, rs1p, rdp, doubleOffset); // c.sd
      }
      return 0;
    case 1:
      switch (funct3) {
        case 0: return iType(0x13, 0, rd, rd, immediate6(c)); // c.addi
        case 1: return rd == 0 ? 0 : iType(0x1b, 0, rd, rd, immediate6(c)); // c.addiw
        case 2: return iType(0x13, 0, rd, 0, immediate6(c)); // c.li
        case 3:
          if (rd == 2) { // c.addi16sp
            const raw = field(c, 12, 1, 9) | field(c, 6, 1, 4) | field(c, 5, 1, 6) | field(c, 3, 2, 7) | field(c, 2, 1, 5);
            return raw == 0 ? 0 : iType(0x13, 0, 2, 2, <u32>(<i32>(raw << 22) >> 22));
          }
          if (immediate6(c) == 0) return (rd & 0x11) == 1 ? iType(0x13, 0, 0, 0, 0) : 0; // c.mop.n: does nothing
          return (immediate6(c) << 12) | (rd << 7) | 0x37; // c.lui
        case 4:
          switch ((c >> 10) & 3) {
            case 0: return iType(0x13, 5, rs1p, rs1p, immediate6(c) & 63); // c.srli
            case 1: return iType(0x13, 5, rs1p, rs1p, (immediate6(c) & 63) | 0x400); // c.srai
            case 2: return iType(0x13, 7, rs1p, rs1p, immediate6(c)); // c.andi
          }
          switch (((c >> 5) & 3) | field(c, 12, 1, 2)) {
            case 0: return rType(0x33, 0, 0x20, rs1p, rs1p, rdp); // c.sub
            case 1: return rType(0x33, 4, 0, rs1p, rs1p, rdp); // c.xor
            case 2: return rType(0x33, 6, 0, rs1p, rs1p, rdp); // c.or
            case 3: return rType(0x33, 7, 0, rs1p, rs1p, rdp); // c.and
            case 4: return rType(0x3b, 0, 0x20, rs1p, rs1p, rdp); // c.subw
            case 5: return rType(0x3b, 0, 0, rs1p, rs1p, rdp); // c.addw
            case 6: return rType(0x33, 0, 1, rs1p, rs1p, rdp); // c.mul
            case 7: return expandUnary(rs1p, (c >> 2) & 7);
          }
          return 0;
        case 5: { // c.j
          const raw =
            field(c, 12, 1, 11) | field(c, 11, 1, 4) | field(c, 9, 2, 8) | field(c, 8, 1, 10) | field(c, 7, 1, 6) |
            field(c, 6, 1, 7) | field(c, 3, 3, 1) | field(c, 2, 1, 5);
          return jType(0, <u32>(<i32>(raw << 20) >> 20));
        }
        default: { // c.beqz, c.bnez
          const raw = field(c, 12, 1, 8) | field(c, 10, 2, 3) | field(c, 5, 2, 6) | field(c, 3, 2, 1) | field(c, 2, 1, 5);
          return bType(funct3 & 1, rs1p, 0, <u32>(<i32>(raw << 23) >> 23));
        }
      }
    default:
      switch (funct3) {
        case 0: return iType(0x13, 1, rd, rd, immediate6(c) & 63); // c.slli
        case 1: return iType(0x07, 3, rd, 2, field(c, 12, 1, 5) | field(c, 5, 2, 3) | field(c, 2, 3, 6)); // c.fldsp
        case 2: // c.lwsp
          return rd == 0 ? 0 : iType(0x03, 2, rd, 2, field(c, 12, 1, 5) | field(c, 4, 3, 2) | field(c, 2, 2, 6));
        case 3: // c.ldsp
          return rd == 0 ? 0 : iType(0x03, 3, rd, 2, field(c, 12, 1, 5) | field(c, 5, 2, 3) | field(c, 2, 3, 6));
        case 4:
          if ((c & 0x1000) == 0) {
            if (rs2 != 0) return rType(0x33, 0, 0, rd, 0, rs2); // c.mv
            return rd == 0 ? 0 : iType(0x67, 0, 0, rd, 0); // c.jr
          }
          if (rs2 != 0) return rType(0x33, 0, 0, rd, rd, rs2); // c.add
          return rd == 0 ? 0x00100073 : iType(0x67, 0, 1, rd, 0); // c.ebreak, c.jalr
        case 5: return sType(0x27, 3, 2, rs2, field(c, 10, 3, 3) | field(c, 7, 3, 6)); // c.fsdsp
        case 6: return sType(0x23, 2, 2, rs2, field(c, 9, 4, 2) | field(c, 7, 2, 6)); // c.swsp
        case 7: return sType(0x23, 3, 2, rs2, field(c, 10, 3, 3) | field(c, 7, 3, 6)); // c.sdsp
      }
      return 0;
  }
}
