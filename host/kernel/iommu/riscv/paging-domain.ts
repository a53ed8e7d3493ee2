// Paging domains: a first stage (what the kernel and plain HWPTs use, as in Linux) or a second stage (NEST_PARENT), each one page
// table with one tag, usable with every RISC-V IOMMU of the host that has its mode.
//
//     map                 entries only: what is not valid is never cached (§3.8)
//     unmap, then sync    first stage: IOTINVAL.VMA under the PSCID; second stage: IOTINVAL.GVMA under its own GSCID and under that
//                         of every vIOMMU on it, and ATS.INVAL to devices that may hold translations; then tables are freed
//
// Short ranges are invalidated leaf by leaf, longer ones by tag.

import { encodeCommand } from "../../../arch/riscv/commands.ts";
import { TC_EN_ATS, TC_EN_PRI, TC_GADE, TC_SADE, TC_V } from "../../../arch/riscv/device-context.ts";
import { addressOf, type IovaPfn } from "../../../base/address.ts";
import { EINVAL } from "../../../uapi/errno.ts";
import { type DirtyOperations, IOMMU_WRITE, type IommuDevice, type IommuDomain, type PagingDomain } from "../driver.ts";
import type { Context } from "./context-switch.ts";
import { type DeviceData, deviceDataOf, moveDevice, movePasid, type RiscvDomain } from "./device-data.ts";
import { forgetTranslations } from "./device-translations.ts";
import type { RiscvDriver } from "./driver.ts";
import type { RiscvIommu } from "./instance.ts";
import type { PageTable } from "./page-table.ts";
import type { ProcessContext } from "./process-directory.ts";

/** Leaves invalidated one by one; past it the whole tag. */
const SINGLE_INVALIDATIONS = 32;

/** Something that caches translations of a second stage under a tag of its own: a vIOMMU. */
export interface TagUser {
  readonly gscid: number;
  readonly iommu: RiscvIommu;
  /** Devices that translate under the tag. */
  readonly devices: ReadonlySet<IommuDevice>;
}

export class RiscvPagingDomain implements PagingDomain, RiscvDomain {
  readonly kind = "paging";
  readonly owner: RiscvDriver;
  readonly table: PageTable;
  readonly nestParent: boolean;
  readonly pageSizes: bigint;
  readonly aperture: { readonly start: bigint; readonly last: bigint };
  readonly forceAperture = true;
  readonly enforcesCoherency = false;
  readonly dirty?: DirtyOperations;
  /** PSCID of a first stage, GSCID of a second one. */
  readonly tag: number;
  /** iosatp or iohgatp mode. */
  readonly mode: number;
  /** Allocated for use at PASIDs, and next to them. */
  readonly pasidCompatible: boolean;
  /** Attachments of each device (requester id and PASIDs), per IOMMU. */
  readonly #users = new Map<RiscvIommu, Map<IommuDevice, number>>();
  readonly #tagUsers = new Set<TagUser>();
  #freed = false;

  constructor(owner: RiscvDriver, table: PageTable, mode: number, tag: number, pasidCompatible: boolean) {
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
    for (const [iommu, devices] of this.#users) {
      if (devices.size === 0) continue;
      this.#pushInvalidation(iommu, this.tag, first, pages, single);
      this.#pushDeviceInvalidations(iommu, devices.keys());
      iommu.queue.fence();
    }
    for (const { iommu, gscid, devices } of this.#tagUsers) {
      this.#pushInvalidation(iommu, gscid, first, pages, single);
      this.#pushDeviceInvalidations(iommu, devices);
      iommu.queue.fence();
    }
  }

  #pushInvalidation(iommu: RiscvIommu, tag: number, first: number, pages: number, single: boolean): void {
    const name = this.nestParent ? "IOTINVAL.GVMA" : "IOTINVAL.VMA";
    const scope = this.nestParent ? { GV: 1, GSCID: tag } : { PSCV: 1, PSCID: tag };
    if (!single) {
      iommu.queue.push(encodeCommand(name, scope));
      return;
    }
    for (let i = 0; i < pages; i++) {
      iommu.queue.push(encodeCommand(name, { ...scope, AV: 1, ADDR: addressOf((first + i) as IovaPfn) >> 12n }));
    }
  }

  /** Devices that keep translations of their own forget all of them: what they hold is keyed by their IOVAs, not by ours. */
  #pushDeviceInvalidations(iommu: RiscvIommu, devices: Iterable<IommuDevice>): void {
    for (const device of devices) {
      if (!device.hasAts || (Number(iommu.contextOf(device.deviceId)[0] & 0xffn) & TC_EN_ATS) === 0) continue;
      for (const command of forgetTranslations(device)) iommu.queue.push(command);
    }
  }

  /** A vIOMMU on this parent begins or ends caching under its own GSCID. */
  addTagUser(user: TagUser): void {
    this.#tagUsers.add(user);
  }

  removeTagUser(user: TagUser): void {
    this.#tagUsers.delete(user);
  }

  // --- devices ---

  /** The device context that makes a device use this domain. */
  contextFor(data: DeviceData): Context {
    const requests = data.pageRequests ? TC_EN_ATS | TC_EN_PRI : 0;
    const dirty = this.table.shape.tracksDirty ? (this.nestParent ? TC_GADE : TC_SADE) : 0;
    const tc = BigInt(TC_V | requests | dirty);
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

  attach(device: IommuDevice, old: IommuDomain | null): number {
    const data = deviceDataOf(device);
    const compatible = this.compatibleWith(data.iommu);
    if (compatible < 0) return compatible;
    return moveDevice(device, this, old);
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

  deviceJoined(device: IommuDevice): void {
    const { iommu } = deviceDataOf(device);
    const devices = this.#users.get(iommu) ?? new Map<IommuDevice, number>();
    devices.set(device, (devices.get(device) ?? 0) + 1);
    this.#users.set(iommu, devices);
  }

  deviceLeft(device: IommuDevice): void {
    const { iommu } = deviceDataOf(device);
    const devices = this.#users.get(iommu);
    const left = (devices?.get(device) ?? 0) - 1;
    if (left > 0) devices!.set(device, left);
    else devices?.delete(device);
    if (devices?.size === 0) {
      this.#users.delete(iommu);
      this.#flush(iommu, this.tag);
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
    if (this.#users.size > 0 || this.#tagUsers.size > 0) throw new Error("a paging domain is freed while in use");
    this.#freed = true;
    this.table.free();
    this.owner.pagingDomainFreed(this);
  }

  describe(): string {
    const name = ["Sv39", "Sv48", "Sv57"][this.mode - 8];
    const root = `0x${(BigInt(this.table.root) << 12n).toString(16)}`;
    return this.nestParent ? `${name}x4 root=${root} GSCID=${this.tag}` : `${name} root=${root} PSCID=${this.tag}`;
  }
}
