// The Supervisor Binary Interface the VMM offers its RV64 guests (RISC-V SBI 2.0): BASE, TIME, IPI, RFENCE, HSM, SRST, DBCN.
// An S-mode ecall leaves the core; `call` reads a0…a7, does the work and answers in a0 (error) and a1 (value). Every other
// extension is absent (probe answers 0).

import type { GpaPfn } from "../../host/base/address.ts";
import { ACCESS_OK, type PhysicalMemory } from "../../host/base/memory.ts";
import type { Stateful, StateReader, StateRecord } from "../../host/base/state.ts";
import type { ResetKind } from "../kernel-machine.ts";
import type { Rv64Core } from "../vcpu/riscv64/core.ts";

const SUCCESS = 0;
const ERR_NOT_SUPPORTED = -2;
const ERR_INVALID_PARAM = -3;
const ERR_ALREADY_AVAILABLE = -6;

const EXT_BASE = 0x10;
const EXT_TIME = 0x54494d45;
const EXT_IPI = 0x735049;
const EXT_RFENCE = 0x52464e43;
const EXT_HSM = 0x48534d;
const EXT_SRST = 0x53525354;
const EXT_DBCN = 0x4442434e;
const EXTENSIONS: readonly number[] = [EXT_BASE, EXT_TIME, EXT_IPI, EXT_RFENCE, EXT_HSM, EXT_SRST, EXT_DBCN];

/** Version 2.0: 30:24 major, 23:0 minor. */
const SPEC_VERSION = 0x02000000n;
const HART_STARTED = 0n;
const HART_STOPPED = 1n;
/** One DBCN write moves at most this much; the guest calls again for the rest. */
const DBCN_CHUNK = 4096;

export interface SbiParts {
  readonly core: Rv64Core;
  readonly memory: PhysicalMemory<GpaPfn>;
  /** Which harts run; HSM changes it. */
  readonly started: boolean[];
  readonly console: (bytes: Uint8Array) => void;
  /** Takes up to `bytes.length` bytes of console input; returns how many. */
  readonly consoleRead: (bytes: Uint8Array) => number;
  readonly reset: (kind: ResetKind, failure: boolean) => void;
}

export class Sbi implements Stateful {
  /** Calls by extension and function, for the summary. */
  readonly calls = new Map<string, number>();
  readonly #parts: SbiParts;
  #value = 0n; // not state: answer of the call being served

  constructor(parts: SbiParts) {
    this.#parts = parts;
  }

  /** Serves the ecall that `hart` has just made. */
  call(hart: number): void {
    const { core } = this.#parts;
    const extension = core.xHigh(hart, 17) === 0 ? core.xLow(hart, 17) : -1;
    const fid = core.xLow(hart, 16);
    const name = `${EXTENSIONS.includes(extension) ? extensionName(extension) : "unknown"}.${Math.min(fid, 16)}`;
    this.calls.set(name, (this.calls.get(name) ?? 0) + 1);
    this.#value = 0n;
    const error = this.#dispatch(hart, extension, fid);
    // HSM stop and a reset do not return; writing the registers of a stopped hart does no harm.
    core.setX(hart, 10, BigInt(error));
    core.setX(hart, 11, this.#value);
  }

  #dispatch(hart: number, extension: number, fid: number): number {
    switch (extension) {
      case EXT_BASE:
        return this.#base(hart, fid);
      case EXT_TIME:
        if (fid !== 0) return ERR_NOT_SUPPORTED;
        this.#parts.core.write(hart, "stimecmp", this.#parts.core.x(hart, 10));
        return SUCCESS;
      case EXT_IPI:
        if (fid !== 0) return ERR_NOT_SUPPORTED;
        return this.#eachHart(hart, (target) => this.#parts.core.setSoftwareInterrupt(target, true));
      case EXT_RFENCE:
        if (fid === 0) return this.#eachHart(hart, (target) => this.#parts.core.fenceInstructions(target));
        if (fid <= 2) return this.#eachHart(hart, (target) => this.#parts.core.flushTranslations(target));
        return ERR_NOT_SUPPORTED;
      case EXT_HSM:
        return this.#hartStateManagement(hart, fid);
      case EXT_SRST:
        return fid === 0 ? this.#reset(hart) : ERR_NOT_SUPPORTED;
      case EXT_DBCN:
        return this.#debugConsole(hart, fid);
      default:
        return ERR_NOT_SUPPORTED;
    }
  }

  #base(hart: number, fid: number): number {
    const probed = this.#parts.core.x(hart, 10);
    switch (fid) {
      case 0:
        this.#value = SPEC_VERSION;
        return SUCCESS;
      case 1: // implementation id: none registered
      case 2:
        return SUCCESS;
      case 3:
        this.#value = EXTENSIONS.some((extension) => BigInt(extension) === probed) ? 1n : 0n;
        return SUCCESS;
      case 4: // mvendorid, marchid, mimpid: 0 selects no errata
      case 5:
      case 6:
        return SUCCESS;
      default:
        return ERR_NOT_SUPPORTED;
    }
  }

  /** Hart mask in a0 from base a1; base −1 means all. */
  #eachHart(hart: number, act: (target: number) => void): number {
    const { core, started } = this.#parts;
    const mask = core.x(hart, 10);
    const base = core.x(hart, 11);
    if (base === 0xffff_ffff_ffff_ffffn) {
      for (let target = 0; target < started.length; target++) act(target);
      return SUCCESS;
    }
    for (let bit = 0n; bit < 64n; bit++) {
      if (((mask >> bit) & 1n) !== 0n && base + bit >= BigInt(started.length)) return ERR_INVALID_PARAM;
    }
    for (let target = 0; target < started.length; target++) {
      const bit = BigInt(target) - base;
      if (bit >= 0n && bit < 64n && ((mask >> bit) & 1n) !== 0n) act(target);
    }
    return SUCCESS;
  }

  #hartStateManagement(hart: number, fid: number): number {
    const { core, started } = this.#parts;
    const target = Number(core.x(hart, 10));
    switch (fid) {
      case 0:
        if (!(target < started.length)) return ERR_INVALID_PARAM;
        if (started[target] === true) return ERR_ALREADY_AVAILABLE;
        core.start(target, core.x(hart, 11), core.x(hart, 12));
        started[target] = true;
        return SUCCESS;
      case 1:
        started[hart] = false;
        return SUCCESS;
      case 2:
        if (!(target < started.length)) return ERR_INVALID_PARAM;
        this.#value = started[target] === true ? HART_STARTED : HART_STOPPED;
        return SUCCESS;
      default:
        return ERR_NOT_SUPPORTED;
    }
  }

  #reset(hart: number): number {
    const kind = this.#parts.core.xLow(hart, 10);
    if (kind > 2) return ERR_INVALID_PARAM;
    const failure = this.#parts.core.xLow(hart, 11) === 1;
    this.#parts.reset((["shutdown", "cold-reboot", "warm-reboot"] as const)[kind as 0 | 1 | 2], failure);
    return SUCCESS;
  }

  #debugConsole(hart: number, fid: number): number {
    const { core, memory, console, consoleRead } = this.#parts;
    if (fid === 2) {
      console(Uint8Array.of(core.xLow(hart, 10) & 0xff));
      return SUCCESS;
    }
    if (fid > 2) return ERR_NOT_SUPPORTED;
    const wanted = core.x(hart, 10);
    const bytes = new Uint8Array(Number(wanted < BigInt(DBCN_CHUNK) ? wanted : BigInt(DBCN_CHUNK)));
    const address = core.x(hart, 11);
    const pfn = Number(address >> 12n) as GpaPfn;
    const offset = Number(address & 0xfffn);
    // Asked before input is taken: what is typed must not be lost to a call that is refused (§12.1, §12.2 say with which error).
    const isRam = memory.contains(pfn, Math.ceil((offset + bytes.length) / 4096));
    if (core.x(hart, 12) !== 0n || !isRam) return ERR_INVALID_PARAM;
    if (fid === 0) {
      if (memory.read(pfn, offset, bytes, 0, bytes.length) !== ACCESS_OK) return ERR_INVALID_PARAM;
      console(bytes);
      this.#value = BigInt(bytes.length);
      return SUCCESS;
    }
    const got = consoleRead(bytes);
    if (memory.write(pfn, offset, bytes, 0, got) !== ACCESS_OK) return ERR_INVALID_PARAM;
    this.#value = BigInt(got);
    return SUCCESS;
  }

  saveState(): StateRecord {
    return { calls: [...this.calls].map(([name, count]) => ({ name, count })) };
  }

  restoreState(state: StateReader): void {
    const calls = state.records("calls").map((call) => [call.text("name"), call.number("count")] as const);
    this.calls.clear();
    for (const [name, count] of calls) this.calls.set(name, count);
  }
}

function extensionName(extension: number): string {
  switch (extension) {
    case EXT_BASE:
      return "BASE";
    case EXT_TIME:
      return "TIME";
    case EXT_IPI:
      return "IPI";
    case EXT_RFENCE:
      return "RFENCE";
    case EXT_HSM:
      return "HSM";
    case EXT_SRST:
      return "SRST";
    default:
      return "DBCN";
  }
}
