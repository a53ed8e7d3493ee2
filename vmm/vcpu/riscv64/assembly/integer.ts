// Arithmetic WebAssembly has no instruction for, or whose corner cases differ: division by zero and overflow trap there, here they have results
// ("M" extension, semantics of division).

/** The low 32 bits, sign-extended. */
@inline
export function word(value: u32): u64 {
  return <u64>(<i64>(<i32>value));
}

/** Upper 64 bits of the unsigned product. */
@inline
export function multiplyHigh(a: u64, b: u64): u64 {
  const aLow = a & 0xffffffff;
  const aHigh = a >> 32;
  const bLow = b & 0xffffffff;
  const bHigh = b >> 32;
  const middle = aHigh * bLow + ((aLow * bLow) >> 32);
  const cross = (middle & 0xffffffff) + aLow * bHigh;
  return aHigh * bHigh + (middle >> 32) + (cross >> 32);
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
