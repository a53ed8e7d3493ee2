// ATS and page requests of a device model on the VM's own bus (§3.6, 3.7; PCIe 6.0 §10): what the hardware does for assigned devices.
//
//   translation request ─▶ the guest's tables, walked here ─▶ rights and range; what is missing is rights not granted
//   translated request  ─▶ the address is guest-physical already; the context must allow ATS
//   page request        ─▶ the guest's page-request queue, as one from the host
//   ATS.INVAL           ─▶ the model; a fence waits until it has completed, or its time is up

import { PRGR_RESPONSE_FAILURE } from "../../../host/arch/riscv/commands.ts";
import { TC_DTF, TC_EN_ATS, TC_PRPR } from "../../../host/arch/riscv/device-context.ts";
import {
  CAUSE_ALL_INBOUND_DISALLOWED,
  CAUSE_INSTRUCTION_PAGE_FAULT,
  CAUSE_PDT_NOT_VALID,
  CAUSE_READ_PAGE_FAULT,
  CAUSE_TRANSACTION_TYPE_DISALLOWED,
  CAUSE_WRITE_PAGE_FAULT,
  suppressedByDtf,
  TTYP_ATS_REQUEST,
  TTYP_TRANSLATED_READ,
  TTYP_TRANSLATED_WRITE,
} from "../../../host/arch/riscv/fault-records.ts";
import { accessFaultCause, atsKind, KIND_READ, KIND_WRITE } from "../../../host/arch/riscv/two-stage-walk.ts";
import { type GpaPfn, hex } from "../../../host/base/address.ts";
import { ACCESS_OK } from "../../../host/base/memory.ts";
import {
  ATS_COMPLETER_ABORT,
  ATS_SUCCESS,
  ATS_UNSUPPORTED_REQUEST,
  type AtsPort,
  type AtsStatus,
  type AtsTarget,
  type DeviceClock,
  DMA_ABORTED,
  DMA_OK,
  type DmaStatus,
  NO_PASID,
  noTranslation,
} from "../../../host/devices/ports.ts";
import { DeviceInvalidations } from "../device-invalidations.ts";
import type { DeviceState } from "../dispositions.ts";
import { type CanonicalContext, DDTP_BARE_CONTEXT } from "./context.ts";
import type { EmulatedParts } from "./emulated-devices.ts";
import type { ArrivingPageRequest } from "./page-requests.ts";

/** What becomes of messages; the IOMMU implements it. */
export interface EmulatedAtsHooks {
  pageRequestArrived(state: DeviceState<CanonicalContext>, request: ArrivingPageRequest): void;
  invalidationCompleted(timedOut: boolean): void;
}

// Not state: what is under way is DeviceInvalidations'
export class EmulatedAts implements AtsPort {
  readonly translation = noTranslation();
  readonly #deviceId: () => number;
  readonly #target: AtsTarget;
  readonly #parts: EmulatedParts;
  readonly #hooks: EmulatedAtsHooks;
  /** Under way. */
  readonly invalidations: DeviceInvalidations;

  constructor(
    deviceId: () => number,
    target: AtsTarget,
    parts: EmulatedParts,
    clock: DeviceClock,
    hooks: EmulatedAtsHooks,
  ) {
    this.#deviceId = deviceId;
    this.#target = target;
    this.#parts = parts;
    this.#hooks = hooks;
    const owner = `${parts.name} device ${hex(BigInt(deviceId()))}`;
    this.invalidations = new DeviceInvalidations(target, clock, owner, (timedOut) =>
      hooks.invalidationCompleted(timedOut),
    );
  }

  get deviceId(): number {
    return this.#deviceId();
  }

  translate(pfn: number, pasid: number, noWrite: boolean, privileged: boolean, execute: boolean): AtsStatus {
    const supervisor = privileged && pasid >= 0;
    const { translation } = this;
    Object.assign(translation, { pfn: 0, sizeLog2: 12, read: false, write: false, execute: false, global: false });
    translation.privileged = supervisor;
    const state = this.#parts.dispositions.find(this.deviceId);
    if (state === undefined) return ATS_UNSUPPORTED_REQUEST;
    const { directories } = this.#parts;
    let cause = this.#allowed(state);
    const kind = atsKind(noWrite, execute);
    if (cause === 0) cause = directories.translate(this.deviceId, state.context, pasid, supervisor, kind, pfn);
    if (cause !== 0) return this.#refuse(state, cause, pfn, pasid, supervisor);
    const leaf = directories.leaf(supervisor, execute);
    translation.read = leaf.read;
    translation.write = leaf.write;
    translation.execute = leaf.execute;
    translation.global = leaf.global && pasid >= 0;
    const pages = 2 ** leaf.shift;
    translation.pfn = directories.resultPfn - (directories.resultPfn % pages);
    translation.sizeLog2 = 12 + leaf.shift;
    return ATS_SUCCESS;
  }

  readTranslated(pfn: number, offset: number, into: Uint8Array, at: number, length: number, pasid: number): DmaStatus {
    return this.#translated(pfn, offset, into, at, length, pasid, KIND_READ);
  }

  writeTranslated(pfn: number, offset: number, from: Uint8Array, at: number, length: number, pasid: number): DmaStatus {
    return this.#translated(pfn, offset, from, at, length, pasid, KIND_WRITE);
  }

  pageRequest(pfn: number, pasid: number, group: number, flags: number): void {
    this.#message(pfn, pasid, group, flags);
  }

  stopMarker(pasid: number): void {
    this.#message(0, pasid, 0, 4);
  }

  /** ATS.INVAL for this device: as `DeviceInvalidations.begin`. `lo1`, `hi1` are the command's payload. */
  invalidate(pasid: number, lo1: number, hi1: number): number {
    const pfn = hi1 * 0x10_0000 + (lo1 >>> 12);
    let first = pfn;
    let pages = 1;
    if ((lo1 & 0x800) !== 0) {
      // S: the lowest 0 bit of the address at X means 2^(X+1) pages; none means everything.
      let size = 0;
      while (size < 51 && Math.floor(pfn / 2 ** size) % 2 === 1) size++;
      pages = size >= 51 ? Number.POSITIVE_INFINITY : 2 ** (size + 1);
      first = size >= 51 ? 0 : pfn - (pfn % pages);
    }
    return this.invalidations.begin(first, pages, pasid < 0 ? NO_PASID : pasid, (lo1 & 1) !== 0);
  }

  invalidationCompleted(itag: number): void {
    this.invalidations.completed(itag);
  }

  /** 0 if the context lets this device use ATS, else the cause (§3.3 steps 1 to 4). */
  #allowed(state: DeviceState<CanonicalContext>): number {
    if (state.disposition === "blocked") return state.cause;
    const { context } = state;
    const enabled = context !== null && context !== DDTP_BARE_CONTEXT && (context.tc & TC_EN_ATS) !== 0;
    return enabled ? 0 : CAUSE_TRANSACTION_TYPE_DISALLOWED;
  }

  /** §3.6: no rights are success without rights, missing contexts Unsupported Request, broken tables Completer Abort. */
  #refuse(
    state: DeviceState<CanonicalContext>,
    cause: number,
    pfn: number,
    pasid: number,
    supervisor: boolean,
  ): AtsStatus {
    if (
      cause === CAUSE_INSTRUCTION_PAGE_FAULT ||
      cause === CAUSE_READ_PAGE_FAULT ||
      cause === CAUSE_WRITE_PAGE_FAULT ||
      cause === CAUSE_PDT_NOT_VALID
    ) {
      return ATS_SUCCESS;
    }
    this.#fault(state, cause, TTYP_ATS_REQUEST, BigInt(pfn) << 12n, pasid, supervisor);
    const disallowed = cause >= CAUSE_ALL_INBOUND_DISALLOWED && cause <= CAUSE_TRANSACTION_TYPE_DISALLOWED;
    return disallowed ? ATS_UNSUPPORTED_REQUEST : ATS_COMPLETER_ABORT;
  }

  #translated(
    pfn: number,
    offset: number,
    bytes: Uint8Array,
    at: number,
    length: number,
    pasid: number,
    kind: number,
  ): DmaStatus {
    const state = this.#parts.dispositions.find(this.deviceId);
    if (state === undefined) return DMA_ABORTED;
    let cause = this.#allowed(state);
    if (cause === 0) {
      const { memory } = this.#parts;
      const page = pfn as GpaPfn;
      const status =
        kind === KIND_WRITE
          ? memory.write(page, offset, bytes, at, length)
          : memory.read(page, offset, bytes, at, length);
      if (status === ACCESS_OK) return DMA_OK;
      cause = accessFaultCause(kind);
    }
    const ttyp = kind === KIND_WRITE ? TTYP_TRANSLATED_WRITE : TTYP_TRANSLATED_READ;
    this.#fault(state, cause, ttyp, (BigInt(pfn) << 12n) | BigInt(offset), pasid, false);
    return DMA_ABORTED;
  }

  #message(pfn: number, pasid: number, group: number, flags: number): void {
    const state = this.#parts.dispositions.find(this.deviceId);
    if (state === undefined) return;
    this.#hooks.pageRequestArrived(state, {
      device: state.device.handle,
      deviceId: this.deviceId,
      processId: pasid,
      group,
      last: (flags & 4) !== 0,
      read: (flags & 1) !== 0,
      write: (flags & 2) !== 0,
      execute: (flags & 8) !== 0,
      privileged: (flags & 16) !== 0,
      address: BigInt(pfn) << 12n,
      cookie: null,
      respond: this.responder(state, pasid, group),
    });
  }

  #fault(
    state: DeviceState<CanonicalContext>,
    cause: number,
    ttyp: number,
    iotval: bigint,
    pasid: number,
    privileged: boolean,
  ): void {
    if (state.context !== null && (state.context.tc & TC_DTF) !== 0 && suppressedByDtf(cause)) return;
    this.#parts.faults.report({
      cause,
      deviceId: this.deviceId,
      processId: pasid,
      privileged: privileged && pasid >= 0,
      ttyp,
      iotval,
      iotval2: 0n,
    });
  }

  /** What answers a group of the device's page requests. */
  responder(state: DeviceState<CanonicalContext>, pasid: number, group: number): (code: number) => void {
    const withPasid = (code: number) =>
      pasid >= 0 && (code === PRGR_RESPONSE_FAILURE || (state.context !== null && (state.context.tc & TC_PRPR) !== 0));
    return (code) => this.#target.pageResponse(withPasid(code) ? pasid : NO_PASID, group, code);
  }
}
