// The list of whom an unmap concerns. The numbers of "merges" are those of Linux's own test (arm-smmu-v3-test.c, arm_smmu_v3_invs_test); where
// Linux leaves entries without users behind until it purges them, this list is made anew and has none.

import { describe, expect, it } from "vitest";
import {
  ATS,
  ATS_FULL,
  endsBatch,
  type Invalidation,
  type InvalidationType,
  invalidationList,
  S1_ASID,
  S2_VMID,
  S2_VMID_S1_CLEAR,
} from "../../../../../host/kernel/iommu/smmuv3/invalidation-list.ts";

const one = (type: InvalidationType, id: number, substream = 0): Invalidation => ({
  type,
  id,
  substream,
  device: null,
});
const ids = (list: readonly Invalidation[]) => list.map(({ id }) => id);
const users = (list: readonly { users: number }[]) => list.map((each) => each.users);

const FIRST = [one(S2_VMID, 1), one(S2_VMID_S1_CLEAR, 1), one(ATS, 3)];
const SECOND = [one(S2_VMID, 1), one(ATS, 4), one(ATS, 5)];

describe("an invalidation list", () => {
  it("merges: equal entries are one with two users", () => {
    const list = invalidationList([...FIRST, ...SECOND]);
    expect(ids(list)).toEqual([1, 1, 3, 4, 5]);
    expect(users(list)).toEqual([2, 1, 1, 1, 1]);
  });

  it("is the first again without the second", () => {
    const list = invalidationList(FIRST);
    expect(ids(list)).toEqual([1, 1, 3]);
    expect(users(list)).toEqual([1, 1, 1]);
  });

  it("keeps what others use when one in the middle goes", () => {
    const list = invalidationList([...SECOND, one(S2_VMID, 1), one(ATS, 5)]);
    expect(ids(list)).toEqual([1, 4, 5]);
    expect(users(list)).toEqual([2, 1, 2]);
  });

  it("is sorted by type, then id, then SubstreamID, whatever the order of attaching", () => {
    const list = invalidationList([one(ATS, 8, 5), one(ATS_FULL, 2), one(ATS, 8), one(S1_ASID, 4), one(ATS, 7, 9)]);
    expect(list.map(({ type, id, substream }) => [type, id, substream])).toEqual([
      [S1_ASID, 4, 0],
      [ATS, 7, 9],
      [ATS, 8, 0],
      [ATS, 8, 5],
      [ATS_FULL, 2, 0],
    ]);
  });

  it("is cut between TLB and devices, and between a second stage and what was made of it", () => {
    const list = invalidationList([...FIRST, one(ATS_FULL, 4), one(ATS, 5)]);
    const cuts = list.slice(1).map((next, i) => endsBatch(list[i]!, next));
    // S2_VMID | S2_VMID_S1_CLEAR | ATS ATS ATS_FULL
    expect(cuts).toEqual([true, true, false, false]);
  });
});
