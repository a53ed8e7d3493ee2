// Guest and host use each other's ids for the two devices: who confuses the two sends one device's DMA through the other's tables.

import { scenario } from "nestbox";

export default scenario.each("device ids crossed over between guest and host", (t, kind) => {
  const vm = t.vm({ kind, assign: ["0000:00:01.0@00:02.0", "0000:00:02.0@00:01.0"] });
  const one = vm.device("00:01.0");
  const two = vm.device("00:02.0");
  t.equal(vm.host.deviceIdOf(one.hostName), two.guestId, "the host's id of the first is the guest's id of the second");

  const pages = [one, two].map((device, index) => {
    const stage1 = vm.stage1();
    const page = vm.ram.allocate();
    stage1.map(0x1000n, page, 4096n);
    device.installContext(stage1);
    device.dmaWrite(0x1000n, Uint8Array.of(0xa0 + index));
    return page;
  });
  t.equal(vm.ram.read(pages[0]!, 1), Uint8Array.of(0xa0), "the first device's page");
  t.equal(vm.ram.read(pages[1]!, 1), Uint8Array.of(0xa1), "the second device's page");

  t.step("a fault carries the guest's id");
  one.dmaRead(0x9000n, 4);
  vm.expectFault({ what: "not mapped", device: one, iova: 0x9000n });
  two.dmaWrite(0xa000n, Uint8Array.of(1));
  vm.expectFault({ what: "not mapped", device: two, iova: 0xa000n, write: true });
});
