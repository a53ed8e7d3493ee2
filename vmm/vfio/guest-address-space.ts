// A VM's guest-physical address space in the host: one IOAS into which guest RAM is mapped, and the second-stage HWPTs made from it
// (one for each physical IOMMU that needs its own). vIOMMUs of one VM share it.

import { hex } from "../../host/base/address.ts";
import type { Stateful, StateReader, StateRecord } from "../../host/base/state.ts";
import { EOPNOTSUPP } from "../../host/uapi/errno.ts";
import {
  IOMMU_DESTROY,
  IOMMU_HWPT_ALLOC,
  IOMMU_HWPT_ALLOC_DIRTY_TRACKING,
  IOMMU_HWPT_ALLOC_NEST_PARENT,
  IOMMU_HWPT_ALLOC_PASID,
  IOMMU_HWPT_DIRTY_TRACKING_ENABLE,
  IOMMU_HWPT_GET_DIRTY_BITMAP,
  IOMMU_HWPT_SET_DIRTY_TRACKING,
  IOMMU_IOAS_ALLOC,
  IOMMU_IOAS_MAP,
  IOMMU_IOAS_MAP_FIXED_IOVA,
  IOMMU_IOAS_MAP_READABLE,
  IOMMU_IOAS_MAP_WRITEABLE,
  IOMMU_IOAS_UNMAP,
  iommuDestroy,
  iommuHwptAlloc,
  iommuHwptGetDirtyBitmap,
  iommuHwptSetDirtyTracking,
  iommuIoasAlloc,
  iommuIoasMap,
  iommuIoasUnmap,
} from "../../host/uapi/iommufd.ts";
import { O_RDWR, type SystemCalls } from "../../host/uapi/system-calls.ts";
import {
  VFIO_DEVICE_ATTACH_IOMMUFD_PT,
  VFIO_DEVICE_DETACH_IOMMUFD_PT,
  vfioDeviceAttachIommufdPt,
  vfioDeviceDetachIommufdPt,
} from "../../host/uapi/vfio.ts";
import { HostRefusal } from "./host-refusal.ts";
import { KernelCalls } from "./kernel-calls.ts";

export { HostRefusal } from "./host-refusal.ts";

/** A range of guest RAM in the host process. */
interface MappedRange {
  readonly gpa: bigint;
  readonly length: number;
  readonly va: bigint;
}

const PAGE = 4096n;

export class GuestAddressSpace implements Stateful {
  readonly calls: KernelCalls;
  /** Descriptor of /dev/iommu. */
  readonly iommufd: number;
  /** Object id of the IOAS that guest RAM is mapped into. */
  readonly ioas: number;
  readonly #ranges: MappedRange[] = [];
  readonly #parents: number[] = [];
  #dirtyTracking: boolean | null = null;
  #disposed = false; // not state: what is closed is not written down

  /** Opens /dev/iommu and makes an IOAS. Throws HostRefusal. */
  constructor(system: SystemCalls) {
    this.calls = new KernelCalls(system, 64 * 1024);
    this.iommufd = system.open("/dev/iommu", O_RDWR);
    if (this.iommufd < 0) {
      this.calls[Symbol.dispose]();
      throw new HostRefusal("open /dev/iommu", this.iommufd);
    }
    const { result, out } = this.calls.ioctl(this.iommufd, IOMMU_IOAS_ALLOC, iommuIoasAlloc, {});
    if (result < 0) {
      system.close(this.iommufd);
      this.calls[Symbol.dispose]();
      throw new HostRefusal("IOMMU_IOAS_ALLOC", result);
    }
    this.ioas = out.out_ioas_id;
  }

  /** Maps a window of the VM's RAM at guest-physical `gpa`, readable and writable; multiples of 4096. Throws HostRefusal. */
  mapRam(gpa: bigint, buffer: ArrayBufferLike, offset: number, length: number): void {
    const { memory } = this.calls.system;
    const va = memory.mapBuffer(buffer, offset, length);
    if (va < 0n) throw new HostRefusal("mapping guest RAM into the process", Number(va));
    const { result } = this.calls.ioctl(this.iommufd, IOMMU_IOAS_MAP, iommuIoasMap, {
      flags: IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_WRITEABLE | IOMMU_IOAS_MAP_READABLE,
      ioas_id: this.ioas,
      user_va: va,
      length: BigInt(length),
      iova: gpa,
    });
    if (result < 0) {
      memory.free(va, length);
      throw new HostRefusal(`IOMMU_IOAS_MAP of guest RAM at ${hex(gpa)}`, result);
    }
    this.#ranges.push({ gpa, length, va });
  }

  /** True if [gpa, +length) lies within one mapped range of RAM. */
  holds(gpa: bigint, length: bigint): boolean {
    return this.#ranges.some((range) => gpa >= range.gpa && gpa + length <= range.gpa + BigInt(range.length));
  }

  /** Takes a range of RAM away (whole ranges as mapped); 0 or a negated errno. */
  unmapRam(gpa: bigint): number {
    const index = this.#ranges.findIndex((range) => range.gpa === gpa);
    if (index < 0) return 0;
    const [range] = this.#ranges.splice(index, 1);
    const { result } = this.calls.ioctl(this.iommufd, IOMMU_IOAS_UNMAP, iommuIoasUnmap, {
      ioas_id: this.ioas,
      iova: gpa,
      length: BigInt(range!.length),
    });
    this.calls.system.memory.free(range!.va, range!.length);
    return Math.min(result, 0);
  }

  /** Attaches a bound VFIO device to the address space itself: its DMA uses guest-physical addresses. 0 or a negated errno. */
  attach(device: number): number {
    const argument = { pt_id: this.ioas };
    const { result } = this.calls.ioctl(device, VFIO_DEVICE_ATTACH_IOMMUFD_PT, vfioDeviceAttachIommufdPt, argument);
    return Math.min(result, 0);
  }

  /** Takes a device of `attach` off again; 0 or a negated errno. */
  detach(device: number): number {
    return Math.min(this.calls.ioctl(device, VFIO_DEVICE_DETACH_IOMMUFD_PT, vfioDeviceDetachIommufdPt, {}).result, 0);
  }

  /** Second-stage HWPTs made so far, for a vIOMMU to try. */
  get parents(): readonly number[] {
    return this.#parents;
  }

  /**
   * A further second-stage HWPT, for the IOMMU behind `deviceId`; its id, or a negated errno. `tracksDirty`: the device's IOMMU tracks dirty
   * pages. Not every driver does so in what others nest on: its EOPNOTSUPP then means that it nests without.
   */
  addParent(deviceId: number, tracksDirty: boolean, withPasids = false): number {
    let dirty = tracksDirty;
    let parent = this.#allocateParent(deviceId, dirty, withPasids);
    if (parent === -EOPNOTSUPP && dirty) {
      dirty = false;
      parent = this.#allocateParent(deviceId, dirty, withPasids);
    }
    if (parent < 0) return parent;
    this.#parents.push(parent);
    this.#dirtyTracking = (this.#dirtyTracking ?? true) && dirty;
    return parent;
  }

  /** Destroys a second-stage HWPT that nothing is on any more. */
  removeParent(parent: number): void {
    const index = this.#parents.indexOf(parent);
    if (index >= 0) this.#parents.splice(index, 1);
    this.destroy(parent);
  }

  #allocateParent(deviceId: number, dirty: boolean, withPasids: boolean): number {
    const { result, out } = this.calls.ioctl(this.iommufd, IOMMU_HWPT_ALLOC, iommuHwptAlloc, {
      flags:
        IOMMU_HWPT_ALLOC_NEST_PARENT |
        (dirty ? IOMMU_HWPT_ALLOC_DIRTY_TRACKING : 0) |
        (withPasids ? IOMMU_HWPT_ALLOC_PASID : 0),
      dev_id: deviceId,
      pt_id: this.ioas,
    });
    return result < 0 ? result : out.out_hwpt_id;
  }

  /** True if every second stage can say which pages DMA wrote. */
  get canTrackDirty(): boolean {
    return this.#dirtyTracking === true;
  }

  /** Turns dirty tracking on or off in every second stage; 0 or the first negated errno. */
  setDirtyTracking(on: boolean): number {
    for (const hwpt of this.#parents) {
      const { result } = this.calls.ioctl(this.iommufd, IOMMU_HWPT_SET_DIRTY_TRACKING, iommuHwptSetDirtyTracking, {
        flags: on ? IOMMU_HWPT_DIRTY_TRACKING_ENABLE : 0,
        hwpt_id: hwpt,
      });
      if (result < 0) return result;
    }
    return 0;
  }

  /**
   * Reads and clears what DMA wrote in [gpa, gpa + length): calls `report` with the address of each dirty 4 KiB page. 0 or the first
   * negated errno.
   */
  readDirty(gpa: bigint, length: bigint, report: (page: bigint) => void): number {
    // A slice of the range fills half the data area: one bit a page.
    const bitmapBytes = 32 * 1024;
    const slice = BigInt(bitmapBytes * 8) * PAGE;
    for (let at = gpa; at < gpa + length; at += slice) {
      const size = at + slice < gpa + length ? slice : gpa + length - at;
      const bytes = Number((size / PAGE + 63n) / 64n) * 8;
      this.calls.data(bytes).fill(0);
      for (const hwpt of this.#parents) {
        const { result } = this.calls.ioctl(this.iommufd, IOMMU_HWPT_GET_DIRTY_BITMAP, iommuHwptGetDirtyBitmap, {
          hwpt_id: hwpt,
          iova: at,
          length: size,
          page_size: PAGE,
          data: this.calls.dataAddress,
        });
        if (result < 0) return result;
      }
      const bitmap = this.calls.data(bytes).slice();
      for (let page = 0; page < Number(size / PAGE); page++) {
        if (((bitmap[page >> 3]! >> (page & 7)) & 1) === 1) report(at + BigInt(page) * PAGE);
      }
    }
    return 0;
  }

  /** DESTROY of an object by id; 0 or a negated errno. */
  destroy(id: number): number {
    return Math.min(this.calls.ioctl(this.iommufd, IOMMU_DESTROY, iommuDestroy, { id }).result, 0);
  }

  /** Everything, children first. vIOMMUs and devices on it have been disposed of before. */
  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.#disposed = true;
    for (const parent of this.#parents.splice(0)) this.destroy(parent);
    while (this.#ranges.length > 0) this.unmapRam(this.#ranges.at(-1)!.gpa);
    this.destroy(this.ioas);
    this.calls.system.close(this.iommufd);
    this.calls[Symbol.dispose]();
  }

  saveState(): StateRecord {
    return {
      ranges: this.#ranges.map(({ gpa, length, va }) => ({ gpa, length, va })),
      parents: this.#parents.slice(),
      dirtyTracking: this.#dirtyTracking,
    };
  }

  /** Ids and addresses are the host's, who has the objects. */
  restoreState(state: StateReader): void {
    const ranges = state.records("ranges").map((range) => ({
      gpa: range.bigint("gpa"),
      length: range.number("length"),
      va: range.bigint("va"),
    }));
    const parents = state.numberList("parents");
    this.#ranges.splice(0, this.#ranges.length, ...ranges);
    this.#parents.splice(0, this.#parents.length, ...parents);
    this.#dirtyTracking = state.optional("dirtyTracking", (reader, name) => reader.boolean(name));
  }
}
