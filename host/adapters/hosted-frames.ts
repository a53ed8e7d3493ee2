// Memory of foreign processes as part of a modelled host's physical memory, so that its IOMMUs' addresses reach it. What is pinned first lends the
// whole mapping it lies in (or the rest of a file) as one remote bank, a span: consecutive pages are consecutive frames, and two pins of
// one page name one frame. A span of a process that is gone, or one of too many, goes when nothing of it is pinned.
//
//     pin(va) → span of the mapping → frames → IOMMU page tables        DMA → frame → span → /proc/PID/mem, or the file
//
// What is not modelled: a pinned page that the process unmaps, and maps something else in its place, is read as what lies there then.

import type { FrameRun, PinCounts } from "../kernel/file.ts";
import type { HostFrames } from "../kernel/host-frames.ts";
import { copyShared, type ForeignPages, OpenForeignFiles, type PrivateMemory } from "./foreign-pages.ts";
import type { FileIdentity } from "./outside.ts";

/** Pages of one process, or of one file, by number. */
interface Space {
  /** Ascending. */
  readonly spans: Span[];
  readonly alive: boolean;
  copy(byte: number, bytes: Uint8Array, write: boolean): boolean;
}

interface Span {
  readonly space: Space;
  readonly first: number;
  readonly pages: number;
  readonly base: number;
  /** Sum of the pin counts of its frames. */
  pinned: number;
}

/** Pages that a span of a file takes in beyond what was asked for: the file may be read on. */
const FILE_PAGES = 2 ** 18;
/** Spans of one space beyond which those that are not pinned are given up. */
const MANY = 256;

export class HostedFrames implements ForeignPages {
  readonly pins: PinCounts;
  readonly memories = new Set<PrivateMemory>();
  readonly openFiles = new OpenForeignFiles();
  request = 0;
  /** Copies from and to foreign memory. */
  readonly counters = { reads: 0, writes: 0, bytes: 0, failed: 0 };
  readonly #host: HostFrames;
  readonly #private = new Map<PrivateMemory, Space>();
  readonly #files = new Map<FileIdentity, Space>();
  /** All spans by their first frame, ascending. */
  readonly #byFrame: Span[] = [];

  constructor(host: HostFrames) {
    this.#host = host;
    this.pins = {
      pin: (run) => {
        host.pins.pin(run);
        this.#count(run, 1);
      },
      unpin: (run) => {
        host.pins.unpin(run);
        this.#count(run, -1);
      },
      countOf: (frame) => host.pins.countOf(frame),
      get total() {
        return host.pins.total;
      },
    };
  }

  privateRuns(
    memory: PrivateMemory,
    first: number,
    count: number,
    mappedFrom: number,
    mappedTo: number,
  ): FrameRun[] | number {
    let space = this.#private.get(memory);
    if (space === undefined) {
      space = {
        spans: [],
        get alive() {
          return memory.alive;
        },
        copy: (byte, bytes, write) =>
          memory.alive && (write ? memory.writeAt(byte, bytes) : memory.readAt(byte, bytes)),
      };
      this.#private.set(memory, space);
    }
    return this.#runs(space, first, count, mappedFrom, mappedTo);
  }

  fileRuns(file: FileIdentity, first: number, count: number): FrameRun[] | number {
    let space = this.#files.get(file);
    if (space === undefined) {
      space = { spans: [], alive: true, copy: (byte, bytes, write) => copyShared(this, file, byte, bytes, write) };
      this.#files.set(file, space);
    }
    const from = first - (first % FILE_PAGES);
    const to = Math.ceil((first + count) / FILE_PAGES) * FILE_PAGES;
    return this.#runs(space, first, count, from, to);
  }

  ended(memory: PrivateMemory): void {
    this.memories.delete(memory);
    const space = this.#private.get(memory);
    if (space === undefined) return;
    this.#private.delete(memory);
    this.#giveUp(space);
  }

  read(frame: number, offset: number, into: Uint8Array): number {
    return this.#host.read(frame, offset, into);
  }

  write(frame: number, offset: number, from: Uint8Array): number {
    return this.#host.write(frame, offset, from);
  }

  #runs(space: Space, first: number, count: number, from: number, to: number): FrameRun[] | number {
    const runs: FrameRun[] = [];
    const end = first + count;
    for (let page = first; page < end; ) {
      const span = this.#spanAt(space, page, from, to);
      if (typeof span === "number") return span;
      const pages = Math.min(end, span.first + span.pages) - page;
      runs.push({ frame: span.base + (page - span.first), count: pages });
      page += pages;
    }
    return runs;
  }

  /** The span that holds a page; one is made, within [from, to) and between its neighbours, where there is none. */
  #spanAt(space: Space, page: number, from: number, to: number): Span | number {
    const { spans } = space;
    let after = spans.findIndex((span) => span.first > page);
    if (after < 0) after = spans.length;
    const before = spans[after - 1];
    if (before !== undefined && page < before.first + before.pages) return before;
    if (spans.length >= MANY) {
      this.#giveUp(space);
      if (spans.length < MANY) return this.#spanAt(space, page, from, to);
    }
    const first = Math.max(from, before === undefined ? 0 : before.first + before.pages);
    const pages = Math.min(to, spans[after]?.first ?? to) - first;
    const base = this.#host.lendRemote(pages, first, {
      read: (byte, into) => this.#copied(space.copy(first * 4096 + byte, into, false), into.length, false),
      write: (byte, bytes) => this.#copied(space.copy(first * 4096 + byte, bytes, true), bytes.length, true),
    });
    if (base < 0) return base;
    const span: Span = { space, first, pages, base, pinned: 0 };
    spans.splice(after, 0, span);
    this.#byFrame.splice(this.#framesFrom(base), 0, span);
    return span;
  }

  #copied(done: boolean, bytes: number, write: boolean): boolean {
    const { counters } = this;
    if (!done) counters.failed++;
    else if (write) counters.writes++;
    else counters.reads++;
    if (done) counters.bytes += bytes;
    return done;
  }

  /** Drops the spans of a space that nothing pins. */
  #giveUp(space: Space): void {
    for (const span of space.spans.filter(({ pinned }) => pinned === 0)) this.#drop(span);
  }

  #drop(span: Span): void {
    span.space.spans.splice(span.space.spans.indexOf(span), 1);
    this.#byFrame.splice(this.#framesFrom(span.base) - 1, 1);
    this.#host.takeBackRemote(span.base as Parameters<HostFrames["takeBackRemote"]>[0]);
  }

  /** A run lies within one span, or is not foreign. */
  #count(run: FrameRun, by: 1 | -1): void {
    const span = this.#byFrame[this.#framesFrom(run.frame) - 1];
    if (span === undefined || run.frame >= span.base + span.pages) return;
    span.pinned += by * run.count;
    if (span.pinned === 0 && !span.space.alive) this.#drop(span);
  }

  /** Number of spans that begin at a frame or before it. */
  #framesFrom(frame: number): number {
    let low = 0;
    let high = this.#byFrame.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#byFrame[middle]!.base <= frame) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
