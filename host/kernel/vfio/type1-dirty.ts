// Dirty pages of a type1 container (Linux: vfio_iommu_type1.c, VFIO_IOMMU_DIRTY_PAGES). type1 does not ask the IOMMU: while tracking is
// on, every page that a device may write through the container's mappings counts as dirty, at every query.

import { EACCES, EFAULT, EINVAL, EOVERFLOW } from "../../uapi/errno.ts";
import {
  VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP,
  VFIO_IOMMU_DIRTY_PAGES_FLAG_START,
  VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP,
  vfioBitmap,
  vfioIommuType1DirtyBitmap,
  vfioIommuType1DirtyBitmapGet,
} from "../../uapi/vfio-container.ts";
import type { CallContext } from "../file.ts";
import { U64_MAX } from "../iommufd/iova-ranges.ts";
import type { Type1 } from "./type1.ts";
import { readBytes, readRequest, writeBytes } from "./user-request.ts";

/** DIRTY_BITMAP_PAGES_MAX is INT_MAX pages: so many bytes of bitmap. */
export const DIRTY_BITMAP_BYTES_MAX = 2n ** 28n;
const CHUNK = 65536;
/** The upper half of the address space is the kernel's on every 64-bit architecture (access_ok). */
const USER_LIMIT = 1n << 63n;

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
    case VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP:
      return getBitmap(backend, call, argument, request.size);
    default:
      return -EINVAL;
  }
}

/** A range that passes 2^64 is EOVERFLOW before its bitmap is looked at. */
function getBitmap(backend: Type1, call: CallContext, argument: bigint, argsz: number): number {
  if (argsz < vfioIommuType1DirtyBitmap.bytes + vfioIommuType1DirtyBitmapGet.bytes) return -EINVAL;
  const bytes = new Uint8Array(vfioIommuType1DirtyBitmapGet.bytes);
  if (readBytes(call, argument + BigInt(vfioIommuType1DirtyBitmap.bytes), bytes) < 0) return -EFAULT;
  const { iova, size, pgsize, bitmap_size, bitmap_data } = vfioIommuType1DirtyBitmapGet.decode(bytes);
  if (size === 0n) return -EINVAL;
  const last = iova + size - 1n;
  if (last > U64_MAX) return -EOVERFLOW;
  const bitmap = DirtyBitmap.of(call, bitmap_data, bitmap_size, pgsize, size);
  if (typeof bitmap === "number") return bitmap;
  const page = backend.smallestPage;
  if (pgsize !== page || (iova | size) % page !== 0n || !backend.dirtyTracking) return -EINVAL;
  if (backend.cuts(iova, last)) return -EINVAL;
  const { areas } = backend.table;
  for (let next = iova; ; ) {
    const area = next > last ? null : areas.firstIn(next, last);
    if (area === null) return 0;
    const marked = bitmap.mark(area.start - iova, area.length);
    if (marked < 0) return marked;
    next = area.last + 1n;
  }
}

/** The bitmap that follows an UNMAP_DMA of `size` bytes with GET_DIRTY_BITMAP, or a negated errno. */
export function readUnmapBitmap(call: CallContext, at: bigint, size: bigint): DirtyBitmap | number {
  const bytes = new Uint8Array(vfioBitmap.bytes);
  if (readBytes(call, at, bytes) < 0) return -EFAULT;
  const bitmap = vfioBitmap.decode(bytes);
  return DirtyBitmap.of(call, bitmap.data, bitmap.size, bitmap.pgsize, size);
}

/** A bitmap in user memory, one bit a page of a range. Bits are set there; others stay as they are. */
export class DirtyBitmap {
  readonly pageBytes: bigint;
  readonly #call: CallContext;
  readonly #at: bigint;

  private constructor(call: CallContext, at: bigint, pageBytes: bigint) {
    this.#call = call;
    this.#at = at;
    this.pageBytes = pageBytes;
  }

  /** -EINVAL for one that is too small for the range, larger than any may be, or no user memory. */
  static of(call: CallContext, at: bigint, bytes: bigint, pageBytes: bigint, rangeBytes: bigint): DirtyBitmap | number {
    if (at + bytes > USER_LIMIT || bytes > DIRTY_BITMAP_BYTES_MAX) return -EINVAL;
    // A page size that is none fits no container: the caller compares it with the container's.
    const pages = pageBytes === 0n ? 0n : rangeBytes / (pageBytes & -pageBytes);
    if (pages === 0n || bytes < ((pages + 63n) / 64n) * 8n) return -EINVAL;
    return new DirtyBitmap(call, at, pageBytes);
  }

  /** Sets the bits of `length` bytes from byte `from` of the range: 0 or -EFAULT. */
  mark(from: bigint, length: bigint): number {
    let bit = Number(from / this.pageBytes);
    const end = bit + Number(length / this.pageBytes);
    while (bit < end) {
      const start = Math.floor(bit / 8);
      const bytes = new Uint8Array(Math.min(CHUNK, Math.floor((end - 1) / 8) - start + 1));
      if (readBytes(this.#call, this.#at + BigInt(start), bytes) < 0) return -EFAULT;
      const stop = Math.min(end, (start + bytes.length) * 8);
      for (; bit < stop; bit++) bytes[Math.floor(bit / 8) - start]! |= 1 << (bit % 8);
      if (writeBytes(this.#call, this.#at + BigInt(start), bytes) < 0) return -EFAULT;
    }
    return 0;
  }
}
