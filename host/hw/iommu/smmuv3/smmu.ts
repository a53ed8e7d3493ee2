// The SMMUv3 as one piece of hardware: puts registers, queues, caches, translation and interrupts together and is what the machine sees
// (host/hw/iommu/port.ts).
//
//     registers ── latched writes ──▶ step()/drain(): commands
//     translate() ──▶ Translator ──▶ caches / walks ──▶ result, event record, or a stalled transaction
//     event, error, CMD_SYNC, page request ──▶ Interrupts ──▶ wire or MSI

import { ConfigurationCache } from "../../../arch/smmuv3/parts/configuration-cache.ts";
import { EventQueue } from "../../../arch/smmuv3/parts/event-queue.ts";
import { Interrupts } from "../../../arch/smmuv3/parts/interrupts.ts";
import { type RegisterEffects, RegisterFile } from "../../../arch/smmuv3/parts/register-file.ts";
import { TlbInvalidations } from "../../../arch/smmuv3/parts/tlb-invalidations.ts";
import { Translator } from "../../../arch/smmuv3/parts/translation.ts";
import { TranslationCache } from "../../../arch/smmuv3/parts/translation-cache.ts";
import { CR0_CMDQEN, CR0_EVENTQEN, CR0_SMMUEN, CR2_E2H, REG, REGISTER_BYTES } from "../../../arch/smmuv3/registers.ts";
import type { HpaPfn } from "../../../base/address.ts";
import type { ClockEvent } from "../../../base/clock.ts";
import type { AccessSize, MmioPort } from "../../../base/mmio.ts";
import type { Stateful, StateReader, StateRecord } from "../../../base/state.ts";
import type { Trace } from "../../../base/trace.ts";
import type { AtsStatus, AtsTarget, AtsTranslation } from "../../../devices/ports.ts";
import { AtsInvalidations } from "../ats-invalidations.ts";
import type { HardwareIommu, IommuParts, StallEnd, TranslationStatus } from "../port.ts";
import { AtsTranslator } from "./ats-translation.ts";
import { CommandExecutor } from "./command-executor.ts";
import { CommandQueue } from "./command-queue.ts";
import { HardwareState } from "./hardware-state.ts";
import { configure, type Smmuv3Configuration, type Smmuv3Options } from "./options.ts";
import { PageRequestQueue } from "./page-request-queue.ts";
import { WalkTrace } from "./walk-trace.ts";

export class Smmuv3 implements HardwareIommu, MmioPort, RegisterEffects, Stateful {
  readonly name: string;
  readonly kind = "smmuv3";
  readonly registerBytes = REGISTER_BYTES;
  readonly registers: MmioPort;
  readonly configuration: Smmuv3Configuration;
  readonly clockEvents: readonly ClockEvent[];
  readonly #state: HardwareState;
  readonly #file: RegisterFile;
  readonly #interrupts: Interrupts;
  readonly #events: EventQueue;
  readonly #commands: CommandQueue;
  readonly #ats: AtsInvalidations;
  readonly #configurations: ConfigurationCache;
  readonly #translations: TranslationCache;
  readonly #translator: Translator<HpaPfn>;
  readonly #atsTranslator: AtsTranslator;
  readonly #pageRequests: PageRequestQueue;
  readonly #walkTrace: WalkTrace;
  readonly #trace: Trace;
  readonly #work: ClockEvent;
  #draining = false; // not state: within a call
  #scheduled = 0;

  constructor(parts: IommuParts, options: Smmuv3Options = {}) {
    this.name = parts.name;
    this.configuration = configure(options);
    this.#trace = parts.trace;
    const { features, caches, atsTags, atsTimeoutNs } = this.configuration;
    const state = new HardwareState(parts, this.configuration);
    this.#state = state;
    this.#interrupts = new Interrupts(state);
    this.#events = new EventQueue(state, this.#interrupts);
    const e2h = (): boolean => (state.reg(REG.CR2) & CR2_E2H) !== 0;
    this.#configurations = new ConfigurationCache(caches.streams, caches.contexts, features, e2h);
    this.#translations = new TranslationCache(caches.translations);
    this.#ats = new AtsInvalidations(parts.clock, atsTags, atsTimeoutNs);
    const tlb = new TlbInvalidations(state, this.#translations);
    const targets = { state, configurations: this.#configurations, tlb, events: this.#events, ats: this.#ats };
    this.#commands = new CommandQueue(state, this.#interrupts, new CommandExecutor(targets, 0));
    this.#translator = new Translator(state, this.#configurations, this.#translations, this.#events);
    this.#atsTranslator = new AtsTranslator(state, this.#translator);
    this.#pageRequests = new PageRequestQueue(state, this.#interrupts, this.#ats, (sid) => {
      const stream = state.enabled ? this.#translator.streamFor(sid) : null;
      return stream === null ? -1 : stream.ppar ? 1 : 0;
    });
    this.#walkTrace = new WalkTrace(parts.trace, parts.name);
    this.#file = new RegisterFile(state, this, this.configuration);
    this.registers = this;
    this.#work = { owner: `iommu ${parts.name}`, name: "work", fire: () => this.#workDue() };
    this.clockEvents = [this.#work];
  }

  saveState(): StateRecord {
    return { scheduled: this.#scheduled };
  }

  restoreState(state: StateReader): void {
    this.#scheduled = state.number("scheduled");
    this.#translator.streamTableChanged();
  }

  *stateParts(): Iterable<readonly [string, Stateful]> {
    yield ["registers", this.#state];
    yield ["interrupts", this.#interrupts];
    yield ["events", this.#events];
    yield ["commands", this.#commands];
    yield ["ats", this.#ats];
    yield ["configurations", this.#configurations];
    yield ["translations", this.#translations];
  }

  get atsTranslation(): AtsTranslation {
    return this.#atsTranslator.translation;
  }

  // --- registers ---------------------------------------------------------------------------------------------------------------

  /** High half of the last 8-byte register read. */
  high = 0;

  mmioRead(offset: number, size: AccessSize): number {
    const low = this.#file.mmioRead(offset, size);
    this.high = this.#file.high;
    return low;
  }

  mmioWrite(offset: number, size: AccessSize, lo: number, hi: number): void {
    this.#file.mmioWrite(offset, size, lo, hi);
  }

  controlChanged(before: number, after: number): void {
    const changed = before ^ after;
    if ((changed & CR0_CMDQEN) !== 0) this.#commands.switched();
    // §6.3.9: what is stalled is terminated when SMMUEN has gone off.
    if ((changed & before & CR0_SMMUEN) !== 0) this.#events.terminate(-1);
    if ((changed & after & CR0_EVENTQEN) !== 0) this.#events.recordKept();
    if ((after & CR0_CMDQEN) !== 0) this.#scheduleWork();
  }

  streamTableChanged(): void {
    this.#translator.streamTableChanged();
  }

  bypassChanged(): void {}

  commandsQueued(): void {
    this.#scheduleWork();
  }

  errorsAcknowledged(): void {
    this.#events.recordKept();
    this.#scheduleWork();
  }

  eventsConsumed(): void {
    this.#events.recordKept();
  }

  // --- transactions and messages -----------------------------------------------------------------------------------------------

  translate(
    deviceId: number,
    pasid: number,
    privileged: boolean,
    access: number,
    pfn: number,
    offset: number,
    translated: boolean,
    _data: number,
  ): TranslationStatus {
    if (this.#trace.on || this.#walkTrace.attached) this.#observe(deviceId);
    return this.#translator.translate(deviceId, pasid, privileged, access, pfn, offset, translated);
  }

  get resultPfn(): HpaPfn {
    return this.#translator.resultPfn;
  }

  get stallTag(): number {
    return this.#translator.stallTag;
  }

  /** Transactions that are stalled now. */
  get stalledTransactions(): number {
    return this.#events.stalled;
  }

  get onStallEnded(): (deviceId: number, tag: number, end: StallEnd) => void {
    return this.#events.onStallEnded;
  }

  set onStallEnded(ended: (deviceId: number, tag: number, end: StallEnd) => void) {
    this.#events.onStallEnded = ended;
  }

  translateForDevice(
    deviceId: number,
    pasid: number,
    pfn: number,
    noWrite: boolean,
    privileged: boolean,
    execute: boolean,
  ): AtsStatus {
    this.#observe(deviceId);
    return this.#atsTranslator.translate(deviceId, pasid, pfn, noWrite, privileged, execute);
  }

  pageRequest(deviceId: number, pasid: number, pfn: number, group: number, flags: number): void {
    if (!this.configuration.features.PRI) return;
    this.#observe(deviceId);
    this.#pageRequests.receive(deviceId, pasid, pfn, group, flags);
  }

  stopMarker(deviceId: number, pasid: number): void {
    // §8.1: Last with neither read nor write.
    this.pageRequest(deviceId, pasid, 0, 0, 4);
  }

  invalidationCompleted(deviceId: number, itag: number): void {
    this.#ats.completed(deviceId, itag);
    this.#scheduleWork();
  }

  get findTarget(): (deviceId: number) => AtsTarget | undefined {
    return this.#ats.findTarget;
  }

  set findTarget(find: (deviceId: number) => AtsTarget | undefined) {
    this.#ats.findTarget = find;
  }

  get onWire(): (vector: number, asserted: boolean) => void {
    return this.#interrupts.onWire;
  }

  set onWire(drive: (vector: number, asserted: boolean) => void) {
    this.#interrupts.onWire = drive;
  }

  // --- work --------------------------------------------------------------------------------------------------------------------

  step(): boolean {
    this.#observe(-1);
    this.#interrupts.sendDue();
    return this.#commands.step();
  }

  drain(): void {
    // A handler that runs inside (an interrupt's store target) may drain too: the outer call goes on with what it left.
    if (this.#draining) return;
    this.#draining = true;
    this.#observe(-1);
    for (let left = this.#commands.entries; left >= 0; left--) {
      this.#interrupts.sendDue();
      if (!this.#commands.step()) break;
    }
    this.#draining = false;
  }

  reset(): void {
    this.#file.reset();
    this.#interrupts.reset();
    this.#events.reset();
    this.#commands.reset();
    this.#ats.reset();
    this.#configurations.clear();
    this.#translations.clear();
    this.#translator.streamTableChanged();
    this.#state.clock.cancel(this.#scheduled);
    this.#scheduled = 0;
  }

  /** With automaticDelayNs: lets the clock do what was latched. */
  #scheduleWork(): void {
    const delay = this.configuration.automaticDelayNs;
    if (delay === null || this.#scheduled !== 0) return;
    this.#scheduled = this.#state.clock.schedule(delay, this.#work);
  }

  #workDue(): void {
    this.#scheduled = 0;
    this.drain();
    // A CMD_SYNC that waits for an ATS invalidation is looked at again when that has timed out.
    const deadline = this.#ats.nextDeadline;
    if (this.#commands.ready === 0 || deadline === Number.POSITIVE_INFINITY || this.#scheduled !== 0) return;
    this.#scheduled = this.#state.clock.schedule(Math.max(0, deadline - this.#state.clock.now), this.#work);
  }

  /** Attaches or detaches the walk observer as the trace goes on or off. */
  #observe(deviceId: number): void {
    const on = this.#trace.on;
    this.#walkTrace.deviceId = deviceId;
    if (on === this.#walkTrace.attached) return;
    this.#walkTrace.attached = on;
    this.#translator.observe(on ? this.#walkTrace : null);
  }
}
