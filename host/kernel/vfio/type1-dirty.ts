// Dirty pages of a type1 container (Linux: vfio_iommu_type1.c, VFIO_IOMMU_DIRTY_PAGES). type1 does not ask the IOMMU: while tracking is
// on, every page that a device may write through the container's mappings counts as dirty, at every query.

import { EACCES, EFAULT, EINVAL } from "../../uapi/errno.ts";
import {
  VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP,
  VFIO_IOMMU_DIRTY_PAGES_FLAG_START,
  VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP,
  vfioBitmap,
  vfioIommuType1DirtyBitmap,
  vfioIommuType1DirtyBitmapGet,
} from "../../uapi/vfio-container.ts";
import type { CallContext } from "../file.ts";
import type { Type1 } from "./type1.ts";
import { readBytes, readRequest, writeBytes } from "./user-request.ts";

/** DIRTY_BITMAP_PAGES_MAX is INT_MAX pages: so many bytes of bitmap. */
export const DIRTY_BITMAP_BYTES_MAX = 2n ** 28n;
const CHUNK = 65536;

/** -EACCES for v1; one flag at a time; GET_BITMAP only while tracking is on, in the smallest page size. */
export function dirtyPages(backend: Type1, call: CallContext, argument: bigint): number {
  if (backend.version === 1) return -EACCES;
  const request = readRequest(call, argument, vfioIommuType1DirtyBitmap);
  if (typeof request === "number") return request;
  switch (request.values.flags) {
    case VFIO_IOMMU_DIRTY_PAGES_FLAG_START:
      backend.dirtyTracking = true;
      return 0;
    case VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP:
      backend.dirtyTracking = false;
      return 0;
    case VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP: {
      if (request.size < vfioIommuType1DirtyBitmap.bytes + vfioIommuType1DirtyBitmapGet.bytes) return -EINVAL;
      const bytes = new Uint8Array(vfioIommuType1DirtyBitmapGet.bytes);
      if (readBytes(call, argument + BigInt(vfioIommuType1DirtyBitmap.bytes), bytes) < 0) return -EFAULT;
      const { iova, size, pgsize, bitmap_size, bitmap_data } = vfioIommuType1DirtyBitmapGet.decode(bytes);
      const refused = checkBitmap(backend, size, pgsize, bitmap_size);
      if (refused < 0) return refused;
      if (iova + size > 1n << 64n || iova % pgsize !== 0n || !backend.dirtyTracking) return -EINVAL;
      return report(backend, call, iova, size, bitmap_data);
    }
    default:
      return -EINVAL;
  }
}

/** The bitmap of an UNMAP_DMA with GET_DIRTY_BITMAP: exactly one whole mapping, reported before it goes. 0 or a negated errno. */
export function dirtyBeforeUnmap(backend: Type1, call: CallContext, at: bigint, iova: bigint, size: bigint): number {
  const bytes = new Uint8Array(vfioBitmap.bytes);
  if (readBytes(call, at, bytes) < 0) return -EFAULT;
  const bitmap = vfioBitmap.decode(bytes);
  const refused = checkBitmap(backend, size, bitmap.pgsize, bitmap.size);
  if (refused < 0) return refused;
  if (!backend.dirtyTracking) return -EINVAL;
  const area = backend.table.areas.at(iova);
  if (area === null || area.start !== iova || area.length !== size) return -EINVAL;
  return report(backend, call, iova, size, bitmap.data);
}

function checkBitmap(backend: Type1, size: bigint, pgsize: bigint, bitmapBytes: bigint): number {
  if (pgsize !== backend.smallestPage || size === 0n || size % pgsize !== 0n) return -EINVAL;
  const pages = size / pgsize;
  const needed = ((pages + 63n) / 64n) * 8n;
  return bitmapBytes < needed || bitmapBytes > DIRTY_BITMAP_BYTES_MAX ? -EINVAL : 0;
}

/** Sets a bit for every page of the range that is mapped; a range that cuts a mapping is -EINVAL. Other bits stay as they are. */
function report(backend: Type1, call: CallContext, iova: bigint, size: bigint, bitmap: bigint): number {
  const { areas } = backend.table;
  const last = iova + size - 1n;
  const head = areas.at(iova);
  const tail = areas.at(last);
  if ((head !== null && head.start !== iova) || (tail !== null && tail.last !== last)) return -EINVAL;
  let next = iova;
  for (;;) {
    const area = next > last ? null : areas.firstIn(next, last);
    if (area === null) return 0;
    const first = Number((area.start - iova) / backend.smallestPage);
    const marked = mark(call, bitmap, first, Number(area.length / backend.smallestPage));
    if (marked < 0) return marked;
    next = area.last + 1n;
  }
}

/** Sets `count` bits from bit `first` of a bitmap in user memory. */
function mark(call: CallContext, bitmap: bigint, first: number, count: number): number {
  let bit = first;
  const end = first + count;
  while (bit < end) {
    const start = Math.floor(bit / 8);
    const bytes = new Uint8Array(Math.min(CHUNK, Math.floor((end - 1) / 8) - start + 1));
    if (readBytes(call, bitmap + BigInt(start), bytes) < 0) return -EFAULT;
    const stop = Math.min(end, (start + bytes.length) * 8);
    for (; bit < stop; bit++) bytes[Math.floor(bit / 8) - start]! |= 1 << (bit % 8);
    if (writeBytes(call, bitmap + BigInt(start), bytes) < 0) return -EFAULT;
  }
  return 0;
}
