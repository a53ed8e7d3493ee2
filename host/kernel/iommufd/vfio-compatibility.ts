// VFIO's container requests on an iommufd (Linux: iommufd/vfio_compat.c): they work on the context's compatibility IOAS, so that a
// program written for /dev/vfio/vfio runs on /dev/iommu. Differences from the real type1 container are in the room's README.

import { EFAULT, EINVAL, ENODEV, ENOENT, ENOMEM, ENOTTY, EOPNOTSUPP, EPERM } from "../../uapi/errno.ts";
import { IOMMU_VFIO_IOAS_CLEAR, IOMMU_VFIO_IOAS_GET, IOMMU_VFIO_IOAS_SET, iommuVfioIoas } from "../../uapi/iommufd.ts";
import {
  VFIO_CHECK_EXTENSION,
  VFIO_CONTAINER_IOCTLS,
  VFIO_DMA_CC_IOMMU,
  VFIO_DMA_MAP_FLAG_READ,
  VFIO_DMA_MAP_FLAG_WRITE,
  VFIO_DMA_UNMAP_FLAG_ALL,
  VFIO_GET_API_VERSION,
  VFIO_IOMMU_DIRTY_PAGES,
  VFIO_IOMMU_GET_INFO,
  VFIO_IOMMU_INFO_CAPS,
  VFIO_IOMMU_INFO_PGSIZES,
  VFIO_IOMMU_MAP_DMA,
  VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE,
  VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL,
  VFIO_IOMMU_UNMAP_DMA,
  VFIO_NOIOMMU_IOMMU,
  VFIO_SET_IOMMU,
  VFIO_TYPE1_IOMMU,
  VFIO_TYPE1v2_IOMMU,
  VFIO_UNMAP_ALL,
  vfioIommuType1DmaMap,
  vfioIommuType1DmaUnmap,
  vfioIommuType1Info,
  vfioIommuType1InfoCapIovaRange,
  vfioIommuType1InfoDmaAvail,
  vfioIovaRange,
} from "../../uapi/vfio-container.ts";
import type { CallContext } from "../file.ts";
import { IOMMU_CACHE, IOMMU_READ, IOMMU_WRITE } from "../iommu/driver.ts";
import type { IommufdCommand } from "./command.ts";
import type { IommufdContext } from "./context.ts";
import { Ioas, mapMemory } from "./ioas.ts";
import { U64_MAX } from "./iova-ranges.ts";
import { readUser, writeUser } from "./user-copy.ts";

/** VFIO's requests that an iommufd serves, by name: for traces and failure injection. */
export const VFIO_REQUEST_NAMES: ReadonlyMap<number, string> = new Map(
  [...VFIO_CONTAINER_IOCTLS].filter(([request]) => request !== VFIO_IOMMU_DIRTY_PAGES),
);

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
  switch (Number(extension)) {
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
  if (context.environment.noIommu && type === BigInt(VFIO_NOIOMMU_IOMMU) && context.noIommuMode) {
    return call.capabilities.sysRawio ? 0 : -EPERM;
  }
  if ((type !== BigInt(VFIO_TYPE1_IOMMU) && type !== BigInt(VFIO_TYPE1v2_IOMMU)) || context.noIommuMode) return -EINVAL;
  const ioas = context.compatibilityIoas;
  if (ioas === null) return -ENODEV;
  // TYPE1 may unmap inside a mapping, which only small leaves allow.
  return type === BigInt(VFIO_TYPE1_IOMMU) ? ioas.table.setLargePages(false) : 0;
}

function mapDma(context: IommufdContext, call: CallContext, argument: bigint): number {
  const bytes = new Uint8Array(32);
  if (readUser(call.memory, argument, bytes) < 0) return -EFAULT;
  const request = vfioIommuType1DmaMap.decode(bytes);
  if (request.argsz < 32 || (request.flags & ~(VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE)) !== 0) return -EINVAL;
  const ioas = context.compatibilityIoas;
  if (ioas === null) return -ENODEV;
  const protection =
    IOMMU_CACHE |
    ((request.flags & VFIO_DMA_MAP_FLAG_READ) !== 0 ? IOMMU_READ : 0) |
    ((request.flags & VFIO_DMA_MAP_FLAG_WRITE) !== 0 ? IOMMU_WRITE : 0);
  const at = mapMemory(context, ioas, call, request.vaddr, request.size, request.iova, protection);
  return typeof at === "number" ? at : 0;
}

function unmapDma(context: IommufdContext, call: CallContext, argument: bigint): number {
  const bytes = new Uint8Array(24);
  if (readUser(call.memory, argument, bytes) < 0) return -EFAULT;
  const request = vfioIommuType1DmaUnmap.decode(bytes);
  if (request.argsz < 24 || (request.flags & ~VFIO_DMA_UNMAP_FLAG_ALL) !== 0) return -EINVAL;
  const ioas = context.compatibilityIoas;
  if (ioas === null) return -ENODEV;
  const { table } = ioas;
  let outcome: { error: number; unmapped: bigint };
  if ((request.flags & VFIO_DMA_UNMAP_FLAG_ALL) !== 0) {
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
  vfioIommuType1DmaUnmap.patch(bytes, { size: outcome.unmapped });
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
  const { argsz } = vfioIommuType1Info.decode(bytes);
  if (argsz < 16) return -EINVAL;
  const ioas = context.compatibilityIoas;
  if (ioas === null) return -ENODEV;
  const available = vfioIommuType1InfoDmaAvail.encode({
    id: VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL,
    version: 1,
    avail: 0xffff_ffff,
  });
  const holes = ioas.table.ranges.holes();
  const ranges = new Uint8Array(16 + 16 * holes.length);
  vfioIommuType1InfoCapIovaRange.patch(ranges, {
    id: VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE,
    version: 1,
    nr_iovas: holes.length,
  });
  for (const [i, hole] of holes.entries()) {
    vfioIovaRange.patch(ranges, { start: hole.start, end: hole.last }, 16 + 16 * i);
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
  const reply = vfioIommuType1Info.encode({
    argsz: total,
    flags: VFIO_IOMMU_INFO_PGSIZES | VFIO_IOMMU_INFO_CAPS,
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
