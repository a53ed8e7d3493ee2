// Byte order of in-memory structures (§3.10): the unit of swapping is the doubleword, held here as two halves.

/**
 * Reverses the bytes of one half, unsigned. A big-endian doubleword loaded as (lo, hi) has the low half swap32(hi) and the high
 * half swap32(lo).
 */
export function swap32(value: number): number {
  return ((value << 24) | ((value & 0xff00) << 8) | ((value >>> 8) & 0xff00) | (value >>> 24)) >>> 0;
}
