// Vector registers as lanes. A result is put together in LANES, since a source may be the destination, and then moved to Vd with what lies above it zero.
import { LANES, V } from "./layout";

@inline
export function vector(register: u32): usize {
  return <usize>V + (register & 31) * 16;
}

/** Lane `i` of 8 << size bits, zero-extended. */
export function lane(at: usize, size: u32, i: u32): u64 {
  switch (size) {
    case 0: return load<u8>(at + i);
    case 1: return load<u16>(at + i * 2);
    case 2: return load<u32>(at + i * 4);
  }
  return load<u64>(at + i * 8);
}

/** The same sign-extended. */
export function signedLane(at: usize, size: u32, i: u32): i64 {
  switch (size) {
    case 0: return load<i8>(at + i);
    case 1: return load<i16>(at + i * 2);
    case 2: return load<i32>(at + i * 4);
  }
  return load<i64>(at + i * 8);
}

export function setLane(at: usize, size: u32, i: u32, value: u64): void {
  switch (size) {
    case 0: store<u8>(at + i, <u8>value); return;
    case 1: store<u16>(at + i * 2, <u16>value); return;
    case 2: store<u32>(at + i * 4, <u32>value); return;
  }
  store<u64>(at + i * 8, value);
}

/** Lane of the result. */
@inline
export function result(size: u32, i: u32, value: u64): void {
  setLane(LANES, size, i, value);
}

/** Moves the first `bytes` (1, 2, 4, 8, 16) of the result to Vd; the rest of Vd is zero. */
export function finish(register: u32, bytes: u32): void {
  const at = vector(register);
  let low = load<u64>(LANES);
  if (bytes < 8) low &= (<u64>1 << (bytes * 8)) - 1;
  store<u64>(at, low);
  store<u64>(at, bytes == 16 ? load<u64>(LANES, 8) : 0, 8);
}

/** A scalar result of 8 << size bits. */
export function setScalar(register: u32, size: u32, value: u64): void {
  const at = vector(register);
  store<u64>(at, size == 3 ? value : value & ((<u64>1 << (8 << size)) - 1));
  store<u64>(at, 0, 8);
}

/** All ones in 8 << size bits. */
@inline
export function full(size: u32): u64 {
  return <u64>-1 >> (64 - (8 << size));
}

/** Value of 8 << size bits as a signed number. */
@inline
export function signedOf(value: u64, size: u32): i64 {
  const above: u64 = 64 - (8 << size);
  return <i64>(value << above) >> above;
}
