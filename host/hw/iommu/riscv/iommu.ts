// The RISC-V IOMMU as one piece of hardware: puts register file, queues, caches, translation and interrupts together and is what
// the machine sees (host/hw/iommu/port.ts).
//
//     registers ── latched writes ──▶ step()/drain(): commands, debug translation
//     translate() ──▶ Translator ──▶ caches / walks ──▶ result or fault record
//     fault, command, page request ──▶ Interrupts ──▶ wire or MSI

import { CAUSE_MSI_WRITE_ACCESS_FAULT, TTYP_NONE } from "../../../arch/riscv/fault-records.ts";
import { REG, REGISTER_PAGE_BYTES } from "../../../arch/riscv/registers.ts";
import { TABLE_NAMES } from "../../../arch/riscv/walk-observer.ts";
import type { HpaPfn } from "../../../base/address.ts";
import type { MmioPort } from "../../../base/mmio.ts";
import { bytesOf, type Stateful, type StateReader, type StateRecord } from "../../../base/state.ts";
import type { AtsStatus, AtsTranslation } from "../../../devices/ports.ts";
import type { HardwareIommu, IommuParts, TranslationStatus } from "../port.ts";
import { QueuedIommu } from "../queued-iommu.ts";
import { partsForAsking } from "../stale-accesses.ts";
import type { WalkTrace } from "../walk-trace.ts";
import { AtsTranslator } from "./ats-translation.ts";
import { CommandQueue } from "./command-queue.ts";
import { DebugTranslation } from "./debug-translation.ts";
import { FaultQueue } from "./fault-queue.ts";
import { HardwareState } from "./hardware-state.ts";
import { Interrupts } from "./interrupts.ts";
import { configure, type RiscvIommuConfiguration, type RiscvIommuOptions, rulesOf } from "./options.ts";
import { PageRequestQueue } from "./page-request-queue.ts";
import {
  EVENT_ATS_REQUEST,
  EVENT_DDT_WALK,
  EVENT_FIRST_STAGE_WALK,
  EVENT_PDT_WALK,
  EVENT_SECOND_STAGE_WALK,
  EVENT_TLB_MISS,
  EVENT_TRANSLATED,
  EVENT_UNTRANSLATED,
  PerformanceMonitor,
} from "./performance-monitor.ts";
import { type RegisterEffects, RegisterFile } from "./register-file.ts";
import { Translator } from "./translation.ts";
import { TranslationCaches } from "./translation-caches.ts";

export class RiscvIommu extends QueuedIommu implements HardwareIommu, RegisterEffects {
  readonly kind = "riscv";
  readonly registerBytes = REGISTER_PAGE_BYTES;
  readonly registers: MmioPort;
  readonly configuration: RiscvIommuConfiguration;
  /** All caches: for tests and benchmarks; software reaches them by commands. */
  readonly caches: TranslationCaches;
  readonly #state: HardwareState;
  readonly #file: RegisterFile;
  protected readonly wires: Interrupts;
  readonly #faults: FaultQueue;
  readonly #commands: CommandQueue;
  readonly #translator: Translator;
  readonly #atsTranslator: AtsTranslator;
  readonly #pageRequests: PageRequestQueue;
  readonly #debug: DebugTranslation;
  readonly #monitor: PerformanceMonitor;
  /** Counters or QoS ids want to know what each request used. */
  #watched = false; // not state: what the counters say

  readonly #options: RiscvIommuOptions;

  constructor(parts: IommuParts, options: RiscvIommuOptions = {}) {
    const configuration = configure(options);
    super(parts, configuration, { tables: TABLE_NAMES });
    this.configuration = configuration;
    this.#options = options;
    const state = new HardwareState(parts, this.configuration);
    this.#state = state;
    this.wires = new Interrupts(state);
    this.#faults = new FaultQueue(state, this.wires);
    this.wires.onMessageFault = (pfn, offset) =>
      this.#faults.report(CAUSE_MSI_WRITE_ACCESS_FAULT, 0, -1, false, TTYP_NONE, pfn, offset, 0, 0, false);
    this.caches = new TranslationCaches(state);
    this.#commands = new CommandQueue(state, this.wires, this.caches, this.ats);
    this.#translator = new Translator(state, this.caches, this.#faults);
    this.#atsTranslator = new AtsTranslator(state, this.#translator);
    this.#pageRequests = new PageRequestQueue(state, this.wires, this.#faults, this.#translator, this.ats);
    this.#debug = new DebugTranslation(state, this.#translator);
    this.#monitor = new PerformanceMonitor(state, this.wires);
    this.#file = new RegisterFile(state, this);
    this.registers = this.#file;
    this.directoryChanged();
    this.#monitor.reset();
    this.counterChanged();
  }

  get skipCommand(): ((name: string) => boolean) | null {
    return this.#commands.skip;
  }

  set skipCommand(skip: ((name: string) => boolean) | null) {
    this.#commands.skip = skip;
  }

  #asked: RiscvIommu | null = null; // not state: a copy

  withoutCaches(): RiscvIommu {
    const caches = { devices: 0, processes: 0, translations: 0, messages: 0 };
    this.#asked ??= new RiscvIommu(partsForAsking(this.#state), { ...this.#options, caches });
    this.#asked.#state.regs.set(this.#state.regs);
    this.#asked.fctlChanged();
    this.#asked.directoryChanged();
    return this.#asked;
  }

  remembers(deviceId: number, pasid: number, pfn: number): number {
    return this.#translator.remembers(deviceId, pasid, pfn);
  }

  get atsTranslation(): AtsTranslation {
    return this.#atsTranslator.translation;
  }

  // --- registers ---------------------------------------------------------------------------------------------------------------

  fctlChanged(): void {
    this.#state.rules = rulesOf(this.configuration, this.#state.reg(REG.fctl));
    this.#translator.setRules(this.#state.rules);
    // Legal only while everything is off (§6.4); contexts decoded under the old rules must not survive.
    this.caches.clear();
    this.wires.tableChanged();
  }

  directoryChanged(): void {
    this.#translator.directoryChanged();
  }

  commandTailChanged(): void {
    this.scheduleWork();
  }

  commandControl(value: number): void {
    this.#commands.writeControl(value);
    this.scheduleWork();
  }

  faultControl(value: number): void {
    this.#faults.writeControl(value);
  }

  pageRequestControl(value: number): void {
    this.#pageRequests.writeControl(value);
  }

  interruptsAcknowledged(bits: number): void {
    this.wires.acknowledge(bits);
  }

  interruptTableChanged(): void {
    this.wires.tableChanged();
  }

  counterTouched(): void {
    this.#monitor.update();
  }

  counterChanged(): void {
    this.#monitor.changed();
    this.#countersChanged();
  }

  #countersChanged(): void {
    this.#translator.walker.counting = this.#monitor.active;
    this.#watched = this.#monitor.active || this.configuration.capabilities.QOSID;
  }

  translationRequested(): void {
    this.scheduleWork();
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
    const translator = this.#translator;
    if (!this.#watched) {
      return translator.translate(deviceId, pasid, privileged, access, pfn, offset, translated, data);
    }
    this.#countLoads();
    const status = translator.translateFully(deviceId, pasid, privileged, access, pfn, offset, translated, data);
    this.#count(translated ? EVENT_TRANSLATED : EVENT_UNTRANSLATED, deviceId, pasid);
    return status;
  }

  get resultPfn(): HpaPfn {
    return this.#translator.resultPfn;
  }

  /** QoS ids of the last request (§6.27, §3.1.3.4): the device's, or iommu_qosid's where none has been located. */
  get resultQos(): { readonly rcid: number; readonly mcid: number } {
    const device = this.#translator.device;
    if (device !== null) return { rcid: device.rcid, mcid: device.mcid };
    const register = this.#state.reg(REG.iommu_qosid);
    return { rcid: register & 0xfff, mcid: (register >>> 16) & 0xfff };
  }

  translateForDevice(
    deviceId: number,
    pasid: number,
    pfn: number,
    noWrite: boolean,
    privileged: boolean,
    execute: boolean,
  ): AtsStatus {
    this.observe(deviceId);
    this.#countLoads();
    const status = this.#atsTranslator.translate(deviceId, pasid, pfn, noWrite, privileged, execute);
    this.#count(EVENT_ATS_REQUEST, deviceId, pasid);
    return status;
  }

  pageRequest(deviceId: number, pasid: number, pfn: number, group: number, flags: number): void {
    if (!this.configuration.capabilities.ATS) return;
    this.observe(deviceId);
    this.#pageRequests.receive(deviceId, pasid, pfn, group, flags);
  }

  stopMarker(deviceId: number, pasid: number): void {
    // §4.3: L = 1 with R = W = 0.
    this.pageRequest(deviceId, pasid, 0, 0, 4);
  }

  // --- work --------------------------------------------------------------------------------------------------------------------

  protected doWork(limit: number): number {
    if (!this.#debug.pending) {
      if (!this.#commands.ready) return 0;
      const plain = this.#commands.runPlain(limit);
      return plain > 0 ? plain : this.#commands.step() ? 1 : 0;
    }
    const deviceId = this.#debug.deviceId();
    this.observe(deviceId);
    this.#countLoads();
    this.#debug.run();
    this.#count(EVENT_UNTRANSLATED, deviceId, this.#debug.processId());
    return 1;
  }

  protected get workLimit(): number {
    return this.#commands.mask + 1;
  }

  protected get hasWork(): boolean {
    return this.#commands.ready;
  }

  protected sendDue(): void {
    this.wires.sendDue();
  }

  protected observeWalks(observer: WalkTrace | null): void {
    this.#translator.observe(observer);
  }

  reset(): void {
    this.#file.reset();
    this.caches.clear();
    this.#state.rules = rulesOf(this.configuration, this.configuration.fctl);
    this.#translator.setRules(this.#state.rules);
    this.directoryChanged();
    this.wires.reset();
    this.#monitor.reset();
    this.counterChanged();
    this.forgetWork();
  }

  /** Starts counting table loads for one request. */
  #countLoads(): void {
    const translator = this.#translator;
    translator.walker.firstLoads = 0;
    translator.walker.secondLoads = 0;
    translator.directories.deviceLoads = 0;
    translator.directories.processLoads = 0;
  }

  /** Tells the performance monitor what the request just done was and took (§6.23). */
  #count(event: number, deviceId: number, pasid: number): void {
    const monitor = this.#monitor;
    if (!monitor.active) return;
    const { walker, directories, device, space, missed } = this.#translator;
    const gscid = device !== null && device.secondStageOnly.secondLevels !== 0 ? device.gscid : -1;
    const pscid = space === null ? -1 : space.pscid;
    monitor.count(event, 1, deviceId, pasid, gscid, pscid);
    if (missed) monitor.count(EVENT_TLB_MISS, 1, deviceId, pasid, gscid, pscid);
    monitor.count(EVENT_DDT_WALK, directories.deviceLoads, deviceId, pasid, gscid, pscid);
    monitor.count(EVENT_PDT_WALK, directories.processLoads, deviceId, pasid, gscid, pscid);
    monitor.count(EVENT_FIRST_STAGE_WALK, walker.firstLoads, deviceId, pasid, gscid, pscid);
    monitor.count(EVENT_SECOND_STAGE_WALK, walker.secondLoads, deviceId, pasid, gscid, pscid);
  }

  override saveState(): StateRecord {
    return { ...super.saveState(), registers: bytesOf(this.#state.regs) };
  }

  override restoreState(state: StateReader): void {
    super.restoreState(state);
    state.memory("registers", this.#state.regs);
    this.#state.rules = rulesOf(this.configuration, this.#state.reg(REG.fctl));
    this.#translator.setRules(this.#state.rules);
    this.directoryChanged();
    this.#monitor.recount();
    this.#countersChanged();
  }

  override stateParts(): Iterable<readonly [string, Stateful]> {
    return [
      ["interrupts", this.wires],
      ["caches", this.caches],
      ...super.stateParts(),
      ["command queue", this.#commands],
      ["performance monitor", this.#monitor],
    ];
  }
}
