// Registers of a device as a bus sees them. Values are unsigned 32-bit halves, so that no access allocates a bigint.

export type AccessSize = 1 | 2 | 4 | 8;

/** Registers at offsets in [from, to): the first `width` bytes of every `every`; all where that is 0. */
export interface WritePosting {
  readonly from: number;
  readonly to: number;
  readonly every: number;
  readonly width: number;
  /** The device needs not see them before what is asked of it next, or for some milliseconds. */
  readonly deferrable: boolean;
}

export interface MmioPort {
  /** High half of the last 8-byte read, unsigned. */
  high: number;
  /** Reads `size` bytes at `offset` (naturally aligned by the bus); returns the low 32 bits, unsigned. Never throws. */
  mmioRead(offset: number, size: AccessSize): number;
  /** Writes `size` bytes; `hi` is meaningful for size 8 only. Never throws. */
  mmioWrite(offset: number, size: AccessSize, lo: number, hi: number): void;
  /** How writes at an offset may be posted as things are; null: whoever writes waits for what the device does. Absent: all, at once. */
  posting?(offset: number): WritePosting | null;
}
