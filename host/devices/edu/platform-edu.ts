// The edu device on no bus: the same registers as the PCI function's BAR 0 in a region of the machine's address space, one level-sensitive
// wire, no messages, no PASIDs, no ATS. Its DMA may be stalled by an IOMMU (Arm SMMUv3, IHI 0070 §3.12.2): the command stays running until the
// transaction ends its wait.

import type { Stateful } from "../../base/state.ts";
import type { PlatformEndpoint, PlatformPorts, RegionDescription, StallEnd } from "../ports.ts";
import { EduRegisters } from "./edu-registers.ts";
import { ALL_ADDRESS_BITS, EDU_BAR_BYTES, EDU_COMPATIBLE } from "./registers.ts";

export interface PlatformEduOptions {
  readonly name?: string;
  /** Address bits that the device drives; the others are 0. Default all 64. */
  readonly dmaMask?: bigint;
}

export class PlatformEdu implements PlatformEndpoint, Stateful {
  readonly name: string;
  readonly compatible = EDU_COMPATIBLE;
  readonly regions: readonly RegionDescription[];
  readonly interrupts = 1;
  readonly #registers: EduRegisters;
  #ports: PlatformPorts | null = null; // not state: wiring

  constructor(options: PlatformEduOptions = {}) {
    this.name = options.name ?? "edu";
    this.#registers = new EduRegisters({
      name: this.name,
      clock: () => this.#connected.clock,
      transfer: (buffer, write, pfn, offset, at, length, pasid, privileged) => {
        const { dma } = this.#connected;
        return write
          ? dma.write(pfn, offset, buffer, at, length, pasid, privileged)
          : dma.read(pfn, offset, buffer, at, length, pasid, privileged);
      },
      stallTag: () => this.#connected.dma.stallTag ?? -1,
      atsPort: () => undefined,
      interruptLevel: (asserted) => this.#ports?.interrupt(0, asserted),
      dmaMask: options.dmaMask ?? ALL_ADDRESS_BITS,
      ats: null,
      pri: null,
      pasid: null,
      misbehaviour: false,
    });
    this.regions = [{ size: EDU_BAR_BYTES, registers: this.#registers }];
  }

  get #connected(): PlatformPorts {
    if (this.#ports === null) throw new Error(`${this.name} is not connected`);
    return this.#ports;
  }

  connect(ports: PlatformPorts): void {
    this.#ports = ports;
  }

  reset(): void {
    this.#registers.reset();
    this.#ports?.interrupt(0, false);
  }

  stallEnded(tag: number, end: StallEnd): void {
    this.#registers.engine.stallEnded(tag, end);
  }

  saveState(): Record<string, never> {
    return {};
  }

  restoreState(): void {}

  stateParts(): Iterable<readonly [string, Stateful]> {
    return [["registers", this.#registers]];
  }
}
