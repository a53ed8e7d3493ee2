// What user space may see and change of a function's configuration space, as tables (Linux: vfio_pci_config.c): for every byte, which
// bits are a virtual copy rather than the function's own, and which bits a write changes.
//
//     header         ids, BARs, ROM, capability pointer, interrupt line and pin virtual; command passes, but for INTx disable
//     capabilities   those listed here, with the registers listed here; all else in them is read-only
//     hidden         capabilities of length 0 here are taken out of their list; the first extended one stays as an empty header
//     the rest       bytes of no capability (and of hidden ones) pass unchanged in both directions: some functions keep registers there
//
// Sections: PCI 3.0 §6.1, §6.7; PCIe 6.0 §7.5, §7.6 ff.

import type { PciFunction } from "../../../devices/ports.ts";
import {
  CAP_EXPRESS,
  CAP_MSI,
  CAP_MSIX,
  CAP_POWER,
  CAP_VENDOR,
  EXT_CAP_ATS,
  EXT_CAP_PRI,
  PCI_BAR0,
  PCI_CAPABILITY_LIST,
  PCI_COMMAND,
  PCI_INTERRUPT_LINE,
  PCI_INTERRUPT_PIN,
  PCI_ROM_ADDRESS,
  PCI_STATUS,
  POWER_CONTROL,
  POWER_STATE,
  STATUS_CAPABILITIES,
} from "../../pci/config-access.ts";

export const CONFIG_BYTES = 4096;
const HEADER_BYTES = 0x40;
const EXTENDED = 0x100;
/** `owner` of a byte that belongs to no capability. */
export const UNASSIGNED = 0xffff;

const ALL = 0xffff_ffff;
/** Bits of a register: offset in its structure, bytes, virtual bits, writable bits. */
type Register = readonly [at: number, bytes: 1 | 2 | 4, virtual: number, writable: number];
type Length = number | ((image: DataView, at: number) => number);

interface CapabilityRule {
  readonly bytes: Length;
  readonly registers: readonly Register[];
  /** Whatever lies behind its header passes unchanged. */
  readonly passes?: true;
}

const HEADER: readonly Register[] = [
  [0x00, 4, ALL, 0],
  [PCI_COMMAND, 2, 0x0400, ALL],
  [PCI_STATUS, 2, STATUS_CAPABILITIES, 0],
  [0x0c, 2, 0, ALL], // Cache Line Size, Latency Timer
  [0x0f, 1, 0, ALL], // BIST
  ...[0, 1, 2, 3, 4, 5].map((bar): Register => [PCI_BAR0 + 4 * bar, 4, ALL, 0]),
  [PCI_ROM_ADDRESS, 4, ALL, 0],
  [PCI_CAPABILITY_LIST, 1, ALL, 0],
  [PCI_INTERRUPT_LINE, 1, ALL, ALL],
  [PCI_INTERRUPT_PIN, 1, ALL, 0],
];

const PME_SUPPORT = 0xf800;
/** PME_En and PME_Status: events that wake go to the kernel. */
const PME_CONTROL = 0x8100;

export const EXPRESS_DEVICE_CONTROL = 8;
const EXPRESS_DEVICE_CONTROL_2 = 0x28;
export const INITIATE_FLR = 0x8000;
/** Max_Payload_Size and Max_Read_Request_Size are the whole bus's. */
export const PAYLOAD_SIZE = 0x00e0;
export const READ_REQUEST_SIZE = 0x7000;
const PHANTOM_FUNCTIONS = 0x0200;
const ARI_FORWARDING = 0x0020;
const INTEGRATED_ENDPOINT = 9;

export const MSI_FLAGS = 2;
export const MSI_ENABLE = 1;
export const MSI_VECTORS_ENABLED = 0x70;
export const ADVANCED_FEATURES_CONTROL = 4;
export const CAP_ADVANCED_FEATURES = 0x13;

const CAPABILITIES: Readonly<Record<number, CapabilityRule>> = {
  [CAP_POWER]: {
    bytes: 8,
    registers: [
      [2, 2, PME_SUPPORT, 0],
      [POWER_CONTROL, 4, PME_CONTROL, ~(PME_CONTROL | POWER_STATE)],
    ],
  },
  2: { bytes: 12, registers: [] }, // AGP
  3: {
    bytes: 8, // Vital Product Data
    registers: [
      [2, 2, ALL, ALL],
      [4, 4, ALL, ALL],
    ],
  },
  [CAP_MSI]: { bytes: msiBytes, registers: [] },
  7: {
    bytes: (image, at) => ((image.getUint8(at + 3) & 0x30) !== 0 ? 24 : 8), // PCI-X
    registers: [
      [2, 2, 0, ALL],
      [8, 4, 0, ALL],
    ],
  },
  8: { bytes: (image, at) => ((image.getUint8(at + 3) & 0xe0) !== 0 ? 28 : 60), registers: [] }, // HyperTransport
  [CAP_VENDOR]: { bytes: (image, at) => image.getUint8(at + 2), registers: [], passes: true },
  [CAP_EXPRESS]: {
    bytes: expressBytes,
    registers: [
      [EXPRESS_DEVICE_CONTROL, 2, INITIATE_FLR | PAYLOAD_SIZE | READ_REQUEST_SIZE, ~PHANTOM_FUNCTIONS],
      [EXPRESS_DEVICE_CONTROL_2, 2, 0, ~ARI_FORWARDING],
    ],
  },
  [CAP_MSIX]: { bytes: 12, registers: [] },
  18: { bytes: (image, at) => ((image.getUint8(at + 4) & 0xf) === 0xf ? 16 : 8), registers: [] }, // SATA
  [CAP_ADVANCED_FEATURES]: { bytes: 6, registers: [[ADVANCED_FEATURES_CONTROL, 1, 1, 1]] },
};

const UNCORRECTABLE = 0x03ff_f031;
const CORRECTABLE = 0xf1c1;
const EXTENDED_CAPABILITIES: Readonly<Record<number, CapabilityRule>> = {
  1: {
    bytes: 0x2c, // Advanced Error Reporting
    registers: [
      [0x04, 4, 0, UNCORRECTABLE],
      [0x08, 4, 0, UNCORRECTABLE],
      [0x0c, 4, 0, UNCORRECTABLE],
      [0x10, 4, 0, CORRECTABLE],
      [0x14, 4, 0, CORRECTABLE],
      [0x18, 4, 0, 0x140], // ECRC generation and check enable
    ],
  },
  2: { bytes: virtualChannelBytes, registers: [] },
  3: { bytes: 12, registers: [] }, // Device Serial Number
  4: { bytes: 16, registers: [[8, 1, 0, ALL]] }, // Power Budgeting
  8: { bytes: virtualChannelBytes, registers: [] }, // Multi-Function Virtual Channel
  9: { bytes: virtualChannelBytes, registers: [] },
  11: { bytes: (image, at) => image.getUint32(at + 4, true) >>> 20, registers: [], passes: true }, // Vendor-Specific
  13: { bytes: accessControlBytes, registers: [] },
  14: { bytes: 8, registers: [] }, // Alternative Routing-ID
  [EXT_CAP_ATS]: { bytes: 8, registers: [] },
  16: { bytes: 64, registers: [] }, // SR-IOV
  18: { bytes: 48, registers: [] }, // Multicast
  [EXT_CAP_PRI]: { bytes: 16, registers: [] },
  21: { bytes: (image, at) => 4 + 8 * (image.getUint8(at + 8) >> 5), registers: [] }, // Resizable BAR
  22: { bytes: (image, at) => 16 + (image.getUint8(at + 4) & 0x1f) + 1, registers: [] }, // Dynamic Power Allocation
  23: { bytes: steeringTagBytes, registers: [] }, // TPH Requester
  24: { bytes: 8, registers: [] }, // Latency Tolerance Reporting
  35: { bytes: (image, at) => image.getUint32(at + 4, true) >>> 20, registers: [], passes: true }, // Designated Vendor-Specific
};

function msiBytes(image: DataView, at: number): number {
  const flags = image.getUint16(at + MSI_FLAGS, true);
  return 10 + ((flags & 0x80) !== 0 ? 4 : 0) + ((flags & 0x100) !== 0 ? 10 : 0);
}

/** Enable and number of messages, address and data are virtual; mask bits are the function's. */
function msiRegisters(image: DataView, at: number): readonly Register[] {
  const flags = image.getUint16(at + MSI_FLAGS, true);
  const wide = (flags & 0x80) !== 0;
  const data = wide ? 12 : 8;
  const registers: Register[] = [
    [MSI_FLAGS, 1, ALL, MSI_ENABLE | MSI_VECTORS_ENABLED],
    [4, 4, ALL, ALL],
    [data, 2, ALL, ALL],
  ];
  if (wide) registers.push([8, 4, ALL, ALL]);
  if ((flags & 0x100) !== 0) registers.push([data + 4, 4, 0, ALL], [data + 8, 4, 0, ALL]);
  return registers;
}

/** By version; an integrated endpoint has no link registers. */
function expressBytes(image: DataView, at: number): number {
  const flags = image.getUint16(at + 2, true);
  const integrated = ((flags >> 4) & 0xf) === INTEGRATED_ENDPOINT;
  if ((flags & 0xf) === 1) return integrated ? 0x0c : 0x14;
  return integrated ? 0x2c : 0x3c;
}

function virtualChannelBytes(image: DataView, at: number): number {
  const bytes = 0x10 + (1 + (image.getUint32(at + 4, true) & 7)) * 12;
  const arbitration = image.getUint32(at + 8, true);
  const phases = (arbitration & 8) !== 0 ? 128 : (arbitration & 4) !== 0 ? 64 : (arbitration & 2) !== 0 ? 32 : 0;
  return phases === 0 ? bytes : Math.ceil(bytes / 16) * 16 + phases / 2;
}

function accessControlBytes(image: DataView, at: number): number {
  if ((image.getUint8(at + 4) & 0x20) === 0) return 8;
  const bits = image.getUint8(at + 5);
  return 8 + (bits === 0 ? 256 : Math.ceil(bits / 32) * 32) / 8;
}

/** With a steering tag table of its own: that follows. */
function steeringTagBytes(image: DataView, at: number): number {
  const capability = image.getUint32(at + 4, true);
  return (capability & 0x600) === 0x200 ? 12 + ((capability >>> 16) & 0x7ff) * 2 + 2 : 12;
}

/** The tables of one function, made when it is opened. */
// Not state: follows from the function.
export class ConfigPermissions {
  /** Bits of each byte that are a virtual copy. */
  readonly virtual = new Uint8Array(CONFIG_BYTES);
  /** Bits of each byte that a write changes. */
  readonly writable = new Uint8Array(CONFIG_BYTES);
  /** Where the capability of each byte begins: 0 in the header, UNASSIGNED between capabilities. */
  readonly owner = new Uint16Array(CONFIG_BYTES);
  /** The virtual copy at first: the function's own registers, without what is hidden. */
  readonly initial: Uint8Array;
  /** Visible capabilities of the first 256 bytes: id → offset (the first of each). */
  readonly capabilities = new Map<number, number>();

  constructor(pci: PciFunction, image: Uint8Array) {
    this.initial = image.slice();
    const view = new DataView(this.initial.buffer);
    this.writable.fill(0xff);
    this.owner.fill(UNASSIGNED);
    this.#assign(0, HEADER_BYTES, HEADER);
    pci.bars.forEach((bar, index) => {
      if (bar !== null) this.#assignBar(index, bar.size, bar.kind === "memory64");
    });
    this.#assignCapabilities(view, image);
    if (this.capabilities.has(CAP_EXPRESS)) this.#assignExtended(view, image);
    this.initial.fill(0, PCI_ROM_ADDRESS, PCI_ROM_ADDRESS + 4);
    const power = this.capabilities.get(CAP_POWER);
    if (power !== undefined) {
      view.setUint16(power + 2, view.getUint16(power + 2, true) & ~PME_SUPPORT, true);
      view.setUint16(power + POWER_CONTROL, view.getUint16(power + POWER_CONTROL, true) & ~PME_CONTROL, true);
    }
  }

  #assign(start: number, bytes: number, registers: readonly Register[]): void {
    const end = Math.min(CONFIG_BYTES, start + bytes);
    this.owner.fill(start, start, end);
    this.writable.fill(0, start, end);
    for (const [at, size, virtual, writable] of registers) {
      if (start + at + size > end) continue;
      for (let i = 0; i < size; i++) {
        this.virtual[start + at + i] = virtual >>> (8 * i);
        this.writable[start + at + i] = writable >>> (8 * i);
      }
    }
  }

  /** A BAR keeps the address bits its size leaves: reading back all ones tells the size (PCI 3.0 §6.2.5.1). */
  #assignBar(index: number, size: number, wide: boolean): void {
    const mask = ~BigInt(size - 1);
    for (let i = 0; i < (wide ? 8 : 4); i++) {
      const at = PCI_BAR0 + 4 * index + i;
      this.writable[at] = Number((mask >> BigInt(8 * i)) & 0xffn) & (i === 0 ? 0xf0 : 0xff);
    }
  }

  #assignCapabilities(view: DataView, image: Uint8Array): void {
    if ((image[PCI_STATUS]! & STATUS_CAPABILITIES) === 0) return;
    let pointer = PCI_CAPABILITY_LIST;
    let at = image[PCI_CAPABILITY_LIST]! & 0xfc;
    for (let steps = 0; at >= HEADER_BYTES && steps < 48; steps++) {
      const id = image[at]!;
      const next = image[at + 1]! & 0xfc;
      const rule = CAPABILITIES[id];
      const bytes = rule === undefined ? 0 : lengthOf(rule, view, at);
      if (rule === undefined || bytes === 0) {
        this.initial[pointer] = next;
      } else {
        this.#assign(at, bytes, id === CAP_MSI ? msiRegisters(view, at) : rule.registers);
        if (rule.passes) this.writable.fill(0xff, at + 2, Math.min(CONFIG_BYTES, at + bytes));
        this.virtual[at + 1] = 0xff;
        if (!this.capabilities.has(id)) this.capabilities.set(id, at);
        pointer = at + 1;
      }
      at = next;
    }
    if (this.capabilities.size === 0) this.initial[PCI_STATUS]! &= ~STATUS_CAPABILITIES;
  }

  #assignExtended(view: DataView, image: Uint8Array): void {
    const physical = new DataView(image.buffer, image.byteOffset, image.length);
    if (physical.getUint32(EXTENDED, true) === 0) return;
    let previous = -1;
    let visible = 0;
    let at = EXTENDED;
    for (let steps = 0; at >= EXTENDED && steps < 480; steps++) {
      const header = physical.getUint32(at, true);
      const next = (header >>> 20) & 0xffc;
      const rule = EXTENDED_CAPABILITIES[header & 0xffff];
      const bytes = rule === undefined ? 0 : lengthOf(rule, physical, at);
      if (rule !== undefined && bytes !== 0) {
        this.#assign(at, bytes, rule.registers);
        if (rule.passes) this.writable.fill(0xff, at + 4, Math.min(CONFIG_BYTES, at + bytes));
        visible++;
      } else if (previous >= 0) {
        view.setUint32(previous, ((view.getUint32(previous, true) & 0xf_ffff) | (next << 20)) >>> 0, true);
        at = next;
        continue;
      } else {
        // The list begins here whatever stands here: an empty header carries it on.
        this.#assign(at, 4, []);
        view.setUint32(at, (header & 0xffc0_0000) >>> 0, true);
      }
      this.virtual.fill(0xff, at, at + 4);
      previous = at;
      at = next;
    }
    if (visible === 0) view.setUint32(EXTENDED, 0, true);
  }
}

/** Never past what configuration space has. */
function lengthOf(rule: CapabilityRule, image: DataView, at: number): number {
  // The registers that say a length lie in the first 12 bytes.
  if (typeof rule.bytes === "number") return rule.bytes;
  return at + 12 > CONFIG_BYTES ? 0 : rule.bytes(image, at);
}
