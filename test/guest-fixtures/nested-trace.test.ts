// What is counted of a nested device's trace: the checks of QEMU on a host rest on it, and would pass on less.

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { type NestedTrace, nestedTrace } from "../../guest-fixtures/qemu-on-host/nested-trace.ts";

const DRIVE = "0000:01:00.0";
let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "nested-trace-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

type Event = Readonly<Record<string, unknown>>;

function counted(...events: readonly Event[]): Promise<NestedTrace> {
  const file = join(folder, "trace.jsonl");
  const lines = [{ "nestbox-trace": 1 }, ...events.map((event, index) => ({ seq: index + 1, cause: 0, ...event }))];
  writeFileSync(file, lines.map((line) => `${JSON.stringify(line)}\n`).join(""));
  return nestedTrace(file, DRIVE);
}

const ioctl = (name: string, fields: Event = {}, result = 0): Event => ({ type: "ioctl", name, result, fields });
const attach = (domain: string, device = DRIVE): Event => ({ type: "attach", device, domain });
const dma = (result: string, device = DRIVE): Event => ({ type: "dma", device, result });

test("an invalidation counts as carried out only if a PASID-IOTLB descriptor has it as its cause", async () => {
  const seen = await counted(
    { type: "command", seq: 8, cause: 7, name: "pasidIotlb" },
    { ...ioctl("IOMMU_HWPT_INVALIDATE"), seq: 7 },
    { type: "command", seq: 10, cause: 9, name: "wait" },
    { ...ioctl("IOMMU_HWPT_INVALIDATE"), seq: 9 },
  );
  expect(seen).toMatchObject({ invalidations: 2, invalidated: 1 });
});

test("DMA counts while the device itself is nested, without its messages, and what was refused of it", async () => {
  const seen = await counted(
    attach("paging"),
    dma("ok"),
    attach("nested", "0000:02:00.0"),
    dma("ok"),
    attach("nested"),
    dma("ok"),
    dma("msi"),
    dma("aborted"),
    dma("ok", "0000:02:00.0"),
    attach("blocked"),
    dma("aborted"),
  );
  expect(seen).toMatchObject({ dmas: 2, refused: 1, domains: ["paging", "nested"] });
});

test("a nested HWPT is one with a guest's first stage that was not refused; the refusal is kept", async () => {
  const seen = await counted(
    ioctl("IOMMU_HWPT_ALLOC", { data_type: 0 }),
    ioctl("IOMMU_HWPT_ALLOC", { data_type: 1 }, -12),
    ioctl("IOMMU_HWPT_ALLOC", { data_type: 1 }),
  );
  expect(seen).toMatchObject({ hwpts: 1, refusals: ["IOMMU_HWPT_ALLOC -12"] });
});

test("entries of the first stage count when they were read, mappings when they are without IOMMU_IOAS_MAP_WRITEABLE", async () => {
  const walk = (table: string, cached: boolean): Event => ({ type: "walk", table, cached });
  const seen = await counted(
    walk("stage1", false),
    walk("stage1", true),
    walk("stage2", false),
    ioctl("IOMMU_IOAS_MAP", { flags: 7 }),
    ioctl("IOMMU_IOAS_MAP", { flags: 5 }),
  );
  expect(seen).toMatchObject({ firstStageReads: 1, readOnlyMaps: 1 });
});
