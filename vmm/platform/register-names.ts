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

/** IHI 0048B tables 4-1 and 4-2. */
const GICD_ARRAYS: readonly (readonly [string, number, number])[] = [
  ["GICD_IGROUPR", 0x080, 0x100],
  ["GICD_ISENABLER", 0x100, 0x180],
  ["GICD_ICENABLER", 0x180, 0x200],
  ["GICD_ISPENDR", 0x200, 0x280],
  ["GICD_ICPENDR", 0x280, 0x300],
  ["GICD_ISACTIVER", 0x300, 0x380],
  ["GICD_ICACTIVER", 0x380, 0x400],
  ["GICD_IPRIORITYR", 0x400, 0x800],
  ["GICD_ITARGETSR", 0x800, 0xc00],
  ["GICD_ICFGR", 0xc00, 0xd00],
  ["GICD_CPENDSGIR", 0xf10, 0xf20],
  ["GICD_SPENDSGIR", 0xf20, 0xf30],
];
const GICD_SINGLE: Readonly<Record<number, string>> = {
  0: "GICD_CTLR",
  4: "GICD_TYPER",
  8: "GICD_IIDR",
  3840: "GICD_SGIR",
  4072: "ICPIDR2",
};
const GICC: Readonly<Record<number, string>> = {
  0: "GICC_CTLR",
  4: "GICC_PMR",
  8: "GICC_BPR",
  12: "GICC_IAR",
  16: "GICC_EOIR",
  20: "GICC_RPR",
  24: "GICC_HPPIR",
  252: "GICC_IIDR",
  4096: "GICC_DIR",
};

export function gicdRegister(offset: number): string {
  const single = GICD_SINGLE[offset];
  if (single !== undefined) return single;
  for (const [name, from, end] of GICD_ARRAYS) {
    if (offset >= from && offset < end) return `${name}[${(offset - from) >> 2}]`;
  }
  return `reserved+${hex(offset)}`;
}

export function giccRegister(offset: number): string {
  return GICC[offset] ?? `reserved+${hex(offset)}`;
}

export function gicv2mRegister(offset: number): string {
  return offset === 0x40 ? "MSI_SETSPI_NS" : offset === 8 ? "MSI_TYPER" : `reserved+${hex(offset)}`;
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
