// Names of the registers of an RV64 machine, for the trace: what a store to uart+0x1 or aplic+0x28 means.

import { hex } from "../../host/base/address.ts";
import { formatBdf, type PciHostBridge } from "../pci/host-bridge.ts";

const UART = ["RBR/THR/DLL", "IER/DLM", "IIR/FCR", "LCR", "MCR", "LSR", "MSR", "SCR"] as const;

export function uartRegister(offset: number): string {
  return UART[offset] ?? `reserved+${hex(offset)}`;
}

/** Arrays of 32-bit registers: name, first offset, end, number of the first element (AIA table 4.1). */
const APLIC_ARRAYS: readonly (readonly [string, number, number, number])[] = [
  ["sourcecfg", 0x0004, 0x1000, 1],
  ["setip", 0x1c00, 0x1c80, 0],
  ["in_clrip", 0x1d00, 0x1d80, 0],
  ["setie", 0x1e00, 0x1e80, 0],
  ["clrie", 0x1f00, 0x1f80, 0],
  ["target", 0x3004, 0x4000, 1],
];
const APLIC_SINGLE: Readonly<Record<number, string>> = {
  0: "domaincfg",
  7104: "mmsiaddrcfg",
  7108: "mmsiaddrcfgh",
  7112: "smsiaddrcfg",
  7116: "smsiaddrcfgh",
  7388: "setipnum",
  7644: "clripnum",
  7900: "setienum",
  8156: "clrienum",
  8192: "setipnum_le",
  8196: "setipnum_be",
  12288: "genmsi",
};

export function aplicRegister(offset: number): string {
  const single = APLIC_SINGLE[offset];
  if (single !== undefined) return single;
  for (const [name, from, end, first] of APLIC_ARRAYS) {
    if (offset >= from && offset < end) return `${name}[${((offset - from) >> 2) + first}]`;
  }
  return `reserved+${hex(offset)}`;
}

export function imsicRegister(offset: number): string {
  return offset === 0 ? "seteipnum_le" : offset === 4 ? "seteipnum_be" : `reserved+${hex(offset)}`;
}

/** The header of type 0 (PCI 3.0 §6.1); capabilities follow at places of the function's own. */
const CONFIGURATION: Readonly<Record<number, string>> = {
  0: "Vendor ID",
  2: "Device ID",
  4: "Command",
  6: "Status",
  8: "Revision ID",
  12: "Cache Line Size",
  14: "Header Type",
  16: "BAR 0",
  20: "BAR 1",
  24: "BAR 2",
  28: "BAR 3",
  32: "BAR 4",
  36: "BAR 5",
  48: "Expansion ROM",
  52: "Capabilities Pointer",
  60: "Interrupt Line",
  61: "Interrupt Pin",
};

/** "00:10.0 Command". */
export function ecamRegister(offset: number): string {
  const register = offset & 0xfff;
  return `${formatBdf(Math.floor(offset / 4096))} ${CONFIGURATION[register] ?? hex(register)}`;
}

/** "00:10.0 BAR 0 + 0x1000" for an address in a BAR window. */
export function barRegister(pci: PciHostBridge, address: number): string {
  for (const [routingId, pciFunction] of pci.functions) {
    for (let index = 0; index < pciFunction.bars.length; index++) {
      const bar = pciFunction.bars[index];
      const base = bar == null ? -1 : pciFunction.barBase(index);
      if (bar == null || base < 0 || address < base || address >= base + bar.size) continue;
      return `${formatBdf(routingId)} BAR ${index} + ${hex(address - base)}`;
    }
  }
  return "no BAR";
}
