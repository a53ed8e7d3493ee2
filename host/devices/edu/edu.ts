// The edu device: a teaching endpoint with the public programming interface of QEMU's `edu` (vendor 1234, device 11e8), plus
// extensions behind a vendor-specific capability. BAR 0 is 1 MiB of registers (registers.ts); the DMA engine stands beside
// (dma-engine.ts). Registers below 0x80 take 4-byte accesses, the others 4 or 8; anything else reads all ones and changes nothing.

import type { ClockEvent } from "../../base/clock.ts";
import type { AccessSize, MmioPort } from "../../base/mmio.ts";
import { bytesOf, type Stateful, type StateReader, type StateRecord } from "../../base/state.ts";
import { AtsCapability, PasidCapability, PriCapability } from "../capabilities/address-translation.ts";
import { VendorSpecificCapability } from "../capabilities/vendor-specific.ts";
import { PciEndpoint } from "../pci-function.ts";
import type { AtsTarget } from "../ports.ts";
import { DmaEngine, INVALIDATE_QUEUE_DEPTH } from "./dma-engine.ts";
import * as R from "./registers.ts";

export interface EduOptions {
  readonly name?: string;
  /** Address bits that the device drives; the others are 0 on the bus. Default all 64; QEMU's default is 28 bits. */
  readonly dmaMask?: bigint;
  /** Width of PASIDs, 1 to 20; 0 (default): no PASID capability. */
  readonly pasidBits?: number;
  readonly ats?: boolean;
  /** Needs `ats`. */
  readonly pri?: boolean;
  /** Logs the pages it writes, for migration's sake (VFIO: DMA logging). */
  readonly dmaLogging?: boolean;
  /** Makes the misbehaviour register work: a device that breaks ATS and PRI rules when told to. */
  readonly misbehaviour?: boolean;
}

/** Page requests that the device says it can have outstanding. */
const PAGE_REQUEST_CAPACITY = 32;
const ALL_ONES = 0xffffffff;
const ALL_ADDRESS_BITS = 0xffff_ffff_ffff_ffffn;

export class Edu extends PciEndpoint implements MmioPort {
  high = 0;
  readonly atsTarget?: AtsTarget;
  readonly logsDma: boolean;
  readonly #engine: DmaEngine;
  readonly #buffer = new Uint8Array(R.BUFFER_BYTES);
  readonly #factorialDone: ClockEvent = { owner: this.name, name: "factorial", fire: () => this.#finishFactorial() };
  readonly clockEvents: readonly ClockEvent[] = [this.#factorialDone];
  #liveness = 0;
  #factorial = 0;
  #status = 0;
  #interruptStatus = 0;
  #factorialEvent = 0;

  constructor(options: EduOptions = {}) {
    const { pasidBits = 0, ats = false, pri = false, misbehaviour = false, dmaMask = ALL_ADDRESS_BITS } = options;
    super({
      name: options.name ?? "edu",
      vendorId: R.EDU_VENDOR_ID,
      deviceId: R.EDU_DEVICE_ID,
      revision: 0x10,
      classCode: 0x00ff00,
      subsystemVendorId: 0x1af4,
      subsystemId: 0x1100,
      prefixes: pasidBits > 0,
    });
    this.logsDma = options.dmaLogging ?? false;
    if (pri && !ats) throw new RangeError("edu: page requests need ATS");
    if (pasidBits < 0 || pasidBits > 20) throw new RangeError("edu: a PASID has at most 20 bits");
    this.addBar(0, { size: R.EDU_BAR_BYTES, kind: "memory32", prefetchable: false, registers: this });
    this.addMsi(1);
    const features =
      (pasidBits > 0 ? R.FEATURE_PASID : 0) |
      (ats ? R.FEATURE_ATS : 0) |
      (pri ? R.FEATURE_PRI : 0) |
      (misbehaviour ? R.FEATURE_MISBEHAVIOUR : 0);
    this.addCapability(new VendorSpecificCapability([R.EXTENSION_REVISION, features, features >> 8, 0, 0]));
    const pasidCapability = pasidBits > 0 ? new PasidCapability(pasidBits) : null;
    const atsCapability = ats
      ? new AtsCapability(INVALIDATE_QUEUE_DEPTH, () => this.#engine.forgetTranslations())
      : null;
    const priCapability = pri
      ? new PriCapability(PAGE_REQUEST_CAPACITY, pasidBits > 0, () => this.#engine.forgetPageRequests())
      : null;
    for (const capability of [pasidCapability, atsCapability, priCapability]) {
      if (capability !== null) this.addCapability(capability);
    }
    this.#engine = new DmaEngine({
      name: this.name,
      clock: () => this.ports.clock,
      transfer: (write, pfn, offset, at, length, pasid, privileged) =>
        write
          ? this.dmaWrite(pfn, offset, this.#buffer, at, length, pasid, privileged)
          : this.dmaRead(pfn, offset, this.#buffer, at, length, pasid, privileged),
      atsPort: () => (this.awake ? this.ports.dma.ats : undefined),
      buffer: this.#buffer,
      interrupt: () => this.#raiseInterrupt(R.INTERRUPT_DMA),
      dmaMask,
      ats: atsCapability,
      pri: priCapability,
      pasid: pasidCapability,
      misbehaviour,
    });
    if (ats) this.atsTarget = this.#engine;
  }

  protected override transactionsPending(): boolean {
    return this.#engine.running;
  }

  protected onReset(): void {
    if (this.#factorialEvent !== 0) this.ports.clock.cancel(this.#factorialEvent);
    this.#factorialEvent = 0;
    this.#liveness = this.#factorial = this.#status = this.#interruptStatus = 0;
    this.#buffer.fill(0);
    this.#engine.reset();
  }

  mmioRead(offset: number, size: AccessSize): number {
    this.high = size === 8 ? ALL_ONES : 0;
    if (offset < R.DMA_SOURCE) {
      if (size !== 4) return size === 8 ? ALL_ONES : 2 ** (8 * size) - 1;
      return this.#readControl(offset);
    }
    if (size < 4) return 2 ** (8 * size) - 1;
    if (size === 8) this.high = this.#engine.readWord(offset + 4);
    return this.#engine.readWord(offset);
  }

  #readControl(offset: number): number {
    switch (offset) {
      case R.IDENTIFICATION:
        return R.IDENTIFICATION_VALUE;
      case R.LIVENESS:
        return ~this.#liveness >>> 0;
      case R.FACTORIAL:
        return this.#factorial;
      case R.STATUS:
        return this.#status;
      case R.INTERRUPT_STATUS:
        return this.#interruptStatus;
      default:
        return ALL_ONES;
    }
  }

  mmioWrite(offset: number, size: AccessSize, lo: number, hi: number): void {
    if (offset < R.DMA_SOURCE) {
      if (size === 4) this.#writeControl(offset, lo >>> 0);
    } else if (size === 4 || size === 8) {
      this.#engine.write(offset, size, lo >>> 0, hi >>> 0);
    }
  }

  #writeControl(offset: number, value: number): void {
    switch (offset) {
      case R.LIVENESS:
        this.#liveness = value;
        break;
      case R.FACTORIAL:
        if ((this.#status & R.STATUS_COMPUTING) !== 0) break;
        this.#factorial = value;
        this.#status |= R.STATUS_COMPUTING;
        this.#factorialEvent = this.ports.clock.schedule(R.FACTORIAL_NS, this.#factorialDone);
        break;
      case R.STATUS:
        this.#status = (this.#status & R.STATUS_COMPUTING) | (value & R.STATUS_RAISE_INTERRUPT);
        break;
      case R.INTERRUPT_RAISE:
        this.#raiseInterrupt(value);
        break;
      case R.INTERRUPT_ACKNOWLEDGE:
        this.#interruptStatus = (this.#interruptStatus & ~value) >>> 0;
        this.setInterruptLevel(this.#interruptStatus !== 0);
        break;
    }
  }

  #finishFactorial(): void {
    this.#factorialEvent = 0;
    this.#factorial = factorial(this.#factorial);
    this.#status &= ~R.STATUS_COMPUTING;
    if ((this.#status & R.STATUS_RAISE_INTERRUPT) !== 0) this.#raiseInterrupt(R.INTERRUPT_FACTORIAL);
  }

  #raiseInterrupt(bits: number): void {
    this.#interruptStatus = (this.#interruptStatus | bits) >>> 0;
    if (this.#interruptStatus === 0) return;
    this.setInterruptLevel(true);
    this.raise(0);
  }

  override saveState(): StateRecord {
    return {
      ...super.saveState(),
      buffer: bytesOf(this.#buffer),
      liveness: this.#liveness,
      factorial: this.#factorial,
      status: this.#status,
      interruptStatus: this.#interruptStatus,
      factorialEvent: this.#factorialEvent,
    };
  }

  override restoreState(state: StateReader): void {
    super.restoreState(state);
    state.memory("buffer", this.#buffer);
    this.#liveness = state.number("liveness");
    this.#factorial = state.number("factorial");
    this.#status = state.number("status");
    this.#interruptStatus = state.number("interruptStatus");
    this.#factorialEvent = state.number("factorialEvent");
  }

  override *stateParts(): Generator<readonly [string, Stateful]> {
    yield* super.stateParts();
    yield ["dma engine", this.#engine];
  }
}

/** n! modulo 2^32. From 34 on the product has 32 factors of two: it is 0, so a hostile n costs no time. */
function factorial(n: number): number {
  if (n >= 34) return 0;
  let product = 1;
  for (let i = 2; i <= n; i++) product = Math.imul(product, i);
  return product >>> 0;
}
