// Accesses through translations that the tables no longer hold: what an IOMMU cached, and was not told to forget. An architecture allows the
// hardware to use them until it is told, so nothing else shows that an invalidation is missing.
//
// Every translation that an IOMMU grants is held against one that a second IOMMU, with the same registers and without caches, makes of the
// tables as they are.

import { addressOf, type HpaPfn, type Iova, type IovaPfn, offsetOf, pfnOf } from "../../base/address.ts";
import { Clock } from "../../base/clock.ts";
import { Trace, type TracedEvent } from "../../base/trace.ts";
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

/** What an IOMMU says of one access: by its caches, and by the tables as they are now. */
export interface AskedTranslation {
  /** Physical page that its caches would give, rights aside; null: it would have to walk, or cannot say. */
  readonly remembered: bigint | null;
  /** What the tables give; null: they refuse the access. */
  readonly now: bigint | null;
  /** The walk through the tables as they are, and the fault that ends it, as a trace tells it. */
  readonly walk: readonly TracedEvent[];
}

/** Asks without changing anything; null for a kind that cannot say what its tables hold. `access` as HardwareIommu.translate. */
export function askTranslation(
  iommu: HardwareIommu,
  deviceId: number,
  pasid: number,
  access: number,
  iova: bigint,
): AskedTranslation | null {
  const tables = iommu.withoutCaches?.();
  if (tables === undefined) return null;
  const [pfn, offset] = [pfnOf(iova as Iova), offsetOf(iova)];
  const remembered = iommu.remembers?.(deviceId, pasid, pfn) ?? -1;
  const walk: TracedEvent[] = [];
  const sink = { event: (event: TracedEvent) => void walk.push(event) };
  tables.trace.addSink(sink);
  const allowed = tables.translate(deviceId, pasid, false, access, pfn, offset, false, -1) === TRANSLATED;
  tables.trace.removeSink(sink);
  return {
    remembered: remembered < 0 ? null : addressOf(remembered as HpaPfn, offset),
    now: allowed ? addressOf(tables.resultPfn, offset) : null,
    walk,
  };
}

/** Of an IOMMU that is asked and does nothing: its own clock, no trace, memory that it cannot write. */
export function partsForAsking(parts: Pick<IommuParts, "name" | "memory">): IommuParts {
  const clock = new Clock();
  return { name: parts.name, memory: unwrittenMemory(parts.memory), clock, trace: new Trace(clock) };
}
