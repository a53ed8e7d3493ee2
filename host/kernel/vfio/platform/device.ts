// An assigned platform device (Linux: vfio_platform_common.c): regions of registers, wired interrupts, a reset. There is no configuration
// space and nothing to ask user space with; what may be asked of all devices is ../device-file.ts.

import type { Stateful } from "../../../base/state.ts";
import { EFAULT, EINVAL, ENOTTY } from "../../../uapi/errno.ts";
import { MAP_SHARED } from "../../../uapi/system-calls.ts";
import {
  VFIO_DEVICE_FLAGS_PLATFORM,
  VFIO_DEVICE_FLAGS_RESET,
  VFIO_DEVICE_GET_INFO,
  VFIO_DEVICE_GET_IRQ_INFO,
  VFIO_DEVICE_GET_REGION_INFO,
  VFIO_DEVICE_RESET,
  VFIO_DEVICE_SET_IRQS,
  VFIO_IRQ_INFO_AUTOMASKED,
  VFIO_IRQ_INFO_EVENTFD,
  VFIO_IRQ_INFO_MASKABLE,
  VFIO_REGION_INFO_FLAG_MMAP,
  VFIO_REGION_INFO_FLAG_READ,
  VFIO_REGION_INFO_FLAG_WRITE,
  vfioDeviceInfo,
  vfioIrqInfo,
  vfioRegionInfo,
} from "../../../uapi/vfio.ts";
import type { CallContext, FileMapping, MmapRequest, PostedWrites } from "../../file.ts";
import type { IommuDevice } from "../../iommu/driver.ts";
import type { Kernel } from "../../kernel.ts";
import { mapRegisters } from "../../mapped-registers.ts";
import type { PlatformDevice } from "../../platform/platform-bus.ts";
import type { VfioDeviceOperations } from "../device-operations.ts";
import { readIrqSet } from "../irq-set.ts";
import { loadPiece, pieceSize, postedRegisters, regionOffset, splitOffset, storePiece } from "../region.ts";
import { readBytes, readRequest, writeBytes } from "../user-request.ts";
import { WiredInterrupts } from "./interrupts.ts";

/** GET_INFO copies back what its first version had: up to num_irqs. */
const INFO_BYTES = 16;
/** Registers are accessed 4 bytes at a time at most (vfio_platform_read_mmio). */
const WIDEST_ACCESS = 4;

// Not state: its parts are.
export class VfioPlatformDevice implements VfioDeviceOperations {
  readonly name: string;
  readonly iommuDevice: IommuDevice;
  /** vfio_platform_ops has no pasid_attach_ioas. */
  readonly attachesPasids = false;
  /** vfio_platform_read and _write leave the file's position alone. */
  readonly advancesPosition = false;
  readonly #device: PlatformDevice;
  readonly #interrupts: WiredInterrupts;
  /** User space may map its registers. */
  readonly #mappable: boolean;

  constructor(kernel: Kernel, device: PlatformDevice, iommuDevice: IommuDevice, mappable: boolean) {
    this.#mappable = mappable;
    this.name = device.name;
    this.iommuDevice = iommuDevice;
    this.#device = device;
    this.#interrupts = new WiredInterrupts({
      slot: device.slot,
      clock: kernel.clock,
      trace: kernel.trace,
      names: kernel.names,
    });
  }

  matches(text: string): boolean {
    return text === this.name;
  }

  open(): void {
    this.#interrupts.open();
    this.#device.reset();
  }

  close(): void {
    this.#device.reset();
    this.#interrupts.close();
  }

  askBack(): void {}

  ioctl(call: CallContext, request: number, argument: bigint): number {
    switch (request) {
      case VFIO_DEVICE_GET_INFO:
        return this.#info(call, argument);
      case VFIO_DEVICE_GET_REGION_INFO:
        return this.#regionInfo(call, argument);
      case VFIO_DEVICE_GET_IRQ_INFO:
        return this.#irqInfo(call, argument);
      case VFIO_DEVICE_SET_IRQS:
        return this.#setIrqs(call, argument);
      case VFIO_DEVICE_RESET:
        this.#device.reset();
        return 0;
      default:
        return -ENOTTY;
    }
  }

  feature(): number {
    return -ENOTTY;
  }

  get #regions() {
    return this.#device.slot.endpoint.regions;
  }

  #info(call: CallContext, argument: bigint): number {
    const request = readRequest(call, argument, vfioDeviceInfo, INFO_BYTES);
    if (typeof request === "number") return request;
    const reply = vfioDeviceInfo.encode({
      argsz: request.size,
      flags: VFIO_DEVICE_FLAGS_PLATFORM | VFIO_DEVICE_FLAGS_RESET,
      num_regions: this.#regions.length,
      num_irqs: this.#interrupts.count,
    });
    return writeBytes(call, argument, reply.subarray(0, INFO_BYTES));
  }

  #regionInfo(call: CallContext, argument: bigint): number {
    const request = readRequest(call, argument, vfioRegionInfo);
    if (typeof request === "number") return request;
    const region = this.#regions[request.values.index];
    if (region === undefined) return -EINVAL;
    // Registers are whole pages here (hw/platform/interconnect.ts), so all may be mapped.
    const flags =
      VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE | (this.#mappable ? VFIO_REGION_INFO_FLAG_MMAP : 0);
    const offset = regionOffset(request.values.index);
    return writeBytes(
      call,
      argument,
      vfioRegionInfo.encode({ ...request.values, flags, size: BigInt(region.size), offset }),
    );
  }

  #irqInfo(call: CallContext, argument: bigint): number {
    const request = readRequest(call, argument, vfioIrqInfo);
    if (typeof request === "number") return request;
    if (request.values.index >= this.#interrupts.count) return -EINVAL;
    const flags = VFIO_IRQ_INFO_EVENTFD | VFIO_IRQ_INFO_MASKABLE | VFIO_IRQ_INFO_AUTOMASKED;
    return writeBytes(call, argument, vfioIrqInfo.encode({ ...request.values, flags, count: 1 }));
  }

  /** Every index has one vector; that `start` and `count` are held against the number of indexes is Linux's way. */
  #setIrqs(call: CallContext, argument: bigint): number {
    const { count } = this.#interrupts;
    const request = readIrqSet(call, argument, count, () => count);
    return typeof request === "number" ? request : this.#interrupts.set(call, request);
  }

  /**
   * In naturally aligned pieces of 4, 2 or 1 bytes, up to the region's end. -EINVAL beyond it or where there is no region; -EFAULT when a
   * piece cannot be copied: what was moved before stays.
   */
  access(call: CallContext, va: bigint, length: number, position: bigint, write: boolean): number {
    if (position < 0n) return -EINVAL;
    const { index, at } = splitOffset(position);
    const region = this.#regions[index];
    if (region === undefined || at >= BigInt(region.size)) return -EINVAL;
    const bytes = Math.min(length, region.size - Number(at));
    const piece = new Uint8Array(WIDEST_ACCESS);
    const view = new DataView(piece.buffer);
    for (let done = 0; done < bytes; ) {
      const offset = Number(at) + done;
      const size = pieceSize(offset, bytes - done, WIDEST_ACCESS);
      const copied = piece.subarray(0, size);
      if (write) {
        if (readBytes(call, va + BigInt(done), copied) < 0) return -EFAULT;
        if (!this.#device.gone) storePiece(region.registers, offset, size, view, 0);
      } else {
        if (this.#device.gone) piece.fill(0xff);
        else loadPiece(region.registers, offset, size, view, 0);
        if (writeBytes(call, va + BigInt(done), copied) < 0) return -EFAULT;
      }
      done += size;
    }
    return bytes;
  }

  postedWrites(position: bigint): PostedWrites | null {
    const { index, at } = splitOffset(position);
    const region = this.#regions[index];
    return region === undefined
      ? null
      : postedRegisters(region.registers, regionOffset(index), region.size, Number(at));
  }

  /** -EINVAL for a private mapping, no such region, or a range beyond it. */
  map({ offset, length, flags }: MmapRequest): FileMapping | number {
    if (offset < 0n || (flags & MAP_SHARED) === 0) return -EINVAL;
    const { index, at } = splitOffset(offset);
    const region = this.#regions[index];
    if (region === undefined || !this.#mappable || length === 0n || at % 4096n !== 0n) return -EINVAL;
    if (at + length > BigInt(region.size)) return -EINVAL;
    return mapRegisters(region.registers, Number(at), Number(length), () => !this.#device.gone);
  }

  stateParts(): Iterable<readonly [string, Stateful]> {
    return [["interrupts", this.#interrupts]];
  }
}
