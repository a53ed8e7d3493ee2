// The VM's PCI host bridge: a generic ECAM (one 4 KiB page of configuration space a function, 1 MiB a bus) and the memory windows
// in which the guest places BARs. Linux drives it with "pci-host-ecam-generic".
//
// Functions (assigned or emulated, all PciFunction) are plugged at a routing id: bus << 8 | device << 3 | function. A config access to
// an absent function reads all ones. BARs are found by asking the functions where they decode; the answer is kept until the next
// write to a command register or BAR.

import type { AccessSize, MmioPort } from "../../host/base/mmio.ts";
import type { PciFunction } from "../../host/devices/ports.ts";

/** "00:02.0" → 0x0010; a domain prefix must be 0000. Undefined if the text is not a PCI address. */
export function parseBdf(text: string): number | undefined {
  const match = /^(?:([0-9a-f]{4}):)?([0-9a-f]{2}):([01][0-9a-f])\.([0-7])$/i.exec(text);
  if (match === null || (match[1] !== undefined && match[1] !== "0000")) return undefined;
  return (Number.parseInt(match[2]!, 16) << 8) | (Number.parseInt(match[3]!, 16) << 3) | Number(match[4]);
}

/** 0x0010 → "00:02.0". */
export function formatBdf(routingId: number): string {
  const two = (value: number) => value.toString(16).padStart(2, "0");
  return `${two((routingId >> 8) & 0xff)}:${two((routingId >> 3) & 0x1f)}.${routingId & 7}`;
}

interface Decoder {
  readonly base: number;
  readonly size: number;
  readonly registers: MmioPort;
}

export class PciHostBridge {
  readonly #functions = new Map<number, PciFunction>();
  #decoders: Decoder[] | null = null;
  readonly #buses: number;
  /** Told of every configuration write, after it took effect (an assigned device's BDF or BARs may have moved). */
  onConfigWrite: ((routingId: number, offset: number) => void) | null = null;

  constructor(buses: number) {
    this.#buses = buses;
  }

  get functions(): ReadonlyMap<number, PciFunction> {
    return this.#functions;
  }

  /** Plugs a function; false if something is there already or the bus does not exist. */
  plug(routingId: number, pciFunction: PciFunction): boolean {
    if (this.#functions.has(routingId) || routingId >> 8 >= this.#buses) return false;
    this.#functions.set(routingId, pciFunction);
    this.#decoders = null;
    return true;
  }

  unplug(routingId: number): PciFunction | undefined {
    const gone = this.#functions.get(routingId);
    this.#functions.delete(routingId);
    this.#decoders = null;
    return gone;
  }

  /** Registers of the ECAM region (1 MiB a bus). */
  readonly ecam: MmioPort = new Ecam(this);

  /** Registers of a BAR window that starts at guest-physical `base`. */
  window(base: number): MmioPort {
    return new BarWindow(this, base);
  }

  /** The BAR that decodes `address`, or null. */
  decode(address: number): Decoder | null {
    this.#decoders ??= this.#collect();
    const decoders = this.#decoders;
    for (let i = 0; i < decoders.length; i++) {
      const decoder = decoders[i]!;
      if (address >= decoder.base && address < decoder.base + decoder.size) return decoder;
    }
    return null;
  }

  configRead(routingId: number, offset: number, size: 1 | 2 | 4): number {
    const target = this.#functions.get(routingId);
    if (target === undefined) return size === 4 ? 0xffffffff : 2 ** (8 * size) - 1;
    return target.configRead(offset, size);
  }

  configWrite(routingId: number, offset: number, size: 1 | 2 | 4, value: number): void {
    const target = this.#functions.get(routingId);
    if (target === undefined) return;
    target.configWrite(offset, size, value);
    this.#decoders = null;
    this.onConfigWrite?.(routingId, offset);
  }

  #collect(): Decoder[] {
    const decoders: Decoder[] = [];
    for (const pciFunction of this.#functions.values()) {
      pciFunction.bars.forEach((bar, index) => {
        const base = bar === null ? -1 : pciFunction.barBase(index);
        if (bar !== null && base >= 0) decoders.push({ base, size: bar.size, registers: bar.registers });
      });
    }
    return decoders;
  }
}

class Ecam implements MmioPort {
  high = 0;
  readonly #bridge: PciHostBridge;

  constructor(bridge: PciHostBridge) {
    this.#bridge = bridge;
  }

  mmioRead(offset: number, size: AccessSize): number {
    const routingId = Math.floor(offset / 4096);
    const register = offset & 0xfff;
    if (size !== 8) return this.#bridge.configRead(routingId, register, size);
    this.high = this.#bridge.configRead(routingId, register + 4, 4);
    return this.#bridge.configRead(routingId, register, 4);
  }

  mmioWrite(offset: number, size: AccessSize, lo: number, hi: number): void {
    const routingId = Math.floor(offset / 4096);
    const register = offset & 0xfff;
    this.#bridge.configWrite(routingId, register, size === 8 ? 4 : size, lo);
    if (size === 8) this.#bridge.configWrite(routingId, register + 4, 4, hi);
  }
}

class BarWindow implements MmioPort {
  high = 0;
  readonly #bridge: PciHostBridge;
  readonly #base: number;

  constructor(bridge: PciHostBridge, base: number) {
    this.#bridge = bridge;
    this.#base = base;
  }

  mmioRead(offset: number, size: AccessSize): number {
    const address = this.#base + offset;
    const decoder = this.#bridge.decode(address);
    if (decoder === null) {
      this.high = 0xffffffff;
      return size >= 4 ? 0xffffffff : 2 ** (8 * size) - 1;
    }
    const low = decoder.registers.mmioRead(address - decoder.base, size);
    if (size === 8) this.high = decoder.registers.high;
    return low;
  }

  mmioWrite(offset: number, size: AccessSize, lo: number, hi: number): void {
    const address = this.#base + offset;
    const decoder = this.#bridge.decode(address);
    if (decoder !== null) decoder.registers.mmioWrite(address - decoder.base, size, lo, hi);
  }
}
