// What an SMMUv3's guest hears of a device it has not set up, or not as an SMMU takes it. Assigned devices: an entry with V = 0, or Config 0, aborts in
// silence, for Linux makes both an abort entry (IHI 0070 §5.2); what hardware finds wrong in entry and descriptor comes home as C_BAD_STE and C_BAD_CD.
// A wrong entry makes its own stream abort and stops nothing else.

import { scenario } from "nestbox";

export const contexts = scenario("an SMMUv3's entries and descriptors: what is silent, what is heard", (t) => {
  const vm = t.vm({ kind: "smmuv3", services: true, assign: ["0000:00:01.0@00:02.0", "0000:00:02.0@00:01.0"] });
  const [device, other] = [vm.device("00:02.0"), vm.device("00:01.0")];
  const stage1 = vm.stage1();
  const page = vm.ram.allocate();
  stage1.map(0x1000n, page, 4096n);
  device.installContext(stage1);
  other.installContext(stage1);
  t.expect(device.dmaRead(0x1000n, 4).ok, "a valid entry works");

  t.step("V = 0, and Config 0");
  for (const entry of [{ V: 0 }, { V: 1, Config: 0 }]) {
    device.installContext(entry);
    t.expect(!device.dmaRead(0x1000n, 4).ok, "it aborts");
    vm.expectNoFault();
  }

  t.step("a context descriptor with AA64 = 0, where there is VMSAv8-64 alone (§5.4.2)");
  device.installContext(stage1, { descriptor: { AA64: 0 } });
  vm.expectNoFault();
  t.expect(!device.dmaWrite(0x1000n, Uint8Array.of(1)).ok, "it is refused");
  vm.expectFault({ number: 0x0a, device });

  t.step(
    "an entry whose S1ContextPtr leads to no memory of the guest's: the host's stage 2 refuses, which no guest hears of",
  );
  device.installContext(stage1, { stream: { S1ContextPtr: 0x10_0000n >> 6n } });
  t.expect(!device.dmaRead(0x1000n, 4).ok, "it is refused");
  vm.expectNoFault();

  t.step("EATS = 2 is not for a guest: its stream aborts, and the queue goes on");
  device.installContext(stage1, { stream: { EATS: 2 } });
  t.expect(!device.dmaRead(0x1000n, 4).ok, "it aborts");
  t.equal(vm.iommu.commandError, null, "an error of the command queue");
  t.expect(other.dmaRead(0x1000n, 4).ok, "the other device goes on");

  t.step("as it was");
  device.installContext(stage1);
  t.expect(device.dmaRead(0x1000n, 4).ok, "a valid entry works again");
  vm.expectNoFault();
});

export const substreams = scenario(
  "an SMMUv3's tables of context descriptors, of every shape",
  { sweep: ["linear", "4K", "64K"] },
  (t) => {
    const format = t.value as "linear" | "4K" | "64K";
    const cdMax = { linear: 8, "4K": 10, "64K": 14 }[format];
    const vm = t.vm({ kind: "smmuv3", services: true, assign: ["0000:00:01.0@00:02.0"] });
    const device = vm.device("00:02.0");
    const [whole, own] = [vm.stage1("4K-39"), vm.stage1("16K-47")];
    const [first, second] = [vm.ram.allocate(), vm.ram.allocate(4, 0x4000n)];
    whole.map(0x4000n, first, 4096n);
    own.map(0x4000n, second, 0x4000n);
    const last = 2 ** cdMax - 1;
    device.installContext(whole);
    device.installContext(own, { pasid: last, contexts: { format, cdMax } });
    t.expect(device.dmaWrite(0x4000n, Uint8Array.of(1)).ok, "without a PASID: descriptor 0");
    t.expect(device.dmaWrite(0x4000n, Uint8Array.of(2), { pasid: last }).ok, "the last PASID");
    t.equal(vm.ram.read(first, 1)[0], 1, "the page of requests without a PASID");
    t.equal(vm.ram.read(second, 1)[0], 2, "the PASID's page, of another granule");

    t.step("a PASID past the table (§7.3.9)");
    device.dmaRead(0x4000n, 4, { pasid: last + 1 });
    vm.expectFault({ number: 0x08, device, pasid: last + 1 });

    t.step("S1DSS: requests without a PASID bypass stage 1, or end (§5.2, §7.3.7)");
    device.installContext("bypass");
    t.equal(device.dmaRead(first, 1).bytes[0], 1, "the address is guest-physical");
    t.expect(device.dmaRead(0x4000n, 1, { pasid: last }).ok, "the PASID has its own still");
  },
);
