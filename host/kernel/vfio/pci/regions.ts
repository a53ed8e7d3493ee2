// Regions of an assigned function (Linux: vfio_pci_rdwr.c; offsets: ../region.ts). BARs are reached through the function's registers, configuration space through its virtual form.

import { EFAULT, EINVAL, EIO } from "../../../uapi/errno.ts";
import { MAP_SHARED } from "../../../uapi/system-calls.ts";
import { VFIO_PCI_CONFIG_REGION_INDEX, VFIO_PCI_NUM_REGIONS, VFIO_PCI_ROM_REGION_INDEX } from "../../../uapi/vfio.ts";
import type { CallContext, FileMapping, MmapRequest, PostedWrites } from "../../file.ts";
import { mapRegisters } from "../../mapped-registers.ts";
import { CAP_MSIX, findCapability } from "../../pci/config-access.ts";
import { loadPiece, pieceSize, postedRegisters, regionOffset, splitOffset, storePiece } from "../region.ts";
import { readBytes, writeBytes } from "../user-request.ts";
import { CONFIG_BYTES } from "./config-permissions.ts";
import type { VfioPciFunction } from "./function.ts";

/** One access moves at most this much (reads and writes are short beyond it). */
const MOST = 65536;

export function regionBytes(device: VfioPciFunction, index: number): number {
  if (index === VFIO_PCI_CONFIG_REGION_INDEX) return CONFIG_BYTES;
  return index < VFIO_PCI_ROM_REGION_INDEX ? (device.pci.function.bars[index]?.size ?? 0) : 0;
}

/** BAR of the MSI-X table, -1 without MSI-X. */
export function msixBar(device: VfioPciFunction): number {
  const at = findCapability(device.pci.function, CAP_MSIX);
  return at === 0 ? -1 : device.pci.function.configRead(at + 4, 4) & 7;
}

/** read or write at a region offset: bytes moved, or a negated errno. */
export function accessRegion(
  device: VfioPciFunction,
  call: CallContext,
  va: bigint,
  length: number,
  position: bigint,
  write: boolean,
): number {
  if (position < 0n) return -EINVAL;
  if (length === 0) return 0;
  const { index, at } = splitOffset(position);
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
  device: VfioPciFunction,
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
  device: VfioPciFunction,
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
    const size = pieceSize(at + done, length - done, 8);
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

/** A BAR whose function can be reached takes every write; what of them may be posted its registers say. */
export function postedWrites(device: VfioPciFunction, position: bigint): PostedWrites | null {
  const { index, at } = splitOffset(position);
  const bar = device.pci.function.bars[index] ?? null;
  if (bar === null || !device.config.reachable || device.pci.gone) return null;
  return postedRegisters(bar.registers, regionOffset(index), bar.size, Number(at));
}

function msixTable(device: VfioPciFunction, bar: number): readonly [number, number] {
  const at = findCapability(device.pci.function, CAP_MSIX);
  if (at === 0) return [0, 0];
  const table = device.pci.function.configRead(at + 4, 4);
  if ((table & 7) !== bar) return [0, 0];
  const entries = (device.pci.function.configRead(at + 2, 2) & 0x7ff) + 1;
  return [table & ~7, (table & ~7) + entries * 16];
}

/** mmap of a BAR: -EINVAL for anything else, a private mapping, or a range beyond it. */
export function mapRegion(device: VfioPciFunction, request: MmapRequest): FileMapping | number {
  const { index, at } = splitOffset(request.offset);
  if (request.offset < 0n || (request.flags & MAP_SHARED) === 0) return -EINVAL;
  if (index >= VFIO_PCI_ROM_REGION_INDEX || request.length === 0n || at % 4096n !== 0n) return -EINVAL;
  const bar = device.pci.function.bars[index] ?? null;
  if (bar === null || !device.mappableBars || bar.size < 4096 || at + request.length > BigInt(bar.size)) return -EINVAL;
  const present = () => device.config.reachable && !device.pci.gone;
  return mapRegisters(bar.registers, Number(at), Number(request.length), present);
}
