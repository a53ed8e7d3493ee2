// Dirty tracking of a paging HWPT (Linux: iommufd/io_pagetable.c, iova_bitmap.c): which pages devices wrote, as a bitmap in user
// space into which bits are OR-ed. As in Linux a bitmap that cannot be written, and a range with a hole, end the walk silently.

import { EINVAL, ENOENT, ENOMEM, EOPNOTSUPP, EOVERFLOW } from "../../uapi/errno.ts";
import {
  IOMMU_HWPT_DIRTY_TRACKING_ENABLE,
  IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR,
  iommuHwptGetDirtyBitmap,
  iommuHwptSetDirtyTracking,
} from "../../uapi/iommufd.ts";
import type { AddressSpace } from "../file.ts";
import type { IommufdCommand } from "./command.ts";
import type { HwptPaging } from "./hw-pagetable.ts";
import { U64_MAX } from "./iova-ranges.ts";
import { readUser, writeUser } from "./user-copy.ts";

export function setDirtyTracking(command: IommufdCommand): number {
  const request = iommuHwptSetDirtyTracking.decode(command.bytes);
  if ((request.flags & ~IOMMU_HWPT_DIRTY_TRACKING_ENABLE) !== 0) return -EOPNOTSUPP;
  const hwpt = command.find<HwptPaging>(request.hwpt_id, "hwpt-paging");
  if (hwpt === null) return -ENOENT;
  const { dirty } = hwpt.domain;
  if (dirty === undefined) return -EOPNOTSUPP;
  const enable = (request.flags & IOMMU_HWPT_DIRTY_TRACKING_ENABLE) !== 0;
  if (enable) {
    for (const area of hwpt.ioas.table.areas) {
      const cleared = dirty.readAndClear(area.start, area.length, false, () => {});
      if (cleared < 0) return cleared;
    }
  }
  return dirty.setTracking(enable);
}

export function getDirtyBitmap(command: IommufdCommand): number {
  const request = iommuHwptGetDirtyBitmap.decode(command.bytes);
  if ((request.flags & ~IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR) !== 0 || request.__reserved !== 0) return -EOPNOTSUPP;
  const hwpt = command.find<HwptPaging>(request.hwpt_id, "hwpt-paging");
  if (hwpt === null) return -ENOENT;
  const { table } = hwpt.ioas;
  const { iova, length, page_size: pageSize } = request;
  const last = iova + BigInt.asUintN(64, length - 1n);
  if (last > U64_MAX) return -EOVERFLOW;
  const ends = iova | BigInt.asUintN(64, last + 1n);
  if ((ends & (table.alignment - 1n)) !== 0n || pageSize === 0n || (ends & (pageSize - 1n)) !== 0n) return -EINVAL;
  const { dirty } = hwpt.domain;
  if (dirty === undefined) return -EOPNOTSUPP;
  if (command.context.environment.injector.allocation("bitmap")) return -ENOMEM;
  const keep = (request.flags & IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR) !== 0;
  const bitmap = new UserBitmap(command.call.memory, request.data, iova, last, pageSize & -pageSize);
  for (let next = iova; next <= last && length > 0n; ) {
    const area = table.areas.at(next);
    if (area === null) break;
    const end = area.last < last ? area.last : last;
    if (!bitmap.writable(next, end)) break;
    dirty.readAndClear(next, end - next + 1n, keep, (from, size) => bitmap.set(from, from + size - 1n, next, end));
    next = end + 1n;
  }
  bitmap.flush();
  return 0;
}

/** One bit per `pageSize` bytes of [base, last]; a page of the bitmap is kept at a time. */
// Not state: within one request.
class UserBitmap {
  readonly #memory: AddressSpace;
  readonly #va: bigint;
  readonly #base: bigint;
  readonly #pageSize: bigint;
  /** Address behind the bitmap's last byte: what follows is not ours to write, not even with what was there. */
  readonly #end: bigint;
  #window: Uint8Array | null = null;
  #windowAt = 0n;

  constructor(memory: AddressSpace, va: bigint, base: bigint, last: bigint, pageSize: bigint) {
    this.#memory = memory;
    this.#va = va;
    this.#base = base;
    this.#pageSize = pageSize;
    this.#end = va + (last - base) / pageSize / 8n + 1n;
  }

  /** True if every byte that stands for [iova, last] can be written. */
  writable(iova: bigint, last: bigint): boolean {
    this.flush();
    const one = new Uint8Array(1);
    const end = this.#va + (last - this.#base) / this.#pageSize / 8n;
    for (let at = this.#va + (iova - this.#base) / this.#pageSize / 8n; ; ) {
      if (readUser(this.#memory, at, one) < 0 || writeUser(this.#memory, at, one) < 0) return false;
      if (at >= end) return true;
      const next = (at / 4096n + 1n) * 4096n;
      at = next < end ? next : end;
    }
  }

  /** Sets the bits of [from, to], as far as it lies in [first, last]. */
  set(from: bigint, to: bigint, first: bigint, last: bigint): void {
    const low = ((from < first ? first : from) - this.#base) / this.#pageSize;
    const high = ((to > last ? last : to) - this.#base) / this.#pageSize;
    for (let bit = low; bit <= high; ) {
      const window = this.#load(bit / 8n);
      const windowEnd = (this.#windowAt - this.#va + BigInt(window.length)) * 8n;
      const end = high < windowEnd ? high + 1n : windowEnd;
      const origin = (this.#windowAt - this.#va) * 8n;
      for (let i = Number(bit - origin); i < Number(end - origin); i++) window[i >> 3]! |= 1 << (i & 7);
      bit = end;
    }
  }

  /** The bitmap's piece that holds byte `index`, up to the end of its page. */
  #load(index: bigint): Uint8Array {
    const at = this.#va + index;
    if (this.#window !== null && at >= this.#windowAt && at < this.#windowAt + BigInt(this.#window.length))
      return this.#window;
    this.flush();
    const left = this.#end - at;
    const toPageEnd = 4096n - (at % 4096n);
    const window = new Uint8Array(Number(left < toPageEnd ? left : toPageEnd));
    if (readUser(this.#memory, at, window) < 0) window.fill(0);
    this.#window = window;
    this.#windowAt = at;
    return window;
  }

  flush(): void {
    if (this.#window !== null) writeUser(this.#memory, this.#windowAt, this.#window);
    this.#window = null;
  }
}
