// Paging domains: a stage 1 (kernel, plain HWPTs, PASIDs, dirty tracking) or a stage 2 (NEST_PARENT, or where there is no stage 1), each one page
// table with one tag, for one SMMU (Linux: struct arm_smmu_domain).
//
//     map                 no command: what is not valid is never cached
//     unmap, then sync    by the list of whom it concerns (invalidation-list.ts): TLBI under the ASID or VMID; under a nest parent, after that,
//                         what guests' first stages made; then the devices that may hold translations; then tables are freed

import { ADDRESS_BITS } from "../../../arch/smmuv3/identification.ts";
import type { Stateful, StateReader, StateRecord } from "../../../base/state.ts";
import { EINVAL } from "../../../uapi/errno.ts";
import { type Attachment, AttachmentList } from "../attachments.ts";
import { type DirtyOperations, IOMMU_WRITE, type IommuDevice, type PagingDomain } from "../driver.ts";
import type { PageTable } from "../page-table.ts";
import { contextDescriptor } from "./context-descriptors.ts";
import { deviceDataOf } from "./device-data.ts";
import type { Smmuv3Driver } from "./driver.ts";
import type { Entry } from "./entry-writer.ts";
import type { Smmuv3Instance } from "./instance.ts";
import {
  ATS,
  ATS_FULL,
  type CountedInvalidation,
  endsBatch,
  type Invalidation,
  invalidationList,
  S1_ASID,
  S2_VMID,
  S2_VMID_S1_CLEAR,
} from "./invalidation-list.ts";
import {
  dropAsid,
  dropDevice,
  dropDevicePasids,
  dropDeviceRange,
  dropFirstStage,
  dropNested,
  dropSecondStage,
  dropVmid,
  isTooMuch,
  type Unmapped,
} from "./invalidations.ts";
import { secondStageEntry } from "./stream-entries.ts";
import { attachFirstStage, attachPasid, attachWholeStream, substreamOf } from "./stream-switch.ts";
import type { Vmsav8Shape } from "./table-shape.ts";

/** TG0 and S2TG of a granule. */
const TG = { 12: 0, 14: 2, 16: 1 } as const;

export class Smmuv3PagingDomain implements PagingDomain, Stateful {
  readonly kind = "paging";
  readonly owner: Smmuv3Driver;
  readonly smmu: Smmuv3Instance;
  readonly table: PageTable<Vmsav8Shape>;
  readonly nestParent: boolean;
  readonly pageSizes: bigint;
  readonly aperture: { readonly start: bigint; readonly last: bigint };
  readonly forceAperture = true;
  readonly enforcesCoherency = false;
  readonly dirty?: DirtyOperations;
  /** ASID of a stage 1, VMID of a stage 2. */
  tag: number;
  readonly attachments = new AttachmentList();
  /** What is attached to nested domains over this parent, a list a vIOMMU. */
  readonly #nested: AttachmentList[] = []; // not state: vIOMMUs, which are here when a machine is restored
  #concerned: readonly CountedInvalidation[] = []; // not state: made from attachments when they change
  #madeFrom = -1; // not state: as #concerned
  readonly #unmapped: Unmapped; // not state: within a call
  #freed = false; // not state: nobody has a freed domain

  constructor(
    owner: Smmuv3Driver,
    smmu: Smmuv3Instance,
    table: PageTable<Vmsav8Shape>,
    tag: number,
    nestParent: boolean,
  ) {
    this.owner = owner;
    this.smmu = smmu;
    this.table = table;
    this.tag = tag;
    this.nestParent = nestParent;
    const { granule, inputBits, largestLeaf, stride, tracksDirty } = table.shape;
    let sizes = 0n;
    for (let level = 0; level <= largestLeaf; level++) sizes |= 1n << BigInt(granule + stride * level);
    this.pageSizes = sizes;
    this.aperture = { start: 0n, last: (1n << BigInt(inputBits)) - 1n };
    this.#unmapped = { firstPage: 0, pages: 0, granule, leaf: 0 };
    if (tracksDirty) {
      this.dirty = {
        // The hardware always marks; iommufd forgets what was marked before it turns tracking on.
        setTracking: () => 0,
        readAndClear: (iova, size, keep, report) => this.#readDirty(iova, size, keep, report),
      };
    }
  }

  get stage(): 1 | 2 {
    return this.table.shape.stage;
  }

  // --- mappings ---

  map(iova: bigint, paddr: bigint, size: bigint, prot: number): number {
    const granule = 1n << BigInt(this.table.shape.granule);
    if ((iova | paddr | size) % granule !== 0n || size === 0n) return -EINVAL;
    if (iova + size - 1n > this.aperture.last) return -EINVAL;
    if (this.nestParent && (prot & IOMMU_WRITE) === 0 && this.owner.hasErratum("read-only-stage2")) return -EINVAL;
    return this.table.map(Number(iova >> 12n), Number(paddr >> 12n), Number(size >> 12n), prot);
  }

  unmap(iova: bigint, size: bigint): bigint {
    if ((iova | size) % (1n << BigInt(this.table.shape.granule)) !== 0n) return 0n;
    return BigInt(this.table.unmap(Number(iova >> 12n), Number(size >> 12n))) * 4096n;
  }

  sync(iova: bigint, size: bigint): void {
    const { clearedLevels, hasTakenOut, shape } = this.table;
    const firstPage = Number(iova >> 12n);
    const pages = Number(size >> 12n);
    // Leaves of one size, and the range made of such: their level can be said.
    let leaf = 0;
    if (!hasTakenOut && clearedLevels !== 0 && (clearedLevels & (clearedLevels - 1)) === 0) {
      leaf = shape.granule + shape.stride * (31 - Math.clz32(clearedLevels));
      const span = 2 ** (leaf - 12);
      if (firstPage % span !== 0 || pages % span !== 0) leaf = 0;
    }
    this.#invalidate(firstPage, pages, leaf);
    this.table.sync();
  }

  iovaToPhys(iova: bigint): bigint | null {
    if (iova > this.aperture.last) return null;
    const frame = this.table.lookup(Number(iova >> 12n));
    return frame < 0 ? null : BigInt(frame) * 4096n + (iova % 4096n);
  }

  #readDirty(iova: bigint, size: bigint, keep: boolean, report: (iova: bigint, size: bigint) => void): number {
    const first = Number(iova >> 12n);
    const pages = Number(size >> 12n);
    let found = false;
    this.table.readDirty(first, pages, keep, (at, count) => {
      found = true;
      report(BigInt(at) * 4096n, BigInt(count) * 4096n);
    });
    // A cached entry that is writable would let later writes go by unmarked.
    if (found && !keep) this.#invalidate(first, pages, 0);
    return 0;
  }

  // --- invalidation (arm_smmu_domain_inv_range) ---

  #invalidate(firstPage: number, pages: number, leaf: number): void {
    const { queue, features, el2 } = this.smmu;
    const unmapped = this.#unmapped;
    unmapped.firstPage = firstPage;
    unmapped.pages = pages;
    unmapped.leaf = leaf;
    const list = this.invalidations;
    for (let i = 0; i < list.length; i++) {
      const { type, id, substream, device } = list[i]!;
      switch (type) {
        case S1_ASID:
          dropFirstStage(queue, id, el2, unmapped, features.RIL);
          break;
        case S2_VMID:
          dropSecondStage(queue, id, unmapped, features.RIL);
          break;
        case S2_VMID_S1_CLEAR:
          // S12_VMALL has done it.
          if (!isTooMuch(unmapped, features.RIL)) dropNested(queue, id);
          break;
        case ATS:
          if (deviceDataOf(device!).ats) dropDeviceRange(queue, id, substream, firstPage, pages);
          break;
        case ATS_FULL:
          if (!deviceDataOf(device!).ats) break;
          dropDevice(queue, id, 0);
          // A guest's PASIDs are not known (Linux leaves this out: by its reading a request without PASID means them all).
          if (device!.maxPasids > 0) dropDevicePasids(queue, id);
          break;
      }
      const next = list[i + 1];
      if (next === undefined || endsBatch(list[i]!, next)) queue.sync();
    }
  }

  /** Whom an unmap concerns. */
  get invalidations(): readonly CountedInvalidation[] {
    let version = this.attachments.version + this.#nested.length;
    for (const list of this.#nested) version += list.version;
    if (version !== this.#madeFrom) {
      this.#madeFrom = version;
      this.#concerned = invalidationList(this.#concerns());
    }
    return this.#concerned;
  }

  *#concerns(): Generator<Invalidation> {
    for (const { device, pasid } of this.attachments.items) {
      yield { type: this.stage === 1 ? S1_ASID : S2_VMID, id: this.tag, substream: 0, device: null };
      if (this.nestParent) yield { type: S2_VMID_S1_CLEAR, id: this.tag, substream: 0, device: null };
      const type = this.nestParent ? ATS_FULL : ATS;
      const substream = this.nestParent ? 0 : substreamOf(pasid);
      if (device.hasAts) yield { type, id: this.smmu.streamOf(device), substream, device };
    }
    for (const list of this.#nested) {
      for (const { device } of list.items) {
        yield { type: S2_VMID, id: this.tag, substream: 0, device: null };
        yield { type: S2_VMID_S1_CLEAR, id: this.tag, substream: 0, device: null };
        if (device.hasAts) yield { type: ATS_FULL, id: this.smmu.streamOf(device), substream: 0, device };
      }
    }
  }

  /** A vIOMMU over this parent begins or ends: its nested domains' translations are made of this table. */
  addNested(list: AttachmentList): void {
    this.#nested.push(list);
    this.#madeFrom = -1;
  }

  removeNested(list: AttachmentList): void {
    this.#nested.splice(this.#nested.indexOf(list), 1);
    this.#madeFrom = -1;
  }

  /**
   * A place has left this domain or a nested one over it. The last one leaves nothing under the tag: an unmap would no longer reach it.
   */
  left(_gone?: Attachment): void {
    if (this.attachments.items.length > 0 || this.#nested.some(({ items }) => items.length > 0)) return;
    const { queue, el2 } = this.smmu;
    if (this.stage === 1) dropAsid(queue, this.tag, el2);
    else dropVmid(queue, this.tag);
    queue.sync();
  }

  // --- devices ---

  /** The stream table entry that puts a device on this second stage alone. */
  secondStageEntry(device: IommuDevice, ats: boolean): Entry {
    const { shape, root } = this.table;
    const { granule, startLevel, inputBits } = shape;
    return secondStageEntry(
      {
        S2VMID: this.tag,
        S2T0SZ: 64 - inputBits,
        S2SL0: granule === 12 ? 2 - startLevel : 3 - startLevel,
        S2TG: TG[granule],
        S2PS: ADDRESS_BITS.indexOf(shape.physicalBits),
        S2TTB: BigInt(root) << 12n,
        S2FWB: shape.forcedWriteBack,
      },
      deviceDataOf(device).traits,
      ats,
    );
  }

  /** The context descriptor of this first stage. */
  #descriptor(device: IommuDevice): Entry {
    const { shape, root } = this.table;
    return contextDescriptor(
      {
        ASID: this.tag,
        T0SZ: 64 - shape.inputBits,
        TG0: TG[shape.granule],
        IPS: ADDRESS_BITS.indexOf(shape.physicalBits),
        TTB0: BigInt(root) << 12n,
        marks: shape.tracksDirty,
      },
      deviceDataOf(device).traits.stalls,
    );
  }

  /** -EINVAL behind another SMMU, -EBUSY for a second stage while PASIDs have domains, -ENOMEM. */
  attach(device: IommuDevice): number {
    if (deviceDataOf(device).smmu !== this.smmu) return -EINVAL;
    if (this.stage === 1) return attachFirstStage(device, this.#descriptor(device), this.owner.newContextTable);
    return attachWholeStream(device, { ats: true, entry: (ats) => this.secondStageEntry(device, ats) });
  }

  /** -EINVAL behind another SMMU, for a second stage, or where the requester id is on one or on a nested domain. */
  setPasid(device: IommuDevice, pasid: number): number {
    if (deviceDataOf(device).smmu !== this.smmu || this.stage !== 1) return -EINVAL;
    return attachPasid(device, pasid, this.#descriptor(device), this.owner.newContextTable);
  }

  free(): void {
    if (this.#freed) throw new Error("a paging domain is freed twice");
    if (this.attachments.items.length > 0 || this.#nested.length > 0)
      throw new Error("a paging domain is freed while in use");
    this.#freed = true;
    this.table.free();
    this.owner.pagingDomainFreed(this);
  }

  describe(): string {
    const { granule, inputBits } = this.table.shape;
    const root = `0x${(BigInt(this.table.root) << 12n).toString(16)}`;
    const tag = this.stage === 1 ? `ASID=${this.tag}` : `VMID=${this.tag}`;
    return `stage ${this.stage}, ${1 << (granule - 10)} KiB, ${inputBits} bits, root=${root} ${tag}`;
  }

  saveState(): StateRecord {
    return { tag: this.tag };
  }

  restoreState(state: StateReader): void {
    this.tag = state.number("tag");
    this.#madeFrom = -1;
  }

  *stateParts(): Generator<readonly [string, Stateful]> {
    yield ["table", this.table];
    yield ["attachments", this.attachments];
  }
}
