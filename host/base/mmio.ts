// Registers of a device as a bus sees them. Values are unsigned 32-bit halves, so that no access allocates a bigint.

export type AccessSize = 1 | 2 | 4 | 8;

export interface MmioPort {
  /** High half of the last 8-byte read, unsigned. */
  high: number;
  /** Reads `size` bytes at `offset` (naturally aligned by the bus); returns the low 32 bits, unsigned. Never throws. */
  mmioRead(offset: number, size: AccessSize): number;
  /** Writes `size` bytes; `hi` is meaningful for size 8 only. Never throws. */
  mmioWrite(offset: number, size: AccessSize, lo: number, hi: number): void;
}
