// What `--check stale` says of an access: whose invalidation is missing, and how often.

import { expect, test } from "vitest";
import type { Host } from "../../../host/host.ts";
import { StaleReport } from "../../../vmm/cli/stale-report.ts";

type Report = Parameters<Host["reportStaleAccesses"]>[0];

const ACCESS = { deviceId: 0x100, pasid: -1, iova: 0x5010n, write: true, used: 0x8000_1010n, now: 0x8000_2010n };

/** The lines said of these accesses, and how many were counted. */
function said(accesses: readonly (readonly [nested: boolean, access: Parameters<Report>[3]])[], dropping = false) {
  const lines: string[] = [];
  let watching: Report = () => {};
  const host = { reportStaleAccesses: (report: Report) => void (watching = report) };
  const report = new StaleReport(host, (line) => lines.push(line), dropping);
  for (const [nested, access] of accesses) watching("0000:01:00.0", "iommu0", nested, access);
  return { lines, count: report.count };
}

test("a nested stage's owner is told of IOMMU_HWPT_INVALIDATE, the kernel's driver of its own tables", () => {
  const [nested] = said([[true, ACCESS]]).lines;
  expect(nested).toMatch(/without IOMMU_HWPT_INVALIDATE$/);
  expect(nested).toMatch(/writes IOVA 0x5010 at 0x80001010, which iommu0 has cached; its tables say 0x80002010: /);
  expect(said([[false, ACCESS]]).lines[0]).toMatch(
    /driver has sent no invalidation after an unmap or a switch of domains$/,
  );
});

test("with rules about commands nobody is blamed for what one of them may have dropped", () => {
  for (const nested of [true, false])
    expect(said([[nested, ACCESS]], true).lines[0]).toMatch(/, or a command:… rule has dropped what came of it$/);
});

test("the same page is told of once and counted each time", () => {
  const { lines, count } = said([
    [true, ACCESS],
    [true, { ...ACCESS, iova: 0x5f00n, used: 0x8000_1f00n, now: 0x8000_2f00n }],
    [true, { ...ACCESS, now: null }],
  ]);
  expect(count).toBe(3);
  expect(lines).toHaveLength(2);
  expect(lines[1]).toContain("its tables allow no such access");
});
