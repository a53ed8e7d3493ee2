// VFIO_DEVICE_FEATURE_DMA_LOGGING_START, _STOP, _REPORT (Linux: vfio_main.c, vfio_ioctl_device_feature_logging_*): dirty tracking by the
// device itself, for functions that can. Others answer ENOTTY.

import { DmaWriteLog, type WatchedRange } from "../../../hw/pci/dma-write-log.ts";
import { E2BIG, EFAULT, EINVAL, ENOTTY, EOVERFLOW } from "../../../uapi/errno.ts";
import {
  VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT,
  VFIO_DEVICE_FEATURE_DMA_LOGGING_START,
  VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP,
  VFIO_DEVICE_FEATURE_GET,
  VFIO_DEVICE_FEATURE_PROBE,
  VFIO_DEVICE_FEATURE_SET,
  vfioDeviceFeatureDmaLoggingControl,
  vfioDeviceFeatureDmaLoggingRange,
  vfioDeviceFeatureDmaLoggingReport,
} from "../../../uapi/vfio.ts";
import type { CallContext } from "../../file.ts";
import type { PciDevice } from "../../pci/pci-device.ts";
import { readBytes, writeBytes } from "../user-request.ts";

/** Ranges of one START: as many as fit a page. */
const MOST_RANGES = 4096 / vfioDeviceFeatureDmaLoggingRange.bytes;
const U64_LIMIT = 1n << 64n;
/** Bits of a report's bitmap handled in one call: 8 GiB of 4 KiB pages. */
const MOST_BITS = 1n << 21n;

export function isDmaLogging(feature: number): boolean {
  return (
    feature === VFIO_DEVICE_FEATURE_DMA_LOGGING_START ||
    feature === VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP ||
    feature === VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT
  );
}

/** `data` is the user address behind the feature header, `size` how many bytes the caller says are there. */
export function dmaLogging(
  device: PciDevice,
  call: CallContext,
  feature: number,
  flags: number,
  data: bigint,
  size: number,
): number {
  if (device.function.logsDma !== true) return -ENOTTY;
  const report = feature === VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT;
  const start = feature === VFIO_DEVICE_FEATURE_DMA_LOGGING_START;
  const supported = report ? VFIO_DEVICE_FEATURE_GET : VFIO_DEVICE_FEATURE_SET;
  const asked = flags & (VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_SET);
  if ((asked & ~supported) !== 0) return -EINVAL;
  if ((flags & VFIO_DEVICE_FEATURE_PROBE) !== 0) return 0;
  if (asked === 0) return -EINVAL;
  const structure = report ? vfioDeviceFeatureDmaLoggingReport : vfioDeviceFeatureDmaLoggingControl;
  if ((report || start) && size < structure.bytes) return -EINVAL;
  if (start) return startLogging(device, call, data);
  if (report) return reportLogging(device, call, data);
  device.slot.dma.writeLog = null;
  return 0;
}

function startLogging(device: PciDevice, call: CallContext, data: bigint): number {
  const bytes = new Uint8Array(vfioDeviceFeatureDmaLoggingControl.bytes);
  if (readBytes(call, data, bytes) < 0) return -EFAULT;
  const control = vfioDeviceFeatureDmaLoggingControl.decode(bytes);
  if (control.num_ranges === 0) return -EINVAL;
  if (control.num_ranges > MOST_RANGES) return -E2BIG;
  const ranges: { first: bigint; last: bigint }[] = [];
  for (let i = 0; i < control.num_ranges; i++) {
    const entry = new Uint8Array(vfioDeviceFeatureDmaLoggingRange.bytes);
    if (readBytes(call, control.ranges + BigInt(i * entry.length), entry) < 0) return -EFAULT;
    const { iova, length } = vfioDeviceFeatureDmaLoggingRange.decode(entry);
    // IS_ALIGNED takes a power of two: another page size is not one a device tracks with.
    if (!isPowerOfTwo(control.page_size) || (iova | length) % control.page_size !== 0n) return -EINVAL;
    if (iova + length >= U64_LIMIT) return -EOVERFLOW;
    const last = iova + length - 1n;
    if (length === 0n || ranges.some((other) => iova <= other.last && other.first <= last)) return -EINVAL;
    ranges.push({ first: iova, last });
  }
  // The device tracks 4 KiB pages, whatever was asked for, and says so.
  if (device.slot.dma.writeLog !== null) return -EINVAL;
  vfioDeviceFeatureDmaLoggingControl.patch(bytes, { page_size: 4096n });
  if (writeBytes(call, data, bytes) < 0) return -EFAULT;
  const watched = ranges.map(
    ({ first, last }): WatchedRange => ({ firstPfn: Number(first >> 12n), lastPfn: Number(last >> 12n) }),
  );
  device.slot.dma.writeLog = new DmaWriteLog(watched);
  return 0;
}

function reportLogging(device: PciDevice, call: CallContext, data: bigint): number {
  const bytes = new Uint8Array(vfioDeviceFeatureDmaLoggingReport.bytes);
  if (readBytes(call, data, bytes) < 0) return -EFAULT;
  const { iova, length, page_size, bitmap } = vfioDeviceFeatureDmaLoggingReport.decode(bytes);
  if (page_size < 4096n || !isPowerOfTwo(page_size)) return -EINVAL;
  if (iova + length >= U64_LIMIT) return -EOVERFLOW;
  const log = device.slot.dma.writeLog;
  if (log === null || length === 0n || length / page_size > MOST_BITS) return -EINVAL;
  const bits = new Uint8Array(Number(((length + page_size - 1n) / page_size + 63n) / 64n) * 8);
  // Bits are OR-ed into what the user has there.
  if (readBytes(call, bitmap, bits) < 0) return -EFAULT;
  // What the log gives is forgotten there, so it has to arrive: the bitmap must be writable before anything is taken.
  if (writeBytes(call, bitmap, bits) < 0) return -EFAULT;
  const bitOf = (pfn: number) => {
    const address = BigInt(pfn) << 12n;
    return address < iova ? 0 : Number((address - iova) / page_size);
  };
  log.take(Number(iova >> 12n), Number((iova + length - 1n) >> 12n), (firstPfn, lastPfn) => {
    const last = bitOf(lastPfn);
    for (let index = bitOf(firstPfn); index <= last; index++) bits[index >> 3]! |= 1 << (index & 7);
  });
  return writeBytes(call, bitmap, bits) < 0 ? -EFAULT : 0;
}

function isPowerOfTwo(value: bigint): boolean {
  return value > 0n && (value & (value - 1n)) === 0n;
}
