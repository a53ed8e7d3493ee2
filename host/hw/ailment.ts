// What is wrong with a device that is made to fail while it runs: dead (its registers read all ones, nothing of it gets through) or slow
// (registers and DMA take their time). Shared by whatever stands between an endpoint model and its bus (pci/ailing-function.ts,
// platform/ailing-endpoint.ts); while nothing ails the device, all passes through.

import type { AccessSize, MmioPort, WritePosting } from "../base/mmio.ts";
import { DMA_ABORTED, type DmaPort } from "../devices/ports.ts";

/** What is wrong with a device. */
export interface Ailment {
  /** It no longer answers and sends nothing. */
  dead: boolean;
  /** Virtual time that every register access and DMA transfer takes more, and an ATS invalidation until it is begun, in ns. */
  delayNs: number;
}

/** Lets the delay of a slow device pass; false if it is dead. */
export type Answers = () => boolean;

/** `passTime` lets virtual time pass for a slow device. */
export function answersOf(ailment: Ailment, passTime: (ns: number) => void): Answers {
  return () => {
    if (ailment.dead) return false;
    if (ailment.delayNs > 0) passTime(ailment.delayNs);
    return true;
  };
}

export function ailingDma(bus: DmaPort, answers: Answers): DmaPort {
  return {
    read: (pfn, offset, into, at, length, pasid, privileged) =>
      answers() ? bus.read(pfn, offset, into, at, length, pasid, privileged) : DMA_ABORTED,
    write: (pfn, offset, from, at, length, pasid, privileged) =>
      answers() ? bus.write(pfn, offset, from, at, length, pasid, privileged) : DMA_ABORTED,
    get stallTag() {
      return bus.stallTag ?? -1;
    },
  };
}

// Not state: the registers are the endpoint's.
export class AilingRegisters implements MmioPort {
  high = 0;
  readonly posting?: (offset: number) => WritePosting | null;
  readonly #inner: MmioPort;
  readonly #answers: Answers;

  constructor(inner: MmioPort, answers: Answers) {
    this.#inner = inner;
    this.#answers = answers;
    if (inner.posting !== undefined) this.posting = (offset) => inner.posting!(offset);
  }

  mmioRead(offset: number, size: AccessSize): number {
    if (!this.#answers()) {
      this.high = 0xffff_ffff;
      return size >= 4 ? 0xffff_ffff : 2 ** (8 * size) - 1;
    }
    const low = this.#inner.mmioRead(offset, size);
    this.high = this.#inner.high;
    return low;
  }

  mmioWrite(offset: number, size: AccessSize, lo: number, hi: number): void {
    if (this.#answers()) this.#inner.mmioWrite(offset, size, lo, hi);
  }
}
