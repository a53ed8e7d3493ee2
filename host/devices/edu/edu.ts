// The edu device: a teaching endpoint with the public programming interface of QEMU's `edu` (vendor 1234, device 11e8), plus
// extensions behind a vendor-specific capability. BAR 0 is 1 MiB of registers (edu-registers.ts).

import type { AccessSize, MmioPort } from "../../base/mmio.ts";
import type { Stateful } from "../../base/state.ts";
import { AtsCapability, PasidCapability, PriCapability } from "../capabilities/address-translation.ts";
import { VendorSpecificCapability } from "../capabilities/vendor-specific.ts";
import { PciEndpoint } from "../pci-function.ts";
import type { AtsTarget } from "../ports.ts";
import { INVALIDATE_QUEUE_DEPTH } from "./dma-engine.ts";
import { EduRegisters } from "./edu-registers.ts";
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
  /** As of FunctionIdentity. */
  readonly messages?: boolean;
}

/** Page requests that the device says it can have outstanding. */
const PAGE_REQUEST_CAPACITY = 32;

export class Edu extends PciEndpoint implements MmioPort {
  readonly atsTarget?: AtsTarget;
  readonly logsDma: boolean;
  readonly #registers: EduRegisters;

  constructor(options: EduOptions = {}) {
    const { pasidBits = 0, ats = false, pri = false, misbehaviour = false, dmaMask = R.ALL_ADDRESS_BITS } = options;
    super({
      name: options.name ?? "edu",
      vendorId: R.EDU_VENDOR_ID,
      deviceId: R.EDU_DEVICE_ID,
      revision: 0x10,
      classCode: 0x00ff00,
      subsystemVendorId: 0x1af4,
      subsystemId: 0x1100,
      prefixes: pasidBits > 0,
      messages: options.messages ?? true,
    });
    this.logsDma = options.dmaLogging ?? false;
    if (pri && !ats) throw new RangeError("edu: page requests need ATS");
    if (pasidBits < 0 || pasidBits > 20) throw new RangeError("edu: a PASID has at most 20 bits");
    this.addMsi(1);
    const features =
      (pasidBits > 0 ? R.FEATURE_PASID : 0) |
      (ats ? R.FEATURE_ATS : 0) |
      (pri ? R.FEATURE_PRI : 0) |
      (misbehaviour ? R.FEATURE_MISBEHAVIOUR : 0);
    this.addCapability(new VendorSpecificCapability([R.EXTENSION_REVISION, features, features >> 8, 0, 0]));
    const pasidCapability = pasidBits > 0 ? new PasidCapability(pasidBits) : null;
    const atsCapability = ats
      ? new AtsCapability(INVALIDATE_QUEUE_DEPTH, () => this.#registers.engine.forgetTranslations())
      : null;
    const priCapability = pri
      ? new PriCapability(PAGE_REQUEST_CAPACITY, pasidBits > 0, () => this.#registers.engine.forgetPageRequests())
      : null;
    for (const capability of [pasidCapability, atsCapability, priCapability]) {
      if (capability !== null) this.addCapability(capability);
    }
    this.#registers = new EduRegisters({
      name: this.name,
      clock: () => this.ports.clock,
      transfer: (buffer, write, pfn, offset, at, length, pasid, privileged) =>
        write
          ? this.dmaWrite(pfn, offset, buffer, at, length, pasid, privileged)
          : this.dmaRead(pfn, offset, buffer, at, length, pasid, privileged),
      atsPort: () => (this.awake ? this.ports.dma.ats : undefined),
      interruptLevel: (asserted) => this.setInterruptLevel(asserted),
      message: () => this.raise(0),
      dmaMask,
      ats: atsCapability,
      pri: priCapability,
      pasid: pasidCapability,
      misbehaviour,
    });
    this.addBar(0, { size: R.EDU_BAR_BYTES, kind: "memory32", prefetchable: false, registers: this.#registers });
    if (ats) this.atsTarget = this.#registers.engine;
  }

  /** BAR 0, for whoever holds the model itself. */
  mmioRead(offset: number, size: AccessSize): number {
    return this.#registers.mmioRead(offset, size);
  }

  get high(): number {
    return this.#registers.high;
  }

  mmioWrite(offset: number, size: AccessSize, lo: number, hi: number): void {
    this.#registers.mmioWrite(offset, size, lo, hi);
  }

  protected override transactionsPending(): boolean {
    return this.#registers.engine.running;
  }

  protected onReset(): void {
    this.#registers.reset();
  }

  override *stateParts(): Generator<readonly [string, Stateful]> {
    yield* super.stateParts();
    yield ["registers", this.#registers];
  }
}
