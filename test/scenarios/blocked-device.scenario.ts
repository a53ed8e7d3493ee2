// A context with V = 0 is reported when a transaction arrives (cause 258), not when the command runs; DTF does not apply where no
// context is. A context with a reserved bit is 259, and DTF = 1 keeps such causes out of the queue.

import { scenario } from "nestbox";

export default scenario("a blocked device faults at its next DMA, with the cause hardware would give", (t) => {
  const vm = t.vm({ assign: ["0000:00:01.0@00:02.0"] });
  const device = vm.device("00:02.0");
  const stage1 = vm.stage1();
  stage1.map(0x1000n, vm.ram.allocate(), 4096n);
  device.installContext(stage1);
  t.expect(device.dmaRead(0x1000n, 4).ok, "a valid context works");

  t.step("V = 0");
  device.installContext("blocked");
  vm.expectNoFault();
  device.dmaRead(0x1000n, 4);
  vm.expectFault({ cause: 258, device, iova: 0x1000n });

  t.step("a reserved bit of tc (§3.1.4)");
  device.installContext({ tc: 1n | (1n << 12n), fsc: stage1.fsc });
  vm.expectNoFault();
  device.dmaWrite(0x1000n, Uint8Array.of(1));
  vm.expectFault({ cause: 259, device, write: true });

  t.step("V = 0 and DTF = 1: DTF counts only in a context that was found (§4.2)");
  device.installContext({ tc: 1n << 4n });
  device.dmaRead(0x1000n, 4);
  vm.expectFault({ cause: 258, device });
});
