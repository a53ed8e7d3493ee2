// The guest-visible VT-d unit: a register page on the VM's bus, queue and structures in guest memory, a host port below; first stage alone.
//
//   guest store ─▶ mmioWrite ─▶ register file ─▶ effect: TE, SRTP → structures read and contexts installed (../dispositions.ts, device-context.ts)
//                                                      IQT      → descriptors executed, what they invalidate forwarded (invalidations.ts)
//                                                      FSTS     → the queue goes on
//
// Registers, queue, fault records and translation are what hardware is made of too (host/arch/vtd/parts). Everything is done within the access that asks
// for it: GSTS agrees at once. Nothing a guest or a host does throws here.
//
// What the guest hears: faults of device models, and of assigned devices what is wrong with their entries, when they are read. What an assigned device's
// first stage refuses stays with the host: Linux has no event queue for VT-d.

import {
  FAULT_PASID_DIRECTORY_NOT_PRESENT,
  FAULT_PASID_NOT_PRESENT,
  FAULT_SM_CONTEXT_NOT_PRESENT,
  FAULT_SM_ROOT_NOT_PRESENT,
} from "../../../host/arch/vtd/fault-reasons.ts";
import { AT_UNTRANSLATED } from "../../../host/arch/vtd/fault-records.ts";
import { VtdCaches } from "../../../host/arch/vtd/parts/caches.ts";
import { EventInterrupts } from "../../../host/arch/vtd/parts/event-interrupts.ts";
import { FaultRecording, RECORD_T1 } from "../../../host/arch/vtd/parts/fault-recording.ts";
import {
  type DescriptorEffects,
  InvalidationQueue,
  NOTHING_OUTSTANDING,
} from "../../../host/arch/vtd/parts/invalidation-queue.ts";
import { type RegisterEffects, RegisterFile } from "../../../host/arch/vtd/parts/register-file.ts";
import { Translator } from "../../../host/arch/vtd/parts/translation.ts";
import { VtdState } from "../../../host/arch/vtd/parts/vtd-state.ts";
import { GRANULARITY_DEVICE } from "../../../host/arch/vtd/registers.ts";
import { StructureRules } from "../../../host/arch/vtd/structure-rules.ts";
import { KIND_WRITE } from "../../../host/arch/vtd/two-stage-walk.ts";
import { TABLE_NAMES } from "../../../host/arch/vtd/walk-observer.ts";
import type { GpaPfn } from "../../../host/base/address.ts";
import type { AccessSize } from "../../../host/base/mmio.ts";
import type { Stateful, StateReader, StateRecord } from "../../../host/base/state.ts";
import type { Trace } from "../../../host/base/trace.ts";
import type { AtsTarget, DmaPort } from "../../../host/devices/ports.ts";
import { Dispositions } from "../dispositions.ts";
import { RESPONSE_INVALID, type ViommuHost } from "../host-port.ts";
import type {
  CapabilitySheet,
  GuestVisibleIommu,
  PluggedDevice,
  PluggedState,
  ViommuActivity,
  ViommuOptions,
} from "../kind.ts";
import { limitedReport } from "../limited-report.ts";
import { WalkTrace } from "../walk-trace.ts";
import {
  deriveCapabilities,
  GUEST_ADDRESS_BITS,
  type HardwareCapabilities,
  type VtdConfiguration,
} from "./capabilities.ts";
import { type DeviceContext, DeviceContexts } from "./device-context.ts";
import { VtdEmulatedDma } from "./emulated-devices.ts";
import { EVERYTHING, PendingInvalidations } from "./invalidations.ts";

export interface VtdViommuOptions extends Omit<ViommuOptions<VtdConfiguration>, "hardware"> {
  /** What the hardware can do (GET_HW_INFO of the devices behind it); null without a host. */
  readonly hardware: HardwareCapabilities | null;
}

/** Bytes of the register page. */
export const VIOMMU_REGISTER_BYTES = 4096;
/** VER: 5.0. */
const VERSION = 0x50;
/** What is kept for emulated devices. */
const CACHES = { contexts: 64, pasids: 64, translations: 512, tables: 0 };
/** What is absent is nothing wrong: the guest has not set the device up. */
const ABSENT: ReadonlySet<number> = new Set([
  FAULT_SM_ROOT_NOT_PRESENT,
  FAULT_SM_CONTEXT_NOT_PRESENT,
  FAULT_PASID_DIRECTORY_NOT_PRESENT,
  FAULT_PASID_NOT_PRESENT,
]);
/** AW of a PASID entry: reserved without a second stage, but Linux's driver writes it whatever PGTT says (pasid_set_address_width). */
const AW = 7 << 2;

export class VtdViommu implements GuestVisibleIommu, RegisterEffects, DescriptorEffects, Stateful {
  readonly name: string;
  high = 0;
  flagged = false;
  cause = 0;
  readonly capabilitySheet: CapabilitySheet;
  readonly dispositions: Dispositions<DeviceContext>;
  readonly #state: VtdState<GpaPfn>;
  readonly #file: RegisterFile;
  readonly #events: EventInterrupts;
  readonly #faults: FaultRecording;
  readonly #queue: InvalidationQueue;
  readonly #contexts: DeviceContexts;
  readonly #caches: VtdCaches;
  readonly #translator: Translator<GpaPfn>;
  readonly #pending: PendingInvalidations; // not state: empty between two accesses
  readonly #walkTrace: WalkTrace;
  readonly #trace: Trace;
  readonly #host: ViommuHost | null;
  readonly #report: (message: string) => void;
  readonly #executed: Record<string, number> = {};
  #total = 0;
  #recorded = 0;
  /** Guest ids of assigned devices → what is wrong with their entries, told once. */
  readonly #told = new Map<number, number>();
  #running = false; // not state: within a call
  #marked = false; // not state: within a call

  constructor(options: VtdViommuOptions) {
    const configuration = options.configuration ?? {};
    // A host that does not say what its hardware can do: nothing that needs it is promised.
    const hardware = options.hardware ?? (options.host === null ? null : { cap: 0n, ecap: 0n });
    const { features, sheet } = deriveCapabilities(hardware, configuration);
    this.name = options.name;
    this.capabilitySheet = sheet;
    this.#host = options.host;
    this.#trace = options.trace;
    this.#report = limitedReport(options.report ?? (() => {}));
    const rules = new StructureRules(features, GUEST_ADDRESS_BITS);
    rules.pasidReserved[0]! &= ~AW;
    const state = new VtdState<GpaPfn>(options.name, "guest", options.memory, options.trace, rules);
    this.#state = state;
    this.#events = new EventInterrupts(state);
    this.#events.onMessage = (pfn, offset, data) => void options.interrupt.message(pfn as GpaPfn, offset, data);
    this.#faults = new FaultRecording(state, this.#events);
    this.#caches = new VtdCaches(CACHES, rules);
    this.#queue = new InvalidationQueue(state, this.#events, this.#faults, this);
    this.#translator = new Translator(state, this.#caches, this.#faults);
    this.#walkTrace = new WalkTrace(options.trace, options.name, TABLE_NAMES, "vtd");
    this.#contexts = new DeviceContexts(state);
    this.dispositions = new Dispositions(options.host, this.#contexts, this.#report, options.trace, options.name);
    this.#pending = new PendingInvalidations(
      (batch, count, device) => options.host?.invalidate(batch, count, device) ?? { done: count, errno: 0 },
      (device) => this.#notInvalidated(device),
    );
    if (options.host !== null) {
      options.host.onEvents = () => {
        this.flagged = true;
        this.cause = options.trace.cause;
      };
    }
    this.#file = new RegisterFile(state, this, this.#events, this.#faults, VERSION);
  }

  get activity(): ViommuActivity {
    return {
      commands: this.#executed,
      faults: this.#recorded,
      nested: this.dispositions.nestedInstalled,
      bypass: this.dispositions.bypassInstalled,
    };
  }

  get commandsExecuted(): number {
    return this.#total;
  }

  get plugged(): Iterable<PluggedState> {
    return this.dispositions.all;
  }

  // --- devices -----------------------------------------------------------------------------------------------------------------

  plug(device: PluggedDevice): number {
    this.#observe(device.guestId);
    const errno = this.dispositions.add(device);
    if (errno === 0) this.#install();
    return errno;
  }

  unplug(guestId: number): number {
    const state = this.dispositions.find(guestId);
    if (state !== undefined) this.#pending.forget(state.device.handle);
    this.#told.delete(guestId);
    return this.dispositions.remove(guestId);
  }

  deviceReset(_guestId: number): void {
    // What it asked for waits nowhere; its entries stand.
  }

  messagePage(guestId: number, pfn: number): number {
    const state = this.dispositions.find(guestId);
    if (state === undefined || state.disposition === "blocked") return -1;
    if (state.disposition === "bypass") return pfn;
    this.#observe(guestId);
    const translator = this.#translator;
    translator.begin(guestId, -1, false, 2, pfn, AT_UNTRANSLATED);
    const context = translator.contextFor();
    const space = context === null ? null : translator.spaceFor(context);
    if (space === null) return -1;
    if (space.identity) return pfn;
    const { walker } = translator;
    const high = (pfn * 2 ** -32) | 0;
    return walker.walkCarefully(space, pfn | 0, high, KIND_WRITE, false) === 0 ? walker.hostPfn : -1;
  }

  emulatedDma(deviceId: () => number, _target?: AtsTarget): DmaPort {
    return new VtdEmulatedDma(deviceId, {
      translator: this.#translator,
      plugged: (guestId) => this.dispositions.find(guestId) !== undefined,
      observe: (guestId) => this.#observe(guestId),
      memory: this.#state.memory,
      trace: this.#trace,
      refused: () => {
        this.#recorded++;
      },
    });
  }

  /** There is nothing that the host could report but page requests, which nobody was offered. */
  service(): void {
    this.flagged = false;
    const host = this.#host;
    if (host === null) return;
    for (const event of host.events()) {
      if (event.kind === "page-request" && event.last) host.respond(event.cookie, RESPONSE_INVALID);
    }
  }

  // --- registers ---------------------------------------------------------------------------------------------------------------

  mmioRead(offset: number, size: AccessSize): number {
    const low = this.#file.mmioRead(offset, size);
    this.high = this.#file.high;
    return low;
  }

  mmioWrite(offset: number, size: AccessSize, lo: number, hi: number): void {
    this.#file.mmioWrite(offset, size, lo, hi);
  }

  translationChanged(rootChanged: boolean): void {
    // ESRTPS.
    if (rootChanged) this.#caches.clear();
    this.#translator.modeChanged();
    // TE may stand with no root table latched any more: all is read again in any case.
    this.dispositions.mark(-1);
    this.#install();
  }

  interruptsChanged(): void {}

  queueSwitched(): void {
    this.#queue.switched();
    this.#run();
  }

  descriptorsQueued(): void {
    this.#run();
  }

  queueIsEmpty(): boolean {
    return this.#queue.isEmpty;
  }

  /** CCMD: not in scalable mode, and in legacy mode there is nothing that changes by it. */
  invalidateContexts(): number {
    return 0;
  }

  invalidateTranslations(): number {
    return 0;
  }

  /** Executes what is queued: a queue's worth at most, so that a guest whose queue never ends does not hold the VM up. */
  #run(): void {
    if (this.#running) return;
    this.#running = true;
    this.#observe(-1);
    for (let left = this.#queue.entries; left > 0 && this.#queue.step(); left--);
    this.#settle();
    this.#running = false;
  }

  /** What was collected takes effect: invalidations first, for they are of what was installed when they came. */
  #settle(): void {
    this.#pending.flush();
    if (!this.#marked) return;
    this.#marked = false;
    this.#install();
  }

  #install(): void {
    this.dispositions.installMarked(({ device, disposition, cause }) => {
      if (device.emulated || device.held === true) return;
      const wrong = disposition === "blocked" && !ABSENT.has(cause) ? cause : 0;
      if ((this.#told.get(device.guestId) ?? 0) === wrong) return;
      this.#told.set(device.guestId, wrong);
      if (wrong === 0) return;
      this.#recorded++;
      // Of no transaction in particular: a read at 0.
      this.#faults.report(wrong, this.#contexts.silent, device.guestId & 0xffff, -1, 0, 0, RECORD_T1);
    });
  }

  // --- descriptors -------------------------------------------------------------------------------------------------------------

  #count(name: string): void {
    this.#total++;
    this.#executed[name] = (this.#executed[name] ?? 0) + 1;
  }

  contexts(granularity: number, domain: number, sourceId: number, functionMask: number): void {
    this.#count("context");
    this.#caches.invalidateContexts(granularity, domain, sourceId, functionMask);
    // FM leaves low bits of the function number out: whoever may be meant is read.
    const found =
      granularity === GRANULARITY_DEVICE && functionMask === 0
        ? this.dispositions.mark(sourceId)
        : this.dispositions.mark(-1);
    if (found) this.#marked = true;
  }

  pasids(granularity: number, domain: number, pasid: number): void {
    this.#count("pasidCache");
    this.#caches.invalidatePasids(granularity, domain, pasid);
    // With caching mode an entry that appears is told of by the id that it has, which nobody knows yet.
    if (this.dispositions.mark(-1)) this.#marked = true;
  }

  /** By domain: what a first stage has a part in goes whatever its address (§6.5.2.3). */
  translations(granularity: number, domain: number, pfn: number, mask: number, leavesOnly: boolean): void {
    this.#count("iotlb");
    this.#caches.invalidateTranslations(granularity, domain, pfn, mask, leavesOnly);
    for (const { device, context } of this.dispositions.all) {
      if (device.emulated || context === null || context.disposition !== "nested") continue;
      if (granularity !== 1 && context.domain !== domain) continue;
      this.#pending.add(device.handle, 0, EVERYTHING, false);
    }
  }

  pasidTranslations(
    domain: number,
    pasid: number,
    page: boolean,
    pfn: number,
    mask: number,
    leavesOnly: boolean,
  ): void {
    this.#count("pasidIotlb");
    this.#caches.invalidatePasidTranslations(domain, pasid, page, pfn, mask, leavesOnly);
    for (const { device, context } of this.dispositions.all) {
      if (device.emulated || context === null || context.disposition !== "nested") continue;
      if (context.domain !== domain || context.pasid !== pasid) continue;
      const order = page ? mask : EVERYTHING;
      this.#pending.add(device.handle, pfn - (pfn % 2 ** order), order, leavesOnly);
    }
  }

  interruptEntries(): void {}

  /** ECAP.DT is 0: no such descriptor comes. */
  deviceTlb(): boolean {
    return true;
  }

  /** A wait: everything before it has taken effect, in the host too. */
  outstanding(): number {
    this.#count("wait");
    this.#settle();
    return NOTHING_OUTSTANDING;
  }

  respond(): void {}

  /** The host has not dropped what the guest has taken back: the device does nothing more. */
  #notInvalidated(handle: number): void {
    const state = this.dispositions.findHandle(handle);
    if (state === undefined) return;
    this.#report(
      `${this.name}: the host does not invalidate translations of device ${state.device.name} (host ${state.device.hostName ?? "?"}): it is blocked`,
    );
    this.#host?.setBlocked(handle);
  }

  // --- walks, reset, state -----------------------------------------------------------------------------------------------------

  #observe(guestId: number): void {
    const on = this.#trace.on;
    this.#walkTrace.deviceId = guestId;
    if (on === this.#walkTrace.attached) return;
    this.#walkTrace.attached = on;
    const observer = on ? this.#walkTrace : null;
    this.#translator.observe(observer);
    this.#contexts.observe(observer);
  }

  /** As at power-on. */
  reset(): void {
    this.#file.reset();
    this.#events.reset();
    this.#faults.reset();
    this.#queue.switched();
    this.#caches.clear();
    this.#told.clear();
    this.translationChanged(true);
  }

  saveState(): StateRecord {
    return {
      registers: this.#state.saveState(),
      ...{ flagged: this.flagged, cause: this.cause, total: this.#total, recorded: this.#recorded },
      // In one order, whatever the guest's was.
      executed: Object.fromEntries(COUNTED.map((name) => [name, this.#executed[name] ?? null])),
      told: [...this.#told].map(([device, reason]) => ({ device, reason })),
    };
  }

  restoreState(state: StateReader): void {
    this.flagged = state.boolean("flagged");
    this.cause = state.number("cause");
    this.#total = state.number("total");
    this.#recorded = state.number("recorded");
    const executed = state.record("executed");
    for (const name of COUNTED) {
      const count = executed.optional(name, (reader, field) => reader.number(field));
      if (count === null) delete this.#executed[name];
      else this.#executed[name] = count;
    }
    this.#told.clear();
    for (const each of state.records("told")) this.#told.set(each.number("device"), each.number("reason"));
    // With the registers, not after them as a part: what mode they ask for the translator must know.
    this.#state.restoreState(state.record("registers"));
    this.#translator.modeChanged();
  }

  *stateParts(): Generator<readonly [string, Stateful]> {
    yield ["interrupts", this.#events];
    yield ["faults", this.#faults];
    yield ["queue", this.#queue];
    yield ["caches", this.#caches];
    yield ["dispositions", this.dispositions];
  }
}

const COUNTED = ["context", "iotlb", "wait", "pasidIotlb", "pasidCache"];
