// A host that tells a VT-d guest of its assigned devices' faults, which Linux does not (`deviations`: vtd-relay-faults): each is what a unit with a first stage
// alone would have recorded (VT-d §7.1.3, Table 26). On an ordinary host the same guest hears nothing (every-kind.scenario.ts).

import { parseHost, scenario } from "nestbox";

const HOST = parseHost(
  {
    name: "telling",
    iommus: [{ name: "dmar0", kind: "vtd" }],
    devices: [
      { model: "edu", bdf: "0000:00:01.0", iommu: "dmar0", options: { pasidBits: 20, ats: true, pri: true } },
      { model: "edu", bdf: "0000:00:02.0", iommu: "dmar0" },
    ],
    deviations: ["vtd-relay-faults"],
  },
  "relayed-faults-vtd.scenario.ts",
);

export default scenario("faults of assigned devices, relayed to a VT-d guest", (t) => {
  const vm = t.vm({ kind: "vtd", host: t.host(HOST), assign: ["0000:00:01.0@00:02.0", "0000:00:02.0@00:03.0"] });
  const device = vm.device("00:02.0");
  const heard = () =>
    vm.takeFaults().map(({ reason, sourceId, pasid, address, type }) => {
      return { reason, sourceId, pasid, address, write: type === 0 };
    });
  const record = (reason: number, address: bigint, write: boolean, pasid = -1) => [
    { reason, sourceId: device.guestId, pasid, address, write },
  ];

  t.step("nothing is set up");
  device.dmaRead(0x4000n, 4);
  t.equal(heard(), record(0x39, 0x4000n, false), "SRT.2: no root entry");

  t.step("the guest's tables");
  const stage1 = vm.stage1();
  const page = vm.ram.allocate();
  stage1.map(0x4000n, page, 4096n);
  stage1.map(0x5000n, page, 4096n, { write: false });
  stage1.map(0x6000n, 0x1000n, 4096n);
  device.installContext(stage1);
  t.expect(device.dmaRead(0x4000n, 4).ok, "mapped");
  device.dmaRead(0x9000n, 4);
  t.equal(heard(), record(0x71, 0x9000n, false), "SFS.2: not present");
  device.dmaWrite(0x5000n, Uint8Array.of(1));
  t.equal(heard(), record(0x85, 0x5000n, true), "SGN.6: no right to write");
  device.dmaRead(1n << 50n, 4);
  t.equal(heard(), record(0x80, 1n << 50n, false), "SGN.1: not canonical");

  t.step("memory that is not there");
  device.dmaWrite(0x6000n, Uint8Array.of(1));
  t.equal(heard(), [], "the host's second stage refuses it: memory aborts, in silence");
  const table = vm.stage1();
  vm.ram.write64(table.root, 0x1000n | 0x27n);
  device.installContext(table);
  device.dmaRead(0x9000n, 4);
  t.equal(heard(), record(0x70, 0x9000n, false), "SFS.1: a table of the guest's cannot be read");

  t.step("PASIDs");
  device.installContext(stage1);
  device.installContext(stage1, { pasid: 2 });
  t.expect(device.dmaRead(0x4000n, 4, { pasid: 2 }).ok, "PASID 2 reads");
  device.dmaRead(0x9000n, 4, { pasid: 2 });
  t.equal(heard(), record(0x71, 0x9000n, false, 2), "with its PASID");
  device.dmaRead(0x4000n, 4, { pasid: 3 });
  t.equal(heard(), record(0x59, 0x4000n, false, 3), "SPT.2: PASID 3 has no entry");
  vm.iommu.installContext(device.guestId, { pasid: { PGTT: 1, DID: stage1.tag, FSPTPTR: stage1.root >> 12n } });
  device.dmaRead(0x4000n, 4, { pasid: 2 });
  t.equal(heard(), record(0x45, 0x4000n, false, 2), "SCT.6: the context lets no PASID through");

  t.step("FPD");
  vm.iommu.installContext(device.guestId, { pasid: { PGTT: 1, DID: 9, FSPTPTR: stage1.root >> 12n, FPD: 1 } });
  device.dmaRead(0x9000n, 4);
  t.equal(heard(), [], "keeps what is qualified out");

  t.step("blocked");
  device.installContext("blocked");
  device.dmaRead(0x4000n, 4);
  t.equal(heard(), record(0x59, 0x4000n, false), "SPT.2");
});
