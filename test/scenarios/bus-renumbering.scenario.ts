// A device behind a root port has the id that the guest's bus number gives it. The guest renumbers the bus: the device answers at the new
// address, its DMA follows the context of the new id, and the host's vDEVICE is a new one.

import { scenario } from "nestbox";

const PORT = "00:03.0";
const SECONDARY_BUS = 0x19;

export default scenario.each("the guest renumbers a bus, and a device's id changes", (t, kind) => {
  const vm = t.vm({ kind, assign: [`0000:00:01.0@${PORT}/00.0`] });
  const device = vm.devices[0]!;
  t.equal(device.guestId, -1, "the id before the guest has numbered the bus");
  t.expect(!device.dmaRead(0x1000n, 4).ok, "nothing is reachable then");

  t.step("bus 5");
  vm.configWrite(PORT, SECONDARY_BUS, 1, 5);
  t.equal(device.guestId, 0x500, "the id");
  const pages = [vm.ram.allocate(), vm.ram.allocate()];
  const tables = pages.map((page) => {
    const stage1 = vm.stage1();
    stage1.map(0x1000n, page, 4096n);
    return stage1;
  });
  device.configWrite16(4, 0x6);
  device.installContext(tables[0]!);
  t.expect(device.dmaWrite(0x1000n, Uint8Array.of(0x55)).ok, "DMA under the context of 0x500");
  t.equal(vm.ram.read(pages[0]!, 1), Uint8Array.of(0x55), "its page");

  t.step("bus 7");
  vm.configWrite(PORT, SECONDARY_BUS, 1, 7);
  t.equal(device.name, "07:00.0", "where the guest finds it");
  t.expect(!device.dmaRead(0x1000n, 4).ok, "the old id's context is not the new one's");
  vm.expectFault({ what: "device not set up", device });
  device.installContext(tables[1]!);
  t.expect(device.dmaWrite(0x1000n, Uint8Array.of(0x77)).ok, "DMA under the context of 0x700");
  t.equal(vm.ram.read(pages[1]!, 1), Uint8Array.of(0x77), "its page");
  // Where stage 1 stands on a vIOMMU object the host knows the device by its id; else by nothing but itself.
  if (vm.hostCalls.IOMMU_VIOMMU_ALLOC !== undefined) t.equal(vm.hostCalls.IOMMU_VDEVICE_ALLOC, 2, "vDEVICEs made");
});
