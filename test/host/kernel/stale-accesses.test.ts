// The checker of stale accesses: DMA by what an IOMMU has cached and its tables no longer hold is reported, and nothing else is. What is stale is
// made so by invalidations that the hardware is made to lose.

import { describe, expect, it } from "vitest";
import * as R from "../../../host/devices/edu/registers.ts";
import { HARDWARE_KINDS } from "../../../host/hw/iommu/kinds.ts";
import { reportStaleAccesses, type StaleAccess } from "../../../host/hw/iommu/stale-accesses.ts";
import { eduDma, eduOutcome, machine, name } from "./machine.ts";

const RID = 0x0108;
const IOVA = 0x4000_0000n;
const PAGE = 4096n;

function assigned(kind: string) {
  const host = machine({ ...(kind === "smmuv3" ? { smmus: [{}] } : {}), devices: [{ rid: RID }] });
  host.assign();
  const user = host.user();
  const va = user.process.memory.mapBuffer(new ArrayBuffer(16 * 4096), 0, 16 * 4096);
  const iommufd = user.iommufd();
  const ioas = user.ioas(iommufd);
  const vfio = user.open(host.vfio.nodeOf(name(RID))!);
  const device = user.bind(vfio, iommufd);
  user.attach(vfio, user.hwpt(iommufd, device, ioas));
  user.enableDevice(vfio);
  const bar = user.bar0(vfio);
  const stale: StaleAccess[] = [];
  const [iommu] = host.iommus;
  expect(reportStaleAccesses(iommu!, (access) => stale.push(access))).toBe(true);
  const dma = (address: bigint, toRam: boolean): number => {
    eduDma(bar, address, 64, toRam);
    host.run(100_000);
    return eduOutcome(bar);
  };
  const map = (page: bigint) => expect(user.map(iommufd, ioas, va + page * PAGE, 4096, IOVA)).toBe(0);
  const unmap = () => expect(user.unmap(iommufd, ioas, IOVA, PAGE)).toBe(0);
  const loseInvalidations = () => {
    iommu!.skipCommand = (command) => !/SYNC|IOFENCE/.test(command);
  };
  return { host, iommu: iommu!, stale, dma, map, unmap, loseInvalidations };
}

describe.each(Object.keys(HARDWARE_KINDS))("on a %s IOMMU", (kind) => {
  it("an access to what was unmapped is reported once for each, with what was used", () => {
    const { stale, dma, map, unmap, loseInvalidations } = assigned(kind);
    map(0n);
    expect(dma(IOVA, true)).toBe(R.OUTCOME_DONE);
    loseInvalidations();
    unmap();
    expect(stale).toEqual([]);
    expect(dma(IOVA + 0x40n, true)).toBe(R.OUTCOME_DONE);
    expect(stale.length).toBeGreaterThan(0);
    expect(stale[0]).toMatchObject({ deviceId: RID, pasid: -1, iova: IOVA + 0x40n, write: true, now: null });
    expect(stale[0]!.used & 0xfffn).toBe(0x40n);
  });

  it("an access to what is mapped elsewhere by now is reported with both places", () => {
    const { stale, dma, map, unmap, loseInvalidations } = assigned(kind);
    map(0n);
    expect(dma(IOVA, false)).toBe(R.OUTCOME_DONE);
    loseInvalidations();
    unmap();
    map(3n);
    expect(dma(IOVA, false)).toBe(R.OUTCOME_DONE);
    expect(stale[0]).toMatchObject({ iova: IOVA, write: false });
    // The pages of one buffer lie one behind the other.
    expect(stale[0]!.now! - stale[0]!.used).toBe(3n * PAGE);
  });

  it("nothing is reported while invalidations arrive", () => {
    const { stale, dma, map, unmap } = assigned(kind);
    for (const page of [0n, 1n, 2n]) {
      map(page);
      for (const write of [false, true, true, false]) expect(dma(IOVA, write)).toBe(R.OUTCOME_DONE);
      unmap();
      expect(dma(IOVA, true)).toBe(R.OUTCOME_REFUSED);
    }
    expect(stale).toEqual([]);
  });

  it("asking what the tables say leaves registers, queues and tables alone", () => {
    const { host, iommu, dma, map } = assigned(kind);
    map(0n);
    expect(dma(IOVA, true)).toBe(R.OUTCOME_DONE);
    const stores: number[] = [];
    host.memory.onStore = (pfn) => stores.push(pfn);
    const asked = iommu.withoutCaches!();
    asked.translate(RID, -1, false, 2, Number(IOVA >> 12n), 0, false, -1);
    // One that the tables refuse: no fault is recorded either.
    asked.translate(RID, -1, false, 2, Number((IOVA + 0x10000n) >> 12n), 0, false, -1);
    asked.translate(0x999, -1, false, 1, 5, 0, false, -1);
    expect(stores).toEqual([]);
  });
});
