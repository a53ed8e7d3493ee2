// The guest-visible RISC-V IOMMU: registers on the VM's bus, queues and directories in guest memory, a host port below.
//
//   guest store ─▶ mmioWrite ─▶ register file ─▶ effect: ddtp  → contexts read and installed (dispositions.ts)
//                                                      cqt   → commands done (command-queue.ts), one host call a batch
//                                                      csr   → queues on and off, interrupts
//   host events ─▶ onEvents sets `flagged` ─▶ the machine calls `service` ─▶ fault-relay.ts ─▶ fault queue ─▶ interrupt
//                                                                         ─▶ page-requests.ts ─▶ page-request queue ─▶ interrupt
//
// Everything is done within the access that asks for it: busy bits always read 0. Nothing a guest or a host does throws here.

import { decodeCapabilities } from "../../../host/arch/riscv/capabilities.ts";
import { PRGR_INVALID_REQUEST, PRGR_RESPONSE_FAILURE } from "../../../host/arch/riscv/commands.ts";
import { TC_EN_ATS, TC_EN_PRI } from "../../../host/arch/riscv/device-context.ts";
import {
  CAUSE_MSI_WRITE_ACCESS_FAULT,
  CAUSE_TRANSACTION_TYPE_DISALLOWED,
  TTYP_MESSAGE_REQUEST,
  TTYP_NONE,
} from "../../../host/arch/riscv/fault-records.ts";
import { MESSAGE_CODE_PAGE_REQUEST } from "../../../host/arch/riscv/page-requests.ts";
import { CSR_ON, DDTP_3LVL, DDTP_BARE, DDTP_OFF, registerName } from "../../../host/arch/riscv/registers.ts";
import { KIND_WRITE } from "../../../host/arch/riscv/two-stage-walk.ts";
import type { GpaPfn } from "../../../host/base/address.ts";
import type { MemoryPort } from "../../../host/base/memory.ts";
import type { AccessSize } from "../../../host/base/mmio.ts";
import { StateError, type Stateful, type StateReader, type StateRecord } from "../../../host/base/state.ts";
import type { Trace } from "../../../host/base/trace.ts";
import type { AtsTarget, DeviceClock, DmaPort } from "../../../host/devices/ports.ts";
import { type DeviceState, Dispositions } from "../dispositions.ts";
import type { HostEvent, ViommuHost } from "../host-port.ts";
import type {
  CapabilityRow,
  CapabilitySheet,
  GuestVisibleIommu,
  PluggedDevice,
  PluggedState,
  ViommuActivity,
  ViommuOptions,
} from "../kind.ts";
import { limitedReport } from "../limited-report.ts";
import { type AskedGroup, hostResponse } from "../unanswered-requests.ts";
import { deriveCapabilities, type HardwareCapabilities, type RiscvConfiguration } from "./capabilities.ts";
import { type CommandActions, CommandQueue } from "./command-queue.ts";
import type { CommandRules } from "./commands.ts";
import { type CanonicalContext, DDTP_BARE_CONTEXT, DeviceContexts, faultsDisabled } from "./context.ts";
import { DebugTranslation } from "./debug-translation.ts";
import { EmulatedAts } from "./emulated-ats.ts";
import { RiscvEmulatedDma } from "./emulated-devices.ts";
import { FaultQueue } from "./fault-queue.ts";
import { decodeHostRecord, relayRecord } from "./fault-relay.ts";
import { GuestDirectories } from "./guest-directories.ts";
import { Interrupts } from "./interrupts.ts";
import { type ArrivingPageRequest, PageRequestQueue, wantsAnswer } from "./page-requests.ts";
import { EFFECT, FCTL_WSI, RegisterFile, WORD } from "./registers.ts";

export interface RiscvViommuOptions extends Omit<ViommuOptions<RiscvConfiguration>, "hardware"> {
  /** What the hardware can do (GET_HW_INFO of the devices behind it); null without a host. */
  readonly hardware: HardwareCapabilities | null;
}

/** Bytes of the register page. */
export const VIOMMU_REGISTER_BYTES = 4096;

/** Events handled in one `service`, so that a host that never runs dry cannot hang the VM. */
const EVENTS_A_SERVICE = 4096;

export class RiscvViommu implements GuestVisibleIommu, Stateful {
  readonly name: string;
  high = 0;
  /** Set while host events wait for `service`. */
  flagged = false;
  /** Trace event that flagged it. */
  cause = 0;
  readonly capabilities: bigint;
  readonly #capabilityRows: readonly CapabilityRow[];
  readonly commands: CommandQueue;
  readonly faults: FaultQueue;
  readonly pageRequests: PageRequestQueue;
  readonly dispositions: Dispositions<CanonicalContext>;
  readonly #registers: RegisterFile;
  readonly #words: Uint32Array;
  readonly #interrupts: Interrupts;
  readonly #directories: GuestDirectories;
  readonly #rules: CommandRules;
  readonly #debug: DebugTranslation;
  readonly #memory: MemoryPort<GpaPfn>;
  readonly #clock: DeviceClock;
  readonly #emulatedAts: EmulatedAts[] = [];
  readonly #trace: Trace;
  readonly #host: ViommuHost | null;
  readonly #resetMode: number;
  readonly #report: (message: string) => void;

  constructor(options: RiscvViommuOptions) {
    const configuration = options.configuration ?? {};
    const vectorsLog2 = Math.min(Math.max(configuration.vectorsLog2 ?? 2, 0), 4);
    // A host that does not say what its hardware can do: nothing that needs it is promised.
    const hardware = options.hardware ?? (options.host === null ? null : { capabilities: 0n, fctl: 0 });
    const { capabilities, rows } = deriveCapabilities(hardware, configuration);
    this.name = options.name;
    this.capabilities = capabilities;
    this.#capabilityRows = rows;
    this.#host = options.host;
    this.#report = limitedReport(options.report ?? (() => {}));
    this.#resetMode = configuration.resetMode === "bare" ? DDTP_BARE : DDTP_OFF;
    this.#registers = new RegisterFile(capabilities, vectorsLog2);
    this.#words = this.#registers.words;
    const { memory, trace, name } = options;
    this.#interrupts = new Interrupts(this.#registers, options.interrupt, trace, name);
    this.faults = new FaultQueue(this.#registers, memory, this.#interrupts, trace, name);
    this.pageRequests = new PageRequestQueue(this.#registers, memory, this.#interrupts);
    this.#directories = new GuestDirectories(this.#registers, memory, trace, name);
    this.#memory = memory;
    this.#clock = options.clock;
    this.#trace = trace;
    this.#debug = new DebugTranslation(this.#registers, this.#directories, this.faults);
    this.dispositions = new Dispositions(
      options.host,
      new DeviceContexts(this.#directories),
      this.#report,
      trace,
      name,
    );
    const promised = decodeCapabilities(capabilities);
    this.#rules = {
      nonLeaf: promised.NL,
      range: promised.S,
      ats: promised.ATS,
      processIdBits: promised.PD20 ? 20 : promised.PD17 ? 17 : promised.PD8 ? 8 : 0,
      wiredInterrupts: false,
      mode: DDTP_OFF,
    };
    this.commands = new CommandQueue(
      this.#registers,
      memory,
      this.#interrupts,
      trace,
      name,
      this.#rules,
      this.#actions(),
    );
    this.pageRequests.waiting.answerer = (group) => this.#responder(group);
    this.#interrupts.onMessageFault = (low, high) => this.#messageRefused(low, high);
    // What a device asked under one context is not answered under another.
    this.dispositions.onChanged = (state) =>
      this.pageRequests.waiting.forget(state.device.handle, PRGR_INVALID_REQUEST);
    if (options.host !== null) {
      options.host.onEvents = () => {
        this.flagged = true;
        this.cause = trace.cause;
      };
    }
    this.#clearRegisters();
  }

  get capabilitySheet(): CapabilitySheet {
    return { registers: { capabilities: this.capabilities }, rows: this.#capabilityRows };
  }

  get activity(): ViommuActivity {
    return {
      commands: this.commands.executed,
      faults: this.faults.written,
      nested: this.dispositions.nestedInstalled,
      bypass: this.dispositions.bypassInstalled,
    };
  }

  get commandsExecuted(): number {
    return this.commands.total;
  }

  get plugged(): Iterable<PluggedState> {
    return this.dispositions.all;
  }

  /** Plugs a device in; its DMA goes where the guest's directory says from then on. 0 or a negated errno of the host's. */
  plug(device: PluggedDevice): number {
    const errno = this.dispositions.add(device);
    if (errno === 0) this.dispositions.installMarked();
    return errno;
  }

  /** Unplugs a device: its DMA is blocked, its page requests are void. */
  unplug(guestId: number): number {
    for (let i = this.#emulatedAts.length - 1; i >= 0; i--) {
      if (this.#emulatedAts[i]!.deviceId === guestId) this.#emulatedAts.splice(i, 1)[0]!.invalidations.giveUp();
    }
    return this.dispositions.remove(guestId);
  }

  /** The guest renumbered its buses: the same device under another id. 0 or a negated errno; on one the device is unplugged. */
  renumber(guestId: number, newGuestId: number): number {
    const state = this.dispositions.find(guestId);
    if (state === undefined) return 0;
    this.dispositions.remove(guestId);
    return this.plug({ ...state.device, guestId: newGuestId });
  }

  /**
   * DMA port for an emulated device that was plugged in; `deviceId` gives its id of the moment (the guest may renumber). With `target`
   * (a model with ATS) the port has ATS and page requests.
   */
  emulatedDma(deviceId: () => number, target?: AtsTarget): DmaPort {
    const parts = {
      name: this.name,
      dispositions: this.dispositions,
      directories: this.#directories,
      faults: this.faults,
      memory: this.#memory,
      trace: this.#trace,
    };
    if (target === undefined) return new RiscvEmulatedDma(deviceId, parts);
    const ats = new EmulatedAts(deviceId, target, parts, this.#clock, {
      pageRequestArrived: (state, request) => this.#pageRequestArrived(state, request),
      invalidationCompleted: (timedOut) => this.commands.completed(timedOut),
    });
    this.#emulatedAts.push(ats);
    return new RiscvEmulatedDma(deviceId, parts, ats);
  }

  /**
   * Where a message of an assigned device goes: its guest-physical page after the device's first stage, for a store by the device.
   * -1 if that refuses it (the hardware has said so in a fault record of its own).
   */
  messagePage(guestId: number, pfn: number): number {
    const state = this.dispositions.find(guestId);
    if (state === undefined || state.disposition === "blocked") return -1;
    const context = state.context === DDTP_BARE_CONTEXT ? null : state.context;
    const cause = this.#directories.translate(guestId, context, -1, false, KIND_WRITE, pfn);
    return cause === 0 ? this.#directories.resultPfn : -1;
  }

  mmioRead(offset: number, size: AccessSize): number {
    if (!this.#registers.defines(offset, size)) {
      this.high = 0;
      return 0;
    }
    const word = offset >>> 2;
    if (size === 8) this.high = this.#words[word + 1]!;
    return this.#words[word]!;
  }

  mmioWrite(offset: number, size: AccessSize, lo: number, hi: number): void {
    if (!this.#registers.defines(offset, size)) return;
    const word = offset >>> 2;
    // An 8-byte access is two of 4, the high half first; side effects belong to the low half (§6).
    if (size === 8) this.#writeWord(word + 1, hi);
    this.#writeWord(word, lo);
  }

  /** Name of the register at an offset, for traces. */
  registerName(offset: number): string {
    return registerName(offset);
  }

  /** Takes over what the host has to report. */
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
      else if (event.kind === "page-request") this.#relayPageRequest(event);
    }
    // Records that came with the gap are still delivered; only then does the queue say that some are missing.
    if (lost) this.faults.lost();
  }

  /** As at power-on: registers, queues, and every device's disposition (§6.2). */
  reset(): void {
    this.pageRequests.waiting.forget(null, PRGR_RESPONSE_FAILURE);
    this.#clearRegisters();
    this.dispositions.mark(-1);
    this.dispositions.installMarked();
  }

  /** A function-level reset of one device: its page requests are void, its context stands. */
  deviceReset(guestId: number): void {
    const state = this.dispositions.find(guestId);
    if (state !== undefined) this.pageRequests.waiting.forget(state.device.handle, PRGR_RESPONSE_FAILURE);
  }

  #clearRegisters(): void {
    this.#words.fill(0);
    this.#registers.set64(WORD.CAPABILITIES, this.capabilities);
    const onlyWires = ((this.capabilities >> 28n) & 3n) === 1n;
    this.#words[WORD.FCTL] = onlyWires ? FCTL_WSI : 0;
    this.#words[WORD.DDTP] = this.#resetMode;
    this.#rules.wiredInterrupts = onlyWires;
    this.#rules.mode = this.#resetMode;
    for (const ats of this.#emulatedAts) ats.invalidations.forget();
    this.commands.reset();
    this.faults.ring.reset();
    this.pageRequests.ring.reset();
    this.#interrupts.reset();
  }

  #writeWord(word: number, value: number): void {
    const words = this.#words;
    const registers = this.#registers;
    const previous = words[word]!;
    const writable = registers.writable[word]!;
    const next = ((previous & ~writable) | (value & writable)) & ~(value & registers.clearedByOne[word]!);
    const effect = registers.effects[word]!;
    if (effect === EFFECT.NONE) {
      words[word] = next;
      return;
    }
    this.#act(effect, word, previous, next >>> 0, value);
  }

  #act(effect: number, word: number, previous: number, next: number, value: number): void {
    const words = this.#words;
    switch (effect) {
      case EFFECT.CQT:
        words[word] = next & this.commands.ring.mask;
        this.commands.run();
        return;
      case EFFECT.FQH:
        words[word] = next & this.faults.ring.mask;
        return;
      case EFFECT.PQH:
        words[word] = next & this.pageRequests.ring.mask;
        return;
      case EFFECT.IPSR:
        words[word] = next;
        this.#interrupts.updateWires();
        // Where the condition still holds, the bit goes 0→1 again at once (§6.18).
        this.commands.evaluate();
        this.faults.evaluate();
        this.pageRequests.evaluate();
        return;
      case EFFECT.CQCSR:
        words[word] = next;
        this.commands.controlWritten(previous);
        return;
      case EFFECT.FQCSR:
        words[word] = next;
        this.faults.controlWritten(previous);
        return;
      case EFFECT.PQCSR:
        words[word] = next;
        this.pageRequests.controlWritten(previous);
        return;
      case EFFECT.CQB:
        words[word] = next;
        this.commands.ring.rebase();
        return;
      case EFFECT.FQB:
        words[word] = next;
        this.faults.ring.rebase();
        return;
      case EFFECT.PQB:
        words[word] = next;
        this.pageRequests.ring.rebase();
        return;
      case EFFECT.DDTP:
        this.#writeDdtp(previous, next);
        return;
      case EFFECT.TR_REQ_CTL:
        words[word] = next;
        if ((value & 1) !== 0) this.#debug.translate();
        return;
      case EFFECT.FCTL:
        this.#writeFctl(next);
        return;
      case EFFECT.ICVEC:
        words[word] = next;
        this.#interrupts.updateWires();
        return;
      case EFFECT.VEC_CTL:
        words[word] = next;
        this.#interrupts.unmasked((word - WORD.MSI_CFG_TBL) >>> 2);
        return;
      default:
        words[word] = next;
    }
  }

  /** iommu_mode is WARL: a mode that does not exist leaves the one before. Every device's context is read again (§6.5). */
  #writeDdtp(previous: number, next: number): void {
    const mode = (next & 15) <= DDTP_3LVL ? next & 15 : previous & 15;
    this.#words[WORD.DDTP] = ((next & ~15) | mode) >>> 0;
    this.#rules.mode = mode;
    this.dispositions.mark(-1);
    this.dispositions.installMarked();
  }

  /** Open while the IOMMU works (§6.4): then it stays as it is. */
  #writeFctl(next: number): void {
    const words = this.#words;
    const working =
      (words[WORD.DDTP]! & 15) !== DDTP_OFF ||
      ((words[WORD.CQCSR]! | words[WORD.FQCSR]! | words[WORD.PQCSR]!) & CSR_ON) !== 0;
    if (working) return;
    words[WORD.FCTL] = next;
    this.#rules.wiredInterrupts = (next & FCTL_WSI) !== 0;
    this.#interrupts.updateWires();
  }

  #actions(): CommandActions {
    const { dispositions } = this;
    const host = this.#host;
    const lent = host?.batch;
    // A device that the host had to detach has no vDEVICE by which the host would know it.
    const assigned = (deviceId: number) => {
      const state = dispositions.find(deviceId);
      return state !== undefined && !state.device.emulated && state.device.held !== true && !state.detached;
    };
    return {
      rereadContext: (deviceId) => dispositions.mark(deviceId),
      forwards: assigned,
      forwardsAts: (deviceId) => {
        const state = dispositions.find(deviceId);
        return (
          state !== undefined &&
          !state.device.emulated &&
          state.context !== null &&
          (state.context.tc & TC_EN_ATS) !== 0
        );
      },
      invalidateEmulated: (deviceId, processId, lo1, hi1) => {
        const state = dispositions.find(deviceId);
        if (state?.device.emulated !== true || state.context === null || (state.context.tc & TC_EN_ATS) === 0) return 0;
        const ats = this.#emulatedAts.find((each) => each.deviceId === deviceId);
        return ats === undefined ? 0 : ats.invalidate(processId, lo1, hi1);
      },
      answerPageRequest: (deviceId, processId, group, code) => {
        this.pageRequests.waiting.answer(deviceId, processId, group, code);
      },
      installContexts: () => dispositions.installMarked(),
      invalidate: (batch, count) => {
        if (host === null) return { done: count, errno: 0 };
        return host.invalidate(batch === lent ? batch : batch.subarray(0, 16 * count), count);
      },
      batch: lent,
      relayEvents: () => {
        if (this.flagged) this.service();
      },
    };
  }

  #relayFault(bytes: Uint8Array): void {
    const record = decodeHostRecord(bytes);
    const state = record === null ? undefined : this.dispositions.find(record.deviceId);
    if (record === null || state === undefined || state.device.held === true) {
      this.#report(`${this.name}: the host reported a fault of a device that is not here; dropped`);
      return;
    }
    this.faults.report(
      relayRecord(record, state, (owner, processId, address) =>
        this.#directories.inProcessDirectory(owner.context, processId, address),
      ),
    );
  }

  #relayPageRequest(event: HostEvent & { kind: "page-request" }): void {
    const respond = this.#hostResponder(event.cookie);
    const state = this.dispositions.findHandle(event.device);
    if (state === undefined || state.device.held === true) {
      if (event.last) respond(PRGR_INVALID_REQUEST);
      return;
    }
    this.#pageRequestArrived(state, {
      device: event.device,
      deviceId: state.device.guestId,
      processId: event.pasid ?? -1,
      group: event.group,
      last: event.last,
      read: (event.permissions & 1) !== 0,
      write: (event.permissions & 2) !== 0,
      execute: (event.permissions & 4) !== 0,
      privileged: (event.permissions & 8) !== 0,
      address: BigInt.asUintN(64, event.address),
      cookie: event.cookie,
      respond,
    });
  }

  /** §3.7: the context decides; a request it does not allow is answered here, with a record of the reason. */
  #pageRequestArrived(state: DeviceState<CanonicalContext>, request: ArrivingPageRequest): void {
    const blocked = state.disposition === "blocked";
    if (!blocked && state.context !== null && (state.context.tc & TC_EN_PRI) !== 0) {
      this.pageRequests.deliver(request);
      return;
    }
    // What wants no answer is dropped silently.
    if (!wantsAnswer(request)) return;
    const cause = blocked ? state.cause : CAUSE_TRANSACTION_TYPE_DISALLOWED;
    request.respond(cause === CAUSE_TRANSACTION_TYPE_DISALLOWED ? PRGR_INVALID_REQUEST : PRGR_RESPONSE_FAILURE);
    if (cause === CAUSE_TRANSACTION_TYPE_DISALLOWED && faultsDisabled(state)) return;
    this.faults.report({
      cause,
      deviceId: request.deviceId,
      processId: request.processId,
      privileged: request.privileged,
      ttyp: TTYP_MESSAGE_REQUEST,
      iotval: BigInt(MESSAGE_CODE_PAGE_REQUEST),
      iotval2: 0n,
    });
  }

  /** The vIOMMU's own message met nothing: cause 273, iotval the message's address (§6.29). */
  #messageRefused(low: number, high: number): void {
    this.faults.report({
      cause: CAUSE_MSI_WRITE_ACCESS_FAULT,
      deviceId: 0,
      processId: -1,
      privileged: false,
      ttyp: TTYP_NONE,
      iotval: (BigInt(high) << 32n) | BigInt(low),
      iotval2: 0n,
    });
  }

  #hostResponder(cookie: number): (code: number) => void {
    return (code) => {
      // The host answers by itself when the device goes or its context changes: a cookie that is void by then is no news.
      this.#host?.respond(cookie, hostResponse(code));
    };
  }

  /** What answers a group of a document: the host by its cookie, or the emulated device that asked. */
  #responder({ device, deviceId, processId, asked, cookie }: AskedGroup): (code: number) => void {
    if (cookie !== null) return this.#hostResponder(cookie);
    const state = this.dispositions.findHandle(device);
    const ats = this.#emulatedAts.find((each) => each.deviceId === deviceId);
    if (state === undefined || ats === undefined) {
      throw new StateError(`${this.name}: device ${deviceId} waits for an answer and is not here`);
    }
    return ats.responder(state, processId, asked);
  }

  saveState(): StateRecord {
    return {
      flagged: this.flagged,
      cause: this.cause,
      wiredInterrupts: this.#rules.wiredInterrupts,
      mode: this.#rules.mode,
    };
  }

  restoreState(state: StateReader): void {
    this.flagged = state.boolean("flagged");
    this.cause = state.number("cause");
    this.#rules.wiredInterrupts = state.boolean("wiredInterrupts");
    this.#rules.mode = state.number("mode");
  }

  *stateParts(): Generator<readonly [string, Stateful]> {
    yield ["registers", this.#registers];
    yield ["interrupts", this.#interrupts];
    yield ["dispositions", this.dispositions];
    for (const ats of this.#emulatedAts) yield [`ATS of device ${ats.deviceId}`, ats.invalidations];
    yield ["commands", this.commands];
    yield ["faults", this.faults];
    // After the devices that answers go to.
    yield ["page requests", this.pageRequests];
  }
}
