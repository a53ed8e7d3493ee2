// The RISC-V IOMMU as one piece of hardware: puts register file, queues, caches, translation and interrupts together and is what
// the machine sees (host/hw/iommu/port.ts).
//
//     registers ── latched writes ──▶ step()/drain(): commands, debug translation
//     translate() ──▶ Translator ──▶ caches / walks ──▶ result or fault record
//     fault, command, page request ──▶ Interrupts ──▶ wire or MSI

import { CAUSE_MSI_WRITE_ACCESS_FAULT, TTYP_NONE } from "../../../arch/riscv/fault-records.ts";
import { REG, REGISTER_PAGE_BYTES } from "../../../arch/riscv/registers.ts";
import type { HpaPfn } from "../../../base/address.ts";
import type { ClockEvent } from "../../../base/clock.ts";
import type { AccessSize, MmioPort } from "../../../base/mmio.ts";
import { bytesOf, type Stateful, type StateReader, type StateRecord } from "../../../base/state.ts";
import type { Trace } from "../../../base/trace.ts";
import type { AtsStatus, AtsTarget, AtsTranslation } from "../../../devices/ports.ts";
import { AtsInvalidations } from "../ats-invalidations.ts";
import type { HardwareIommu, IommuParts, TranslationStatus } from "../port.ts";
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
import { WalkTrace } from "./walk-trace.ts";

export class RiscvIommu implements HardwareIommu, MmioPort, RegisterEffects, Stateful {
  readonly name: string;
  readonly kind = "riscv";
  readonly registerBytes = REGISTER_PAGE_BYTES;
  readonly registers: MmioPort;
  readonly configuration: RiscvIommuConfiguration;
  /** All caches: for tests and benchmarks; software reaches them by commands. */
  readonly caches: TranslationCaches;
  readonly #state: HardwareState;
  readonly #file: RegisterFile;
  readonly #interrupts: Interrupts;
  readonly #faults: FaultQueue;
  readonly #commands: CommandQueue;
  readonly #ats: AtsInvalidations;
  readonly #translator: Translator;
  readonly #atsTranslator: AtsTranslator;
  readonly #pageRequests: PageRequestQueue;
  readonly #debug: DebugTranslation;
  readonly #monitor: PerformanceMonitor;
  readonly #walkTrace: WalkTrace;
  readonly #trace: Trace;
  /** Counters or QoS ids want to know what each request used. */
  #watched = false; // not state: what the counters say
  #draining = false; // not state: within a call
  #scheduled = 0;
  readonly #workDue: ClockEvent;
  readonly #fenceDue: ClockEvent;
  readonly clockEvents: readonly ClockEvent[];

  constructor(parts: IommuParts, options: RiscvIommuOptions = {}) {
    this.name = parts.name;
    this.#workDue = { owner: this.name, name: "latched work", fire: () => this.#doWork() };
    this.#fenceDue = { owner: this.name, name: "ATS timeout", fire: () => this.#doTimedOut() };
    this.clockEvents = [this.#workDue, this.#fenceDue];
    this.configuration = configure(options);
    this.#trace = parts.trace;
    const state = new HardwareState(parts, this.configuration);
    this.#state = state;
    this.#interrupts = new Interrupts(state);
    this.#faults = new FaultQueue(state, this.#interrupts);
    this.#interrupts.onMessageFault = (pfn, offset) =>
      this.#faults.report(CAUSE_MSI_WRITE_ACCESS_FAULT, 0, -1, false, TTYP_NONE, pfn, offset, 0, 0, false);
    this.caches = new TranslationCaches(state);
    this.#ats = new AtsInvalidations(parts.clock, this.configuration.atsTags, this.configuration.atsTimeoutNs);
    this.#commands = new CommandQueue(state, this.#interrupts, this.caches, this.#ats);
    this.#translator = new Translator(state, this.caches, this.#faults);
    this.#atsTranslator = new AtsTranslator(state, this.#translator);
    this.#pageRequests = new PageRequestQueue(state, this.#interrupts, this.#faults, this.#translator, this.#ats);
    this.#debug = new DebugTranslation(state, this.#translator);
    this.#monitor = new PerformanceMonitor(state, this.#interrupts);
    this.#walkTrace = new WalkTrace(parts.trace, parts.name);
    this.#file = new RegisterFile(state, this);
    this.registers = this;
    this.directoryChanged();
    this.#monitor.reset();
    this.counterChanged();
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

  fctlChanged(): void {
    this.#state.rules = rulesOf(this.configuration, this.#state.reg(REG.fctl));
    this.#translator.setRules(this.#state.rules);
    // Legal only while everything is off (§6.4); contexts decoded under the old rules must not survive.
    this.caches.clear();
    this.#interrupts.tableChanged();
  }

  directoryChanged(): void {
    this.#translator.directoryChanged();
  }

  commandTailChanged(): void {
    this.#scheduleWork();
  }

  commandControl(value: number): void {
    this.#commands.writeControl(value);
    this.#scheduleWork();
  }

  faultControl(value: number): void {
    this.#faults.writeControl(value);
  }

  pageRequestControl(value: number): void {
    this.#pageRequests.writeControl(value);
  }

  interruptsAcknowledged(bits: number): void {
    this.#interrupts.acknowledge(bits);
  }

  interruptTableChanged(): void {
    this.#interrupts.tableChanged();
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
    this.#scheduleWork();
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
    if (this.#trace.on) this.#observe(deviceId);
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
    this.#observe(deviceId);
    this.#countLoads();
    const status = this.#atsTranslator.translate(deviceId, pasid, pfn, noWrite, privileged, execute);
    this.#count(EVENT_ATS_REQUEST, deviceId, pasid);
    return status;
  }

  pageRequest(deviceId: number, pasid: number, pfn: number, group: number, flags: number): void {
    if (!this.configuration.capabilities.ATS) return;
    this.#observe(deviceId);
    this.#pageRequests.receive(deviceId, pasid, pfn, group, flags);
  }

  stopMarker(deviceId: number, pasid: number): void {
    // §4.3: L = 1 with R = W = 0.
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
    if (this.#debug.pending) {
      const deviceId = this.#debug.deviceId();
      this.#observe(deviceId);
      this.#countLoads();
      this.#debug.run();
      this.#count(EVENT_UNTRANSLATED, deviceId, this.#debug.processId());
      return true;
    }
    return this.#commands.step();
  }

  drain(): void {
    // A handler that runs inside (an interrupt's store target) may drain too: the outer call goes on with what it left.
    if (this.#draining) return;
    this.#draining = true;
    this.#observe(-1);
    for (let left = this.#commands.mask + 1; left >= 0; left--) {
      this.#interrupts.sendDue();
      if (!(this.#debug.pending ? this.step() : this.#commands.step())) break;
    }
    this.#draining = false;
  }

  reset(): void {
    this.#file.reset();
    this.#ats.reset();
    this.caches.clear();
    this.#state.rules = rulesOf(this.configuration, this.configuration.fctl);
    this.#translator.setRules(this.#state.rules);
    this.directoryChanged();
    this.#interrupts.reset();
    this.#monitor.reset();
    this.counterChanged();
    this.#state.clock.cancel(this.#scheduled);
    this.#scheduled = 0;
  }

  /** With automaticDelayNs: lets the clock do what was latched. */
  #scheduleWork(): void {
    const delay = this.configuration.automaticDelayNs;
    if (delay === null || this.#scheduled !== 0) return;
    this.#scheduled = this.#state.clock.schedule(delay, this.#workDue);
  }

  #doWork(): void {
    this.#doTimedOut();
    // An IOFENCE.C that waits for an ATS invalidation is looked at again when that has timed out.
    const { clock } = this.#state;
    const deadline = this.#ats.nextDeadline;
    if (this.#commands.ready && deadline !== Number.POSITIVE_INFINITY && this.#scheduled === 0) {
      this.#scheduled = clock.schedule(Math.max(0, deadline - clock.now), this.#fenceDue);
    }
  }

  #doTimedOut(): void {
    this.#scheduled = 0;
    this.drain();
  }

  /** Attaches or detaches the walk observer as the trace goes on or off. */
  #observe(deviceId: number): void {
    const on = this.#state.trace.on;
    this.#walkTrace.deviceId = deviceId;
    if (on === this.#walkTrace.attached) return;
    this.#walkTrace.attached = on;
    this.#translator.observe(on ? this.#walkTrace : null);
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

  saveState(): StateRecord {
    return { registers: bytesOf(this.#state.regs), scheduled: this.#scheduled };
  }

  restoreState(state: StateReader): void {
    state.memory("registers", this.#state.regs);
    this.#scheduled = state.number("scheduled");
    this.#state.rules = rulesOf(this.configuration, this.#state.reg(REG.fctl));
    this.#translator.setRules(this.#state.rules);
    this.directoryChanged();
    this.#monitor.recount();
    this.#countersChanged();
  }

  stateParts(): Iterable<readonly [string, Stateful]> {
    return [
      ["interrupts", this.#interrupts],
      ["caches", this.caches],
      ["ATS invalidations", this.#ats],
      ["command queue", this.#commands],
      ["performance monitor", this.#monitor],
    ];
  }
}
