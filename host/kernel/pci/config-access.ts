// Finding things in a function's configuration space (PCIe 6.0 §7.5.1, §7.6.3): the capability lists. A list that a broken device
// bends into a circle ends after as many steps as capabilities can fit.

import type { PciFunction } from "../../devices/ports.ts";

export const PCI_COMMAND = 0x04;
export const COMMAND_MEMORY = 1 << 1;
export const COMMAND_MASTER = 1 << 2;
export const COMMAND_INTX_DISABLE = 1 << 10;
export const PCI_STATUS = 0x06;
export const STATUS_INTERRUPT = 1 << 3;
export const STATUS_CAPABILITIES = 1 << 4;
export const PCI_BAR0 = 0x10;
export const PCI_ROM_ADDRESS = 0x30;
export const PCI_CAPABILITY_LIST = 0x34;
export const PCI_INTERRUPT_LINE = 0x3c;
export const PCI_INTERRUPT_PIN = 0x3d;

export const CAP_MSI = 0x05;
export const CAP_VENDOR = 0x09;
export const CAP_EXPRESS = 0x10;
export const CAP_MSIX = 0x11;
export const CAP_POWER = 0x01;
export const EXT_CAP_ATS = 0x0f;
export const EXT_CAP_PRI = 0x13;
export const EXT_CAP_PASID = 0x1b;

/** Power Management Control/Status, from the capability's start; power states D0 and D3hot in it (PCI PM §3.2.4). */
export const POWER_CONTROL = 4;
export const POWER_STATE = 3;
export const D0 = 0;
export const D3HOT = 3;

/** Capabilities of the first 256 bytes, in list order: [id, offset]. */
export function capabilities(pci: PciFunction): readonly (readonly [number, number])[] {
  const found: (readonly [number, number])[] = [];
  if ((pci.configRead(PCI_STATUS, 2) & STATUS_CAPABILITIES) === 0) return found;
  let at = pci.configRead(PCI_CAPABILITY_LIST, 1) & 0xfc;
  for (let steps = 0; at >= 0x40 && steps < 48; steps++) {
    found.push([pci.configRead(at, 1), at]);
    at = pci.configRead(at + 1, 1) & 0xfc;
  }
  return found;
}

/** Offset of a capability, 0 if there is none. */
export function findCapability(pci: PciFunction, id: number): number {
  return capabilities(pci).find(([known]) => known === id)?.[1] ?? 0;
}

/** Extended capabilities, in list order: [id, offset]. */
export function extendedCapabilities(pci: PciFunction): readonly (readonly [number, number])[] {
  const found: (readonly [number, number])[] = [];
  let at = 0x100;
  for (let steps = 0; at >= 0x100 && steps < 480; steps++) {
    const header = pci.configRead(at, 4);
    if (header === 0 || header === 0xffffffff) break;
    found.push([header & 0xffff, at]);
    at = (header >>> 20) & 0xffc;
  }
  return found;
}

export function findExtendedCapability(pci: PciFunction, id: number): number {
  return extendedCapabilities(pci).find(([known]) => known === id)?.[1] ?? 0;
}
