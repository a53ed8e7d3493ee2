// The pages behind a mapping (Linux: struct iopt_pages): where they come from - a process's memory, a file, a dma-buf - and which
// of them are pinned now. Several areas, in one or more IOASes (IOAS_COPY), and in-kernel accesses can share one.
//
//     area in a domain ─┐
//     access ───────────┴→ hold(first, last) → HeldPages → pin: AddressSpace | PageFile → frames, accounting
//
// Pages are numbered from the page that the mapping's first byte lies in. Accounting (Linux: pages.c): nothing if the mapper had
// CAP_IPC_LOCK, else the user's locked pages against RLIMIT_MEMLOCK, or the memory's own count (VmLck) in the context's MM mode;
// VmPin counts in all modes. A dma-buf is neither pinned nor accounted.

import { StateError, type StateReader, type StateRecord } from "../../base/state.ts";
import { EFAULT, EINVAL, ENOMEM } from "../../uapi/errno.ts";
import type {
  AddressSpace,
  CallContext,
  DmaBuffer,
  DmaBufferAttachment,
  FrameMemory,
  FrameRun,
  OpenFile,
  PageFile,
  UserAccount,
} from "../file.ts";
import type { Injector } from "../inject.ts";
import type { ObjectNames } from "../object-names.ts";
import type { Area } from "./area.ts";
import { HeldPages, type PageSource } from "./held-pages.ts";

export type AccountMode = "none" | "user" | "memory";

export const PAGE = 4096;
export const PAGE_BYTES = 4096n;

type Origin =
  | { readonly kind: "memory"; readonly base: bigint }
  /** `file` null: one whose pages cannot be pinned, so that no domain will ever take them. */
  | {
      readonly kind: "file";
      readonly file: OpenFile | null;
      readonly pages: PageFile | null;
      readonly firstPage: number;
    }
  | { readonly kind: "dma-buf"; readonly file: OpenFile; readonly buffer: DmaBuffer; readonly offset: bigint };

// Not state: whoever has the tables writes pages down (mappings-state.ts).
export class UserPages implements PageSource {
  readonly origin: Origin;
  readonly writable: boolean;
  readonly pageCount: number;
  readonly frames: FrameMemory;
  accountMode: AccountMode;
  /** The process that mapped the pages; CHANGE_PROCESS moves them to another. */
  process: CallContext;
  memory: AddressSpace;
  user: UserAccount;
  /** Pages pinned now, as accounted. */
  pinned = 0;
  readonly held = new HeldPages();
  /** Areas of a dma-buf that are in domains: revoking unmaps them. */
  readonly trackedAreas = new Set<Area>();
  #dmaBufferRuns: FrameRun[] | null = null;
  #attachment: DmaBufferAttachment | null = null;
  readonly #injector: Injector;
  #references = 1;

  private constructor(
    origin: Origin,
    startByte: number,
    length: bigint,
    writable: boolean,
    call: CallContext,
    injector: Injector,
  ) {
    this.origin = origin;
    this.writable = writable;
    this.pageCount = Number((length + BigInt(startByte) + PAGE_BYTES - 1n) / PAGE_BYTES);
    this.accountMode = call.capabilities.ipcLock ? "none" : "user";
    this.process = call;
    this.memory = call.memory;
    this.user = call.user;
    this.frames = call.frames;
    this.#injector = injector;
  }

  /** Pages of the calling process's memory from `va`; the caller has checked length and wrap. */
  static ofMemory(
    va: bigint,
    length: bigint,
    writable: boolean,
    call: CallContext,
    injector: Injector,
  ): UserPages | number {
    if (injector.allocation("pages")) return -ENOMEM;
    const startByte = Number(va % PAGE_BYTES);
    return new UserPages({ kind: "memory", base: va - BigInt(startByte) }, startByte, length, writable, call, injector);
  }

  static ofFile(
    file: OpenFile,
    start: bigint,
    length: bigint,
    writable: boolean,
    call: CallContext,
    injector: Injector,
  ): UserPages | number {
    if (injector.allocation("pages")) return -ENOMEM;
    const startByte = Number(start % PAGE_BYTES);
    const firstPage = Number((start - BigInt(startByte)) / PAGE_BYTES);
    // Only a file with pages is kept open: an iommufd mapped into itself would otherwise never be released (Linux leaks it).
    const pages = file.pages ?? null;
    const origin: Origin = { kind: "file", file: pages === null ? null : file.get(), pages, firstPage };
    return new UserPages(origin, startByte, length, writable, call, injector);
  }

  static ofDmaBuffer(
    file: OpenFile,
    buffer: DmaBuffer,
    start: bigint,
    length: bigint,
    writable: boolean,
    call: CallContext,
    injector: Injector,
  ): UserPages | number {
    if (buffer.bytes <= start + length - 1n) return -EINVAL;
    if (injector.allocation("pages")) return -ENOMEM;
    const runs = buffer.frames();
    if (typeof runs === "number") return runs;
    const startByte = Number(start % PAGE_BYTES);
    const origin: Origin = { kind: "dma-buf", file: file.get(), buffer, offset: start - BigInt(startByte) };
    const pages = new UserPages(origin, startByte, length, writable, call, injector);
    pages.accountMode = "none";
    pages.#dmaBufferRuns = runs;
    pages.#attachment = buffer.attach(() => pages.#revoke());
    return pages;
  }

  get isDmaBuffer(): boolean {
    return this.origin.kind === "dma-buf";
  }

  /** The exporter took the memory away; mappings made of it stay, but nothing is behind them any more. */
  get revoked(): boolean {
    return this.origin.kind === "dma-buf" && this.#dmaBufferRuns === null;
  }

  #revoke(): void {
    if (this.#dmaBufferRuns === null) return;
    for (const area of this.trackedAreas) area.unmapFromDomains();
    this.#dmaBufferRuns = null;
  }

  /** User address or file offset of a byte of the pages: the alignment that automatic IOVAs try to keep. */
  addressOf(byte: bigint): bigint {
    const { origin } = this;
    if (origin.kind === "memory") return origin.base + byte;
    return (origin.kind === "file" ? BigInt(origin.firstPage) * PAGE_BYTES : origin.offset) + byte;
  }

  get(): UserPages {
    this.#references++;
    return this;
  }

  put(): void {
    if (--this.#references > 0) return;
    if (!this.held.empty) throw new Error("pages are freed while pinned");
    this.#attachment?.detach();
    if (this.origin.kind !== "memory") this.origin.file?.put();
  }

  /** Pins pages [first, last] for one more holder: 0 or a negated errno. */
  hold(first: number, last: number): number {
    if (this.isDmaBuffer) return 0;
    return this.held.hold(first, last, this);
  }

  release(first: number, last: number): void {
    if (!this.isDmaBuffer) this.held.release(first, last, this);
  }

  /** Frames of held pages (of a dma-buf that is not revoked: any). */
  runs(first: number, last: number): FrameRun[] {
    if (this.origin.kind !== "dma-buf") return this.held.runs(first, last);
    const runs: FrameRun[] = [];
    let skip = Number(this.origin.offset / PAGE_BYTES) + first;
    let left = last - first + 1;
    for (const run of this.#dmaBufferRuns ?? []) {
      const count = Math.min(run.count - skip, left);
      if (count > 0) {
        runs.push({ frame: run.frame + skip, count });
        left -= count;
        skip = 0;
      } else {
        skip -= run.count;
      }
      if (left === 0) break;
    }
    return runs;
  }

  // --- PageSource ---

  pin(first: number, count: number): FrameRun[] | number {
    if (this.#injector.allocation("pin")) return -EFAULT;
    const runs = this.#pinFrames(first, count);
    if (typeof runs === "number") return runs;
    const charged = this.#injector.allocation("account") ? -ENOMEM : this.charge(count);
    if (charged < 0) {
      for (const run of runs) this.frames.pins.unpin(run);
      return charged;
    }
    this.pinned += count;
    return runs;
  }

  #pinFrames(first: number, count: number): FrameRun[] | number {
    const { origin } = this;
    switch (origin.kind) {
      case "memory":
        if (!this.memory.alive) return -EFAULT;
        return this.memory.pin(origin.base + BigInt(first) * PAGE_BYTES, count, this.writable);
      case "file":
        return origin.pages === null ? -EINVAL : origin.pages.pin(origin.firstPage + first, count);
      case "dma-buf":
        throw new Error("a dma-buf is not pinned page by page");
    }
  }

  unpin(run: FrameRun): void {
    this.frames.pins.unpin(run);
    this.pinned -= run.count;
    this.uncharge(run.count);
  }

  /** Accounts `count` more pages to the process: -ENOMEM past its limit. */
  charge(count: number): number {
    return charge(this.accountMode, this.process, this.memory, this.user, count);
  }

  uncharge(count: number): void {
    uncharge(this.accountMode, this.memory, this.user, count);
  }

  // --- state: saved by whoever has the tables (mappings-state.ts) ---

  /** Pages of the same name show the same memory. */
  nameIn(names: ObjectNames): string {
    const { origin } = this;
    const of =
      origin.kind === "memory"
        ? (names.nameOfProcess(this.process) ?? "an ended process")
        : origin.file === null
          ? "no pages"
          : (names.nameOfFile(origin.file) ?? origin.file.path);
    const rights = this.writable ? "writable" : "read-only";
    return `${this.pageCount} ${rights} pages of ${of}, ${origin.kind}, from 0x${this.addressOf(0n).toString(16)}`;
  }

  saved(names: ObjectNames): StateRecord {
    const { origin } = this;
    return {
      name: this.nameIn(names),
      kind: origin.kind,
      from: this.addressOf(0n),
      file: origin.kind === "memory" || origin.file === null ? null : names.nameOfFile(origin.file),
      process: names.nameOfProcess(this.process),
      writable: this.writable,
      pageCount: this.pageCount,
      accountMode: this.accountMode,
      pinned: this.pinned,
      held: this.held.saveState(),
    };
  }

  /** Pages as `saved` wrote them, with nothing held yet: `restore` follows. Throws StateError where process or file are not here. */
  static fromState(state: StateReader, names: ObjectNames, injector: Injector): UserPages {
    const name = state.text("name");
    const process = state.optional("process", (reader, field) => names.processNamed(reader.text(field)));
    if (process === null) throw new StateError(`${state.path}: there are no ${name} here`);
    const from = state.bigint("from");
    let origin: Origin = { kind: "memory", base: from };
    if (state.text("kind") !== "memory") {
      const file = state.optional("file", (reader, field) => names.fileNamed(reader.text(field)));
      const pages = file?.pages ?? null;
      if (state.text("kind") !== "file" || pages === null)
        throw new StateError(`${state.path}: there are no ${name} here`);
      origin = { kind: "file", file, pages, firstPage: Number(from / PAGE_BYTES) };
    }
    const length = BigInt(state.number("pageCount")) * PAGE_BYTES;
    return new UserPages(origin, 0, length, state.boolean("writable"), process, injector);
  }

  /** Takes counts and pins over; its areas follow (`shownBy`). */
  restore(state: StateReader): void {
    const mode = state.text("accountMode");
    if (mode !== "none" && mode !== "user" && mode !== "memory") state.fail("accountMode", "is unknown");
    this.accountMode = mode;
    this.pinned = state.number("pinned");
    this.held.restoreState(state.record("held"));
    this.#references = 0;
    this.trackedAreas.clear();
  }

  /** A restored area shows these pages. */
  shownBy(area: Area): void {
    this.#references++;
    if (area.filled) this.trackedAreas.add(area);
  }
}

/** Accounts pinned pages in one of the modes: -ENOMEM past RLIMIT_MEMLOCK, -EINVAL when the memory is gone. */
export function charge(
  mode: AccountMode,
  process: CallContext,
  memory: AddressSpace,
  user: UserAccount,
  count: number,
): number {
  const limit = Math.floor(process.memlockLimit / PAGE);
  if (mode === "user") {
    if (user.lockedPages + count > limit) return -ENOMEM;
    user.lockedPages += count;
  } else if (mode === "memory") {
    if (!memory.alive) return -EINVAL;
    if (memory.lockedPages + count > limit) return -ENOMEM;
    memory.lockedPages += count;
  }
  memory.pinnedPages += count;
  return 0;
}

export function uncharge(mode: AccountMode, memory: AddressSpace, user: UserAccount, count: number): void {
  if (mode === "user") user.lockedPages -= count;
  else if (mode === "memory") memory.lockedPages -= count;
  memory.pinnedPages -= count;
}
