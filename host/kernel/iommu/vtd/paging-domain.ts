// Paging domains: a first stage, wherever the unit has one and nothing else is asked for, or a second stage (NEST_PARENT, DIRTY_TRACKING, legacy mode),
// each one page table, with a domain id on every unit that it is used on (Linux: struct dmar_domain).
//
//     map                 no descriptor, but with caching mode for a second stage (cache_tag_flush_range_np)
//     unmap, then sync    by the list of whom it concerns (cache-tags.ts); then tables are freed
//
// A domain is not one unit's: it goes to any that can walk its table (paging_domain_compatible).

import type { Stateful, StateReader, StateRecord } from "../../../base/state.ts";
import { EINVAL } from "../../../uapi/errno.ts";
import { type Attachment, AttachmentList } from "../attachments.ts";
import { type DirtyOperations, IOMMU_WRITE, type IommuDevice, type IommuDomain, type PagingDomain } from "../driver.ts";
import type { PageTable } from "../page-table.ts";
import { attachTo, setPasidTo } from "./attach.ts";
import {
  type CacheTag,
  cacheTags,
  DEVICE_TLB,
  flushRange,
  IOTLB,
  NESTED_DEVICE_TLB,
  PASID_IOTLB,
  tagsOf,
} from "./cache-tags.ts";
import { deviceDataOf } from "./device-data.ts";
import { DomainIds } from "./domain-ids.ts";
import type { VtdDriver } from "./driver.ts";
import { coveringOrder } from "./invalidations.ts";
import type { VtdNestedDomain } from "./nested-domain.ts";
import { contextEntry, firstStageEntry, type SecondStage, secondStageEntry } from "./pasid-entries.ts";
import { type Placement, setMarking } from "./placement.ts";
import type { VtdShape } from "./table-shape.ts";
import type { VtdUnit } from "./unit.ts";

export interface PagingOptions {
  readonly nestParent: boolean;
  readonly tracksDirty: boolean;
}

export class VtdPagingDomain implements PagingDomain, Stateful {
  readonly kind = "paging";
  readonly owner: VtdDriver;
  readonly table: PageTable<VtdShape>;
  readonly nestParent: boolean;
  readonly pageSizes: bigint;
  readonly aperture: { readonly start: bigint; readonly last: bigint };
  readonly forceAperture = true;
  readonly dirty?: DirtyOperations;
  readonly attachments = new AttachmentList();
  readonly ids = new DomainIds();
  /** Nested domains over this one. */
  readonly #nested: VtdNestedDomain[] = []; // not state: HWPTs, which are here when a machine is restored
  #marks = false;
  #tags: readonly CacheTag[] = []; // not state: made from attachments when they change
  #madeFrom = -1; // not state: as #tags
  #freed = false; // not state: nobody has a freed domain

  constructor(owner: VtdDriver, table: PageTable<VtdShape>, { nestParent, tracksDirty }: PagingOptions) {
    this.owner = owner;
    this.table = table;
    this.nestParent = nestParent;
    const { inputBits, largestLeaf } = table.shape;
    let sizes = 0n;
    for (let level = 0; level <= largestLeaf; level++) sizes |= 1n << BigInt(12 + 9 * level);
    this.pageSizes = sizes;
    this.aperture = { start: 0n, last: (1n << BigInt(inputBits)) - 1n };
    if (tracksDirty) {
      this.dirty = {
        setTracking: (on) => this.#track(on),
        readAndClear: (iova, size, keep, report) => this.#readDirty(iova, size, keep, report),
      };
    }
  }

  get stage(): 1 | 2 {
    return this.table.shape.stage;
  }

  /** Accesses are snooped whatever the device asks. */
  get enforcesCoherency(): boolean {
    return this.table.shape.snoops;
  }

  // --- mappings ---

  map(iova: bigint, paddr: bigint, size: bigint, prot: number): number {
    if ((iova | paddr | size) % 4096n !== 0n || size === 0n) return -EINVAL;
    if (iova + size - 1n > this.aperture.last) return -EINVAL;
    if ((prot & IOMMU_WRITE) === 0 && this.nestParent && this.owner.hasErratum("read-only-stage2")) return -EINVAL;
    const firstPage = Number(iova >> 12n);
    const pages = Number(size >> 12n);
    const result = this.table.map(firstPage, Number(paddr >> 12n), pages, prot);
    if (result === 0) this.#mapped(firstPage, pages);
    return result;
  }

  /** What was absent may be cached as such, of a second stage (CAP.CM); write buffers may hold the entry (CAP.RWBF). */
  #mapped(firstPage: number, pages: number): void {
    const tags = this.tags;
    for (let i = 0; i < tags.length; i++) {
      const { unit } = tags[i]!;
      if (tags[i + 1]?.unit === unit) continue;
      if (this.stage === 2 && unit.features.CM) {
        const own = tags.filter((tag) => tag.unit === unit && tag.type === IOTLB);
        flushRange(own, firstPage, coveringOrder(firstPage, pages), false);
      } else unit.flushWriteBuffer();
    }
  }

  unmap(iova: bigint, size: bigint): bigint {
    if ((iova | size) % 4096n !== 0n) return 0n;
    return BigInt(this.table.unmap(Number(iova >> 12n), Number(size >> 12n))) * 4096n;
  }

  sync(iova: bigint, size: bigint): void {
    const firstPage = Number(iova >> 12n);
    const pages = Number(size >> 12n);
    flushRange(this.tags, firstPage, coveringOrder(firstPage, pages), !this.table.hasTakenOut);
    this.table.sync();
  }

  iovaToPhys(iova: bigint): bigint | null {
    if (iova > this.aperture.last) return null;
    const frame = this.table.lookup(Number(iova >> 12n));
    return frame < 0 ? null : BigInt(frame) * 4096n + (iova % 4096n);
  }

  // --- dirty state ---

  /** Entries mark only while somebody wants it, those of nested domains over this one, too. */
  #track(on: boolean): number {
    if (on === this.#marks) return 0;
    this.#marks = on;
    for (const { device, pasid } of this.attachments.items) setMarking(device, pasid, on);
    for (const nested of this.#nested) {
      for (const { device, pasid } of nested.attachments.items) setMarking(device, pasid, on);
    }
    return 0;
  }

  #readDirty(iova: bigint, size: bigint, keep: boolean, report: (iova: bigint, size: bigint) => void): number {
    const firstPage = Number(iova >> 12n);
    const pages = Number(size >> 12n);
    let found = false;
    this.table.readDirty(firstPage, pages, keep, (at, count) => {
      found = true;
      report(BigInt(at) * 4096n, BigInt(count) * 4096n);
    });
    // A cached entry that is dirty would let later writes go by unmarked.
    if (found && !keep) flushRange(this.tags, firstPage, coveringOrder(firstPage, pages), true);
    return 0;
  }

  // --- invalidation ---

  /** Whom an unmap concerns. */
  get tags(): readonly CacheTag[] {
    let version = this.attachments.version + this.ids.version + this.#nested.length;
    for (const { attachments, ids } of this.#nested) version += attachments.version + ids.version;
    if (version !== this.#madeFrom) {
      this.#madeFrom = version;
      this.#tags = cacheTags(this.#concerned());
    }
    return this.#tags;
  }

  *#concerned(): Generator<CacheTag> {
    yield* tagsOf(this.attachments.items, this.ids, this.stage === 1 ? PASID_IOTLB : IOTLB, DEVICE_TLB);
    for (const { attachments, ids } of this.#nested) {
      yield* tagsOf(attachments.items, ids, IOTLB, NESTED_DEVICE_TLB);
    }
  }

  addNested(nested: VtdNestedDomain): void {
    this.#nested.push(nested);
    this.#madeFrom = -1;
  }

  removeNested(nested: VtdNestedDomain): void {
    this.#nested.splice(this.#nested.indexOf(nested), 1);
    this.#madeFrom = -1;
  }

  // --- devices ---

  /** -EINVAL for a unit that cannot walk this table (paging_domain_compatible). */
  compatibleWith(unit: VtdUnit): number {
    const { levels, inputBits, largestLeaf, snoops } = this.table.shape;
    if (snoops && !unit.features.SC) return -EINVAL;
    if (this.stage === 1) {
      if (!unit.hasFirstStage || levels > (unit.features.FS5LP ? 5 : 4)) return -EINVAL;
      return largestLeaf === 2 && !unit.features.FS1GP ? -EINVAL : 0;
    }
    if (!unit.hasSecondStage || (this.dirty !== undefined && !unit.tracksDirty)) return -EINVAL;
    if (this.nestParent && !unit.supportsNesting) return -EINVAL;
    const { SAGAW, MGAW, SSLPS } = unit.features;
    if ((SAGAW & (1 << (levels - 2))) === 0 || inputBits > MGAW + 1) return -EINVAL;
    return largestLeaf > unitLargestLeaf(SSLPS) ? -EINVAL : 0;
  }

  get secondStage(): SecondStage {
    return { root: this.table.root, levels: this.table.shape.levels, marks: this.#marks };
  }

  #placement(unit: VtdUnit, id: number): Placement {
    const { root, shape } = this.table;
    if (this.stage === 1) {
      const stage = { root, levels: shape.levels, snoops: shape.snoops };
      return { translates: true, pasidEntry: () => firstStageEntry(unit.traits, id, stage) };
    }
    return {
      translates: true,
      pasidEntry: () => secondStageEntry(unit.traits, id, this.secondStage),
      contextEntry: (ats) => contextEntry(id, this.secondStage, ats),
    };
  }

  /** -EINVAL behind a unit that cannot walk the table, -ENODEV where page requests are wanted of a device that sends none, -ENOSPC, -ENOMEM. */
  attach(device: IommuDevice, old: IommuDomain | null): number {
    return attachTo(this, device, old, {
      check: () => this.compatibleWith(deviceDataOf(device).unit),
      placement: (unit, id) => this.#placement(unit, id),
    });
  }

  /** As `attach`; -EOPNOTSUPP without PASIDs, -EINVAL for a domain that tracks dirty state. */
  setPasid(device: IommuDevice, pasid: number): number {
    return setPasidTo(this, device, pasid, {
      check: () => (this.dirty === undefined ? this.compatibleWith(deviceDataOf(device).unit) : -EINVAL),
      placement: (unit, id) => this.#placement(unit, id),
    });
  }

  left(gone: Attachment): void {
    this.ids.release(deviceDataOf(gone.device).unit, this.attachments.items);
  }

  free(): void {
    if (this.#freed) throw new Error("a paging domain is freed twice");
    if (this.attachments.items.length > 0 || this.#nested.length > 0) {
      throw new Error("a paging domain is freed while in use");
    }
    this.#freed = true;
    this.table.free();
    this.owner.pagingDomainFreed();
  }

  describe(): string {
    const { stage, levels } = this.table.shape;
    const root = `0x${(BigInt(this.table.root) << 12n).toString(16)}`;
    return `${stage === 1 ? "first" : "second"} stage, ${levels} levels, root=${root}`;
  }

  saveState(): StateRecord {
    return { marks: this.#marks };
  }

  restoreState(state: StateReader): void {
    this.#marks = state.boolean("marks");
    this.#madeFrom = -1;
  }

  *stateParts(): Generator<readonly [string, Stateful]> {
    yield ["table", this.table];
    yield ["attachments", this.attachments];
    yield ["domain ids", this.ids];
  }
}

/** Level of the largest leaves of a second stage by SSLPS. */
export function unitLargestLeaf(sslps: number): 0 | 1 | 2 {
  return (sslps & 1) === 0 ? 0 : (sslps & 2) === 0 ? 1 : 2;
}
