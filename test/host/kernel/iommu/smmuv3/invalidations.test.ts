// Which commands drop translations, and how they are filled in (IHI 0070 §4.4, §4.5.1; Linux: arm_smmu_domain_inv_range and what it calls).

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { decodeCommand } from "../../../../../host/arch/smmuv3/commands.ts";
import type { CommandQueue } from "../../../../../host/kernel/iommu/smmuv3/command-queue.ts";
import {
  dropDevice,
  dropDevicePasids,
  dropDeviceRange,
  dropFirstStage,
  dropSecondStage,
  type Unmapped,
} from "../../../../../host/kernel/iommu/smmuv3/invalidations.ts";

interface Seen {
  readonly name: string | null;
  readonly fields: Readonly<Record<string, bigint>>;
}

/** The commands that `drop` pushes, decoded: fields that are 0 left out. None may have a bit that is reserved. */
function commandsOf(drop: (queue: CommandQueue) => void): Record<string, unknown>[] {
  return rawCommandsOf(drop).map(({ name, fields }) => {
    const shown = Object.entries(fields).filter(([field, value]) => value !== 0n && field !== "opcode");
    return { name, ...Object.fromEntries(shown.map(([field, value]) => [field, Number(value)])) };
  });
}

function rawCommandsOf(drop: (queue: CommandQueue) => void): Seen[] {
  const seen: Seen[] = [];
  const queue = {
    pushHalves(w0: number, w1: number, w2: number, w3: number) {
      const word = (lo: number, hi: number) => (BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0);
      const { name, fields, reservedBits } = decodeCommand(word(w0, w1), word(w2, w3));
      expect(reservedBits).toBe(false);
      seen.push({ name, fields });
    },
  };
  drop(queue as unknown as CommandQueue);
  return seen;
}

const unmapped = (firstPage: number, pages: number, granule = 12, leaf = 0): Unmapped => ({
  firstPage,
  pages,
  granule,
  leaf,
});
const stage1 = (what: Unmapped, ranges: boolean, el2 = false) =>
  commandsOf((queue) => dropFirstStage(queue, 0x123, el2, what, ranges));
const stage2 = (what: Unmapped, ranges: boolean) => commandsOf((queue) => dropSecondStage(queue, 0x45, what, ranges));

describe("an unmap of stage 1", () => {
  it("with ranges is one command for a count of five bits, at any scale", () => {
    // TG 1: 4 KiB. TTL 3: the leaves are of the last level.
    const base = { name: "TLBI_NH_VA", ASID: 0x123, Leaf: 1, TTL: 3, TG: 1, Address: 0x1000 };
    expect(stage1(unmapped(0x1000, 1, 12, 12), true)).toEqual([base]);
    expect(stage1(unmapped(0x1000, 31, 12, 12), true)).toEqual([{ ...base, NUM: 30 }]);
    expect(stage1(unmapped(0x1000, 32, 12, 12), true)).toEqual([{ ...base, SCALE: 5 }]);
    expect(stage1(unmapped(0x1000, 3 * 2 ** 14, 12, 12), true)).toEqual([{ ...base, NUM: 2, SCALE: 14 }]);
  });

  it("with ranges takes the count apart from its lowest bits up", () => {
    // 0x421 pages: 1, then 0x21 << 5: 1 << 5, then 1 << 10.
    const base = { name: "TLBI_NH_VA", ASID: 0x123, Leaf: 1, TTL: 3, TG: 1 };
    expect(stage1(unmapped(0x1000, 0x421, 12, 12), true)).toEqual([
      { ...base, Address: 0x1000 },
      { ...base, Address: 0x1001, SCALE: 5 },
      { ...base, Address: 0x1021, SCALE: 10 },
    ]);
  });

  it("says the level of blocks, in each granule", () => {
    const of = (granule: number, leaf: number) => stage1(unmapped(0, 2 ** (leaf - 12), granule, leaf), true)[0]!;
    expect(of(12, 21)).toMatchObject({ TTL: 2, TG: 1, SCALE: 9 });
    expect(of(12, 30)).toMatchObject({ TTL: 1, TG: 1, SCALE: 18 });
    expect(of(14, 25)).toMatchObject({ TTL: 2, TG: 2, SCALE: 11 });
    expect(of(16, 29)).toMatchObject({ TTL: 2, TG: 3, SCALE: 13 });
  });

  it("without a level never says NUM, SCALE and TTL 0 at once, which is Reserved (§4.4.1.1): a page more", () => {
    // Linux bumps a count whose low five bits are 1.
    const base = { name: "TLBI_NH_VA", ASID: 0x123, TG: 1, Address: 0x10 };
    expect(stage1(unmapped(0x10, 1), true)).toEqual([{ ...base, SCALE: 1 }]);
    expect(stage1(unmapped(0x10, 33), true)).toEqual([{ ...base, NUM: 16, SCALE: 1 }]);
    expect(stage1(unmapped(0x10, 3), true)).toEqual([{ ...base, NUM: 2 }]);
  });

  it("without ranges is a command a leaf, and the whole ASID from a table's worth on", () => {
    const base = { name: "TLBI_NH_VA", ASID: 0x123, Leaf: 1 };
    expect(stage1(unmapped(0x10, 3, 12, 12), false)).toEqual(
      [0x10, 0x11, 0x12].map((Address) => ({ ...base, Address })),
    );
    expect(stage1(unmapped(0x10, 511, 12, 12), false).length).toBe(511);
    expect(stage1(unmapped(0x10, 512, 12, 12), false)).toEqual([{ name: "TLBI_NH_ASID", ASID: 0x123 }]);
    // 64 KiB: 8192 of them.
    expect(stage1(unmapped(0, 16 * 8191, 16, 16), false).length).toBe(8191);
    expect(stage1(unmapped(0, 16 * 8192, 16, 16), false)).toEqual([{ name: "TLBI_NH_ASID", ASID: 0x123 }]);
  });

  it("at EL2 with E2H uses EL2's commands", () => {
    expect(stage1(unmapped(0x10, 3, 12, 12), true, true)).toMatchObject([{ name: "TLBI_EL2_VA", ASID: 0x123, NUM: 2 }]);
    expect(stage1(unmapped(0x10, 512, 12, 12), false, true)).toEqual([{ name: "TLBI_EL2_ASID", ASID: 0x123 }]);
  });
});

describe("an unmap of stage 2", () => {
  it("is by IPA, or the whole VMID", () => {
    const base = { name: "TLBI_S2_IPA", VMID: 0x45, Leaf: 1 };
    expect(stage2(unmapped(0x10, 6, 12, 12), true)).toEqual([
      { ...base, TG: 1, TTL: 3, NUM: 2, SCALE: 1, Address: 0x10 },
    ]);
    expect(stage2(unmapped(0x10, 1, 12, 12), false)).toEqual([{ ...base, Address: 0x10 }]);
    expect(stage2(unmapped(0, 512, 12, 12), false)).toEqual([{ name: "TLBI_S12_VMALL", VMID: 0x45 }]);
  });
});

describe("whatever range it is", () => {
  const granules = fc.constantFrom(12, 14, 16);
  const range = fc.tuple(
    granules,
    fc.nat(2 ** 24),
    fc.oneof(fc.integer({ min: 1, max: 200 }), fc.integer({ min: 1, max: 2 ** 34 })),
  );

  it("the commands together name it, in order, from its first page to its last, and at most one granule more", () => {
    fc.assert(
      fc.property(range, fc.boolean(), ([granule, first, count], hinted) => {
        const per = 2 ** (granule - 12);
        const what = unmapped(first * per, count * per, granule, hinted ? granule : 0);
        const seen = rawCommandsOf((queue) => dropFirstStage(queue, 1, false, what, true));
        let at = BigInt(first);
        for (const { fields } of seen) {
          expect(fields.Address! / BigInt(per)).toBe(at);
          expect(fields.TG).toBe(BigInt((granule - 10) / 2));
          at += (fields.NUM! + 1n) << fields.SCALE!;
          if (!hinted) expect(fields.NUM! | fields.SCALE!).not.toBe(0n);
        }
        const end = BigInt(first) + BigInt(count);
        expect(at === end || (!hinted && at === end + 1n)).toBe(true);
      }),
    );
  });
});

describe("what a device holds", () => {
  it("is dropped by the smallest power of two of pages around the range", () => {
    const of = (first: number, pages: number, substream = 0) =>
      commandsOf((queue) => dropDeviceRange(queue, 0x2_0108, substream, first, pages));
    const base = { name: "ATC_INV", SID: 0x2_0108 };
    expect(of(7, 1)).toEqual([{ ...base, Address: 7 }]);
    // The example of Linux's comment: pages 7 to 10 are in 0 to 15.
    expect(of(7, 4)).toEqual([{ ...base, Size: 4 }]);
    expect(of(8, 4)).toEqual([{ ...base, Size: 2, Address: 8 }]);
    expect(of(0x8_0000_0000, 2, 5)).toEqual([{ ...base, SSV: 1, SSID: 5, Size: 1, Address: 0x8_0000_0000 }]);
  });

  it("is dropped as a whole by Size 52, without PASID, for one, and for all", () => {
    const base = { name: "ATC_INV", SID: 0x108, Size: 52 };
    expect(commandsOf((queue) => dropDevice(queue, 0x108, 0))).toEqual([base]);
    expect(commandsOf((queue) => dropDevice(queue, 0x108, 0xf_ffff))).toEqual([{ ...base, SSV: 1, SSID: 0xf_ffff }]);
    expect(commandsOf((queue) => dropDevicePasids(queue, 0x108))).toEqual([{ ...base, SSV: 1, Global: 1 }]);
  });
});
