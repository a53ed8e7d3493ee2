// Advanced SIMD that moves lanes about: copies between lanes and general registers, EXT, TBL, TBX, ZIP, UZP, TRN (DDI 0487, C4.1.96).
import { finish, lane, result, setLane, signedLane, vector } from "./lanes";
import { LANES, X } from "./layout";
import { source, target } from "./slot";

/** DUP, INS, SMOV, UMOV. False: reserved. */
export function copy(code: u32, scalar: bool): bool {
  const imm5 = (code >> 16) & 31;
  const imm4 = (code >> 11) & 15;
  const q = (code >> 30) & 1;
  if (!(imm5 & 15)) return false;
  const size: u32 = ctz<u32>(imm5);
  const index = imm5 >> (size + 1);
  const n = vector(code >> 5);
  if (scalar) {
    if (imm4 || (code >> 29) & 1) return false;
    result(size, 0, lane(n, size, index));
    finish(code, 1 << size);
    return true;
  }
  if ((code >> 29) & 1) { // INS from an element
    if (!q) return false;
    setLane(vector(code), size, index, lane(n, size, imm4 >> size));
    return true;
  }
  switch (imm4) {
    case 0: case 1: { // DUP
      if (size == 3 && !q) return false;
      const value = imm4 ? load<u64>(X + source(code >> 5)) : lane(n, size, index);
      for (let i: u32 = 0; i < (8 << q) >> size; i++) result(size, i, value);
      finish(code, 8 << q);
      return true;
    }
    case 3: // INS from a register
      if (!q) return false;
      setLane(vector(code), size, index, load<u64>(X + source(code >> 5)));
      return true;
    case 5: { // SMOV
      if (size > (q ? 2 : 1)) return false;
      const value = <u64>signedLane(n, size, index);
      store<u64>(X + target(code), q ? value : value & 0xffffffff);
      return true;
    }
    case 7: // UMOV
      if (q ? size != 3 : size == 3) return false;
      store<u64>(X + target(code), lane(n, size, index));
      return true;
  }
  return false;
}

/** EXT: bytes of m behind those of n, from a position. */
export function extract(code: u32): bool {
  const bytes: u32 = 8 << ((code >> 30) & 1);
  const from = (code >> 11) & 15;
  if ((code >> 22) & 3 || from >= bytes) return false;
  const n = vector(code >> 5);
  const m = vector(code >> 16);
  for (let i: u32 = 0; i < bytes; i++) {
    const at = from + i;
    store<u8>(LANES + i, at < bytes ? load<u8>(n + at) : load<u8>(m + at - bytes));
  }
  finish(code, bytes);
  return true;
}

/** TBL, TBX: bytes looked up in one to four registers. */
export function table(code: u32): bool {
  if ((code >> 22) & 3) return false;
  const bytes: u32 = 8 << ((code >> 30) & 1);
  const registers = ((code >> 13) & 3) + 1;
  const keeps = (code >> 12) & 1;
  const first = (code >> 5) & 31;
  const m = vector(code >> 16);
  const d = vector(code);
  for (let i: u32 = 0; i < bytes; i++) {
    const at = <u32>load<u8>(m + i);
    let value: u8 = keeps ? load<u8>(d + i) : 0;
    if (at < registers * 16) value = load<u8>(vector(first + (at >> 4)) + (at & 15));
    store<u8>(LANES + i, value);
  }
  finish(code, bytes);
  return true;
}

/** UZP1 1, TRN1 2, ZIP1 3, UZP2 5, TRN2 6, ZIP2 7. */
export function permute(code: u32): bool {
  const size = (code >> 22) & 3;
  const bytes: u32 = 8 << ((code >> 30) & 1);
  const opcode = (code >> 12) & 7;
  if ((size == 3 && bytes == 8) || (opcode & 3) == 0) return false;
  const second = opcode >> 2;
  const n = vector(code >> 5);
  const m = vector(code >> 16);
  const count = bytes >> size;
  const half = count / 2;
  for (let i: u32 = 0; i < count; i++) {
    let value: u64;
    switch (opcode & 3) {
      case 1: { // even or odd elements of n and m together
        const at: u32 = 2 * i + second;
        value = at < count ? lane(n, size, at) : lane(m, size, at - count);
        break;
      }
      case 2: value = lane(i & 1 ? m : n, size, (i & ~1) + second); break;
      default: value = lane(i & 1 ? m : n, size, (i >> 1) + second * half);
    }
    result(size, i, value);
  }
  finish(code, bytes);
  return true;
}
