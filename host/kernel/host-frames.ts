// The host's page frames: who may use which page of physical memory, and how often each is pinned for DMA.
//
// Two sources of frames. RAM: one bank that the kernel allocates from (page tables, queues, a process's plain memory), first fit
// over an ordered list of free runs. Lent buffers: memory a process already has (a VM's RAM) becomes a bank of its own at a fresh
// host-physical base, never reused, with a gap before the next one, so that a stray address hits nothing. Bases are aligned so that
// large leaves are possible, and lie far above any guest-physical address.
//
// Memory given back while pinned stays where it is until the last pin goes.

import { type HpaPfn, PAGE_SIZE } from "../base/address.ts";
import { ACCESS_OK, type PhysicalMemory, type RemoteMemory } from "../base/memory.ts";
import type { Stateful, StateReader, StateRecord } from "../base/state.ts";
import { EFAULT, EINVAL, ENOMEM } from "../uapi/errno.ts";
import type { FrameMemory, FrameRun, PinCounts } from "./file.ts";
import { PinnedFrames } from "./pinned-frames.ts";
import { refillList, requireSame, textsOf } from "./same-objects.ts";

/** Pages of 2 MiB and 1 GiB. */
const MEGAPAGE = 512;
const GIGAPAGE = 512 * 512;
/**
 * First host-physical page frame of lent buffers: 512 GiB, above every device window of the machine, plus an odd 2 MiB, so that no guest
 * address is its own host address.
 */
const LENT_BASE = 2 ** 27 + 0x2c5 * MEGAPAGE;
/** One more than the last page frame that a 46-bit physical address names. */
const LENT_END = 2 ** 34;

interface FreeRun {
  frame: number;
  count: number;
}

interface Departed extends FrameRun {
  /** A lent buffer; else pages of RAM. */
  readonly lent: boolean;
}

export class HostFrames implements FrameMemory, Stateful {
  readonly memory: PhysicalMemory<HpaPfn>;
  readonly pins: PinCounts;
  readonly #counts = new PinnedFrames();
  readonly #free: FreeRun[];
  readonly #ramPages: number;
  #freePages: number;
  #nextLent = LENT_BASE;
  readonly #departed: Departed[] = [];
  #lent = 0;

  /** `ram` is a bank of `memory` that the kernel may use all of. */
  constructor(memory: PhysicalMemory<HpaPfn>, ram: { readonly base: HpaPfn; readonly pages: number }) {
    this.memory = memory;
    this.#free = [{ frame: ram.base, count: ram.pages }];
    this.#ramPages = this.#freePages = ram.pages;
    const counts = this.#counts;
    this.pins = {
      pin: (run) => counts.pin(run),
      unpin: (run) => {
        counts.unpin(run);
        if (this.#departed.length > 0) this.#reap();
      },
      countOf: (frame) => counts.countOf(frame),
      get total() {
        return counts.total;
      },
    };
  }

  /** Pages of RAM in use by the kernel and by processes. */
  get usedPages(): number {
    return this.#ramPages - this.#freePages;
  }

  /** Buffers lent to the host at present, those only held by pins included. */
  get lentBuffers(): number {
    return this.#lent;
  }

  /** `pages` contiguous zeroed frames of RAM, the first a multiple of `alignment` pages; or -ENOMEM. */
  allocate(pages = 1, alignment = 1): HpaPfn | number {
    for (const [index, run] of this.#free.entries()) {
      const start = Math.ceil(run.frame / alignment) * alignment;
      const before = start - run.frame;
      if (run.count - before < pages) continue;
      const after = run.count - before - pages;
      const rest: FreeRun[] = [];
      if (before > 0) rest.push({ frame: run.frame, count: before });
      if (after > 0) rest.push({ frame: start + pages, count: after });
      this.#free.splice(index, 1, ...rest);
      this.#freePages -= pages;
      this.#zero(start, pages);
      return start as HpaPfn;
    }
    return -ENOMEM;
  }

  /** Gives frames back; those pinned are kept until the last pin goes. */
  release(frame: HpaPfn, pages = 1): void {
    this.#depart({ frame, count: pages, lent: false });
  }

  /** Makes a window of `buffer` a bank of host memory; its first frame, -EINVAL (not whole pages) or -ENOMEM. */
  lend(buffer: ArrayBufferLike, offset: number, length: number): HpaPfn | number {
    const pages = length / PAGE_SIZE;
    if (pages <= 0 || !Number.isInteger(pages) || !Number.isInteger(offset / PAGE_SIZE)) return -EINVAL;
    if (offset < 0 || offset + length > buffer.byteLength) return -EINVAL;
    const alignment = pages >= GIGAPAGE ? GIGAPAGE : MEGAPAGE;
    const base = Math.ceil(this.#nextLent / alignment) * alignment;
    if (base + pages > LENT_END) return -ENOMEM;
    this.#nextLent = base + pages + 3 * MEGAPAGE;
    this.memory.addBank(base as HpaPfn, buffer, offset, length);
    this.#lent++;
    return base as HpaPfn;
  }

  /**
   * Makes memory of another process a bank of host memory: its first frame, or -ENOMEM. `phase` is the place of its first page in a large page
   * (a user page number), so that large leaves are possible where user addresses allow them.
   */
  lendRemote(pages: number, phase: number, memory: RemoteMemory): HpaPfn | number {
    const alignment = pages >= GIGAPAGE ? GIGAPAGE : MEGAPAGE;
    const base = Math.ceil(this.#nextLent / alignment) * alignment + (phase % alignment);
    if (base + pages > LENT_END) return -ENOMEM;
    this.#nextLent = base + pages + 3 * MEGAPAGE;
    this.memory.addRemote(base as HpaPfn, pages, memory);
    return base as HpaPfn;
  }

  /** Ends what `lendRemote` began; nothing of it may be pinned. */
  takeBackRemote(base: HpaPfn): void {
    this.memory.removeRemote(base);
  }

  /** Ends what `lend` began, once nothing of it is pinned. */
  takeBack(base: HpaPfn, pages: number): void {
    this.#depart({ frame: base, count: pages, lent: true });
  }

  /** Bytes of contiguous frames, as one view. */
  view(frame: HpaPfn, pages: number): Uint8Array {
    for (const bank of this.memory.banks) {
      const first = frame - bank.basePfn;
      if (first >= 0 && first + pages <= bank.pages) {
        return bank.bytes.subarray(first * PAGE_SIZE, (first + pages) * PAGE_SIZE);
      }
    }
    throw new Error(`no memory bank holds ${pages} pages from frame ${frame}`);
  }

  read(frame: number, offset: number, into: Uint8Array): number {
    const status = this.memory.read(frame as HpaPfn, offset, into, 0, into.length);
    return status === ACCESS_OK ? 0 : -EFAULT;
  }

  write(frame: number, offset: number, from: Uint8Array): number {
    const status = this.memory.write(frame as HpaPfn, offset, from, 0, from.length);
    return status === ACCESS_OK ? 0 : -EFAULT;
  }

  #zero(frame: number, pages: number): void {
    this.view(frame as HpaPfn, pages).fill(0);
  }

  #depart(departed: Departed): void {
    if (this.#pinned(departed)) this.#departed.push(departed);
    else this.#reclaim(departed);
  }

  #reclaim({ frame, count, lent }: Departed): void {
    if (!lent) {
      this.#insertFree(frame, count);
      return;
    }
    this.memory.removeBank(frame as HpaPfn);
    this.#lent--;
  }

  #reap(): void {
    for (let i = this.#departed.length - 1; i >= 0; i--) {
      const departed = this.#departed[i]!;
      if (this.#pinned(departed)) continue;
      this.#departed.splice(i, 1);
      this.#reclaim(departed);
    }
  }

  #pinned(run: FrameRun): boolean {
    if (this.#counts.total === 0) return false;
    for (let frame = run.frame; frame < run.frame + run.count; frame++) {
      if (this.#counts.countOf(frame) > 0) return true;
    }
    return false;
  }

  #insertFree(frame: number, count: number): void {
    const free = this.#free;
    let low = 0;
    let high = free.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (free[middle]!.frame < frame) low = middle + 1;
      else high = middle;
    }
    const before = free[low - 1];
    const after = free[low];
    if (
      (before !== undefined && before.frame + before.count > frame) ||
      (after !== undefined && frame + count > after.frame)
    ) {
      throw new Error(`page frames from ${frame} are free already`);
    }
    this.#freePages += count;
    const joinsBefore = before !== undefined && before.frame + before.count === frame;
    const joinsAfter = after !== undefined && frame + count === after.frame;
    if (joinsBefore && joinsAfter) {
      before.count += count + after.count;
      free.splice(low, 1);
    } else if (joinsBefore) {
      before.count += count;
    } else if (joinsAfter) {
      after.frame = frame;
      after.count += count;
    } else {
      free.splice(low, 0, { frame, count });
    }
  }

  /** Memory itself is its owner's: RAM the machine's, a lent buffer its process's. Which buffers are lent must be the same. */
  saveState(): StateRecord {
    return {
      free: this.#free.map(({ frame, count }) => ({ frame, count })),
      freePages: this.#freePages,
      nextLent: this.#nextLent,
      lent: this.#lent,
      departed: this.#departed.map(({ frame, count, lent }) => ({ frame, count, lent })),
      lentBanks: this.#lentBanks(),
    };
  }

  restoreState(state: StateReader): void {
    requireSame(state, this.#lentBanks(), textsOf(state, "lentBanks"));
    const runs = state.records("free").map((run) => ({ frame: run.number("frame"), count: run.number("count") }));
    refillList(this.#free, runs);
    this.#freePages = state.number("freePages");
    this.#nextLent = state.number("nextLent");
    this.#lent = state.number("lent");
    const departed = state.records("departed").map((run) => ({
      frame: run.number("frame"),
      count: run.number("count"),
      lent: run.boolean("lent"),
    }));
    refillList(this.#departed, departed);
  }

  *stateParts(): Generator<readonly [string, Stateful]> {
    yield ["pins", this.#counts];
  }

  #lentBanks(): string[] {
    return this.memory.banks
      .filter(({ basePfn }) => basePfn >= LENT_BASE)
      .map(({ basePfn, pages }) => `buffer of ${pages} pages at frame 0x${basePfn.toString(16)}`);
  }
}
