// Storing a message in a memory-resident interrupt file (AIA, "MSI PTE, MRIF mode"): the pending bit of its identity is set, then the
// notice message is sent - always, whatever the enable bit says. Interrupt files in memory and notices are little-endian always.

import {
  CAUSE_MRIF_ACCESS_FAULT,
  CAUSE_MRIF_DATA_CORRUPTION,
  CAUSE_MSI_WRITE_ACCESS_FAULT,
} from "../../../arch/riscv/fault-records.ts";
import type { MessageTableWalker } from "../../../arch/riscv/message-table.ts";
import type { HpaPfn } from "../../../base/address.ts";
import { ACCESS_FAULT, ACCESS_OK, type MemoryPort } from "../../../base/memory.ts";

/** Tries of the read-modify-write against other writers of the file. */
const TRIES = 64;

/**
 * A 4-byte write of `data` at `offset` of a page whose entry is in `entry`. Returns 0 when it was stored or discarded (AIA: offsets
 * other than 0, the big-endian doorbell, identities above 2047), else 264, 271, or 273 for a notice nobody takes.
 */
export function storeMessage(
  memory: MemoryPort<HpaPfn>,
  entry: MessageTableWalker<HpaPfn>,
  offset: number,
  data: number,
  frameLimit: number,
): number {
  if (offset !== 0 || data > 2047) return 0;
  const at = entry.fileOffset + Math.floor(data / 64) * 16;
  const low = data % 64 < 32 ? 1 << (data % 32) : 0;
  const high = data % 64 < 32 ? 0 : 1 << (data % 32);
  if (entry.filePfn >= frameLimit) return CAUSE_MRIF_ACCESS_FAULT;
  for (let tries = 0; ; tries++) {
    let status = memory.load64(entry.filePfn as HpaPfn, at);
    if (status === ACCESS_OK) {
      const lo = memory.lo;
      const hi = memory.hi;
      status = memory.compareExchange64(entry.filePfn as HpaPfn, at, lo, hi, (lo | low) >>> 0, (hi | high) >>> 0);
      if (status === ACCESS_OK && memory.lo === lo && memory.hi === hi) break;
    }
    if (status === ACCESS_FAULT || tries === TRIES) return CAUSE_MRIF_ACCESS_FAULT;
    if (status !== ACCESS_OK) return CAUSE_MRIF_DATA_CORRUPTION;
  }
  if (entry.noticePfn >= frameLimit) return CAUSE_MSI_WRITE_ACCESS_FAULT;
  const status = memory.store32(entry.noticePfn as HpaPfn, 0, entry.noticeData);
  return status === ACCESS_OK ? 0 : CAUSE_MSI_WRITE_ACCESS_FAULT;
}
