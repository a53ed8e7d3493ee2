// Two address spaces for one device: a table of them in guest memory (PD8), which the hardware walks through stage 2.

import { scenario } from "nestbox";

export default scenario.each("one device, two PASIDs, a table of them in guest memory", (t, kind) => {
  const vm = t.vm({ kind, services: true, assign: ["0000:00:01.0@00:02.0"] });
  // Not every kind forwards PASIDs.
  if (vm.iommu.offer.pasidBits === 0) return;
  const device = vm.device("00:02.0");
  const pages = [vm.ram.allocate(), vm.ram.allocate()];
  const tables = pages.map((page, index) => {
    const stage1 = vm.stage1();
    stage1.map(0x1000n, page, 4096n);
    device.installContext(stage1, { pasid: index + 1 });
    return stage1;
  });

  t.step("same IOVA, two PASIDs");
  for (const pasid of [1, 2])
    t.expect(device.dmaWrite(0x1000n, Uint8Array.of(0x10 + pasid), { pasid }).ok, `PASID ${pasid} writes`);
  t.equal(vm.ram.read(pages[0]!, 1), Uint8Array.of(0x11), "the first address space's page");
  t.equal(vm.ram.read(pages[1]!, 1), Uint8Array.of(0x12), "the second's");

  t.step("a PASID that is not set up");
  device.dmaRead(0x1000n, 1, { pasid: 3 });
  vm.expectFault({ what: "PASID not set up", device, pasid: 3 });

  t.step("one address space changes, the other does not notice");
  tables[0]!.unmap(0x1000n, 4096n);
  vm.iommu.invalidate({ stage1: tables[0]! });
  vm.iommu.fence();
  device.dmaRead(0x1000n, 1, { pasid: 1 });
  vm.expectFault({ what: "not mapped", device, pasid: 1, iova: 0x1000n });
  t.expect(device.dmaRead(0x1000n, 1, { pasid: 2 }).ok, "the second PASID reads on");
});
