// The checker of stale accesses: DMA by what an IOMMU has cached and its tables no longer hold is reported, and nothing else is. What is stale is
// made so by invalidations that the hardware is made to lose.

import { describe, expect, it } from "vitest";
import * as R from "../../../host/devices/edu/registers.ts";
import { HARDWARE_KINDS } from "../../../host/hw/iommu/kinds.ts";
import { reportStaleAccesses, type StaleAccess } from "../../../host/hw/iommu/stale-accesses.ts";
import { AssignedEdu, IOVA, PAGE, RID } from "./assigned-edu.ts";

/** Those that say an invalidation is done, which its sender waits for: SMMUv3's CMD_SYNC, RISC-V's IOFENCE, VT-d's wait descriptor. */
const FENCE = /SYNC|IOFENCE|wait/;

function assigned(kind: string) {
  const edu = new AssignedEdu(kind);
  const stale: StaleAccess[] = [];
  expect(reportStaleAccesses(edu.iommu, (access) => stale.push(access))).toBe(true);
  const { host, iommu, dma } = edu;
  const map = (page: bigint) => expect(edu.map(page)).toBe(0);
  const unmap = () => expect(edu.unmap()).toBe(0);
  const loseInvalidations = () => {
    iommu.skipCommand = (command) => !FENCE.test(command);
  };
  return { host, iommu, stale, dma, map, unmap, loseInvalidations };
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
