// What holds for every kind of guest-visible IOMMU, told in every kind's words: what the guest maps is what its device reaches, what it took
// away is stale until it is invalidated, and each refusal is heard as that architecture says it.

import { scenario } from "nestbox";

export default scenario.each("a stage 1, its faults and its stale entry", (t, kind) => {
  const vm = t.vm({ kind, assign: ["0000:00:01.0@00:02.0"] });
  const device = vm.device("00:02.0");

  t.step("nothing is set up");
  t.expect(!device.dmaRead(0x4000n, 4).ok, "a device that is not set up reaches nothing");
  vm.expectFault({ what: "device not set up", device });

  t.step("mapped");
  const stage1 = vm.stage1();
  const page = vm.ram.allocate();
  stage1.map(0x4000n, page, 4096n);
  stage1.map(0x5000n, page, 4096n, { write: false });
  stage1.map(0x6000n, 0x1000n, 4096n);
  device.installContext(stage1);
  t.expect(device.dmaWrite(0x4000n, Uint8Array.of(1, 2, 3, 4)).ok, "a DMA through the new mapping succeeds");
  t.equal(vm.ram.read(page, 4), Uint8Array.of(1, 2, 3, 4), "the bytes in guest RAM");
  vm.expectNoFault();

  t.step("refusals");
  device.dmaRead(0x9000n, 4);
  vm.expectFault({ what: "not mapped", device, iova: 0x9000n, write: false });
  device.dmaWrite(0x5000n, Uint8Array.of(1));
  vm.expectFault({ what: "no permission", device, iova: 0x5000n, write: true });
  device.dmaWrite(0x6000n, Uint8Array.of(1));
  vm.expectFault({ what: "outside memory", device, iova: 0x6000n, write: true });

  t.step("unmapped, not invalidated");
  stage1.unmap(0x4000n, 4096n);
  t.expect(device.dmaRead(0x4000n, 4).ok, "the stale translation is still used");

  t.step("invalidated");
  vm.iommu.invalidate({ stage1, iova: 0x4000n });
  vm.iommu.fence();
  t.expect(!device.dmaRead(0x4000n, 4).ok, "the DMA is refused now");
  vm.expectFault({ what: "not mapped", device, iova: 0x4000n, write: false });

  t.step("bypass and back to nothing");
  device.installContext("bypass");
  t.equal(device.dmaRead(page, 4).bytes, Uint8Array.of(1, 2, 3, 4), "bypass: the address is the guest's physical one");
  device.installContext("blocked");
  t.expect(!device.dmaRead(page, 4).ok, "blocked again");
  vm.expectFault({ what: "device not set up", device });
});
