// One mapping in an IOAS (Linux: struct iopt_area): IOVAs [start, last] stand for a slice of some UserPages. While its io_pagetable
// has domains, its pages are held and mapped in each of them.

import { EINVAL } from "../../uapi/errno.ts";
import { IOMMU_WRITE, type PagingDomain } from "../iommu/driver.ts";
import type { Interval } from "./interval-tree.ts";
import type { IoPagetable } from "./io-pagetable.ts";
import { PAGE, PAGE_BYTES, type UserPages } from "./user-pages.ts";

// Not state: whoever has the tables writes areas down (mappings-state.ts).
export class Area implements Interval {
  readonly start: bigint;
  readonly last: bigint;
  readonly table: IoPagetable;
  readonly pages: UserPages;
  /** Offset of the first byte within the pages. */
  readonly startByte: bigint;
  /** IOMMU_READ | IOMMU_WRITE | … */
  readonly protection: number;
  /** Pins by in-kernel accesses, and how many of them forbid unmapping. */
  accesses = 0;
  locks = 0;
  /** It is being unmapped: no new access may pin. */
  preventAccess = false;
  /** The pages are held for the table's domains. */
  filled = false;

  constructor(
    table: IoPagetable,
    pages: UserPages,
    start: bigint,
    length: bigint,
    startByte: bigint,
    protection: number,
  ) {
    this.table = table;
    this.pages = pages;
    this.start = start;
    this.last = start + length - 1n;
    this.startByte = startByte;
    this.protection = protection;
  }

  get length(): bigint {
    return this.last - this.start + 1n;
  }

  /** Offset of the first byte within its page. */
  get pageOffset(): bigint {
    return this.startByte % PAGE_BYTES;
  }

  get firstPage(): number {
    return Number(this.startByte / PAGE_BYTES);
  }

  get lastPage(): number {
    return Number((this.startByte + this.length - 1n) / PAGE_BYTES);
  }

  /** Byte of the pages behind an IOVA of the area. */
  byteAt(iova: bigint): bigint {
    return this.startByte + (iova - this.start);
  }

  /** Page index behind an IOVA of the area. */
  pageAt(iova: bigint): number {
    return Number(this.byteAt(iova) / PAGE_BYTES);
  }

  /** Maps the (held) pages into a domain; a negated errno leaves the domain without any of them. */
  mapInto(domain: PagingDomain): number {
    if (this.pages.revoked) return 0;
    const readOnly = (this.protection & IOMMU_WRITE) === 0;
    if (readOnly && domain.nestParent && this.table.injector.erratum?.("read-only-stage2") === true) return -EINVAL;
    let iova = this.start;
    let offset = this.pageOffset;
    for (const run of this.pages.runs(this.firstPage, this.lastPage)) {
      let frame = run.frame;
      let left = run.count;
      while (left > 0) {
        // Without large pages each page is mapped by itself, so that later cuts find a leaf boundary anywhere.
        const count = this.table.disableLargePages ? 1 : left;
        const bytes = BigInt(count * PAGE) - offset;
        const rest = this.last - iova + 1n;
        const size = bytes < rest ? bytes : rest;
        const result = domain.map(iova, BigInt(frame) * PAGE_BYTES + offset, size, this.protection);
        if (result < 0) {
          if (iova > this.start) unmapRange(domain, this.start, iova - this.start);
          return result;
        }
        iova += size;
        offset = 0n;
        frame += count;
        left -= count;
      }
    }
    return 0;
  }

  unmapFrom(domain: PagingDomain): void {
    if (!this.pages.revoked) unmapRange(domain, this.start, this.length);
  }

  unmapFromDomains(): void {
    for (const domain of this.table.domains) this.unmapFrom(domain);
  }
}

/** Unmaps and waits until hardware has forgotten: pages may be unpinned after it. */
function unmapRange(domain: PagingDomain, iova: bigint, size: bigint): void {
  const unmapped = domain.unmap(iova, size);
  if (unmapped !== size) {
    throw new Error(`a domain unmapped ${unmapped} of ${size} bytes at ${iova.toString(16)}`);
  }
  domain.sync(iova, size);
}
