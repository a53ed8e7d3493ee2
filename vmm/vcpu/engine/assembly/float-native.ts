// Addition, subtraction, multiplication, division and square root by WebAssembly's own operations, which round to nearest even and have no flags. They
// are used only if the flags are known without looking: NX already raised (flags are sticky) and a result so far from zero and infinity that nothing
// else can be raised; or NX computed from the operation's exact error. All else is float-arithmetic.ts's.
import { add, divide, multiply, squareRoot, subtract } from "./float-arithmetic";
import { NX, RNE } from "./float-format";
import { FLOAT_FLAGS } from "./layout";

export const ADD: u32 = 0;
export const SUBTRACT: u32 = 1;
export const MULTIPLY: u32 = 2;
export const DIVIDE: u32 = 3;

/** Neither zero, subnormal, the least normal binade, the greatest, infinite nor NaN. */
@inline
function comfortable64(bits: u64): bool {
  return (((<u32>(bits >> 52)) & 0x7ff) - 2) < 2040;
}

@inline
function comfortable32(bits: u32): bool {
  return (((bits >> 23) & 0xff) - 2) < 250;
}

function arithmetic64(operation: u32, a: u64, b: u64, mode: u32): u64 {
  if (mode == RNE) {
    const x = reinterpret<f64>(a);
    const y = operation == SUBTRACT ? -reinterpret<f64>(b) : reinterpret<f64>(b);
    const result = operation < MULTIPLY ? x + y : operation == MULTIPLY ? x * y : x / y;
    const bits = reinterpret<u64>(result);
    if (comfortable64(bits)) {
      if (load<u32>(FLOAT_FLAGS) & NX) return bits;
      if (operation < MULTIPLY && comfortable64(a) && comfortable64(b)) {
        // the error of a sum, exactly (Knuth)
        const part = result - x;
        if ((x - (result - part)) + (y - part) != 0) store<u32>(FLOAT_FLAGS, load<u32>(FLOAT_FLAGS) | NX);
        return bits;
      }
    }
  }
  switch (operation) {
    case ADD: return add(a, b, true, mode);
    case SUBTRACT: return subtract(a, b, true, mode);
    case MULTIPLY: return multiply(a, b, true, mode);
    default: return divide(a, b, true, mode);
  }
}

function arithmetic32(operation: u32, a: u64, b: u64, mode: u32): u64 {
  if (mode == RNE) {
    const x = reinterpret<f32>(<u32>a);
    const y = operation == SUBTRACT ? -reinterpret<f32>(<u32>b) : reinterpret<f32>(<u32>b);
    const result = operation < MULTIPLY ? x + y : operation == MULTIPLY ? x * y : x / y;
    const bits = reinterpret<u32>(result);
    if (comfortable32(bits)) {
      if (load<u32>(FLOAT_FLAGS) & NX) return <u64>bits;
      if (operation == MULTIPLY) {
        // the product of two binary32 is exact in binary64
        if (<f64>x * <f64>y != <f64>result) store<u32>(FLOAT_FLAGS, load<u32>(FLOAT_FLAGS) | NX);
        return <u64>bits;
      }
      if (operation < MULTIPLY && comfortable32(<u32>a) && comfortable32(<u32>b)) {
        const part = result - x;
        if ((x - (result - part)) + (y - part) != 0) store<u32>(FLOAT_FLAGS, load<u32>(FLOAT_FLAGS) | NX);
        return <u64>bits;
      }
    }
  }
  switch (operation) {
    case ADD: return add(a, b, false, mode);
    case SUBTRACT: return subtract(a, b, false, mode);
    case MULTIPLY: return multiply(a, b, false, mode);
    default: return divide(a, b, false, mode);
  }
}

/** ADD … DIVIDE of two of binary64 or binary32. */
export function arithmetic(operation: u32, a: u64, b: u64, double: bool, mode: u32): u64 {
  return double ? arithmetic64(operation, a, b, mode) : arithmetic32(operation, a, b, mode);
}

/** A root is never tiny or huge: with NX raised already, nothing is left to raise for a positive normal operand. */
@inline
export function root(a: u64, double: bool, mode: u32): u64 {
  if (mode == RNE && load<u32>(FLOAT_FLAGS) & NX) {
    if (double) {
      if (!(a >> 63) && comfortable64(a)) return reinterpret<u64>(sqrt<f64>(reinterpret<f64>(a)));
    } else if (!(a >> 31) && comfortable32(<u32>a)) return <u64>reinterpret<u32>(sqrt<f32>(reinterpret<f32>(<u32>a)));
  }
  return squareRoot(a, double, mode);
}
