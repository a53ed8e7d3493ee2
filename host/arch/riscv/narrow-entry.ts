// 4-byte table entries (Sv32) over a memory port that exchanges doublewords: the entry's neighbour is left as it is.

import { ACCESS_OK, type AccessStatus, type MemoryPort } from "../../base/memory.ts";

/** Atomic compare-and-exchange of one aligned word; what was there before is left in memory.lo. */
export function compareExchange32<P extends number>(
  memory: MemoryPort<P>,
  pfn: P,
  offset: number,
  expected: number,
  value: number,
): AccessStatus {
  const base = offset & ~7;
  const upper = (offset & 4) !== 0;
  for (let tries = 0; tries < 8; tries++) {
    let status = memory.load64(pfn, base);
    if (status !== ACCESS_OK) return status;
    const lo = memory.lo;
    const hi = memory.hi;
    if ((upper ? hi : lo) !== expected) {
      memory.lo = upper ? hi : lo;
      return ACCESS_OK;
    }
    status = memory.compareExchange64(pfn, base, lo, hi, upper ? lo : value, upper ? value : hi);
    if (status !== ACCESS_OK) return status;
    if (memory.lo === lo && memory.hi === hi) {
      memory.lo = expected;
      return ACCESS_OK;
    }
  }
  // The neighbour keeps changing: report a mismatch, the caller walks again.
  memory.lo = ~expected >>> 0;
  return ACCESS_OK;
}
