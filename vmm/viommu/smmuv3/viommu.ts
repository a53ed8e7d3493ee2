// The guest-visible SMMUv3: two register pages on the VM's bus, queues and tables in guest memory, a host port below; stage 1 alone.
//
//   guest store ─▶ mmioWrite ─▶ register file ─▶ effect: CR0, GBPA  → streams read and installed (../dispositions.ts, stream-context.ts)
//                                                      CMDQ_PROD  → commands done (command-queue.ts), one host call a batch
//                                                      GERRORN, CONS, IRQ_CTRL → queues go on, wires come down
//   host events ─▶ onEvents sets `flagged` ─▶ the machine calls `service` ─▶ event-relay.ts   ─▶ event queue ─▶ interrupt
//                                                                         ─▶ stalled-faults.ts ─▶ event queue ─▶ interrupt
//
// Registers, interrupts, the event queue and translation are what hardware is made of too (host/arch/smmuv3/parts). Everything is done within the
// access that asks for it: ACK registers agree at once. Nothing a guest or a host does throws here.

import { F_PERMISSION, F_TRANSLATION } from "../../../host/arch/smmuv3/event-records.ts";
import { AtsTranslator } from "../../../host/arch/smmuv3/parts/ats-translation.ts";
import { type CacheSizes, SmmuCaches } from "../../../host/arch/smmuv3/parts/caches.ts";
import type { ConfigurationCache } from "../../../host/arch/smmuv3/parts/configuration-cache.ts";
import { EventQueue } from "../../../host/arch/smmuv3/parts/event-queue.ts";
import { Interrupts } from "../../../host/arch/smmuv3/parts/interrupts.ts";
import { PageRequestQueue } from "../../../host/arch/smmuv3/parts/page-request-queue.ts";
import { type RegisterEffects, RegisterFile } from "../../../host/arch/smmuv3/parts/register-file.ts";
import { SmmuState } from "../../../host/arch/smmuv3/parts/smmu-state.ts";
import { TlbInvalidations } from "../../../host/arch/smmuv3/parts/tlb-invalidations.ts";
import { Translator, withoutTop } from "../../../host/arch/smmuv3/parts/translation.ts";
import { CR0_CMDQEN, CR0_EVENTQEN, CR0_SMMUEN } from "../../../host/arch/smmuv3/registers.ts";
import { KIND_EXECUTE, KIND_READ, KIND_WRITE } from "../../../host/arch/smmuv3/two-stage-walk.ts";
import { TABLE_NAMES } from "../../../host/arch/smmuv3/walk-observer.ts";
import { type GpaPfn, hex } from "../../../host/base/address.ts";
import { ACCESS_OK } from "../../../host/base/memory.ts";
import type { AccessSize } from "../../../host/base/mmio.ts";
import type { Stateful, StateReader, StateRecord } from "../../../host/base/state.ts";
import type { Trace } from "../../../host/base/trace.ts";
import { TRANSLATED } from "../../../host/base/transaction.ts";
import { type AtsTarget, type DeviceClock, type DmaPort, NO_PASID } from "../../../host/devices/ports.ts";
import { DeviceInvalidations } from "../device-invalidations.ts";
import { Dispositions } from "../dispositions.ts";
import { EmulatedAts } from "../emulated-ats.ts";
import { type HostEvent, type InvalidationReply, RESPONSE_INVALID, type ViommuHost } from "../host-port.ts";
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
  type HardwareIdentification,
  hardwareStalls,
  type Smmuv3Configuration,
} from "./capabilities.ts";
import { type CommandActions, CommandQueue } from "./command-queue.ts";
import { ATC_INV, CFGI_CD, CFGI_CD_ALL, CFGI_STE, CFGI_STE_RANGE } from "./commands.ts";
import { beginInvalidation, Smmuv3EmulatedDma } from "./emulated-devices.ts";
import { loadRecord, relayRecord } from "./event-relay.ts";
import { GuestCmdqv, guestShape } from "./guest-cmdqv.ts";
import { StalledFaults } from "./stalled-faults.ts";
import { allowsAts, type StreamContext, StreamContexts } from "./stream-context.ts";
import { Wires } from "./wires.ts";

export interface Smmuv3ViommuOptions extends Omit<ViommuOptions<Smmuv3Configuration>, "hardware"> {
  /** What the hardware is (GET_HW_INFO of the devices behind it); null without a host. */
  readonly hardware: HardwareIdentification | null;
}

/** Events handled in one `service`, so that a host that never runs dry cannot hang the VM. */
const EVENTS_A_SERVICE = 4096;
/** What is kept for emulated devices. */
const CACHES: CacheSizes = { streams: 64, contexts: 64, translations: 512, tables: 0 };
/** A host that does not say what its hardware is: nothing that needs it is promised. */
const UNKNOWN: HardwareIdentification = { IDR0: 0n, IDR1: 0n, IDR3: 0n, IDR5: 0n, AIDR: 0n };

export class Smmuv3Viommu implements GuestVisibleIommu, RegisterEffects, Stateful {
  readonly name: string;
  high = 0;
  /** Set while host events wait for `service`. */
  flagged = false;
  /** Trace event that flagged it. */
  cause = 0;
  readonly capabilitySheet: CapabilitySheet;
  readonly commands: CommandQueue;
  /** null: the guest has no queues of the hardware's. */
  readonly cmdqv: GuestCmdqv | null;
  readonly dispositions: Dispositions<StreamContext>;
  readonly stalls: StalledFaults;
  readonly pageRequests: PageRequests;
  readonly #state: SmmuState<GpaPfn>;
  readonly #file: RegisterFile;
  readonly #interrupts: Interrupts;
  readonly #wires: Wires;
  readonly #events: EventQueue;
  readonly #contexts: StreamContexts;
  readonly #caches: SmmuCaches;
  readonly #configurations: ConfigurationCache;
  readonly #tlb: TlbInvalidations;
  readonly #translator: Translator<GpaPfn>;
  readonly #atsTranslator: AtsTranslator<GpaPfn>;
  readonly #emulatedAts: EmulatedAts[] = [];
  readonly #clock: DeviceClock;
  readonly #walkTrace: WalkTrace;
  readonly #trace: Trace;
  readonly #host: ViommuHost | null;
  readonly #report: (message: string) => void;
  /** A device model has been plugged in: there are translations of our own. */
  #translates = false;
  readonly #record = new Uint32Array(8); // not state: the record on its way

  constructor(options: Smmuv3ViommuOptions) {
    const configuration = options.configuration ?? {};
    const hardware = options.hardware ?? (options.host === null ? null : UNKNOWN);
    const queues = options.host?.hardwareQueues;
    const { mapPage } = options;
    const shape =
      options.queues == null || queues === undefined || mapPage === undefined ? null : guestShape(options.queues);
    const { features, sheet } = deriveCapabilities(hardware, configuration, options.stalls === true, shape);
    this.name = options.name;
    this.capabilitySheet = sheet;
    this.#host = options.host;
    this.#trace = options.trace;
    this.#report = limitedReport(options.report ?? (() => {}));
    const state = new SmmuState(options.name, "guest", options.memory, options.trace, features);
    this.#state = state;
    this.#interrupts = new Interrupts(state);
    this.#interrupts.onMessage = (pfn, offset, data) =>
      options.interrupt.message(pfn as GpaPfn, offset, data) === ACCESS_OK;
    const wired = configuration.interrupts !== "msi";
    this.#wires = new Wires(state, (wire, asserted) => options.interrupt.wire(wire, asserted));
    if (wired) this.#interrupts.onWire = (wire, asserted) => this.#wires.pulse(wire, asserted);
    this.#events = new EventQueue(state, this.#interrupts);
    this.stalls = new StalledFaults(this.#events, (cookie, code) => {
      // The host answers by itself when the device goes or its context changes: a cookie that is void by then is no news.
      this.#host?.respond(cookie, code);
    });
    // What the guest's own queues invalidate is not heard of here: nothing that they would have to is kept.
    this.#caches = new SmmuCaches(shape === null ? CACHES : { ...CACHES, translations: 0 }, features, () => false);
    this.#configurations = this.#caches.configurations;
    this.#tlb = new TlbInvalidations(state, this.#caches);
    this.#translator = new Translator(state, this.#caches, this.#events);
    this.#atsTranslator = new AtsTranslator(state, this.#translator);
    this.#clock = options.clock;
    this.pageRequests = new PageRequests(
      features.PRI ? (answer) => new PageRequestQueue(state, this.#interrupts, answer, () => 1) : null,
      {
        host: options.host,
        model: (sid) => this.#emulatedAts.find(({ deviceId }) => deviceId === sid)?.target,
      },
    );
    this.#walkTrace = new WalkTrace(options.trace, options.name, TABLE_NAMES, "smmuv3");
    // Hardware that can stall would do so for a function that must not, or under a guest that was told that nothing stalls.
    const canStall = hardwareStalls(hardware);
    this.#contexts = new StreamContexts(
      state,
      (device) => canStall && (features.STALL_MODEL === 1 || device.canStall !== true),
    );
    this.dispositions = new Dispositions(options.host, this.#contexts, this.#report, options.trace, options.name);
    // What the host holds under one context it gives up under another.
    this.dispositions.onChanged = ({ device }) => {
      if (!device.emulated) this.#events.terminate(device.guestId);
      this.pageRequests.waiting.forget(device.handle, PRG_INVALID_REQUEST);
    };
    this.commands = new CommandQueue(state, this.#interrupts, this.#actions());
    if (options.host !== null) {
      options.host.onEvents = () => {
        this.flagged = true;
        this.cause = options.trace.cause;
      };
    }
    this.cmdqv =
      shape === null
        ? null
        : new GuestCmdqv({
            name: options.name,
            shape,
            host: queues!,
            mapPage: mapPage!,
            mostLog2: features.CMDQS,
            wire: wired ? (wire, asserted) => options.interrupt.wire(wire, asserted) : () => {},
            report: this.#report,
          });
    this.#file = new RegisterFile(state, this, { iidr: 0, abortsAtReset: configuration.resetMode !== "bypass" });
  }

  get activity(): ViommuActivity {
    return {
      commands: this.commands.executed,
      faults: this.#events.written,
      nested: this.dispositions.nestedInstalled,
      bypass: this.dispositions.bypassInstalled,
    };
  }

  get hardwareQueues(): boolean {
    return this.cmdqv !== null;
  }

  get commandsExecuted(): number {
    return this.commands.total;
  }

  get plugged(): Iterable<PluggedState> {
    return this.dispositions.all;
  }

  // --- devices -----------------------------------------------------------------------------------------------------------------

  plug(device: PluggedDevice): number {
    this.#observe(device.guestId);
    if (device.emulated) this.#translates = true;
    const bits = this.#state.features.SIDSIZE;
    if (device.held !== true && device.guestId >= 2 ** bits)
      this.#report(
        `${this.name}: guest device ${device.name} has StreamID ${hex(BigInt(device.guestId))}, but StreamIDs have ${bits} bits (sidBits): ` +
          "it can do no DMA",
      );
    const errno = this.dispositions.add(device);
    if (errno === 0) this.dispositions.installMarked();
    return errno;
  }

  unplug(guestId: number): number {
    this.#events.terminate(guestId);
    for (let i = this.#emulatedAts.length - 1; i >= 0; i--) {
      if (this.#emulatedAts[i]!.deviceId === guestId) this.#emulatedAts.splice(i, 1)[0]!.invalidations.giveUp();
    }
    return this.dispositions.remove(guestId);
  }

  /** A function-level reset of one device: what it has stalled is void, its stage 1 stands. */
  deviceReset(guestId: number): void {
    this.#events.terminate(guestId);
    const state = this.dispositions.find(guestId);
    if (state !== undefined) this.pageRequests.waiting.forget(state.device.handle, PRG_RESPONSE_FAILURE);
  }

  messagePage(guestId: number, pfn: number): number {
    const state = this.dispositions.find(guestId);
    if (state === undefined || state.disposition === "blocked") return -1;
    if (state.disposition === "bypass") return pfn;
    this.#observe(guestId);
    return this.#probe(guestId, -1, false, KIND_WRITE, pfn) === 0 ? this.#translator.walker.guestPfn : -1;
  }

  emulatedDma(deviceId: () => number, target?: AtsTarget): DmaPort {
    const parts = {
      translator: this.#translator,
      plugged: (sid: number) => this.dispositions.find(sid) !== undefined,
      observe: (sid: number) => this.#observe(sid),
      memory: this.#state.memory,
      trace: this.#trace,
    };
    // An invalidation that the guest gives one of the hardware's queues would not come to a device model: with those, none caches.
    if (target === undefined || this.cmdqv !== null) return new Smmuv3EmulatedDma(deviceId, parts);
    const owner = `${this.name} device ${hex(BigInt(deviceId()))}`;
    const completed = (timedOut: boolean) => this.commands.completed(timedOut);
    const ats = new EmulatedAts(deviceId, target, new DeviceInvalidations(target, this.#clock, owner, completed), {
      ...parts,
      translator: this.#atsTranslator,
      pass: (sid, access, pfn, offset) => {
        const status = this.#translator.translate(sid, NO_PASID, false, access, pfn, offset, true);
        return status === TRANSLATED ? this.#translator.resultPfn : -1;
      },
      pageRequestArrived: (sid, ssid, pfn, group, flags) =>
        this.pageRequests.fromModel(this.dispositions.find(sid), ssid, pfn, group, flags),
    });
    this.#emulatedAts.push(ats);
    return new Smmuv3EmulatedDma(deviceId, parts, ats);
  }

  /** Walks the guest's tables without a trace in them or in the event queue: 0 (the walker has the page), or the event that a transaction would cause. */
  #probe(sid: number, ssid: number, privileged: boolean, kind: number, pfn: number): number {
    const translator = this.#translator;
    translator.begin(sid, ssid, privileged, kind, pfn, 0);
    const stream = translator.streamFor(sid);
    if (stream === null) return translator.event;
    const space = translator.spaceFor(stream, ssid);
    if (space === null) return translator.event;
    const high = withoutTop(space, (pfn * 2 ** -32) | 0);
    return translator.walkTables(space, pfn | 0, high, kind, privileged) ? 0 : translator.event;
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

  controlChanged(before: number, after: number): void {
    const changed = before ^ after;
    if ((changed & CR0_CMDQEN) !== 0) this.commands.switched();
    // §6.3.9: what is stalled is terminated when SMMUEN has gone off.
    if ((changed & before & CR0_SMMUEN) !== 0) this.#events.terminate(-1);
    if ((changed & CR0_SMMUEN) !== 0) this.#rereadAll();
    if ((changed & after & CR0_EVENTQEN) !== 0) this.#events.recordKept();
    if ((after & CR0_CMDQEN) !== 0) this.commands.run();
  }

  bypassChanged(): void {
    if (!this.#state.enabled) this.#rereadAll();
  }

  commandsQueued(): void {
    this.commands.run();
  }

  errorsAcknowledged(): void {
    this.#wires.settle();
    this.#events.recordKept();
    this.commands.run();
  }

  eventsConsumed(): void {
    this.#wires.settle();
    this.#events.recordKept();
  }

  interruptsSwitched(): void {
    this.#wires.settle();
  }

  #rereadAll(): void {
    this.#observe(-1);
    this.dispositions.mark(-1);
    this.dispositions.installMarked();
  }

  // --- the host ----------------------------------------------------------------------------------------------------------------

  service(): void {
    this.flagged = false;
    const host = this.#host;
    if (host === null) return;
    let lost = false;
    let handled = 0;
    for (const event of host.events()) {
      if (handled++ >= EVENTS_A_SERVICE) {
        lost = true;
        break;
      }
      if (event.kind === "lost") lost = true;
      else if (event.kind === "fault") this.#relayFault(event.record);
      else if (event.kind === "queue-errors") this.cmdqv?.errorsReported();
      else this.#relayPageRequest(event);
    }
    // Records that came with the gap are still delivered; only then does the queue say that some are missing.
    if (lost) this.#events.lost();
  }

  #relayFault(bytes: Uint8Array): void {
    const record = this.#record;
    const sid = loadRecord(bytes, record) ? record[1]! : -1;
    const state = this.dispositions.find(sid);
    if (state === undefined || state.device.held === true) {
      this.#report(`${this.name}: the host reported an event of a device that is not here; dropped`);
      return;
    }
    // Under GBPA nothing is recorded of a transaction (§6.3.14), hardware has an entry with stage 2 alone for it all the same.
    if (this.#state.enabled && relayRecord(record)) this.#events.relay(record);
  }

  #relayPageRequest(event: HostEvent & { kind: "page-request" }): void {
    const state = this.dispositions.findHandle(event.device);
    const stalled =
      state?.device.canStall === true && state.device.held !== true && this.#state.features.STALL_MODEL !== 1;
    if (state === undefined || !stalled || state.disposition !== "nested") {
      const nested = state?.disposition === "nested";
      this.pageRequests.fromHost(event, nested ? state : undefined);
      return;
    }
    const { guestId } = state.device;
    const number = this.#stallEvent(event, guestId);
    // Nothing that the guest could mend: for it that is an access that memory aborts.
    if (number === 0) this.#host?.respond(event.cookie, RESPONSE_INVALID);
    else this.stalls.arrived(event, guestId, number);
  }

  /**
   * Which of the four events that may stall a page request is: the fault queue says what was accessed, not what was wrong. 0: none, it was the host's
   * second stage that stalled the transaction, where the guest has no memory.
   */
  #stallEvent(event: HostEvent & { kind: "page-request" }, sid: number): number {
    const { permissions, pasid } = event;
    const kind = (permissions & 2) !== 0 ? KIND_WRITE : (permissions & 4) !== 0 ? KIND_EXECUTE : KIND_READ;
    const pfn = Number(BigInt.asUintN(64, event.address) >> 12n);
    this.#observe(sid);
    const found = this.#probe(sid, pasid === null ? -1 : pasid & 0xfffff, (permissions & 8) !== 0, kind, pfn);
    if (found >= F_TRANSLATION && found <= F_PERMISSION) return found;
    // The guest may have mapped the page meanwhile: it is told all the same, and resumes.
    const page = this.#translator.walker.guestPfn as GpaPfn;
    return found === 0 && this.#state.memory.load32(page, 0) === ACCESS_OK ? F_TRANSLATION : 0;
  }

  #actions(): CommandActions {
    const { dispositions } = this;
    // A device that the host had to detach has no vDEVICE by which the host would know it.
    const assigned = (sid: number) => {
      const state = dispositions.find(sid);
      return state !== undefined && !state.device.emulated && state.device.held !== true && !state.detached;
    };
    return {
      rereadStreams: (sid, bits) => dispositions.markRange(sid, bits),
      installContexts: (forgetContexts) => {
        this.#observe(-1);
        dispositions.installMarked((state) => {
          if (assigned(state.device.guestId)) forgetContexts(state.device.guestId);
        });
      },
      forwards: assigned,
      forwardsAts: (sid) => assigned(sid) && allowsAts(dispositions.find(sid)!.context),
      forwardsTlb: this.#host !== null,
      invalidateEmulated: (kind, word0, word1, word2, word3) =>
        this.#invalidateEmulated(kind, word0, word1, word2, word3),
      resume: (sid, tag, retry, abort) => this.#events.resume(sid, tag, retry, abort),
      terminate: (sid) => this.#events.terminate(sid),
      answerPageRequest: (sid, ssid, group, code) => void this.pageRequests.waiting.answer(sid, ssid, group, code),
      retryUnrecorded: () => this.#events.retryUnrecorded(),
      invalidate: (batch, count) => this.#invalidate(batch, count),
      batch: this.#host?.batch,
      relayEvents: () => {
        if (this.flagged) this.service();
      },
    };
  }

  #invalidateEmulated(kind: number, word0: number, word1: number, word2: number, word3: number): number {
    switch (kind) {
      case CFGI_STE:
        this.#configurations.invalidateStream(word1 >>> 0);
        return 0;
      case CFGI_STE_RANGE:
        this.#configurations.invalidateStreams(word1 >>> 0, (word2 & 0x1f) + 1);
        return 0;
      case CFGI_CD:
        this.#configurations.invalidateContext(word1 >>> 0, word0 >>> 12);
        return 0;
      case CFGI_CD_ALL:
        this.#configurations.invalidateContexts(word1 >>> 0);
        return 0;
      case ATC_INV: {
        const sid = word1 >>> 0;
        if (!this.#state.enabled || this.dispositions.find(sid) === undefined) return 0;
        for (const { deviceId, invalidations } of this.#emulatedAts)
          if (deviceId === sid) return beginInvalidation(invalidations, word0, word2, word3);
        return 0;
      }
      default:
        // The TLB is that of device models alone.
        if (this.#translates) this.#tlb.execute(word0 & 0xff, word0, word1, word2, word3);
        return 0;
    }
  }

  #invalidate(batch: Uint8Array, count: number): InvalidationReply {
    if (this.#host === null) return { done: count, errno: 0 };
    return this.#host.invalidate(batch === this.#host.batch ? batch : batch.subarray(0, 16 * count), count);
  }

  /** Attaches or detaches the walk observer as the trace goes on or off. */
  #observe(sid: number): void {
    const on = this.#trace.on;
    this.#walkTrace.deviceId = sid;
    if (on === this.#walkTrace.attached) return;
    this.#walkTrace.attached = on;
    const observer = on ? this.#walkTrace : null;
    this.#translator.observe(observer);
    this.#contexts.observe(observer);
  }

  // --- reset and state ---------------------------------------------------------------------------------------------------------

  /** As at power-on: registers, queues, caches, and every device's disposition. */
  reset(): void {
    this.#events.terminate(-1);
    this.pageRequests.waiting.forget(null, PRG_RESPONSE_FAILURE);
    for (const ats of this.#emulatedAts) ats.invalidations.forget();
    this.#file.reset();
    this.#events.reset();
    this.#interrupts.reset();
    this.#wires.settle();
    this.commands.reset();
    this.cmdqv?.reset();
    this.#caches.clear();
    this.#rereadAll();
  }

  saveState(): StateRecord {
    return { flagged: this.flagged, cause: this.cause, translates: this.#translates };
  }

  restoreState(state: StateReader): void {
    this.flagged = state.boolean("flagged");
    this.cause = state.number("cause");
    this.#translates = state.boolean("translates");
  }

  *stateParts(): Generator<readonly [string, Stateful]> {
    yield ["registers", this.#state];
    yield ["interrupts", this.#interrupts];
    yield ["wires", this.#wires];
    yield ["dispositions", this.dispositions];
    yield ["caches", this.#caches];
    for (const ats of this.#emulatedAts) yield [`ATS of device ${ats.deviceId}`, ats.invalidations];
    yield ["commands", this.commands];
    if (this.cmdqv !== null) yield ["CMDQV", this.cmdqv];
    yield ["events", this.#events];
    yield ["stalls", this.stalls];
    // After the devices that answers go to.
    yield ["page requests", this.pageRequests];
  }
}
