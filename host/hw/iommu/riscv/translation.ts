// Translating an untranslated or translated request (§3.3): the process that starts with a device_id and an IOVA and ends with a
// system-physical frame, or with a fault record.
//
//     translate ─ device context ─ process context ─ IOTLB ─┬─ hit ───────────────────────────────▶ resultPfn
//                 (cache or §3.3.1)  (cache or §3.3.2)       └─ miss: first stage, MSI?, second stage ─▶ IOTLB ─▶ resultPfn
//
// The hit path allocates nothing and branches little; everything that is not a plain hit is in methods of its own. Step numbers in
// comments are §3.3's.

import type { StructureRules } from "../../../arch/riscv/capabilities.ts";
import { deviceIdBits } from "../../../arch/riscv/device-context.ts";
import { DirectoryWalker } from "../../../arch/riscv/directory-walk.ts";
import {
  CAUSE_ALL_INBOUND_DISALLOWED,
  CAUSE_TRANSACTION_TYPE_DISALLOWED,
  TTYP_UNTRANSLATED_EXECUTE,
} from "../../../arch/riscv/fault-records.ts";
import { PTE_D, PTE_R, PTE_U, PTE_W, PTE_X } from "../../../arch/riscv/page-table-entry.ts";
import { DDTP_BARE, DDTP_OFF, REG } from "../../../arch/riscv/registers.ts";
import { KIND_ATS, KIND_EXECUTE, KIND_READ, KIND_WRITE, TwoStageWalker } from "../../../arch/riscv/two-stage-walk.ts";
import type { HpaPfn } from "../../../base/address.ts";
import { ACCESS_EXECUTE, ACCESS_WRITE, REFUSED, TRANSLATED, type TranslationStatus } from "../port.ts";
import type { AddressTag } from "./address-tags.ts";
import type { CachedDevice, CachedSpace } from "./context-cache.ts";
import type { FaultQueue } from "./fault-queue.ts";
import type { HardwareState } from "./hardware-state.ts";
import {
  CLASS_SHIFTS,
  classOf,
  ENTRY_PBMT_SHIFT,
  RIGHT_EXECUTE,
  RIGHT_READ,
  RIGHT_WRITE,
  SUPERVISOR_RIGHTS,
  SUPERVISOR_SUM_RIGHTS,
  USER_RIGHTS,
} from "./translation-cache.ts";
import type { TranslationCaches } from "./translation-caches.ts";

/** The right a request of each kind needs of a cached entry. */
const NEEDED_RIGHT = Uint8Array.of(RIGHT_READ, RIGHT_WRITE, RIGHT_EXECUTE);
/** TTYP of an untranslated request of each kind; translated ones are 4 more. */
const TTYP = Uint8Array.of(2, 3, TTYP_UNTRANSLATED_EXECUTE);

export class Translator {
  /** Where the last request that was TRANSLATED goes. */
  resultPfn = 0 as HpaPfn;
  readonly walker: TwoStageWalker<HpaPfn>;
  readonly directories: DirectoryWalker<HpaPfn>;
  readonly #state: HardwareState;
  readonly #caches: TranslationCaches;
  readonly #faults: FaultQueue;
  // ddtp taken apart when it was written.
  #mode = DDTP_OFF;
  #root = 0;
  #levels = 0;
  /** Device ids from here on are wider than the mode (260). */
  #deviceLimit = 0;
  // The request under way, for fault records.
  #deviceId = 0;
  #processId = -1;
  #privileged = false;
  #ttyp = 0;
  #pfn = 0;
  #offset = 0;
  #dtf = false;

  constructor(state: HardwareState, caches: TranslationCaches, faults: FaultQueue) {
    this.#state = state;
    this.#caches = caches;
    this.#faults = faults;
    this.walker = new TwoStageWalker(state.memory, state.rules);
    this.directories = new DirectoryWalker(state.memory, this.walker, state.rules);
  }

  /** fctl changed. */
  setRules(rules: StructureRules): void {
    this.walker.configure(rules);
    this.directories.configure(rules);
  }

  /** ddtp changed. */
  directoryChanged(): void {
    const state = this.#state;
    this.#mode = state.reg(REG.ddtp) & 0xf;
    this.#root = state.frameIn(REG.ddtp);
    this.#levels = this.#mode > DDTP_BARE ? this.#mode - 1 : 0;
    this.#deviceLimit = this.#levels === 0 ? 0 : 2 ** deviceIdBits(this.#levels, state.rules.MSI_FLAT);
  }

  /** §3.3 for one request within one page; arguments as HardwareIommu.translate. */
  translate(
    deviceId: number,
    processId: number,
    privileged: boolean,
    access: number,
    pfn: number,
    offset: number,
    translated: boolean,
    _data: number,
  ): TranslationStatus {
    const kind =
      (access & ACCESS_EXECUTE) !== 0 ? KIND_EXECUTE : (access & ACCESS_WRITE) !== 0 ? KIND_WRITE : KIND_READ;
    this.#deviceId = deviceId;
    this.#processId = processId;
    this.#privileged = privileged;
    this.#ttyp = TTYP[kind]! + (translated ? 4 : 0);
    this.#pfn = pfn;
    this.#offset = offset;
    this.#dtf = false;
    if (deviceId >= this.#deviceLimit) return this.#withoutDirectory(pfn, translated);
    const device = this.#caches.devices.find(deviceId) ?? this.#loadDevice(deviceId);
    if (device === null) return REFUSED;
    this.#dtf = device.dtf;
    // Steps 7 to 16: which address space, and as whom.
    let space: CachedSpace;
    let supervisor = false;
    if (translated) {
      // Step 7: needs EN_ATS; a process_id is checked as for any request.
      if (!device.enAts || !this.#processAllowed(device, processId)) return this.#disallow();
      if (!device.t2gpa) {
        this.resultPfn = pfn as HpaPfn;
        return TRANSLATED;
      }
      space = device.secondStageOnly;
    } else if (processId < 0 && !device.dpe) {
      space = device.space;
    } else {
      if (!this.#processAllowed(device, processId)) return this.#disallow();
      const found = this.#processSpace(device, processId, privileged, kind);
      if (found === null) return REFUSED;
      space = found;
      supervisor = privileged && processId >= 0;
    }
    if (space.transparent) {
      this.resultPfn = pfn as HpaPfn;
      return TRANSLATED;
    }
    const tag = space.currentTag(this.#caches.tags);
    const translations = this.#caches.translations;
    let entry = translations.find(tag, pfn);
    if (entry < 0 && tag.global !== null && tag.global.sizes !== 0) entry = translations.find(tag.global, pfn);
    if (entry >= 0) {
      const rights = supervisor ? (space.sum ? SUPERVISOR_SUM_RIGHTS : SUPERVISOR_RIGHTS) : USER_RIGHTS;
      if (((translations.flagsAt(entry) >>> rights) & NEEDED_RIGHT[kind]!) !== 0) {
        this.resultPfn = translations.frameAt(entry, pfn) as HpaPfn;
        return TRANSLATED;
      }
      // Rights missing, or D not known to be set: what the tables say now decides.
    }
    return this.#walk(device, space, tag, pfn, kind, supervisor);
  }

  /** ddtp Off or Bare, or a device_id too wide (steps 1, 2, 5). */
  #withoutDirectory(pfn: number, translated: boolean): TranslationStatus {
    if (this.#mode === DDTP_OFF) return this.#refuse(CAUSE_ALL_INBOUND_DISALLOWED, 0, 0);
    if (this.#mode === DDTP_BARE && !translated) {
      this.resultPfn = pfn as HpaPfn;
      return TRANSLATED;
    }
    return this.#disallow();
  }

  /** Step 6; the fault is reported here. */
  #loadDevice(deviceId: number): CachedDevice | null {
    const cause = this.directories.locateDevice(deviceId, this.#root, this.#levels);
    if (cause !== 0) {
      // A device context that exists but is misconfigured gives no DTF: none was found.
      this.#refuse(cause, 0, 0);
      return null;
    }
    return this.#caches.devices.load(deviceId, this.directories.dc, this.#state.rules, this.#caches.tags);
  }

  /** Step 7: a process_id needs PDTV and a directory wide enough. */
  #processAllowed(device: CachedDevice, processId: number): boolean {
    if (processId < 0) return true;
    return device.pdtv && processId < 2 ** (device.processLevels === 0 ? 20 : device.processBits);
  }

  /** Steps 11 to 16; null: refused, the fault is reported. */
  #processSpace(device: CachedDevice, given: number, privileged: boolean, kind: number): CachedSpace | null {
    // Step 13: a Bare process directory leaves the second stage alone.
    if (device.processLevels === 0) return device.space;
    const processId = Math.max(given, 0);
    let process = this.#caches.processes.find(device, processId);
    if (process === null) {
      const directories = this.directories;
      const cause = directories.locateProcess(
        processId,
        device.processRoot,
        device.processLevels,
        device.secondStageOnly,
        device.sbe,
        device.sxl,
        kind,
      );
      if (cause !== 0) {
        const guest = cause >= 20 && cause <= 23;
        this.#refuse(cause, guest ? directories.iotval2Pfn : 0, guest ? directories.iotval2Low : 0);
        return null;
      }
      process = this.#caches.processes.load(device, processId, directories.pc, this.#caches.tags);
    }
    if (privileged && given >= 0 && !process.ens) {
      this.#disallow();
      return null;
    }
    return process.space;
  }

  /** Steps 17 to 20 by the tables; what comes out is cached. */
  #walk(
    device: CachedDevice,
    space: CachedSpace,
    tag: AddressTag,
    pfn: number,
    kind: number,
    supervisor: boolean,
  ): TranslationStatus {
    const walker = this.walker;
    let cause = walker.firstStage(space, pfn, kind, supervisor);
    if (cause !== 0) {
      const guest = cause >= 20 && cause <= 23;
      return this.#refuse(cause, guest ? walker.iotval2Pfn : 0, guest ? walker.iotval2Low : 0);
    }
    cause = walker.secondStage(space, walker.gpaPfn, kind, kind);
    if (cause !== 0) {
      const guest = cause >= 20 && cause <= 23;
      // §4.2.1: bits 63:2 of the guest-physical address; bits 1:0 say that the access was the request's own.
      return this.#refuse(cause, guest ? walker.gpaPfn : 0, guest ? this.#offset & ~3 : 0);
    }
    this.resultPfn = walker.spaPfn as HpaPfn;
    this.#keep(device, space, tag, pfn);
    return TRANSLATED;
  }

  /** Caches what the walker just found. */
  #keep(device: CachedDevice, space: CachedSpace, tag: AddressTag, pfn: number): void {
    const walker = this.walker;
    const first = walker.firstLo;
    const second = walker.secondLo;
    let size = classOf(Math.min(walker.firstShift, walker.secondShift));
    if (device.msiFlat) {
      // A block must not hide an interrupt-file page (§3.8 with §3.3.3): shrink it until it holds none.
      while (size > 0 && device.overlapsMessagePages(walker.gpaPfn, CLASS_SHIFTS[size]!)) size--;
    }
    let rights = 0;
    if ((first & second & PTE_R) !== 0) rights |= RIGHT_READ;
    if ((first & second & PTE_W) !== 0 && (first & second & PTE_D) !== 0) rights |= RIGHT_WRITE;
    if ((first & second & PTE_X) !== 0) rights |= RIGHT_EXECUTE;
    let flags: number;
    if (space.firstLevels === 0) flags = rights | (rights << SUPERVISOR_RIGHTS) | (rights << SUPERVISOR_SUM_RIGHTS);
    else if ((first & PTE_U) !== 0) flags = rights | ((rights & ~RIGHT_EXECUTE) << SUPERVISOR_SUM_RIGHTS);
    else flags = (rights << SUPERVISOR_RIGHTS) | (rights << SUPERVISOR_SUM_RIGHTS);
    const firstType = (walker.firstHi >>> 29) & 3;
    flags |= (firstType !== 0 ? firstType : (walker.secondHi >>> 29) & 3) << ENTRY_PBMT_SHIFT;
    const owner = walker.firstGlobal && space.firstLevels !== 0 && tag.global !== null ? tag.global : tag;
    if (space.firstLevels !== 0 && CLASS_SHIFTS[size]! < walker.firstShift) {
      owner.split |= 1 << classOf(walker.firstShift);
    }
    this.#caches.translations.insert(owner, pfn, size, walker.spaPfn, flags);
  }

  #disallow(): TranslationStatus {
    return this.#refuse(CAUSE_TRANSACTION_TYPE_DISALLOWED, 0, 0);
  }

  /** Reports a fault of the request under way. */
  #refuse(cause: number, iotval2Pfn: number, iotval2Low: number): TranslationStatus {
    this.#faults.report(
      cause,
      this.#deviceId,
      this.#processId,
      this.#privileged,
      this.#ttyp,
      this.#pfn,
      this.#offset,
      iotval2Pfn,
      iotval2Low,
      this.#dtf,
    );
    return REFUSED;
  }
}

/** True for the kinds of ATS requests. */
export function isAtsKind(kind: number): boolean {
  return kind >= KIND_ATS;
}
