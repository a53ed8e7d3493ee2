// Advanced SIMD whose results are wider or narrower than its operands: "three different"; and products "by element" on integers (DDI 0487, C4.1.96).
import { finish, lane, result, signedLane, vector } from "./lanes";
import { addSigned, doublingHigh, doublingProduct } from "./saturate";
import { carryless, finishNarrow } from "./simd-integer";

/** SADDL … PMULL. False: reserved. */
export function threeDifferent(code: u32, scalar: bool): bool {
  const opcode = (code >> 12) & 15;
  const unsigned = (code >> 29) & 1;
  const size = (code >> 22) & 3;
  const doubling = opcode == 9 || opcode == 11 || opcode == 13;
  if (doubling ? unsigned != 0 || size == 0 || size == 3 : scalar) return false;
  if (opcode == 14) return polynomial(code, size, unsigned);
  if (size == 3 || opcode == 15) return false;
  const d = vector(code);
  const n = vector(code >> 5);
  const m = vector(code >> 16);
  const count: u32 = scalar ? 1 : 8 >> size;
  const upper: u32 = scalar ? 0 : ((code >> 30) & 1) * count;
  if (opcode == 4 || opcode == 6) { // ADDHN, RADDHN, SUBHN, RSUBHN
    const bits: u64 = 8 << size;
    const half: u64 = unsigned ? <u64>1 << (bits - 1) : 0;
    for (let i: u32 = 0; i < count; i++) {
      const a = lane(n, size + 1, i);
      const b = lane(m, size + 1, i);
      result(size, i, ((opcode == 4 ? a + b : a - b) + half) >> bits);
    }
    finishNarrow(code, false, size);
    return true;
  }
  for (let i: u32 = 0; i < count; i++) {
    const a = unsigned ? <i64>lane(n, size, upper + i) : signedLane(n, size, upper + i);
    const b = unsigned ? <i64>lane(m, size, upper + i) : signedLane(m, size, upper + i);
    const c = signedLane(d, size + 1, i);
    let value: i64 = 0;
    switch (opcode) {
      case 0: value = a + b; break; // SADDL, UADDL
      case 1: case 3: { // SADDW, SSUBW and unsigned
        const wide = signedLane(n, size + 1, i);
        value = opcode == 1 ? wide + b : wide - b;
        break;
      }
      case 2: value = a - b; break;
      case 5: value = c + (a > b ? a - b : b - a); break; // SABAL
      case 7: value = a > b ? a - b : b - a; break; // SABDL
      case 8: value = c + a * b; break;
      case 10: value = c - a * b; break;
      case 12: value = a * b; break;
      case 9: value = <i64>addSigned(c, doublingProduct(a, b, size), size + 1); break;
      case 11: value = <i64>accumulateNegated(c, doublingProduct(a, b, size), size + 1); break;
      case 13: value = doublingProduct(a, b, size); break;
    }
    result(size + 1, i, <u64>value);
  }
  finish(code, scalar ? 2 << size : 16);
  return true;
}

/** c − product, saturated; the product is never the least value. */
@inline
function accumulateNegated(c: i64, product: i64, size: u32): u64 {
  return addSigned(c, -product, size);
}

/** PMULL of bytes; that of 64 bits belongs to the cryptographic extension. */
function polynomial(code: u32, size: u32, unsigned: u32): bool {
  if (unsigned || size != 0) return false;
  const upper = ((code >> 30) & 1) * 8;
  for (let i: u32 = 0; i < 8; i++) result(1, i, carryless(lane(vector(code >> 5), 0, upper + i), lane(vector(code >> 16), 0, upper + i)));
  finish(code, 16);
  return true;
}

/** Products by one element of Vm, on integers. False: reserved, or not one of these. */
export function byElement(code: u32, scalar: bool): bool {
  const opcode = (code >> 12) & 15;
  const unsigned = (code >> 29) & 1;
  const size = (code >> 22) & 3;
  if (size != 1 && size != 2) return false;
  const h = (code >> 11) & 1;
  const l = (code >> 21) & 1;
  const m = (code >> 20) & 1;
  const index = size == 1 ? (h << 2) | (l << 1) | m : (h << 1) | l;
  const element = vector((code >> 16) & (size == 1 ? 15 : 31));
  const d = vector(code);
  const n = vector(code >> 5);
  const q = (code >> 30) & 1;
  switch (opcode) {
    case 0: case 4: case 8: case 12: case 13: { // MLA, MLS; MUL; SQDMULH; SQRDMULH
      if (opcode == 0 || opcode == 4 ? !unsigned || scalar : unsigned != 0) return false;
      if (opcode == 8 && scalar) return false;
      const count: u32 = scalar ? 1 : (8 << q) >> size;
      const b = signedLane(element, size, index);
      for (let i: u32 = 0; i < count; i++) {
        const a = signedLane(n, size, i);
        const c = signedLane(d, size, i);
        let value: u64 = 0;
        switch (opcode) {
          case 0: value = <u64>(c + a * b); break;
          case 4: value = <u64>(c - a * b); break;
          case 8: value = <u64>(a * b); break;
          default: value = doublingHigh(a, b, size, opcode == 13);
        }
        result(size, i, value);
      }
      finish(code, scalar ? 1 << size : 8 << q);
      return true;
    }
    case 2: case 6: case 10: case 3: case 7: case 11: { // SMLAL, SMLSL, SMULL and unsigned; SQDMLAL, SQDMLSL, SQDMULL
      const doubling = opcode & 1;
      if (doubling ? unsigned != 0 : scalar) return false;
      const count: u32 = scalar ? 1 : 8 >> size;
      const upper: u32 = scalar ? 0 : q * count;
      const b = unsigned ? <i64>lane(element, size, index) : signedLane(element, size, index);
      for (let i: u32 = 0; i < count; i++) {
        const a = unsigned ? <i64>lane(n, size, upper + i) : signedLane(n, size, upper + i);
        const c = signedLane(d, size + 1, i);
        let value: i64 = 0;
        switch (opcode) {
          case 2: value = c + a * b; break;
          case 6: value = c - a * b; break;
          case 10: value = a * b; break;
          case 3: value = <i64>addSigned(c, doublingProduct(a, b, size), size + 1); break;
          case 7: value = <i64>accumulateNegated(c, doublingProduct(a, b, size), size + 1); break;
          case 11: value = doublingProduct(a, b, size); break;
        }
        result(size + 1, i, <u64>value);
      }
      finish(code, scalar ? 2 << size : 16);
      return true;
    }
  }
  return false;
}
