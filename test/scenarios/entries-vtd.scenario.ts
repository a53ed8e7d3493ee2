// What a VT-d guest writes into its entries, and what becomes of it: only what the host can nest or pass through reaches memory; what is wrong is told when
// the entry is read; invalidations by domain drop everything that a first stage has a part in (VT-d §3.4, §6.5.2, §9.6).

import { scenario } from "nestbox";

const FIRST = 1;
const SECOND = 2;
const NESTED = 3;
const PASS_THROUGH = 4;
const [GCMD, GSTS, RTADDR] = [0x18, 0x1c, 0x20];
const TE = 0x8000_0000;
const SRTP = 1 << 30;

const entries = scenario("PASID entries that a guest with a first stage alone may write", (t) => {
  const vm = t.vm({ kind: "vtd", assign: ["0000:00:01.0@00:02.0"] });
  const device = vm.device("00:02.0");
  const page = vm.ram.allocate();
  const stage1 = vm.stage1();
  stage1.map(0x4000n, page, 4096n);
  const fields = { DID: 7, FSPTPTR: stage1.root >> 12n };

  t.step("what it was never offered");
  for (const PGTT of [SECOND, NESTED, 0, 5]) {
    vm.iommu.installContext(device.guestId, { pasid: { ...fields, PGTT, FSPTPTR: 0 } });
    vm.expectFault({ what: "context malformed", device });
    t.expect(!device.dmaRead(0x4000n, 1).ok, `PGTT ${PGTT} lets nothing through`);
  }

  t.step("reserved bits");
  vm.iommu.installContext(device.guestId, { pasid: { ...fields, PGTT: FIRST, SSPTPTR: 1 } });
  const [record] = vm.takeFaults();
  t.equal(record?.reason, 0x5a, "SPT.3");

  t.step("five levels, where the host has them, and a mode that there is not");
  vm.iommu.installContext(device.guestId, { pasid: { ...fields, PGTT: FIRST, FSPM: 2 } });
  vm.expectFault({ what: "context malformed", device });

  t.step("AW, as Linux writes it whatever PGTT says");
  vm.iommu.installContext(device.guestId, { pasid: { ...fields, PGTT: FIRST, AW: 2 } });
  t.expect(device.dmaWrite(0x4000n, Uint8Array.of(9)).ok, "nested");
  vm.iommu.installContext(device.guestId, { pasid: { PGTT: PASS_THROUGH, DID: 1, AW: 2 } });
  t.equal(device.dmaRead(page, 1).bytes, Uint8Array.of(9), "passed through");
  vm.expectNoFault();
});

const domains = scenario("an IOTLB invalidation by domain drops first stages of that domain id", (t) => {
  const vm = t.vm({ kind: "vtd", assign: ["0000:00:01.0@00:02.0", "0000:00:02.0@00:03.0"] });
  const devices = [vm.device("00:02.0"), vm.device("00:03.0")];
  const page = vm.ram.allocate();
  const stages = devices.map((device) => {
    const stage1 = vm.stage1();
    stage1.map(0x4000n, page, 4096n);
    device.installContext(stage1);
    t.expect(device.dmaRead(0x4000n, 1).ok, "mapped");
    return stage1;
  });
  for (const stage1 of stages) stage1.unmap(0x4000n, 4096n);
  const hears = (): boolean[] => devices.map((device) => device.dmaRead(0x4000n, 1).ok);
  t.equal(hears(), [true, true], "both stale");
  const driver = vm.iommu;
  driver.descriptor("iotlb", { G: 3, DID: stages[0]!.tag, ADDR: 0x999 });
  driver.fence();
  t.equal(hears(), [false, true], "a page of domain 0's, whichever: all of its first stages");
  driver.descriptor("pasidIotlb", { G: 3, DID: stages[1]!.tag, PASID: 0, ADDR: 0x999 });
  driver.fence();
  t.equal(hears(), [false, true], "another page of the PASID is another page");
  driver.descriptor("pasidIotlb", { G: 3, DID: stages[1]!.tag, PASID: 1, ADDR: 4 });
  driver.fence();
  t.equal(hears(), [false, true], "another PASID is another PASID");
  driver.descriptor("iotlb", { G: 2, DID: stages[1]!.tag });
  driver.fence();
  t.equal(hears(), [false, false], "by domain");
});

const modes = scenario("translation off passes, legacy mode blocks, and the queue refuses what is not offered", (t) => {
  const vm = t.vm({ kind: "vtd", configuration: { ats: false }, assign: ["0000:00:01.0@00:02.0"] });
  const device = vm.device("00:02.0");
  const driver = vm.iommu;
  const page = vm.ram.allocate();
  t.expect(!device.dmaRead(page, 1).ok, "not set up");
  driver.write32(GCMD, (driver.read32(GSTS) & 0x96ff_ffff & ~TE) >>> 0);
  t.expect(device.dmaRead(page, 1).ok, "TE = 0: untranslated");
  driver.write32(GCMD, ((driver.read32(GSTS) & 0x96ff_ffff) | TE) >>> 0);
  t.expect(!device.dmaRead(page, 1).ok, "TE = 1 again");
  const root = driver.read64(RTADDR);
  driver.write64(RTADDR, root & ~0xfffn);
  vm.expectNoFault();
  driver.write32(GCMD, ((driver.read32(GSTS) & 0x96ff_ffff) | SRTP) >>> 0);
  const [record] = vm.takeFaults();
  t.equal(record?.reason, 0x30, "RTA.1: no legacy mode for what the host has to nest");
  t.expect(!device.dmaRead(page, 1).ok, "legacy mode blocks");
  driver.write64(RTADDR, root);
  driver.write32(GCMD, ((driver.read32(GSTS) & 0x96ff_ffff) | SRTP) >>> 0);
  driver.descriptor("deviceTlb", { SID: device.guestId });
  driver.ringDoorbell();
  t.expect(driver.queueError?.startsWith("IQE at device-TLB") === true, `IQE: ${driver.queueError}`);
});

export default [entries, domains, modes];
