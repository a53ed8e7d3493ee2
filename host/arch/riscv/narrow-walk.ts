// Sv32 and Sv32x4: 4-byte entries, two levels of 10 index bits, no NAPOT, no PBMT. The walker of two-stage-walk.ts calls these where an
// address space is narrow; results go into its fields as for the wide modes.

import { swap32 } from "../../base/byte-order.ts";
import { ACCESS_FAULT, ACCESS_OK, type AccessStatus, type MemoryPort } from "../../base/memory.ts";
import type { AddressSpace } from "./address-space.ts";
import { compareExchange32 } from "./entry-update.ts";
import {
  ACCESS_FAULT_CAUSE,
  GUEST_PAGE_FAULT_CAUSE,
  KIND_EXECUTE,
  KIND_IMPLICIT_READ,
  KIND_IMPLICIT_WRITE,
  loadFault,
  missingAD,
  narrowLeafLegal,
  PAGE_FAULT_CAUSE,
  POINTER_BITS,
  permits,
  RETRY,
  RETRY_LIMIT,
} from "./leaf-rules.ts";
import { PTE_G, PTE_U, PTE_V } from "./page-table-entry.ts";
import { TABLE_FIRST_STAGE, TABLE_SECOND_STAGE, type WalkTable } from "./walk-observer.ts";

/** What these walks need of the walker. */
export interface NarrowWalk<P extends number> {
  readonly memory: MemoryPort<P>;
  readonly limit: number;
  gpaLow: number;
  gpaHigh: number;
  spaLow: number;
  spaHigh: number;
  firstLo: number;
  firstHi: number;
  firstShift: number;
  firstGlobal: boolean;
  firstLoads: number;
  secondLo: number;
  secondHi: number;
  secondShift: number;
  secondLoads: number;
  serves: number;
  walkSecond(space: AddressSpace, low: number, high: number, use: number, kind: number): number;
  implicitFault(tableLow: number, tableHigh: number, low12: number): void;
  tell(
    table: WalkTable,
    level: number,
    frameLow: number,
    frameHigh: number,
    offset: number,
    lo: number,
    hi: number,
    serves: number,
  ): void;
}

/** First stage under Sv32. Bits 63:32 of the IOVA must be 0 (§3.1.3.1). */
export function firstStageNarrow<P extends number>(
  walk: NarrowWalk<P>,
  space: AddressSpace,
  low: number,
  high: number,
  kind: number,
  supervisor: boolean,
): number {
  const fault = PAGE_FAULT_CAUSE[kind]!;
  if (high !== 0 || low >>> 20 !== 0) return fault;
  let tableLow = space.firstRootLow;
  let tableHigh = space.firstRootHigh;
  let level = 1;
  let tries = 0;
  for (;;) {
    const offset = ((low >>> (10 * level)) & 0x3ff) << 2;
    let hostLow = tableLow;
    let hostHigh = tableHigh;
    if (space.secondLevels !== 0) {
      walk.serves = level;
      const cause = walk.walkSecond(space, tableLow, tableHigh, KIND_IMPLICIT_READ, kind);
      if (cause !== 0) {
        walk.implicitFault(tableLow, tableHigh, offset | 1);
        return cause;
      }
      hostLow = walk.spaLow;
      hostHigh = walk.spaHigh;
    }
    const status = loadNarrow(walk, hostLow, hostHigh, offset);
    if (status !== ACCESS_OK) return loadFault(status, kind);
    const entry = space.firstBigEndian ? swap32(walk.memory.lo) : walk.memory.lo;
    walk.firstLoads++;
    walk.tell(TABLE_FIRST_STAGE, level, hostLow, hostHigh, offset, entry, 0, -1);
    if ((entry & POINTER_BITS) === PTE_V && level > 0) {
      if ((entry & PTE_G) !== 0) walk.firstGlobal = true;
      tableLow = entry >>> 10;
      tableHigh = 0;
      level = 0;
      continue;
    }
    let lo = entry;
    if (!narrowLeafLegal(lo, level)) return fault;
    const user = (lo & PTE_U) !== 0;
    if (supervisor ? user && (kind === KIND_EXECUTE || !space.sum) : !user) return fault;
    if (!permits(lo, kind)) return fault;
    const missing = missingAD(lo, kind, space.firstHardwareAD);
    if (missing < 0) return fault;
    if (missing !== 0) {
      if (space.secondLevels !== 0) {
        const cause = walk.walkSecond(space, tableLow, tableHigh, KIND_IMPLICIT_WRITE, kind);
        if (cause !== 0) {
          walk.implicitFault(tableLow, tableHigh, offset | 3);
          return cause;
        }
        hostLow = walk.spaLow;
        hostHigh = walk.spaHigh;
      }
      const cause = exchangeNarrow(walk, hostLow, hostHigh, offset, lo, lo | missing, space.firstBigEndian, kind);
      if (cause === RETRY) {
        if (++tries > RETRY_LIMIT) return ACCESS_FAULT_CAUSE[kind]!;
        continue;
      }
      if (cause !== 0) return cause;
      lo |= missing;
    }
    if ((lo & PTE_G) !== 0) walk.firstGlobal = true;
    walk.firstLo = lo | 0;
    walk.firstHi = 0;
    walk.firstShift = 10 * level;
    walk.gpaLow = level === 0 ? lo >>> 10 : (lo >>> 10) | (low & 0x3ff);
    walk.gpaHigh = 0;
    return 0;
  }
}

/** Second stage under Sv32x4: the root is 16 KiB. */
export function secondStageNarrow<P extends number>(
  walk: NarrowWalk<P>,
  space: AddressSpace,
  low: number,
  use: number,
  kind: number,
): number {
  const fault = GUEST_PAGE_FAULT_CAUSE[kind]!;
  const top = (low >>> 10) & 0xfff;
  let tableLow = space.secondRootLow | (top >>> 10);
  let tableHigh = space.secondRootHigh;
  let offset = (top & 0x3ff) << 2;
  let level = 1;
  let tries = 0;
  for (;;) {
    const status = loadNarrow(walk, tableLow, tableHigh, offset);
    if (status !== ACCESS_OK) return loadFault(status, kind);
    let lo = space.secondBigEndian ? swap32(walk.memory.lo) : walk.memory.lo;
    walk.secondLoads++;
    const serves = use >= KIND_IMPLICIT_READ ? walk.serves : -1;
    walk.tell(TABLE_SECOND_STAGE, level, tableLow, tableHigh, offset, lo, 0, serves);
    if ((lo & POINTER_BITS) === PTE_V && level > 0) {
      tableLow = lo >>> 10;
      tableHigh = 0;
      offset = (low & 0x3ff) << 2;
      level = 0;
      continue;
    }
    if (!narrowLeafLegal(lo, level) || (lo & PTE_U) === 0) return fault;
    if (!permits(lo, use)) return fault;
    const missing = missingAD(lo, use, space.secondHardwareAD);
    if (missing < 0) return fault;
    if (missing !== 0) {
      const cause = exchangeNarrow(walk, tableLow, tableHigh, offset, lo, lo | missing, space.secondBigEndian, kind);
      if (cause === RETRY) {
        if (++tries > RETRY_LIMIT) return ACCESS_FAULT_CAUSE[kind]!;
        continue;
      }
      if (cause !== 0) return cause;
      lo |= missing;
    }
    walk.secondLo = lo | 0;
    walk.secondHi = 0;
    walk.secondShift = 10 * level;
    walk.spaLow = level === 0 ? lo >>> 10 : (lo >>> 10) | (low & 0x3ff);
    walk.spaHigh = 0;
    return 0;
  }
}

/** A 4-byte entry into memory.lo. */
function loadNarrow<P extends number>(
  walk: NarrowWalk<P>,
  frameLow: number,
  frameHigh: number,
  offset: number,
): AccessStatus {
  const pfn = frameHigh * 0x100000000 + (frameLow >>> 0);
  return pfn >= walk.limit ? ACCESS_FAULT : walk.memory.load32(pfn as P, offset);
}

/** Compare-and-exchange of a 4-byte entry. 0 done, RETRY it had changed, or a cause. */
function exchangeNarrow<P extends number>(
  walk: NarrowWalk<P>,
  frameLow: number,
  frameHigh: number,
  offset: number,
  lo: number,
  newLo: number,
  bigEndian: boolean,
  kind: number,
): number {
  const memory = walk.memory;
  const pfn = frameHigh * 0x100000000 + (frameLow >>> 0);
  if (pfn >= walk.limit) return ACCESS_FAULT_CAUSE[kind]!;
  const expected = bigEndian ? swap32(lo) : lo >>> 0;
  const status = compareExchange32(memory, pfn as P, offset, expected, bigEndian ? swap32(newLo) : newLo >>> 0);
  if (status !== ACCESS_OK) return loadFault(status, kind);
  return memory.lo === expected ? 0 : RETRY;
}
