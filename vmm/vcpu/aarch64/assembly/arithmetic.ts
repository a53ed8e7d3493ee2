// Arithmetic that WebAssembly has no instruction for, and flags: NZCV as a number, N 8, Z 4, C 2, V 1 (DDI 0487, AddWithCarry). All inlined: the
// interpreter's loop may not call.
import { multiplyHigh } from "../../engine/assembly/arithmetic";

@inline
export function low(value: u64): u64 {
  return value & 0xffffffff;
}

@inline
export function flagsOfSum(a: u64, b: u64): u32 {
  const r = a + b;
  return (<u32>(r >> 63) << 3) | (<u32>(r == 0) << 2) | (<u32>(r < a) << 1) | <u32>(((a ^ r) & (b ^ r)) >> 63);
}

@inline
export function flagsOfDifference(a: u64, b: u64): u32 {
  const r = a - b;
  return (<u32>(r >> 63) << 3) | (<u32>(r == 0) << 2) | (<u32>(a >= b) << 1) | <u32>(((a ^ b) & (a ^ r)) >> 63);
}

@inline
export function flagsOfSumWord(a: u32, b: u32): u32 {
  const r = a + b;
  return ((r >> 31) << 3) | (<u32>(r == 0) << 2) | (<u32>(r < a) << 1) | (((a ^ r) & (b ^ r)) >> 31);
}

@inline
export function flagsOfDifferenceWord(a: u32, b: u32): u32 {
  const r = a - b;
  return ((r >> 31) << 3) | (<u32>(r == 0) << 2) | (<u32>(a >= b) << 1) | (((a ^ b) & (a ^ r)) >> 31);
}

@inline
export function flagsOfLogic(r: u64): u32 {
  return (<u32>(r >> 63) << 3) | (<u32>(r == 0) << 2);
}

@inline
export function flagsOfLogicWord(r: u32): u32 {
  return ((r >> 31) << 3) | (<u32>(r == 0) << 2);
}

/** Flags of a + b + carry (0 or 1). */
@inline
export function flagsWithCarry(a: u64, b: u64, carry: u64): u32 {
  const r = a + b + carry;
  const out = <u32>(r < a) | (<u32>(r == a) & <u32>carry);
  return (<u32>(r >> 63) << 3) | (<u32>(r == 0) << 2) | (out << 1) | <u32>(((a ^ r) & (b ^ r)) >> 63);
}

@inline
export function flagsWithCarryWord(a: u32, b: u32, carry: u32): u32 {
  const r = a + b + carry;
  const out = <u32>(r < a) | (<u32>(r == a) & carry);
  return ((r >> 31) << 3) | (<u32>(r == 0) << 2) | (out << 1) | (((a ^ r) & (b ^ r)) >> 31);
}

/** `value` shifted as a slot's immediate says: LSL, LSR, ASR, ROR (types 0…3) by an amount. */
@inline
export function shifted(value: u64, how: u32): u64 {
  const amount = <u64>(how & 63);
  const type = how >> 6;
  return type == 0 ? value << amount : type == 1 ? value >> amount : type == 2 ? <u64>(<i64>value >> amount) : rotr<u64>(value, amount);
}

@inline
export function shiftedWord(value: u32, how: u32): u32 {
  const amount = how & 31;
  const type = how >> 6;
  return type == 0 ? value << amount : type == 1 ? value >> amount : type == 2 ? <u32>(<i32>value >> amount) : rotr<u32>(value, amount);
}

/** `value` extended as a slot's immediate says. */
@inline
export function extended(value: u64, how: u32): u64 {
  const above = <u64>(how & 0xff);
  const moved = value << above;
  return (how & 0x100 ? <u64>(<i64>moved >> above) : moved >> above) << <u64>(how >> 16);
}

@inline
export function divideUnsigned(a: u64, b: u64): u64 {
  return b == 0 ? 0 : a / b;
}

@inline
export function divideSigned(a: u64, b: u64): u64 {
  if (b == 0) return 0;
  if (b == <u64>-1) return 0 - a; // the most negative value stays itself
  return <u64>(<i64>a / <i64>b);
}

@inline
export function divideUnsignedWord(a: u32, b: u32): u32 {
  return b == 0 ? 0 : a / b;
}

@inline
export function divideSignedWord(a: u32, b: u32): u32 {
  if (b == 0) return 0;
  if (b == 0xffffffff) return 0 - a;
  return <u32>(<i32>a / <i32>b);
}

@inline
export function multiplyHighSigned(a: u64, b: u64): u64 {
  return multiplyHigh(a, b) - (<u64>(<i64>a >> 63) & b) - (<u64>(<i64>b >> 63) & a);
}

@inline
export function swapHalfwordBytes(value: u64): u64 {
  return ((value & 0x00ff00ff00ff00ff) << 8) | ((value >> 8) & 0x00ff00ff00ff00ff);
}

/** Bytes of each 32-bit word reversed. */
@inline
export function swapWordBytes(value: u64): u64 {
  const halves = swapHalfwordBytes(value);
  return ((halves & 0x0000ffff0000ffff) << 16) | ((halves >> 16) & 0x0000ffff0000ffff);
}

@inline
export function reverseBits(value: u64): u64 {
  const one = ((value & 0x5555555555555555) << 1) | ((value >> 1) & 0x5555555555555555);
  const two = ((one & 0x3333333333333333) << 2) | ((one >> 2) & 0x3333333333333333);
  const four = ((two & 0x0f0f0f0f0f0f0f0f) << 4) | ((two >> 4) & 0x0f0f0f0f0f0f0f0f);
  return rotr<u64>(swapWordBytes(four), 32);
}

/** Bits below the top one that equal it. */
@inline
export function countSigns(value: u64): u64 {
  return clz<u64>(((value ^ <u64>(<i64>value >> 63)) << 1) | 1);
}
