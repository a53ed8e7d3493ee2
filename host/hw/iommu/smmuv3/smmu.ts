// The SMMUv3 as one piece of hardware: puts registers, queues, caches, translation and interrupts together and is what the machine sees
// (host/hw/iommu/port.ts).
//
//     registers ── latched writes ──▶ step()/drain(): commands
//     translate() ──▶ Translator ──▶ caches / walks ──▶ result, event record, or a stalled transaction
//     event, error, CMD_SYNC, page request ──▶ Interrupts ──▶ wire or MSI

import { AtsTranslator } from "../../../arch/smmuv3/parts/ats-translation.ts";
import { SmmuCaches } from "../../../arch/smmuv3/parts/caches.ts";
import { EventQueue } from "../../../arch/smmuv3/parts/event-queue.ts";
import { Interrupts } from "../../../arch/smmuv3/parts/interrupts.ts";
import { PageRequestQueue } from "../../../arch/smmuv3/parts/page-request-queue.ts";
import { type RegisterEffects, RegisterFile } from "../../../arch/smmuv3/parts/register-file.ts";
import { TlbInvalidations } from "../../../arch/smmuv3/parts/tlb-invalidations.ts";
import { Translator } from "../../../arch/smmuv3/parts/translation.ts";
import { CR0_CMDQEN, CR0_EVENTQEN, CR0_SMMUEN, CR2_E2H, REG, REGISTER_BYTES } from "../../../arch/smmuv3/registers.ts";
import { TABLE_NAMES } from "../../../arch/smmuv3/walk-observer.ts";
import type { HpaPfn } from "../../../base/address.ts";
import type { PhysicalMemory } from "../../../base/memory.ts";
import type { MmioPort } from "../../../base/mmio.ts";
import type { Stateful } from "../../../base/state.ts";
import type { AtsStatus, AtsTranslation } from "../../../devices/ports.ts";
import type { HardwareIommu, IommuParts, StallEnd, TranslationStatus } from "../port.ts";
import { QueuedIommu } from "../queued-iommu.ts";
import { partsForAsking } from "../stale-accesses.ts";
import type { WalkTrace } from "../walk-trace.ts";
import { Cmdqv } from "./cmdqv/cmdqv.ts";
import { CommandExecutor } from "./command-executor.ts";
import { CommandQueue } from "./command-queue.ts";
import { HardwareState } from "./hardware-state.ts";
import { configure, type Smmuv3Configuration, type Smmuv3Options } from "./options.ts";

export class Smmuv3 extends QueuedIommu implements HardwareIommu, RegisterEffects {
  readonly kind = "smmuv3";
  readonly registerBytes = REGISTER_BYTES;
  readonly registers: MmioPort;
  readonly configuration: Smmuv3Configuration;
  /** A device of its own on the bus: registers apart from the SMMU's; its errors are wire 4. */
  readonly cmdqv: Cmdqv | null;
  readonly #state: HardwareState;
  readonly #file: RegisterFile;
  protected readonly wires: Interrupts;
  readonly #events: EventQueue;
  readonly #executor: CommandExecutor;
  readonly #commands: CommandQueue;
  readonly #caches: SmmuCaches;
  readonly #translator: Translator<HpaPfn>;
  readonly #atsTranslator: AtsTranslator<HpaPfn>;
  readonly #pageRequests: PageRequestQueue;

  readonly #options: Smmuv3Options;
  readonly #memory: PhysicalMemory<HpaPfn>;

  constructor(parts: IommuParts, options: Smmuv3Options = {}) {
    const configuration = configure(options);
    const { features, caches, cmdqv } = configuration;
    // Queue 0 is the SMMU's own, those of the CMDQV follow.
    const commandQueues = 1 + (cmdqv === null ? 0 : 1 << cmdqv.log2vcmdqs);
    super(parts, { ...configuration, commandQueues }, { tables: TABLE_NAMES, kind: "smmuv3" });
    this.configuration = configuration;
    this.#options = options;
    this.#memory = parts.memory;
    const state = new HardwareState(parts, this.configuration);
    this.#state = state;
    this.wires = new Interrupts(state);
    this.#events = new EventQueue(state, this.wires);
    const e2h = (): boolean => (state.reg(REG.CR2) & CR2_E2H) !== 0;
    this.#caches = new SmmuCaches(caches, features, e2h);
    const tlb = new TlbInvalidations(state, this.#caches);
    const targets = { state, configurations: this.#caches.configurations, tlb, events: this.#events, ats: this.ats };
    this.#executor = new CommandExecutor(targets, commandQueues);
    this.#commands = new CommandQueue(state, this.wires, this.#executor);
    this.cmdqv = cmdqv === null ? null : new Cmdqv(cmdqv, state, this.#executor, this.ats, this.wires);
    this.#translator = new Translator(state, this.#caches, this.#events);
    this.#atsTranslator = new AtsTranslator(state, this.#translator);
    this.#pageRequests = new PageRequestQueue(
      state,
      this.wires,
      (sid, ssid, group, code) => this.ats.respond(sid, ssid, group, code),
      (sid) => {
        const stream = state.enabled ? this.#translator.streamFor(sid) : null;
        return stream === null ? -1 : stream.ppar ? 1 : 0;
      },
    );
    this.#file = new RegisterFile(state, this, this.configuration);
    this.registers = this.#file;
  }

  override *stateParts(): Iterable<readonly [string, Stateful]> {
    yield ["registers", this.#state];
    yield ["interrupts", this.wires];
    yield ["events", this.#events];
    yield ["commands", this.#commands];
    yield ["executor", this.#executor];
    if (this.cmdqv !== null) yield ["cmdqv", this.cmdqv];
    yield* super.stateParts();
    yield ["caches", this.#caches];
  }

  get skipCommand(): ((name: string) => boolean) | null {
    return this.#executor.skip;
  }

  set skipCommand(skip: ((name: string) => boolean) | null) {
    this.#executor.skip = skip;
  }

  #asked: Smmuv3 | null = null; // not state: a copy

  withoutCaches(): Smmuv3 {
    const caches = { streams: 0, contexts: 0, translations: 0 };
    this.#asked ??= new Smmuv3(partsForAsking({ name: this.name, memory: this.#memory }), { ...this.#options, caches });
    this.#asked.#state.regs.set(this.#state.regs);
    this.#asked.#caches.clear();
    // A transaction that stalled when it was asked about waits for nobody.
    this.#asked.#events.terminate(-1);
    return this.#asked;
  }

  remembers(deviceId: number, pasid: number, pfn: number): number {
    return this.#translator.remembers(deviceId, pasid, pfn);
  }

  get atsTranslation(): AtsTranslation {
    return this.#atsTranslator.translation;
  }

  // --- registers ---------------------------------------------------------------------------------------------------------------

  controlChanged(before: number, after: number): void {
    const changed = before ^ after;
    if ((changed & CR0_CMDQEN) !== 0) this.#commands.switched();
    // §6.3.9: what is stalled is terminated when SMMUEN has gone off.
    if ((changed & before & CR0_SMMUEN) !== 0) this.#events.terminate(-1);
    if ((changed & after & CR0_EVENTQEN) !== 0) this.#events.recordKept();
    if ((after & CR0_CMDQEN) !== 0) this.scheduleWork();
  }

  bypassChanged(): void {}

  interruptsSwitched(): void {}

  commandsQueued(): void {
    this.scheduleWork();
  }

  errorsAcknowledged(): void {
    this.#events.recordKept();
    this.scheduleWork();
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
    if (this.trace.on) this.observe(deviceId);
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
    this.observe(deviceId);
    return this.#atsTranslator.translate(deviceId, pasid, pfn, noWrite, privileged, execute);
  }

  pageRequest(deviceId: number, pasid: number, pfn: number, group: number, flags: number): void {
    if (!this.configuration.features.PRI) return;
    this.observe(deviceId);
    this.#pageRequests.receive(deviceId, pasid, pfn, group, flags);
  }

  stopMarker(deviceId: number, pasid: number): void {
    // §8.1: Last with neither read nor write.
    this.pageRequest(deviceId, pasid, 0, 0, 4);
  }

  // --- work --------------------------------------------------------------------------------------------------------------------

  override step(): boolean {
    return super.step() || (this.cmdqv?.step() ?? false);
  }

  override drain(): void {
    super.drain();
    this.cmdqv?.drain();
  }

  override invalidationCompleted(deviceId: number, itag: number): void {
    super.invalidationCompleted(deviceId, itag);
    this.cmdqv?.invalidationCompleted();
  }

  protected doWork(limit: number): number {
    const tlbis = this.#commands.runTlbis(limit);
    return tlbis > 0 ? tlbis : this.#commands.step() ? 1 : 0;
  }

  protected get workLimit(): number {
    return this.#commands.entries;
  }

  protected get hasWork(): boolean {
    return this.#commands.ready !== 0;
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
    this.#events.reset();
    this.#commands.reset();
    this.#executor.reset();
    this.cmdqv?.reset();
    this.#caches.clear();
    this.forgetWork();
  }
}
