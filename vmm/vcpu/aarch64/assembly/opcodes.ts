// Numbers of decoded operations. A decode slot is 16 bytes: operation u16, d u16, n u16, m u16, immediate i64. Registers are offsets of their word
// behind X, so that register 31 is what decoding says (layout.ts: SP, ZERO, SINK). _W: the 32-bit form. The numbers below ILLEGAL are the engine's.
//
//   bit fields                m = shift, immediate = mask of the field, at bit 0
//   shifted registers         immediate = type of shift × 64 + amount
//   extended registers        immediate = bits above the operand | signed × 0x100 | left shift × 0x10000
//   conditions                immediate bits 15:0: bit n set, the condition holds when NZCV is n
//   B_COND                    d = the same bits; immediate = distance
//   compares on condition     immediate also: NZCV otherwise × 0x10000, operand to add to m × 2³²
//   branches                  immediate = distance, in slot bytes within the page, in code bytes for _FAR; TBZ: m = bit
//   loads and stores          d = data, n = base, immediate = offset; _WB: offset of the access i32, then what the base grows by i32;
//                             _REG: as extended registers; pairs: m = second register, offsets as _WB
//   ILLEGAL, RAW              immediate = the instruction
// what step() does
export const ILLEGAL = 6;
export const RAW = 7;
// moves
export const NOP = 8;
export const MOVI = 9;
export const ADR = 10;
export const MOVK = 11;
export const MOVK_W = 12;
export const MOV = 13;
export const MOV_W = 14;
// immediates
export const ADDI = 15;
export const ADDI_W = 16;
export const ADDSI = 17;
export const ADDSI_W = 18;
export const SUBSI = 19;
export const SUBSI_W = 20;
export const ANDI = 21;
export const ORRI = 22;
export const ORRI_W = 23;
export const EORI = 24;
export const EORI_W = 25;
export const ANDSI = 26;
export const ANDSI_W = 27;
// bit fields
export const UBFX = 28;
export const UBFIZ = 29;
export const SBF = 30;
export const SBF_W = 31;
export const BFI = 32;
export const BFI_W = 33;
export const BFXIL = 34;
export const BFXIL_W = 35;
export const EXTR = 36;
export const EXTR_W = 37;
// registers
export const ADD = 38;
export const ADD_W = 39;
export const SUB = 40;
export const SUB_W = 41;
export const ADDS = 42;
export const ADDS_W = 43;
export const SUBS = 44;
export const SUBS_W = 45;
export const AND = 46;
export const AND_W = 47;
export const ORR = 48;
export const ORR_W = 49;
export const EOR = 50;
export const EOR_W = 51;
export const BIC = 52;
export const BIC_W = 53;
export const ANDS = 54;
export const ANDS_W = 55;
// shifted registers
export const ADD_SHIFT = 56;
export const ADD_SHIFT_W = 57;
export const SUB_SHIFT = 58;
export const SUB_SHIFT_W = 59;
export const ADDS_SHIFT = 60;
export const ADDS_SHIFT_W = 61;
export const SUBS_SHIFT = 62;
export const SUBS_SHIFT_W = 63;
export const AND_SHIFT = 64;
export const AND_SHIFT_W = 65;
export const BIC_SHIFT = 66;
export const BIC_SHIFT_W = 67;
export const ORR_SHIFT = 68;
export const ORR_SHIFT_W = 69;
export const ORN_SHIFT = 70;
export const ORN_SHIFT_W = 71;
export const EOR_SHIFT = 72;
export const EOR_SHIFT_W = 73;
export const EON_SHIFT = 74;
export const EON_SHIFT_W = 75;
export const ANDS_SHIFT = 76;
export const ANDS_SHIFT_W = 77;
export const BICS_SHIFT = 78;
export const BICS_SHIFT_W = 79;
// extended registers
export const ADD_EXTEND = 80;
export const ADD_EXTEND_W = 81;
export const SUB_EXTEND = 82;
export const SUB_EXTEND_W = 83;
export const ADDS_EXTEND = 84;
export const ADDS_EXTEND_W = 85;
export const SUBS_EXTEND = 86;
export const SUBS_EXTEND_W = 87;
// carry, conditions
export const ADC = 88;
export const ADC_W = 89;
export const SBC = 90;
export const SBC_W = 91;
export const ADCS = 92;
export const ADCS_W = 93;
export const SBCS = 94;
export const SBCS_W = 95;
export const CSEL = 96;
export const CSEL_W = 97;
export const CSINC = 98;
export const CSINC_W = 99;
export const CSINV = 100;
export const CSINV_W = 101;
export const CSNEG = 102;
export const CSNEG_W = 103;
export const CCMP = 104;
export const CCMP_W = 105;
export const CCMN = 106;
export const CCMN_W = 107;
// products
export const MADD = 108;
export const MADD_W = 109;
export const MSUB = 110;
export const MSUB_W = 111;
export const SMADDL = 112;
export const UMADDL = 113;
export const SMSUBL = 114;
export const UMSUBL = 115;
export const SMULH = 116;
export const UMULH = 117;
export const UDIV = 118;
export const UDIV_W = 119;
export const SDIV = 120;
export const SDIV_W = 121;
// shifts, counts, reversals
export const LSLV = 122;
export const LSLV_W = 123;
export const LSRV = 124;
export const LSRV_W = 125;
export const ASRV = 126;
export const ASRV_W = 127;
export const RORV = 128;
export const RORV_W = 129;
export const CLZ = 130;
export const CLZ_W = 131;
export const CLS = 132;
export const CLS_W = 133;
export const RBIT = 134;
export const RBIT_W = 135;
export const REV = 136;
export const REV_W = 137;
export const REV16 = 138;
export const REV16_W = 139;
export const REV32 = 140;
// branches; _FAR: out of the page
export const B = 141;
export const B_FAR = 142;
export const BL = 143;
export const BL_FAR = 144;
export const BR = 145;
export const BLR = 146;
export const B_COND = 147;
export const B_COND_FAR = 148;
export const CBZ = 149;
export const CBZ_FAR = 150;
export const CBZ_W = 151;
export const CBZ_W_FAR = 152;
export const CBNZ = 153;
export const CBNZ_FAR = 154;
export const CBNZ_W = 155;
export const CBNZ_W_FAR = 156;
export const TBZ = 157;
export const TBZ_FAR = 158;
export const TBNZ = 159;
export const TBNZ_FAR = 160;
// system registers that are words of the hart's state
export const MRS_EL0 = 161;
export const MRS_EL1 = 162;
// a block of zeros
export const ZVA = 163;
// loads and stores: base + immediate
export const STRB = 164;
export const STRH = 165;
export const STRW = 166;
export const STRX = 167;
export const LDRB = 168;
export const LDRH = 169;
export const LDRW = 170;
export const LDRX = 171;
export const LDRSB = 172;
export const LDRSH = 173;
export const LDRSW = 174;
export const LDRSB_W = 175;
export const LDRSH_W = 176;
// loads and stores: and the base is written
export const STRB_WB = 177;
export const STRH_WB = 178;
export const STRW_WB = 179;
export const STRX_WB = 180;
export const LDRB_WB = 181;
export const LDRH_WB = 182;
export const LDRW_WB = 183;
export const LDRX_WB = 184;
export const LDRSB_WB = 185;
export const LDRSH_WB = 186;
export const LDRSW_WB = 187;
export const LDRSB_W_WB = 188;
export const LDRSH_W_WB = 189;
// loads and stores: base + extended register
export const STRB_REG = 190;
export const STRH_REG = 191;
export const STRW_REG = 192;
export const STRX_REG = 193;
export const LDRB_REG = 194;
export const LDRH_REG = 195;
export const LDRW_REG = 196;
export const LDRX_REG = 197;
export const LDRSB_REG = 198;
export const LDRSH_REG = 199;
export const LDRSW_REG = 200;
export const LDRSB_W_REG = 201;
export const LDRSH_W_REG = 202;
// loads and stores: as EL0 does
export const STRB_USER = 203;
export const STRH_USER = 204;
export const STRW_USER = 205;
export const STRX_USER = 206;
export const LDRB_USER = 207;
export const LDRH_USER = 208;
export const LDRW_USER = 209;
export const LDRX_USER = 210;
export const LDRSB_USER = 211;
export const LDRSH_USER = 212;
export const LDRSW_USER = 213;
export const LDRSB_W_USER = 214;
export const LDRSH_W_USER = 215;
// literals
export const LDRW_LITERAL = 216;
export const LDRX_LITERAL = 217;
export const LDRSW_LITERAL = 218;
// pairs
export const STP_W = 219;
export const STP = 220;
export const LDP_W = 221;
export const LDP = 222;
export const LDPSW = 223;
export const STP_W_WB = 224;
export const STP_WB = 225;
export const LDP_W_WB = 226;
export const LDP_WB = 227;
export const LDPSW_WB = 228;
