// Instruction encodings of the tests, from the formats of the unprivileged specification ("Base Instruction Formats", "Compressed Instruction
// Formats"). Numbers in, unsigned 32-bit (or 16-bit) words out.

export const r = (opcode: number, funct3: number, funct7: number, rd: number, rs1: number, rs2: number): number =>
  ((funct7 << 25) | (rs2 << 20) | (rs1 << 15) | (funct3 << 12) | (rd << 7) | opcode) >>> 0;

export const i = (opcode: number, funct3: number, rd: number, rs1: number, immediate: number): number =>
  (((immediate & 0xfff) << 20) | (rs1 << 15) | (funct3 << 12) | (rd << 7) | opcode) >>> 0;

export const s = (opcode: number, funct3: number, rs1: number, rs2: number, immediate: number): number =>
  ((((immediate >> 5) & 0x7f) << 25) |
    (rs2 << 20) |
    (rs1 << 15) |
    (funct3 << 12) |
    ((immediate & 31) << 7) |
    opcode) >>>
  0;

export const b = (funct3: number, rs1: number, rs2: number, offset: number): number =>
  ((((offset >> 12) & 1) << 31) |
    (((offset >> 5) & 0x3f) << 25) |
    (rs2 << 20) |
    (rs1 << 15) |
    (funct3 << 12) |
    (((offset >> 1) & 15) << 8) |
    (((offset >> 11) & 1) << 7) |
    0x63) >>>
  0;

export const u = (opcode: number, rd: number, upper: number): number =>
  (((upper & 0xfffff) << 12) | (rd << 7) | opcode) >>> 0;

export const j = (rd: number, offset: number): number =>
  ((((offset >> 20) & 1) << 31) |
    (((offset >> 1) & 0x3ff) << 21) |
    (((offset >> 11) & 1) << 20) |
    (((offset >> 12) & 0xff) << 12) |
    (rd << 7) |
    0x6f) >>>
  0;

export const addi = (rd: number, rs1: number, immediate: number): number => i(0x13, 0, rd, rs1, immediate);
export const lui = (rd: number, upper: number): number => u(0x37, rd, upper);
export const jalr = (rd: number, rs1: number, immediate: number): number => i(0x67, 0, rd, rs1, immediate);
export const load = (funct3: number, rd: number, rs1: number, immediate: number): number =>
  i(0x03, funct3, rd, rs1, immediate);
export const store = (funct3: number, rs1: number, rs2: number, immediate: number): number =>
  s(0x23, funct3, rs1, rs2, immediate);
export const ld = (rd: number, rs1: number, immediate: number): number => load(3, rd, rs1, immediate);
export const sd = (rs2: number, rs1: number, immediate: number): number => store(3, rs1, rs2, immediate);
/** kind: 1 rw, 2 rs, 3 rc, 5 rwi, 6 rsi, 7 rci. */
export const csr = (kind: number, rd: number, number_: number, source: number): number =>
  i(0x73, kind, rd, source, number_);
export const amo = (funct5: number, wide: boolean, rd: number, rs1: number, rs2: number): number =>
  r(0x2f, wide ? 3 : 2, funct5 << 2, rd, rs1, rs2);

export const NOP = addi(0, 0, 0);
export const ECALL = 0x73;
export const EBREAK = 0x100073;
export const SRET = 0x10200073;
export const WFI = 0x10500073;
export const FENCE_I = 0x100f;
export const SFENCE_VMA = 0x12000073;
