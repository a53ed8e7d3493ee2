// Devices behind two physical IOMMUs in one VM: each has a vIOMMU of its own over the same guest RAM; an invalidation on one does not reach
// the other.

import { scenario } from "nestbox";

export default scenario.each("devices behind two physical IOMMUs in one VM", (t, kind) => {
  const vm = t.vm({ kind, assign: ["0000:00:01.0@00:01.0", "0000:80:01.0@00:02.0"] });
  t.equal(vm.iommus.length, 2, "vIOMMUs");
  const page = vm.ram.allocate();
  const devices = [vm.device("00:01.0"), vm.device("00:02.0")];
  const stage1 = vm.stage1();
  stage1.map(0x1000n, page, 4096n);
  for (const device of devices) device.installContext(stage1);
  devices.forEach((device, index) => {
    t.expect(device.dmaWrite(0x1000n + BigInt(index), Uint8Array.of(0x60 + index)).ok, `${device.name} writes`);
  });
  t.equal(vm.ram.read(page, 2), Uint8Array.of(0x60, 0x61), "the shared page");

  t.step("unmapped, invalidated on the first only");
  stage1.unmap(0x1000n, 4096n);
  vm.iommus[0]!.invalidate();
  vm.iommus[0]!.fence();
  devices[0]!.dmaRead(0x1000n, 1);
  vm.expectFault({ what: "not mapped", device: devices[0]! });
  t.expect(devices[1]!.dmaRead(0x1000n, 1).ok, "the second IOMMU still holds the translation");
});
