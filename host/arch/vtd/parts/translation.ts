// Translating a request (§3.4–3.8, §3.14): from source id, PASID and address to a host-physical frame, or to a fault record.
//
//     translate ─ context ─ PASID entry ─ IOTLB ─┬─ hit ─────────────────────────────────▶ resultPfn
//                 (cache or tables)              └─ miss: first stage, second stage ─▶ IOTLB ─▶ resultPfn
//
// A requester that was let through is remembered with its address space: the next requests ask for no structure (`translate`). All others go the
// whole way (`#fully`).
//
// The hit path allocates nothing and branches little; everything that is not a plain hit is in methods of its own. Writes to the interrupt address range are
// not for here (interrupt-remapper.ts). ATS requests use the same pieces and make their own answers.

import type { Requester, Requesters } from "../../../base/caches/requesters.ts";
import type { StructureCache } from "../../../base/caches/structure-cache.ts";
import { CLASS_SHIFTS, classOf, type TranslationCache } from "../../../base/caches/translation-cache.ts";
import { REFUSED, TRANSLATED, type TranslationStatus } from "../../../base/transaction.ts";
import {
  FAULT_ADDRESS_BEYOND_WIDTH,
  FAULT_INTERRUPT_RANGE,
  FAULT_NO_SUPERVISOR,
  FAULT_PASS_THROUGH_BEYOND_WIDTH,
  FAULT_RTA_ABORT,
  FAULT_RTA_MODE,
  FAULT_RTA_PAGE_REQUEST,
  FAULT_RTA_PASID,
  FAULT_SM_INTERRUPT_RANGE,
  FAULT_SM_NO_ATS,
  FAULT_SM_NO_PAGE_REQUEST,
  FAULT_SM_NO_PASID,
  FAULT_SM_PASID_TOO_LARGE,
  FAULT_TRANSLATION_TYPE,
} from "../fault-reasons.ts";
import {
  AT_TRANSLATED,
  AT_TRANSLATION_REQUEST,
  AT_UNTRANSLATED,
  REQUEST_ATOMIC,
  REQUEST_PAGE,
  REQUEST_READ,
  REQUEST_WRITE,
} from "../fault-records.ts";
import { INTERRUPT_FIRST_PFN, INTERRUPT_LAST_PFN, inInterruptRange } from "../interrupt-remapping.ts";
import { TTM_ABORT, TTM_LEGACY, TTM_SCALABLE } from "../registers.ts";
import { StructureWalker } from "../structure-walk.ts";
import type { TranslationSpace } from "../translation-space.ts";
import {
  KIND_ATOMIC,
  KIND_READ,
  KIND_WRITE,
  NO_STAGE_SHIFT,
  SUPERVISOR_GRANTS,
  TwoStageWalker,
} from "../two-stage-walk.ts";
import type { WalkObserver } from "../walk-observer.ts";
import type { VtdCaches } from "./caches.ts";
import {
  type FaultRecording,
  RECORD_EXECUTE,
  RECORD_PRIVILEGED,
  RECORD_T1,
  RECORD_T2,
  recordAddressType,
} from "./fault-recording.ts";
import type { CachedContext, CachedPasid, StructureCaches } from "./structure-caches.ts";
import type { VtdState } from "./vtd-state.ts";

/** Translations are off, or DMA goes by tables that need not be asked here. */
const MODE_OFF = -1;

// Compiled code knows the constants of its own module, and looks up imported ones each time: here are those that every request meets.
const READS = KIND_READ;
const WRITES = KIND_WRITE;
const OFF_SHIFT = NO_STAGE_SHIFT;
const DONE = TRANSLATED;

// Not state: the last request, and what registers say
export class Translator<P extends number> {
  /** Where the last request that was TRANSLATED goes. A field that holds doubles from the first is never changed into one under compiled code. */
  resultPfn = -0 as P;
  /** Reason of the last `contextFor`, `spaceFor` or walk that failed. */
  reason = 0;
  readonly walker: TwoStageWalker<P>;
  readonly structures: StructureWalker<P>;
  readonly #state: VtdState<P>;
  readonly #faults: FaultRecording;
  readonly #caches: VtdCaches;
  readonly #cached: StructureCaches;
  readonly #contexts: StructureCache<CachedContext>;
  readonly #requesters: Requesters<boolean, TranslationSpace>;
  /** Structures are cached: so a requester may be remembered. */
  readonly #remembers: boolean;
  readonly #translations: TranslationCache;
  readonly #limit: number;
  /** Root table: its mode, MODE_OFF without TE; and its frame. */
  #mode = MODE_OFF;
  #root = -0;
  // The request under way, for records.
  #sourceId = 0;
  #pasid = -1;
  #privileged = false;
  #execute = false;
  #type = REQUEST_READ;
  #addressType = AT_UNTRANSLATED;
  #pfn = -0;
  #fpd = false;

  constructor(state: VtdState<P>, caches: VtdCaches, faults: FaultRecording) {
    this.#state = state;
    this.#faults = faults;
    this.#caches = caches;
    this.#cached = caches.structures;
    this.#contexts = caches.structures.contexts;
    this.#requesters = caches.requesters;
    this.#remembers = this.#contexts.enabled && caches.structures.pasids.enabled;
    this.#translations = caches.translations;
    this.#limit = state.rules.frameLimit;
    this.walker = new TwoStageWalker(state.memory, state.rules);
    this.walker.tables = caches.tables;
    this.structures = new StructureWalker(state.memory, state.rules);
  }

  observe(observer: WalkObserver | null): void {
    this.walker.observer = observer;
    this.structures.observer = observer;
  }

  /** TE or the latched RTADDR changed. */
  modeChanged(): void {
    this.#requesters.forget();
    this.#mode = this.#state.translating ? this.#state.tableMode : MODE_OFF;
    this.#root = this.#state.rootPfn;
  }

  /** The frame that the caches give an untranslated request, rights aside; -1: it would have to walk. Changes nothing. */
  remembers(sourceId: number, pasid: number, pfn: number): number {
    const context = this.#mode === MODE_OFF ? null : this.#contexts.find(sourceId);
    if (context === null) return -1;
    const entry = context.scalable
      ? this.#cached.findPasid(sourceId, pasid < 0 ? context.ridPasid : pasid)
      : pasid < 0
        ? context
        : null;
    const space = entry?.space ?? null;
    if (space === null) return -1;
    return space.identity ? pfn : this.#translations.frameOf(space.tag, pfn);
  }

  get off(): boolean {
    return this.#mode === MODE_OFF;
  }

  /** Arguments as HardwareIommu.translate; not a request to the interrupt address range without PASID. */
  translate(
    sourceId: number,
    pasid: number,
    privileged: boolean,
    access: number,
    pfn: number,
    translated: boolean,
  ): TranslationStatus {
    // Of a requester that was let through before: nothing but the IOTLB and the tables to ask.
    const known = this.#requesters.placeOf(sourceId, pasid);
    if (known.id === sourceId && known.pasid === pasid && !translated) {
      const rightsAt = privileged ? known.privilegedRightsAt : known.rightsAt;
      if (rightsAt >= 0) {
        const kind = access === 1 ? READS : access === 2 ? WRITES : kindOf(access);
        const low = pfn | 0;
        const high = pfn === low ? 0 : (pfn * 2 ** -32) | 0;
        const translations = this.#translations;
        const entry = translations.findPage(known.space!.tag, low, high);
        if (entry >= 0 && (translations.flagsAt(entry) & (1 << (rightsAt + kind))) !== 0) {
          this.resultPfn = translations.frameAt(entry, pfn) as P;
          return DONE;
        }
        return this.#translateKnown(known, privileged, rightsAt, access, kind, pfn, low, high);
      }
    }
    return this.#fully(sourceId, pasid, privileged, access, pfn, translated);
  }

  /** IOTLB and tables, for a requester that was let through. */
  #translateKnown(
    known: Requester<boolean, TranslationSpace>,
    privileged: boolean,
    rightsAt: number,
    access: number,
    kind: number,
    pfn: number,
    low: number,
    high: number,
  ): TranslationStatus {
    const translations = this.#translations;
    const space = known.space!;
    const entry = translations.findAnywhere(space.tag, low, high);
    if (entry >= 0) {
      if ((translations.flagsAt(entry) & (1 << (rightsAt + kind))) !== 0) {
        this.resultPfn = translations.frameAt(entry, pfn) as P;
        return DONE;
      }
      // Rights missing, or not known to be marked dirty: what the tables say now decides.
      translations.drop(entry);
    }
    const reason = this.#walk(space, pfn, low, high, kind, rightsAt !== 0);
    if (reason === 0) return DONE;
    this.begin(known.id, known.pasid, privileged, access, pfn, AT_UNTRANSLATED);
    this.#fpd = known.structure!;
    return this.#refuse(reason);
  }

  /** The whole process, for everything that the short way in `translate` does not decide. */
  #fully(
    sourceId: number,
    pasid: number,
    privileged: boolean,
    access: number,
    pfn: number,
    translated: boolean,
  ): TranslationStatus {
    this.begin(sourceId, pasid, privileged, access, pfn, translated ? AT_TRANSLATED : AT_UNTRANSLATED);
    if (this.#mode === MODE_OFF) {
      // Nothing tells the unit what a PASID or a translated address would mean.
      if (pasid >= 0 || translated) return REFUSED;
      this.resultPfn = pfn as P;
      return TRANSLATED;
    }
    const context = this.contextFor();
    if (context === null) return this.#refuse(this.reason);
    if (translated) return this.#pass(context, pfn);
    const space = this.spaceFor(context);
    if (space === null) return this.#refuse(this.reason);
    if (space.identity) {
      const reason = this.identityFault(space, pfn);
      if (reason !== 0) return this.#refuse(reason);
      this.resultPfn = pfn as P;
      return TRANSLATED;
    }
    if (this.#remembers) {
      const rightsAt = this.#privileged ? SUPERVISOR_GRANTS : 0;
      this.#requesters.remember(sourceId, pasid, privileged, this.#fpd, space, rightsAt);
    }
    return this.#through(space, kindOf(access), pfn);
  }

  /** A request with an address that an ATS completion gave. */
  #pass(context: CachedContext, pfn: number): TranslationStatus {
    if (!context.ats) return this.#refuse(context.scalable ? FAULT_SM_NO_ATS : FAULT_TRANSLATION_TYPE);
    // Nothing is there; nor does a reason name it.
    if (pfn >= this.#limit) return REFUSED;
    if (inInterruptRange(pfn)) return this.#refuse(context.scalable ? FAULT_SM_INTERRUPT_RANGE : FAULT_INTERRUPT_RANGE);
    this.resultPfn = pfn as P;
    return TRANSLATED;
  }

  /** IOTLB, then tables. */
  #through(space: TranslationSpace, kind: number, pfn: number): TranslationStatus {
    const supervisor = this.#privileged;
    const low = pfn | 0;
    const high = (pfn * 2 ** -32) | 0;
    const translations = this.#translations;
    const entry = translations.find(space.tag, low, high);
    if (entry >= 0) {
      if ((translations.flagsAt(entry) & (1 << (supervisor ? kind + SUPERVISOR_GRANTS : kind))) !== 0) {
        this.resultPfn = translations.frameAt(entry, pfn) as P;
        return TRANSLATED;
      }
      translations.drop(entry);
    }
    const reason = this.#walk(space, pfn, low, high, kind, supervisor);
    return reason === 0 ? TRANSLATED : this.#refuse(reason);
  }

  /** Both stages by the tables: 0 with `resultPfn`, and the translation cached; or a reason. */
  #walk(space: TranslationSpace, pfn: number, low: number, high: number, kind: number, supervisor: boolean): number {
    const walker = this.walker;
    let grants = walker.walkShortly(space, low, high, kind, supervisor);
    if (grants === 0) {
      if (!walker.walkPlainly(space, low, high, kind, supervisor)) {
        const reason = walker.walkCarefully(space, low, high, kind, supervisor);
        if (reason !== 0) return reason;
      }
      grants = walker.grants(space);
    }
    this.resultPfn = walker.hostPfn as P;
    this.#keep(space, pfn, low, high, grants);
    return 0;
  }

  /** Says what the request under way is, for records. */
  begin(sourceId: number, pasid: number, privileged: boolean, access: number, pfn: number, addressType: number): void {
    this.#sourceId = sourceId;
    this.#pasid = pasid;
    // Without PASID there is no privilege, but what the context entry says (RID_PRIV).
    this.#privileged = pasid >= 0 && privileged;
    this.#execute = pasid >= 0 && (access & 4) !== 0;
    this.#type = (access & 3) === 3 ? REQUEST_ATOMIC : (access & 2) !== 0 ? REQUEST_WRITE : REQUEST_READ;
    this.#addressType = addressType;
    this.#pfn = pfn;
    this.#fpd = false;
    this.reason = 0;
  }

  /** As `begin`, for a page request. */
  beginPageRequest(sourceId: number, pasid: number, pfn: number): void {
    this.begin(sourceId, pasid, false, 1, pfn, AT_UNTRANSLATED);
    this.#type = REQUEST_PAGE;
  }

  /** The request is a supervisor's. */
  get privileged(): boolean {
    return this.#privileged;
  }

  /** The context entry of the request under way; null with `reason`. */
  contextFor(): CachedContext | null {
    const mode = this.#mode;
    const scalable = mode === TTM_SCALABLE;
    if (mode === TTM_ABORT) return this.#none(this.#state.features.ADMS ? FAULT_RTA_ABORT : FAULT_RTA_MODE);
    if ((mode !== TTM_LEGACY && !scalable) || (scalable && !this.#state.features.SMTS))
      return this.#none(FAULT_RTA_MODE);
    if (!scalable && this.#pasid >= 0) return this.#none(FAULT_RTA_PASID);
    if (!scalable && this.#type === REQUEST_PAGE) return this.#none(FAULT_RTA_PAGE_REQUEST);
    const cached = this.#contexts.find(this.#sourceId);
    if (cached !== null && cached.scalable === scalable) {
      this.#fpd = cached.fpd;
      return cached;
    }
    const { structures } = this;
    const reason = scalable
      ? structures.locateScalableContext(this.#sourceId, this.#root)
      : structures.locateContext(this.#sourceId, this.#root);
    this.#fpd = structures.fpd;
    if (reason !== 0) return this.#none(reason);
    this.#caches.makeRoom();
    return this.#cached.loadContext(this.#sourceId, structures.context, scalable);
  }

  #none(reason: number): null {
    this.reason = reason;
    return null;
  }

  /** What the request goes through; null with `reason`. */
  spaceFor(context: CachedContext): TranslationSpace | null {
    const ats = this.#addressType === AT_TRANSLATION_REQUEST;
    if (!context.scalable) return ats && !context.ats ? this.#none(FAULT_TRANSLATION_TYPE) : context.space;
    if (ats && !context.ats) return this.#none(FAULT_SM_NO_ATS);
    const reason = this.#pasidFault(context);
    if (reason !== 0) return this.#none(reason);
    const pasid = this.#pasid < 0 ? context.ridPasid : this.#pasid;
    const entry = this.#cached.findPasid(this.#sourceId, pasid) ?? this.#loadPasid(context, pasid);
    if (entry === null) return null;
    this.#fpd = context.fpd || entry.fpd;
    const { space } = entry;
    if (this.#pasid < 0) {
      this.#privileged = context.ridPrivileged;
    } else if (this.#privileged && space.firstLevels !== 0 && !space.sre) return this.#none(FAULT_NO_SUPERVISOR);
    return space;
  }

  /** Whether the request's PASID may be used with a scalable-mode context. */
  #pasidFault(context: CachedContext): number {
    if (this.#pasid < 0) return 0;
    if (!context.pasids) return FAULT_SM_NO_PASID;
    return this.#pasid >= context.pasidLimit ? FAULT_SM_PASID_TOO_LARGE : 0;
  }

  #loadPasid(context: CachedContext, pasid: number): CachedPasid | null {
    const { structures } = this;
    const reason = structures.locatePasid(pasid, context.directoryPfn, context.fpd);
    this.#fpd = structures.fpd;
    if (reason !== 0) return this.#none(reason);
    this.#caches.makeRoom();
    // The context's own bit is asked for anew each time.
    return this.#cached.loadPasid(this.#sourceId, pasid, structures.pasid, structures.fpd && !context.fpd);
  }

  /** Whether a source may send page requests (§7.4): what is wrong is recorded. */
  mayRequestPages(sourceId: number, pasid: number, pfn: number): boolean {
    if (this.off) return false;
    this.beginPageRequest(sourceId, pasid, pfn);
    const context = this.contextFor();
    if (context === null) {
      this.report(this.reason);
      return false;
    }
    const reason = this.#pasidFault(context) || (context.pageRequests ? 0 : FAULT_SM_NO_PAGE_REQUEST);
    if (reason !== 0) this.report(reason);
    return reason === 0;
  }

  /** The space that cached translations of a request are tagged for, if its structures are cached; else there are none. */
  cachedSpace(sourceId: number, pasid: number): TranslationSpace | null {
    const context = this.#contexts.find(sourceId);
    if (context === null) return null;
    if (!context.scalable) return context.space;
    return this.#cached.findPasid(sourceId, pasid < 0 ? context.ridPasid : pasid)?.space ?? null;
  }

  /** Pass-through of an address; 0 or a reason. */
  identityFault(space: TranslationSpace, pfn: number): number {
    if (pfn >= this.#limit) return space.scalable ? FAULT_PASS_THROUGH_BEYOND_WIDTH : FAULT_ADDRESS_BEYOND_WIDTH;
    if (inInterruptRange(pfn)) return space.scalable ? FAULT_SM_INTERRUPT_RANGE : FAULT_INTERRUPT_RANGE;
    return 0;
  }

  /** Caches what the walker found, with what it grants. */
  #keep(space: TranslationSpace, pfn: number, low: number, high: number, grants: number): void {
    const walker = this.walker;
    const { firstShift, secondShift } = walker;
    const distance = this.resultPfn - pfn;
    const leafShift = firstShift === OFF_SHIFT ? secondShift : firstShift;
    const shift = firstShift < secondShift ? firstShift : secondShift;
    if (shift === 0 && leafShift === 0) {
      this.#translations.insertPage(space.tag, low, high, distance, grants);
      return;
    }
    // A large page that reaches into the interrupt address range is kept page by page: the others must not stand for those.
    const size = shift !== 0 && touchesInterrupts(this.resultPfn, CLASS_SHIFTS[classOf(shift)]!) ? 0 : classOf(shift);
    this.#translations.insert(space.tag, low, high, size, classOf(leafShift), distance, grants);
  }

  #refuse(reason: number): TranslationStatus {
    this.report(reason);
    return REFUSED;
  }

  /** Records a fault of the request under way, unless FPD keeps it out. */
  report(reason: number): void {
    const type = this.#type;
    const third =
      ((type & 1) !== 0 ? RECORD_T2 : 0) |
      (this.#pasid >= 0 && this.#privileged ? RECORD_PRIVILEGED : 0) |
      (this.#execute ? RECORD_EXECUTE : 0);
    const fourth = ((type & 2) !== 0 ? RECORD_T1 : 0) | recordAddressType(this.#addressType);
    this.#faults.report(reason, this.#fpd, this.#sourceId, this.#pasid, this.#pfn, third, fourth);
  }
}

/** True if the block of 2^shift pages around a frame reaches into the interrupt address range. */
function touchesInterrupts(pfn: number, shift: number): boolean {
  const pages = 2 ** shift;
  const first = pfn - (pfn % pages);
  return first <= INTERRUPT_LAST_PFN && first + pages > INTERRUPT_FIRST_PFN;
}

function kindOf(access: number): number {
  return (access & 3) === 3 ? KIND_ATOMIC : (access & 2) !== 0 ? KIND_WRITE : KIND_READ;
}
