// A million pages, asked for in random order: no cache of a reasonable size helps, and the leaf tables of two stages, 8 MiB each, lie beyond a processor's caches.
// What remains is two loads, one after the other: `twoLoads` is those alone, in the same order, over as much memory.

import type { HpaPfn } from "../../../host/base/address.ts";
import type { PhysicalMemory } from "../../../host/base/memory.ts";

export const MILLION = 2 ** 20;

/** ns of a translation, as the project wants them: found in the IOTLB; walks of three levels over three, four over four; of the next of a million pages. */
export const GOALS = { hit: 15, threeOverThree: 70, fourOverFour: 100, randomMillion: 200 } as const;

/**
 * Maps a million pages by filling each table that a first mapping makes: `map` maps one page and says where its leaf is, `targetAt` is the bit of the leaf
 * at which the target's frame number begins. Pages that follow each other go to frames that do.
 */
export function mapMillion(
  memory: PhysicalMemory<HpaPfn>,
  map: (page: number) => { readonly frame: number; readonly offset: number },
  targetAt: number,
): void {
  for (let page = 0; page < MILLION; page += 512) {
    const { frame, offset } = map(page);
    memory.load64(frame as HpaPfn, offset);
    const { lo, hi } = memory;
    for (let i = 1; i < 512; i++) {
      const low = lo + i * 2 ** targetAt;
      memory.store64(frame as HpaPfn, offset + 8 * i, low >>> 0, hi + Math.floor(low / 2 ** 32));
    }
  }
}

/** The next page of the random order, below a million, and the state it leaves: its upper bits are the page. */
export function nextRandom(state: number): number {
  return (Math.imul(state, 1664525) + 1013904223) | 0;
}

/** The loads that translating cannot do without: a first-stage leaf, and the second-stage leaf that it leads to. */
export function twoLoads(): (count: number) => number {
  const words = new Int32Array(8 * MILLION);
  const [first, second] = [MILLION, 5 * MILLION];
  for (let page = 0; page < MILLION; page++) words[first + 2 * page] = page;
  let state = 1;
  return (count) => {
    let last = 0;
    for (let i = 0; i < count; i++) {
      state = nextRandom(state);
      // The next begins when this one has ended: `last` is 0.
      last = words[second + 2 * words[first + 2 * ((state >>> 12) | last)]!]!;
    }
    return last;
  };
}
