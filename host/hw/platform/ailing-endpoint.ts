// A platform device that can be made to fail while it runs (../ailment.ts): it stands between any endpoint model and the interconnect.

import type { MmioPort } from "../../base/mmio.ts";
import { isStateful, StateError, type Stateful, type StateReader, type StateRecord } from "../../base/state.ts";
import type { DmaPort, PlatformEndpoint, PlatformPorts, RegionDescription, StallEnd } from "../../devices/ports.ts";
import { AilingRegisters, type Ailment, type Answers, ailingDma, answersOf } from "../ailment.ts";

export class AilingEndpoint implements PlatformEndpoint, Stateful {
  readonly inner: PlatformEndpoint;
  readonly name: string;
  readonly compatible: string;
  readonly interrupts: number;
  readonly regions: readonly RegionDescription[];
  readonly ailment: Ailment = { dead: false, delayNs: 0 };
  readonly #answers: Answers;
  #dma: DmaPort | null = null; // not state: wiring

  /** `passTime` lets virtual time pass for a slow device. */
  constructor(inner: PlatformEndpoint, passTime: (ns: number) => void) {
    this.inner = inner;
    this.name = inner.name;
    this.compatible = inner.compatible;
    this.interrupts = inner.interrupts;
    this.#answers = answersOf(this.ailment, passTime);
    const ailing = (registers: MmioPort) => new AilingRegisters(registers, this.#answers);
    this.regions = inner.regions.map(({ size, registers }) => ({ size, registers: ailing(registers) }));
  }

  connect(ports: PlatformPorts): void {
    this.#dma = ailingDma(ports.dma, this.#answers);
    const interrupt = (index: number, asserted: boolean) => ports.interrupt(index, asserted && !this.ailment.dead);
    this.inner.connect({ clock: ports.clock, dma: this.#dma, interrupt });
  }

  /** The device's way to the interconnect, as its model has it; null before it is connected. */
  get dma(): DmaPort | null {
    return this.#dma;
  }

  reset(): void {
    if (!this.ailment.dead) this.inner.reset();
  }

  stallEnded(tag: number, end: StallEnd): void {
    this.inner.stallEnded(tag, end);
  }

  saveState(): StateRecord {
    return { ailment: { ...this.ailment } };
  }

  restoreState(state: StateReader): void {
    const ailment = state.record("ailment");
    this.ailment.dead = ailment.boolean("dead");
    this.ailment.delayNs = ailment.number("delayNs");
  }

  stateParts(): Iterable<readonly [string, Stateful]> {
    if (!isStateful(this.inner)) throw new StateError(`${this.name}: its model saves no state`);
    return [["device", this.inner]];
  }
}
