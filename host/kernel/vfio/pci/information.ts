// What a VFIO PCI device says of itself (Linux: vfio_pci_core.c).

import type { Layout, LayoutField } from "../../../base/layout.ts";
import { EINVAL } from "../../../uapi/errno.ts";
import {
  VFIO_DEVICE_FLAGS_PCI,
  VFIO_DEVICE_FLAGS_RESET,
  VFIO_IRQ_INFO_AUTOMASKED,
  VFIO_IRQ_INFO_EVENTFD,
  VFIO_IRQ_INFO_MASKABLE,
  VFIO_IRQ_INFO_NORESIZE,
  VFIO_PCI_CONFIG_REGION_INDEX,
  VFIO_PCI_ERR_IRQ_INDEX,
  VFIO_PCI_INTX_IRQ_INDEX,
  VFIO_PCI_MSIX_IRQ_INDEX,
  VFIO_PCI_NUM_IRQS,
  VFIO_PCI_NUM_REGIONS,
  VFIO_PCI_VGA_REGION_INDEX,
  VFIO_REGION_INFO_CAP_MSIX_MAPPABLE,
  VFIO_REGION_INFO_FLAG_CAPS,
  VFIO_REGION_INFO_FLAG_MMAP,
  VFIO_REGION_INFO_FLAG_READ,
  VFIO_REGION_INFO_FLAG_WRITE,
  vfioDeviceInfo,
  vfioInfoCapHeader,
  vfioIrqInfo,
  vfioRegionInfo,
} from "../../../uapi/vfio.ts";
import type { CallContext } from "../../file.ts";
import { readIrqSet } from "../irq-set.ts";
import { regionOffset } from "../region.ts";
import { readRequest, writeBytes } from "../user-request.ts";
import type { VfioPciFunction } from "./function.ts";
import { msixBar, regionBytes } from "./regions.ts";

/** VFIO_DEVICE_GET_INFO. */
export function deviceInfo(device: VfioPciFunction, call: CallContext, argument: bigint): number {
  const request = readRequest(call, argument, vfioDeviceInfo, 16);
  if (typeof request === "number") return request;
  const reply = vfioDeviceInfo.encode({
    argsz: request.size,
    flags: VFIO_DEVICE_FLAGS_PCI | (device.canReset ? VFIO_DEVICE_FLAGS_RESET : 0),
    num_regions: VFIO_PCI_NUM_REGIONS,
    num_irqs: VFIO_PCI_NUM_IRQS,
  });
  return writeBytes(call, argument, reply.subarray(0, Math.min(request.size, reply.length)));
}

/** VFIO_DEVICE_GET_REGION_INFO. A BAR with the MSI-X table says by a capability that it may be mapped as a whole. */
export function regionInfo(device: VfioPciFunction, call: CallContext, argument: bigint): number {
  const request = readRequest(call, argument, vfioRegionInfo);
  if (typeof request === "number") return request;
  const { index } = request.values;
  if (index >= VFIO_PCI_NUM_REGIONS || index === VFIO_PCI_VGA_REGION_INDEX) return -EINVAL;
  const size = regionBytes(device, index);
  let flags = size === 0 ? 0 : VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
  const isBar = index < VFIO_PCI_CONFIG_REGION_INDEX;
  const mappable = isBar && size >= 4096 && device.mappableBars;
  if (mappable) flags |= VFIO_REGION_INFO_FLAG_MMAP;
  const values = { argsz: request.size, flags, index, size: BigInt(size), offset: regionOffset(index) };
  if (!mappable || msixBar(device) !== index) {
    return writeBytes(call, argument, vfioRegionInfo.encode(values));
  }
  const capability = vfioInfoCapHeader.encode({ id: VFIO_REGION_INFO_CAP_MSIX_MAPPABLE, version: 1 });
  return respondWithCapability(call, argument, vfioRegionInfo, values, request.size, capability);
}

/** Copies a structure and one capability behind it; if that does not fit, argsz says how much there is. */
function respondWithCapability<T extends Record<string, LayoutField>>(
  call: CallContext,
  argument: bigint,
  layout: Layout<T>,
  values: Record<string, bigint | number>,
  size: number,
  capability: Uint8Array,
): number {
  const all = layout.bytes + capability.length;
  const fits = size >= all;
  const reply = layout.encode({
    ...values,
    flags: Number(values.flags) | VFIO_REGION_INFO_FLAG_CAPS,
    argsz: fits ? size : all,
    cap_offset: fits ? layout.bytes : 0,
  } as never);
  const written = writeBytes(call, argument, reply);
  if (written < 0 || !fits) return written;
  return writeBytes(call, argument + BigInt(layout.bytes), capability);
}

/** VFIO_DEVICE_GET_IRQ_INFO. */
export function irqInfo(device: VfioPciFunction, call: CallContext, argument: bigint): number {
  const request = readRequest(call, argument, vfioIrqInfo);
  if (typeof request === "number") return request;
  const { index } = request.values;
  if (index >= VFIO_PCI_NUM_IRQS) return -EINVAL;
  const count = device.interrupts.countOf(index);
  // Errors are reported by PCI Express functions alone.
  if (index === VFIO_PCI_ERR_IRQ_INDEX && count === 0) return -EINVAL;
  let flags = VFIO_IRQ_INFO_EVENTFD;
  // MSI-X vectors are allocated one by one, where there are any.
  const resizes = index === VFIO_PCI_MSIX_IRQ_INDEX && count > 0;
  if (index === VFIO_PCI_INTX_IRQ_INDEX) flags |= VFIO_IRQ_INFO_MASKABLE | VFIO_IRQ_INFO_AUTOMASKED;
  else if (!resizes) flags |= VFIO_IRQ_INFO_NORESIZE;
  return writeBytes(call, argument, vfioIrqInfo.encode({ argsz: request.size, flags, index, count }));
}

/** VFIO_DEVICE_SET_IRQS. */
export function setIrqs(device: VfioPciFunction, call: CallContext, argument: bigint): number {
  const request = readIrqSet(call, argument, VFIO_PCI_NUM_IRQS, (index) => device.interrupts.countOf(index));
  return typeof request === "number" ? request : device.interrupts.set(call, request);
}
