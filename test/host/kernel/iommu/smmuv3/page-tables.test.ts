// The driver's page tables, of every granule and both stages, judged by the hardware model that walks and caches them: what is mapped is
// translated so, what was unmapped is refused once `sync` has returned. A plain map says what should be.

import { describe, expect, it } from "vitest";
import { NO_PASID } from "../../../../../host/devices/ports.ts";
import { ACCESS_EXECUTE, ACCESS_READ, ACCESS_WRITE, REFUSED, TRANSLATED } from "../../../../../host/hw/iommu/port.ts";
import type { Smmuv3Options } from "../../../../../host/hw/iommu/smmuv3/options.ts";
import {
  IOMMU_CACHE,
  IOMMU_NOEXEC,
  IOMMU_READ,
  IOMMU_WRITE,
  type IommuDevice,
  type PagingDomain,
} from "../../../../../host/kernel/iommu/driver.ts";
import { EEXIST, EINVAL, ERANGE } from "../../../../../host/uapi/errno.ts";
import * as I from "../../../../../host/uapi/iommufd.ts";
import { machine, name } from "../../machine.ts";

const RID = 0x0108;
const RW = IOMMU_READ | IOMMU_WRITE | IOMMU_CACHE;
const PAGE = 4096n;

/** A domain of this kind with the device on it. */
function attached(options: Smmuv3Options, flags: number, devices = [{ rid: RID }]) {
  const host = machine({ smmus: [options], devices, ramPages: 8192 });
  if (host.problems.length > 0) throw new Error(host.problems.join("; "));
  const hardware = host.iommus[0]!;
  const { iommu: core, iommuHardware } = host.kernel;
  const driver = iommuHardware.driverOf(hardware)!;
  const device: IommuDevice = core.deviceNamed(name(RID))!;
  const domain = driver.allocPaging(device, flags, null) as PagingDomain;
  if (typeof domain === "number") throw new Error(`no domain: ${domain}`);
  const group = core.groupOf(device)!;
  expect(group.claim(host)).toBe(0);
  expect(group.attach({ domain, onPageRequests: null })).toBe(0);
  const translate = (page: number, access: number): number => {
    const status = hardware.translate(RID, NO_PASID, false, access, page, 0, false, -1);
    return status === TRANSLATED ? hardware.resultPfn : status === REFUSED ? -1 : -2;
  };
  return { host, core, group, device, domain, translate };
}

interface Random {
  below(limit: number): number;
}

function xorshift(seed: number): Random {
  let x = seed;
  return {
    below(limit) {
      x ^= x << 13;
      x ^= x >>> 17;
      x ^= x << 5;
      return (x >>> 0) % limit;
    },
  };
}

const STAGES: [string, number][] = [
  ["stage 1", 0],
  ["stage 2", I.IOMMU_HWPT_ALLOC_NEST_PARENT],
  ["stage 1 with dirty tracking", I.IOMMU_HWPT_ALLOC_DIRTY_TRACKING],
];
const only = (granule: "GRAN4K" | "GRAN16K" | "GRAN64K", more: object = {}): Smmuv3Options => ({
  features: { GRAN4K: false, GRAN16K: false, GRAN64K: false, [granule]: true, ...more },
});
const HARDWARE: [string, Smmuv3Options, granule: number][] = [
  ["4 KiB, 48 bits", only("GRAN4K"), 12],
  ["4 KiB, 44 bits", only("GRAN4K", { OAS: 4 }), 12],
  ["4 KiB, 42 bits", only("GRAN4K", { OAS: 3 }), 12],
  ["4 KiB, 40 bits", only("GRAN4K", { OAS: 2 }), 12],
  ["4 KiB, 36 bits", only("GRAN4K", { OAS: 1 }), 12],
  ["4 KiB, 48 bits, no ranges", only("GRAN4K", { RIL: false }), 12],
  ["4 KiB, 48 bits, not at EL2", only("GRAN4K", { Hyp: false }), 12],
  ["16 KiB, 48 bits", only("GRAN16K"), 14],
  ["16 KiB, 44 bits", only("GRAN16K", { OAS: 4 }), 14],
  ["16 KiB, 40 bits", only("GRAN16K", { OAS: 2 }), 14],
  ["16 KiB, 36 bits", only("GRAN16K", { OAS: 1 }), 14],
  ["16 KiB, 48 bits, no ranges", only("GRAN16K", { RIL: false }), 14],
  ["64 KiB, 48 bits", only("GRAN64K"), 16],
  ["64 KiB, 42 bits", only("GRAN64K", { OAS: 3 }), 16],
  ["64 KiB, 36 bits", only("GRAN64K", { OAS: 1 }), 16],
  ["64 KiB, 48 bits, no ranges", only("GRAN64K", { RIL: false }), 16],
];

describe.each(HARDWARE)("tables of %s", (_name, options, granule) => {
  const granulePages = 2 ** (granule - 12);
  const blockPages = granulePages * 2 ** (granule - 3);

  it.each(STAGES)("of %s translate what is mapped and nothing that was unmapped", (_stage, flags) => {
    const { domain, translate } = attached(options, flags);
    const random = xorshift(granule * 977 + flags * 31 + 7);
    // Everything in units of the granule: a block has so many.
    const block = blockPages / granulePages;
    const unit = PAGE * BigInt(granulePages);
    const base = block * 3;
    const model = new Map<number, { output: number; protection: number }>();
    const places = Array.from({ length: 40 }, () => base + random.below(block * 4));
    for (let step = 0; step < 40; step++) {
      const aligned = random.below(3) === 0;
      const first = aligned ? base + block * random.below(4) : places[random.below(places.length)]!;
      const count = aligned ? block * (1 + random.below(2)) : 1 + random.below(12);
      if (random.below(5) < 3) {
        const output = aligned ? block * (5 + random.below(3)) : block * 8 + random.below(64);
        const protection = [RW, RW | IOMMU_NOEXEC, IOMMU_READ | IOMMU_CACHE][random.below(3)]!;
        const occupied = Array.from({ length: count }, (_, i) => first + i).some((at) => model.has(at));
        const result = domain.map(BigInt(first) * unit, BigInt(output) * unit, BigInt(count) * unit, protection);
        expect(result).toBe(occupied ? -EEXIST : 0);
        if (!occupied) for (let i = 0; i < count; i++) model.set(first + i, { output: output + i, protection });
      } else {
        let mapped = 0;
        for (let i = 0; i < count; i++) if (model.delete(first + i)) mapped++;
        expect(domain.unmap(BigInt(first) * unit, BigInt(count) * unit)).toBe(BigInt(mapped) * unit);
        domain.sync(BigInt(first) * unit, BigInt(count) * unit);
      }
      // Every place that was ever named, and the ends of what was changed just now; a page within the granule.
      for (const at of [...places, first, first + count - 1, first + count, first - 1]) {
        const within = at % granulePages;
        const page = at * granulePages + within;
        const is = model.get(at);
        const output = is === undefined ? -1 : is.output * granulePages + within;
        const writable = is !== undefined && (is.protection & IOMMU_WRITE) !== 0;
        const seen = [
          translate(page, ACCESS_READ),
          translate(page, ACCESS_WRITE),
          domain.iovaToPhys(BigInt(page) * PAGE),
        ];
        expect(seen).toEqual([output, writable ? output : -1, is === undefined ? null : BigInt(output) * PAGE]);
      }
    }
    const end = blockPages * 12;
    domain.unmap(0n, BigInt(end) * PAGE);
    domain.sync(0n, BigInt(end) * PAGE);
    for (const at of places) expect(translate(at * granulePages, ACCESS_READ)).toBe(-1);
  });

  it("use blocks where they can, and refuse what they cannot hold", () => {
    const { domain, host, translate } = attached(options, 0);
    const bytes = (pages: number) => BigInt(pages) * PAGE;
    const tables = () => host.kernel.live.of("page-table page");
    expect(domain.pageSizes & (PAGE * BigInt(granulePages))).not.toBe(0n);
    expect(domain.pageSizes & bytes(blockPages)).not.toBe(0n);
    expect(domain.map(bytes(blockPages), bytes(blockPages * 2), bytes(blockPages), RW)).toBe(0);
    const withBlock = tables();
    expect(domain.map(bytes(blockPages * 2), bytes(blockPages * 3 + granulePages), bytes(granulePages), RW)).toBe(0);
    expect(tables()).toBe(withBlock + 1);
    expect(translate(blockPages + 5, ACCESS_READ)).toBe(blockPages * 2 + 5);
    const limit = 1n << BigInt([32, 36, 40, 42, 44, 48][options.features!.OAS ?? 5]!);
    expect(domain.map(0n, limit - bytes(granulePages), bytes(granulePages), RW)).toBe(0);
    expect(domain.map(bytes(granulePages), limit, bytes(granulePages), RW)).toBe(-ERANGE);
    expect(domain.map(bytes(granulePages), 0n, bytes(granulePages), IOMMU_CACHE)).toBe(-EINVAL);
    expect(domain.map(domain.aperture.last + 1n, 0n, bytes(granulePages), RW)).toBe(-EINVAL);
    if (granulePages > 1) expect(domain.map(bytes(granulePages) + PAGE, 0n, bytes(granulePages), RW)).toBe(-EINVAL);
  });
});

describe.each(STAGES)("an unmap under %s", (_stage, flags) => {
  const at = (n: number) => BigInt(n) * PAGE;

  it("of a block and of pages behind it drops both from the TLB", () => {
    const { domain, translate } = attached({}, flags);
    domain.map(at(512), at(1024), at(512), RW);
    domain.map(at(1024), at(4000), at(8), RW);
    for (const page of [512, 1023, 1024, 1027]) expect(translate(page, ACCESS_READ)).toBeGreaterThan(0);
    // Pages 1028 and on stay, and so does their table: nothing but leaves goes.
    expect(domain.unmap(at(512), at(516))).toBe(at(516));
    domain.sync(at(512), at(516));
    for (const page of [512, 1023, 1024, 1027]) expect(translate(page, ACCESS_READ)).toBe(-1);
    expect(translate(1028, ACCESS_READ)).toBe(4004);
  });

  it("of part of a block drops the block from the TLB", () => {
    const { domain, translate } = attached({}, flags);
    domain.map(at(512), at(1024), at(512), RW);
    expect(translate(600, ACCESS_READ)).toBe(1112);
    expect(domain.unmap(at(700), at(2))).toBe(at(2));
    domain.sync(at(700), at(2));
    expect([699, 700, 701, 702].map((page) => translate(page, ACCESS_READ))).toEqual([1211, -1, -1, 1214]);
  });
});

describe("a table's protection", () => {
  const page = (n: number) => BigInt(n) * PAGE;

  it("keeps requests from executing what is not to be executed", () => {
    const { domain, translate } = attached({}, 0);
    domain.map(page(1), page(11), PAGE, RW);
    domain.map(page(2), page(12), PAGE, RW | IOMMU_NOEXEC);
    // Without PASID a PCI function's requests are data; XN shows when the hardware is asked for an instruction read.
    expect(translate(1, ACCESS_READ | ACCESS_EXECUTE)).toBe(11);
    expect(translate(2, ACCESS_READ | ACCESS_EXECUTE)).toBe(-1);
    expect(translate(2, ACCESS_READ)).toBe(12);
  });

  it("of stage 2 may be write only, of stage 1 not", () => {
    const second = attached({}, I.IOMMU_HWPT_ALLOC_NEST_PARENT);
    second.domain.map(page(1), page(11), PAGE, IOMMU_WRITE | IOMMU_CACHE);
    expect(second.translate(1, ACCESS_WRITE)).toBe(11);
    expect(second.translate(1, ACCESS_READ)).toBe(-1);
    const first = attached({}, 0);
    first.domain.map(page(1), page(11), PAGE, IOMMU_WRITE | IOMMU_CACHE);
    expect(first.translate(1, ACCESS_READ)).toBe(11);
  });
});

describe("dirty tracking", () => {
  const first = 512 * 8;
  const dirtyPages = (domain: PagingDomain, keep = false): number[] => {
    const found: number[] = [];
    domain.dirty!.readAndClear(BigInt(first) * PAGE, 1024n * PAGE, keep, (iova, size) => {
      for (let at = iova; at < iova + size; at += PAGE) found.push(Number(at / PAGE) - first);
    });
    return found;
  };

  it("shows what was written since it was last asked, whatever the TLB holds", () => {
    const { domain, translate } = attached({}, I.IOMMU_HWPT_ALLOC_DIRTY_TRACKING);
    for (let i = 0; i < 8; i++) domain.map(BigInt(first + i) * PAGE, BigInt(900 + 2 * i) * PAGE, PAGE, RW);
    // As Linux leaves them: dirty until somebody has asked.
    expect(dirtyPages(domain)).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
    expect(dirtyPages(domain)).toEqual([]);
    for (const i of [2, 5]) expect(translate(first + i, ACCESS_WRITE)).toBe(900 + 2 * i);
    expect(translate(first + 3, ACCESS_READ)).toBe(906);
    expect(dirtyPages(domain, true)).toEqual([2, 5]);
    expect(dirtyPages(domain)).toEqual([2, 5]);
    expect(translate(first + 5, ACCESS_WRITE)).toBe(910);
    expect(dirtyPages(domain)).toEqual([5]);
  });

  it("of a block names all of it", () => {
    const { domain, translate } = attached({}, I.IOMMU_HWPT_ALLOC_DIRTY_TRACKING);
    domain.map(BigInt(first) * PAGE, BigInt(512 * 3) * PAGE, 512n * PAGE, RW);
    dirtyPages(domain);
    expect(translate(first + 100, ACCESS_WRITE)).toBe(512 * 3 + 100);
    expect(dirtyPages(domain).length).toBe(512);
    // Split, both halves keep what they were.
    expect(translate(first + 1, ACCESS_WRITE)).toBe(512 * 3 + 1);
    domain.unmap(BigInt(first + 256) * PAGE, 256n * PAGE);
    domain.sync(BigInt(first + 256) * PAGE, 256n * PAGE);
    expect(dirtyPages(domain).length).toBe(256);
  });
});
