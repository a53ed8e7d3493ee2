// The type1 backend of a VFIO container (Linux: vfio_iommu_type1.c): user memory mapped for the DMA of every group in the container.
//
// The mapping rules underneath are iommufd's: an IoPagetable keeps the mappings and fills the domains; here stand type1's own rules
// over it. One mapping is one area, never cut: v2 refuses to unmap a part of one, v1 takes the whole mapping or nothing.
//
//     attach group → a domain it can share, or a new one filled with all mappings → the whole group attached
//     last group gone → the container destroys the backend: all mappings go

import type { Stateful, StateReader, StateRecord } from "../../base/state.ts";
import { NO_PASID } from "../../devices/ports.ts";
import { EEXIST, EINVAL, ENODEV, ENOENT, ENOMEM, ENOSPC, EOVERFLOW, EPERM } from "../../uapi/errno.ts";
import {
  VFIO_DMA_MAP_FLAG_READ,
  VFIO_DMA_MAP_FLAG_VADDR,
  VFIO_DMA_MAP_FLAG_WRITE,
  VFIO_DMA_UNMAP_FLAG_ALL,
  VFIO_DMA_UNMAP_FLAG_VADDR,
} from "../../uapi/vfio-container.ts";
import type { CallContext } from "../file.ts";
import type { Injector } from "../inject.ts";
import type { AttachHandle } from "../iommu/attachments.ts";
import {
  IOMMU_CACHE,
  IOMMU_MMIO,
  IOMMU_READ,
  IOMMU_WRITE,
  type IommuDevice,
  type IommuDriver,
  type PagingDomain,
} from "../iommu/driver.ts";
import { driverState } from "../iommu/driver-state.ts";
import type { IommuGroup } from "../iommu/group.ts";
import { IoPagetable } from "../iommufd/io-pagetable.ts";
import { U64_MAX } from "../iommufd/iova-ranges.ts";
import { restoreMappings, savedMappings } from "../iommufd/mappings-state.ts";
import { UserPages } from "../iommufd/user-pages.ts";
import type { Kernel } from "../kernel.ts";
import { inSavedOrder, refillList, refillMap, textsOf } from "../same-objects.ts";
import type { DirtyBitmap } from "./type1-dirty.ts";

/** Mappings a container may hold (module parameter dma_entry_limit). */
export const DMA_ENTRY_LIMIT = 65535;
const PAGE = 4096n;

interface Type1Domain {
  readonly domain: PagingDomain;
  readonly driver: IommuDriver;
  readonly groups: Map<IommuGroup, AttachHandle>;
  /** Doorbell page → IOVA in the software MSI window. */
  readonly messages: Map<bigint, bigint>;
  readonly messageWindow: bigint | null;
}

export class Type1 implements Stateful {
  /** 1: an unmap may begin or end anywhere; 2: it may not cut a mapping. */
  readonly version: 1 | 2;
  readonly table: IoPagetable;
  /** VFIO_IOMMU_DIRTY_PAGES is on; see type1-dirty.ts. */
  dirtyTracking = false;
  readonly #kernel: Kernel;
  readonly #injector: Injector;
  readonly #allowUnsafeInterrupts: boolean;
  readonly #domains: Type1Domain[] = [];

  constructor(kernel: Kernel, version: 1 | 2, allowUnsafeInterrupts: boolean) {
    this.#kernel = kernel;
    this.version = version;
    this.#allowUnsafeInterrupts = allowUnsafeInterrupts;
    this.#injector = {
      ioctl: (name) => kernel.injector.ioctl(name),
      allocation: (what) => kernel.injector.allocation(what),
      loseEvent: (queue) => kernel.injector.loseEvent(queue),
    };
    this.table = new IoPagetable(this.#injector);
    kernel.live.created("type1 container");
  }

  get groups(): number {
    return this.#domains.reduce((sum, { groups }) => sum + groups.size, 0);
  }

  /** Every domain keeps DMA coherent whatever devices ask (DMA_CC). */
  get enforcesCoherency(): boolean {
    return this.#domains.every(({ domain }) => domain.enforcesCoherency);
  }

  get mappings(): number {
    return this.table.areas.size;
  }

  // --- groups ---

  /**
   * Takes a claimed group in: -EINVAL when it is in already, or when its reserved regions or its domain's aperture meet a mapping;
   * -EPERM when its messages are not isolated; else what its driver says.
   */
  attachGroup(group: IommuGroup): number {
    if (this.#domains.some(({ groups }) => groups.has(group))) return -EINVAL;
    const member = group.members[0];
    if (member === undefined) return -ENODEV;
    const { driver, device } = member;
    const isolated = group.devices.every((each) => driver.isolatesMsi?.(each) ?? true);
    if (!isolated && !this.#allowUnsafeInterrupts) return -EPERM;
    const reserved = this.#reserveFor(group);
    if (reserved < 0) return reserved;
    for (const known of this.#domains) {
      if (known.driver !== driver) continue;
      const shared = this.#join(known, group);
      if (shared === 0) return 0;
    }
    const result = this.#joinNew(driver, device, group);
    if (result < 0) this.table.ranges.removeReserved(group);
    return result;
  }

  /** type1 answers EINVAL where iommufd says EADDRINUSE. */
  #reserveFor(group: IommuGroup): number {
    return this.table.reserveForDevice(group.reservedRegions(), group) < 0 ? -EINVAL : 0;
  }

  #join(known: Type1Domain, group: IommuGroup): number {
    const handle: AttachHandle = {
      domain: known.domain,
      onPageRequests: null,
      prepareMsi: (_device, doorbell) => mapMessage(known, doorbell),
    };
    const result = group.attach(handle);
    if (result === 0) known.groups.set(group, handle);
    return result;
  }

  #joinNew(driver: IommuDriver, device: IommuDevice, group: IommuGroup): number {
    const domain = driver.allocPaging(device, 0, null);
    if (typeof domain === "number") return domain;
    const filled = this.table.addDomain(domain);
    if (filled < 0) {
      domain.free();
      return filled === -ENOMEM ? filled : -EINVAL;
    }
    const window = group.reservedRegions().find(({ type }) => type === "SW_MSI");
    const known: Type1Domain = {
      domain,
      driver,
      groups: new Map(),
      messages: new Map(),
      messageWindow: window?.start ?? null,
    };
    const joined = this.#join(known, group);
    if (joined < 0) {
      this.table.removeDomain(domain);
      domain.free();
      return joined;
    }
    this.#domains.push(known);
    return 0;
  }

  detachGroup(group: IommuGroup): void {
    const index = this.#domains.findIndex(({ groups }) => groups.has(group));
    const known = this.#domains[index];
    if (known === undefined) return;
    group.detach();
    known.groups.delete(group);
    this.table.ranges.removeReserved(group);
    if (known.groups.size > 0) return;
    this.#domains.splice(index, 1);
    this.table.removeDomain(known.domain);
    for (const iova of known.messages.values()) {
      known.domain.unmap(iova, PAGE);
      known.domain.sync(iova, PAGE);
    }
    known.domain.free();
  }

  /** What is attached to a group at its requester id is this container's. */
  holds(group: IommuGroup): boolean {
    const handle = group.handleAt(NO_PASID);
    return this.#domains.some(({ groups }) => groups.get(group) === handle);
  }

  /** The last group has left: all mappings go. */
  destroy(): void {
    this.table.destroy();
    this.#kernel.live.destroyed("type1 container");
  }

  // --- mappings ---

  /** Page sizes of all domains; before there is any, whole pages of every size. */
  get pageSizes(): bigint {
    let sizes = U64_MAX & ~(PAGE - 1n);
    for (const { domain } of this.#domains) sizes &= domain.pageSizes;
    return sizes;
  }

  get smallestPage(): bigint {
    const sizes = this.pageSizes;
    return sizes & -sizes;
  }

  /** MAP_DMA (vfio_dma_do_map). */
  map(call: CallContext, flags: number, va: bigint, iova: bigint, size: bigint): number {
    if (size === 0n) return -EINVAL;
    const last = iova + size - 1n;
    if (last > U64_MAX || va + size - 1n > U64_MAX) return -EOVERFLOW;
    const newAddress = (flags & VFIO_DMA_MAP_FLAG_VADDR) !== 0;
    const rights = flags & (VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE);
    if (newAddress === (rights !== 0)) return -EINVAL;
    if ((size | iova | va) % this.smallestPage !== 0n) return -EINVAL;
    const known = this.table.areas.firstIn(iova, last) !== null;
    // A new address is for a mapping that was suspended; none can be here.
    if (newAddress) return known ? -EINVAL : -ENOENT;
    if (known) return -EEXIST;
    if (this.mappings >= DMA_ENTRY_LIMIT) return -ENOSPC;
    if (this.table.ranges.isReserved(iova, last)) return -EINVAL;
    const writable = (flags & VFIO_DMA_MAP_FLAG_WRITE) !== 0;
    const pages = UserPages.ofMemory(va, size, writable, call, this.#injector);
    if (typeof pages === "number") return pages;
    if (pages.accountMode === "user") pages.accountMode = "memory";
    const protection =
      IOMMU_CACHE | ((flags & VFIO_DMA_MAP_FLAG_READ) !== 0 ? IOMMU_READ : 0) | (writable ? IOMMU_WRITE : 0);
    const at = this.table.map([{ pages, startByte: va % PAGE, length: size }], size, iova, protection);
    if (typeof at !== "number") return 0;
    pages.put();
    return at;
  }

  /**
   * UNMAP_DMA (vfio_dma_do_unmap): bytes unmapped, or a negated errno. `dirty` is told of each mapping before it goes; what it
   * refuses stays, with all behind it.
   */
  unmap(flags: number, iova: bigint, size: bigint, dirty: DirtyBitmap | null): bigint | number {
    if ((flags & VFIO_DMA_UNMAP_FLAG_VADDR) !== 0) return -EINVAL;
    const page = this.smallestPage;
    if (iova % page !== 0n) return -EINVAL;
    if ((flags & VFIO_DMA_UNMAP_FLAG_ALL) !== 0) {
      return iova !== 0n || size !== 0n ? -EINVAL : this.table.unmapAll().unmapped;
    }
    if (size === 0n || size % page !== 0n) return -EINVAL;
    const last = iova + size - 1n;
    if (last > U64_MAX) return -EOVERFLOW;
    if (dirty !== null && (!this.dirtyTracking || dirty.pageBytes !== page)) return -EINVAL;
    // v2: a range that cuts a mapping is refused before anything is unmapped.
    if (this.version === 2 && this.cuts(iova, last)) return -EINVAL;
    return this.#unmapMappings(iova, last, dirty);
  }

  /** True if the range begins or ends inside a mapping. */
  cuts(start: bigint, last: bigint): boolean {
    const head = this.table.areas.at(start);
    const tail = this.table.areas.at(last);
    return (head !== null && head.start !== start) || (tail !== null && tail.last !== last);
  }

  /** v1: a range that begins inside a mapping unmaps nothing; a mapping whose first byte is covered goes as a whole. */
  #unmapMappings(start: bigint, last: bigint, dirty: DirtyBitmap | null): bigint | number {
    let unmapped = 0n;
    let next = start;
    for (;;) {
      const area = next > last ? null : this.table.areas.firstIn(next, last);
      if (area === null || area.start < start) return unmapped;
      const reported = dirty === null ? 0 : dirty.mark(area.start - start, area.length);
      if (reported < 0) return reported;
      const result = this.table.unmap(area.start, area.length);
      if (result.error < 0) return result.error;
      unmapped += result.unmapped;
      next = area.last + 1n;
    }
  }

  // --- state: domains and their groups must be the same ---

  saveState(): StateRecord {
    return {
      dirtyTracking: this.dirtyTracking,
      domains: this.#domains.map((known) => ({
        name: nameOf(known),
        groups: [...known.groups.keys()].map(groupName),
        messages: [...known.messages].map(([page, iova]) => ({ page, iova })),
      })),
      mappings: savedMappings([["table", this.table]], this.#kernel.names),
    };
  }

  restoreState(state: StateReader): void {
    this.dirtyTracking = state.boolean("dirtyTracking");
    const saved = state.records("domains");
    const names = saved.map((domain) => domain.text("name"));
    refillList(this.#domains, inSavedOrder(state, this.#domains, nameOf, names));
    refillList(
      this.table.domains,
      this.#domains.map(({ domain }) => domain),
    );
    for (const [index, { groups, messages }] of this.#domains.entries()) {
      const reader = saved[index]!;
      const ofEntry = ([group]: readonly [IommuGroup, AttachHandle]) => groupName(group);
      refillMap(groups, inSavedOrder(reader, groups, ofEntry, textsOf(reader, "groups")));
      refillMap(
        messages,
        reader.records("messages").map((message) => [message.bigint("page"), message.bigint("iova")] as const),
      );
    }
    restoreMappings([["table", this.table]], state.record("mappings"), this.#kernel.names, this.#injector);
  }

  *stateParts(): Generator<readonly [string, Stateful]> {
    yield ["table", this.table];
    for (const known of this.#domains) yield [nameOf(known), driverState(known.domain, nameOf(known))];
  }
}

/** Shows a doorbell page in the domain's software MSI window; the IOVA, or -errno. */
function mapMessage(known: Type1Domain, doorbell: bigint): bigint | number {
  if (known.messageWindow === null) return doorbell;
  const page = (doorbell / PAGE) * PAGE;
  let iova = known.messages.get(page);
  if (iova === undefined) {
    iova = known.messageWindow + BigInt(known.messages.size) * PAGE;
    const mapped = known.domain.map(iova, page, PAGE, IOMMU_READ | IOMMU_WRITE | IOMMU_MMIO);
    if (mapped < 0) return mapped;
    known.messages.set(page, iova);
  }
  return iova + (doorbell % PAGE);
}

function groupName({ id }: IommuGroup): string {
  return `group ${id}`;
}

function nameOf({ groups }: Type1Domain): string {
  const ids = [...groups.keys()].map(({ id }) => id).sort((a, b) => a - b);
  return `domain of groups ${ids.join(" ")}`;
}
