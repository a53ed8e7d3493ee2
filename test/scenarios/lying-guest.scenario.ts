// A guest names device ids that are not its own: commands for them do nothing, and no other VM's device is disturbed; commands for a
// second stage find none.

import { scenario } from "nestbox";

const CQCSR = 72;

export default scenario("a guest that lies about its device id", (t) => {
  const honest = t.vm({ assign: ["0000:00:01.0@00:02.0"] });
  const liar = t.vm({ assign: ["0000:00:02.0@00:03.0"] });
  const victim = honest.device("00:02.0");
  const stage1 = honest.stage1("Sv39", { pscid: 5 });
  const page = honest.ram.allocate();
  stage1.map(0x1000n, page, 4096n);
  victim.installContext(stage1);
  t.expect(victim.dmaRead(0x1000n, 4).ok, "the honest VM's device works");

  t.step("contexts for ids that are the host's, or the other guest's");
  for (const id of [0x08, 0x10, 0xffffff]) {
    liar.iommu.writeContext(id, { tc: 0n });
    liar.iommu.command("IODIR.INVAL_DDT", { DV: 1, DID: id });
  }
  liar.iommu.command("IOTINVAL.VMA", { PSCV: 1, PSCID: 5 });
  liar.iommu.fence();
  t.equal(victim.disposition, "nested", "what the victim's DMA goes through");
  stage1.unmap(0x1000n, 4096n);
  t.expect(victim.dmaRead(0x1000n, 4).ok, "not even its cached translations were invalidated");

  t.step(
    "it claims to be a hypervisor: this IOMMU has no second stage of the guest's, so there is nothing to invalidate",
  );
  liar.iommu.command("IOTINVAL.GVMA", {});
  liar.iommu.command("IOTINVAL.VMA", { GV: 1, GSCID: 1 });
  liar.iommu.fence();
  t.expect(victim.dmaRead(0x1000n, 4).ok, "the victim's stale translation is still there");

  t.step("a malformed command stops its own queue, and nothing else");
  liar.iommu.command("IOTINVAL.GVMA", { PSCV: 1 }); // illegal (§4.1.1)
  liar.iommu.ringDoorbell();
  t.equal((liar.iommu.read32(CQCSR) >> 10) & 1, 1, "cqcsr.cmd_ill");
  t.expect(victim.dmaRead(0x1000n, 4).ok, "the victim goes on");
});
