// A guest names StreamIDs that are not its own: commands for them do nothing, and no other VM's device is disturbed. Commands of a second stage, or of
// another exception level, are the guest's own CERROR_ILL: its SMMU has neither (IHI 0070 §4.4, §7.1).

import { scenario } from "nestbox";

export default scenario("an SMMUv3's guest that lies about its StreamID", (t) => {
  const honest = t.vm({ kind: "smmuv3", assign: ["0000:00:01.0@00:02.0"] });
  const liar = t.vm({ kind: "smmuv3", assign: ["0000:00:02.0@00:03.0"] });
  const victim = honest.device("00:02.0");
  const stage1 = honest.stage1("4K", { tag: 5 });
  const page = honest.ram.allocate();
  stage1.map(0x1000n, page, 4096n);
  victim.installContext(stage1);
  t.expect(victim.dmaRead(0x1000n, 4).ok, "the honest VM's device works");

  t.step("entries for ids that are the host's, or the other guest's");
  for (const id of [0x08, 0x10, 0xffff]) {
    liar.iommu.writeContext(id, { V: 0 });
    liar.iommu.command("CFGI_STE", { SID: id, Leaf: 1 });
    liar.iommu.command("CFGI_CD_ALL", { SID: id });
    liar.iommu.command("ATC_INV", { SID: id, Size: 52 });
  }
  liar.iommu.command("TLBI_NH_ASID", { ASID: 5 });
  liar.iommu.fence();
  t.equal(victim.disposition, "nested", "what the victim's DMA goes through");
  stage1.unmap(0x1000n, 4096n);
  t.expect(victim.dmaRead(0x1000n, 4).ok, "not even its cached translations were invalidated");

  t.step("another VM's VMID: the field is reserved where there is no stage 2, and Linux puts the guest's own there");
  for (let vmid = 0; vmid < 8; vmid++) liar.iommu.command("TLBI_NH_ALL", { VMID: vmid });
  liar.iommu.command("TLBI_NSNH_ALL");
  liar.iommu.fence();
  t.expect(victim.dmaRead(0x1000n, 4).ok, "the victim's stale translation is still there");

  t.step("commands that are not a guest's stop its own queue, each by itself, and nothing else");
  for (const name of ["TLBI_S12_VMALL", "TLBI_S2_IPA", "TLBI_EL2_ALL", "TLBI_EL2_VA"] as const) {
    liar.iommu.command(name);
    liar.iommu.ringDoorbell();
    t.equal(liar.iommu.commandError, `CERROR_ILL at CMD_${name}`, "what the guest's queue stopped at");
    t.expect(victim.dmaRead(0x1000n, 4).ok, "the victim goes on");
    liar.iommu.skipCommand();
    liar.iommu.fence();
  }
});
