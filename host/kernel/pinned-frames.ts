// Pin counts of page frames (Linux keeps them in each page's reference count): how often pin_user_pages has pinned a frame.
//
// Counts are kept for chunks of 512 consecutive frames, so that pinning a contiguous gigabyte costs 512 steps: a chunk whose
// frames all have one count keeps just that number; it gets an array only when they differ.

import { bytesOf, type Stateful, type StateReader, type StateRecord } from "../base/state.ts";
import type { FrameRun, PinCounts } from "./file.ts";

const CHUNK = 512;

interface Chunk {
  /** The count of every frame while `counts` is null. */
  uniform: number;
  counts: Uint32Array | null;
  /** Sum over the chunk, to drop it at zero. */
  sum: number;
}

export class PinnedFrames implements PinCounts, Stateful {
  readonly #chunks = new Map<number, Chunk>();
  #total = 0;

  get total(): number {
    return this.#total;
  }

  pin(run: FrameRun): void {
    this.#add(run, 1);
  }

  /** Throws if a frame of the run is not pinned: a bug of the kernel model. */
  unpin(run: FrameRun): void {
    this.#add(run, -1);
  }

  countOf(frame: number): number {
    const chunk = this.#chunks.get(Math.floor(frame / CHUNK));
    if (chunk === undefined) return 0;
    return chunk.counts === null ? chunk.uniform : chunk.counts[frame % CHUNK]!;
  }

  #add(run: FrameRun, by: 1 | -1): void {
    let frame = run.frame;
    const end = run.frame + run.count;
    while (frame < end) {
      const key = Math.floor(frame / CHUNK);
      const first = frame % CHUNK;
      const count = Math.min(CHUNK - first, end - frame);
      this.#addToChunk(key, first, count, by);
      frame += count;
    }
    this.#total += by * run.count;
  }

  #addToChunk(key: number, first: number, count: number, by: 1 | -1): void {
    let chunk = this.#chunks.get(key);
    if (chunk === undefined) {
      if (by < 0) throw new Error(`frame ${key * CHUNK + first} is not pinned`);
      chunk = { uniform: 0, counts: null, sum: 0 };
      this.#chunks.set(key, chunk);
    }
    if (chunk.counts === null && count === CHUNK) {
      if (by < 0 && chunk.uniform === 0) throw new Error(`frame ${key * CHUNK} is not pinned`);
      chunk.uniform += by;
    } else {
      chunk.counts ??= new Uint32Array(CHUNK).fill(chunk.uniform);
      for (let i = first; i < first + count; i++) {
        if (by < 0 && chunk.counts[i] === 0) throw new Error(`frame ${key * CHUNK + i} is not pinned`);
        chunk.counts[i]! += by;
      }
    }
    chunk.sum += by * count;
    if (chunk.sum === 0) this.#chunks.delete(key);
  }

  saveState(): StateRecord {
    const chunks = [...this.#chunks].map(([key, { uniform, counts, sum }]) => ({
      key,
      uniform,
      counts: counts === null ? null : bytesOf(counts),
      sum,
    }));
    return { total: this.#total, chunks };
  }

  restoreState(state: StateReader): void {
    this.#chunks.clear();
    for (const saved of state.records("chunks")) {
      const counts = saved.optional("counts", (reader, name) => {
        const restored = new Uint32Array(CHUNK);
        reader.memory(name, restored);
        return restored;
      });
      this.#chunks.set(saved.number("key"), { uniform: saved.number("uniform"), counts, sum: saved.number("sum") });
    }
    this.#total = state.number("total");
  }
}
