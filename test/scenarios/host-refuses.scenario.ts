// The host refuses a device's first stage (no memory for the HWPT). That device is blocked and its cause kept; the other device goes on; a
// later invalidation of its context tries again.

import { scenario } from "nestbox";

export default scenario.each("host refuses a domain: one device is blocked, others go on", (t, kind) => {
  const vm = t.vm({ kind, assign: ["0000:00:01.0@00:01.0", "0000:00:02.0@00:02.0"] });
  const { host } = vm;
  const [refused, other] = [vm.device("00:01.0"), vm.device("00:02.0")];
  const page = vm.ram.allocate();
  const tables = [vm.stage1(), vm.stage1()];
  for (const table of tables) table.map(0x1000n, page, 4096n);
  other.installContext(tables[1]!);

  t.step("the host has no memory for one HWPT");
  host.inject(["ioctl:IOMMU_HWPT_ALLOC=ENOMEM"]);
  refused.installContext(tables[0]!);
  host.inject([]);
  t.equal(refused.disposition, "blocked", "what the refused device's DMA goes through");
  t.expect(
    t.messages.some((line) => /IOMMU_HWPT_ALLOC.*00:01\.0.*0000:00:01\.0.*ENOMEM/.test(line)),
    "a message names the call, both devices and the error",
  );
  t.expect(!refused.dmaRead(0x1000n, 4).ok, "its DMA is refused");
  vm.expectFault({ what: "refused by the host", device: refused });
  t.expect(other.dmaRead(0x1000n, 4).ok, "the other device reads on");

  t.step("the guest tries again");
  refused.installContext(tables[0]!);
  t.equal(refused.disposition, "nested", "what its DMA goes through now");
  t.expect(refused.dmaRead(0x1000n, 4).ok, "its DMA goes through");
  vm.expectNoFault();
});
