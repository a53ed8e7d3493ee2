// Every load of a nested walk, counted: VMSAv8-64 of each granule over a stage 2 of 4K with 48 bits. Guest RAM is 2 MiB aligned, so that stage 2 ends in
// blocks of level 2, three loads each; a full walk has those for the context descriptor, for each table of stage 1 and for the address it gives. And
// what the caches leave of it.

import { type SmmuStage1Mode, scenario } from "nestbox";

/** Start level by granule and address size (DDI 0487 D8.2.2). */
const START: Readonly<Record<SmmuStage1Mode, number>> = {
  ...{ "4K": 0, "4K-39": 1, "16K": 0, "16K-47": 1, "64K": 1, "64K-42": 2 },
};
const STAGE2 = "<- 0 1 2";
/** Stage 2 begins at the pointer that leads to 1 GiB of the guest's memory. */
const REMEMBERED = "<- (1) 2";
const GIBIBYTE = 1n << 30n;

export default scenario("an SMMUv3's nested walk, load by load", { sweep: Object.keys(START) }, (t) => {
  const mode = t.value as SmmuStage1Mode;
  const vm = t.vm({ kind: "smmuv3", assign: ["0000:00:01.0@00:02.0"] });
  const device = vm.device("00:02.0");
  const stage1 = vm.stage1(mode);
  const { granuleBytes } = stage1;
  const page = vm.ram.allocate(Number(granuleBytes / 4096n), granuleBytes);
  stage1.map(0x4000_0000n, page, granuleBytes);
  device.installContext(stage1);
  const tables = (stage2: string) =>
    Array.from({ length: 4 - START[mode] }, (_, index) => `stage1 ${START[mode] + index} ${stage2}`);

  t.step(
    "cold: the host's stream table (two levels, as StreamIDs have more than 8 bits), descriptor, tables, final address",
  );
  const cold = device.walk(0x4000_0008n);
  t.equal(
    cold.lines.join("; "),
    ["L1STD 0", "STE 0", `CD 0 ${STAGE2}`, ...tables(STAGE2), `final ${STAGE2}`].join("; "),
    "the loads",
  );
  t.expect(cold.walk.spa !== null && (cold.walk.spa & 0xfffn) === 8n, "the page offset is kept");

  t.step("again: the TLB answers");
  t.equal(device.walk(0x4000_0000n).lines.length, 0, "loads");

  t.step("after TLBI_NSNH_ALL: configurations are still cached, and stage 2, which is the host's");
  vm.iommu.invalidate();
  vm.iommu.fence();
  t.equal(
    device.walk(0x4000_0000n).lines.join("; "),
    [...tables(REMEMBERED), `final ${REMEMBERED}`].join("; "),
    "the loads",
  );

  if (granuleBytes !== 4096n) return;
  t.step("a block of 1 GiB ends stage 1 at level 1");
  stage1.map(0x8000_0000n, 0x8000_0000n, GIBIBYTE, { pageBytes: GIBIBYTE });
  const wide = device.walk(0x8000_0000n + (page & (GIBIBYTE - 1n)));
  t.equal(wide.lines.join("; "), [...tables(REMEMBERED).slice(0, -2), `final ${REMEMBERED}`].join("; "), "the loads");
  t.equal(wide.walk.spa, cold.walk.spa! - 8n, "both mappings reach the same page");
});
