// A guest unmaps a page and forgets to invalidate: the device keeps seeing it. Invalidated, it faults.

import { scenario } from "nestbox";

export default scenario.each("stale IOTLB after unmap without invalidation", (t, kind) => {
  const vm = t.vm({ kind, assign: ["0000:00:01.0@00:02.0"] });
  const device = vm.device("00:02.0");
  const stage1 = vm.stage1();
  const page = vm.ram.allocate();
  stage1.map(0x4000n, page, 4096n);
  device.installContext(stage1);

  t.step("mapped");
  t.expect(device.dmaWrite(0x4000n, Uint8Array.of(1, 2, 3, 4)).ok, "a DMA through the new mapping succeeds");
  t.equal(vm.ram.read(page, 4), Uint8Array.of(1, 2, 3, 4), "the bytes in guest RAM");

  t.step("unmapped, not invalidated");
  stage1.unmap(0x4000n, 4096n);
  t.expect(device.dmaRead(0x4000n, 4).ok, "the stale translation is still used");
  vm.expectNoFault();

  t.step("invalidated");
  vm.iommu.invalidate({ stage1, iova: 0x4000n });
  vm.iommu.fence();
  t.expect(!device.dmaRead(0x4000n, 4).ok, "the DMA is refused now");
  vm.expectFault({ what: "not mapped", device, iova: 0x4000n, write: false });
});
