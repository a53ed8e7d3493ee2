// Paging domains: a first stage (what the kernel and plain HWPTs use, as in Linux) or a second stage (NEST_PARENT), each one page
// table with one tag, usable with every RISC-V IOMMU of the host that has its mode.
//
//     map                 entries only: what is not valid is never cached (§3.8)
//     unmap, then sync    first stage: IOTINVAL.VMA under the PSCID; second stage: IOTINVAL.GVMA under its own GSCID and under that
//                         of every vIOMMU on it, and ATS.INVAL to devices that may hold translations; then tables are freed
//
// Short ranges are invalidated leaf by leaf, longer ones by tag.

import { encodeCommand, OPCODE_IOTINVAL } from "../../../arch/riscv/commands.ts";
import { TC_GADE, TC_SADE, TC_V } from "../../../arch/riscv/device-context.ts";
import type { Stateful, StateReader, StateRecord } from "../../../base/state.ts";
import { EINVAL } from "../../../uapi/errno.ts";
import { type Attachment, AttachmentList } from "../attachments.ts";
import { type DirtyOperations, IOMMU_WRITE, type IommuDevice, type PagingDomain } from "../driver.ts";
import type { PageTable } from "../page-table.ts";
import type { CommandQueue } from "./command-queue.ts";
import type { Context } from "./context-switch.ts";
import { deviceDataOf, moveDevice, movePasid, pageRequestBits, type RiscvDomain } from "./device-data.ts";
import { forgetTranslations } from "./device-translations.ts";
import type { RiscvDriver } from "./driver.ts";
import type { RiscvIommu } from "./instance.ts";
import type { ProcessContext } from "./process-directory.ts";
import type { RiscvTableShape } from "./table-shape.ts";

// The first words of IOTINVAL.VMA and IOTINVAL.GVMA (§4.1.1): opcode, func3, AV 10, PSCID 31:12; PSCV 32, GV 33, GSCID 59:44.
const VMA = OPCODE_IOTINVAL;
const GVMA = OPCODE_IOTINVAL | (1 << 7);
const IOTINVAL_AV = 1 << 10;
const IOTINVAL_PSCV = 1 << 0;
const IOTINVAL_GV = 1 << 1;

/** Leaves invalidated one by one; past it the whole tag. */
const SINGLE_INVALIDATIONS = 32;

/** Something that caches translations of a second stage under a tag of its own: a vIOMMU. */
export interface TagUser {
  readonly gscid: number;
  readonly iommu: RiscvIommu;
  /** What translates under the tag, all behind `iommu`. */
  readonly attachments: AttachmentList;
  /** Users are invalidated in the order of their places. */
  place: number;
}

export class RiscvPagingDomain implements PagingDomain, RiscvDomain, Stateful {
  readonly kind = "paging";
  readonly owner: RiscvDriver;
  readonly table: PageTable<RiscvTableShape>;
  readonly nestParent: boolean;
  readonly pageSizes: bigint;
  readonly aperture: { readonly start: bigint; readonly last: bigint };
  readonly forceAperture = true;
  readonly enforcesCoherency = false;
  readonly dirty?: DirtyOperations;
  /** PSCID of a first stage, GSCID of a second one. */
  tag: number;
  /** iosatp or iohgatp mode. */
  readonly mode: number;
  /** Allocated for use at PASIDs, and next to them. */
  readonly pasidCompatible: boolean;
  readonly attachments = new AttachmentList();
  readonly #tagUsers: TagUser[] = []; // not state: vIOMMUs, which know their places
  #freed = false; // not state: nobody has a freed domain

  constructor(
    owner: RiscvDriver,
    table: PageTable<RiscvTableShape>,
    mode: number,
    tag: number,
    pasidCompatible: boolean,
  ) {
    this.owner = owner;
    this.pasidCompatible = pasidCompatible;
    this.table = table;
    this.mode = mode;
    this.tag = tag;
    this.nestParent = table.shape.secondStage;
    this.pageSizes = 0x1000n | 0x20_0000n | 0x4000_0000n | (table.shape.levels > 3 ? 0x80_0000_0000n : 0n);
    // A first stage's upper half (sign-extended addresses) is left unused, as Linux does.
    const pages = this.nestParent ? table.inputPages : table.inputPages / 2;
    this.aperture = { start: 0n, last: BigInt(pages) * 4096n - 1n };
    if (table.shape.tracksDirty) {
      this.dirty = {
        // Hardware always marks; tracking on or off changes nothing but who looks.
        setTracking: () => 0,
        readAndClear: (iova, size, keep, report) => this.#readDirty(iova, size, keep, report),
      };
    }
  }

  // --- mappings ---

  map(iova: bigint, paddr: bigint, size: bigint, prot: number): number {
    if ((iova | paddr | size) % 4096n !== 0n || size === 0n) return -EINVAL;
    if (iova + size - 1n > this.aperture.last) return -EINVAL;
    if (this.nestParent && (prot & IOMMU_WRITE) === 0 && this.owner.hasErratum("read-only-stage2")) return -EINVAL;
    return this.table.map(Number(iova >> 12n), Number(paddr >> 12n), Number(size >> 12n), prot);
  }

  unmap(iova: bigint, size: bigint): bigint {
    if ((iova | size) % 4096n !== 0n) return 0n;
    return BigInt(this.table.unmap(Number(iova >> 12n), Number(size >> 12n))) * 4096n;
  }

  sync(iova: bigint, size: bigint): void {
    this.#invalidate(Number(iova >> 12n), Number(size >> 12n));
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
    // A cached entry with D set would let later writes go by unmarked.
    if (found && !keep) this.#invalidate(first, pages);
    return 0;
  }

  // --- invalidation ---

  #invalidate(first: number, pages: number): void {
    const single = pages <= SINGLE_INVALIDATIONS && !this.table.hasTakenOut;
    const { items } = this.attachments;
    for (let i = 0; i < items.length; ) {
      const iommu = items[i]!.instance as RiscvIommu;
      this.#pushInvalidation(iommu.queue, this.tag, first, pages, single);
      i = pushDeviceInvalidations(iommu, items, i);
      iommu.queue.fence();
    }
    for (let i = 0; i < this.#tagUsers.length; i++) {
      const { iommu, gscid, attachments } = this.#tagUsers[i]!;
      this.#pushInvalidation(iommu.queue, gscid, first, pages, single);
      pushDeviceInvalidations(iommu, attachments.items, 0);
      iommu.queue.fence();
    }
  }

  #pushInvalidation(queue: CommandQueue, tag: number, first: number, pages: number, single: boolean): void {
    const w0 = this.nestParent ? GVMA : VMA | (tag << 12);
    const w1 = this.nestParent ? IOTINVAL_GV | (tag << 12) : IOTINVAL_PSCV;
    if (!single) {
      queue.pushHalves(w0, w1, 0, 0);
      return;
    }
    for (let i = 0; i < pages; i++) {
      // ADDR: the frame number from bit 10 on.
      const frame = first + i;
      queue.pushHalves(w0 | IOTINVAL_AV, w1, frame << 10, Math.floor(frame / 2 ** 22));
    }
  }

  /** A vIOMMU on this parent begins or ends caching under its own GSCID. */
  addTagUser(user: TagUser): void {
    user.place = (this.#tagUsers[this.#tagUsers.length - 1]?.place ?? -1) + 1;
    this.#tagUsers.push(user);
  }

  removeTagUser(user: TagUser): void {
    this.#tagUsers.splice(this.#tagUsers.indexOf(user), 1);
  }

  // --- devices ---

  /** The device context that makes a device use this domain. */
  contextFor(device: IommuDevice): Context {
    const dirty = this.table.shape.tracksDirty ? (this.nestParent ? TC_GADE : TC_SADE) : 0;
    const tc = BigInt(TC_V | pageRequestBits(device) | dirty);
    const root = (BigInt(this.mode) << 60n) | BigInt(this.table.root);
    if (this.nestParent) return [tc, this.secondStage(this.tag), 0n, 0n];
    return [tc, 0n, BigInt(this.tag) << 12n, root];
  }

  /** iohgatp with this second stage under `gscid`. */
  secondStage(gscid: number): bigint {
    return (BigInt(this.mode) << 60n) | (BigInt(gscid) << 44n) | BigInt(this.table.root);
  }

  /** tc bits that the host needs under this second stage. */
  get hostBits(): number {
    return this.table.shape.tracksDirty ? TC_GADE : 0;
  }

  /** -EINVAL if the device's IOMMU lacks this table's mode, its physical address width, or dirty tracking. */
  compatibleWith(iommu: RiscvIommu): number {
    const { Sv39, Sv48, Sv57, Sv39x4, Sv48x4, Sv57x4, AMO_HWAD, PAS } = iommu.capabilities;
    const modes = this.nestParent ? [Sv39x4, Sv48x4, Sv57x4] : [Sv39, Sv48, Sv57];
    if (modes[this.mode - 8] !== true || PAS < this.table.shape.physicalBits) return -EINVAL;
    return this.table.shape.tracksDirty && !AMO_HWAD ? -EINVAL : 0;
  }

  attach(device: IommuDevice): number {
    const compatible = this.compatibleWith(deviceDataOf(device).iommu);
    if (compatible < 0) return compatible;
    return moveDevice(device, this);
  }

  /** At a PASID of the device (iommu_domain_ops.set_dev_pasid). */
  setPasid(device: IommuDevice, pasid: number): number {
    const compatible = this.compatibleWith(deviceDataOf(device).iommu);
    if (compatible < 0) return compatible;
    return movePasid(device, pasid, this, () => this.owner.newProcessDirectory(device));
  }

  get tracksDirty(): boolean {
    return this.table.shape.tracksDirty;
  }

  /** A second stage is the device's as a whole: it cannot stand in a process directory. */
  get processContext(): (() => ProcessContext) | null {
    if (!this.pasidCompatible) return null;
    return () => [BigInt(this.tag) << 12n, (BigInt(this.mode) << 60n) | BigInt(this.table.root)];
  }

  /** The last one behind an IOMMU leaves nothing under the tag there: an unmap would no longer reach it. */
  left({ instance }: Attachment): void {
    if (!this.attachments.items.some((other) => other.instance === instance)) {
      this.#flush(instance as RiscvIommu, this.tag);
    }
  }

  /** Drops everything cached under a tag. */
  #flush(iommu: RiscvIommu, tag: number): void {
    if (this.nestParent) {
      iommu.queue.push(encodeCommand("IOTINVAL.VMA", { GV: 1, GSCID: tag }));
      iommu.queue.push(encodeCommand("IOTINVAL.GVMA", { GV: 1, GSCID: tag }));
    } else {
      iommu.queue.push(encodeCommand("IOTINVAL.VMA", { PSCV: 1, PSCID: tag }));
    }
    iommu.queue.fence();
  }

  free(): void {
    if (this.#freed) throw new Error("a paging domain is freed twice");
    if (this.attachments.items.length > 0 || this.#tagUsers.length > 0)
      throw new Error("a paging domain is freed while in use");
    this.#freed = true;
    this.table.free();
    this.owner.pagingDomainFreed(this);
  }

  describe(): string {
    const name = ["Sv39", "Sv48", "Sv57"][this.mode - 8];
    const root = `0x${(BigInt(this.table.root) << 12n).toString(16)}`;
    return this.nestParent ? `${name}x4 root=${root} GSCID=${this.tag}` : `${name} root=${root} PSCID=${this.tag}`;
  }

  /** A user of the tag has taken a place of a state document's. */
  orderTagUsers(): void {
    this.#tagUsers.sort((a, b) => a.place - b.place);
  }

  /** The tag's users are vIOMMUs, whose places are their own state. */
  saveState(): StateRecord {
    return { tag: this.tag, pasidCompatible: this.pasidCompatible };
  }

  restoreState(state: StateReader): void {
    if (state.boolean("pasidCompatible") !== this.pasidCompatible) state.fail("pasidCompatible", "is not so here");
    this.tag = state.number("tag");
  }

  *stateParts(): Generator<readonly [string, Stateful]> {
    yield ["table", this.table];
    yield ["attachments", this.attachments];
  }
}

/**
 * From `items[from]` on, those behind `iommu`: devices that keep translations of their own forget all of them (what they hold is keyed
 * by their IOVAs, not by ours). Returns the index after them.
 */
function pushDeviceInvalidations(iommu: RiscvIommu, items: readonly Attachment[], from: number): number {
  let at = from;
  let told: IommuDevice | null = null;
  for (; at < items.length && items[at]!.instance === iommu; at++) {
    const { device } = items[at]!;
    if (device !== told && iommu.mayHoldTranslations(device)) forgetTranslations(iommu.queue, device);
    told = device;
  }
  return at;
}
