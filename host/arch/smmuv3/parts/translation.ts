// Translating a transaction (§3.3.3, §7.3.22): from StreamID, SubstreamID and address to a physical frame, or to an event.
//
//     translate ─ stream table entry ─ context descriptor ─ TLB ─┬─ hit ─────────────────────▶ resultPfn
//                 (cache or §3.3.2)    (cache or §3.3.3)         └─ miss: stage 1, stage 2 ─▶ TLB ─▶ resultPfn
//
// A requester that was let through is remembered with its address space: the next requests ask for no entry and no descriptor (`translate`). All
// others go the whole way (`#fully`).
//
// The hit path allocates nothing and branches little; everything that is not a plain hit is in methods of its own. ATS requests use the same
// pieces (`streamFor`, `spaceFor`, `walkTables`) and make their own answers. A fault of those pieces is a number in `event` with what its
// record needs in fields; `finish` decides by the rules of §5.5 how the transaction ends.

import type { Requester, Requesters } from "../../../base/caches/requesters.ts";
import type { SubstructureCache } from "../../../base/caches/structure-cache.ts";
import { classOf, type TranslationCache } from "../../../base/caches/translation-cache.ts";
import {
  DISCARDED,
  REFUSED,
  STALL_ABORT,
  STALL_DISCARD,
  STALLED,
  TRANSLATED,
  type TranslationStatus,
} from "../../../base/transaction.ts";
import { cdFault } from "../context-descriptor.ts";
import {
  C_BAD_CD,
  C_BAD_STE,
  C_BAD_STREAMID,
  C_BAD_SUBSTREAMID,
  CLASS_IN,
  CLASS_TT,
  F_ADDR_SIZE,
  F_BAD_ATS_TREQ,
  F_CD_FETCH,
  F_PERMISSION,
  F_STE_FETCH,
  F_STREAM_DISABLED,
  F_TRANSL_FORBIDDEN,
  F_TRANSLATION,
  F_WALK_EABT,
} from "../event-records.ts";
import { intermediateBits } from "../identification.ts";
import { CLEAN, WRITE } from "../leaf-rights.ts";
import { CR0_ATSCHK, CR0_SMMUEN, CR2_REC_CFG_ATS, CR2_RECINVSID, GBPA_ABORT, REG } from "../registers.ts";
import { CONFIG_BYPASS, S1DSS_SSID0, STE_LEGAL, steFault } from "../stream-table-entry.ts";
import { isStageFault, StructureWalker } from "../structure-walk.ts";
import { STAGE_1 } from "../translation-regime.ts";
import { KIND_EXECUTE, KIND_READ, KIND_WRITE, NO_STAGE_SHIFT, TwoStageWalker } from "../two-stage-walk.ts";
import type { WalkObserver } from "../walk-observer.ts";
import { type CachedSpace, originOf } from "./cached-space.ts";
import type { SmmuCaches } from "./caches.ts";
import type { CachedContext, CachedStream, ConfigurationCache } from "./configuration-cache.ts";
import {
  EVENT_INSTRUCTION,
  EVENT_PRIVILEGED,
  EVENT_READ,
  EVENT_STAGE_2,
  EVENT_TABLE_READ,
  type EventQueue,
  eventClass,
} from "./event-queue.ts";
import type { SmmuState } from "./smmu-state.ts";

/** A retry from within the stall itself is taken at once, so often. */
const RETRIES = 4;

const ORIGIN_OF_PAGE = originOf(12, 3);

// Compiled code knows the constants of its own module, and looks up imported ones each time: here are those that every request meets.
const READS = KIND_READ;
const WRITES = KIND_WRITE;
const CR0_AT = REG.CR0 >> 2;
const ENABLED = CR0_SMMUEN;
const HAS_STAGE_1 = STAGE_1;
const OFF_SHIFT = NO_STAGE_SHIFT;
const MARKED_CLEAN = CLEAN;
const WITHOUT_WRITE = ~(CLEAN | WRITE);
const DONE = TRANSLATED;

/** Where in a cached translation's flags the rights of privileged requests stand. */
const PRIVILEGED_RIGHTS_AT = 3;

export class Translator<P extends number> {
  // not state, to the blank line: the last request, its results and what its event needs
  resultPfn = -0 as P;
  stallTag = -1;
  /** Number of the event of the last streamFor, spaceFor or walkTables that failed; 0 where nothing is recorded. */
  event = 0;
  stream: CachedStream | null = null;
  #sid = 0;
  #ssid = -1;
  #privileged = false;
  #kind = KIND_READ;
  #pfn = -0;
  #offset = 0;
  #retries = 0;
  /** The event is of a stage-1 bypass, not of a walk. */
  #bypassed = false;

  readonly walker: TwoStageWalker<P>;
  readonly structures: StructureWalker<P>;
  readonly #state: SmmuState<P>;
  readonly #caches: SmmuCaches;
  readonly #configurations: ConfigurationCache;
  readonly #contexts: SubstructureCache<CachedContext>;
  readonly #requesters: Requesters<CachedStream, CachedSpace>;
  /** Entries and descriptors are cached: so a requester may be remembered. */
  readonly #remembers: boolean;
  readonly #translations: TranslationCache;
  readonly #events: EventQueue;
  readonly #guestLimit: number;

  constructor(state: SmmuState<P>, caches: SmmuCaches, events: EventQueue) {
    this.#state = state;
    this.#caches = caches;
    this.#configurations = caches.configurations;
    this.#contexts = caches.configurations.contexts;
    this.#requesters = caches.requesters;
    this.#remembers = caches.configurations.streams.enabled && this.#contexts.enabled;
    this.#translations = caches.translations;
    this.#events = events;
    this.#guestLimit = 2 ** (intermediateBits(state.features) - 12);
    this.walker = new TwoStageWalker(state.memory, state.frameLimit);
    this.walker.tables = caches.tables;
    this.structures = new StructureWalker(state.memory, state.frameLimit);
  }

  observe(observer: WalkObserver | null): void {
    this.walker.observer = observer;
    this.structures.observer = observer;
  }

  /** Arguments as HardwareIommu.translate. */
  translate(
    sid: number,
    ssid: number,
    privileged: boolean,
    access: number,
    pfn: number,
    offset: number,
    translated: boolean,
  ): TranslationStatus {
    // Of a requester that was let through before: nothing but the TLB and the tables to ask.
    const kind = access === 1 ? READS : access === 2 ? WRITES : kindOf(access);
    const known = this.#requesters.placeOf(sid, ssid);
    if (known.id === sid && known.pasid === ssid && !translated && (this.#state.regs[CR0_AT]! & ENABLED) !== 0) {
      const rightsAt = privileged ? known.privilegedRightsAt : known.rightsAt;
      if (rightsAt >= 0) {
        const space = known.space!;
        const at = space.ignoresTop ? withoutTop(space, pfn) : pfn;
        const low = at | 0;
        const translations = this.#translations;
        const entry = translations.findPage(space.tag, low, at === low ? 0 : (at * 2 ** -32) | 0);
        if (entry >= 0 && (translations.flagsAt(entry) & (1 << (rightsAt + kind))) !== 0) {
          this.resultPfn = translations.frameAt(entry, at) as P;
          return DONE;
        }
        return this.#translateKnown(known, privileged, rightsAt, kind, pfn, at, offset);
      }
    }
    return this.#fully(sid, ssid, privileged, kind, pfn, offset, translated);
  }

  /** TLB and tables, for a requester that was let through. */
  #translateKnown(
    known: Requester<CachedStream, CachedSpace>,
    privileged: boolean,
    rightsAt: number,
    kind: number,
    pfn: number,
    at: number,
    offset: number,
  ): TranslationStatus {
    const space = known.space!;
    if ((space.stages & HAS_STAGE_1) === 0 && pfn >= this.#guestLimit)
      return this.#fully(known.id, known.pasid, privileged, kind, pfn, offset, false);
    const low = at | 0;
    const high = at === low ? 0 : (at * 2 ** -32) | 0;
    const translations = this.#translations;
    const entry = translations.findAnywhere(space.tag, low, high);
    if (entry >= 0) {
      if ((translations.flagsAt(entry) & (1 << (rightsAt + kind))) !== 0) {
        this.resultPfn = translations.frameAt(entry, at) as P;
        return DONE;
      }
      // Rights missing, or not known to be marked dirty: what the tables say now decides.
      translations.drop(entry);
    }
    const walker = this.walker;
    const shortly = walker.walkShortly(space, low, high, kind, privileged);
    if (shortly === 0 && !walker.walkPlainly(space, low, high, kind, privileged)) {
      const stream = known.structure!;
      this.begin(known.id, known.pasid, privileged, kind, pfn, offset);
      this.stream = stream;
      this.event = walker.walkCarefully(space, low, high, kind, privileged);
      if (this.event !== 0) return this.finish(space, stream);
    }
    this.resultPfn = walker.hostPfn as P;
    this.#keep(space, at, low, high);
    return DONE;
  }

  /** The whole process, for everything that the short way in `translate` does not decide. */
  #fully(
    sid: number,
    ssid: number,
    privileged: boolean,
    kind: number,
    pfn: number,
    offset: number,
    translated: boolean,
  ): TranslationStatus {
    const state = this.#state;
    // A translated transaction has no SubstreamID (there is no PASIDTT, §6.3.4), and so is unprivileged and no fetch.
    if (translated) this.begin(sid, -1, false, kind === KIND_WRITE ? KIND_WRITE : KIND_READ, pfn, offset);
    else this.begin(sid, ssid, privileged, kind, pfn, offset);
    if (!state.enabled) {
      if (translated) return this.#forbid();
      // §6.3.14, §3.4: GBPA decides; an address that is too large is aborted, without an event.
      if ((state.reg(REG.GBPA) & GBPA_ABORT) !== 0 || pfn >= state.frameLimit) return REFUSED;
      this.resultPfn = pfn as P;
      return TRANSLATED;
    }
    if (translated) return this.#translated(sid, pfn);
    const stream = this.streamFor(sid);
    if (stream === null) return this.#refuse();
    const space = this.spaceFor(stream, ssid);
    if (space === null) return this.finish(null, stream);
    if (!space.first && pfn >= this.#guestLimit) {
      // Bypass of stage 1, or of both: more than IAS (§3.4). Never silent: there is no descriptor to say so.
      this.event = F_ADDR_SIZE;
      this.#bypassed = true;
      return this.#refuse();
    }
    if (space.transparent) {
      this.resultPfn = pfn as P;
      return TRANSLATED;
    }
    // Only where no override comes first.
    if (this.#remembers && stream.plainRequests)
      this.#requesters.remember(sid, ssid, privileged, stream, space, privileged ? PRIVILEGED_RIGHTS_AT : 0);
    return this.#through(space, stream, pfn);
  }

  /** TLB, then tables. */
  #through(space: CachedSpace, stream: CachedStream, pfn: number): TranslationStatus {
    const kind = this.#kind;
    const privileged = this.#privileged;
    const at = withoutTop(space, pfn);
    const low = at | 0;
    const high = (at * 2 ** -32) | 0;
    const translations = this.#translations;
    const entry = translations.findAnywhere(space.tag, low, high);
    if (entry >= 0) {
      if ((translations.flagsAt(entry) & (1 << (privileged ? kind + PRIVILEGED_RIGHTS_AT : kind))) !== 0) {
        this.resultPfn = translations.frameAt(entry, at) as P;
        return TRANSLATED;
      }
      translations.drop(entry);
    }
    if (!this.walkTables(space, low, high, kind, privileged)) return this.finish(space, stream);
    this.resultPfn = this.walker.hostPfn as P;
    this.#keep(space, at, low, high);
    return TRANSLATED;
  }

  /** The frame that the caches give an untranslated transaction, rights aside; -1: it would have to walk. Changes nothing. */
  remembers(sid: number, ssid: number, pfn: number): number {
    const stream = this.#state.enabled ? this.#configurations.streams.find(sid) : null;
    if (stream === null || (stream.config & CONFIG_BYPASS) === 0) return -1;
    const alone = ssid < 0 && (!stream.first || stream.bypassesFirst);
    const context = alone ? null : this.#contexts.find(stream.stamp, Math.max(ssid, 0));
    const space = alone ? stream.secondOnly : (context?.space ?? null);
    if (space === null) return -1;
    return space.transparent ? pfn : this.#translations.frameOf(space.tag, pfn);
  }

  /** Says what the request under way is, for records. */
  begin(sid: number, ssid: number, privileged: boolean, kind: number, pfn: number, offset: number): void {
    this.#sid = sid;
    this.#ssid = ssid;
    this.#privileged = privileged;
    this.#kind = kind;
    this.#pfn = pfn;
    this.#offset = offset;
    this.stream = null;
    this.event = 0;
    this.#bypassed = false;
  }

  /** The stream's entry; null with `event`. */
  streamFor(sid: number): CachedStream | null {
    const cached = this.#configurations.streams.find(sid);
    if (cached !== null) {
      this.#override(cached);
      this.stream = cached;
      return cached;
    }
    const { features } = this.#state;
    const number = this.structures.locateStream(sid, this.#state.streamTable, features.SIDSIZE);
    this.event = number;
    if (number !== 0) return null;
    if (steFault(this.structures.words, features) !== STE_LEGAL) {
      this.event = C_BAD_STE;
      return null;
    }
    this.#caches.makeRoom();
    const stream = this.#configurations.loadStream(sid, this.structures.words);
    this.#override(stream);
    this.stream = stream;
    return stream;
  }

  /** Of the request under way, after the stream's overrides. */
  get privileged(): boolean {
    return this.#privileged;
  }

  /** First frame beyond IAS. */
  get guestLimit(): number {
    return this.#guestLimit;
  }

  /** PRIVCFG and INSTCFG (§5.2). */
  #override(stream: CachedStream): void {
    if (stream.privilege >= 2) this.#privileged = stream.privilege === 3;
    if (stream.instruction >= 2 && (this.#kind === KIND_READ || this.#kind === KIND_EXECUTE))
      this.#kind = stream.instruction === 3 ? KIND_EXECUTE : KIND_READ;
  }

  /** Steps 4 to 8: what the request goes through; null with `event` (0: aborted silently). */
  spaceFor(stream: CachedStream, ssid: number): CachedSpace | null {
    this.event = 0;
    if ((stream.config & CONFIG_BYPASS) === 0) return null;
    let substream = 0;
    if (ssid >= 0) {
      if (!stream.substreams || ssid >= 1 << stream.cdMax) return this.#noSpace(C_BAD_SUBSTREAMID);
      if (stream.dss === S1DSS_SSID0 && ssid === 0) return this.#noSpace(F_STREAM_DISABLED);
      substream = ssid;
    } else {
      if (!stream.first || stream.bypassesFirst) return stream.secondOnly;
      if (!stream.usesContext0) return this.#noSpace(F_STREAM_DISABLED);
    }
    const cached = this.#contexts.find(stream.stamp, substream);
    if (cached !== null) return cached.space;
    const structures = this.structures;
    const limit = stream.second.enabled ? this.#guestLimit : this.#state.frameLimit;
    const number = structures.locateContext(
      substream,
      stream.words,
      stream.substreams,
      stream.second,
      limit,
      this.walker,
    );
    if (number !== 0) return this.#noSpace(number);
    if (cdFault(structures.words, stream.world, stream.stallsDisabled, this.#state.features) !== 0)
      return this.#noSpace(C_BAD_CD);
    this.#caches.makeRoom();
    return this.#configurations.loadContext(stream, substream, structures.words).space;
  }

  #noSpace(event: number): null {
    this.event = event;
    return null;
  }

  /** Both stages by the tables; false with `event`. */
  walkTables(space: CachedSpace, low: number, high: number, kind: number, privileged: boolean): boolean {
    const { walker } = this;
    if (walker.walkShortly(space, low, high, kind, privileged) !== 0) return true;
    if (walker.walkPlainly(space, low, high, kind, privileged)) return true;
    this.event = walker.walkCarefully(space, low, high, kind, privileged);
    return this.event === 0;
  }

  /** Caches what the walker found, and `resultPfn`. */
  #keep(space: CachedSpace, at: number, low: number, high: number): void {
    const walker = this.walker;
    const { firstShift, secondShift } = walker;
    const rights = (walker.rights & MARKED_CLEAN) !== 0 ? walker.rights & WITHOUT_WRITE : walker.rights;
    const tag = walker.global && space.tag.global !== null ? space.tag.global : space.tag;
    const ofFirst = firstShift !== OFF_SHIFT;
    const leafShift = ofFirst ? firstShift : secondShift;
    const granule = ofFirst ? walker.firstGranule : walker.secondGranule;
    const distance = this.resultPfn - at;
    if (leafShift === 0) {
      this.#translations.insertPage(tag, low, high, distance, rights | ORIGIN_OF_PAGE);
      return;
    }
    const level = 3 - (leafShift - (granule - 12)) / (granule - 3);
    const flags = rights | originOf(granule, level);
    const size = classOf(firstShift < secondShift ? firstShift : secondShift);
    this.#translations.insert(tag, low, high, size, classOf(leafShift), distance, flags);
  }

  /** §3.9.1: translated transactions. */
  #translated(sid: number, pfn: number): TranslationStatus {
    const state = this.#state;
    if ((state.reg(REG.CR0) & CR0_ATSCHK) === 0) return this.#pass(pfn);
    const stream = this.streamFor(sid);
    if (stream === null) {
      if ((state.reg(REG.CR2) & CR2_REC_CFG_ATS) !== 0) this.report();
      return REFUSED;
    }
    if ((stream.config & CONFIG_BYPASS) === 0) return REFUSED;
    const eats = stream.config === CONFIG_BYPASS ? 0 : stream.eats;
    if (eats === 1) return this.#pass(pfn);
    if (eats !== 2) return this.#forbid();
    if (pfn >= this.#guestLimit) return REFUSED;
    return this.#through(stream.secondOnly, stream, pfn);
  }

  #pass(pfn: number): TranslationStatus {
    if (pfn >= this.#state.frameLimit) return REFUSED;
    this.resultPfn = pfn as P;
    return TRANSLATED;
  }

  #forbid(): TranslationStatus {
    this.event = F_TRANSL_FORBIDDEN;
    return this.#refuse();
  }

  /** Aborts, recording `event` if there is one. */
  #refuse(): TranslationStatus {
    if (this.event !== 0) this.report();
    return REFUSED;
  }

  /** How a transaction whose `event` arose in `spaceFor` or `walkTables` ends (§5.5): `space` null, before there was a context. */
  finish(space: CachedSpace | null, stream: CachedStream): TranslationStatus {
    // A, R and S are for these four alone; stage 2 has no A, it aborts.
    if (this.event < F_TRANSLATION || this.event > F_PERMISSION) return this.#refuse();
    const stage2 = this.walker.stage2 || space === null;
    if (stage2 ? stream.second.stalls : space.stalls) return this.#stall();
    if (stage2 ? stream.second.records : space.records) this.report();
    return stage2 || space.aborts ? REFUSED : DISCARDED;
  }

  #stall(): TranslationStatus {
    const tag = this.#record(true);
    const ended = tag < 0 ? -1 : this.#events.endedWithin;
    if (ended < 0) {
      this.stallTag = tag;
      return STALLED;
    }
    if (ended === STALL_ABORT) return REFUSED;
    if (ended === STALL_DISCARD) return DISCARDED;
    if (this.#retries >= RETRIES) return REFUSED;
    this.#retries++;
    const status = this.#fully(this.#sid, this.#ssid, this.#privileged, this.#kind, this.#pfn, this.#offset, false);
    this.#retries--;
    return status;
  }

  /** Records `event` of the request under way, as that of a terminated transaction. */
  report(): void {
    this.#record(false);
  }

  /** The STAG of a transaction that stalls, else -1. */
  #record(stalls: boolean): number {
    const number = this.event;
    const events = this.#events;
    const { walker, structures } = this;
    const kind = this.#kind;
    const access =
      (this.#privileged ? EVENT_PRIVILEGED : 0) |
      (kind === KIND_EXECUTE ? EVENT_INSTRUCTION : 0) |
      (kind === KIND_WRITE ? 0 : EVENT_READ);
    switch (number) {
      case C_BAD_STREAMID:
        if ((this.#state.reg(REG.CR2) & CR2_RECINVSID) === 0) return -1;
        events.report(number, this.#sid, this.#ssid, 0, 0, 0, 0, 0);
        return -1;
      case F_STE_FETCH:
      case F_CD_FETCH:
        events.report(number, this.#sid, this.#ssid, 0, 0, 0, structures.fetchPfn, structures.fetchOffset);
        return -1;
      case F_STREAM_DISABLED:
        events.report(number, this.#sid, -1, 0, 0, 0, 0, 0);
        return -1;
      case C_BAD_SUBSTREAMID:
        events.reportSubstream(number, this.#sid, Math.max(0, this.#ssid));
        return -1;
      case F_TRANSL_FORBIDDEN:
        events.report(number, this.#sid, -1, access & EVENT_READ, this.#pfn, this.#offset, 0, 0);
        return -1;
      case F_BAD_ATS_TREQ:
        events.report(number, this.#sid, this.#ssid, 0, this.#pfn, this.#offset, 0, 0);
        return -1;
      case C_BAD_STE:
      case C_BAD_CD:
        events.report(number, this.#sid, this.#ssid, 0, 0, 0, 0, 0);
        return -1;
    }
    // Bypass has no walker's fault: stage 1, CLASS IN.
    const walked = isStageFault(number) && !this.#bypassed;
    const stage2 = walked && walker.stage2;
    const inClass = walked ? walker.faultClass : CLASS_IN;
    let flags = access | (stage2 ? EVENT_STAGE_2 : 0) | eventClass(inClass);
    if (number === F_PERMISSION && stage2 && inClass === CLASS_TT && walker.tableRead) flags |= EVENT_TABLE_READ;
    const fetch = number === F_WALK_EABT;
    const pfn = stage2 || fetch ? walker.faultPfn : 0;
    const offset = fetch ? walker.faultOffset : 0;
    if (stalls) return events.stall(number, this.#sid, this.#ssid, flags, this.#pfn, this.#offset, pfn, offset);
    events.report(number, this.#sid, this.#ssid, flags, this.#pfn, this.#offset, pfn, offset);
    return -1;
  }
}

/** The frame number once an ignored top byte is replaced by bit 55 (TBI, §3.4.1). */
export function withoutTop(space: CachedSpace, pfn: number): number {
  if (!space.ignoresTop) return pfn;
  const high = (pfn * 2 ** -32) | 0;
  const upper = space.world !== 1 && (high & 0x800) !== 0;
  if (upper ? !space.ignoresTopUpper : !space.ignoresTopLower) return pfn;
  return (upper ? high | 0xff000 : high & 0xfff) * 0x100000000 + ((pfn | 0) >>> 0);
}

function kindOf(access: number): number {
  return (access & 2) !== 0 ? KIND_WRITE : (access & 4) !== 0 ? KIND_EXECUTE : KIND_READ;
}
