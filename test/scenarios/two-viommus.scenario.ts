// Two vIOMMUs of one VM over the same guest memory, and both guests' drivers chose tag 7 (PSCID, ASID). Each vIOMMU has tags of its own in the host, so
// neither sees, nor invalidates, the other's translations.

import { scenario } from "nestbox";

export default scenario.each("two vIOMMUs of one VM, equal tags on purpose", (t, kind) => {
  const vm = t.vm({ kind, assign: ["0000:00:01.0@00:01.0/first", "0000:00:02.0@00:02.0/second"] });
  t.equal(vm.iommus.length, 2, "vIOMMUs");
  const devices = [vm.device("00:01.0"), vm.device("00:02.0")];
  const pages = devices.map(() => vm.ram.allocate());
  const tables = devices.map((device, index) => {
    const stage1 = vm.stage1(undefined, { tag: 7 });
    stage1.map(0x1000n, pages[index]!, 4096n);
    device.installContext(stage1);
    return stage1;
  });

  t.step("same IOVA, same tag, different pages");
  devices.forEach((device, index) => {
    t.expect(device.dmaWrite(0x1000n, Uint8Array.of(0x50 + index)).ok, `device ${index} writes`);
  });
  pages.forEach((page, index) => {
    t.equal(vm.ram.read(page, 1), Uint8Array.of(0x50 + index), `page ${index}`);
  });

  t.step("the first invalidates tag 7; the second's translation stays cached");
  for (const table of tables) table.unmap(0x1000n, 4096n);
  vm.iommus[0]!.invalidate({ stage1: tables[0]! });
  vm.iommus[0]!.fence();
  t.expect(!devices[0]!.dmaRead(0x1000n, 1).ok, "the first device faults");
  vm.expectFault({ what: "not mapped", device: devices[0]!, iova: 0x1000n });
  t.expect(devices[1]!.dmaRead(0x1000n, 1).ok, "the second device still uses its stale translation");
  vm.expectNoFault();
});
