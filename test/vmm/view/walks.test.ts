// Walks out of traces, and their grids: what a person reads must be what the hardware did. Addresses follow from the formats
// (privileged architecture §12.3 Sv39, §12.5.1 Sv39x4; Svnapot; RISC-V IOMMU §4.2 for iotval2).

import { describe, expect, it } from "vitest";
import type { TracedEvent } from "../../../host/base/trace.ts";
import { walkGrid } from "../../../vmm/view/walk-grid.ts";
import { collectWalks, filledBy, type Walk, type WalkStep } from "../../../vmm/view/walks.ts";

const LEAF = 0xdfn;
const POINTER = 0x01n;
const IOVA = 0x12345678n;

let seq = 0;
const traced = <T extends object>(event: T) => ({ seq: ++seq, time: 0, cause: 0, ...event });
const load = (table: WalkStep["table"], level: number, entry: bigint, address = 0x8_0000_0000n, serves?: number) =>
  traced({
    ...({ type: "walk", where: "host", iommu: "i", deviceId: 8, table, level, space: "spa", address, entry } as const),
    cached: false,
    ...(serves === undefined ? {} : { serves }),
  });
const dma = (iova: bigint, spa?: bigint) =>
  traced({
    ...({ type: "dma", device: "d", deviceId: 8, iova, length: 4, write: false } as const),
    ...(spa === undefined ? { result: "aborted" as const } : { spa, result: "ok" as const }),
  });
const fault = (faultCause: number, iotval2: bigint) =>
  traced({
    ...({ type: "fault", where: "hardware", iommu: "i", faultCause, deviceId: 8, iotval: IOVA, ttyp: 2 } as const),
    ...{ iotval2, text: "" },
  });

function onlyWalk(...events: TracedEvent[]): Walk {
  const walks = collectWalks(events);
  expect(walks).toHaveLength(1);
  return walks[0]!;
}

describe("the walk view", () => {
  it("shows the address inside a 64 KiB page of Svnapot, not its encoded page number", () => {
    // PPN 0x80018: pages 0x80010 to 0x8001f, for pte.ppn[3:0] = 1000 says 64 KiB.
    const leaf = (1n << 63n) | (0x80018n << 10n) | LEAF;
    const walk = onlyWalk(load("stage1", 0, leaf), load("stage2", 2, LEAF), dma(IOVA, 0x8_0001_5678n));
    expect(walkGrid(walk).rows.at(-1)).toMatchObject({ label: "final address", gpa: 0x80015678n });
  });

  it("says which process-directory entry a second stage kept from being loaded, and where it lies", () => {
    const context = 0x21n; // V, PDTV
    const events = [
      load("DDT", 0, context),
      load("stage2", 2, 0n, 0x8_0000_0010n, 1),
      fault(21, 0x80003009n),
      dma(IOVA),
    ];
    expect(walkGrid(onlyWalk(...events)).rows.at(-1)).toMatchObject({
      label: "PDT level 1",
      table: "PDT",
      level: 1,
      gpa: 0x80003008n,
      fetch: null,
    });
  });

  it("says which first-stage entry a second stage kept from being loaded", () => {
    const events = [load("DDT", 0, 1n), load("stage2", 2, 0n, 0x8_0000_0010n, 2), fault(21, 0x80005011n), dma(IOVA)];
    expect(walkGrid(onlyWalk(...events)).rows.at(-1)).toMatchObject({ label: "stage 1 level 2", gpa: 0x80005010n });
  });

  it("makes up no address for a second-stage walk that stopped above a leaf", () => {
    const events = [load("DDT", 0, 1n), load("stage2", 2, 0n, 0x8_0000_0010n, 2), fault(5, 0n), dma(IOVA)];
    expect(walkGrid(onlyWalk(...events)).rows.at(-1)?.gpa).toBeNull();
  });

  it("keeps the loads of ATS translations apart from those of the next DMA", () => {
    const translation = [
      load("DDT", 0, 1n),
      load("stage1", 1, POINTER),
      load("stage1", 0, LEAF),
      load("stage2", 2, LEAF),
    ];
    const cached = [load("stage2", 2, LEAF, 0n, 1), load("stage1", 1, POINTER), load("stage1", 0, LEAF)];
    const own = [load("stage2", 2, LEAF, 0n, 1), load("stage1", 1, POINTER), load("stage2", 2, LEAF, 0n, 0)];
    const walk = onlyWalk(
      ...translation,
      ...cached,
      ...own,
      load("stage1", 0, LEAF),
      load("stage2", 2, LEAF),
      dma(IOVA, 0n),
    );
    expect(walk.steps.map(({ table, level }) => `${table} ${level}`)).toEqual([
      "stage2 2",
      "stage1 1",
      "stage2 2",
      "stage1 0",
      "stage2 2",
    ]);
  });

  it("names the walk that filled the cache, for a DMA to the same page that loaded nothing", () => {
    const leaf = (0x80018n << 10n) | LEAF;
    const walks = collectWalks([
      ...[load("stage1", 0, leaf), dma(IOVA, 0x8_0001_8678n)],
      ...[load("stage1", 0, leaf), dma(IOVA + 0x1000n, 0x8_0001_9678n)],
      ...[dma(IOVA + 4n, 0x8_0001_867cn), dma(IOVA + 0x2000n)],
    ]);
    expect(walks.map((walk) => filledBy(walk, walks))).toEqual([null, null, walks[0], null]);
  });

  it("arranges a walk of any length: a trace file is a document from anywhere", () => {
    const steps = Array.from({ length: 200_000 }, () => load("stage2", 0, LEAF) as WalkStep);
    const walk: Walk = { ...onlyWalk(dma(IOVA, 0n)), steps: steps.map((step) => ({ ...step, table: "stage1" })) };
    expect(walkGrid(walk).columns).toBe(0);
  });
});
