// The VM's PCI host bridge: a generic ECAM (one 4 KiB page of configuration space a function, 1 MiB a bus) and the memory windows
// in which the guest places BARs. Linux drives it with "pci-host-ecam-generic".
//
// Functions (assigned or emulated, all PciFunction) are plugged at a requester id, bus << 8 | device << 3 | function, or behind a root
// port, whose bus the guest numbers. A config access to
// an absent function reads all ones. BARs are found by asking the functions where they decode; the answer is kept until the next
// write to a command register or BAR.

import type { AccessSize, MmioPort } from "../../host/base/mmio.ts";
import { isStateful, type Stateful, type StateReader, type StateRecord } from "../../host/base/state.ts";
import type { PciFunction } from "../../host/devices/ports.ts";
import { RootPort } from "./root-port.ts";

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

/** Where a guest finds a function: on the root bus, or on the bus behind a root port. */
export interface PciPlace {
  /** Requester id on the root bus, or of the port. */
  readonly routingId: number;
  /** Behind that port: device << 3 | function on its bus. Left out: on the root bus itself. */
  readonly behind?: number;
}

/** "00:02.0", or "00:03.0/00.0" for a function behind the root port 00:03.0. Undefined if the text is neither. */
export function parsePlace(text: string): PciPlace | undefined {
  const [first, second, more] = text.split("/");
  const routingId = parseBdf(first ?? "");
  if (routingId === undefined || more !== undefined) return undefined;
  if (second === undefined) return { routingId };
  const behind = parseBdf(`00:${second}`);
  return behind === undefined ? undefined : { routingId, behind };
}

export function formatPlace({ routingId, behind }: PciPlace): string {
  return behind === undefined ? formatBdf(routingId) : `${formatBdf(routingId)}/${formatBdf(behind).slice(3)}`;
}

/** A requester id that no function has: its bus has no number yet. */
export const UNREACHABLE = -1;

/** Bit of configuration space that says a device has more functions: Header Type (0x0e), bit 7. */
const MULTI_FUNCTION_BIT = 8 * 0x0e + 7;

interface FunctionBehindPort {
  readonly port: RootPort;
  readonly deviceFunction: number;
  readonly pciFunction: PciFunction;
  routingId: number;
}

interface Decoder {
  readonly base: number;
  readonly size: number;
  readonly registers: MmioPort;
}

export class PciHostBridge implements Stateful {
  readonly #functions = new Map<number, PciFunction>();
  readonly #behind: FunctionBehindPort[] = [];
  #decoders: Decoder[] | null = null; // not state: found again when asked for
  readonly #buses: number;
  /** Told when the guest gave a bus another number: the function's requester id before and now (UNREACHABLE: none). */
  onMoved: (pciFunction: PciFunction, from: number, to: number) => void = () => {}; // not state: wiring

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

  /**
   * Plugs a function where it belongs; a root port that is not there yet is made. Returns its requester id now (UNREACHABLE until the
   * guest numbers the port's bus), or undefined if the place is taken or the bus does not exist.
   */
  plugAt(place: PciPlace, pciFunction: PciFunction): number | undefined {
    const { routingId, behind } = place;
    if (behind === undefined) return this.plug(routingId, pciFunction) ? routingId : undefined;
    let port = this.#functions.get(routingId);
    if (port === undefined) {
      port = new RootPort(`root port ${formatBdf(routingId)}`);
      if (!this.plug(routingId, port)) return undefined;
    }
    if (!(port instanceof RootPort)) return undefined;
    if (this.#behind.some((entry) => entry.port === port && entry.deviceFunction === behind)) return undefined;
    const entry = { port, deviceFunction: behind, pciFunction, routingId: UNREACHABLE };
    this.#behind.push(entry);
    this.#renumber();
    return entry.routingId;
  }

  /** Takes a function out, wherever it is. */
  remove(pciFunction: PciFunction): void {
    const index = this.#behind.findIndex((entry) => entry.pciFunction === pciFunction);
    if (index >= 0) this.#behind.splice(index, 1);
    for (const [routingId, candidate] of this.#functions) {
      if (candidate === pciFunction) this.#functions.delete(routingId);
    }
    this.#decoders = null;
  }

  /** Functions behind ports follow their buses' numbers; of two that claim one requester id the one that had it keeps it. */
  #renumber(): void {
    const wanted = (entry: FunctionBehindPort): number => {
      const bus = entry.port.secondaryBus;
      return bus === 0 || bus >= this.#buses ? UNREACHABLE : (bus << 8) | entry.deviceFunction;
    };
    // All that move leave first: two ports may swap their buses, and an id must be free before another function gets it.
    for (const entry of this.#behind) {
      const from = entry.routingId;
      if (from === UNREACHABLE || from === wanted(entry)) continue;
      this.#functions.delete(from);
      entry.routingId = UNREACHABLE;
      this.onMoved(entry.pciFunction, from, UNREACHABLE);
    }
    for (const entry of this.#behind) {
      const to = wanted(entry);
      if (entry.routingId !== UNREACHABLE || to === UNREACHABLE || this.#functions.has(to)) continue;
      this.#functions.set(to, entry.pciFunction);
      entry.routingId = to;
      this.onMoved(entry.pciFunction, UNREACHABLE, to);
    }
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
    const value = target.configRead(offset, size);
    const bit = MULTI_FUNCTION_BIT - 8 * offset;
    return bit >= 0 && bit < 8 * size && this.#sharesSlot(routingId) ? (value | (1 << bit)) >>> 0 : value;
  }

  /** Another function has the same device number: only then does software look for functions other than 0 (PCI 3.0 §6.2.1). */
  #sharesSlot(routingId: number): boolean {
    for (let other = routingId & ~7; other <= (routingId | 7); other++) {
      if (other !== routingId && this.#functions.has(other)) return true;
    }
    return false;
  }

  configWrite(routingId: number, offset: number, size: 1 | 2 | 4, value: number): void {
    const target = this.#functions.get(routingId);
    if (target === undefined) return;
    target.configWrite(offset, size, value);
    this.#decoders = null;
    if (target instanceof RootPort) this.#renumber();
  }

  #collect(): Decoder[] {
    const decoders: Decoder[] = [];
    for (const pciFunction of this.#functions.values()) {
      const port = this.#behind.find((entry) => entry.pciFunction === pciFunction)?.port;
      pciFunction.bars.forEach((bar, index) => {
        const base = bar === null ? -1 : pciFunction.barBase(index);
        if (bar !== null && base >= 0 && (port?.forwards(base, bar.size) ?? true))
          decoders.push({ base, size: bar.size, registers: bar.registers });
      });
    }
    return decoders;
  }

  /** Where the guest finds what is behind root ports; what is plugged in is there already, by its place. */
  saveState(): StateRecord {
    return {
      behind: this.#behind.map((entry) => ({ place: this.#placeBehind(entry), routingId: entry.routingId })),
    };
  }

  restoreState(state: StateReader): void {
    const behind = state.records("behind");
    if (behind.length !== this.#behind.length) state.fail("behind", `are not ${this.#behind.length} functions`);
    this.#behind.forEach((entry, index) => {
      if (behind[index]!.text("place") !== this.#placeBehind(entry)) {
        behind[index]!.fail("place", `is not ${this.#placeBehind(entry)}`);
      }
      if (entry.routingId !== UNREACHABLE) this.#functions.delete(entry.routingId);
    });
    this.#behind.forEach((entry, index) => {
      entry.routingId = behind[index]!.number("routingId");
      if (entry.routingId === UNREACHABLE) return;
      if (this.#functions.has(entry.routingId)) behind[index]!.fail("routingId", "is another function's");
      this.#functions.set(entry.routingId, entry.pciFunction);
    });
    this.#decoders = null;
  }

  *stateParts(): Generator<readonly [string, Stateful]> {
    for (const [routingId, pciFunction] of this.#functions) {
      const isBehind = this.#behind.some((entry) => entry.pciFunction === pciFunction);
      if (!isBehind && isStateful(pciFunction)) yield [formatPlace({ routingId }), pciFunction];
    }
    for (const entry of this.#behind) {
      if (isStateful(entry.pciFunction)) yield [this.#placeBehind(entry), entry.pciFunction];
    }
  }

  #placeBehind({ port, deviceFunction }: FunctionBehindPort): string {
    for (const [routingId, pciFunction] of this.#functions) {
      if (pciFunction === port) return formatPlace({ routingId, behind: deviceFunction });
    }
    return formatPlace({ routingId: 0, behind: deviceFunction });
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
