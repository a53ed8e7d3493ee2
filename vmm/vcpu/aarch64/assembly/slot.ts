// Writing a decode slot (opcodes.ts), and the small conversions that all of decoding shares.
import { SINK, SP, X, ZERO } from "./layout";
import { ILLEGAL } from "./opcodes";

/** A register's word as an offset behind X; 31 is XZR, read. */
@inline
export function source(register: u32): u32 {
  return (register & 31) == 31 ? ZERO - X : (register & 31) * 8;
}

/** 31 is XZR, written. */
@inline
export function target(register: u32): u32 {
  return (register & 31) == 31 ? SINK - X : (register & 31) * 8;
}

/** 31 is SP. */
@inline
export function orSp(register: u32): u32 {
  return (register & 31) == 31 ? SP - X : (register & 31) * 8;
}

export function put(slot: usize, operation: u32, d: u32, n: u32, m: u32, immediate: u64): void {
  store<u16>(slot, <u16>operation);
  store<u16>(slot, <u16>d, 2);
  store<u16>(slot, <u16>n, 4);
  store<u16>(slot, <u16>m, 6);
  store<u64>(slot, immediate, 8);
}

export function illegal(slot: usize, code: u32): void {
  put(slot, ILLEGAL, 0, 0, 0, code);
}

/** Bits high…low of the instruction, sign-extended. */
@inline
export function signedField(code: u32, high: u32, low: u32): i64 {
  return <i64>(<i32>(code << (31 - high)) >> (31 - high + low));
}

/** For each value of NZCV a bit: condition `condition` (DDI 0487, C1.2.4) holds. */
export function conditionBits(condition: u32): u32 {
  let bits: u32 = 0;
  for (let nzcv: u32 = 0; nzcv < 16; nzcv++) {
    const n = (nzcv >> 3) & 1;
    const z = (nzcv >> 2) & 1;
    const c = (nzcv >> 1) & 1;
    const v = nzcv & 1;
    let holds: u32 = 1;
    switch (condition >> 1) {
      case 0: holds = z; break;
      case 1: holds = c; break;
      case 2: holds = n; break;
      case 3: holds = v; break;
      case 4: holds = c & (z ^ 1); break;
      case 5: holds = n ^ v ^ 1; break;
      case 6: holds = (n ^ v ^ 1) & (z ^ 1); break;
    }
    if (condition & 1 && condition != 15) holds ^= 1;
    bits |= holds << nzcv;
  }
  return bits;
}
