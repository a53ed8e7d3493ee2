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
import { inInterruptRange } from "../../../host/arch/vtd/interrupt-remapping.ts";
import { AtsTranslator } from "../../../host/arch/vtd/parts/ats-translation.ts";
import { VtdCaches } from "../../../host/arch/vtd/parts/caches.ts";
import { EventInterrupts } from "../../../host/arch/vtd/parts/event-interrupts.ts";
import { FaultRecording, RECORD_T1 } from "../../../host/arch/vtd/parts/fault-recording.ts";
import { InvalidationQueue } from "../../../host/arch/vtd/parts/invalidation-queue.ts";
import { PageRequestQueue } from "../../../host/arch/vtd/parts/page-request-queue.ts";
import { type RegisterEffects, RegisterFile } from "../../../host/arch/vtd/parts/register-file.ts";
import { Translator } from "../../../host/arch/vtd/parts/translation.ts";
import { VtdState } from "../../../host/arch/vtd/parts/vtd-state.ts";
import { TTM_SCALABLE } from "../../../host/arch/vtd/registers.ts";
import { StructureRules } from "../../../host/arch/vtd/structure-rules.ts";
import { frameIn } from "../../../host/arch/vtd/structure-walk.ts";
import { KIND_WRITE } from "../../../host/arch/vtd/two-stage-walk.ts";
import { TABLE_NAMES } from "../../../host/arch/vtd/walk-observer.ts";
import { type GpaPfn, hex } from "../../../host/base/address.ts";
import type { ClockEvent } from "../../../host/base/clock.ts";
import type { AccessSize } from "../../../host/base/mmio.ts";
import type { Stateful, StateReader, StateRecord } from "../../../host/base/state.ts";
import type { Trace } from "../../../host/base/trace.ts";
import { TRANSLATED } from "../../../host/base/transaction.ts";
import { type AtsTarget, type DeviceClock, type DmaPort, NO_PASID } from "../../../host/devices/ports.ts";
import { DeviceInvalidations } from "../device-invalidations.ts";
import { Dispositions } from "../dispositions.ts";
import { EmulatedAts } from "../emulated-ats.ts";
import type { ViommuHost } from "../host-port.ts";
import type {
  CapabilitySheet,
  GuestVisibleIommu,
  PluggedDevice,
  PluggedState,
  ViommuActivity,
  ViommuOptions,
} from "../kind.ts";
import { limitedReport } from "../limited-report.ts";
import { PageRequests } from "../page-requests.ts";
import { PRG_INVALID_REQUEST, PRG_RESPONSE_FAILURE } from "../unanswered-requests.ts";
import { WalkTrace } from "../walk-trace.ts";
import {
  deriveCapabilities,
  GUEST_ADDRESS_BITS,
  type HardwareCapabilities,
  type VtdConfiguration,
} from "./capabilities.ts";
import { Descriptors } from "./descriptors.ts";
import { type DeviceContext, DeviceContexts } from "./device-context.ts";
import { VtdEmulatedDma } from "./emulated-devices.ts";
import { FaultRelay } from "./fault-relay.ts";
import { InterruptRequests } from "./interrupt-requests.ts";
import { PendingInvalidations } from "./invalidations.ts";
import { PasidStages } from "./pasid-stages.ts";

export interface VtdViommuOptions extends Omit<ViommuOptions<VtdConfiguration>, "hardware"> {
  /** What the hardware can do (GET_HW_INFO of the devices behind it); null without a host. */
  readonly hardware: HardwareCapabilities | null;
}

/** Bytes of the register page. */
export const VIOMMU_REGISTER_BYTES = 4096;
/** VER: 5.0. */
const VERSION = 0x50;
/** Events handled in one `service`, so that a host that never runs dry cannot hang the VM. */
const EVENTS_A_SERVICE = 4096;
/** What is kept for emulated devices. */
const CACHES = { contexts: 64, pasids: 64, translations: 512, tables: 0 };
/** What is absent is nothing wrong: the guest has not set the device up. */
const ABSENT: ReadonlySet<number> = new Set([
  FAULT_SM_ROOT_NOT_PRESENT,
  FAULT_SM_CONTEXT_NOT_PRESENT,
  FAULT_PASID_DIRECTORY_NOT_PRESENT,
  FAULT_PASID_NOT_PRESENT,
]);
/** Work for a queue at a time, tens of milliseconds of a host's time, and how long a queue that has more of it stands then, in virtual time. */
const WORK_A_RUN = 2 ** 17;
const PAUSE_NS = 100_000;
/** AW of a PASID entry: reserved without a second stage, but Linux's driver writes it whatever PGTT says (pasid_set_address_width). */
const AW = 7 << 2;

export class VtdViommu implements GuestVisibleIommu, RegisterEffects, Stateful {
  readonly name: string;
  high = 0;
  flagged = false;
  cause = 0;
  readonly capabilitySheet: CapabilitySheet;
  readonly dispositions: Dispositions<DeviceContext>;
  /** null: there is no host. */
  readonly pasids: PasidStages | null;
  readonly pageRequests: PageRequests;
  readonly #state: VtdState<GpaPfn>;
  readonly #file: RegisterFile;
  readonly #events: EventInterrupts;
  readonly #faults: FaultRecording;
  readonly #queue: InvalidationQueue;
  readonly #contexts: DeviceContexts;
  readonly #caches: VtdCaches;
  readonly #translator: Translator<GpaPfn>;
  readonly #atsTranslator: AtsTranslator<GpaPfn>;
  readonly #interrupts: InterruptRequests;
  readonly #descriptors: Descriptors;
  readonly #emulatedAts: EmulatedAts[] = [];
  readonly #relay: FaultRelay;
  readonly #clock: DeviceClock;
  readonly #pending: PendingInvalidations; // not state: empty between two accesses
  readonly #walkTrace: WalkTrace;
  readonly #trace: Trace;
  readonly #host: ViommuHost | null;
  readonly #report: (message: string) => void;
  #recorded = 0;
  /** Guest ids of assigned devices, and PASIDs above them → what is wrong with their entries, told once. */
  readonly #told = new Map<number, number>();
  #running = false; // not state: within a call
  readonly clockEvents: readonly ClockEvent[];
  readonly #goOn: ClockEvent;
  /** The queue stands until that fires; 0: it does not. */
  #goingOn = 0;

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
    // The unit's own messages are not remapped (§7.3); in the interrupt address range they say their receiver.
    this.#events.onMessage = (pfn, offset, data) => {
      if (inInterruptRange(pfn)) this.#interrupts.deliver(pfn & 0xff, data & 0xff);
      else options.interrupt.message(pfn as GpaPfn, offset, data);
    };
    this.#faults = new FaultRecording(state, this.#events);
    this.#caches = new VtdCaches(CACHES, rules);
    this.#translator = new Translator(state, this.#caches, this.#faults);
    this.#atsTranslator = new AtsTranslator(state, this.#translator);
    this.#interrupts = new InterruptRequests(state, this.#faults, this.#translator, options.interrupt);
    this.#clock = options.clock;
    this.#goOn = { owner: this.name, name: "invalidation queue goes on", fire: () => this.#run() };
    this.clockEvents = [this.#goOn];
    this.#walkTrace = new WalkTrace(options.trace, options.name, TABLE_NAMES, "vtd");
    this.#contexts = new DeviceContexts(state);
    this.dispositions = new Dispositions(options.host, this.#contexts, this.#report, options.trace, options.name);
    // What the host holds under one context it gives up under another.
    this.dispositions.onChanged = ({ device }) => this.pageRequests.waiting.forget(device.handle, PRG_INVALID_REQUEST);
    this.pasids =
      options.host === null
        ? null
        : new PasidStages(
            options.host,
            this.#contexts,
            options.memory,
            features.PASID ? 2 ** (features.PSS + 1) : 0,
            this.#report,
          );
    if (this.pasids !== null)
      this.pasids.onWrong = (device, pasid, cause, silent) => this.#tell(device, pasid, cause, silent);
    this.#relay = new FaultRelay({
      ...{ faults: this.#faults, translator: this.#translator, contexts: this.#contexts },
      ...{ dispositions: this.dispositions, pasids: this.pasids },
    });
    this.#pending = new PendingInvalidations(
      (batch, count, device, pasid) =>
        options.host?.invalidate(batch, count, device, pasid === 0 ? undefined : pasid) ?? { done: count, errno: 0 },
      (device, pasid, errno) => this.#notInvalidated(device, pasid, errno),
    );
    const port = {
      mayRequest: (sourceId: number, pasid: number, pfn: number) =>
        this.#translator.mayRequestPages(sourceId, pasid, pfn),
      forget: (sourceId: number, pasid: number, pfn: number) => this.#forgetPage(sourceId, pasid, pfn),
    };
    this.pageRequests = new PageRequests(
      features.PRS ? (respond) => new PageRequestQueue(state, this.#events, { ...port, respond }) : null,
      {
        host: options.host,
        model: (guestId) => this.#emulatedAts.find(({ deviceId }) => deviceId === guestId)?.target,
      },
    );
    this.#descriptors = new Descriptors({
      ...{ caches: this.#caches, dispositions: this.dispositions, pasids: this.pasids, pending: this.#pending },
      ...{ remapper: this.#interrupts.remapper, pageRequests: this.pageRequests, models: this.#emulatedAts },
      install: () => this.#install(),
      relay: () => {
        if (this.flagged) this.service();
      },
    });
    this.#queue = new InvalidationQueue(state, this.#events, this.#faults, this.#descriptors);
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
      commands: this.#descriptors.executed,
      faults: this.#recorded + this.#interrupts.refused,
      nested: this.dispositions.nestedInstalled,
      bypass: this.dispositions.bypassInstalled,
    };
  }

  get commandsExecuted(): number {
    return this.#descriptors.total;
  }

  get plugged(): Iterable<PluggedState> {
    return this.dispositions.all;
  }

  // --- devices -----------------------------------------------------------------------------------------------------------------

  plug(device: PluggedDevice): number {
    this.#observe(device.guestId);
    const errno = this.dispositions.add(device);
    this.pasids?.mark(-1);
    if (errno === 0) this.#install();
    return errno;
  }

  unplug(guestId: number): number {
    const state = this.dispositions.find(guestId);
    for (let i = this.#emulatedAts.length - 1; i >= 0; i--) {
      if (this.#emulatedAts[i]!.deviceId === guestId) this.#emulatedAts.splice(i, 1)[0]!.invalidations.giveUp();
    }
    for (const key of this.#told.keys()) if (key % 2 ** 32 === guestId) this.#told.delete(key);
    const errno = this.dispositions.remove(guestId);
    if (state !== undefined) {
      this.#pending.forget(state.device.handle);
      this.pasids?.forget(state.device.handle);
    }
    return errno;
  }

  /** What it asked for is void; its entries stand. */
  deviceReset(guestId: number): void {
    const state = this.dispositions.find(guestId);
    if (state !== undefined) this.pageRequests.waiting.forget(state.device.handle, PRG_RESPONSE_FAILURE);
  }

  /** Dword writes to the interrupt address range are interrupt requests, whatever the device's disposition. */
  takesMessage(guestId: number, pfn: number, offset: number, data: number): boolean {
    if (!inInterruptRange(pfn) || this.dispositions.find(guestId) === undefined) return false;
    this.#observe(guestId);
    this.#interrupts.request(guestId & 0xffff, 2, pfn, offset, data >>> 0);
    return true;
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

  emulatedDma(deviceId: () => number, target?: AtsTarget): DmaPort {
    const plugged = (guestId: number) => this.dispositions.find(guestId) !== undefined;
    const observe = (guestId: number) => this.#observe(guestId);
    const { memory } = this.#state;
    const parts = {
      ...{ translator: this.#translator, plugged, observe, memory, trace: this.#trace, interrupts: this.#interrupts },
      refused: () => {
        this.#recorded++;
      },
    };
    if (target === undefined) return new VtdEmulatedDma(deviceId, parts);
    const owner = `${this.name} device ${hex(BigInt(deviceId()))}`;
    const completed = (timedOut: boolean) => {
      this.#descriptors.completed(deviceId(), timedOut);
      this.#run();
    };
    const ats = new EmulatedAts(deviceId, target, new DeviceInvalidations(target, this.#clock, owner, completed), {
      ...{ plugged, observe, memory, translator: this.#atsTranslator },
      pass: (sourceId, access, pfn) => {
        const status = this.#translator.translate(sourceId, NO_PASID, false, access, pfn, true);
        return status === TRANSLATED ? this.#translator.resultPfn : -1;
      },
      pageRequestArrived: (sourceId, pasid, pfn, group, flags) => {
        this.#observe(sourceId);
        this.pageRequests.fromModel(this.dispositions.find(sourceId), pasid, pfn, group, flags);
      },
    });
    this.#emulatedAts.push(ats);
    return new VtdEmulatedDma(deviceId, parts, ats);
  }

  /** §7.4: cached translations of a page go before it is asked for. */
  #forgetPage(sourceId: number, pasid: number, pfn: number): void {
    const space = this.#translator.cachedSpace(sourceId, pasid);
    if (space !== null) this.#caches.translations.invalidatePages(space.tag, pfn, 1, 0, 0);
  }

  service(): void {
    this.flagged = false;
    const host = this.#host;
    if (host === null) return;
    let taken = 0;
    for (const event of host.events()) {
      if (taken++ === EVENTS_A_SERVICE) break;
      // Only some hosts tell.
      if (event.kind === "fault" && this.#relay.relay(event.record)) this.#recorded++;
      if (event.kind !== "page-request") continue;
      const state = this.dispositions.findHandle(event.device);
      if (state !== undefined) this.#observe(state.device.guestId);
      this.pageRequests.fromHost(event, state);
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
    this.pasids?.mark(-1);
    this.#install();
  }

  /** ESIRTPS. */
  interruptsChanged(tableChanged: boolean): void {
    if (tableChanged) this.#interrupts.remapper.invalidateAll();
  }

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

  /** CCMD (§11.4): not with the queue on, and not in scalable mode. */
  invalidateContexts(low: number, high: number): number {
    const state = this.#state;
    const granularity = (high >>> 29) & 3;
    if (state.queueEnabled || state.tableMode === TTM_SCALABLE || granularity === 0) return 0;
    this.#descriptors.contexts(granularity, low & 0xffff, low >>> 16, high & 3);
    this.#descriptors.settle();
    return granularity;
  }

  /** IOTLB and IVA: not with the queue on. Of more pages than MAMV lets name, all of the domain. */
  invalidateTranslations(high: number, addressLow: number, addressHigh: number): number {
    const granularity = (high >>> 28) & 3;
    if (this.#state.queueEnabled || granularity === 0) return 0;
    const mask = addressLow & 0x3f;
    const actual = granularity === 3 && mask > this.#state.features.MAMV ? 2 : granularity;
    const leavesOnly = (addressLow & 0x40) !== 0;
    this.#descriptors.translations(actual, high & 0xffff, frameIn(addressLow, addressHigh), mask, leavesOnly);
    this.#descriptors.settle();
    return actual;
  }

  /**
   * Executes what is queued: a queue's worth at most, and no more at a time than so much work, for one descriptor may be of every PASID of every device. A
   * guest whose queue never ends does not hold the VM up.
   */
  #run(): void {
    if (this.#running) return;
    this.#running = true;
    this.#observe(-1);
    if (this.#goingOn !== 0) this.#clock.cancel(this.#goingOn);
    this.#goingOn = 0;
    const enough = this.#work + WORK_A_RUN;
    let left = this.#queue.entries;
    while (left > 0 && this.#work < enough && this.#queue.step()) left--;
    this.#descriptors.settle();
    if (this.#work >= enough && this.#queue.ready) this.#goingOn = this.#clock.schedule(PAUSE_NS, this.#goOn);
    this.#running = false;
  }

  /** What descriptors have come to so far, in units: a PASID looked at, a range. */
  get #work(): number {
    return this.#pending.work + (this.pasids?.work ?? 0);
  }

  // --- what is installed ---------------------------------------------------------------------------------------------------------

  #install(): void {
    this.#observe(-1);
    this.dispositions.installMarked((state) => {
      const { device, disposition, cause } = state;
      if (device.emulated || device.held === true) return;
      this.#tell(device, 0, disposition === "blocked" ? cause : 0, this.#contexts.silent);
      // What the host could only block by taking the device out altogether has no PASIDs either.
      if (state.detached || state.lost) this.pasids?.blockAll(device);
      else this.pasids?.sync(device);
    });
    this.pasids?.settled();
  }

  /** An entry of an assigned device's cannot be what it says: a record, once. */
  #tell(device: PluggedDevice, pasid: number, cause: number, silent: boolean): void {
    const key = device.guestId + pasid * 2 ** 32;
    const wrong = ABSENT.has(cause) ? 0 : cause;
    if ((this.#told.get(key) ?? 0) === wrong) return;
    if (wrong === 0) {
      this.#told.delete(key);
      return;
    }
    this.#told.set(key, wrong);
    this.#recorded++;
    // Of no transaction in particular: a read at 0.
    this.#faults.report(wrong, silent, device.guestId & 0xffff, pasid === 0 ? -1 : pasid, 0, 0, RECORD_T1);
  }

  /** The host has not dropped what the guest has taken back: the device does nothing more. */
  #notInvalidated(handle: number, pasid: number, errno: number): void {
    const state = this.dispositions.findHandle(handle);
    if (state === undefined) return;
    this.#report(
      `${this.name}: the host does not invalidate translations of device ${state.device.name} (host ${state.device.hostName ?? "?"}): it is blocked`,
    );
    if (pasid === 0) this.dispositions.giveUp(state, errno);
    else this.pasids?.block(state.device, pasid);
    this.#tell(state.device, pasid, this.#contexts.unfit, false);
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
    this.pageRequests.waiting.forget(null, PRG_RESPONSE_FAILURE);
    for (const { invalidations } of this.#emulatedAts) invalidations.forget();
    this.#descriptors.forget();
    this.#clock.cancel(this.#goingOn);
    this.#goingOn = 0;
    this.#interrupts.remapper.invalidateAll();
    this.translationChanged(true);
  }

  saveState(): StateRecord {
    return {
      registers: this.#state.saveState(),
      ...{ flagged: this.flagged, cause: this.cause, recorded: this.#recorded, refused: this.#interrupts.refused },
      goingOn: this.#goingOn,
      told: [...this.#told].map(([device, reason]) => ({ device, reason })),
    };
  }

  restoreState(state: StateReader): void {
    this.flagged = state.boolean("flagged");
    this.cause = state.number("cause");
    this.#goingOn = state.number("goingOn");
    this.#recorded = state.number("recorded");
    this.#interrupts.refused = state.number("refused");
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
    yield ["interrupt entries", this.#interrupts.remapper];
    yield ["descriptors", this.#descriptors];
    yield ["dispositions", this.dispositions];
    if (this.pasids !== null) yield ["PASIDs", this.pasids];
    for (const { deviceId, invalidations } of this.#emulatedAts) yield [`ATS of device ${deviceId}`, invalidations];
    // After the devices that answers go to.
    yield ["page requests", this.pageRequests];
  }
}
