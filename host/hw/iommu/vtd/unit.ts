// A VT-d remapping unit as one piece of hardware: puts registers, queue, caches, translation, interrupt remapping and interrupts together and is what the
// machine sees (host/hw/iommu/port.ts).
//
//     registers ── latched writes ──▶ step()/drain(): descriptors
//     translate() ──┬─ Translator ──▶ caches / walks ──▶ result, or fault record
//                   └─ write to FEEx_xxxxh: InterruptRemapper ──▶ the interrupt, or fault record
//     fault, wait, page request ──▶ EventInterrupts ──▶ message

import { FAULT_IR_REQUEST_INVALID } from "../../../arch/vtd/fault-reasons.ts";
import { AT_UNTRANSLATED } from "../../../arch/vtd/fault-records.ts";
import { INTERRUPT_FIRST_PFN, INTERRUPT_LAST_PFN } from "../../../arch/vtd/interrupt-remapping.ts";
import { deviceTlbPages } from "../../../arch/vtd/invalidation-descriptors.ts";
import { AtsTranslator } from "../../../arch/vtd/parts/ats-translation.ts";
import { VtdCaches } from "../../../arch/vtd/parts/caches.ts";
import { EventInterrupts } from "../../../arch/vtd/parts/event-interrupts.ts";
import { FaultRecording } from "../../../arch/vtd/parts/fault-recording.ts";
import {
  INTERRUPT_BLOCKED,
  INTERRUPT_UNCHANGED,
  InterruptRemapper,
} from "../../../arch/vtd/parts/interrupt-remapper.ts";
import {
  type DescriptorEffects,
  InvalidationQueue,
  NOTHING_OUTSTANDING,
  STILL_OUTSTANDING,
} from "../../../arch/vtd/parts/invalidation-queue.ts";
import { PageRequestQueue } from "../../../arch/vtd/parts/page-request-queue.ts";
import { type RegisterEffects, RegisterFile } from "../../../arch/vtd/parts/register-file.ts";
import { Translator } from "../../../arch/vtd/parts/translation.ts";
import { VtdState } from "../../../arch/vtd/parts/vtd-state.ts";
import { TTM_SCALABLE } from "../../../arch/vtd/registers.ts";
import { StructureRules } from "../../../arch/vtd/structure-rules.ts";
import { frameIn } from "../../../arch/vtd/structure-walk.ts";
import { TABLE_NAMES } from "../../../arch/vtd/walk-observer.ts";
import type { HpaPfn } from "../../../base/address.ts";
import type { PhysicalMemory } from "../../../base/memory.ts";
import type { MmioPort } from "../../../base/mmio.ts";
import type { Stateful, StateReader, StateRecord } from "../../../base/state.ts";
import { ATS_UNSUPPORTED_REQUEST, type AtsStatus, type AtsTranslation } from "../../../devices/ports.ts";
import { ALL_PAGES } from "../ats-invalidations.ts";
import { CONSUMED, type HardwareIommu, type IommuParts, REFUSED, TRANSLATED, type TranslationStatus } from "../port.ts";
import { QueuedIommu } from "../queued-iommu.ts";
import { partsForAsking } from "../stale-accesses.ts";
import type { WalkTrace } from "../walk-trace.ts";
import { configure, type VtdConfiguration, type VtdOptions } from "./options.ts";

/** Pages between the receivers of interrupts whose APIC ids differ in bits 31:8: what address bits 63:40 say of a message (§5.1.6). */
const EXTENDED_DESTINATION_PAGES = 2 ** 28;

// Compiled code knows the constants of its own module, and looks up imported ones each time: here are those that every request meets.
const INTERRUPT_FIRST = INTERRUPT_FIRST_PFN;
const INTERRUPT_LAST = INTERRUPT_LAST_PFN;

export class VtdUnit extends QueuedIommu implements HardwareIommu, RegisterEffects, DescriptorEffects {
  readonly kind = "vtd";
  readonly registerBytes: number;
  readonly registers: MmioPort;
  readonly configuration: VtdConfiguration;
  /** All caches but the interrupt entries': for tests and benchmarks; software reaches them by descriptors. */
  readonly caches: VtdCaches;
  readonly #state: VtdState<HpaPfn>;
  readonly #file: RegisterFile;
  protected readonly wires: EventInterrupts;
  readonly #faults: FaultRecording;
  readonly #queue: InvalidationQueue;
  readonly #translator: Translator<HpaPfn>;
  readonly #atsTranslator: AtsTranslator<HpaPfn>;
  readonly #remapper: InterruptRemapper;
  readonly #pageRequests: PageRequestQueue;
  readonly #options: VtdOptions;
  readonly #memory: PhysicalMemory<HpaPfn>;

  constructor(parts: IommuParts, options: VtdOptions = {}) {
    const configuration = configure(options);
    super(parts, configuration, { tables: TABLE_NAMES, kind: "vtd" });
    const { features, caches, hostAddressBits, version } = configuration;
    this.configuration = configuration;
    this.#options = options;
    this.#memory = parts.memory;
    const rules = new StructureRules(features, hostAddressBits);
    const state = new VtdState<HpaPfn>(parts.name, "host", parts.memory, parts.trace, rules);
    this.#state = state;
    this.registerBytes = state.bytes;
    this.wires = new EventInterrupts(state);
    this.#faults = new FaultRecording(state, this.wires);
    this.caches = new VtdCaches(caches, rules);
    this.#queue = new InvalidationQueue(state, this.wires, this.#faults, this);
    this.#translator = new Translator(state, this.caches, this.#faults);
    this.#atsTranslator = new AtsTranslator(state, this.#translator);
    this.#remapper = new InterruptRemapper(state, this.#faults, caches.interrupts);
    this.#pageRequests = new PageRequestQueue(state, this.wires, {
      mayRequest: (sourceId, pasid, pfn) => this.#translator.mayRequestPages(sourceId, pasid, pfn),
      forget: (sourceId, pasid, pfn) => this.#forget(sourceId, pasid, pfn),
      respond: (sourceId, pasid, group, code) => this.respond(sourceId, pasid, group, code),
    });
    this.#file = new RegisterFile(state, this, this.wires, this.#faults, version);
    this.registers = this.#file;
  }

  override saveState(): StateRecord {
    return { ...super.saveState(), registers: this.#state.saveState() };
  }

  override restoreState(state: StateReader): void {
    super.restoreState(state);
    this.#state.restoreState(state.record("registers"));
    this.#translator.modeChanged();
  }

  override *stateParts(): Iterable<readonly [string, Stateful]> {
    yield ["interrupts", this.wires];
    yield ["faults", this.#faults];
    yield ["queue", this.#queue];
    yield* super.stateParts();
    yield ["interrupt entries", this.#remapper];
    yield ["caches", this.caches];
  }

  get skipCommand(): ((name: string) => boolean) | null {
    return this.#queue.skip;
  }

  set skipCommand(skip: ((name: string) => boolean) | null) {
    this.#queue.skip = skip;
  }

  #asked: VtdUnit | null = null; // not state: a copy

  withoutCaches(): VtdUnit {
    const caches = { contexts: 0, pasids: 0, translations: 0, tables: 0, interrupts: 0 };
    this.#asked ??= new VtdUnit(partsForAsking({ name: this.name, memory: this.#memory }), {
      ...this.#options,
      caches,
    });
    this.#asked.#state.copy(this.#state);
    this.#asked.#translator.modeChanged();
    return this.#asked;
  }

  remembers(deviceId: number, pasid: number, pfn: number): number {
    return this.#translator.remembers(deviceId, pasid, pfn);
  }

  /** What the last interrupt request that was remapped came to: for tests. */
  get remappedInterrupt(): Pick<
    InterruptRemapper,
    "destination" | "vector" | "delivery" | "level" | "logical" | "redirected"
  > {
    return this.#remapper;
  }

  get atsTranslation(): AtsTranslation {
    return this.#atsTranslator.translation;
  }

  // --- registers ---------------------------------------------------------------------------------------------------------------

  translationChanged(rootChanged: boolean): void {
    // ESRTPS: hardware itself forgets what came through the old root table.
    if (rootChanged && this.configuration.features.ESRTPS) this.caches.clear();
    this.#translator.modeChanged();
  }

  interruptsChanged(tableChanged: boolean): void {
    if (tableChanged && this.configuration.features.ESIRTPS) this.#remapper.invalidateAll();
  }

  queueSwitched(): void {
    this.#queue.switched();
    this.scheduleWork();
  }

  descriptorsQueued(): void {
    this.scheduleWork();
  }

  queueIsEmpty(): boolean {
    return this.#queue.isEmpty;
  }

  /** CCMD (§11.4): not with the queue on, not in scalable mode, not from version 6 on. */
  invalidateContexts(low: number, high: number): number {
    const state = this.#state;
    const granularity = (high >>> 29) & 3;
    if (!this.#byRegister || state.tableMode === TTM_SCALABLE || granularity === 0) return 0;
    this.contexts(granularity, low & 0xffff, low >>> 16, high & 3);
    return granularity;
  }

  invalidateTranslations(high: number, addressLow: number, addressHigh: number): number {
    const granularity = (high >>> 28) & 3;
    if (!this.#byRegister || granularity === 0) return 0;
    const mask = addressLow & 0x3f;
    // Without PSI, and for more than MAMV, all of the domain.
    const { PSI, MAMV } = this.configuration.features;
    const actual = granularity === 3 && (!PSI || mask > MAMV) ? 2 : granularity;
    const leavesOnly = (addressLow & 0x40) !== 0;
    this.translations(actual, high & 0xffff, frameIn(addressLow, addressHigh), mask, leavesOnly);
    return actual;
  }

  get #byRegister(): boolean {
    return !this.#state.queueEnabled && this.configuration.version < 0x60;
  }

  // --- descriptors -------------------------------------------------------------------------------------------------------------

  contexts(granularity: number, domain: number, sourceId: number, functionMask: number): void {
    this.caches.invalidateContexts(granularity, domain, sourceId, functionMask);
  }

  translations(granularity: number, domain: number, pfn: number, mask: number, leavesOnly: boolean): void {
    const actual = granularity === 3 && !this.configuration.features.PSI ? 2 : granularity;
    this.caches.invalidateTranslations(actual, domain, pfn, mask, leavesOnly);
  }

  pasidTranslations(
    domain: number,
    pasid: number,
    page: boolean,
    pfn: number,
    mask: number,
    leavesOnly: boolean,
  ): void {
    this.caches.invalidatePasidTranslations(domain, pasid, page, pfn, mask, leavesOnly);
  }

  pasids(granularity: number, domain: number, pasid: number): void {
    this.caches.invalidatePasids(granularity, domain, pasid);
  }

  interruptEntries(selective: boolean, index: number, mask: number): void {
    if (selective) this.#remapper.invalidate(index, mask);
    else this.#remapper.invalidateAll();
  }

  deviceTlb(sourceId: number, pasid: number, pfn: number, size: boolean, allPasids: boolean): boolean {
    const pages = deviceTlbPages(pfn, size);
    return pages < 2 ** 52
      ? this.ats.invalidate(sourceId, pasid, pfn - (pfn % pages), pages, allPasids)
      : this.ats.invalidate(sourceId, pasid, 0, ALL_PAGES, allPasids);
  }

  outstanding(): number {
    const pending = this.ats.settle();
    if (pending === "waiting") return STILL_OUTSTANDING;
    return pending === "none" ? NOTHING_OUTSTANDING : this.ats.silent;
  }

  respond(requesterId: number, pasid: number, group: number, code: number): void {
    this.ats.respond(requesterId, pasid, group, code);
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
    data: number,
  ): TranslationStatus {
    if (this.trace.on) this.observe(deviceId);
    // A unit serves one PCI segment, in which source ids have 16 bits.
    if (deviceId > 0xffff) return REFUSED;
    if (pfn <= INTERRUPT_LAST && pfn >= INTERRUPT_FIRST && pasid < 0 && !translated)
      return this.#interruptRequest(deviceId, access, pfn, offset, data);
    return this.#translator.translate(deviceId, pasid, privileged, access, pfn, translated);
  }

  get resultPfn(): HpaPfn {
    return this.#translator.resultPfn;
  }

  /** A request without PASID to the interrupt address range (§3.14, §5.1): dword writes are interrupts. */
  #interruptRequest(sourceId: number, access: number, pfn: number, offset: number, data: number): TranslationStatus {
    const state = this.#state;
    this.#translator.resultPfn = pfn as HpaPfn;
    if ((access & 3) !== 2 || data === -1 || (offset & 3) !== 0) {
      if (!state.translating && !state.remapsInterrupts) return TRANSLATED;
      const translator = this.#translator;
      translator.begin(sourceId, -1, false, access, pfn, AT_UNTRANSLATED);
      translator.report(FAULT_IR_REQUEST_INVALID);
      return REFUSED;
    }
    const address = ((pfn << 12) | offset) >>> 0;
    const remapper = this.#remapper;
    const outcome = remapper.request(sourceId, address, data);
    if (outcome === INTERRUPT_UNCHANGED) return TRANSLATED;
    if (outcome === INTERRUPT_BLOCKED) return REFUSED;
    const { destination, vector, delivery, level } = remapper;
    if (this.trace.on)
      this.trace.emit({ type: "irq", where: "host", source: `${this.name} remapped interrupt`, vector });
    // Each destination has a receiver of its own: which of several takes it (RH, DM) is not for here.
    const receiver = INTERRUPT_FIRST_PFN + (destination & 0xff) + (destination >>> 8) * EXTENDED_DESTINATION_PAGES;
    state.storeWord(receiver, 0, vector | (delivery << 8) | (level ? 0xc000 : 0));
    return CONSUMED;
  }

  translateForDevice(
    deviceId: number,
    pasid: number,
    pfn: number,
    noWrite: boolean,
    privileged: boolean,
    _execute: boolean,
  ): AtsStatus {
    this.observe(deviceId);
    if (deviceId > 0xffff) return ATS_UNSUPPORTED_REQUEST;
    return this.#atsTranslator.translate(deviceId, pasid, pfn, noWrite, privileged);
  }

  pageRequest(deviceId: number, pasid: number, pfn: number, group: number, flags: number): void {
    if (!this.configuration.features.PRS || deviceId > 0xffff) return;
    this.observe(deviceId);
    this.#pageRequests.receive(deviceId, pasid, pfn, group, flags);
  }

  stopMarker(deviceId: number, pasid: number): void {
    // §7.4: last in group with neither read nor write.
    this.pageRequest(deviceId, pasid, 0, 0, 4);
  }

  #forget(sourceId: number, pasid: number, pfn: number): void {
    const space = this.#translator.cachedSpace(sourceId, pasid);
    if (space !== null) this.caches.translations.invalidatePages(space.tag, pfn, 1, 0, 0);
  }

  // --- work --------------------------------------------------------------------------------------------------------------------

  protected doWork(): number {
    return this.#queue.step() ? 1 : 0;
  }

  protected get workLimit(): number {
    return this.#queue.entries;
  }

  protected get hasWork(): boolean {
    return this.#queue.ready;
  }

  protected sendDue(): void {
    this.wires.sendDue();
  }

  protected observeWalks(observer: WalkTrace | null): void {
    this.#translator.observe(observer);
  }

  reset(): void {
    this.#file.reset();
    this.wires.reset();
    this.#faults.reset();
    this.#queue.switched();
    this.#remapper.invalidateAll();
    this.caches.clear();
    this.#translator.modeChanged();
    this.forgetWork();
  }
}
