// Every load of a nested walk, counted: Sv39, Sv48 and Sv57 over Sv48x4. Guest RAM is 2 MiB aligned, so stage 2 ends at level 1; a full walk
// is then (levels of stage 1 + 1) * 3 loads of stage 2 and one of stage 1 each. And what the caches leave of it.

import { type Stage1Mode, scenario } from "nestbox";

const LEVELS: Readonly<Record<Stage1Mode, number>> = { Sv39: 3, Sv48: 4, Sv57: 5 };
const STAGE2 = "<- 3 2 1";
/** Stage 2 begins at the pointer that leads to 1 GiB of the guest's memory. */
const REMEMBERED = "<- (2) 1";

export default scenario("a nested walk, load by load", { sweep: ["Sv39", "Sv48", "Sv57"] }, (t) => {
  const mode = t.value as Stage1Mode;
  const vm = t.vm({ assign: ["0000:00:01.0@00:02.0"] });
  const device = vm.device("00:02.0");
  const stage1 = vm.stage1(mode);
  const page = vm.ram.allocate();
  stage1.map(0x4000_0000n, page, 4096n);
  stage1.map(0x4000_1000n, page, 4096n);
  stage1.map(0x8000_0000n, 0x8000_0000n, 1n << 30n, { pageBytes: 1n << 30n });
  device.installContext(stage1);
  const tables = (stage2: string) =>
    Array.from({ length: LEVELS[mode] }, (_, index) => `stage1 ${LEVELS[mode] - 1 - index} ${stage2}`);

  t.step("cold: directory, tables, final address");
  const cold = device.walk(0x4000_0008n);
  t.equal(
    cold.lines.join("; "),
    ["DDT 2", "DDT 1", "DDT 0", ...tables(STAGE2), `final ${STAGE2}`].join("; "),
    "the loads",
  );
  t.expect(cold.walk.spa !== null && (cold.walk.spa & 0xfffn) === 8n, "the page offset is kept");

  t.step("again: the IOTLB answers");
  t.equal(device.walk(0x4000_0000n).lines.length, 0, "loads");

  t.step("the page beside it: the tables are remembered, and only leaves are loaded");
  t.equal(device.walk(0x4000_1000n).lines.join("; "), `stage1 (1); stage1 0; final ${REMEMBERED}`, "the loads");

  t.step("after IOTINVAL.VMA: the directory is still cached, and the second stage, which is the host's");
  vm.iommu.invalidate();
  vm.iommu.fence();
  t.equal(
    device.walk(0x4000_0000n).lines.join("; "),
    [...tables(REMEMBERED), `final ${REMEMBERED}`].join("; "),
    "the loads",
  );

  t.step("a 1 GiB leaf ends stage 1 at level 2");
  const wide = device.walk(0x8000_0000n + (page & 0x3fff_ffffn));
  t.equal(wide.lines.join("; "), [...tables(REMEMBERED).slice(0, -2), `final ${REMEMBERED}`].join("; "), "the loads");
  t.equal(wide.walk.spa, cold.walk.spa! - 8n, "both mappings reach the same page");

  t.step("one call of the host for each of these steps");
  t.equal(vm.hostCalls.IOMMU_HWPT_ALLOC, 3, "HWPTs: second stage, blocked, the guest's stage 1");
});
