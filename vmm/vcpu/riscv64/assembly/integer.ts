// Arithmetic WebAssembly has no instruction for, or whose corner cases differ: division by zero and overflow trap there, here they have results
// ("M" extension, semantics of division); and products without carries (Zbc).
import { CLMUL, CLMULH } from "./opcodes";

/** The low 32 bits, sign-extended. */
@inline
export function word(value: u32): u64 {
  return <u64>(<i64>(<i32>value));
}

@inline
export function divide(a: u64, b: u64): u64 {
  if (b == 0) return <u64>-1;
  if (b == <u64>-1) return 0 - a; // the most negative value stays itself
  return <u64>(<i64>a / <i64>b);
}

@inline
export function divideUnsigned(a: u64, b: u64): u64 {
  return b == 0 ? <u64>-1 : a / b;
}

@inline
export function remainder(a: u64, b: u64): u64 {
  if (b == 0) return a;
  if (b == <u64>-1) return 0;
  return <u64>(<i64>a % <i64>b);
}

@inline
export function remainderUnsigned(a: u64, b: u64): u64 {
  return b == 0 ? a : a % b;
}

@inline
export function divideWord(a: u32, b: u32): u32 {
  if (b == 0) return 0xffffffff;
  if (b == 0xffffffff) return 0 - a;
  return <u32>(<i32>a / <i32>b);
}

@inline
export function divideUnsignedWord(a: u32, b: u32): u32 {
  return b == 0 ? 0xffffffff : a / b;
}

@inline
export function remainderWord(a: u32, b: u32): u32 {
  if (b == 0) return a;
  if (b == 0xffffffff) return 0;
  return <u32>(<i32>a % <i32>b);
}

@inline
export function remainderUnsignedWord(a: u32, b: u32): u32 {
  return b == 0 ? a : a % b;
}

/** orc.b: every byte becomes all ones if any of its bits is set. */
@inline
export function orCombine(value: u64): u64 {
  const low = value & 0x7f7f7f7f7f7f7f7f;
  const bits = (((low + 0x7f7f7f7f7f7f7f7f) | value) & 0x8080808080808080) >> 7;
  return bits * 0xff;
}

/** The bits of `value` in reverse order. */
@inline
function reverseBits(value: u64): u64 {
  value = ((value >> 1) & 0x5555555555555555) | ((value & 0x5555555555555555) << 1);
  value = ((value >> 2) & 0x3333333333333333) | ((value & 0x3333333333333333) << 2);
  value = ((value >> 4) & 0x0f0f0f0f0f0f0f0f) | ((value & 0x0f0f0f0f0f0f0f0f) << 4);
  return bswap<u64>(value);
}

/**
 * Lower half of the product of polynomials over GF(2). Each factor is cut into four with three empty bits between its own: at most 16 products meet
 * in a place, so that a carry leaves the place's lowest bit right, and what it adds to the next place is masked away.
 */
function carrylessLow(a: u64, b: u64): u64 {
  const every: u64 = 0x1111111111111111;
  const a0 = a & every;
  const a1 = a & (every << 1);
  const a2 = a & (every << 2);
  const a3 = a & (every << 3);
  const b0 = b & every;
  const b1 = b & (every << 1);
  const b2 = b & (every << 2);
  const b3 = b & (every << 3);
  return (
    (((a0 * b0) ^ (a1 * b3) ^ (a2 * b2) ^ (a3 * b1)) & every) |
    (((a0 * b1) ^ (a1 * b0) ^ (a2 * b3) ^ (a3 * b2)) & (every << 1)) |
    (((a0 * b2) ^ (a1 * b1) ^ (a2 * b0) ^ (a3 * b3)) & (every << 2)) |
    (((a0 * b3) ^ (a1 * b2) ^ (a2 * b1) ^ (a3 * b0)) & (every << 3))
  );
}

/** clmul, clmulh, clmulr by their operation. Reversing factors and product turns the upper half into the lower one. */
export function carrylessMultiply(operation: u32, a: u64, b: u64): u64 {
  if (operation == CLMUL) return carrylessLow(a, b);
  const reversed = reverseBits(carrylessLow(reverseBits(a), reverseBits(b)));
  return operation == CLMULH ? reversed >> 1 : reversed;
}
