// Mapping: areas, automatic IOVAs, pins, accounting, alignment, splitting (iommufd-semantics §2).

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { NO_PASID } from "../../../../host/devices/ports.ts";
import type { FrameRun } from "../../../../host/kernel/file.ts";
import type { MockPagingDomain } from "../../../../host/kernel/iommu/mock/mock-domain.ts";
import { HeldPages } from "../../../../host/kernel/iommufd/held-pages.ts";
import type { HwptPaging } from "../../../../host/kernel/iommufd/hw-pagetable.ts";
import { attachDevice, detachDevice } from "../../../../host/kernel/iommufd/in-kernel.ts";
import { type Interval, IntervalTree } from "../../../../host/kernel/iommufd/interval-tree.ts";
import type { Ioas } from "../../../../host/kernel/iommufd/ioas.ts";
import { PinnedFrames } from "../../../../host/kernel/pinned-frames.ts";
import {
  EADDRINUSE,
  EBUSY,
  EEXIST,
  EFAULT,
  EINVAL,
  ENODEV,
  ENOENT,
  ENOMEM,
  ENOSPC,
  EOVERFLOW,
} from "../../../../host/uapi/errno.ts";
import * as uapi from "../../../../host/uapi/iommufd.ts";
import { type Iommufd, MockHost } from "./mock-host.ts";

const READ_WRITE = uapi.IOMMU_IOAS_MAP_READABLE | uapi.IOMMU_IOAS_MAP_WRITEABLE;
const MEBI = 1 << 20;
const BASE = 0x1000_0000n;

function anywhere(user: Iommufd, ioas: number, va: bigint, length: number, flags = READ_WRITE): bigint | number {
  const fields = { flags, ioas_id: ioas, user_va: va, length: BigInt(length) };
  const result = user.result(uapi.IOMMU_IOAS_MAP, uapi.iommuIoasMap, fields);
  return result < 0 ? result : uapi.iommuIoasMap.decode(user.process.memory.bytes(user.scratch, 40)).iova;
}

function tableOf(user: Iommufd, ioas: number) {
  return user.context.find<Ioas>(ioas, "ioas")!.table;
}

function attached(options: ConstructorParameters<typeof MockHost>[0] = {}) {
  const host = new MockHost(options);
  const user = host.process();
  const bound = user.bind(host.addDevice());
  const ioas = user.ioas();
  const hwpt = user.hwpt(bound.id, ioas);
  attachDevice(bound, NO_PASID, hwpt);
  const domain = user.context.find<HwptPaging>(hwpt, "hwpt-paging")?.domain as MockPagingDomain;
  return { host, user, bound, ioas, hwpt, domain };
}

describe("a mapping without a fixed IOVA", () => {
  it("gets the lowest free one that keeps the user address's alignment, never 0", () => {
    const user = new MockHost().process();
    const ioas = user.ioas();
    // Without a domain nothing is pinned: any address will do.
    expect(anywhere(user, ioas, 0x40_0000n, 4096)).toBe(0x1000n);
    expect(anywhere(user, ioas, 0x40_0000n, 8192)).toBe(0x2000n);
    expect(anywhere(user, ioas, 0x40_0000n, MEBI)).toBe(BigInt(MEBI));
    expect(anywhere(user, ioas, 0x40_1000n, MEBI)).toBe(0x20_0000n);
    expect(anywhere(user, ioas, 0x40_0800n, 2048)).toBe(0x4800n);
  });

  it("keeps to the ranges that user space allowed itself", () => {
    const user = new MockHost().process();
    const ioas = user.ioas();
    const list = user.process.memory.allocate(4096);
    user.process.memory.bytes(list, 32).set(uapi.iommuIovaRange.encode({ start: 0x50_0000n, last: 0x50_1fffn }));
    const allow = { ioas_id: ioas, num_iovas: 1, allowed_iovas: list };
    expect(user.result(uapi.IOMMU_IOAS_ALLOW_IOVAS, uapi.iommuIoasAllowIovas, allow)).toBe(0);
    expect(anywhere(user, ioas, 0x40_0000n, 8192)).toBe(0x50_0000n);
    expect(anywhere(user, ioas, 0x40_0000n, 4096)).toBe(-ENOSPC);
    // A fixed one may lie outside.
    expect(user.map(ioas, 0x40_0000n, 4096, 0x1000n)).toBe(0);
  });
});

describe("a fixed mapping", () => {
  it("is refused in the order alignment, reserved, overlap", () => {
    const { user, ioas } = attached();
    const ram = user.process.memory.allocate(MEBI);
    expect(user.map(ioas, ram, 2048, BASE + 1024n)).toBe(-EINVAL);
    expect(user.map(ioas, ram, MEBI, 0n)).toBe(-EINVAL);
    expect(user.map(ioas, ram, MEBI, BASE)).toBe(0);
    expect(user.map(ioas, ram, 4096, BASE + 4096n)).toBe(-EEXIST);
    expect(user.map(ioas, ram, 4096, 0xffff_ffff_ffff_f000n)).toBe(-EINVAL);
    expect(user.map(ioas, ram, 4096, 0xffff_ffff_ffff_ffffn)).toBe(-EOVERFLOW);
    expect(user.map(ioas, 0xffff_ffff_ffff_f000n, 8192, BASE)).toBe(-EOVERFLOW);
    expect(user.map(ioas, ram, 0, BASE)).toBe(-EINVAL);
  });

  it("of memory that is not there succeeds without a domain and fails, wholly, with one", () => {
    const { host, user, ioas, domain } = attached();
    const ram = user.process.memory.allocate(8192);
    user.process.memory.free(ram + 4096n, 4096);
    expect(user.map(ioas, ram, 8192, BASE)).toBe(-EFAULT);
    expect(domain.runs).toBe(0);
    expect(host.kernel.frames.pins.total).toBe(0);
    expect(tableOf(user, ioas).areas.size).toBe(0);
  });
});

describe("pages", () => {
  it("are pinned once however many domains and copies share them, and twice when mapped twice", () => {
    const { host, user, bound, ioas } = attached();
    const ram = user.process.memory.allocate(4096);
    user.map(ioas, ram, 4096, BASE);
    user.hwpt(bound.id, ioas);
    const copy = { flags: READ_WRITE | 1, dst_ioas_id: ioas, src_ioas_id: ioas, length: 4096n, src_iova: BASE };
    expect(user.result(uapi.IOMMU_IOAS_COPY, uapi.iommuIoasCopy, { ...copy, dst_iova: BASE + 0x10_0000n })).toBe(0);
    expect(host.kernel.frames.pins.total).toBe(1);
    user.map(ioas, ram, 4096, BASE + 0x20_0000n);
    expect(host.kernel.frames.pins.total).toBe(2);
    user.unmap(ioas, BASE, 4096n);
    expect(host.kernel.frames.pins.total).toBe(2);
    user.unmap(ioas, BASE + 0x10_0000n, 4096n);
    expect(host.kernel.frames.pins.total).toBe(1);
  });

  it("are pinned when the first domain comes and let go when the last one leaves", () => {
    const host = new MockHost();
    const user = host.process();
    const bound = user.bind(host.addDevice());
    const ioas = user.ioas();
    const ram = user.process.memory.allocate(MEBI);
    user.map(ioas, ram, MEBI, BASE);
    expect(host.kernel.frames.pins.total).toBe(0);
    const hwpts = [user.hwpt(bound.id, ioas), user.hwpt(bound.id, ioas)];
    expect(host.kernel.frames.pins.total).toBe(256);
    user.destroy(hwpts[0]!);
    expect(host.kernel.frames.pins.total).toBe(256);
    user.destroy(hwpts[1]!);
    expect(host.kernel.frames.pins.total).toBe(0);
  });

  it("stay what a later domain sees when the process has replaced its memory since", () => {
    const { user, bound, ioas, domain } = attached();
    const ram = user.process.memory.allocate(4096);
    user.map(ioas, ram, 4096, BASE);
    user.process.memory.free(ram, 4096);
    user.process.memory.allocate(4096);
    const later = user.context.find<HwptPaging>(user.hwpt(bound.id, ioas), "hwpt-paging")?.domain;
    expect(later?.iovaToPhys(BASE)).toBe(domain.iovaToPhys(BASE));
  });
});

describe("accounting", () => {
  const unprivileged = { capabilities: { ipcLock: false }, memlockLimit: 8 * 4096 };

  it("charges the user for pinned pages up to RLIMIT_MEMLOCK and gives them back", () => {
    const host = new MockHost();
    const account = { lockedPages: 0 };
    const user = host.process("limited", { ...unprivileged, user: account });
    const bound = user.bind(host.addDevice());
    const ioas = user.ioas();
    user.hwpt(bound.id, ioas);
    const ram = user.process.memory.allocate(16 * 4096);
    expect(user.map(ioas, ram, 9 * 4096, BASE)).toBe(-ENOMEM);
    expect(host.kernel.frames.pins.total).toBe(0);
    expect(user.map(ioas, ram, 8 * 4096, BASE)).toBe(0);
    expect([account.lockedPages, user.process.memory.pinnedPages, user.process.memory.lockedPages]).toEqual([8, 8, 0]);
    user.unmap(ioas, BASE, 8n * 4096n);
    expect([account.lockedPages, user.process.memory.pinnedPages]).toEqual([0, 0]);
  });

  it("charges the memory itself in the MM mode", () => {
    const host = new MockHost();
    const account = { lockedPages: 0 };
    const user = host.process("limited", { ...unprivileged, user: account });
    const mode = { option_id: uapi.IOMMU_OPTION_RLIMIT_MODE, op: uapi.IOMMU_OPTION_OP_SET, val64: 1n };
    expect(user.result(uapi.IOMMU_OPTION, uapi.iommuOption, mode)).toBe(0);
    const bound = user.bind(host.addDevice());
    const ioas = user.ioas();
    user.hwpt(bound.id, ioas);
    user.map(ioas, user.process.memory.allocate(8 * 4096), 8 * 4096, BASE);
    expect([account.lockedPages, user.process.memory.pinnedPages, user.process.memory.lockedPages]).toEqual([0, 8, 8]);
  });
});

describe("unmapping", () => {
  it("takes whole areas across holes, and stops at one it covers in part after having taken those before it", () => {
    const user = new MockHost().process();
    const ioas = user.ioas();
    for (const iova of [0x1_0000n, 0x3_0000n, 0x5_0000n]) user.map(ioas, 0x40_0000n, 0x1_0000, iova);
    expect(user.unmap(ioas, 0n, 0x5_8000n)).toBe(-ENOENT);
    expect([...tableOf(user, ioas).areas].map(({ start }) => start)).toEqual([0x5_0000n]);
    expect(user.unmap(ioas, 0n, 0x5_0000n)).toBe(-ENOENT);
    expect(user.unmap(ioas, 0n, 0xffff_ffff_ffff_ffffn)).toBe(0);
    expect(user.unmap(ioas, 0n, 0xffff_ffff_ffff_ffffn)).toBe(0);
  });

  it("finds the lowest hole that is large enough among many areas", () => {
    const user = new MockHost().process();
    const ioas = user.ioas();
    const count = 10_000n;
    for (let i = 0n; i < count; i++) expect(user.map(ioas, 0x40_0000n, 4096, i * 0x2000n + 0x1000n)).toBe(0);
    // Every hole is one page: two pages only fit behind.
    expect(anywhere(user, ioas, 0x40_1000n, 8192)).toBe(count * 0x2000n);
    expect(user.unmap(ioas, 5_000n * 0x2000n + 0x1000n, 4096n)).toBe(0);
    expect(anywhere(user, ioas, 0x40_1000n, 12288)).toBe(5_000n * 0x2000n);
  });
});

describe("alignment", () => {
  it("follows the domains: it rises with them, is refused by areas that do not fit, and falls again", () => {
    const host = new MockHost();
    const user = host.process();
    const bound = user.bind(host.addDevice());
    const ioas = user.ioas();
    expect(user.map(ioas, 0x40_0000n, 100, BASE + 1n)).toBe(0);
    const alloc = user.hwptFields(bound.id, ioas);
    expect(user.result(uapi.IOMMU_HWPT_ALLOC, uapi.iommuHwptAlloc, alloc)).toBe(-EADDRINUSE);
    user.unmap(ioas, BASE + 1n, 100n);
    const hwpt = user.hwpt(bound.id, ioas);
    expect(tableOf(user, ioas).alignment).toBe(2048n);
    user.destroy(hwpt);
    expect(tableOf(user, ioas).alignment).toBe(1n);
  });
});

describe("VFIO type1 on the compatibility IOAS", () => {
  const VFIO = 0x3b00;

  function vfio(user: Iommufd, number: number, ...words: bigint[]): number {
    const bytes = new Uint8Array(8 * words.length);
    for (const [i, word] of words.entries()) new DataView(bytes.buffer).setBigUint64(i * 8, word, true);
    user.process.memory.bytes(user.scratch, bytes.length).set(bytes);
    return user.process.ioctl(user.fd, VFIO | number, user.scratch);
  }
  const mapDma = (user: Iommufd, va: bigint, iova: bigint, size: bigint) =>
    vfio(user, 113, 32n | (3n << 32n), va, iova, size);
  const unmapDma = (user: Iommufd, iova: bigint, size: bigint) => vfio(user, 114, 24n, iova, size);

  function container(type: bigint) {
    const { host, user, bound, ioas, hwpt } = attached();
    detachDevice(bound, NO_PASID);
    user.destroy(hwpt);
    expect(user.process.ioctl(user.fd, VFIO | 102, type)).toBe(-ENODEV);
    const set = { ioas_id: ioas, op: uapi.IOMMU_VFIO_IOAS_SET };
    user.call(uapi.IOMMU_VFIO_IOAS, uapi.iommuVfioIoas, set);
    expect(user.process.ioctl(user.fd, VFIO | 102, type)).toBe(0);
    user.hwpt(bound.id, ioas);
    return { host, user, ioas };
  }

  it("v1 cuts a mapping where it is unmapped in part, keeping the rest pinned", () => {
    const { host, user, ioas } = container(1n);
    const ram = user.process.memory.allocate(16 * 4096);
    expect(mapDma(user, ram, BASE, 16n * 4096n)).toBe(0);
    expect(unmapDma(user, BASE + 4n * 4096n, 4n * 4096n)).toBe(0);
    expect([...tableOf(user, ioas).areas].map(({ start, length }) => [start, length])).toEqual([
      [BASE, 4n * 4096n],
      [BASE + 8n * 4096n, 8n * 4096n],
    ]);
    expect(host.kernel.frames.pins.total).toBe(12);
  });

  it("v2 does not", () => {
    const { user } = container(3n);
    const ram = user.process.memory.allocate(16 * 4096);
    mapDma(user, ram, BASE, 16n * 4096n);
    expect(unmapDma(user, BASE + 4n * 4096n, 4n * 4096n)).toBe(-ENOENT);
    expect(unmapDma(user, 0x2000_0000n, 4096n)).toBe(0);
  });
});

describe("an option", () => {
  it("cannot take large pages away while something is mapped in a domain", () => {
    const { user, ioas } = attached();
    user.map(ioas, user.process.memory.allocate(4096), 4096, BASE);
    const off = { option_id: uapi.IOMMU_OPTION_HUGE_PAGES, op: uapi.IOMMU_OPTION_OP_SET, object_id: ioas, val64: 0n };
    expect(user.result(uapi.IOMMU_OPTION, uapi.iommuOption, off)).toBe(-EINVAL);
    expect(user.destroy(ioas)).toBe(-EBUSY);
  });
});

describe("an interval tree", () => {
  it("answers as a sorted list does", () => {
    const slot = fc.integer({ min: 0, max: 60 });
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.boolean(), slot, fc.integer({ min: 1, max: 5 })), { maxLength: 80 }),
        (steps) => {
          const tree = new IntervalTree<Interval>();
          let list: Interval[] = [];
          for (const [add, at, length] of steps) {
            const start = BigInt(at);
            const last = start + BigInt(length) - 1n;
            const overlapping = list.filter((item) => item.start <= last && item.last >= start);
            expect(tree.firstIn(start, last)).toBe(overlapping[0] ?? null);
            if (add && overlapping.length === 0) {
              const item = { start, last };
              tree.insert(item);
              list = [...list, item].sort((a, b) => Number(a.start - b.start));
            } else if (!add && overlapping.length > 0) {
              expect(tree.remove(overlapping[0]!)).toBe(true);
              list = list.filter((item) => item !== overlapping[0]);
            }
            expect([...tree]).toEqual(list);
            const need = BigInt(length) * 2n;
            let expected: bigint | null = null;
            let next = 3n;
            for (const item of [...list, { start: 51n, last: 51n }]) {
              if (item.start > 50n && expected === null && 51n - next >= need) expected = next;
              if (expected === null && item.start <= 50n && item.start - next >= need) expected = next;
              if (item.last + 1n > next) next = item.last + 1n;
            }
            expect(tree.findHole(3n, 50n, need, (from) => from)).toBe(expected);
          }
        },
      ),
      { numRuns: 200 },
    );
  });
});

describe("held pages", () => {
  it("pin every page exactly while somebody holds it, whatever the order", () => {
    const range = fc.tuple(fc.integer({ min: 0, max: 30 }), fc.integer({ min: 1, max: 12 }));
    fc.assert(
      fc.property(fc.array(fc.tuple(range, fc.boolean()), { maxLength: 60 }), (steps) => {
        const pins = new PinnedFrames();
        const held = new HeldPages();
        // Frames are contiguous except between pages 15 and 16.
        const frameOf = (page: number) => (page < 16 ? 100 + page : 1000 + page);
        const source = {
          pin(first: number, count: number): FrameRun[] {
            const runs: FrameRun[] = [];
            for (let page = first; page < first + count; page++) runs.push({ frame: frameOf(page), count: 1 });
            for (const run of runs) pins.pin(run);
            return runs;
          },
          unpin: (run: FrameRun) => pins.unpin(run),
        };
        const holders: [number, number][] = [];
        for (const [[first, count], add] of steps) {
          if (add || holders.length === 0) {
            held.hold(first, first + count - 1, source);
            holders.push([first, first + count - 1]);
          } else {
            const [gone] = holders.splice(first % holders.length, 1);
            held.release(gone![0], gone![1], source);
          }
          for (let page = 0; page < 45; page++) {
            const wanted = holders.some(([low, high]) => page >= low && page <= high);
            expect(pins.countOf(frameOf(page))).toBe(wanted ? 1 : 0);
          }
          for (const [low, high] of holders) {
            const pages = held
              .runs(low, high)
              .flatMap((run) => Array.from({ length: run.count }, (_, i) => run.frame + i));
            expect(pages).toEqual(Array.from({ length: high - low + 1 }, (_, i) => frameOf(low + i)));
          }
        }
        for (const [low, high] of holders) held.release(low, high, source);
        expect([pins.total, held.segments]).toEqual([0, 0]);
      }),
      { numRuns: 200 },
    );
  });
});
