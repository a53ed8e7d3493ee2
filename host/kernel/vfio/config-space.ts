// The configuration space that user space sees of an assigned function (Linux: vfio_pci_config.c). The physical one stays the
// kernel's: where memory decodes, which messages are armed, whether the IOMMU's services are on.
//
//     BARs, ROM            virtual: user space sizes and moves them, nothing decodes elsewhere
//     command              memory enable and INTx disable virtual (and acted on), bus master passes through
//     MSI                  virtual: SET_IRQS arms messages, what user space writes here is only remembered
//     MSI-X, ATS, PRI, PASID, unknown capabilities    read as they are, writes dropped
//     PCI Express          reads pass; writing Initiate FLR resets the function through VFIO
//     power management     power state acted on; vendor-specific: passes through
//
// Accesses are split into naturally aligned pieces of 1, 2 or 4 bytes.

import {
  CAP_EXPRESS,
  CAP_MSI,
  CAP_POWER,
  CAP_VENDOR,
  COMMAND_INTX_DISABLE,
  COMMAND_MASTER,
  COMMAND_MEMORY,
  capabilities,
  PCI_BAR0,
  PCI_COMMAND,
  PCI_INTERRUPT_LINE,
  PCI_INTERRUPT_PIN,
  PCI_ROM_ADDRESS,
} from "../pci/config-access.ts";
import type { PciDevice } from "../pci/pci-device.ts";

export const CONFIG_BYTES = 4096;
const CAP_BYTES: Readonly<Record<number, number>> = { [CAP_MSI]: 0x18, [CAP_EXPRESS]: 0x3c, [CAP_POWER]: 8 };
const MSI_FLAGS = 2;
const MSI_ENABLE = 1;
const EXPRESS_DEVICE_CONTROL = 8;
const INITIATE_FLR = 0x8000;

/** What a write makes the device do beyond configuration space. */
export interface ConfigActions {
  /** User space switched INTx off or on in the command register. */
  disableIntx(disabled: boolean): void;
  /** True while user space armed MSIs by SET_IRQS: only then may the virtual enable bit be set. */
  msiArmed(): boolean;
  /** User space asked for a function-level reset. */
  reset(): void;
}

interface Range {
  readonly id: number;
  readonly at: number;
  readonly bytes: number;
}

export class VirtualConfigSpace {
  readonly #device: PciDevice;
  readonly #actions: ConfigActions;
  /** What user space wrote, where that is what it reads. */
  readonly #virtual = new Uint8Array(CONFIG_BYTES);
  readonly #ranges: readonly Range[];

  constructor(device: PciDevice, actions: ConfigActions) {
    this.#device = device;
    this.#actions = actions;
    this.#ranges = capabilities(device.function).map(([id, at]) => ({ id, at, bytes: this.#lengthOf(id, at) }));
    this.reset();
  }

  #lengthOf(id: number, at: number): number {
    if (id === CAP_VENDOR) return Math.max(2, this.#device.configRead(at + 2, 1));
    return CAP_BYTES[id] ?? 2;
  }

  /** As when the device was opened: virtual registers take what the function has. */
  reset(): void {
    this.#virtual.fill(0);
    for (let bar = 0; bar < 6; bar++) this.#setWord(PCI_BAR0 + 4 * bar, this.#device.configRead(PCI_BAR0 + 4 * bar, 4));
    this.#virtual[PCI_INTERRUPT_LINE] = this.#device.configRead(PCI_INTERRUPT_LINE, 1);
    this.#virtual[PCI_INTERRUPT_PIN] = this.#device.configRead(PCI_INTERRUPT_PIN, 1);
    const msi = this.#ranges.find(({ id }) => id === CAP_MSI);
    if (msi !== undefined) {
      for (let i = 0; i < msi.bytes; i++) this.#virtual[msi.at + i] = this.#device.configRead(msi.at + i, 1);
      this.#virtual[msi.at + MSI_FLAGS] = this.#virtual[msi.at + MSI_FLAGS]! & ~MSI_ENABLE;
    }
    const command = this.#device.configRead(PCI_COMMAND, 2);
    this.#setHalf(PCI_COMMAND, command & ~(COMMAND_INTX_DISABLE | COMMAND_MASTER));
  }

  /** True if user space has memory decoding on: BAR accesses work only then. */
  get memoryEnabled(): boolean {
    return (this.#half(PCI_COMMAND) & COMMAND_MEMORY) !== 0;
  }

  get intxDisabled(): boolean {
    return (this.#half(PCI_COMMAND) & COMMAND_INTX_DISABLE) !== 0;
  }

  /** Fills `into` from `offset`; the range lies within 4096 bytes. */
  read(offset: number, into: Uint8Array): void {
    for (let i = 0; i < into.length; i++) into[i] = this.#byte(offset + i);
  }

  #byte(at: number): number {
    if (this.#isVirtual(at)) return this.#virtual[at]!;
    const physical = this.#device.configRead(at, 1);
    if (at >= PCI_COMMAND && at < PCI_COMMAND + 2) {
      const mask = (COMMAND_MEMORY | COMMAND_INTX_DISABLE) >> (8 * (at - PCI_COMMAND));
      return (physical & ~mask & 0xff) | (this.#virtual[at]! & mask);
    }
    return physical;
  }

  #isVirtual(at: number): boolean {
    if (at >= PCI_BAR0 && at < PCI_BAR0 + 24) return true;
    if (at >= PCI_ROM_ADDRESS && at < PCI_ROM_ADDRESS + 4) return true;
    if (at === PCI_INTERRUPT_LINE || at === PCI_INTERRUPT_PIN) return true;
    const range = this.#rangeAt(at);
    // Id and next pointer are the function's.
    return range !== null && range.id === CAP_MSI && at >= range.at + MSI_FLAGS;
  }

  #rangeAt(at: number): Range | null {
    for (const range of this.#ranges) if (at >= range.at && at < range.at + range.bytes) return range;
    return null;
  }

  /** Writes in naturally aligned pieces. */
  write(offset: number, from: Uint8Array): void {
    let at = 0;
    while (at < from.length) {
      const left = from.length - at;
      const size = (offset + at) % 4 === 0 && left >= 4 ? 4 : (offset + at) % 2 === 0 && left >= 2 ? 2 : 1;
      let value = 0;
      for (let i = size - 1; i >= 0; i--) value = value * 256 + from[at + i]!;
      this.#writePiece(offset + at, size, value);
      at += size;
    }
  }

  #writePiece(at: number, size: 1 | 2 | 4, value: number): void {
    if (at < 0x40) {
      this.#writeHeader(at, size, value);
      return;
    }
    const range = this.#rangeAt(at);
    if (range === null || at < range.at + 2) return;
    switch (range.id) {
      case CAP_MSI:
        this.#writeMsi(range.at, at, size, value);
        break;
      case CAP_EXPRESS:
        this.#writeExpress(range.at, at, size, value);
        break;
      case CAP_VENDOR:
      case CAP_POWER:
        this.#device.configWrite(at, size, value);
        break;
    }
  }

  #writeHeader(at: number, size: 1 | 2 | 4, value: number): void {
    for (let i = 0; i < size; i++) this.#writeHeaderByte(at + i, (value >>> (8 * i)) & 0xff);
    if (at < PCI_COMMAND + 2 && at + size > PCI_COMMAND) this.#commandWritten();
  }

  #writeHeaderByte(at: number, value: number): void {
    if (at >= PCI_COMMAND && at < PCI_COMMAND + 2) this.#virtual[at] = value;
    else if (at >= PCI_BAR0 && at < PCI_BAR0 + 24) this.#writeBarByte(at, value);
    else if (at === PCI_INTERRUPT_LINE) this.#virtual[at] = value;
    else if (at === 6 || at === 7 || at === 0x0c) this.#device.configWrite(at, 1, value);
  }

  /** A BAR keeps the address bits its size leaves; reading back all ones tells the size (PCI 3.0 §6.2.5.1). */
  #writeBarByte(at: number, value: number): void {
    const index = (at - PCI_BAR0) >> 2;
    const byte = (at - PCI_BAR0) & 3;
    const own = this.#device.function.bars[index] ?? null;
    const low = index > 0 ? (this.#device.function.bars[index - 1] ?? null) : null;
    const upperHalf = own === null && low !== null && low.kind === "memory64";
    const bar = upperHalf ? low : own;
    if (bar === null) return;
    const mask = ~BigInt(bar.size - 1) >> (upperHalf ? 32n : 0n);
    const writable = Number((mask >> BigInt(8 * byte)) & 0xffn) & (upperHalf || byte > 0 ? 0xff : 0xf0);
    this.#virtual[at] = (this.#virtual[at]! & ~writable) | (value & writable);
  }

  #commandWritten(): void {
    const command = this.#half(PCI_COMMAND);
    const physical = this.#device.configRead(PCI_COMMAND, 2);
    // Memory decoding of the function itself stays on: the kernel reaches it, user space is refused by the virtual bit.
    const passed = 0x0147 & ~COMMAND_MEMORY;
    const kept = physical & ~passed;
    this.#device.configWrite(PCI_COMMAND, 2, kept | (command & passed) | COMMAND_MEMORY);
    this.#actions.disableIntx((command & COMMAND_INTX_DISABLE) !== 0);
  }

  #writeMsi(start: number, at: number, size: number, value: number): void {
    const flags = start + MSI_FLAGS;
    for (let i = 0; i < size; i++) {
      const byte = (value >>> (8 * i)) & 0xff;
      const where = at + i;
      // Of the flags, enable and the number of messages are software's.
      if (where === flags) {
        const enable = this.#actions.msiArmed() ? byte & MSI_ENABLE : 0;
        this.#virtual[where] = (this.#virtual[where]! & ~0x71) | (byte & 0x70) | enable;
      } else if (where > flags + 1) {
        this.#virtual[where] = byte;
      }
    }
  }

  #writeExpress(start: number, at: number, size: 1 | 2 | 4, value: number): void {
    const control = start + EXPRESS_DEVICE_CONTROL;
    if (at > control + 1 || at + size <= control) return;
    let mask = 0;
    let written = 0;
    for (let i = 0; i < size; i++) {
      const byte = at + i - control;
      if (byte !== 0 && byte !== 1) continue;
      mask |= 0xff << (8 * byte);
      written |= ((value >>> (8 * i)) & 0xff) << (8 * byte);
    }
    if ((written & INITIATE_FLR) !== 0) this.#actions.reset();
    // Error reporting and ordering are the user's; payload and request sizes are the bus's.
    mask &= 0x0b1f;
    this.#device.configWrite(control, 2, (this.#device.configRead(control, 2) & ~mask) | (written & mask));
  }

  #half(at: number): number {
    return this.#virtual[at]! | (this.#virtual[at + 1]! << 8);
  }

  #setHalf(at: number, value: number): void {
    this.#virtual[at] = value & 0xff;
    this.#virtual[at + 1] = (value >> 8) & 0xff;
  }

  #setWord(at: number, value: number): void {
    for (let i = 0; i < 4; i++) this.#virtual[at + i] = (value >>> (8 * i)) & 0xff;
  }
}
