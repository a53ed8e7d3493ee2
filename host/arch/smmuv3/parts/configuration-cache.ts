// Caches of stream table entries and context descriptors, decoded (§3.17, §4.3).
//
// A cached entry has a stamp of its own, given when it is loaded; context descriptors are keyed by that stamp and their SubstreamID. So CFGI_STE
// forgets a stream's contexts too (a new load has a new stamp), and CFGI_ALL raises one floor. Only legal structures are cached, and no level-1
// descriptors. With no cache configured one scratch slot is refilled every time.

import type { Stateful, StateReader, StateRecord } from "../../../base/state.ts";
import { type StreamWorld, WORLD_EL1, WORLD_EL2, WORLD_EL2_E2H } from "../context-descriptor.ts";
import type { SmmuFeatures } from "../identification.ts";
import { CONFIG_S1, CONFIG_STAGE_1, CONFIG_STAGE_2, S1DSS_BYPASS, S1DSS_SSID0 } from "../stream-table-entry.ts";
import { SecondStage, TranslationRegime } from "../translation-regime.ts";
import { ASET, GLOBAL, metaOf, TAG_EL1, TAG_EL2, TAG_IPA } from "./translation-cache.ts";

/** A translation regime with the tags that its translations carry (§3.17). */
// Not state: made of the words that the cache saves
export class CachedSpace extends TranslationRegime {
  key = 0;
  meta = 0;
  globalKey = 0;
  globalMeta = 0;
  /** Neither stage is on: addresses pass unchanged. */
  transparent = false;

  /** `ignoresTopLower` or `ignoresTopUpper`. */
  ignoresTop = false;

  settle(asid: number, aset: boolean, vmid: number): void {
    const tag = !this.first ? TAG_IPA : this.world === WORLD_EL1 ? TAG_EL1 : TAG_EL2;
    const machine = tag === TAG_EL2 ? 0 : vmid;
    const space = !this.first || this.world === WORLD_EL2 ? 0 : asid;
    this.key = machine | (space << 16);
    this.meta = metaOf(tag);
    this.globalKey = machine;
    this.globalMeta = metaOf(tag) | GLOBAL | (aset ? ASET : 0);
    this.transparent = !this.first && !this.second.enabled;
    this.ignoresTop = this.first && (this.ignoresTopLower || this.ignoresTopUpper);
  }
}

// Not state: made of the words that the cache saves
export class CachedStream {
  sid = -1;
  /** 0: empty. */
  stamp = 0;
  readonly words = new Int32Array(16);
  config = 0;
  first = false;
  /** There are substreams: S1CDMax and SSIDSIZE are above 0. */
  substreams = false;
  cdMax = 0;
  dss = 0;
  eats = 0;
  ppar = false;
  stallsDisabled = false;
  /** 0, or 2 and 3 as PRIVCFG and INSTCFG. */
  privilege = 0;
  instruction = 0;
  world: StreamWorld = WORLD_EL1;
  vmid = 0;
  readonly second = new SecondStage();
  /** Stage 2 alone. */
  readonly secondOnly = new CachedSpace();
  /** What a request without SubstreamID goes through when nothing else has to be asked: `secondOnly`, or context 0's while it is cached. */
  direct: CachedSpace | null = null;
  directContext: CachedContext | null = null;

  load(sid: number, stamp: number, source: Int32Array, e2h: boolean, features: SmmuFeatures): void {
    this.words.set(source);
    this.sid = sid;
    this.stamp = stamp;
    const w0 = source[0]!;
    const w2 = source[2]!;
    this.config = (w0 >>> 1) & 7;
    const translates = (this.config & 4) !== 0;
    this.first = translates && (this.config & CONFIG_STAGE_1) !== 0;
    this.cdMax = features.SSIDSIZE === 0 ? 0 : source[1]! >>> 27;
    this.substreams = this.first && this.cdMax !== 0;
    this.dss = w2 & 3;
    this.eats = features.ATS ? (w2 >>> 28) & 3 : 0;
    this.ppar = (w2 & (1 << 18)) !== 0;
    this.stallsDisabled = (w2 & (1 << 27)) !== 0;
    this.privilege = features.ATTR_PERMS_OVR ? (source[3]! >>> 16) & 3 : 0;
    this.instruction = features.ATTR_PERMS_OVR ? (source[3]! >>> 18) & 3 : 0;
    const el2 = this.config === CONFIG_S1 && features.Hyp && w2 >>> 30 === 2;
    this.world = !el2 ? WORLD_EL1 : e2h ? WORLD_EL2_E2H : WORLD_EL2;
    this.vmid = features.S2P ? source[4]! & 0xffff : 0;
    if (translates && (this.config & CONFIG_STAGE_2) !== 0) this.second.load(source, features);
    else this.second.disable();
    this.secondOnly.loadSecondOnly(this.second);
    this.secondOnly.settle(0, false, this.vmid);
    this.directContext = null;
    // Only where no check, override or event comes first.
    this.direct = translates && !this.first && this.second.enabled && this.plainRequests ? this.secondOnly : null;
  }

  /** Requests are taken as they come: no overrides. */
  get plainRequests(): boolean {
    return this.privilege < 2 && this.instruction < 2;
  }

  /** Requests without SubstreamID use context 0. */
  get usesContext0(): boolean {
    return this.first && (!this.substreams || this.dss === S1DSS_SSID0);
  }

  /** Requests without SubstreamID go around stage 1. */
  get bypassesFirst(): boolean {
    return this.substreams && this.dss === S1DSS_BYPASS;
  }
}

// Not state: made of the words that the cache saves
export class CachedContext {
  streamStamp = 0;
  ssid = -1;
  readonly words = new Int32Array(16);
  readonly space = new CachedSpace();
  #stream: CachedStream | null = null;

  /** Is no longer valid, nor what its stream's requests go through at once. */
  release(): void {
    this.streamStamp = 0;
    const stream = this.#stream;
    if (stream === null || stream.directContext !== this) return;
    stream.direct = null;
    stream.directContext = null;
  }

  load(stream: CachedStream, ssid: number, source: Int32Array, features: SmmuFeatures, kept: boolean): void {
    this.release();
    this.#stream = stream;
    this.words.set(source);
    this.streamStamp = stream.stamp;
    this.ssid = ssid;
    const w1 = source[1]!;
    this.space.load(source, stream.world, stream.second, features);
    this.space.settle(w1 >>> 16, (w1 & (1 << 15)) !== 0, stream.vmid);
    if (kept && ssid === 0 && stream.usesContext0 && stream.plainRequests) {
      stream.direct = this.space;
      stream.directContext = this;
    }
  }
}

function roundUp(entries: number): number {
  return 2 ** Math.ceil(Math.log2(Math.max(1, entries)));
}

export class ConfigurationCache implements Stateful {
  readonly #features: SmmuFeatures;
  readonly #e2h: () => boolean;
  readonly #streams: CachedStream[];
  readonly #contexts: CachedContext[];
  readonly #ways: number;
  readonly #setMask: number;
  readonly #contextWays: number;
  readonly #contextMask: number;
  readonly #keepsStreams: boolean;
  readonly #keepsContexts: boolean;
  #nextStamp = 1;
  /** Entries with stamps up to here are invalid. */
  #floor = 0;
  #victim = 0;
  /** The entry found last: devices transfer in bursts. */
  #last: CachedStream; // not state: a short cut

  constructor(streams: number, contexts: number, features: SmmuFeatures, e2h: () => boolean) {
    this.#features = features;
    this.#e2h = e2h;
    const rounded = roundUp(streams);
    this.#keepsStreams = streams > 0;
    this.#ways = Math.min(4, rounded);
    this.#setMask = rounded / this.#ways - 1;
    this.#streams = Array.from({ length: rounded }, () => new CachedStream());
    const many = roundUp(contexts);
    this.#keepsContexts = contexts > 0;
    this.#contextWays = Math.min(4, many);
    this.#contextMask = many / this.#contextWays - 1;
    this.#contexts = Array.from({ length: many }, () => new CachedContext());
    this.#last = new CachedStream();
  }

  saveState(): StateRecord {
    return {
      nextStamp: this.#nextStamp,
      floor: this.#floor,
      victim: this.#victim,
      streams: this.#streams.map(({ sid, stamp, words }) => ({ sid, stamp, words: [...words] })),
      contexts: this.#contexts.map(({ streamStamp, ssid, words }) => ({ streamStamp, ssid, words: [...words] })),
    };
  }

  restoreState(state: StateReader): void {
    this.#nextStamp = state.number("nextStamp");
    this.#floor = state.number("floor");
    this.#victim = state.number("victim");
    const words = new Int32Array(16);
    const streams = state.records("streams");
    if (streams.length !== this.#streams.length) state.fail("streams", `is no list of ${this.#streams.length}`);
    const contexts = state.records("contexts");
    if (contexts.length !== this.#contexts.length) state.fail("contexts", `is no list of ${this.#contexts.length}`);
    this.#streams.forEach((stream, i) => {
      const saved = streams[i]!;
      saved.numbers("words", words);
      stream.stamp = 0;
      if (saved.number("stamp") === 0) return;
      stream.load(saved.number("sid"), saved.number("stamp"), words, this.#e2h(), this.#features);
    });
    this.#contexts.forEach((context, i) => {
      const saved = contexts[i]!;
      saved.numbers("words", words);
      context.release();
      const stream = this.#streams.find(({ stamp }) => stamp !== 0 && stamp === saved.number("streamStamp"));
      if (stream !== undefined) context.load(stream, saved.number("ssid"), words, this.#features, this.#keepsContexts);
    });
    this.#last = new CachedStream();
  }

  findStream(sid: number): CachedStream | null {
    const last = this.#last;
    if (last.sid === sid && last.stamp > this.#floor) return last;
    if (!this.#keepsStreams) return null;
    const start = ((sid ^ (sid >>> 6)) & this.#setMask) * this.#ways;
    for (let i = start; i < start + this.#ways; i++) {
      const slot = this.#streams[i]!;
      if (slot.sid === sid && slot.stamp > this.#floor) {
        this.#last = slot;
        return slot;
      }
    }
    return null;
  }

  loadStream(sid: number, words: Int32Array): CachedStream {
    const start = ((sid ^ (sid >>> 6)) & this.#setMask) * this.#ways;
    let chosen = -1;
    for (let i = start; i < start + this.#ways && chosen < 0; i++) {
      const slot = this.#streams[i]!;
      if (slot.sid === sid || slot.stamp <= this.#floor) chosen = i;
    }
    if (chosen < 0) {
      this.#victim = (this.#victim + 1) & (this.#ways - 1);
      chosen = start + this.#victim;
    }
    const slot = this.#streams[chosen]!;
    slot.load(sid, this.#nextStamp++, words, this.#e2h(), this.#features);
    return slot;
  }

  #contextSet(stamp: number, ssid: number): number {
    return ((ssid ^ (ssid >>> 8) ^ Math.imul(stamp, 0x9e3779b1)) & this.#contextMask) * this.#contextWays;
  }

  findContext(stream: CachedStream, ssid: number): CachedContext | null {
    if (!this.#keepsContexts) return null;
    const start = this.#contextSet(stream.stamp, ssid);
    for (let i = start; i < start + this.#contextWays; i++) {
      const slot = this.#contexts[i]!;
      if (slot.ssid === ssid && slot.streamStamp === stream.stamp) return slot;
    }
    return null;
  }

  loadContext(stream: CachedStream, ssid: number, words: Int32Array): CachedContext {
    const start = this.#contextSet(stream.stamp, ssid);
    let chosen = -1;
    for (let i = start; i < start + this.#contextWays && chosen < 0; i++) {
      const slot = this.#contexts[i]!;
      if (slot.streamStamp === 0 || (slot.ssid === ssid && slot.streamStamp === stream.stamp)) chosen = i;
    }
    if (chosen < 0) {
      this.#victim = (this.#victim + 1) & (this.#contextWays - 1);
      chosen = start + (this.#victim & (this.#contextWays - 1));
    }
    const slot = this.#contexts[chosen]!;
    slot.load(stream, ssid, words, this.#features, this.#keepsContexts);
    return slot;
  }

  /** CFGI_STE: one stream, with its contexts. */
  invalidateStream(sid: number): void {
    const start = ((sid ^ (sid >>> 6)) & this.#setMask) * this.#ways;
    for (let i = start; i < start + this.#ways; i++) if (this.#streams[i]!.sid === sid) this.#streams[i]!.stamp = 0;
  }

  /** CFGI_STE_RANGE: 2^bits streams, aligned; 32 bits and more: all. */
  invalidateStreams(sid: number, bits: number): void {
    if (bits >= 32) {
      this.#floor = this.#nextStamp++;
      return;
    }
    for (const slot of this.#streams) if (slot.sid >= 0 && slot.sid >>> bits === sid >>> bits) slot.stamp = 0;
  }

  /** CFGI_CD: one descriptor of a stream. */
  invalidateContext(sid: number, ssid: number): void {
    const stream = this.findStream(sid);
    // A stream that is not cached has no contexts either: they are found by its stamp.
    if (stream === null) return;
    const context = this.findContext(stream, ssid);
    context?.release();
  }

  /** CFGI_CD_ALL: all descriptors of a stream. */
  invalidateContexts(sid: number): void {
    const stream = this.findStream(sid);
    if (stream === null) return;
    for (const slot of this.#contexts) if (slot.streamStamp === stream.stamp) slot.release();
  }

  clear(): void {
    for (const slot of this.#streams) slot.stamp = 0;
    for (const slot of this.#contexts) slot.release();
  }
}
