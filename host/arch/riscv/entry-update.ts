// Setting A and D in table entries by compare-and-exchange (§3.4). Memory ports exchange doublewords: a 4-byte entry (Sv32) is
// exchanged with its neighbour, which is left as it is.

import { swap32 } from "../../base/byte-order.ts";
import { ACCESS_OK, type AccessStatus, type MemoryPort } from "../../base/memory.ts";
import { loadFault, RETRY } from "./leaf-rules.ts";

/** Exchanges the low half of an 8-byte entry. 0 done, RETRY it had changed, or a cause of a request of `kind`. */
export function exchangeEntry<P extends number>(
  memory: MemoryPort<P>,
  pfn: P,
  offset: number,
  lo: number,
  hi: number,
  newLo: number,
  bigEndian: boolean,
  kind: number,
): number {
  const oldLo = bigEndian ? swap32(hi) : lo >>> 0;
  const oldHi = bigEndian ? swap32(lo) : hi >>> 0;
  const toLo = bigEndian ? oldLo : newLo >>> 0;
  const toHi = bigEndian ? swap32(newLo) : oldHi;
  const status = memory.compareExchange64(pfn, offset, oldLo, oldHi, toLo, toHi);
  if (status !== ACCESS_OK) return loadFault(status, kind);
  return memory.lo === oldLo && memory.hi === oldHi ? 0 : RETRY;
}

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
