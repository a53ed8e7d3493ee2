// Stage-1 entries with a bit that is another, as a memory that fails would have it: for failures on purpose.
//
// Before a transaction is translated, a second IOMMU, with the same registers and without caches, walks the tables as they are and says
// where its stage-1 leaf lies. If that entry is to be corrupted, its bit is turned over in memory, and stays so until software writes the entry anew.
//
//     transaction ── walk of withoutCaches() ──▶ leaf's address ── which bit? ──▶ memory ──▶ the IOMMU's own walk

import { type Hpa, type HpaPfn, offsetOf, pfnOf } from "../../base/address.ts";
import { ACCESS_OK, type PhysicalMemory } from "../../base/memory.ts";
import type { TracedEvent } from "../../base/trace.ts";
import type { HardwareIommu } from "./port.ts";

/** Asked for each transaction: the bit, 0 to 63, of its stage-1 leaf (`entry`, at a physical `address`) to turn over; -1: none. */
export type CorruptionPort = (deviceId: number, address: bigint, entry: bigint) => number;

export interface CorruptedEntries {
  /** null: nothing is corrupted, and nothing is walked twice. */
  ask: CorruptionPort | null;
}

/** Where an IOMMU's entries are corrupted from now on; null: its kind cannot say where they are. */
export function corruptedEntries(iommu: HardwareIommu, memory: PhysicalMemory<HpaPfn>): CorruptedEntries | null {
  if (iommu.withoutCaches === undefined) return null;
  const corrupted: CorruptedEntries = { ask: null };
  const leaf = { address: -1n, entry: 0n };
  const sink = {
    event: (event: TracedEvent): void => {
      if (event.type === "walk" && event.table === "stage1") Object.assign(leaf, event);
    },
  };
  const translate = iommu.translate.bind(iommu);
  iommu.translate = (deviceId, pasid, privileged, access, pfn, offset, translated, data) => {
    if (corrupted.ask !== null && !translated) {
      leaf.address = -1n;
      const tables = iommu.withoutCaches!();
      tables.trace.addSink(sink);
      tables.translate(deviceId, pasid, privileged, access, pfn, offset, false, data);
      tables.trace.removeSink(sink);
      const bit = leaf.address < 0n ? -1 : corrupted.ask(deviceId, leaf.address, leaf.entry);
      if (bit >= 0) turnOver(memory, leaf.address as Hpa, bit);
    }
    return translate(deviceId, pasid, privileged, access, pfn, offset, translated, data);
  };
  return corrupted;
}

function turnOver(memory: PhysicalMemory<HpaPfn>, address: Hpa, bit: number): void {
  const pfn = pfnOf(address);
  const offset = offsetOf(address);
  if (memory.load64(pfn, offset) !== ACCESS_OK) return;
  const flip = 1 << (bit & 31);
  const { lo, hi } = memory;
  memory.store64(pfn, offset, bit < 32 ? (lo ^ flip) >>> 0 : lo, bit < 32 ? hi : (hi ^ flip) >>> 0);
}
