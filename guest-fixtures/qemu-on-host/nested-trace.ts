// What a trace of `nestbox host run` says of a device whose guest has a first stage of its own, nested by QEMU.

import { createReadStream } from "node:fs";
import { createInterface } from "node:readline";

export interface NestedTrace {
  /** Domains that the device was on, one after the other; its kernel's own not. */
  readonly domains: readonly string[];
  /** IOMMU_HWPT_ALLOC with a guest's first stage, those that succeeded. */
  readonly hwpts: number;
  /** IOMMU_HWPT_INVALIDATE, and how many of them became a PASID-IOTLB descriptor on the host's queue. */
  readonly invalidations: number;
  readonly invalidated: number;
  /** DMA while it was nested, messages not counted; and what of it was refused. */
  readonly dmas: number;
  readonly refused: number;
  /** Entries of the guest's first stage that the host's IOMMU read, not from a cache. */
  readonly firstStageReads: number;
  /** IOMMU_IOAS_MAP without IOMMU_IOAS_MAP_WRITEABLE. */
  readonly readOnlyMaps: number;
  /** ioctls that failed, as NAME ERRNO. */
  readonly refusals: readonly string[];
}

interface TraceEvent {
  readonly type?: string;
  readonly seq: number;
  readonly cause: number;
  readonly name?: string;
  readonly device?: string;
  readonly domain?: string;
  readonly result?: string | number;
  readonly table?: string;
  readonly cached?: boolean;
  readonly fields?: { readonly data_type?: number; readonly flags?: number };
}

const DOMAINS = ["paging", "nested"];
const DATA_VTD_S1 = 1;
const MAP_WRITEABLE = 2;

export async function nestedTrace(trace: string, device: string): Promise<NestedTrace> {
  const domains: string[] = [];
  const refusals: string[] = [];
  /** Causes of PASID-IOTLB descriptors: an ioctl's own event comes after what it caused. */
  const causes = new Set<number>();
  let nested = false;
  let [hwpts, invalidations, invalidated, dmas, refused, firstStageReads, readOnlyMaps] = [0, 0, 0, 0, 0, 0, 0];
  for await (const line of createInterface({ input: createReadStream(trace) })) {
    const event = JSON.parse(line) as TraceEvent;
    const { type, name, result, fields } = event;
    if (type === "ioctl") {
      if ((result as number) < 0) refusals.push(`${name} ${result}`);
      else if (name === "IOMMU_HWPT_ALLOC" && fields?.data_type === DATA_VTD_S1) hwpts++;
      else if (name === "IOMMU_IOAS_MAP" && ((fields?.flags ?? 0) & MAP_WRITEABLE) === 0) readOnlyMaps++;
      else if (name === "IOMMU_HWPT_INVALIDATE") {
        invalidations++;
        if (causes.has(event.seq)) invalidated++;
      }
    } else if (type === "command" && name === "pasidIotlb") causes.add(event.cause);
    else if (type === "walk" && event.table === "stage1" && event.cached === false) firstStageReads++;
    else if (event.device !== device) continue;
    else if (type === "attach") {
      nested = event.domain === "nested";
      if (event.domain !== undefined && DOMAINS.includes(event.domain)) domains.push(event.domain);
    } else if (type === "dma" && nested && result !== "msi") {
      dmas++;
      if (result !== "ok") refused++;
    }
  }
  return { domains, hwpts, invalidations, invalidated, dmas, refused, firstStageReads, readOnlyMaps, refusals };
}
