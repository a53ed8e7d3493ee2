// A guest maps an IOVA to a guest-physical address where it has no RAM. Stage 2 stops the DMA; the guest hears what an
// IOMMU without a second stage says of absent memory (RISC-V: an access fault with the IOVA; SMMUv3: nothing), and nothing of the host's addresses.

import { scenario } from "nestbox";

export default scenario.each(
  "an IOVA mapped outside guest RAM is memory that is not there, and no host address is told",
  (t, kind) => {
    const vm = t.vm({ kind, memory: 1 << 20, assign: ["0000:00:01.0@00:02.0"] });
    const device = vm.device("00:02.0");
    const stage1 = vm.stage1();
    stage1.map(0x1000n, 0x8000_0000n + (1n << 20n), 4096n); // the first page past RAM
    stage1.map(0x2000n, 0x10_0000n, 4096n); // nothing at all
    device.installContext(stage1);

    t.expect(!device.dmaRead(0x1008n, 8).ok, "the read is refused");
    const read = vm.expectFault({ what: "outside memory", device, iova: 0x1000n, write: false });
    t.expect(!device.dmaWrite(0x2000n, new Uint8Array(8)).ok, "the write is refused");
    const write = vm.expectFault({ what: "outside memory", device, iova: 0x2000n, write: true });
    for (const record of [read, write])
      if (record !== null && "iotval2" in record) t.equal(record.iotval2, 0n, "the record's other address");
  },
);
