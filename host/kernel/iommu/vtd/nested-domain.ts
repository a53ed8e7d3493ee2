// Nested domains: a guest's first stage over a parent's second stage, as HWPT_ALLOC gave it (Linux: nested.c). The tables that it leads to stay in guest
// memory; the hardware fetches them through the second stage. There is no vIOMMU object: a nested domain stands on its parent, and its invalidations name
// addresses, not commands.
//
// What HWPT_ALLOC was given is looked at when the domain is attached: what is too wide for one unit may do for another.

import type { Stateful, StateReader, StateRecord } from "../../../base/state.ts";
import { EINVAL, EOPNOTSUPP } from "../../../uapi/errno.ts";
import {
  IOMMU_HWPT_INVALIDATE_DATA_VTD_S1,
  IOMMU_VTD_INV_FLAGS_LEAF,
  IOMMU_VTD_S1_EAFE,
  IOMMU_VTD_S1_SRE,
  IOMMU_VTD_S1_WPE,
  iommuHwptVtdS1Invalidate,
} from "../../../uapi/vtd-nesting.ts";
import { type Attachment, AttachmentList } from "../attachments.ts";
import type { InvalidationBatch, IommuDevice, IommuDomain, NestedDomain } from "../driver.ts";
import { type Attaching, attachTo, setPasidTo } from "./attach.ts";
import { type CacheTag, cacheTags, DEVICE_TLB, flushRange, PASID_IOTLB, tagsOf } from "./cache-tags.ts";
import { deviceDataOf } from "./device-data.ts";
import { DomainIds } from "./domain-ids.ts";
import type { VtdDriver } from "./driver.ts";
import { coveringOrder, EVERYTHING } from "./invalidations.ts";
import type { VtdPagingDomain } from "./paging-domain.ts";
import { nestedEntry } from "./pasid-entries.ts";

/** iommu_hwpt_vtd_s1. */
export interface GuestFirstStage {
  readonly flags: bigint;
  readonly pgtbl_addr: bigint;
  readonly addr_width: number;
}

const FOUR_LEVELS = 48;
const FIVE_LEVELS = 57;
const U32 = 2 ** 32;

export class VtdNestedDomain implements NestedDomain, Stateful {
  readonly kind = "nested";
  readonly owner: VtdDriver;
  readonly parent: VtdPagingDomain;
  readonly attachments = new AttachmentList();
  readonly ids = new DomainIds();
  #guest: GuestFirstStage;
  #tags: readonly CacheTag[] = []; // not state: made from attachments when they change
  #madeFrom = -1; // not state: as #tags

  constructor(owner: VtdDriver, parent: VtdPagingDomain, guest: GuestFirstStage) {
    this.owner = owner;
    this.parent = parent;
    this.#guest = guest;
    parent.addNested(this);
  }

  #has(flag: number): boolean {
    return (this.#guest.flags & BigInt(flag)) !== 0n;
  }

  /** What intel_pasid_setup_nested refuses: a width or a flag that the unit does not have. Flags that there are not are let by. */
  #check(device: IommuDevice): number {
    const { unit } = deviceDataOf(device);
    const compatible = this.parent.compatibleWith(unit);
    if (compatible < 0) return compatible;
    const { FS5LP, SRS, EAFS } = unit.features;
    const { addr_width: width } = this.#guest;
    if (width !== FOUR_LEVELS && !(width === FIVE_LEVELS && FS5LP)) return -EINVAL;
    if (this.#has(IOMMU_VTD_S1_SRE) && !SRS) return -EINVAL;
    return this.#has(IOMMU_VTD_S1_EAFE) && !EAFS ? -EINVAL : 0;
  }

  #attaching(device: IommuDevice): Attaching {
    const guest = {
      table: this.#guest.pgtbl_addr,
      fiveLevels: this.#guest.addr_width === FIVE_LEVELS,
      supervisor: this.#has(IOMMU_VTD_S1_SRE),
      writeProtect: this.#has(IOMMU_VTD_S1_WPE),
      extendedAccess: this.#has(IOMMU_VTD_S1_EAFE),
      snoops: this.parent.enforcesCoherency,
    };
    return {
      check: () => this.#check(device),
      placement: (unit, id) => ({
        translates: true,
        pasidEntry: () => nestedEntry(unit.traits, id, guest, this.parent.secondStage),
      }),
    };
  }

  /**
   * DMA is blocked before anything else, also if this is refused then (intel_nested_attach_dev): -EINVAL for what the unit does not have, -ENODEV where
   * page requests are wanted of a device that sends none, -ENOSPC, -ENOMEM.
   */
  attach(device: IommuDevice, old: IommuDomain | null): number {
    return attachTo(this, device, old, { ...this.#attaching(device), blocksFirst: true });
  }

  setPasid(device: IommuDevice, pasid: number): number {
    return setPasidTo(this, device, pasid, this.#attaching(device));
  }

  get #concerned(): readonly CacheTag[] {
    const version = this.attachments.version + this.ids.version;
    if (version !== this.#madeFrom) {
      this.#madeFrom = version;
      this.#tags = cacheTags(tagsOf(this.attachments.items, this.ids, PASID_IOTLB, DEVICE_TLB));
    }
    return this.#tags;
  }

  /**
   * intel_nested_cache_invalidate_user: -EINVAL for another type; an entry is refused with -EOPNOTSUPP for flags and reserved fields, with -EINVAL for an
   * address that is none of a page's and for everything from another address than 0 on. Those before it have taken effect.
   */
  invalidate(batch: InvalidationBatch): number {
    if (batch.type !== IOMMU_HWPT_INVALIDATE_DATA_VTD_S1) return -EINVAL;
    const { bytes } = iommuHwptVtdS1Invalidate;
    if (batch.count > 0 && batch.entryLength !== bytes) return -EINVAL;
    while (batch.done < batch.count) {
      const loaded = batch.load(batch.done, bytes);
      if (loaded < 0) return loaded;
      for (let entry = 0; entry < loaded; entry++) {
        const refused = this.#invalidateEntry(batch.words, entry * (bytes / 4));
        if (refused < 0) return refused;
        batch.done++;
      }
    }
    return 0;
  }

  /** addr, npages, flags and __reserved as six halves. */
  #invalidateEntry(words: Int32Array, at: number): number {
    const low = words[at]! >>> 0;
    const high = words[at + 1]! >>> 0;
    const pagesLow = words[at + 2]! >>> 0;
    const pagesHigh = words[at + 3]! >>> 0;
    const flags = words[at + 4]!;
    if ((flags & ~IOMMU_VTD_INV_FLAGS_LEAF) !== 0 || words[at + 5] !== 0) return -EOPNOTSUPP;
    const everything = pagesLow === 0xffffffff && pagesHigh === 0xffffffff;
    if ((low & 4095) !== 0 || (everything && (low | high) !== 0)) return -EINVAL;
    const firstPage = high * 2 ** 20 + (low >>> 12);
    const pages = pagesHigh * U32 + pagesLow;
    // A range that leaves the address space is all of it; one without pages wraps around in Linux, and is all of it, too.
    const order =
      everything || pages === 0 || firstPage + pages > 2 ** EVERYTHING ? EVERYTHING : coveringOrder(firstPage, pages);
    flushRange(this.#concerned, firstPage, order, (flags & IOMMU_VTD_INV_FLAGS_LEAF) !== 0);
    return 0;
  }

  left(gone: Attachment): void {
    this.ids.release(deviceDataOf(gone.device).unit, this.attachments.items);
  }

  free(): void {
    if (this.attachments.items.length > 0) throw new Error("a nested domain is freed in use");
    this.parent.removeNested(this);
    this.owner.nestedDomainFreed();
  }

  describe(): string {
    const { pgtbl_addr: table, addr_width: width } = this.#guest;
    return `guest's first stage at GPA 0x${table.toString(16)}, ${width} bits, over ${this.parent.describe()}`;
  }

  saveState(): StateRecord {
    const { flags, pgtbl_addr, addr_width } = this.#guest;
    return { flags, pgtbl_addr, addr_width };
  }

  restoreState(state: StateReader): void {
    this.#guest = {
      flags: state.bigint("flags"),
      pgtbl_addr: state.bigint("pgtbl_addr"),
      addr_width: state.number("addr_width"),
    };
    this.#madeFrom = -1;
  }

  *stateParts(): Generator<readonly [string, Stateful]> {
    yield ["attachments", this.attachments];
    yield ["domain ids", this.ids];
  }
}
