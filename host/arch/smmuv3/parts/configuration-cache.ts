// Caches of stream table entries and context descriptors, decoded (§3.17, §4.3).
//
// Context descriptors hang on the stream table entry under which they were loaded (host/base/caches/structure-cache.ts): CFGI_STE forgets both. Only legal
// structures are cached, and no level-1 descriptors.

import type { AddressTags } from "../../../base/caches/address-tags.ts";
import type { Requesters } from "../../../base/caches/requesters.ts";
import type { Stamps } from "../../../base/caches/stamps.ts";
import {
  StructureCache,
  type StructureSlot,
  SubstructureCache,
  type SubstructureSlot,
} from "../../../base/caches/structure-cache.ts";
import type { Stateful, StateReader, StateRecord } from "../../../base/state.ts";
import { type StreamWorld, WORLD_EL1, WORLD_EL2, WORLD_EL2_E2H } from "../context-descriptor.ts";
import type { SmmuFeatures } from "../identification.ts";
import { CONFIG_S1, CONFIG_STAGE_1, CONFIG_STAGE_2, S1DSS_BYPASS, S1DSS_SSID0 } from "../stream-table-entry.ts";
import { SecondStage } from "../translation-regime.ts";
import { CachedSpace } from "./cached-space.ts";

export class CachedStream implements StructureSlot {
  /** The StreamID. */
  id = -1;
  stamp = 0;
  readonly words = new Int32Array(16);
  // not state, to the blank line: what the words say.
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

  readonly #tags: AddressTags;
  readonly #features: SmmuFeatures;
  readonly #e2h: () => boolean;

  constructor(tags: AddressTags, features: SmmuFeatures, e2h: () => boolean) {
    this.#tags = tags;
    this.#features = features;
    this.#e2h = e2h;
  }

  /** Takes a legal entry. */
  load(source: Int32Array): void {
    this.words.set(source);
    const features = this.#features;
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
    this.world = !el2 ? WORLD_EL1 : this.#e2h() ? WORLD_EL2_E2H : WORLD_EL2;
    this.vmid = features.S2P ? source[4]! & 0xffff : 0;
    if (translates && (this.config & CONFIG_STAGE_2) !== 0) this.second.load(source, features);
    else this.second.disable();
    this.secondOnly.loadSecondOnly(this.second);
    this.secondOnly.settle(this.#tags, 0, false, this.vmid);
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

  saveState(): StateRecord {
    return { id: this.id, stamp: this.stamp, words: [...this.words] };
  }

  restoreState(state: StateReader): void {
    this.id = state.number("id");
    this.stamp = state.number("stamp");
    state.numbers("words", this.words);
    this.load(this.words);
  }
}

export class CachedContext implements SubstructureSlot {
  /** The SubstreamID. */
  id = -1;
  ownerStamp = 0;
  readonly words = new Int32Array(16);
  readonly space = new CachedSpace();
  readonly #tags: AddressTags;
  readonly #features: SmmuFeatures;
  readonly #streamOf: (stamp: number) => CachedStream | null;

  /** `streamOf` finds a cached stream. */
  constructor(tags: AddressTags, features: SmmuFeatures, streamOf: (stamp: number) => CachedStream | null) {
    this.#tags = tags;
    this.#features = features;
    this.#streamOf = streamOf;
  }

  /** Takes a legal descriptor of `stream`. */
  load(stream: CachedStream, source: Int32Array): void {
    this.words.set(source);
    const w1 = source[1]!;
    this.space.load(source, stream.world, stream.second, this.#features);
    this.space.settle(this.#tags, w1 >>> 16, (w1 & (1 << 15)) !== 0, stream.vmid);
  }

  saveState(): StateRecord {
    return { id: this.id, ownerStamp: this.ownerStamp, words: [...this.words] };
  }

  restoreState(state: StateReader): void {
    this.id = state.number("id");
    this.ownerStamp = state.number("ownerStamp");
    state.numbers("words", this.words);
    // One whose stream is gone is never found again, but takes up its place until it has to go.
    const stream = this.#streamOf(this.ownerStamp);
    if (stream !== null) this.load(stream, this.words);
  }
}

export class ConfigurationCache implements Stateful {
  readonly streams: StructureCache<CachedStream>;
  readonly contexts: SubstructureCache<CachedContext>;

  /** `e2h`: CR2.E2H as it is. */
  constructor(
    streams: number,
    contexts: number,
    stamps: Stamps,
    requesters: Requesters<unknown, unknown>,
    tags: AddressTags,
    features: SmmuFeatures,
    e2h: () => boolean,
  ) {
    this.streams = new StructureCache(streams, stamps, requesters, () => new CachedStream(tags, features, e2h));
    const streamOf = (stamp: number): CachedStream | null =>
      stamp === 0 ? null : (this.streams.slots.find((stream) => stream.stamp === stamp) ?? null);
    this.contexts = new SubstructureCache(contexts, requesters, () => new CachedContext(tags, features, streamOf));
  }

  saveState(): StateRecord {
    return {};
  }

  restoreState(): void {}

  /** Streams before the contexts that hang on them. */
  stateParts(): Iterable<readonly [string, Stateful]> {
    return [
      ["streams", this.streams],
      ["contexts", this.contexts],
    ];
  }

  loadStream(sid: number, words: Int32Array): CachedStream {
    const stream = this.streams.place(sid);
    stream.load(words);
    return stream;
  }

  loadContext(stream: CachedStream, ssid: number, words: Int32Array): CachedContext {
    const context = this.contexts.place(stream.stamp, ssid);
    context.load(stream, words);
    return context;
  }

  /** CFGI_STE: one stream, with its contexts. */
  invalidateStream(sid: number): void {
    this.streams.invalidate(sid);
  }

  /** CFGI_STE_RANGE: 2^bits streams, aligned; 32 bits and more: all. */
  invalidateStreams(sid: number, bits: number): void {
    if (bits >= 32) {
      this.streams.invalidateAll();
      return;
    }
    for (const slot of this.streams.slots)
      if (slot.id >= 0 && slot.id >>> bits === sid >>> bits) this.streams.drop(slot);
  }

  /** CFGI_CD: one descriptor of a stream. */
  invalidateContext(sid: number, ssid: number): void {
    const stream = this.streams.find(sid);
    // A stream that is not cached has no contexts either: they are found by its stamp.
    if (stream !== null) this.contexts.invalidate(stream.stamp, ssid);
  }

  /** CFGI_CD_ALL: all descriptors of a stream. */
  invalidateContexts(sid: number): void {
    const stream = this.streams.find(sid);
    if (stream !== null) this.contexts.invalidateOf(stream.stamp);
  }

  clear(): void {
    this.streams.clear();
    this.contexts.clear();
  }
}
