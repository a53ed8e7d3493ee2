// A VFIO container: /dev/vfio/vfio (Linux: vfio/container.c). Groups enter it, SET_IOMMU chooses the backend (type1), and from then on
// mapping requests go there. The last group that leaves takes the backend with it.
//
// Groups keep their container alive: closing its file while a group is in it changes nothing for that group.

import type { Stateful, StateReader, StateRecord } from "../../base/state.ts";
import { EFAULT, EINVAL, ENODEV, ENOTTY } from "../../uapi/errno.ts";
import { vfioInfoCapHeader } from "../../uapi/vfio.ts";
import {
  VFIO_API_VERSION,
  VFIO_CHECK_EXTENSION,
  VFIO_CONTAINER_IOCTLS,
  VFIO_DMA_CC_IOMMU,
  VFIO_DMA_MAP_FLAG_READ,
  VFIO_DMA_MAP_FLAG_VADDR,
  VFIO_DMA_MAP_FLAG_WRITE,
  VFIO_DMA_UNMAP_FLAG_ALL,
  VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP,
  VFIO_DMA_UNMAP_FLAG_VADDR,
  VFIO_GET_API_VERSION,
  VFIO_IOMMU_DIRTY_PAGES,
  VFIO_IOMMU_GET_INFO,
  VFIO_IOMMU_INFO_CAPS,
  VFIO_IOMMU_INFO_PGSIZES,
  VFIO_IOMMU_MAP_DMA,
  VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE,
  VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION,
  VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL,
  VFIO_IOMMU_UNMAP_DMA,
  VFIO_NOIOMMU_IOMMU,
  VFIO_SET_IOMMU,
  VFIO_TYPE1_IOMMU,
  VFIO_TYPE1v2_IOMMU,
  VFIO_UNMAP_ALL,
  vfioBitmap,
  vfioIommuType1DmaMap,
  vfioIommuType1DmaUnmap,
  vfioIommuType1Info,
  vfioIommuType1InfoCapIovaRange,
  vfioIommuType1InfoCapMigration,
  vfioIommuType1InfoDmaAvail,
  vfioIovaRange,
} from "../../uapi/vfio-container.ts";
import { type CallContext, OpenFile } from "../file.ts";
import type { IommuGroup } from "../iommu/group.ts";
import type { Kernel } from "../kernel.ts";
import { requireText } from "../same-objects.ts";
import { DMA_ENTRY_LIMIT, Type1 } from "./type1.ts";
import { DIRTY_BITMAP_BYTES_MAX, type DirtyBitmap, dirtyPages, readUnmapBitmap } from "./type1-dirty.ts";
import { readRequest, writeBytes } from "./user-request.ts";

export interface ContainerOptions {
  readonly allowUnsafeInterrupts: boolean;
  /** CONFIG_VFIO_NOIOMMU. */
  readonly noIommu: boolean;
}

export class VfioContainer implements Stateful {
  readonly #kernel: Kernel;
  readonly #options: ContainerOptions;
  readonly #groups = new Set<IommuGroup>();
  #backend: Type1 | null = null;

  constructor(kernel: Kernel, options: ContainerOptions) {
    this.#kernel = kernel;
    this.#options = options;
  }

  /** SET_IOMMU was done: devices of its groups can be opened. */
  get ready(): boolean {
    return this.#backend !== null;
  }

  /** Claims the group for its VFIO group object and takes it in: -EPERM when somebody else uses it. */
  attachGroup(group: IommuGroup, owner: object): number {
    const claimed = group.claim(owner);
    if (claimed < 0) return claimed;
    if (this.#backend !== null) {
      const attached = this.#backend.attachGroup(group);
      if (attached < 0) {
        group.release();
        return attached;
      }
    }
    this.#groups.add(group);
    return 0;
  }

  detachGroup(group: IommuGroup): void {
    if (!this.#groups.delete(group)) return;
    this.#backend?.detachGroup(group);
    group.release();
    if (this.#groups.size === 0 && this.#backend !== null) {
      this.#backend.destroy();
      this.#backend = null;
    }
  }

  ioctl(call: CallContext, request: number, argument: bigint): number {
    switch (request) {
      case VFIO_GET_API_VERSION:
        return VFIO_API_VERSION;
      case VFIO_CHECK_EXTENSION:
        return this.#checkExtension(argument);
      case VFIO_SET_IOMMU:
        return this.#setIommu(argument);
      default:
        return this.#backend === null ? -EINVAL : this.#backendIoctl(this.#backend, call, request, argument);
    }
  }

  #checkExtension(extension: bigint): number {
    switch (Number(extension)) {
      case VFIO_TYPE1_IOMMU:
      case VFIO_TYPE1v2_IOMMU:
      case VFIO_UNMAP_ALL:
        return 1;
      case VFIO_DMA_CC_IOMMU:
        return this.#backend !== null && this.#backend.groups > 0 && this.#backend.enforcesCoherency ? 1 : 0;
      case VFIO_NOIOMMU_IOMMU:
        // Groups that have an IOMMU and groups without one do not mix.
        return this.#options.noIommu && this.#groups.size === 0 ? 1 : 0;
      default:
        return 0;
    }
  }

  /**
   * -EINVAL without a group or when set already, -ENODEV for a type nobody serves. Linux asks a backend by the extension of that
   * number, so an extension that is no type gets as far as the backend's own -EINVAL.
   */
  #setIommu(type: bigint): number {
    if (this.#groups.size === 0 || this.#backend !== null) return -EINVAL;
    if (type === BigInt(VFIO_UNMAP_ALL)) return -EINVAL;
    if (type !== BigInt(VFIO_TYPE1_IOMMU) && type !== BigInt(VFIO_TYPE1v2_IOMMU)) return -ENODEV;
    const version = type === BigInt(VFIO_TYPE1v2_IOMMU) ? 2 : 1;
    const backend = new Type1(this.#kernel, version, this.#options.allowUnsafeInterrupts);
    const attached: IommuGroup[] = [];
    for (const group of this.#groups) {
      const result = backend.attachGroup(group);
      if (result < 0) {
        for (const done of attached) backend.detachGroup(done);
        backend.destroy();
        return result;
      }
      attached.push(group);
    }
    this.#backend = backend;
    return 0;
  }

  #backendIoctl(backend: Type1, call: CallContext, request: number, argument: bigint): number {
    switch (request) {
      case VFIO_IOMMU_GET_INFO:
        return getInfo(backend, call, argument);
      case VFIO_IOMMU_MAP_DMA: {
        const map = readRequest(call, argument, vfioIommuType1DmaMap);
        if (typeof map === "number") return map;
        const { flags, vaddr, iova, size } = map.values;
        const known = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE | VFIO_DMA_MAP_FLAG_VADDR;
        return (flags & ~known) !== 0 ? -EINVAL : backend.map(call, flags, vaddr, iova, size);
      }
      case VFIO_IOMMU_UNMAP_DMA: {
        const unmap = readRequest(call, argument, vfioIommuType1DmaUnmap);
        if (typeof unmap === "number") return unmap;
        const { flags, iova, size } = unmap.values;
        const known = VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP | VFIO_DMA_UNMAP_FLAG_ALL | VFIO_DMA_UNMAP_FLAG_VADDR;
        if ((flags & ~known) !== 0) return -EINVAL;
        let dirty: DirtyBitmap | null = null;
        if ((flags & VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP) !== 0) {
          const alone = (flags & ~VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP) === 0;
          if (!alone || unmap.size < vfioIommuType1DmaUnmap.bytes + vfioBitmap.bytes) return -EINVAL;
          const bitmap = readUnmapBitmap(call, argument + BigInt(vfioIommuType1DmaUnmap.bytes), size);
          if (typeof bitmap === "number") return bitmap;
          dirty = bitmap;
        }
        const unmapped = backend.unmap(flags, iova, size, dirty);
        if (typeof unmapped === "number") return unmapped;
        const reply = vfioIommuType1DmaUnmap.encode({ argsz: unmap.size, flags, iova, size: unmapped });
        return writeBytes(call, argument, reply) < 0 ? -EFAULT : 0;
      }
      case VFIO_IOMMU_DIRTY_PAGES:
        return dirtyPages(backend, call, argument);
      default:
        return -ENOTTY;
    }
  }

  // --- state: its groups and its backend must be the same ---

  saveState(): StateRecord {
    return { is: this.#what() };
  }

  restoreState(state: StateReader): void {
    requireText(state, "is", this.#what());
  }

  *stateParts(): Generator<readonly [string, Stateful]> {
    if (this.#backend !== null) yield ["type1", this.#backend];
  }

  #what(): string {
    const groups = [...this.#groups].map(({ id }) => id).join(" ");
    return `groups ${groups}, ${this.#backend === null ? "no backend" : `type1 version ${this.#backend.version}`}`;
  }
}

/** VFIO_IOMMU_GET_INFO with its capabilities: dirty pages, the number of mappings left, IOVA ranges. */
function getInfo(backend: Type1, call: CallContext, argument: bigint): number {
  const request = readRequest(call, argument, vfioIommuType1Info, 16);
  if (typeof request === "number") return request;
  const holes = backend.table.ranges.holes();
  const ranges = new Uint8Array(16 + 16 * holes.length);
  vfioIommuType1InfoCapIovaRange.patch(ranges, {
    id: VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE,
    version: 1,
    nr_iovas: holes.length,
  });
  for (const [i, { start, last }] of holes.entries()) vfioIovaRange.patch(ranges, { start, end: last }, 16 + 16 * i);
  const migration = vfioIommuType1InfoCapMigration.encode({
    id: VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION,
    version: 1,
    pgsize_bitmap: backend.smallestPage,
    max_dirty_bitmap_size: DIRTY_BITMAP_BYTES_MAX,
  });
  const available = vfioIommuType1InfoDmaAvail.encode({
    id: VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL,
    version: 1,
    avail: DMA_ENTRY_LIMIT - backend.mappings,
  });
  const header = vfioIommuType1Info.bytes;
  const chain = joinCapabilities([migration, available, ranges], header);
  const total = header + chain.length;
  const fits = request.size >= total;
  const reply = vfioIommuType1Info.encode({
    argsz: fits ? request.size : total,
    flags: VFIO_IOMMU_INFO_PGSIZES | VFIO_IOMMU_INFO_CAPS,
    iova_pgsizes: backend.pageSizes,
    cap_offset: fits ? header : 0,
  });
  if (fits && writeBytes(call, argument + BigInt(header), chain) < 0) return -EFAULT;
  return writeBytes(call, argument, reply.subarray(0, Math.min(request.size, reply.length))) < 0 ? -EFAULT : 0;
}

/** Capabilities one behind the other, 8-byte aligned, each naming the offset of the next from the start of the structure. */
function joinCapabilities(capabilities: readonly Uint8Array[], header: number): Uint8Array {
  const padded = (bytes: number) => Math.ceil(bytes / 8) * 8;
  const chain = new Uint8Array(capabilities.reduce((sum, { length }) => sum + padded(length), 0));
  let at = 0;
  for (const [i, capability] of capabilities.entries()) {
    chain.set(capability, at);
    const next = at + padded(capability.length);
    const isLast = i === capabilities.length - 1;
    vfioInfoCapHeader.patch(chain, { next: isLast ? 0 : header + next }, at);
    at = next;
  }
  return chain;
}

/** An open /dev/vfio/vfio. */
export class VfioContainerFile extends OpenFile {
  readonly path = "/dev/vfio/vfio";
  readonly container: VfioContainer;
  readonly #onRelease: () => void;

  constructor(container: VfioContainer, onRelease: () => void) {
    super();
    this.container = container;
    this.#onRelease = onRelease;
  }

  override ioctlName(request: number): string | null {
    return VFIO_CONTAINER_IOCTLS.get(request) ?? null;
  }

  override ioctl(call: CallContext, request: number, argument: bigint): number {
    return this.container.ioctl(call, request, argument);
  }

  protected override release(): void {
    this.#onRelease();
  }

  override *stateParts(): Generator<readonly [string, Stateful]> {
    yield ["container", this.container];
  }
}
