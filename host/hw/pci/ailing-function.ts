// A PCI function that can be made to fail while it runs: dead (its slot reads all ones, nothing of it gets through, an ATS
// invalidation is never answered) or slow (registers, DMA and invalidations take their time). It stands between any endpoint model and
// the bus; while nothing ails it, all passes through.
//
//     bus ─→ AilingFunction ─→ endpoint model         endpoint model ─→ its ports ─→ AilingFunction ─→ bus

import type { ClockEvent } from "../../base/clock.ts";
import { isStateful, StateError, type Stateful, type StateReader, type StateRecord } from "../../base/state.ts";
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
import { AilingRegisters, type Ailment, type Answers, ailingDma, answersOf } from "../ailment.ts";

interface Invalidation {
  readonly pfn: number;
  readonly pages: number;
  readonly pasid: number;
  readonly globalInvalidate: boolean;
  readonly itag: number;
}

export class AilingFunction implements PciFunction, Stateful {
  readonly inner: PciFunction;
  readonly bars: readonly (BarDescription | null)[];
  readonly ailment: Ailment = { dead: false, delayNs: 0 };
  readonly atsTarget?: AtsTarget;
  readonly #answers: Answers;
  #ports: FunctionPorts | null = null; // not state: wiring
  #dma: DmaPort | null = null; // not state: wiring
  /** Invalidations that a slow function has not begun: their places are the arguments of the events. */
  readonly #late: (Invalidation | null)[] = [];
  readonly #invalidationBegins: ClockEvent;
  readonly clockEvents: readonly ClockEvent[];

  /** `passTime` lets virtual time pass for a slow function. */
  constructor(inner: PciFunction, passTime: (ns: number) => void) {
    this.inner = inner;
    this.#invalidationBegins = {
      owner: this.name,
      name: "late invalidation",
      fire: (place) => this.#beginInvalidation(place),
    };
    this.clockEvents = [this.#invalidationBegins];
    this.#answers = answersOf(this.ailment, passTime);
    this.bars = inner.bars.map((bar) =>
      bar === null ? null : { ...bar, registers: new AilingRegisters(bar.registers, this.#answers) },
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
    const port = ailingDma(bus, this.#answers);
    return bus.ats === undefined ? port : { ...port, ats: this.#ats(bus.ats) };
  }

  #ats(bus: AtsPort): AtsPort {
    return {
      translation: bus.translation,
      translate: (pfn, pasid, noWrite, privileged, execute) =>
        this.#answers() ? bus.translate(pfn, pasid, noWrite, privileged, execute) : ATS_UNSUPPORTED_REQUEST,
      readTranslated: (pfn, offset, into, at, length, pasid) =>
        this.#answers() ? bus.readTranslated(pfn, offset, into, at, length, pasid) : DMA_ABORTED,
      writeTranslated: (pfn, offset, from, at, length, pasid) =>
        this.#answers() ? bus.writeTranslated(pfn, offset, from, at, length, pasid) : DMA_ABORTED,
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
        const free = this.#late.indexOf(null);
        const place = free < 0 ? this.#late.length : free;
        this.#late[place] = { pfn, pages, pasid, globalInvalidate, itag };
        this.#ports?.clock.schedule(delayNs, this.#invalidationBegins, place);
        return false;
      },
      pageResponse: (pasid, group, code) => {
        if (!this.ailment.dead) target.pageResponse(pasid, group, code);
      },
    };
  }

  #beginInvalidation(place: number): void {
    const { pfn, pages, pasid, globalInvalidate, itag } = this.#late[place]!;
    this.#late[place] = null;
    if (this.ailment.dead) return;
    if (this.inner.atsTarget?.invalidate(pfn, pages, pasid, globalInvalidate, itag) === true) {
      this.#ports?.dma.ats?.invalidationCompleted(itag);
    }
  }

  saveState(): StateRecord {
    return { ailment: { ...this.ailment }, late: this.#late.map((late) => (late === null ? null : { ...late })) };
  }

  restoreState(state: StateReader): void {
    const ailment = state.record("ailment");
    this.ailment.dead = ailment.boolean("dead");
    this.ailment.delayNs = ailment.number("delayNs");
    this.#late.length = 0;
    state.places("late").forEach((late) => {
      this.#late.push(
        late === null
          ? null
          : {
              pfn: late.number("pfn"),
              pages: late.number("pages"),
              pasid: late.number("pasid"),
              globalInvalidate: late.boolean("globalInvalidate"),
              itag: late.number("itag"),
            },
      );
    });
  }

  stateParts(): Iterable<readonly [string, Stateful]> {
    if (!isStateful(this.inner)) throw new StateError(`${this.name}: its model saves no state`);
    return [["function", this.inner]];
  }
}
