// VFIO's container requests on an iommufd (Linux: iommufd/vfio_compat.c): they work on the context's compatibility IOAS, so that a
// program written for /dev/vfio/vfio runs on /dev/iommu. Differences from the real type1 container are in the room's README.

import { layout, u16, u32, u64 } from "../../base/layout.ts";
import { EFAULT, EINVAL, ENODEV, ENOENT, ENOMEM, ENOTTY, EOPNOTSUPP, EPERM } from "../../uapi/errno.ts";
import { IOMMU_VFIO_IOAS_CLEAR, IOMMU_VFIO_IOAS_GET, IOMMU_VFIO_IOAS_SET, iommuVfioIoas } from "../../uapi/iommufd.ts";
import type { CallContext } from "../file.ts";
import { IOMMU_CACHE, IOMMU_READ, IOMMU_WRITE } from "../iommu/driver.ts";
import type { IommufdCommand } from "./command.ts";
import type { IommufdContext } from "./context.ts";
import { Ioas, mapMemory } from "./ioas.ts";
import { U64_MAX } from "./iova-ranges.ts";
import { readUser, writeUser } from "./user-copy.ts";

const TYPE = 0x3b00;
const VFIO_GET_API_VERSION = TYPE | 100;
const VFIO_CHECK_EXTENSION = TYPE | 101;
const VFIO_SET_IOMMU = TYPE | 102;
const VFIO_IOMMU_GET_INFO = TYPE | 112;
const VFIO_IOMMU_MAP_DMA = TYPE | 113;
const VFIO_IOMMU_UNMAP_DMA = TYPE | 114;

const VFIO_TYPE1_IOMMU = 1n;
const VFIO_TYPE1v2_IOMMU = 3n;
const VFIO_DMA_CC_IOMMU = 4n;
const VFIO_NOIOMMU_IOMMU = 8n;
const VFIO_UNMAP_ALL = 9n;

const mapRequest = layout("vfio_iommu_type1_dma_map", 32, {
  argsz: u32(0),
  flags: u32(4),
  vaddr: u64(8),
  iova: u64(16),
  size: u64(24),
});
const unmapRequest = layout("vfio_iommu_type1_dma_unmap", 24, {
  argsz: u32(0),
  flags: u32(4),
  iova: u64(8),
  size: u64(16),
});
const info = layout("vfio_iommu_type1_info", 24, {
  argsz: u32(0),
  flags: u32(4),
  iova_pgsizes: u64(8),
  cap_offset: u32(16),
  pad: u32(20),
});
const capabilityHeader = { id: u16(0), version: u16(2), next: u32(4) } as const;
const dmaAvailable = layout("vfio_iommu_type1_info_dma_avail", 12, { ...capabilityHeader, avail: u32(8) });
const iovaRanges = layout("vfio_iommu_type1_info_cap_iova_range", 16, {
  ...capabilityHeader,
  nr_iovas: u32(8),
  reserved: u32(12),
});
const iovaRange = layout("vfio_iova_range", 16, { start: u64(0), end: u64(8) });

const MAP_READ = 1;
const MAP_WRITE = 2;
const UNMAP_ALL = 2;
const INFO_PGSIZES = 1;
const INFO_CAPS = 2;
const CAPABILITY_IOVA_RANGE = 1;
const CAPABILITY_DMA_AVAIL = 3;

/** The request's number with its VFIO name, for traces and failure injection. */
export const VFIO_REQUEST_NAMES: ReadonlyMap<number, string> = new Map([
  [VFIO_GET_API_VERSION, "VFIO_GET_API_VERSION"],
  [VFIO_CHECK_EXTENSION, "VFIO_CHECK_EXTENSION"],
  [VFIO_SET_IOMMU, "VFIO_SET_IOMMU"],
  [VFIO_IOMMU_GET_INFO, "VFIO_IOMMU_GET_INFO"],
  [VFIO_IOMMU_MAP_DMA, "VFIO_IOMMU_MAP_DMA"],
  [VFIO_IOMMU_UNMAP_DMA, "VFIO_IOMMU_UNMAP_DMA"],
]);

export function vfioRequest(context: IommufdContext, call: CallContext, request: number, argument: bigint): number {
  switch (request) {
    case VFIO_GET_API_VERSION:
      return 0;
    case VFIO_CHECK_EXTENSION:
      return checkExtension(context, argument);
    case VFIO_SET_IOMMU:
      return setIommu(context, call, argument);
    case VFIO_IOMMU_GET_INFO:
      return getInfo(context, call, argument);
    case VFIO_IOMMU_MAP_DMA:
      return mapDma(context, call, argument);
    case VFIO_IOMMU_UNMAP_DMA:
      return unmapDma(context, call, argument);
    default:
      return -ENOTTY;
  }
}

function checkExtension(context: IommufdContext, extension: bigint): number {
  switch (extension) {
    case VFIO_TYPE1_IOMMU:
    case VFIO_TYPE1v2_IOMMU:
    case VFIO_UNMAP_ALL:
      return context.noIommuMode ? 0 : 1;
    case VFIO_NOIOMMU_IOMMU:
      return context.environment.noIommu ? 1 : 0;
    case VFIO_DMA_CC_IOMMU: {
      const ioas = context.compatibilityIoas;
      if (ioas === null) return -ENODEV;
      return ioas.hwpts.every((hwpt) => hwpt.domain.enforcesCoherency) ? 1 : 0;
    }
    default:
      return 0;
  }
}

function setIommu(context: IommufdContext, call: CallContext, type: bigint): number {
  if (context.environment.noIommu && type === VFIO_NOIOMMU_IOMMU && context.noIommuMode) {
    return call.capabilities.sysRawio ? 0 : -EPERM;
  }
  if ((type !== VFIO_TYPE1_IOMMU && type !== VFIO_TYPE1v2_IOMMU) || context.noIommuMode) return -EINVAL;
  const ioas = context.compatibilityIoas;
  if (ioas === null) return -ENODEV;
  // TYPE1 may unmap inside a mapping, which only small leaves allow.
  return type === VFIO_TYPE1_IOMMU ? ioas.table.setLargePages(false) : 0;
}

function mapDma(context: IommufdContext, call: CallContext, argument: bigint): number {
  const bytes = new Uint8Array(32);
  if (readUser(call.memory, argument, bytes) < 0) return -EFAULT;
  const request = mapRequest.decode(bytes);
  if (request.argsz < 32 || (request.flags & ~(MAP_READ | MAP_WRITE)) !== 0) return -EINVAL;
  const ioas = context.compatibilityIoas;
  if (ioas === null) return -ENODEV;
  const protection =
    IOMMU_CACHE |
    ((request.flags & MAP_READ) !== 0 ? IOMMU_READ : 0) |
    ((request.flags & MAP_WRITE) !== 0 ? IOMMU_WRITE : 0);
  const at = mapMemory(context, ioas, call, request.vaddr, request.size, request.iova, protection);
  return typeof at === "number" ? at : 0;
}

function unmapDma(context: IommufdContext, call: CallContext, argument: bigint): number {
  const bytes = new Uint8Array(24);
  if (readUser(call.memory, argument, bytes) < 0) return -EFAULT;
  const request = unmapRequest.decode(bytes);
  if (request.argsz < 24 || (request.flags & ~UNMAP_ALL) !== 0) return -EINVAL;
  const ioas = context.compatibilityIoas;
  if (ioas === null) return -ENODEV;
  const { table } = ioas;
  let outcome: { error: number; unmapped: bigint };
  if ((request.flags & UNMAP_ALL) !== 0) {
    if (request.iova !== 0n || request.size !== 0n) return -EINVAL;
    outcome = table.unmapAll();
  } else {
    if (table.disableLargePages) {
      const cuts = [BigInt.asUintN(64, request.iova + request.size - 1n)];
      if (request.iova !== 0n) cuts.push(request.iova - 1n);
      for (const cut of cuts) {
        const result = table.cutAfter(cut);
        if (result < 0) return result;
      }
    }
    outcome = table.unmap(request.iova, request.size);
  }
  unmapRequest.patch(bytes, { size: outcome.unmapped });
  return writeUser(call.memory, argument, bytes) < 0 ? -EFAULT : outcome.error;
}

function pageSizes(ioas: Ioas): bigint {
  let sizes = U64_MAX;
  for (const domain of ioas.table.domains) sizes &= domain.pageSizes;
  // Smaller than a page is not offered to VFIO (vfio_update_pgsize_bitmap).
  if ((sizes & 4095n) !== 0n) sizes = (sizes & ~4095n) | 4096n;
  if (sizes < ioas.table.alignment) sizes = ioas.table.alignment;
  return sizes;
}

function getInfo(context: IommufdContext, call: CallContext, argument: bigint): number {
  const bytes = new Uint8Array(24);
  if (readUser(call.memory, argument, bytes.subarray(0, 16)) < 0) return -EFAULT;
  const { argsz } = info.decode(bytes);
  if (argsz < 16) return -EINVAL;
  const ioas = context.compatibilityIoas;
  if (ioas === null) return -ENODEV;
  const available = dmaAvailable.encode({ id: CAPABILITY_DMA_AVAIL, version: 1, avail: 0xffff_ffff });
  const holes = ioas.table.ranges.holes();
  const ranges = new Uint8Array(16 + 16 * holes.length);
  iovaRanges.patch(ranges, { id: CAPABILITY_IOVA_RANGE, version: 1, nr_iovas: holes.length });
  for (const [i, hole] of holes.entries()) {
    iovaRange.patch(ranges, { start: hole.start, end: hole.last }, 16 + 16 * i);
  }
  // Capabilities follow one another, 8-byte aligned, as far as the caller has room; each names the offset of the next.
  let total = 24;
  let lastAt: number | null = null;
  for (const capability of [available, ranges]) {
    if (argsz >= total + capability.length) {
      if (writeUser(call.memory, argument + BigInt(total), capability) < 0) return -EFAULT;
    }
    if (lastAt !== null && argsz >= total) {
      const next = new Uint8Array(4);
      new DataView(next.buffer).setUint32(0, total, true);
      if (writeUser(call.memory, argument + BigInt(lastAt + 4), next) < 0) return -EFAULT;
    }
    lastAt = total;
    total += Math.ceil(capability.length / 8) * 8;
  }
  const reply = info.encode({
    argsz: total,
    flags: INFO_PGSIZES | INFO_CAPS,
    iova_pgsizes: pageSizes(ioas),
    cap_offset: argsz >= total ? 24 : 0,
  });
  return writeUser(call.memory, argument, reply.subarray(0, Math.min(argsz, 24))) < 0 ? -EFAULT : 0;
}

// --- the compatibility IOAS ---

export function vfioIoas(command: IommufdCommand): number {
  const request = iommuVfioIoas.decode(command.bytes);
  const { context } = command;
  if (request.__reserved !== 0) return -EOPNOTSUPP;
  switch (request.op) {
    case IOMMU_VFIO_IOAS_GET:
      if (context.compatibilityIoas === null) return -ENODEV;
      iommuVfioIoas.patch(command.bytes, { ioas_id: context.compatibilityIoas.id });
      return command.respond();
    case IOMMU_VFIO_IOAS_SET: {
      const ioas = command.find<Ioas>(request.ioas_id, "ioas");
      if (ioas === null) return -ENOENT;
      context.compatibilityIoas = ioas;
      return 0;
    }
    case IOMMU_VFIO_IOAS_CLEAR:
      context.compatibilityIoas = null;
      return 0;
    default:
      return -EOPNOTSUPP;
  }
}

/** Id of the compatibility IOAS, or -ENODEV. For VFIO's groups. */
export function compatibilityIoasId(context: IommufdContext): number {
  return context.compatibilityIoas?.id ?? -ENODEV;
}

/** Makes the compatibility IOAS if there is none (a group enters the context as its container). -EINVAL in no-IOMMU mode. */
export function createCompatibilityIoas(context: IommufdContext): number {
  if (context.noIommuMode) return -EINVAL;
  if (context.compatibilityIoas !== null) return 0;
  if (context.environment.injector.allocation("ioas")) return -ENOMEM;
  const ioas = new Ioas(context);
  context.objects.reserve(ioas);
  context.objects.finalize(ioas);
  context.compatibilityIoas = ioas;
  return 0;
}

/** A no-IOMMU device enters the context: -EINVAL once it has a compatibility IOAS. */
export function setNoIommu(context: IommufdContext): number {
  if (context.compatibilityIoas !== null) return -EINVAL;
  context.noIommuMode = true;
  return 0;
}
