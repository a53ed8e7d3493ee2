// Accesses through translations that the tables no longer hold: what an IOMMU cached, and was not told to forget. An architecture allows the
// hardware to use them until it is told, so nothing else shows that an invalidation is missing.
//
// Every translation that an IOMMU grants is held against one that a second IOMMU, with the same registers and without caches, makes of the
// tables as they are.

import { addressOf, type HpaPfn, type IovaPfn } from "../../base/address.ts";
import { Clock } from "../../base/clock.ts";
import { Trace } from "../../base/trace.ts";
import { ACCESS_WRITE, type HardwareIommu, type IommuParts, TRANSLATED } from "./port.ts";
import { unwrittenMemory } from "./unwritten-memory.ts";

export interface StaleAccess {
  readonly deviceId: number;
  readonly pasid: number;
  readonly iova: bigint;
  readonly write: boolean;
  /** Physical address that was used. */
  readonly used: bigint;
  /** What the tables say; null: they do not allow the access. */
  readonly now: bigint | null;
}

/** Has every stale access of an IOMMU reported, from now on. False: its kind cannot say what its tables hold. */
export function reportStaleAccesses(iommu: HardwareIommu, report: (access: StaleAccess) => void): boolean {
  if (iommu.withoutCaches === undefined) return false;
  const translate = iommu.translate.bind(iommu);
  iommu.translate = (deviceId, pasid, privileged, access, pfn, offset, translated, data) => {
    const status = translate(deviceId, pasid, privileged, access, pfn, offset, translated, data);
    // A translated request asks for no translation: what a device's own cache holds is told apart by ATS invalidations.
    if (status !== TRANSLATED || translated) return status;
    const used = iommu.resultPfn;
    const tables = iommu.withoutCaches!();
    const allowed = tables.translate(deviceId, pasid, privileged, access, pfn, offset, false, data) === TRANSLATED;
    if (!allowed || tables.resultPfn !== used) {
      report({
        ...{ deviceId, pasid, write: (access & ACCESS_WRITE) !== 0 },
        iova: addressOf(pfn as IovaPfn, offset),
        used: addressOf(used, offset),
        now: allowed ? addressOf(tables.resultPfn as HpaPfn, offset) : null,
      });
    }
    return status;
  };
  return true;
}

/** Of an IOMMU that is asked and does nothing: its own clock, no trace, memory that it cannot write. */
export function partsForAsking(parts: Pick<IommuParts, "name" | "memory">): IommuParts {
  const clock = new Clock();
  return { name: parts.name, memory: unwrittenMemory(parts.memory), clock, trace: new Trace(clock) };
}
