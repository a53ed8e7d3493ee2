// Reading the guest's own tables in guest memory, with the architecture's walks (host/arch/riscv) as the guest's ddtp and
// capabilities say: device contexts for the dispositions (§3.3.1), and whole translations for emulated devices and the debug
// interface (§3.3), which no hardware walks.

import { AddressSpace } from "../../../host/arch/riscv/address-space.ts";
import { decodeCapabilities, type StructureRules, structureRules } from "../../../host/arch/riscv/capabilities.ts";
import { deviceIdBits, TC_DPE, TC_DTF, TC_PDTV } from "../../../host/arch/riscv/device-context.ts";
import { DirectoryWalker } from "../../../host/arch/riscv/directory-walk.ts";
import {
  CAUSE_ALL_INBOUND_DISALLOWED,
  CAUSE_DDT_MISCONFIGURED,
  CAUSE_TRANSACTION_TYPE_DISALLOWED,
} from "../../../host/arch/riscv/fault-records.ts";
import { PTE_D, PTE_R, PTE_U, PTE_W, PTE_X } from "../../../host/arch/riscv/page-table-entry.ts";
import {
  PC_ENS,
  PC_SUM,
  PROCESS_CONTEXT_BYTES,
  processDirectoryIndex,
  processDirectoryLevels,
  processIdBits,
} from "../../../host/arch/riscv/process-context.ts";
import { DDTP_1LVL, DDTP_BARE, DDTP_OFF } from "../../../host/arch/riscv/registers.ts";
import { TwoStageWalker } from "../../../host/arch/riscv/two-stage-walk.ts";
import { TABLE_NAMES } from "../../../host/arch/riscv/walk-observer.ts";
import type { GpaPfn } from "../../../host/base/address.ts";
import { ACCESS_OK, type MemoryPort } from "../../../host/base/memory.ts";
import type { Trace } from "../../../host/base/trace.ts";
import type { DeviceAbilities } from "../dispositions.ts";
import { WalkTrace } from "../walk-trace.ts";
import { type CanonicalContext, type ContextReader, LastCanonical, type LocatedContext } from "./context.ts";
import { type RegisterFile, WORD } from "./registers.ts";

const SOUND: LocatedContext = { cause: 0, bare: false, detail: "" };
const BARE: LocatedContext = { cause: 0, bare: true, detail: "ddtp Bare" };
const OFF: LocatedContext = { cause: CAUSE_ALL_INBOUND_DISALLOWED, bare: false, detail: "ddtp Off" };

export interface LeafRights {
  read: boolean;
  write: boolean;
  execute: boolean;
  global: boolean;
  /** log2 of the range in pages. */
  shift: number;
}

/** What the debug interface translates for can do all. */
const ABLE: DeviceAbilities = { ats: true, pri: true };

/** Range reported where the first stage is Bare: 2 MiB, as §3.6 recommends. */
const BARE_RANGE_SHIFT = 9;

/** Not state: tables are read afresh each time; what is kept is the last answer. */
export class GuestDirectories implements ContextReader {
  /** What the guest's structures are checked against: its own capabilities. */
  readonly rules: StructureRules;
  /** Guest-physical page of the last translation, and the memory type of its leaf (PBMT). */
  resultPfn = 0 as GpaPfn;
  resultPbmt = 0;
  /** tc.DTF of the context that `translateAfresh` found. */
  faultsDisabled = false;
  readonly #registers: RegisterFile;
  readonly #memory: MemoryPort<GpaPfn>;
  readonly #walker: TwoStageWalker<GpaPfn>;
  readonly #directory: DirectoryWalker<GpaPfn>;
  readonly #space = new AddressSpace();
  readonly #noSecondStage = new Uint32Array(16);
  readonly #last = new LastCanonical();
  #refused: LocatedContext = OFF;
  readonly #leaf: LeafRights = { read: false, write: false, execute: false, global: false, shift: 0 };
  readonly #trace: Trace;
  readonly #walkTrace: WalkTrace;

  constructor(registers: RegisterFile, memory: MemoryPort<GpaPfn>, trace: Trace, name: string) {
    this.#registers = registers;
    this.#memory = memory;
    this.#trace = trace;
    this.rules = structureRules(decodeCapabilities(registers.get64(WORD.CAPABILITIES)));
    this.#walker = new TwoStageWalker(memory, this.rules);
    this.#directory = new DirectoryWalker(memory, this.#walker, this.rules);
    this.#walkTrace = new WalkTrace(trace, name, TABLE_NAMES);
  }

  /** Halves of the context last located. */
  get words(): Uint32Array {
    return this.#directory.dc;
  }

  get mode(): number {
    return this.#registers.words[WORD.DDTP]! & 15;
  }

  locate(deviceId: number): LocatedContext {
    const mode = this.mode;
    if (mode === DDTP_OFF) return OFF;
    if (mode === DDTP_BARE) return BARE;
    const levels = mode - DDTP_1LVL + 1;
    if (deviceId >= 1 << deviceIdBits(levels, false)) {
      return this.#refuse(CAUSE_TRANSACTION_TYPE_DISALLOWED, `device id wider than a ${levels}-level directory`);
    }
    this.#observe(deviceId);
    const words = this.#registers.words;
    const root = words[WORD.DDTP + 1]! * 0x40_0000 + (words[WORD.DDTP]! >>> 10);
    const cause = this.#directory.locateDevice(deviceId, root, levels);
    if (cause === 0) return SOUND;
    const reason = cause === CAUSE_DDT_MISCONFIGURED ? this.#directory.misconfiguration : null;
    return this.#refuse(cause, reason ?? "");
  }

  /**
   * Translates a page of a device whose context is `context` (null: ddtp Bare) as §3.3 steps 4–10 say. `processId` -1: none; `kind`
   * KIND_READ, KIND_WRITE or KIND_EXECUTE. 0: the page is in `resultPfn`; else a cause.
   */
  translate(
    deviceId: number,
    context: CanonicalContext | null,
    processId: number,
    supervisor: boolean,
    kind: number,
    pfn: number,
  ): number {
    this.resultPbmt = 0;
    if (context === null) {
      this.resultPfn = pfn as GpaPfn;
      return 0;
    }
    this.#observe(deviceId);
    const space = this.#space;
    const { tc, fscLow, fscHigh } = context;
    this.#noSecondStage[0] = tc;
    space.setSecondStage(this.#noSecondStage, this.rules);
    if ((tc & TC_PDTV) === 0) {
      if (processId >= 0) return CAUSE_TRANSACTION_TYPE_DISALLOWED;
      space.setFirstStage(fscLow, fscHigh, false, false);
    } else {
      const mode = fscHigh >>> 28;
      if (processId >= 1 << processIdBits(mode) && mode !== 0) return CAUSE_TRANSACTION_TYPE_DISALLOWED;
      const process = processId < 0 && (tc & TC_DPE) !== 0 ? 0 : processId;
      if (process >= 0 && mode !== 0) {
        const root = (fscHigh & 0xfff) * 0x1_0000_0000 + fscLow;
        const levels = processDirectoryLevels(mode);
        const cause = this.#directory.locateProcess(process, root, levels, space, false, false, kind);
        if (cause !== 0) return cause;
        const pc = this.#directory.pc;
        if (supervisor && (pc[0]! & PC_ENS) === 0) return CAUSE_TRANSACTION_TYPE_DISALLOWED;
        space.setFirstStage(pc[2]!, pc[3]!, false, (pc[0]! & PC_SUM) !== 0);
      }
    }
    const walker = this.#walker;
    // The second stage is Bare: the plain way ends with the first.
    if (!walker.walkPlainly(space, pfn | 0, (pfn * 2 ** -32) | 0, kind, supervisor)) {
      const cause = walker.firstStage(space, pfn, kind, supervisor);
      if (cause !== 0) return cause;
    }
    this.resultPfn = walker.gpaPfn as GpaPfn;
    this.resultPbmt = (walker.firstHi >>> 29) & 3;
    return 0;
  }

  /** Rights and range of the leaf that an ATS request's `translate` ended at (§3.6); the object is the next call's, too. */
  leaf(supervisor: boolean, execute: boolean): LeafRights {
    const walker = this.#walker;
    const { firstLo: leaf, firstGlobal } = walker;
    const walked = this.#space.firstLevels !== 0;
    const user = (leaf & PTE_U) !== 0;
    const rights = this.#leaf;
    // Not this requester's to touch: no rights at all. A supervisor never executes from a user's page.
    const touchable = !walked || (supervisor ? !user || this.#space.sum : user);
    rights.read = touchable && (leaf & PTE_R) !== 0;
    rights.write = rights.read && (leaf & PTE_W) !== 0 && (leaf & PTE_D) !== 0;
    rights.execute = execute && rights.read && (leaf & PTE_X) !== 0 && !(supervisor && walked && user);
    rights.global = walked && firstGlobal;
    rights.shift = walked ? walker.firstShift : BARE_RANGE_SHIFT;
    return rights;
  }

  /** The debug interface's translation (§5): the device's context is read afresh. 0, or a cause. */
  translateAfresh(deviceId: number, processId: number, supervisor: boolean, kind: number, pfn: number): number {
    const located = this.locate(deviceId);
    this.faultsDisabled = located.cause === 0 && !located.bare && (this.words[0]! & TC_DTF) !== 0;
    if (located.cause !== 0) return located.cause;
    const context = located.bare ? null : this.#last.of(this.words, ABLE);
    return this.translate(deviceId, context, processId, supervisor, kind, pfn);
  }

  /** True if guest-physical `address` lies in an entry that is read to find `processId`'s context. */
  inProcessDirectory(context: CanonicalContext | null, processId: number, address: bigint): boolean {
    if (context === null || (context.tc & TC_PDTV) === 0 || processId < 0) return false;
    let table = (context.fscHigh & 0xfff) * 0x1_0000_0000 + context.fscLow;
    const memory = this.#memory;
    for (let level = processDirectoryLevels(context.fscHigh >>> 28) - 1; level >= 0; level--) {
      const bytes = level === 0 ? PROCESS_CONTEXT_BYTES : 8;
      const offset = processDirectoryIndex(processId, level) * bytes;
      const entry = (BigInt(table) << 12n) | BigInt(offset);
      if (address >= entry && address < entry + BigInt(bytes)) return true;
      if (level === 0 || memory.load64(table as GpaPfn, offset) !== ACCESS_OK || (memory.lo & 1) === 0) return false;
      table = (memory.hi & 0x3f_ffff) * 0x40_0000 + (memory.lo >>> 10);
    }
    return false;
  }

  /** The last refusal again, if it was the same. */
  #refuse(cause: number, detail: string): LocatedContext {
    const last = this.#refused;
    if (last.cause === cause && last.detail === detail) return last;
    const refused = { cause, bare: false, detail };
    this.#refused = refused;
    return refused;
  }

  #observe(deviceId: number): void {
    this.#walkTrace.deviceId = deviceId;
    const observer = this.#trace.on ? this.#walkTrace : null;
    this.#directory.observer = observer;
    this.#walker.observer = observer;
  }
}
