// Interrupts of an assigned function as eventfds (Linux: vfio_pci_intrs.c): SET_IRQS binds an eventfd to INTx, to MSI or MSI-X vectors,
// to errors, or to the request to give the device back.
//
//     message   device's DMA write → IOMMU → interrupt file → handler here → eventfd
//     INTx      pin → masked at the function (command register) → eventfd; user space unmasks when it has served it
//
// The address programmed into the function is what the device's own domain shows of the doorbell page (the software MSI window).
// At any time the function uses one of INTx, MSI, MSI-X, or none.

import type { Clock, ClockEvent } from "../../../base/clock.ts";
import type { Stateful, StateReader, StateRecord } from "../../../base/state.ts";
import type { Trace } from "../../../base/trace.ts";
import { EBUSY, EINVAL, ENOSPC, ENOTTY, ERANGE } from "../../../uapi/errno.ts";
import {
  VFIO_IRQ_SET_ACTION_MASK,
  VFIO_IRQ_SET_ACTION_TRIGGER,
  VFIO_IRQ_SET_ACTION_UNMASK,
  VFIO_IRQ_SET_DATA_BOOL,
  VFIO_IRQ_SET_DATA_EVENTFD,
  VFIO_IRQ_SET_DATA_NONE,
  VFIO_PCI_ERR_IRQ_INDEX,
  VFIO_PCI_INTX_IRQ_INDEX,
  VFIO_PCI_MSI_IRQ_INDEX,
  VFIO_PCI_MSIX_IRQ_INDEX,
  VFIO_PCI_REQ_IRQ_INDEX,
} from "../../../uapi/vfio.ts";
import type { EventConsumer, EventFd } from "../../eventfd.ts";
import type { CallContext } from "../../file.ts";
import { type KernelInterrupt, type KernelInterrupts, NEXT_INTERRUPT_NS } from "../../interrupts.ts";
import type { IommuCore } from "../../iommu/core.ts";
import type { ObjectNames } from "../../object-names.ts";
import {
  CAP_EXPRESS,
  CAP_MSI,
  CAP_MSIX,
  COMMAND_INTX_DISABLE,
  findCapability,
  PCI_COMMAND,
  PCI_INTERRUPT_PIN,
} from "../../pci/config-access.ts";
import type { PciDevice } from "../../pci/pci-device.ts";
import { inSavedOrder, refillMap, requireText, textsOf } from "../../same-objects.ts";
import { eventfdOf, type IrqSet, readS32 } from "../irq-set.ts";

const MSI_FLAGS = 2;
const MSI_ADDRESS = 4;
const MSI_DATA_32 = 8;
const MSI_DATA_64 = 12;
const MSI_64BIT = 0x80;
const MSIX_ENABLE = 0x8000;
const MSIX_TABLE = 4;

export interface VfioInterruptParts {
  readonly device: PciDevice;
  readonly interrupts: KernelInterrupts;
  readonly iommu: IommuCore;
  readonly clock: Clock;
  readonly trace: Trace;
  readonly names: ObjectNames;
}

interface Vector {
  /** null: the interrupt is on and nobody is told (INTx with descriptor -1). */
  readonly eventfd: EventFd | null;
  readonly interrupt: KernelInterrupt | null;
}

export class VfioInterrupts implements Stateful {
  readonly #parts: VfioInterruptParts;
  readonly #msiAt: number;
  readonly #msixAt: number;
  /** Index in use: INTx, MSI, MSI-X, or -1. */
  #active = -1;
  readonly #vectors = new Map<number, Vector>();
  /** MSI vectors come as one block of consecutive messages. */
  #msiBlock: KernelInterrupt[] = [];
  #enabledVectors = 0;
  #msiVectorsLog2 = 0;
  #intxMasked = false;
  #intxDisabledByUser = false;
  /** When INTx's handler ran last; -1: user space has been at it since. */
  #intxHandledAt = -1;
  /** The eventfd that unmasks INTx. */
  #unmaskEvents: EventConsumer | null = null;
  #error: EventFd | null = null;
  #request: EventFd | null = null;
  /** Signals sent, for `inspect`. */
  signals = 0;

  /** The pin was asserted. */
  readonly #intxDue: ClockEvent;
  readonly clockEvents: readonly ClockEvent[];

  constructor(parts: VfioInterruptParts) {
    this.#parts = parts;
    this.#intxDue = { owner: `vfio-pci ${parts.device.name}`, name: "INTx", fire: () => this.#intxArrived() };
    this.clockEvents = [this.#intxDue];
    this.#msiAt = findCapability(parts.device.function, CAP_MSI);
    this.#msixAt = findCapability(parts.device.function, CAP_MSIX);
  }

  /** Vectors of an index (GET_IRQ_INFO): 0 when the function has none of the kind. */
  countOf(index: number): number {
    const { device } = this.#parts;
    switch (index) {
      case VFIO_PCI_INTX_IRQ_INDEX:
        return device.configRead(PCI_INTERRUPT_PIN, 1) === 0 ? 0 : 1;
      case VFIO_PCI_MSI_IRQ_INDEX:
        return this.#msiAt === 0 ? 0 : 2 ** ((device.configRead(this.#msiAt + MSI_FLAGS, 2) >> 1) & 7);
      case VFIO_PCI_MSIX_IRQ_INDEX:
        return this.#msixAt === 0 ? 0 : (device.configRead(this.#msixAt + 2, 2) & 0x7ff) + 1;
      case VFIO_PCI_ERR_IRQ_INDEX:
        return findCapability(device.function, CAP_EXPRESS) === 0 ? 0 : 1;
      case VFIO_PCI_REQ_IRQ_INDEX:
        return 1;
      default:
        return 0;
    }
  }

  get msiArmed(): boolean {
    return this.#active === VFIO_PCI_MSI_IRQ_INDEX;
  }

  /** log2 of the MSI vectors armed last: as many as user space may enable in configuration space. 0 before the first. */
  get msiVectorsLog2(): number {
    return this.#msiVectorsLog2;
  }

  /**
   * SET_IRQS after its checks. 0, a positive number of vectors that there are (fewer
   * than asked for), or a negated errno: -ENOTTY for an action that the index does not have.
   */
  set(call: CallContext, { action, kind, index, start, count, data }: IrqSet): number {
    if (index === VFIO_PCI_INTX_IRQ_INDEX) {
      this.#intxHandledAt = -1;
      if (action === VFIO_IRQ_SET_ACTION_MASK) return this.#maskAction(call, kind, start, count, data, true);
      if (action === VFIO_IRQ_SET_ACTION_UNMASK) return this.#maskAction(call, kind, start, count, data, false);
      if (action === VFIO_IRQ_SET_ACTION_TRIGGER) return this.#intxTrigger(call, kind, start, count, data);
      return -ENOTTY;
    }
    if (action !== VFIO_IRQ_SET_ACTION_TRIGGER) return -ENOTTY;
    switch (index) {
      case VFIO_PCI_MSI_IRQ_INDEX:
      case VFIO_PCI_MSIX_IRQ_INDEX:
        return this.#messageTrigger(call, kind, index, start, count, data);
      case VFIO_PCI_ERR_IRQ_INDEX:
      case VFIO_PCI_REQ_IRQ_INDEX:
        return this.#singleTrigger(call, kind, index, start, count, data);
      default:
        return -ENOTTY;
    }
  }

  // --- INTx ---

  #maskAction(call: CallContext, kind: number, start: number, count: number, data: Uint8Array, mask: boolean): number {
    if (this.#active !== VFIO_PCI_INTX_IRQ_INDEX || start !== 0 || count !== 1) return -EINVAL;
    if (kind === VFIO_IRQ_SET_DATA_EVENTFD) return mask ? -ENOTTY : this.#unmaskBy(call, readS32(data, 0));
    if (kind === VFIO_IRQ_SET_DATA_BOOL && data[0] === 0) return 0;
    if (mask) this.#setIntxMask(true);
    else this.#unmaskIntx();
    return 0;
  }

  /** Lets an eventfd unmask INTx from now on (vfio_virqfd_enable); -EBUSY when one does. A negative descriptor: none does. */
  #unmaskBy(call: CallContext, fd: number): number {
    const eventfd = eventfdOf(call, fd);
    if (typeof eventfd === "number") return eventfd;
    if (eventfd === null) {
      this.#unmaskEvents?.stop();
      return 0;
    }
    if (this.#unmaskEvents !== null) return -EBUSY;
    const events = eventfd.consume(
      () => this.#unmaskIntx(),
      () => {
        this.#unmaskEvents = null;
      },
    );
    this.#unmaskEvents = events;
    return 0;
  }

  #intxTrigger(call: CallContext, kind: number, start: number, count: number, data: Uint8Array): number {
    const active = this.#active === VFIO_PCI_INTX_IRQ_INDEX;
    if (active && count === 0 && kind === VFIO_IRQ_SET_DATA_NONE) {
      this.disable();
      return 0;
    }
    if (!(active || this.#active < 0) || start !== 0 || count !== 1) return -EINVAL;
    if (kind === VFIO_IRQ_SET_DATA_EVENTFD) {
      const eventfd = eventfdOf(call, readS32(data, 0));
      if (typeof eventfd === "number") return eventfd;
      if (this.countOf(VFIO_PCI_INTX_IRQ_INDEX) === 0) return -EINVAL;
      this.#replace(0, { eventfd: eventfd?.get() ?? null, interrupt: null });
      if (!active) this.#startIntx();
      return 0;
    }
    if (!active) return -EINVAL;
    // Nobody is told while user space has INTx disabled in its command register.
    if ((kind === VFIO_IRQ_SET_DATA_NONE || data[0] !== 0) && !this.#intxDisabledByUser) this.#signal(0);
    return 0;
  }

  #startIntx(): void {
    const { device } = this.#parts;
    this.#active = VFIO_PCI_INTX_IRQ_INDEX;
    this.#intxMasked = this.#intxDisabledByUser;
    device.slot.onPin = (asserted) => {
      if (asserted) this.#expectIntx();
    };
    this.#applyIntx();
    if (device.slot.pin) this.#expectIntx();
  }

  #expectIntx(): void {
    const { clock } = this.#parts;
    clock.schedule(this.#intxHandledAt === clock.now ? NEXT_INTERRUPT_NS : 0, this.#intxDue);
  }

  /** The interrupt handler: the pin is a level, so it is silenced at the function until user space has served it. */
  #intxArrived(): void {
    if (this.#active !== VFIO_PCI_INTX_IRQ_INDEX || this.#intxMasked || !this.#parts.device.slot.pin) return;
    this.#intxMasked = true;
    this.#applyIntx();
    this.#intxHandledAt = this.#parts.clock.now;
    this.#signal(0);
  }

  #setIntxMask(mask: boolean): void {
    if (this.#intxMasked === mask) return;
    this.#intxMasked = mask;
    this.#applyIntx();
  }

  /** Unmasking does nothing while user space has INTx disabled in its command register. */
  #unmaskIntx(): void {
    if (!this.#intxDisabledByUser) this.#setIntxMask(false);
  }

  /** User space wrote INTx disable in the command register. */
  intxDisabledByUser(disabled: boolean): void {
    if (this.#intxDisabledByUser === disabled) return;
    this.#intxDisabledByUser = disabled;
    this.#intxHandledAt = -1;
    if (this.#active === VFIO_PCI_INTX_IRQ_INDEX) this.#setIntxMask(disabled);
  }

  #applyIntx(): void {
    const { device } = this.#parts;
    const silent = this.#active !== VFIO_PCI_INTX_IRQ_INDEX || this.#intxMasked;
    const command = device.configRead(PCI_COMMAND, 2) & ~COMMAND_INTX_DISABLE;
    device.configWrite(PCI_COMMAND, 2, silent ? command | COMMAND_INTX_DISABLE : command);
  }

  // --- MSI and MSI-X ---

  #messageTrigger(
    call: CallContext,
    kind: number,
    index: number,
    start: number,
    count: number,
    data: Uint8Array,
  ): number {
    const active = this.#active === index;
    if (active && count === 0 && kind === VFIO_IRQ_SET_DATA_NONE) {
      this.disable();
      return 0;
    }
    if (!(active || this.#active < 0)) return -EINVAL;
    if (kind === VFIO_IRQ_SET_DATA_EVENTFD) {
      if (!active) {
        const enabled = this.#enableMessages(index, start + count);
        if (enabled !== 0) return enabled;
      }
      const result = this.#setVectors(call, start, count, data);
      if (result < 0 && !active) this.disable();
      return result;
    }
    if (!active) return -EINVAL;
    for (let i = 0; i < count; i++) {
      if (kind === VFIO_IRQ_SET_DATA_NONE || data[i] !== 0) this.#signal(start + i);
    }
    return 0;
  }

  /**
   * Switches the function to messages for `count` vectors; MSI needs them as one block (pci_alloc_irq_vectors). -EINVAL for a function
   * that sleeps, -ERANGE for no vectors: a function has one at least. MSI looks at the function first, MSI-X at the number.
   */
  #enableMessages(index: number, count: number): number {
    const { device, interrupts, iommu } = this.#parts;
    const msix = index === VFIO_PCI_MSIX_IRQ_INDEX;
    if (count === 0 && (msix || device.awake)) return -ERANGE;
    if (!device.awake) return -EINVAL;
    if (index === VFIO_PCI_MSI_IRQ_INDEX) {
      const vectors = 2 ** Math.ceil(Math.log2(count));
      const block = interrupts.requestBlock(`${device.name} MSI`, device.name, vectors, (i) => () => this.#signal(i));
      if (block === null) return -ENOSPC;
      const address = iommu.prepareMsi(device.iommuDevice!, block[0]!.address);
      if (typeof address === "number") {
        for (const interrupt of block) interrupt.free();
        return address;
      }
      this.#msiBlock = block;
      this.#active = index;
      this.#enabledVectors = count;
      this.#msiVectorsLog2 = Math.log2(vectors);
      this.#programMsi(address, block[0]!.data, Math.log2(vectors));
    } else {
      this.#active = index;
      this.#enabledVectors = count;
      const control = device.configRead(this.#msixAt + 2, 2);
      device.configWrite(this.#msixAt + 2, 2, control | MSIX_ENABLE);
    }
    this.#applyIntx();
    return 0;
  }

  #programMsi(address: bigint, data: number, vectorsLog2: number): void {
    const { device } = this.#parts;
    const at = this.#msiAt;
    const flags = device.configRead(at + MSI_FLAGS, 2) & ~0x71;
    const wide = (flags & MSI_64BIT) !== 0;
    device.configWrite(at + MSI_FLAGS, 2, flags);
    device.configWrite(at + MSI_ADDRESS, 4, Number(address & 0xffffffffn));
    if (wide) device.configWrite(at + MSI_ADDRESS + 4, 4, Number(address >> 32n));
    device.configWrite(at + (wide ? MSI_DATA_64 : MSI_DATA_32), 2, data);
    device.configWrite(at + MSI_FLAGS, 2, flags | (vectorsLog2 << 4) | 1);
  }

  /** Sets eventfds; on an error the vectors set by this call are cleared again. */
  #setVectors(call: CallContext, start: number, count: number, data: Uint8Array): number {
    for (let i = 0; i < count; i++) {
      const result = this.#setVector(call, start + i, readS32(data, i));
      if (result < 0) {
        for (let j = 0; j <= i; j++) this.#clearVector(start + j);
        return result;
      }
    }
    return 0;
  }

  #setVector(call: CallContext, vector: number, fd: number): number {
    const eventfd = eventfdOf(call, fd);
    this.#clearVector(vector);
    if (eventfd === null) return 0;
    if (this.#active === VFIO_PCI_MSI_IRQ_INDEX && vector >= this.#enabledVectors) return -EINVAL;
    if (typeof eventfd === "number") return eventfd;
    if (this.#active === VFIO_PCI_MSI_IRQ_INDEX) {
      this.#vectors.set(vector, { eventfd: eventfd.get(), interrupt: null });
      return 0;
    }
    const { device, interrupts, iommu } = this.#parts;
    const interrupt = interrupts.request(`${device.name} MSI-X ${vector}`, device.name, () => this.#signal(vector));
    if (interrupt === null) return -ENOSPC;
    const address = iommu.prepareMsi(device.iommuDevice!, interrupt.address);
    if (typeof address === "number") {
      interrupt.free();
      return address;
    }
    this.#vectors.set(vector, { eventfd: eventfd.get(), interrupt });
    this.#writeMsixEntry(vector, address, interrupt.data, false);
    return 0;
  }

  #writeMsixEntry(vector: number, address: bigint, data: number, masked: boolean): void {
    const { device } = this.#parts;
    const table = device.configRead(this.#msixAt + MSIX_TABLE, 4);
    const registers = device.function.bars[table & 7]?.registers;
    if (registers === undefined || device.gone) return;
    const entry = (table & ~7) + vector * 16;
    registers.mmioWrite(entry + 12, 4, 1, 0);
    registers.mmioWrite(entry, 4, Number(address & 0xffffffffn), 0);
    registers.mmioWrite(entry + 4, 4, Number(address >> 32n), 0);
    registers.mmioWrite(entry + 8, 4, data, 0);
    if (!masked) registers.mmioWrite(entry + 12, 4, 0, 0);
  }

  #clearVector(vector: number): void {
    const known = this.#vectors.get(vector);
    if (known === undefined) return;
    this.#vectors.delete(vector);
    if (this.#active === VFIO_PCI_MSIX_IRQ_INDEX) this.#writeMsixEntry(vector, 0n, 0, true);
    known.interrupt?.free();
    known.eventfd?.put();
  }

  /** Puts messages back into a function that was reset. */
  restoreAfterReset(): void {
    const { device, iommu } = this.#parts;
    if (this.#active === VFIO_PCI_MSI_IRQ_INDEX) {
      const address = iommu.prepareMsi(device.iommuDevice!, this.#msiBlock[0]!.address);
      if (typeof address !== "number")
        this.#programMsi(address, this.#msiBlock[0]!.data, Math.log2(this.#msiBlock.length));
    } else if (this.#active === VFIO_PCI_MSIX_IRQ_INDEX) {
      for (const [vector, { interrupt }] of this.#vectors) {
        const address = iommu.prepareMsi(device.iommuDevice!, interrupt!.address);
        if (typeof address !== "number") this.#writeMsixEntry(vector, address, interrupt!.data, false);
      }
      device.configWrite(this.#msixAt + 2, 2, device.configRead(this.#msixAt + 2, 2) | MSIX_ENABLE);
    }
    this.#applyIntx();
  }

  // --- error and request ---

  #singleTrigger(
    call: CallContext,
    kind: number,
    index: number,
    start: number,
    count: number,
    data: Uint8Array,
  ): number {
    if (start !== 0 || count > 1) return -EINVAL;
    const error = index === VFIO_PCI_ERR_IRQ_INDEX;
    const current = error ? this.#error : this.#request;
    const put = (eventfd: EventFd | null) => {
      current?.put();
      if (error) this.#error = eventfd;
      else this.#request = eventfd;
    };
    if (kind === VFIO_IRQ_SET_DATA_NONE) {
      if (current === null) return -EINVAL;
      if (count === 0) put(null);
      else current.signal();
      return 0;
    }
    if (count === 0) return -EINVAL;
    if (kind === VFIO_IRQ_SET_DATA_BOOL) {
      if (data[0] !== 0) current?.signal();
      return 0;
    }
    // -1 takes the eventfd away, other negative numbers change nothing.
    const fd = readS32(data, 0);
    if (fd < -1) return 0;
    const eventfd = eventfdOf(call, fd);
    if (typeof eventfd === "number") return eventfd;
    put(eventfd?.get() ?? null);
    return 0;
  }

  /** Asks user space to give the device back; false if it did not say how to ask. */
  askBack(): boolean {
    this.#request?.signal();
    if (this.#request !== null) this.#traceSignal("request", 0);
    return this.#request !== null;
  }

  // --- common ---

  #replace(vector: number, by: Vector): void {
    this.#vectors.get(vector)?.eventfd?.put();
    this.#vectors.set(vector, by);
  }

  #signal(vector: number): void {
    const eventfd = this.#vectors.get(vector)?.eventfd ?? null;
    if (eventfd === null) return;
    this.signals++;
    const { trace } = this.#parts;
    const previous = trace.cause;
    if (trace.on) trace.cause = this.#traceSignal(["INTx", "MSI", "MSI-X"][this.#active] ?? "", vector);
    eventfd.signal();
    trace.leave(previous);
  }

  #traceSignal(kind: string, vector: number): number {
    const { device, trace } = this.#parts;
    return trace.emit({ type: "irq", where: "vfio", source: `${device.name} ${kind}`, vector });
  }

  /** Turns INTx, MSI or MSI-X off: the function sends nothing any more. */
  disable(): void {
    const { device } = this.#parts;
    const active = this.#active;
    for (const vector of [...this.#vectors.keys()]) this.#clearVector(vector);
    this.#active = -1;
    this.#enabledVectors = 0;
    this.#unmaskEvents?.stop();
    if (active === VFIO_PCI_INTX_IRQ_INDEX) device.slot.onPin = null;
    if (active === VFIO_PCI_MSI_IRQ_INDEX) {
      const flags = device.configRead(this.#msiAt + MSI_FLAGS, 2);
      device.configWrite(this.#msiAt + MSI_FLAGS, 2, flags & ~0x71);
      for (const interrupt of this.#msiBlock) interrupt.free();
      this.#msiBlock = [];
    }
    if (active === VFIO_PCI_MSIX_IRQ_INDEX) {
      device.configWrite(this.#msixAt + 2, 2, device.configRead(this.#msixAt + 2, 2) & ~MSIX_ENABLE);
    }
    this.#intxMasked = false;
    this.#applyIntx();
  }

  /** The device is closed: everything is off, every eventfd given back. */
  close(): void {
    this.disable();
    this.#intxDisabledByUser = false;
    this.#msiVectorsLog2 = 0;
    this.#error?.put();
    this.#request?.put();
    this.#error = this.#request = null;
  }

  // --- state: which interrupts are on, and their eventfds, must be the same ---

  saveState(): StateRecord {
    return {
      on: this.#what(),
      vectors: [...this.#vectors].map((entry) => this.#vectorName(entry)),
      enabledVectors: this.#enabledVectors,
      msiVectorsLog2: this.#msiVectorsLog2,
      intxMasked: this.#intxMasked,
      intxDisabledByUser: this.#intxDisabledByUser,
      intxHandledAt: this.#intxHandledAt,
      signals: this.signals,
    };
  }

  restoreState(state: StateReader): void {
    requireText(state, "on", this.#what());
    const nameOf = (entry: readonly [number, Vector]) => this.#vectorName(entry);
    refillMap(this.#vectors, inSavedOrder(state, this.#vectors, nameOf, textsOf(state, "vectors")));
    this.#enabledVectors = state.number("enabledVectors");
    this.#msiVectorsLog2 = state.number("msiVectorsLog2");
    this.#intxMasked = state.boolean("intxMasked");
    this.#intxDisabledByUser = state.boolean("intxDisabledByUser");
    this.#intxHandledAt = state.number("intxHandledAt");
    this.signals = state.number("signals");
  }

  #what(): string {
    const kind = ["INTx", "MSI", "MSI-X"][this.#active] ?? "nothing";
    const block = this.#msiBlock.map(messageName).join(" ");
    const unmask = this.#unmaskEvents === null ? "no eventfd" : "an eventfd";
    return `${kind} ${block}, errors to ${this.#fileName(this.#error)}, requests to ${this.#fileName(this.#request)}, ${unmask} to unmask`;
  }

  #vectorName([vector, { eventfd, interrupt }]: readonly [number, Vector]): string {
    return `vector ${vector} to ${this.#fileName(eventfd)}${interrupt === null ? "" : ` by ${messageName(interrupt)}`}`;
  }

  #fileName(eventfd: EventFd | null): string {
    return eventfd === null ? "none" : (this.#parts.names.nameOfFile(eventfd) ?? "an eventfd");
  }
}

function messageName({ address, data }: KernelInterrupt): string {
  return `message ${data} at 0x${address.toString(16)}`;
}
