// A PCI Express endpoint function: configuration space with a type 0 header (PCIe 6.0 §7.5.1), BARs, capability lists, and the
// choice of how an interrupt leaves it. Device models extend it: they say who they are, add BARs and capabilities in their
// constructor, and call `raise`, `setInterruptLevel` and `dma`.
//
//     configWrite → masks of config-space.ts → the capability written to is told → INTx level is worked out again
//     raise(vector) → MSI-X if enabled, else MSI if enabled → 4-byte write through FunctionPorts.dma
//     setInterruptLevel → INTx, unless MSI or MSI-X is enabled or the command register disables it
//
// A function-level reset (§6.6.2) puts all registers back and calls the model's `onReset`, which gives up DMA in flight.

import { pfnOfHalves } from "../base/address.ts";
import { isStateful, type Stateful, type StateReader, type StateRecord } from "../base/state.ts";
import type { Capability } from "./capabilities/capability.ts";
import { MsiCapability } from "./capabilities/msi.ts";
import { MsixCapability, type MsixPlace } from "./capabilities/msix.ts";
import {
  PciExpressCapability,
  type PORT_TYPE_ENDPOINT,
  PORT_TYPE_INTEGRATED_ENDPOINT,
} from "./capabilities/pci-express.ts";
import { PowerManagementCapability } from "./capabilities/power-management.ts";
import { ConfigSpace } from "./config-space.ts";
import {
  type BarDescription,
  DMA_ABORTED,
  type DmaStatus,
  type FunctionPorts,
  NO_PASID,
  type PciFunction,
} from "./ports.ts";

const VENDOR_ID = 0x00;
const DEVICE_ID = 0x02;
const COMMAND = 0x04;
const STATUS = 0x06;
const REVISION_ID = 0x08;
const CLASS_CODE = 0x09;
const CACHE_LINE_SIZE = 0x0c;
const FIRST_BAR = 0x10;
const SUBSYSTEM_VENDOR_ID = 0x2c;
const SUBSYSTEM_ID = 0x2e;
const CAPABILITIES_POINTER = 0x34;
const INTERRUPT_LINE = 0x3c;
const INTERRUPT_PIN = 0x3d;
const FIRST_CAPABILITY = 0x40;
const FIRST_EXTENDED_CAPABILITY = 0x100;

export const COMMAND_MEMORY = 1 << 1;
export const COMMAND_BUS_MASTER = 1 << 2;
const COMMAND_INTERRUPT_DISABLE = 1 << 10;
/** Memory, bus master, parity error response, SERR#, INTx disable. No I/O space. */
const COMMAND_WRITABLE = 0x0546;
const STATUS_INTERRUPT = 1 << 3;
const STATUS_CAPABILITIES = 1 << 4;
/** Error bits, cleared by writing 1. */
const STATUS_ERRORS = 0xf900;

const MEMORY_64 = 0x4;
const PREFETCHABLE = 0x8;

export interface FunctionIdentity {
  readonly name: string;
  readonly vendorId: number;
  readonly deviceId: number;
  readonly revision: number;
  /** Base class, sub-class, interface: 24 bits. */
  readonly classCode: number;
  readonly subsystemVendorId?: number;
  readonly subsystemId?: number;
  /** Has an INTA# pin. Default true. */
  readonly interruptPin?: boolean;
  readonly portType?: typeof PORT_TYPE_ENDPOINT | typeof PORT_TYPE_INTEGRATED_ENDPOINT;
  /** Sends requests with PASID prefixes. */
  readonly prefixes?: boolean;
  /** False: software finds neither MSI nor MSI-X. Default true. */
  readonly messages?: boolean;
}

interface PlacedCapability {
  readonly capability: Capability;
  readonly at: number;
}

/** What an unplugged function reaches: nothing. */
const NOWHERE: FunctionPorts = {
  dma: { read: () => DMA_ABORTED, write: () => DMA_ABORTED },
  interrupt: { intx: () => {} },
  clock: { now: 0, schedule: () => 0, cancel: () => {} },
};

export abstract class PciEndpoint implements PciFunction, Stateful {
  readonly name: string;
  readonly bars: readonly (BarDescription | null)[];
  protected ports: FunctionPorts = NOWHERE; // not state: wiring
  protected readonly config = new ConfigSpace();

  // not state, to the blank line: how the model was put together, and a message on its way.
  readonly #bars: (BarDescription | null)[] = [null, null, null, null, null, null];
  readonly #capabilities: PlacedCapability[] = [];
  readonly #power: PowerManagementCapability;
  readonly #express: PciExpressCapability;
  readonly #expressAt: number;
  readonly #messages: boolean;
  #msi: MsiCapability | null = null;
  #msix: MsixCapability | null = null;
  #lastPointer = CAPABILITIES_POINTER;
  #nextFree = FIRST_CAPABILITY;
  #lastExtended = 0;
  #nextExtended = FIRST_EXTENDED_CAPABILITY;
  readonly #message = new Uint8Array(4);

  #interruptWanted = false;
  #interruptAsserted = false;

  constructor(identity: FunctionIdentity) {
    this.name = identity.name;
    this.bars = this.#bars;
    this.#messages = identity.messages ?? true;
    const { config } = this;
    config.declare(VENDOR_ID, 2, { value: identity.vendorId });
    config.declare(DEVICE_ID, 2, { value: identity.deviceId });
    config.declare(COMMAND, 2, { writable: COMMAND_WRITABLE });
    config.declare(STATUS, 2, { value: STATUS_CAPABILITIES, oneToClear: STATUS_ERRORS });
    config.declare(REVISION_ID, 1, { value: identity.revision });
    config.declare(CLASS_CODE, 1, { value: identity.classCode });
    config.declare(CLASS_CODE + 1, 2, { value: identity.classCode >>> 8 });
    config.declare(CACHE_LINE_SIZE, 1, { writable: 0xff });
    config.declare(SUBSYSTEM_VENDOR_ID, 2, { value: identity.subsystemVendorId ?? identity.vendorId });
    config.declare(SUBSYSTEM_ID, 2, { value: identity.subsystemId ?? 0 });
    config.declare(INTERRUPT_LINE, 1, { writable: 0xff });
    config.declare(INTERRUPT_PIN, 1, { value: identity.interruptPin === false ? 0 : 1 });
    this.#power = new PowerManagementCapability(() => this.onPowerChange());
    this.addCapability(this.#power);
    this.#express = new PciExpressCapability({
      portType: identity.portType ?? PORT_TYPE_INTEGRATED_ENDPOINT,
      prefixes: identity.prefixes ?? false,
      onReset: () => this.reset(),
      transactionsPending: () => this.transactionsPending(),
    });
    this.#expressAt = this.addCapability(this.#express);
  }

  /** The model gives up what it was doing; its registers go back to their reset values. */
  protected abstract onReset(): void;

  /** True while DMA of the function's is under way (Device Status, Transactions Pending). */
  protected transactionsPending(): boolean {
    return false;
  }

  /** The function entered or left D3hot. */
  protected onPowerChange(): void {}

  get asleep(): boolean {
    return this.#power.asleep;
  }

  /** False in D3hot, where a function neither answers memory requests nor makes any. */
  protected get awake(): boolean {
    return !this.#power.asleep;
  }

  /** Adds BAR `index`; a 64-bit one takes the next register too. Throws RangeError if it does not fit (a bug of the model). */
  protected addBar(index: number, bar: BarDescription): void {
    const wide = bar.kind === "memory64";
    if (index < 0 || index + (wide ? 2 : 1) > 6 || bar.size < 16 || !Number.isInteger(Math.log2(bar.size))) {
      throw new RangeError(`${this.name}: BAR ${index} does not fit`);
    }
    this.#bars[index] = bar;
    const at = FIRST_BAR + 4 * index;
    const type = (wide ? MEMORY_64 : 0) | (bar.prefetchable ? PREFETCHABLE : 0);
    // The address bits below the size are hardwired to zero: that is how software finds the size (§7.5.1.2.1).
    const sizeMask = ~BigInt(bar.size - 1);
    this.config.declare(at, 4, { value: type, writable: Number(BigInt.asUintN(32, sizeMask) & 0xfffffff0n) });
    if (wide) this.config.declare(at + 4, 4, { writable: Number(BigInt.asUintN(32, sizeMask >> 32n)) });
  }

  /** Links a capability into its list; returns its offset in configuration space. */
  protected addCapability(capability: Capability): number {
    const extended = capability.extendedVersion !== undefined;
    const at = extended ? this.#nextExtended : this.#nextFree;
    const end = (at + capability.bytes + 3) & ~3;
    if (end > (extended ? 4096 : FIRST_EXTENDED_CAPABILITY)) {
      throw new RangeError(`${this.name}: no room for capability ${capability.id}`);
    }
    capability.place(this.config, at);
    if (capability.extendedVersion !== undefined) {
      this.config.declare(at, 4, { value: capability.id | (capability.extendedVersion << 16) });
      // The next pointer is bits 31:20 of the header before (§7.6.3).
      if (this.#lastExtended !== 0) {
        this.config.declare(this.#lastExtended, 4, {
          value: (this.config.get32(this.#lastExtended) | (at << 20)) >>> 0,
        });
      }
      this.#lastExtended = at;
      this.#nextExtended = end;
    } else {
      this.config.declare(at, 1, { value: capability.id });
      this.config.declare(this.#lastPointer, 1, { value: at });
      this.#lastPointer = at + 1;
      this.#nextFree = end;
    }
    this.#capabilities.push({ capability, at });
    return at;
  }

  protected addMsi(vectors: number): MsiCapability {
    this.#msi = new MsiCapability(vectors, (low, high, data) => this.#sendMessage(low, high, data));
    this.#addMessages(this.#msi);
    return this.#msi;
  }

  protected addMsix(vectors: number, place: MsixPlace): MsixCapability {
    this.#msix = new MsixCapability(vectors, place, (low, high, data) => this.#sendMessage(low, high, data));
    this.#addMessages(this.#msix);
    return this.#msix;
  }

  /** One that is hidden lies in a configuration space that nobody sees: it is never enabled. */
  #addMessages(capability: Capability): void {
    if (this.#messages) this.addCapability(capability);
    else capability.place(new ConfigSpace(), FIRST_CAPABILITY);
  }

  connect(ports: FunctionPorts): void {
    this.ports = ports;
  }

  configRead(offset: number, size: 1 | 2 | 4): number {
    if (!ConfigSpace.accepts(offset, size)) return size === 4 ? 0xffffffff : 2 ** (8 * size) - 1;
    if (offset >= this.#expressAt && offset < this.#expressAt + this.#express.bytes) this.#express.refresh();
    return this.config.read(offset, size);
  }

  configWrite(offset: number, size: 1 | 2 | 4, value: number): void {
    if (!ConfigSpace.accepts(offset, size)) return;
    this.config.write(offset, size, value);
    for (const { capability, at } of this.#capabilities) {
      if (offset < at + capability.bytes && offset + size > at) capability.written?.(offset - at, offset + size - at);
    }
    this.#driveInterruptPin();
  }

  get #command(): number {
    return this.config.get16(COMMAND);
  }

  barBase(index: number): number {
    const bar = this.#bars[index] ?? null;
    if (bar === null || (this.#command & COMMAND_MEMORY) === 0 || !this.awake) return -1;
    const at = FIRST_BAR + 4 * index;
    const low = (this.config.get32(at) & 0xfffffff0) >>> 0;
    return bar.kind === "memory64" ? this.config.get32(at + 4) * 2 ** 32 + low : low;
  }

  reset(): void {
    this.config.reset();
    for (const { capability } of this.#capabilities) capability.reset?.();
    this.#interruptWanted = false;
    this.#driveInterruptPin();
    this.onReset();
  }

  /** Reads memory on the function's behalf. Addresses as DmaPort. */
  protected dmaRead(
    pfn: number,
    offset: number,
    into: Uint8Array,
    at: number,
    length: number,
    pasid: number,
    privileged = false,
  ): DmaStatus {
    return this.awake ? this.ports.dma.read(pfn, offset, into, at, length, pasid, privileged) : DMA_ABORTED;
  }

  protected dmaWrite(
    pfn: number,
    offset: number,
    from: Uint8Array,
    at: number,
    length: number,
    pasid: number,
    privileged = false,
  ): DmaStatus {
    return this.awake ? this.ports.dma.write(pfn, offset, from, at, length, pasid, privileged) : DMA_ABORTED;
  }

  /** True if interrupts leave as messages: the pin is then silent. */
  protected get messagesEnabled(): boolean {
    return this.#msix?.enabled === true || this.#msi?.enabled === true;
  }

  /** Sends interrupt `vector` as a message if software enabled MSI-X or MSI; otherwise nothing (the pin says it). */
  protected raise(vector: number): void {
    if (this.#msix?.enabled === true) this.#msix.raise(vector);
    else if (this.#msi?.enabled === true) this.#msi.raise(vector);
  }

  /** Level that the function wants on its interrupt pin. */
  protected setInterruptLevel(asserted: boolean): void {
    this.#interruptWanted = asserted;
    this.#driveInterruptPin();
  }

  #driveInterruptPin(): void {
    const { config } = this;
    const status = config.get16(STATUS);
    // Interrupt Status shows the function's wish even while INTx is disabled (§7.5.1.1.4).
    const wanted = this.#interruptWanted && !this.messagesEnabled;
    config.set16(STATUS, wanted ? status | STATUS_INTERRUPT : status & ~STATUS_INTERRUPT);
    const asserted = wanted && (this.#command & COMMAND_INTERRUPT_DISABLE) === 0;
    if (asserted === this.#interruptAsserted) return;
    this.#interruptAsserted = asserted;
    this.ports.interrupt.intx(asserted);
  }

  #sendMessage(addressLow: number, addressHigh: number, data: number): void {
    const message = this.#message;
    message[0] = data;
    message[1] = data >>> 8;
    message[2] = data >>> 16;
    message[3] = data >>> 24;
    // A refused message is lost, as on a real bus: a posted write has no completion.
    this.dmaWrite(pfnOfHalves(addressLow, addressHigh), addressLow & 0xffc, message, 0, 4, NO_PASID);
  }

  saveState(): StateRecord {
    return { interruptWanted: this.#interruptWanted, interruptAsserted: this.#interruptAsserted };
  }

  restoreState(state: StateReader): void {
    this.#interruptWanted = state.boolean("interruptWanted");
    this.#interruptAsserted = state.boolean("interruptAsserted");
  }

  *stateParts(): Generator<readonly [string, Stateful]> {
    yield ["config", this.config];
    for (const { capability } of this.#capabilities) {
      const kind = capability.extendedVersion === undefined ? "capability" : "extended capability";
      if (isStateful(capability)) yield [`${kind} ${capability.id}`, capability];
    }
  }
}
