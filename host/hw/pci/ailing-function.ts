// A PCI function that can be made to fail while it runs: dead (its slot reads all ones, nothing of it gets through, an ATS
// invalidation is never answered) or slow (registers, DMA and invalidations take their time). It stands between any endpoint model and
// the bus; while nothing ails it, all passes through.
//
//     bus ─→ AilingFunction ─→ endpoint model         endpoint model ─→ its ports ─→ AilingFunction ─→ bus

import type { AccessSize, MmioPort } from "../../base/mmio.ts";
import {
  ATS_UNSUPPORTED_REQUEST,
  type AtsPort,
  type AtsTarget,
  type BarDescription,
  DMA_ABORTED,
  type DmaPort,
  type FunctionPorts,
  type PciFunction,
} from "../../devices/ports.ts";

/** What is wrong with a function. */
export interface Ailment {
  /** It no longer answers and sends nothing. */
  dead: boolean;
  /** Virtual time that every register access and DMA transfer takes more, and an ATS invalidation until it is begun, in ns. */
  delayNs: number;
}

export class AilingFunction implements PciFunction {
  readonly inner: PciFunction;
  readonly bars: readonly (BarDescription | null)[];
  readonly ailment: Ailment = { dead: false, delayNs: 0 };
  readonly atsTarget?: AtsTarget;
  readonly #passTime: (ns: number) => void;
  #ports: FunctionPorts | null = null;
  #dma: DmaPort | null = null;

  /** `passTime` lets virtual time pass for a slow function. */
  constructor(inner: PciFunction, passTime: (ns: number) => void) {
    this.inner = inner;
    this.#passTime = passTime;
    this.bars = inner.bars.map((bar) =>
      bar === null ? null : { ...bar, registers: new AilingRegisters(bar.registers, this) },
    );
    if (inner.atsTarget !== undefined) this.atsTarget = this.#atsTarget(inner.atsTarget);
  }

  get asleep(): boolean {
    return this.inner.asleep ?? false;
  }

  get logsDma(): boolean {
    return this.inner.logsDma ?? false;
  }

  get name(): string {
    return this.inner.name;
  }

  /** Lets the delay of a slow function pass; false if it is dead. */
  answers(): boolean {
    const { dead, delayNs } = this.ailment;
    if (dead) return false;
    if (delayNs > 0) this.#passTime(delayNs);
    return true;
  }

  configRead(offset: number, size: 1 | 2 | 4): number {
    return this.ailment.dead ? 2 ** (8 * size) - 1 : this.inner.configRead(offset, size);
  }

  configWrite(offset: number, size: 1 | 2 | 4, value: number): void {
    if (!this.ailment.dead) this.inner.configWrite(offset, size, value);
  }

  barBase(index: number): number {
    return this.inner.barBase(index);
  }

  reset(): void {
    if (!this.ailment.dead) this.inner.reset();
  }

  connect(ports: FunctionPorts): void {
    this.#ports = ports;
    this.#dma = this.#dmaPort(ports.dma);
    this.inner.connect({
      clock: ports.clock,
      interrupt: { intx: (asserted) => ports.interrupt.intx(asserted && !this.ailment.dead) },
      dma: this.#dma,
    });
  }

  /** The function's way to the bus, as its model has it; null before it is plugged in. */
  get dma(): DmaPort | null {
    return this.#dma;
  }

  #dmaPort(bus: DmaPort): DmaPort {
    const port: DmaPort = {
      read: (pfn, offset, into, at, length, pasid, privileged) =>
        this.answers() ? bus.read(pfn, offset, into, at, length, pasid, privileged) : DMA_ABORTED,
      write: (pfn, offset, from, at, length, pasid, privileged) =>
        this.answers() ? bus.write(pfn, offset, from, at, length, pasid, privileged) : DMA_ABORTED,
    };
    return bus.ats === undefined ? port : { ...port, ats: this.#ats(bus.ats) };
  }

  #ats(bus: AtsPort): AtsPort {
    return {
      translation: bus.translation,
      translate: (pfn, pasid, noWrite, privileged, execute) =>
        this.answers() ? bus.translate(pfn, pasid, noWrite, privileged, execute) : ATS_UNSUPPORTED_REQUEST,
      readTranslated: (pfn, offset, into, at, length, pasid) =>
        this.answers() ? bus.readTranslated(pfn, offset, into, at, length, pasid) : DMA_ABORTED,
      writeTranslated: (pfn, offset, from, at, length, pasid) =>
        this.answers() ? bus.writeTranslated(pfn, offset, from, at, length, pasid) : DMA_ABORTED,
      pageRequest: (pfn, pasid, group, flags) => {
        if (!this.ailment.dead) bus.pageRequest(pfn, pasid, group, flags);
      },
      stopMarker: (pasid) => {
        if (!this.ailment.dead) bus.stopMarker(pasid);
      },
      invalidationCompleted: (itag) => {
        if (!this.ailment.dead) bus.invalidationCompleted(itag);
      },
    };
  }

  #atsTarget(target: AtsTarget): AtsTarget {
    return {
      invalidate: (pfn, pages, pasid, globalInvalidate, itag) => {
        const { dead, delayNs } = this.ailment;
        if (dead) return false;
        if (delayNs === 0) return target.invalidate(pfn, pages, pasid, globalInvalidate, itag);
        this.#ports?.clock.schedule(delayNs, () => {
          if (this.ailment.dead) return;
          if (target.invalidate(pfn, pages, pasid, globalInvalidate, itag)) {
            this.#ports?.dma.ats?.invalidationCompleted(itag);
          }
        });
        return false;
      },
      pageResponse: (pasid, group, code) => {
        if (!this.ailment.dead) target.pageResponse(pasid, group, code);
      },
    };
  }
}

class AilingRegisters implements MmioPort {
  high = 0;
  readonly #inner: MmioPort;
  readonly #function: AilingFunction;

  constructor(inner: MmioPort, ailing: AilingFunction) {
    this.#inner = inner;
    this.#function = ailing;
  }

  mmioRead(offset: number, size: AccessSize): number {
    if (!this.#function.answers()) {
      this.high = 0xffff_ffff;
      return size >= 4 ? 0xffff_ffff : 2 ** (8 * size) - 1;
    }
    const low = this.#inner.mmioRead(offset, size);
    this.high = this.#inner.high;
    return low;
  }

  mmioWrite(offset: number, size: AccessSize, lo: number, hi: number): void {
    if (this.#function.answers()) this.#inner.mmioWrite(offset, size, lo, hi);
  }
}
