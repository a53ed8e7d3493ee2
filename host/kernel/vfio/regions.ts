// Regions of an assigned function (Linux: vfio_pci_rdwr.c): offset bits 63:40 of the device file name the region, the rest is the
// position in it. BARs are reached through the function's registers, configuration space through its virtual form.

import type { AccessSize, MmioPort } from "../../base/mmio.ts";
import { EFAULT, EINVAL, EIO } from "../../uapi/errno.ts";
import { MAP_SHARED } from "../../uapi/system-calls.ts";
import { VFIO_PCI_CONFIG_REGION_INDEX, VFIO_PCI_NUM_REGIONS, VFIO_PCI_ROM_REGION_INDEX } from "../../uapi/vfio.ts";
import type { CallContext, FileMapping, MmapRequest } from "../file.ts";
import { CAP_MSIX, findCapability } from "../pci/config-access.ts";
import { CONFIG_BYTES } from "./config-permissions.ts";
import type { VfioDevice } from "./device.ts";
import { readBytes, writeBytes } from "./user-request.ts";

const OFFSET_SHIFT = 40n;
const OFFSET_MASK = (1n << OFFSET_SHIFT) - 1n;
/** One access moves at most this much (reads and writes are short beyond it). */
const MOST = 65536;

export function regionOffset(index: number): bigint {
  return BigInt(index) << OFFSET_SHIFT;
}

export function regionBytes(device: VfioDevice, index: number): number {
  if (index === VFIO_PCI_CONFIG_REGION_INDEX) return CONFIG_BYTES;
  return index < VFIO_PCI_ROM_REGION_INDEX ? (device.pci.function.bars[index]?.size ?? 0) : 0;
}

/** BAR of the MSI-X table, -1 without MSI-X. */
export function msixBar(device: VfioDevice): number {
  const at = findCapability(device.pci.function, CAP_MSIX);
  return at === 0 ? -1 : device.pci.function.configRead(at + 4, 4) & 7;
}

/** read or write at a region offset: bytes moved, or a negated errno. */
export function accessRegion(
  device: VfioDevice,
  call: CallContext,
  va: bigint,
  length: number,
  position: bigint,
  write: boolean,
): number {
  if (position < 0n) return -EINVAL;
  if (length === 0) return 0;
  const index = Number(position >> OFFSET_SHIFT);
  const at = position & OFFSET_MASK;
  if (index >= VFIO_PCI_NUM_REGIONS) return -EINVAL;
  const size = BigInt(regionBytes(device, index));
  if (index === VFIO_PCI_CONFIG_REGION_INDEX) {
    if (at + BigInt(length) > size) return -EFAULT;
    return accessConfig(device, call, va, length, Number(at), write);
  }
  if (at >= size) return -EINVAL;
  const bytes = Math.min(length, Number(size - at), MOST);
  return accessBar(device, call, va, bytes, index, Number(at), write);
}

function accessConfig(
  device: VfioDevice,
  call: CallContext,
  va: bigint,
  length: number,
  at: number,
  write: boolean,
): number {
  const bytes = new Uint8Array(length);
  if (write) {
    if (readBytes(call, va, bytes) < 0) return -EFAULT;
    device.config.write(at, bytes);
    return length;
  }
  device.config.read(at, bytes);
  return writeBytes(call, va, bytes) < 0 ? -EFAULT : length;
}

/**
 * In naturally aligned pieces of 8, 4, 2 or 1 bytes, as user space asked. The MSI-X table reads all ones and takes no writes; anything
 * else is -EIO while the function cannot be reached: memory decoding off, asleep, pulled out.
 */
function accessBar(
  device: VfioDevice,
  call: CallContext,
  va: bigint,
  length: number,
  bar: number,
  at: number,
  write: boolean,
): number {
  const { registers } = device.pci.function.bars[bar]!;
  const [hiddenFrom, hiddenTo] = msixTable(device, bar);
  const bytes = new Uint8Array(length);
  if (write && readBytes(call, va, bytes) < 0) return -EFAULT;
  const reachable = device.config.reachable && !device.pci.gone;
  const view = new DataView(bytes.buffer);
  let done = 0;
  while (done < length) {
    const size = pieceSize(at + done, length - done);
    const hidden = at + done + size > hiddenFrom && at + done < hiddenTo;
    if (!hidden && !reachable) return -EIO;
    if (write && !hidden) storePiece(registers, at + done, size, view, done);
    else if (!write && hidden) bytes.fill(0xff, done, done + size);
    else if (!write) loadPiece(registers, at + done, size, view, done);
    done += size;
  }
  if (!write && writeBytes(call, va, bytes) < 0) return -EFAULT;
  return length;
}

function msixTable(device: VfioDevice, bar: number): readonly [number, number] {
  const at = findCapability(device.pci.function, CAP_MSIX);
  if (at === 0) return [0, 0];
  const table = device.pci.function.configRead(at + 4, 4);
  if ((table & 7) !== bar) return [0, 0];
  const entries = (device.pci.function.configRead(at + 2, 2) & 0x7ff) + 1;
  return [table & ~7, (table & ~7) + entries * 16];
}

function pieceSize(at: number, left: number): AccessSize {
  for (const size of [8, 4, 2] as const) if (left >= size && at % size === 0) return size;
  return 1;
}

function loadPiece(registers: MmioPort, at: number, size: AccessSize, view: DataView, into: number): void {
  const low = registers.mmioRead(at, size);
  if (size === 1) view.setUint8(into, low);
  else if (size === 2) view.setUint16(into, low, true);
  else view.setUint32(into, low, true);
  if (size === 8) view.setUint32(into + 4, registers.high, true);
}

function storePiece(registers: MmioPort, at: number, size: AccessSize, view: DataView, from: number): void {
  if (size === 1) registers.mmioWrite(at, 1, view.getUint8(from), 0);
  else if (size === 2) registers.mmioWrite(at, 2, view.getUint16(from, true), 0);
  else if (size === 4) registers.mmioWrite(at, 4, view.getUint32(from, true), 0);
  else registers.mmioWrite(at, 8, view.getUint32(from, true), view.getUint32(from + 4, true));
}

/**
 * A BAR as mapped by user space: reads all ones and takes nothing while memory decoding is off, the function is in D3hot, or after the
 * device was closed. (Linux takes the mapping away and ends the access with SIGBUS; all ones is what the bus would give.)
 */
// Not state: it ends with its file.
class MappedBar implements MmioPort {
  high = 0;
  readonly #device: VfioDevice;
  readonly #registers: MmioPort;
  readonly #start: number;
  readonly #bytes: number;
  closed = false;

  constructor(device: VfioDevice, registers: MmioPort, start: number, bytes: number) {
    this.#device = device;
    this.#registers = registers;
    this.#start = start;
    this.#bytes = bytes;
  }

  #reachable(offset: number, size: number): boolean {
    const device = this.#device;
    if (this.closed || offset < 0 || offset + size > this.#bytes) return false;
    return device.config.reachable && !device.pci.gone;
  }

  mmioRead(offset: number, size: AccessSize): number {
    if (!this.#reachable(offset, size)) {
      this.high = 0xffffffff;
      return size >= 4 ? 0xffffffff : 2 ** (8 * size) - 1;
    }
    const low = this.#registers.mmioRead(this.#start + offset, size);
    if (size === 8) this.high = this.#registers.high;
    return low;
  }

  mmioWrite(offset: number, size: AccessSize, lo: number, hi: number): void {
    if (this.#reachable(offset, size)) this.#registers.mmioWrite(this.#start + offset, size, lo, hi);
  }
}

/** mmap of a BAR: -EINVAL for anything else, a private mapping, or a range beyond it. */
export function mapRegion(device: VfioDevice, request: MmapRequest): FileMapping | number {
  const index = Number(request.offset >> OFFSET_SHIFT);
  const at = request.offset & OFFSET_MASK;
  if (request.offset < 0n || (request.flags & MAP_SHARED) === 0) return -EINVAL;
  if (index >= VFIO_PCI_ROM_REGION_INDEX || request.length === 0n || at % 4096n !== 0n) return -EINVAL;
  const bar = device.pci.function.bars[index] ?? null;
  if (bar === null || !device.mappableBars || bar.size < 4096 || at + request.length > BigInt(bar.size)) return -EINVAL;
  const registers = new MappedBar(device, bar.registers, Number(at), Number(request.length));
  return {
    registers,
    close: () => {
      registers.closed = true;
    },
  };
}
