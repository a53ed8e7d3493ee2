import { describe, expect, it } from "vitest";
import { type AddressTag, AddressTags, GLOBAL, UNNUMBERED } from "../../../host/base/caches/address-tags.ts";
import { Stamps } from "../../../host/base/caches/stamps.ts";
import { CLASS_SHIFTS, ORIGIN_AT, ORIGIN_BITS, TranslationCache } from "../../../host/base/caches/translation-cache.ts";
import { SeededRandom } from "../../../host/base/seeded-random.ts";
import { restoreTree, type Stateful, saveTree } from "../../../host/base/state.ts";

/** Caches as an IOMMU has them: what is saved comes in this order. */
class Caches implements Stateful {
  readonly stamps = new Stamps();
  readonly tags = new AddressTags(this.stamps);
  readonly translations: TranslationCache;

  constructor(entries: number) {
    this.translations = new TranslationCache(entries, this.tags);
  }

  saveState() {
    return {};
  }

  restoreState() {}

  stateParts(): [string, Stateful][] {
    return [
      ["stamps", this.stamps],
      ["tags", this.tags],
      ["translations", this.translations],
    ];
  }

  /** Keeps a page (class 0) that was a leaf. */
  page(tag: AddressTag, pfn: number): void {
    this.translations.insertPage(tag, pfn | 0, Math.floor(pfn / 2 ** 32), 0, 1);
  }

  holds(tag: AddressTag, pfn: number): boolean {
    return this.translations.find(tag, pfn | 0, Math.floor(pfn / 2 ** 32)) >= 0;
  }
}

describe("address tags", () => {
  it("find a space that was made, or dropped, since they were asked for it", () => {
    const { tags } = new Caches(64);
    expect(tags.first(1, 7)).toBeNull();
    const plain = tags.tagFor(1, 7, 0);
    expect(tags.first(1, 7)).toBe(plain);
    const variant = tags.tagFor(1, 7, 3);
    expect([tags.first(1, 7), variant.next]).toEqual([variant, plain]);
    expect(tags.first(2, 7)).toBeNull();
    expect(tags.first(1, 7)).toBe(variant);
    tags.dropAll();
    expect(tags.first(1, 7)).toBeNull();
  });

  it("forget a machine in all of its spaces and no other's", () => {
    const caches = new Caches(64);
    const mine = [7, 8, GLOBAL, UNNUMBERED].map((space) => caches.tags.tagFor(1, space, 0));
    const other = caches.tags.tagFor(2, 7, 0);
    for (const tag of [...mine, other]) caches.page(tag, 5);
    caches.tags.invalidateMachine(1);
    expect(mine.map((tag) => caches.holds(tag, 5))).toEqual([false, false, false, false]);
    expect(caches.holds(other, 5)).toBe(true);
  });

  it("give no new stamp to a space without entries: what forgetting costs was paid for by keeping", () => {
    const caches = new Caches(64);
    const empty = caches.tags.tagFor(1, 7, 0);
    const used = caches.tags.tagFor(1, 8, 0);
    const before = [empty.stamp, used.stamp];
    caches.page(used, 5);
    caches.tags.invalidateMachine(1);
    expect(empty.stamp).toBe(before[0]);
    expect(used.stamp).not.toBe(before[1]);
    const after = used.stamp;
    caches.tags.invalidateMachine(1);
    expect(used.stamp).toBe(after);
  });

  it("name each live machine once, also while they are forgotten one by one", () => {
    const caches = new Caches(64);
    for (const machine of [1, 2, 3, 4])
      for (const space of [7, 8]) caches.page(caches.tags.tagFor(machine, space, 0), 5);
    caches.tags.invalidateMachine(3);
    const seen: number[] = [];
    for (let each = caches.tags.firstMachine; each !== null; each = each.next) {
      seen.push(each.machine);
      if (each.machine !== 2) caches.tags.invalidateAll(each);
    }
    expect(seen.sort()).toEqual([1, 2, 4]);
    const left: number[] = [];
    for (let each = caches.tags.firstMachine; each !== null; each = each.next) left.push(each.machine);
    expect(left).toEqual([2]);
  });

  it("give out the same stamps after a restore as before it", () => {
    const caches = new Caches(64);
    for (const machine of [1, 2, 3])
      for (const space of [7, 8, 9]) caches.page(caches.tags.tagFor(machine, space, 0), 5);
    caches.tags.invalidateMachine(2);
    caches.page(caches.tags.tagFor(2, 9, 0), 6);
    const twin = new Caches(64);
    restoreTree(twin, saveTree(caches));
    for (const each of [caches, twin]) {
      for (let machine = each.tags.firstMachine; machine !== null; machine = machine.next)
        each.tags.invalidateAll(machine);
    }
    expect(saveTree(twin)).toEqual(saveTree(caches));
  });
});

interface Kept {
  readonly tag: AddressTag;
  readonly first: number;
  readonly size: number;
  readonly leaf: number;
  readonly origin: number;
}

describe("cached translations", () => {
  // Independent of where entries stand: a list of what was kept, and a command's meaning in one line.
  it.each([1, 2, 3, 4])("go if their leaf meets the range and is of the kind that is meant (seed %i)", (seed) => {
    const random = new SeededRandom(seed);
    const pick = (below: number): number => random.below(below);
    for (let round = 0; round < 300; round++) {
      const caches = new Caches(256);
      const spaces = [caches.tags.tagFor(1, 7, 0), caches.tags.tagFor(1, 8, 0)];
      const kept: Kept[] = [];
      for (let i = 0; i < 12; i++) {
        const tag = spaces[pick(2)]!;
        const leaf = pick(6);
        const size = pick(leaf + 1);
        const pages = 2 ** CLASS_SHIFTS[size]!;
        const pfn = pick(4) * 2 ** 34 + pick(2 ** 15);
        const first = pfn - (pfn % pages);
        const origin = pick(3);
        caches.translations.insert(tag, pfn | 0, Math.floor(pfn / 2 ** 32), size, leaf, 0, origin << ORIGIN_AT);
        kept.push({ tag, first, size, leaf, origin });
      }
      const start = pick(4) * 2 ** 34 + pick(2 ** 15);
      const pages = [1, 3, 512, 5000, 2 ** 30, 2 ** 35][pick(6)]!;
      const exact = pick(2) === 0;
      const origin = pick(3);
      const tag = spaces[0]!;
      caches.translations.invalidatePages(tag, start, pages, exact ? ORIGIN_BITS : 0, exact ? origin << ORIGIN_AT : 0);
      for (const entry of kept) {
        const span = 2 ** CLASS_SHIFTS[entry.leaf]!;
        const leafStart = entry.first - (entry.first % span);
        const meets = leafStart < start + pages && start < leafStart + span;
        const goes = entry.tag === tag && meets && (!exact || entry.origin === origin);
        const covered = kept.some((other) => other !== entry && other.tag === entry.tag && overlap(other, entry));
        // Where entries lie over each other, one may answer for the other.
        if (!covered) expect(caches.holds(entry.tag, entry.first)).toBe(!goes);
      }
    }
  });

  it.each([0, 3, 9])("lead each frame of a block of class %i as far", (size) => {
    const caches = new Caches(64);
    const tag = caches.tags.tagFor(1, 7, 0);
    const pages = 2 ** CLASS_SHIFTS[size]!;
    const [from, to] = [pages * 5, pages * 2];
    const asked = from + pages - 1;
    caches.translations.insert(tag, asked | 0, Math.floor(asked / 2 ** 32), size, size, to - from, 1);
    for (const frame of [from, asked, from + Math.floor(pages / 3)])
      expect(caches.translations.frameOf(tag, frame)).toBe(frame - from + to);
    for (const frame of [from - 1, from + pages]) expect(caches.translations.frameOf(tag, frame)).toBe(-1);
  });

  it.each([0.5, Number.NaN, Number.POSITIVE_INFINITY, -6, 2 ** 52])(
    "are not restored from a document in which they lead %d frames away",
    (distance) => {
      const caches = new Caches(64);
      const tag = caches.tags.tagFor(1, 7, 0);
      const keep = (distance: number): void => caches.translations.insertPage(tag, 5, 0, distance, 1);
      keep(-5);
      restoreTree(new Caches(64), saveTree(caches));
      keep(distance);
      expect(() => restoreTree(new Caches(64), saveTree(caches))).toThrow("to no frame");
    },
  );
});

function overlap(a: Kept, b: Kept): boolean {
  return a.first < b.first + 2 ** CLASS_SHIFTS[b.size]! && b.first < a.first + 2 ** CLASS_SHIFTS[a.size]!;
}
