// An IOAS's map from IOVA to pages (Linux: struct io_pagetable): areas, the domains they are installed in, and the in-kernel
// accesses that use them.
//
//     map ─→ Area (in the tree) ─→ pages held and mapped into every domain       if there are domains
//     add domain ─→ every area mapped into it                                    the first one pins, the others share
//     unmap ─→ accesses told to unpin ─→ unmapped everywhere ─→ pages released
//
// Addresses are bigints; lengths bytes. Results are 0, a value, or a negated errno; a failed call leaves all as it was, except an
// unmap that meets a partly covered area after whole ones (those are gone, as in Linux).

import type { Stateful, StateReader, StateRecord } from "../../base/state.ts";
import {
  EADDRINUSE,
  EBUSY,
  EDEADLK,
  EEXIST,
  EINVAL,
  ENOENT,
  ENOMEM,
  ENOSPC,
  EOPNOTSUPP,
  EOVERFLOW,
  EPERM,
} from "../../uapi/errno.ts";
import type { Injector } from "../inject.ts";
import { IOMMU_WRITE, type PagingDomain, type ReservedRegion } from "../iommu/driver.ts";
import { Area } from "./area.ts";
import { IntervalTree } from "./interval-tree.ts";
import { IovaRanges, U64_MAX } from "./iova-ranges.ts";
import { PAGE_BYTES, type UserPages } from "./user-pages.ts";

/** Automatic IOVAs keep at most this alignment of the user address (a transparent huge page). */
const HUGE_PAGE = 0x20_0000n;
/** How often accesses are asked to unpin before UNMAP gives up. */
const UNPIN_TRIES = 100;

/** A slice of pages to be mapped. */
export interface PageSlice {
  readonly pages: UserPages;
  readonly startByte: bigint;
  readonly length: bigint;
}

/** What an in-kernel access is to the table. */
export interface TableAccess {
  readonly alignment: bigint;
  /** Must stop using (unpin) what lies in the range before it returns. */
  unmap(iova: bigint, length: bigint): void;
}

export class IoPagetable implements Stateful {
  readonly areas = new IntervalTree<Area>();
  readonly ranges = new IovaRanges();
  /** The first one is the oldest; all hold the same mappings. */
  readonly domains: PagingDomain[] = []; // not state: its owner restores their order
  readonly #accesses = new Set<TableAccess>(); // not state: access objects, which are the same
  readonly injector: Injector;
  disableLargePages = false;
  /** Every area's IOVA, length and page offset are multiples of this. */
  alignment = 1n;

  constructor(injector: Injector) {
    this.injector = injector;
  }

  // --- mapping ---

  /**
   * Maps consecutive slices at `iova` (null: where it fits); the table takes over the caller's reference of each slice's pages only
   * on success. Returns the IOVA, or a negated errno (a number).
   */
  map(slices: readonly PageSlice[], length: bigint, iova: bigint | null, protection: number): bigint | number {
    if (this.injector.allocation("area")) return -ENOMEM;
    if (length === 0n || length % this.alignment !== 0n) return -EINVAL;
    const first = slices[0]!;
    const at = iova ?? this.#allocateIova(first.pages.addressOf(first.startByte), length);
    if (typeof at === "number") return at;
    const refused = this.#checkFixed(at, length);
    if (refused < 0) return refused;
    const areas: Area[] = [];
    let next = at;
    for (const slice of slices) {
      if ((protection & IOMMU_WRITE) !== 0 && !slice.pages.writable) return -EPERM;
      if ((slice.startByte % PAGE_BYTES) % this.alignment !== 0n) return -EINVAL;
      areas.push(new Area(this, slice.pages, next, slice.length, slice.startByte, protection));
      next += slice.length;
    }
    for (const [index, area] of areas.entries()) {
      const result = this.#fill(area);
      if (result < 0) {
        for (const done of areas.slice(0, index)) this.#unfill(done);
        return result;
      }
    }
    for (const area of areas) this.areas.insert(area);
    return at;
  }

  #checkFixed(iova: bigint, length: bigint): number {
    if (iova % this.alignment !== 0n) return -EINVAL;
    const last = iova + length - 1n;
    if (last > U64_MAX) return -EOVERFLOW;
    if (this.ranges.isReserved(iova, last)) return -EINVAL;
    if (this.areas.firstIn(iova, last) !== null) return -EEXIST;
    return 0;
  }

  /** The lowest free IOVA that keeps the alignment present in the user's address (io_pagetable.c: iopt_alloc_iova). */
  #allocateIova(address: bigint, length: bigint): bigint | number {
    if (length >= U64_MAX / 2n) return -EOVERFLOW;
    let alignment = roundUpToPowerOfTwo(length);
    const lowestBit = address & -address;
    if (address !== 0n && lowestBit < alignment) alignment = lowestBit;
    if (alignment > HUGE_PAGE) alignment = HUGE_PAGE;
    if (alignment < this.alignment) return -EINVAL;
    const pageOffset = address % PAGE_BYTES;
    const place = (start: bigint, last: bigint): bigint | null => {
      const aligned = (((start + alignment - 1n) / alignment) * alignment) | pageOffset;
      return aligned < last && last - aligned >= length - 1n ? aligned : null;
    };
    const found = this.ranges.searchUsable((start, last) => this.areas.findHole(start, last, length, place));
    return found ?? -ENOSPC;
  }

  /** Pins an area's pages and maps them into every domain. */
  #fill(area: Area): number {
    if (this.domains.length === 0) return 0;
    const held = area.pages.hold(area.firstPage, area.lastPage);
    if (held < 0) return held;
    for (const [index, domain] of this.domains.entries()) {
      const result = area.mapInto(domain);
      if (result < 0) {
        for (const done of this.domains.slice(0, index)) area.unmapFrom(done);
        area.pages.release(area.firstPage, area.lastPage);
        return result;
      }
    }
    this.#filled(area);
    return 0;
  }

  #filled(area: Area): void {
    area.filled = true;
    area.pages.trackedAreas.add(area);
  }

  /** The reverse: unmap everywhere first, unpin after. */
  #unfill(area: Area): void {
    if (!area.filled) return;
    area.unmapFromDomains();
    this.#unfilled(area);
  }

  #unfilled(area: Area): void {
    area.filled = false;
    area.pages.trackedAreas.delete(area);
    area.pages.release(area.firstPage, area.lastPage);
  }

  // --- looking up ---

  /** Areas that cover [iova, last] without a gap, in order; null if there is a gap. */
  contiguous(iova: bigint, last: bigint): Area[] | null {
    const areas: Area[] = [];
    let next = iova;
    while (next <= last) {
      const area = this.areas.at(next);
      if (area === null) return null;
      areas.push(area);
      next = area.last + 1n;
    }
    return areas;
  }

  /** The pages behind [iova, +length), each with a reference for the caller (iopt_get_pages). */
  slices(iova: bigint, length: bigint): PageSlice[] | number {
    if (length === 0n) return -EINVAL;
    const last = iova + length - 1n;
    if (last > U64_MAX) return -EOVERFLOW;
    if (this.injector.allocation("pages list")) return -ENOMEM;
    const areas = this.contiguous(iova, last);
    if (areas === null) return -ENOENT;
    return areas.map((area) => {
      const from = area.start > iova ? area.start : iova;
      const to = area.last < last ? area.last : last;
      return { pages: area.pages.get(), startByte: area.byteAt(from), length: to - from + 1n };
    });
  }

  // --- unmapping ---

  unmap(iova: bigint, length: bigint): { error: number; unmapped: bigint } {
    if (length === 0n) return { error: -EINVAL, unmapped: 0n };
    const last = iova + length - 1n;
    if (last > U64_MAX) return { error: -EOVERFLOW, unmapped: 0n };
    return this.#unmapRange(iova, last);
  }

  unmapAll(): { error: number; unmapped: bigint } {
    return this.#unmapRange(0n, U64_MAX);
  }

  #unmapRange(start: bigint, last: bigint): { error: number; unmapped: bigint } {
    let unmapped = 0n;
    let tries = 0;
    for (;;) {
      const area = this.areas.firstIn(start, last);
      if (area === null) return { error: 0, unmapped };
      if (area.locks > 0) return { error: -EBUSY, unmapped };
      if (area.start < start || area.last > last) return { error: -ENOENT, unmapped };
      if (area.accesses > 0) {
        area.preventAccess = true;
        for (const access of [...this.#accesses]) access.unmap(area.start, area.length);
        if (++tries > UNPIN_TRIES) return { error: -EDEADLK, unmapped };
        continue;
      }
      tries = 0;
      this.#remove(area);
      unmapped += area.length;
      start = area.last + 1n;
      if (start > last) return { error: 0, unmapped };
    }
  }

  #remove(area: Area): void {
    this.#unfill(area);
    this.areas.remove(area);
    area.pages.put();
  }

  // --- domains ---

  /** Fills a new domain with every area. -EADDRINUSE when the areas do not fit its aperture or page size. */
  addDomain(domain: PagingDomain): number {
    const smallest = domain.pageSizes & -domain.pageSizes;
    let { alignment } = this;
    if (smallest > alignment) alignment = smallest;
    if (alignment > PAGE_BYTES) return -EINVAL;
    if (alignment !== this.alignment && !this.#areasAligned(alignment)) return -EADDRINUSE;
    let result = 0;
    if (domain.aperture.start > 0n) result = this.reserve(0n, domain.aperture.start - 1n, domain);
    if (result === 0 && domain.aperture.last < U64_MAX) {
      result = this.reserve(domain.aperture.last + 1n, U64_MAX, domain);
    }
    if (result === 0 && this.injector.allocation("domain list")) result = -ENOMEM;
    if (result === 0) result = this.#fillDomain(domain);
    if (result < 0) {
      this.ranges.removeReserved(domain);
      return result;
    }
    this.alignment = alignment;
    this.domains.push(domain);
    return 0;
  }

  #fillDomain(domain: PagingDomain): number {
    const first = this.domains.length === 0;
    const done: Area[] = [];
    for (const area of this.areas) {
      let result = first ? area.pages.hold(area.firstPage, area.lastPage) : 0;
      if (result === 0) {
        result = area.mapInto(domain);
        if (result < 0 && first) area.pages.release(area.firstPage, area.lastPage);
      }
      if (result < 0) {
        for (const filled of done) {
          filled.unmapFrom(domain);
          if (first) this.#unfilled(filled);
        }
        return result;
      }
      if (first) this.#filled(area);
      done.push(area);
    }
    return 0;
  }

  removeDomain(domain: PagingDomain): void {
    const index = this.domains.indexOf(domain);
    if (index < 0) throw new Error("the domain is not in this table");
    this.domains.splice(index, 1);
    for (const area of this.areas) {
      area.unmapFrom(domain);
      if (this.domains.length === 0) this.#unfilled(area);
    }
    this.ranges.removeReserved(domain);
    this.#recalculateAlignment();
  }

  // --- reserved regions ---

  /** -EADDRINUSE when something is mapped or allowed there. */
  reserve(start: bigint, last: bigint, owner: object | null): number {
    if (this.areas.firstIn(start, last) !== null || this.ranges.touchesAllowed(start, last)) return -EADDRINUSE;
    if (this.injector.allocation("reserved range")) return -ENOMEM;
    this.ranges.reserve(start, last, owner);
    return 0;
  }

  /** Reserves what a device needs for itself; DIRECT_RELAXABLE regions are ignored. All or nothing. */
  reserveForDevice(regions: readonly ReservedRegion[], owner: object): number {
    for (const region of regions) {
      if (region.type === "DIRECT_RELAXABLE") continue;
      const result = this.reserve(region.start, region.start + region.length - 1n, owner);
      if (result < 0) {
        this.ranges.removeReserved(owner);
        return result;
      }
    }
    return 0;
  }

  // --- alignment ---

  #areasAligned(alignment: bigint): boolean {
    for (const area of this.areas) {
      if (area.start % alignment !== 0n || area.length % alignment !== 0n || area.pageOffset % alignment !== 0n)
        return false;
    }
    return true;
  }

  /** What domains, accesses and options need; -EADDRINUSE (nothing changed) if areas do not satisfy more of it. */
  #recalculateAlignment(): number {
    let alignment = this.disableLargePages ? PAGE_BYTES : 1n;
    for (const domain of this.domains) {
      const smallest = domain.pageSizes & -domain.pageSizes;
      if (smallest > alignment) alignment = smallest;
    }
    for (const access of this.#accesses) if (access.alignment > alignment) alignment = access.alignment;
    if (alignment > this.alignment && !this.#areasAligned(alignment)) return -EADDRINUSE;
    this.alignment = alignment;
    return 0;
  }

  // --- accesses ---

  addAccess(access: TableAccess): number {
    if (this.injector.allocation("access list")) return -ENOMEM;
    this.#accesses.add(access);
    const result = this.#recalculateAlignment();
    if (result < 0) this.#accesses.delete(access);
    return result;
  }

  removeAccess(access: TableAccess): void {
    this.#accesses.delete(access);
    this.#recalculateAlignment();
  }

  // --- large pages and cutting areas (VFIO type1 v1) ---

  setLargePages(allowed: boolean): number {
    if (allowed) {
      this.disableLargePages = false;
      return this.#recalculateAlignment();
    }
    if (this.disableLargePages) return 0;
    if (this.domains.length > 0 && this.areas.size > 0) return -EINVAL;
    this.disableLargePages = true;
    const result = this.#recalculateAlignment();
    if (result < 0) this.disableLargePages = false;
    return result;
  }

  /** Splits the area that contains `iova` (and does not begin or end with it) so that `iova` is the last of its first part. */
  cutAfter(iova: bigint): number {
    const area = this.areas.at(iova);
    if (area === null || iova === area.start || iova === area.last) return 0;
    if (area.preventAccess) return -EBUSY;
    if (area.pages.isDmaBuffer) return -EOPNOTSUPP;
    const second = iova + 1n;
    if (second % this.alignment !== 0n || area.byteAt(second) % this.alignment !== 0n) return -EINVAL;
    if (this.injector.allocation("area")) return -ENOMEM;
    if (area.accesses > 0 || (area.filled && !this.disableLargePages)) return -EINVAL;
    const { pages, startByte, protection } = area;
    const left = new Area(this, pages, area.start, second - area.start, startByte, protection);
    const right = new Area(this, pages.get(), second, area.last - iova, area.byteAt(second), protection);
    if (area.filled) {
      // Held once more in parts, then no longer as a whole: no page is unpinned in between.
      for (const part of [left, right]) {
        pages.hold(part.firstPage, part.lastPage);
        this.#filled(part);
      }
      this.#unfilled(area);
    }
    this.areas.remove(area);
    this.areas.insert(left);
    this.areas.insert(right);
    return 0;
  }

  /** Everything must have left: no areas, domains, accesses; the selftest's ranges go now. */
  destroy(): void {
    const { error } = this.unmapAll();
    this.ranges.removeReserved(null);
    if (error !== 0 || this.areas.size > 0 || this.domains.length > 0 || this.#accesses.size > 0) {
      throw new Error("an IOAS is destroyed while in use");
    }
    if (this.ranges.reservedCount > 0) throw new Error("an IOAS is destroyed with reserved ranges left");
  }

  // --- state: areas are saved by whoever has the tables (mappings-state.ts), the order of domains too ---

  saveState(): StateRecord {
    return { disableLargePages: this.disableLargePages, alignment: this.alignment };
  }

  restoreState(state: StateReader): void {
    this.disableLargePages = state.boolean("disableLargePages");
    this.alignment = state.bigint("alignment");
  }

  *stateParts(): Generator<readonly [string, Stateful]> {
    yield ["ranges", this.ranges];
  }
}

function roundUpToPowerOfTwo(value: bigint): bigint {
  let power = 1n;
  while (power < value) power <<= 1n;
  return power;
}
