// Translating a request (§3.3): the process that starts with a device_id and an IOVA and ends with a system-physical frame, or with a
// fault record.
//
//     translate ─ device context ─ process context ─ IOTLB ─┬─ hit ───────────────────────────────▶ resultPfn
//                 (cache or §3.3.1)  (cache or §3.3.2)       └─ miss: first stage, MSI?, second stage ─▶ IOTLB ─▶ resultPfn
//
// A requester that was let through is remembered with its address space: the next requests ask for no context (`translate`). All others go
// the whole way (`translateFully`).
//
// The hit path allocates nothing and branches little; everything that is not a plain hit is in methods of its own. Step numbers in
// comments are §3.3's. ATS requests, page requests and debug translations use the same pieces (`deviceFor`, `spaceFor`,
// `walkTables`) and make their own answers.

import type { StructureRules } from "../../../arch/riscv/capabilities.ts";
import { deviceIdBits } from "../../../arch/riscv/device-context.ts";
import { DirectoryWalker } from "../../../arch/riscv/directory-walk.ts";
import {
  CAUSE_ALL_INBOUND_DISALLOWED,
  CAUSE_INSTRUCTION_ACCESS_FAULT,
  CAUSE_TRANSACTION_TYPE_DISALLOWED,
  TTYP_UNTRANSLATED_EXECUTE,
} from "../../../arch/riscv/fault-records.ts";
import { interruptFileNumber, MessageTableWalker } from "../../../arch/riscv/message-table.ts";
import { PTE_A, PTE_D, PTE_R, PTE_U, PTE_V, PTE_W } from "../../../arch/riscv/page-table-entry.ts";
import { DDTP_BARE, DDTP_OFF, REG } from "../../../arch/riscv/registers.ts";
import { KIND_EXECUTE, KIND_READ, KIND_WRITE, OWN_ACCESS, TwoStageWalker } from "../../../arch/riscv/two-stage-walk.ts";
import type { WalkObserver } from "../../../arch/riscv/walk-observer.ts";
import type { HpaPfn } from "../../../base/address.ts";
import type { Requester, Requesters } from "../../../base/caches/requesters.ts";
import type { StructureCache, SubstructureCache } from "../../../base/caches/structure-cache.ts";
import { CLASS_SHIFTS, classOf, type TranslationCache } from "../../../base/caches/translation-cache.ts";
import { CONSUMED, REFUSED, TRANSLATED, type TranslationStatus } from "../port.ts";
import type { CachedDevice, CachedProcess, CachedSpace } from "./context-cache.ts";
import type { FaultQueue } from "./fault-queue.ts";
import type { HardwareState } from "./hardware-state.ts";
import { storeMessage } from "./interrupt-file-store.ts";
import type { TranslationCaches } from "./translation-caches.ts";

/** Where the rights for each kind of requester stand in a cached translation's flags; bit n of each is what KIND_n of a request needs. */
const USER_RIGHTS = 0;
const SUPERVISOR_RIGHTS = 3;
const SUPERVISOR_SUM_RIGHTS = 6;

/** `walkTables`: the page is an interrupt file in memory (MRIF); `messages` says where. */
export const IN_MEMORY_FILE = -1;

/** TTYP of an untranslated request of each kind; translated ones are 4 more. */
const TTYP = Uint8Array.of(2, 3, TTYP_UNTRANSLATED_EXECUTE);

// Compiled code knows the constants of its own module, and looks up imported ones each time: these every request meets.
const DONE = TRANSLATED;
const READS = KIND_READ;
const WRITES = KIND_WRITE;

// Not state: the last request, and what registers say.
/** Frame numbers start as -0: a field that holds doubles from the first is never changed into one under compiled code. */
export class Translator {
  /** Where the last request that was TRANSLATED goes. */
  resultPfn = -0 as HpaPfn;
  /** Cause of the last `deviceFor` (0: found), and of the last `spaceFor` or `walkTables` with the iotval2 that goes with it. */
  deviceCause = 0;
  cause = 0;
  iotval2Pfn = -0;
  iotval2Low = 0;
  /** The last walk ended at a basic-mode MSI entry: the page is an interrupt file of the machine. */
  isMessage = false;
  /** Context of the last request, for counters and QoS ids; null when it found none. */
  device: CachedDevice | null = null;
  space: CachedSpace | null = null;
  /** The last request went to the tables. */
  missed = false;
  readonly walker: TwoStageWalker<HpaPfn>;
  readonly directories: DirectoryWalker<HpaPfn>;
  readonly messages: MessageTableWalker<HpaPfn>;
  readonly #state: HardwareState;
  readonly #caches: TranslationCaches;
  readonly #devices: StructureCache<CachedDevice>;
  readonly #processes: SubstructureCache<CachedProcess>;
  readonly #requesters: Requesters<CachedDevice, CachedSpace>;
  /** Contexts are cached: so a requester may be remembered. */
  readonly #remembers: boolean;
  readonly #translations: TranslationCache;
  readonly #faults: FaultQueue;
  // ddtp taken apart when it was written.
  #mode = DDTP_OFF;
  #root = 0;
  #levels = 0;
  /** Device ids from here on are wider than the mode (260); 0 in Off and Bare. */
  #deviceLimit = 0;
  // The request under way, for fault records.
  #deviceId = 0;
  #processId = -1;
  #privileged = false;
  #ttyp = 0;
  #pfn = -0;
  #offset = 0;

  constructor(state: HardwareState, caches: TranslationCaches, faults: FaultQueue) {
    this.#state = state;
    this.#caches = caches;
    this.#devices = caches.devices;
    this.#processes = caches.processes;
    this.#requesters = caches.requesters;
    this.#remembers = caches.devices.enabled && caches.processes.enabled;
    this.#translations = caches.translations;
    this.#faults = faults;
    this.walker = new TwoStageWalker(state.memory, state.rules);
    this.walker.tables = caches.tables;
    this.directories = new DirectoryWalker(state.memory, this.walker, state.rules);
    this.messages = new MessageTableWalker(state.memory, state.rules);
  }

  /** fctl changed. */
  setRules(rules: StructureRules): void {
    this.walker.configure(rules);
    this.directories.configure(rules);
    this.messages.configure(rules);
  }

  observe(observer: WalkObserver | null): void {
    this.walker.observer = observer;
    this.directories.observer = observer;
    this.messages.observer = observer;
  }

  /** ddtp changed. */
  directoryChanged(): void {
    const state = this.#state;
    this.#mode = state.reg(REG.ddtp) & 0xf;
    this.#root = state.frameIn(REG.ddtp);
    this.#requesters.forget();
    this.#levels = this.#mode > DDTP_BARE ? this.#mode - 1 : 0;
    this.#deviceLimit = this.#levels === 0 ? 0 : 2 ** deviceIdBits(this.#levels, state.rules.MSI_FLAT);
  }

  get bare(): boolean {
    return this.#mode === DDTP_BARE;
  }

  /** Says what the request under way is, for fault records. */
  begin(deviceId: number, processId: number, privileged: boolean, ttyp: number, pfn: number, offset: number): void {
    this.#deviceId = deviceId;
    this.#processId = processId;
    this.#privileged = privileged;
    this.#ttyp = ttyp;
    this.#pfn = pfn;
    this.#offset = offset;
    this.device = null;
    this.space = null;
    this.missed = false;
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
    data: number,
  ): TranslationStatus {
    // Of a requester that was let through before: nothing but the IOTLB and the tables to ask.
    const known = this.#requesters.placeOf(deviceId, processId);
    if (known.id === deviceId && known.pasid === processId && !translated) {
      const rightsAt = privileged ? known.privilegedRightsAt : known.rightsAt;
      if (rightsAt >= 0) {
        const kind = access === 1 ? READS : access === 2 ? WRITES : kindOf(access);
        const low = pfn | 0;
        const high = pfn === low ? 0 : (pfn * 2 ** -32) | 0;
        const translations = this.#translations;
        const entry = translations.findPage(known.space!.tag, low, high);
        if (entry >= 0 && (translations.flagsAt(entry) & (1 << (rightsAt + kind))) !== 0) {
          this.resultPfn = translations.frameAt(entry, pfn) as HpaPfn;
          return DONE;
        }
        return this.#translateKnown(known, privileged, rightsAt, kind, pfn, low, high, offset, data);
      }
    }
    return this.translateFully(deviceId, processId, privileged, access, pfn, offset, translated, data);
  }

  /** IOTLB and tables, for a requester that was let through. */
  #translateKnown(
    known: Requester<CachedDevice, CachedSpace>,
    privileged: boolean,
    rightsAt: number,
    kind: number,
    pfn: number,
    low: number,
    high: number,
    offset: number,
    data: number,
  ): TranslationStatus {
    const translations = this.#translations;
    const space = known.space!;
    const device = known.structure!;
    const entry = translations.findAnywhere(space.tag, low, high);
    if (entry >= 0) {
      if ((translations.flagsAt(entry) & (1 << (rightsAt + kind))) !== 0) {
        this.resultPfn = translations.frameAt(entry, pfn) as HpaPfn;
        return DONE;
      }
      // Rights missing, or D not known to be set: what the tables say now decides.
      translations.drop(entry);
    }
    const cause = this.#walkPair(device, space, pfn, low, high, kind, rightsAt !== USER_RIGHTS);
    if (cause === 0) return DONE;
    this.begin(known.id, known.pasid, privileged, TTYP[kind]!, pfn, offset);
    return this.#finish(cause, device, kind, data);
  }

  /**
   * The whole process, for everything that the short way in `translate` does not decide, and when `device`, `space` and `missed` are
   * wanted afterwards.
   */
  translateFully(
    deviceId: number,
    processId: number,
    privileged: boolean,
    access: number,
    pfn: number,
    offset: number,
    translated: boolean,
    data: number,
  ): TranslationStatus {
    const kind = kindOf(access);
    this.begin(deviceId, processId, privileged, TTYP[kind]! + (translated ? 4 : 0), pfn, offset);
    if (this.#mode === DDTP_BARE && !translated) {
      this.resultPfn = pfn as HpaPfn;
      return TRANSLATED;
    }
    const device = this.deviceFor(deviceId);
    if (device === null) {
      this.cause = this.deviceCause;
      return this.#refuse(false);
    }
    const supervisor = privileged && processId >= 0 && !translated;
    let rightsAt = USER_RIGHTS;
    let space: CachedSpace | null;
    if (translated) {
      // Step 7, then 8 and 9: an address of ours needs no more, a guest-physical one the second stage.
      if (!device.enAts || !this.#processAllowed(device, processId)) return this.#disallow(device);
      if (!device.t2gpa) {
        this.resultPfn = pfn as HpaPfn;
        return TRANSLATED;
      }
      space = device.secondStageOnly;
    } else {
      space = this.spaceFor(device, processId, privileged, kind);
      if (space === null) return this.#refuse(device.dtf);
      if (supervisor) rightsAt = space.sum ? SUPERVISOR_SUM_RIGHTS : SUPERVISOR_RIGHTS;
      if (this.#remembers && !space.transparent)
        this.#requesters.remember(deviceId, processId, privileged, device, space, rightsAt);
    }
    this.space = space;
    if (space.transparent) {
      this.resultPfn = pfn as HpaPfn;
      return TRANSLATED;
    }
    const low = pfn | 0;
    const high = (pfn * 2 ** -32) | 0;
    const translations = this.#translations;
    const entry = translations.findAnywhere(space.tag, low, high);
    if (entry >= 0) {
      if ((translations.flagsAt(entry) & (1 << (rightsAt + kind))) !== 0) {
        this.resultPfn = translations.frameAt(entry, pfn) as HpaPfn;
        return TRANSLATED;
      }
      translations.drop(entry);
    }
    const cause = this.#walkPair(device, space, pfn, low, high, kind, supervisor);
    return cause === 0 ? TRANSLATED : this.#finish(cause, device, kind, data);
  }

  /** HardwareIommu.remembers. */
  remembers(deviceId: number, processId: number, pfn: number): number {
    const device = deviceId < this.#deviceLimit ? this.#devices.find(deviceId) : null;
    if (device === null) return -1;
    const whole = device.processLevels === 0 || (processId < 0 && !device.dpe);
    const process = whole ? null : this.#processes.find(device.stamp, Math.max(processId, 0));
    const space = whole ? device.space : (process?.space ?? null);
    if (space === null) return -1;
    return space.transparent ? pfn : this.#translations.frameOf(space.tag, pfn);
  }

  /** A walk that did not end in a translation. */
  #finish(cause: number, device: CachedDevice, kind: number, data: number): TranslationStatus {
    return cause === IN_MEMORY_FILE ? this.#storeMessage(device, kind, data) : this.#refuse(device.dtf);
  }

  /** Steps 1 to 6: the device's context; null with `deviceCause` 256 to 260 or 268 (Bare counts as 260). */
  deviceFor(deviceId: number): CachedDevice | null {
    if (deviceId >= this.#deviceLimit) {
      this.deviceCause = this.#mode === DDTP_OFF ? CAUSE_ALL_INBOUND_DISALLOWED : CAUSE_TRANSACTION_TYPE_DISALLOWED;
      return null;
    }
    this.deviceCause = 0;
    const device = this.#devices.find(deviceId) ?? this.#loadDevice(deviceId);
    this.device = device;
    return device;
  }

  #loadDevice(deviceId: number): CachedDevice | null {
    const cause = this.directories.locateDevice(deviceId, this.#root, this.#levels);
    this.deviceCause = cause;
    if (cause !== 0) return null;
    this.#caches.makeRoom();
    const device = this.#devices.place(deviceId);
    device.load(this.directories.dc, this.#state.rules);
    return device;
  }

  /** Step 7: a process_id needs PDTV and a directory wide enough; a Bare directory has no width. */
  #processAllowed(device: CachedDevice, processId: number): boolean {
    if (processId < 0) return true;
    return device.pdtv && processId < (device.processLevels === 0 ? 1 << 20 : 1 << device.processBits);
  }

  /** Steps 7 to 16 for untranslated and ATS requests: the address space; null with `cause`. */
  spaceFor(device: CachedDevice, given: number, privileged: boolean, kind: number): CachedSpace | null {
    if (given < 0) {
      // Steps 10 to 12. Without DPE the second stage stands alone.
      if (!device.dpe) return device.space;
    } else if (!this.#processAllowed(device, given)) {
      return this.#noSpace(CAUSE_TRANSACTION_TYPE_DISALLOWED);
    }
    // Step 13: so it does under a Bare process directory.
    if (device.processLevels === 0) return device.space;
    const processId = Math.max(given, 0);
    let process = this.#processes.find(device.stamp, processId);
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
        this.#noSpace(cause);
        if (isGuestPageFault(cause)) {
          this.iotval2Pfn = directories.iotval2Pfn;
          this.iotval2Low = directories.iotval2Low;
        }
        return null;
      }
      this.#caches.makeRoom();
      process = this.#processes.place(device.stamp, processId);
      process.load(device, directories.pc);
    }
    if (privileged && given >= 0 && !process.ens) return this.#noSpace(CAUSE_TRANSACTION_TYPE_DISALLOWED);
    return process.space;
  }

  #noSpace(cause: number): null {
    this.cause = cause;
    this.iotval2Pfn = 0;
    this.iotval2Low = 0;
    return null;
  }

  /**
   * Steps 17 to 20 by the tables. 0: resultPfn is set and the translation cached; IN_MEMORY_FILE: an MRIF; else a cause, also in
   * `cause` with its iotval2.
   */
  walkTables(device: CachedDevice, space: CachedSpace, pfn: number, kind: number, supervisor: boolean): number {
    return this.#walkPair(device, space, pfn, pfn | 0, (pfn * 2 ** -32) | 0, kind, supervisor);
  }

  #walkPair(
    device: CachedDevice,
    space: CachedSpace,
    pfn: number,
    low: number,
    high: number,
    kind: number,
    supervisor: boolean,
  ): number {
    const walker = this.walker;
    this.missed = true;
    this.isMessage = false;
    const shortly = walker.walkShortly(space, low, high, kind, supervisor);
    if (shortly === 0 && !walker.walkPlainly(space, low, high, kind, supervisor)) {
      const cause = walker.walkCarefully(space, low, high, kind, supervisor);
      if (cause !== 0) return this.#walkFault(cause);
      if (walker.isMessage) return this.#walkMessage(device, space, pfn, low, high, kind);
      // An ATS request to which a leaf grants nothing leaves A as it is: not to be used without another look.
      if ((walker.firstLo & walker.secondLo & PTE_A) === 0) return 0;
    }
    this.resultPfn = walker.spaPfn as HpaPfn;
    const shift = Math.min(walker.firstShift, walker.secondShift);
    let size = shift === 0 ? 0 : classOf(shift);
    if (size !== 0 && space.recognizesMessages) size = withoutMessages(space, walker.gpaLow, walker.gpaHigh, size);
    this.#keep(space, pfn, low, high, size);
    return 0;
  }

  #walkFault(cause: number): number {
    this.#noSpace(cause);
    if (isGuestPageFault(cause)) {
      this.iotval2Pfn = this.walker.iotval2Pfn;
      this.iotval2Low = this.walker.iotval2Low;
    }
    return cause;
  }

  /** §3.3.3: the guest-physical page is a virtual interrupt file's. */
  #walkMessage(device: CachedDevice, space: CachedSpace, pfn: number, low: number, high: number, kind: number): number {
    const walker = this.walker;
    const { gpaLow, gpaHigh } = walker;
    const cached = this.#caches.messages;
    const guest = device.secondStageOnly.tag;
    const entry = cached.find(guest, gpaLow, gpaHigh);
    let target: number;
    if (entry >= 0) {
      target = cached.frameAt(entry, walker.gpaPfn);
    } else {
      const index = interruptFileNumber(gpaLow, gpaHigh, space.messageMaskLow, space.messageMaskHigh);
      const cause = this.messages.locate(device.msiRoot, index);
      if (cause !== 0) {
        this.#noSpace(cause);
        return cause;
      }
      if (this.messages.inMemory) {
        // Rights as of a second-stage leaf with R = W = U = 1, X = 0.
        if (kind !== KIND_EXECUTE) return IN_MEMORY_FILE;
        this.#noSpace(CAUSE_INSTRUCTION_ACCESS_FAULT);
        return CAUSE_INSTRUCTION_ACCESS_FAULT;
      }
      target = this.messages.pfn;
      cached.insertPage(guest, gpaLow, gpaHigh, target - walker.gpaPfn, 0);
    }
    if (kind === KIND_EXECUTE) {
      this.#noSpace(CAUSE_INSTRUCTION_ACCESS_FAULT);
      return CAUSE_INSTRUCTION_ACCESS_FAULT;
    }
    this.isMessage = true;
    this.resultPfn = target as HpaPfn;
    walker.spaLow = target | 0;
    walker.spaHigh = (target * 2 ** -32) | 0;
    walker.secondLo = PTE_V | PTE_R | PTE_W | PTE_U | PTE_A | PTE_D;
    walker.secondHi = 0;
    walker.secondShift = 0;
    if ((walker.firstLo & PTE_A) !== 0) this.#keep(space, pfn, low, high, 0);
    return 0;
  }

  /** Caches what the walker just found, as an entry of class `size`. */
  #keep(space: CachedSpace, pfn: number, low: number, high: number, size: number): void {
    const walker = this.walker;
    const tag = space.tag;
    const both = walker.firstLo & walker.secondLo;
    // R, W, X as RIGHT_READ, RIGHT_WRITE, RIGHT_EXECUTE; W (bit 2) only with D (bit 7).
    const rights = (both >>> 1) & (5 | ((both >>> 6) & 2));
    // The same rights for a user (bits 2:0), a supervisor (5:3) and one with SUM (8:6), as far as U (0x10) lets them.
    const flags =
      space.firstLevels === 0
        ? rights * 0b001001001
        : (walker.firstLo & 0x10) === 0
          ? rights * 0b001001000
          : rights | ((rights & 3) << 6);
    const owner = walker.firstGlobal && tag.global !== null ? tag.global : tag;
    // What commands by address name is the first stage's leaf.
    const leaf = space.firstLevels === 0 ? size : classOf(walker.firstShift);
    const distance = this.resultPfn - pfn;
    if (leaf === 0) this.#translations.insertPage(owner, low, high, distance, flags);
    else this.#translations.insert(owner, low, high, size, leaf, distance, flags);
  }

  /** AIA: a write to an MRIF's page is stored in it and noticed, or discarded; reads are aborted (without a record). */
  #storeMessage(device: CachedDevice, kind: number, data: number): TranslationStatus {
    if (kind !== KIND_WRITE || (this.#offset & 3) !== 0 || data < 0) return REFUSED;
    const state = this.#state;
    const cause = storeMessage(state.memory, this.messages, this.#offset, data, state.frameLimit);
    if (cause === 0) return CONSUMED;
    this.#noSpace(cause);
    return this.#refuse(device.dtf);
  }

  #disallow(device: CachedDevice): TranslationStatus {
    this.#noSpace(CAUSE_TRANSACTION_TYPE_DISALLOWED);
    return this.#refuse(device.dtf);
  }

  #refuse(dtf: boolean): TranslationStatus {
    this.report(dtf);
    return REFUSED;
  }

  /** Reports `cause` for the request under way. */
  report(dtf: boolean): void {
    const guest = isGuestPageFault(this.cause);
    this.#faults.report(
      this.cause,
      this.#deviceId,
      this.#processId,
      this.#privileged,
      this.#ttyp,
      this.#pfn,
      this.#offset,
      guest ? this.iotval2Pfn : 0,
      !guest ? 0 : this.iotval2Low === OWN_ACCESS ? this.#offset & ~3 : this.iotval2Low,
      dtf,
    );
  }
}

/** KIND_* of ACCESS_* flags (execute 4, write 2, read 1): an access that writes is a write, whatever else it does. */
function kindOf(access: number): number {
  return (access & 4) !== 0 ? 2 : (access >> 1) & 1;
}

export function isGuestPageFault(cause: number): boolean {
  return cause >= 20 && cause <= 23;
}

/** The largest size class, at most `size`, whose block around a guest-physical page holds no interrupt-file page. */
export function withoutMessages(space: CachedSpace, gpaLow: number, gpaHigh: number, size: number): number {
  let fitting = size;
  while (fitting > 0 && space.overlapsMessagePages(gpaLow, gpaHigh, CLASS_SHIFTS[fitting]!)) fitting--;
  return fitting;
}
