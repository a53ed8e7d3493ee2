// A guest maps an IOVA to a guest-physical address where it has no RAM. Stage 2 stops the DMA; the guest sees an access fault with the
// IOVA, as if its IOMMU had met absent memory, and nothing of the host's addresses.

import { scenario } from "nestbox";

export default scenario("an IOVA mapped outside guest RAM is an access fault without host addresses", (t) => {
  const vm = t.vm({ memory: 1 << 20, assign: ["0000:00:01.0@00:02.0"] });
  const device = vm.device("00:02.0");
  const stage1 = vm.stage1();
  stage1.map(0x1000n, 0x8000_0000n + (1n << 20n), 4096n); // the first page past RAM
  stage1.map(0x2000n, 0x10_0000n, 4096n); // nothing at all
  device.installContext(stage1);

  t.expect(!device.dmaRead(0x1008n, 8).ok, "the read is refused");
  const read = vm.expectFault({ cause: 5, device, iova: 0x1000n, write: false, iotval2: 0n });
  t.equal(read.iotval >> 12n, 1n, "iotval is the IOVA");
  t.expect(!device.dmaWrite(0x2000n, new Uint8Array(8)).ok, "the write is refused");
  vm.expectFault({ cause: 7, device, iova: 0x2000n, write: true, iotval2: 0n });
});
