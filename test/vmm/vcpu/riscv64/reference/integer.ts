// What the integer instructions compute, in bigint arithmetic, from the prose of the unprivileged specification (chapters RV32I, RV64I, M, "B",
// Zicond, Zbc).
// `rr` instructions have two registers, `ri` a register and an immediate.
import * as encode from "../encode.ts";

const u64 = (value: bigint): bigint => BigInt.asUintN(64, value);
const s64 = (value: bigint): bigint => BigInt.asIntN(64, value);
const u32 = (value: bigint): bigint => BigInt.asUintN(32, value);
const s32 = (value: bigint): bigint => BigInt.asIntN(32, value);
const bits = (value: bigint, width: number): number[] => {
  const out: number[] = [];
  for (let n = 0; n < width; n++) out.push(Number((value >> BigInt(n)) & 1n));
  return out;
};
const truncatedQuotient = (a: bigint, b: bigint): bigint => a / b; // bigint division rounds towards zero, as DIV does
const rotate = (value: bigint, left: bigint, width: bigint): bigint =>
  ((value << left) | (value >> (width - left))) & ((1n << width) - 1n);
const leadingZeros = (value: bigint, width: number): bigint => {
  const at = bits(value, width).lastIndexOf(1);
  return BigInt(width - 1 - at);
};
const trailingZeros = (value: bigint, width: number): bigint => {
  const at = bits(value, width).indexOf(1);
  return BigInt(at < 0 ? width : at);
};
const ones = (value: bigint, width: number): bigint => BigInt(bits(value, width).reduce((sum, bit) => sum + bit, 0));
/** The product of polynomials over GF(2), up to 127 bits. */
const carryless = (a: bigint, b: bigint): bigint => {
  let product = 0n;
  for (let n = 0n; n < 64n; n++) if ((b >> n) & 1n) product ^= a << n;
  return product;
};
const bytes = (value: bigint): bigint[] => [0, 8, 16, 24, 32, 40, 48, 56].map((at) => (value >> BigInt(at)) & 0xffn);
const fromBytes = (list: bigint[]): bigint => list.reduceRight((sum, byte) => (sum << 8n) | byte, 0n);

export interface RegisterRegister {
  readonly name: string;
  readonly word: (rd: number, rs1: number, rs2: number) => number;
  /** Operands unsigned; the result is taken modulo 2⁶⁴. */
  readonly result: (a: bigint, b: bigint) => bigint;
}

const OP = 0x33;
const OP32 = 0x3b;
const rr = (
  name: string,
  opcode: number,
  funct7: number,
  funct3: number,
  result: (a: bigint, b: bigint) => bigint,
): RegisterRegister => ({
  name,
  word: (rd, rs1, rs2) => encode.r(opcode, funct3, funct7, rd, rs1, rs2),
  result,
});

export const REGISTER_REGISTER: readonly RegisterRegister[] = [
  rr("add", OP, 0x00, 0, (a, b) => a + b),
  rr("sub", OP, 0x20, 0, (a, b) => a - b),
  rr("sll", OP, 0x00, 1, (a, b) => a << (b % 64n)),
  rr("slt", OP, 0x00, 2, (a, b) => (s64(a) < s64(b) ? 1n : 0n)),
  rr("sltu", OP, 0x00, 3, (a, b) => (a < b ? 1n : 0n)),
  rr("xor", OP, 0x00, 4, (a, b) => a ^ b),
  rr("srl", OP, 0x00, 5, (a, b) => a >> (b % 64n)),
  rr("sra", OP, 0x20, 5, (a, b) => s64(a) >> (b % 64n)),
  rr("or", OP, 0x00, 6, (a, b) => a | b),
  rr("and", OP, 0x00, 7, (a, b) => a & b),
  rr("addw", OP32, 0x00, 0, (a, b) => s32(a + b)),
  rr("subw", OP32, 0x20, 0, (a, b) => s32(a - b)),
  rr("sllw", OP32, 0x00, 1, (a, b) => s32(a << (b % 32n))),
  rr("srlw", OP32, 0x00, 5, (a, b) => s32(u32(a) >> (b % 32n))),
  rr("sraw", OP32, 0x20, 5, (a, b) => s32(a) >> (b % 32n)),
  // M
  rr("mul", OP, 0x01, 0, (a, b) => a * b),
  rr("mulh", OP, 0x01, 1, (a, b) => (s64(a) * s64(b)) >> 64n),
  rr("mulhsu", OP, 0x01, 2, (a, b) => (s64(a) * b) >> 64n),
  rr("mulhu", OP, 0x01, 3, (a, b) => (a * b) >> 64n),
  rr("div", OP, 0x01, 4, (a, b) => (b === 0n ? -1n : truncatedQuotient(s64(a), s64(b)))),
  rr("divu", OP, 0x01, 5, (a, b) => (b === 0n ? -1n : a / b)),
  rr("rem", OP, 0x01, 6, (a, b) => (b === 0n ? a : s64(a) % s64(b))),
  rr("remu", OP, 0x01, 7, (a, b) => (b === 0n ? a : a % b)),
  rr("mulw", OP32, 0x01, 0, (a, b) => s32(a * b)),
  rr("divw", OP32, 0x01, 4, (a, b) => (u32(b) === 0n ? -1n : s32(truncatedQuotient(s32(a), s32(b))))),
  rr("divuw", OP32, 0x01, 5, (a, b) => (u32(b) === 0n ? -1n : s32(u32(a) / u32(b)))),
  rr("remw", OP32, 0x01, 6, (a, b) => (u32(b) === 0n ? s32(a) : s32(s32(a) % s32(b)))),
  rr("remuw", OP32, 0x01, 7, (a, b) => (u32(b) === 0n ? s32(a) : s32(u32(a) % u32(b)))),
  // Zba
  rr("add.uw", OP32, 0x04, 0, (a, b) => u32(a) + b),
  rr("sh1add", OP, 0x10, 2, (a, b) => a * 2n + b),
  rr("sh2add", OP, 0x10, 4, (a, b) => a * 4n + b),
  rr("sh3add", OP, 0x10, 6, (a, b) => a * 8n + b),
  rr("sh1add.uw", OP32, 0x10, 2, (a, b) => u32(a) * 2n + b),
  rr("sh2add.uw", OP32, 0x10, 4, (a, b) => u32(a) * 4n + b),
  rr("sh3add.uw", OP32, 0x10, 6, (a, b) => u32(a) * 8n + b),
  // Zbb
  rr("andn", OP, 0x20, 7, (a, b) => a & ~b),
  rr("orn", OP, 0x20, 6, (a, b) => a | ~b),
  rr("xnor", OP, 0x20, 4, (a, b) => ~(a ^ b)),
  rr("min", OP, 0x05, 4, (a, b) => (s64(a) < s64(b) ? a : b)),
  rr("minu", OP, 0x05, 5, (a, b) => (a < b ? a : b)),
  rr("max", OP, 0x05, 6, (a, b) => (s64(a) < s64(b) ? b : a)),
  rr("maxu", OP, 0x05, 7, (a, b) => (a < b ? b : a)),
  rr("rol", OP, 0x30, 1, (a, b) => rotate(a, b % 64n, 64n)),
  rr("ror", OP, 0x30, 5, (a, b) => rotate(a, (64n - (b % 64n)) % 64n, 64n)),
  rr("rolw", OP32, 0x30, 1, (a, b) => s32(rotate(u32(a), b % 32n, 32n))),
  rr("rorw", OP32, 0x30, 5, (a, b) => s32(rotate(u32(a), (32n - (b % 32n)) % 32n, 32n))),
  // Zbs
  rr("bclr", OP, 0x24, 1, (a, b) => a & ~(1n << (b % 64n))),
  rr("bext", OP, 0x24, 5, (a, b) => (a >> (b % 64n)) & 1n),
  rr("binv", OP, 0x34, 1, (a, b) => a ^ (1n << (b % 64n))),
  rr("bset", OP, 0x14, 1, (a, b) => a | (1n << (b % 64n))),
  // Zbc
  rr("clmul", OP, 0x05, 1, (a, b) => u64(carryless(a, b))),
  rr("clmulh", OP, 0x05, 3, (a, b) => carryless(a, b) >> 64n),
  rr("clmulr", OP, 0x05, 2, (a, b) => u64(carryless(a, b) >> 63n)),
  // Zicond
  rr("czero.eqz", OP, 0x07, 5, (a, b) => (b === 0n ? 0n : a)),
  rr("czero.nez", OP, 0x07, 7, (a, b) => (b === 0n ? a : 0n)),
];

export interface RegisterImmediate {
  readonly name: string;
  /** Values the immediate can take: 12-bit signed, shift amounts, or none. */
  readonly immediates: "signed12" | "shift6" | "shift5" | "none";
  readonly word: (rd: number, rs1: number, immediate: number) => number;
  readonly result: (a: bigint, immediate: bigint) => bigint;
}

const OPIMM = 0x13;
const OPIMM32 = 0x1b;
const ri = (
  name: string,
  opcode: number,
  funct3: number,
  fixed: number,
  immediates: RegisterImmediate["immediates"],
  result: (a: bigint, immediate: bigint) => bigint,
): RegisterImmediate => ({
  name,
  immediates,
  word: (rd, rs1, immediate) => encode.i(opcode, funct3, rd, rs1, immediates === "none" ? fixed : fixed | immediate),
  result,
});

export const REGISTER_IMMEDIATE: readonly RegisterImmediate[] = [
  ri("addi", OPIMM, 0, 0, "signed12", (a, n) => a + n),
  ri("slti", OPIMM, 2, 0, "signed12", (a, n) => (s64(a) < n ? 1n : 0n)),
  ri("sltiu", OPIMM, 3, 0, "signed12", (a, n) => (a < u64(n) ? 1n : 0n)),
  ri("xori", OPIMM, 4, 0, "signed12", (a, n) => a ^ u64(n)),
  ri("ori", OPIMM, 6, 0, "signed12", (a, n) => a | u64(n)),
  ri("andi", OPIMM, 7, 0, "signed12", (a, n) => a & u64(n)),
  ri("slli", OPIMM, 1, 0, "shift6", (a, n) => a << n),
  ri("srli", OPIMM, 5, 0, "shift6", (a, n) => a >> n),
  ri("srai", OPIMM, 5, 0x400, "shift6", (a, n) => s64(a) >> n),
  ri("addiw", OPIMM32, 0, 0, "signed12", (a, n) => s32(a + n)),
  ri("slliw", OPIMM32, 1, 0, "shift5", (a, n) => s32(a << n)),
  ri("srliw", OPIMM32, 5, 0, "shift5", (a, n) => s32(u32(a) >> n)),
  ri("sraiw", OPIMM32, 5, 0x400, "shift5", (a, n) => s32(a) >> n),
  ri("slli.uw", OPIMM32, 1, 0x080, "shift6", (a, n) => u32(a) << n),
  ri("clz", OPIMM, 1, 0x600, "none", (a) => leadingZeros(a, 64)),
  ri("ctz", OPIMM, 1, 0x601, "none", (a) => trailingZeros(a, 64)),
  ri("cpop", OPIMM, 1, 0x602, "none", (a) => ones(a, 64)),
  ri("sext.b", OPIMM, 1, 0x604, "none", (a) => BigInt.asIntN(8, a)),
  ri("sext.h", OPIMM, 1, 0x605, "none", (a) => BigInt.asIntN(16, a)),
  ri("clzw", OPIMM32, 1, 0x600, "none", (a) => leadingZeros(u32(a), 32)),
  ri("ctzw", OPIMM32, 1, 0x601, "none", (a) => trailingZeros(u32(a), 32)),
  ri("cpopw", OPIMM32, 1, 0x602, "none", (a) => ones(u32(a), 32)),
  { ...ri("zext.h", OP32, 4, 0x080, "none", (a) => a & 0xffffn) },
  ri("rori", OPIMM, 5, 0x600, "shift6", (a, n) => rotate(a, (64n - n) % 64n, 64n)),
  ri("roriw", OPIMM32, 5, 0x600, "shift5", (a, n) => s32(rotate(u32(a), (32n - n) % 32n, 32n))),
  ri("orc.b", OPIMM, 5, 0x287, "none", (a) => fromBytes(bytes(a).map((byte) => (byte === 0n ? 0n : 0xffn)))),
  ri("rev8", OPIMM, 5, 0x6b8, "none", (a) => fromBytes(bytes(a).reverse())),
  ri("bclri", OPIMM, 1, 0x480, "shift6", (a, n) => a & ~(1n << n)),
  ri("bexti", OPIMM, 5, 0x480, "shift6", (a, n) => (a >> n) & 1n),
  ri("binvi", OPIMM, 1, 0x680, "shift6", (a, n) => a ^ (1n << n)),
  ri("bseti", OPIMM, 1, 0x280, "shift6", (a, n) => a | (1n << n)),
];

/** Operands at the corners, and as many random ones as asked for from a seed (mulberry32). */
export function operands(random: number, seed: number): bigint[] {
  const list: bigint[] = [
    0n,
    1n,
    2n,
    0x7fn,
    0x80n,
    0xffn,
    0x7fffn,
    0x8000n,
    0x7fffffffn,
    0x80000000n,
    0xffffffffn,
    0x100000000n,
  ];
  list.push(0x7fffffffffffffffn, 0x8000000000000000n, 0xffffffff80000000n, 0xfffffffffffffffen, 0xffffffffffffffffn);
  const next = generator(seed);
  for (let n = 0; n < random; n++) list.push((BigInt(next()) << 32n) | BigInt(next()));
  return list;
}

/** mulberry32: unsigned 32-bit numbers. */
export function generator(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (t ^ (t >>> 14)) >>> 0;
  };
}
