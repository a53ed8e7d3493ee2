// Guests with command queues that the hardware executes (a Tegra241 CMDQV beside the host's SMMU): an invalidation costs no system call and no exit but the
// waiting for it, reaches the guest's own translations and nobody else's, and what a guest may not say stops its own queue alone.

import { scenario } from "nestbox";

export const ownQueues = scenario("a guest's command queue is the hardware's", (t) => {
  const host = t.host("arm-cmdqv");
  const assign = ["0000:00:01.0@00:02.0", "0000:00:02.0@00:02.0"];
  const vm = t.vm({ kind: "smmuv3", host, assign: [assign[0]!] });
  const other = t.vm({ kind: "smmuv3", host, assign: [assign[1]!] });
  const map = (each: typeof vm) => {
    const stage1 = each.stage1(undefined, { tag: 1 });
    stage1.map(0x4000n, each.ram.allocate(), 4096n);
    each.device("00:02.0").installContext(stage1);
    t.expect(each.device("00:02.0").dmaRead(0x4000n, 4).ok, "a DMA through the new mapping succeeds");
    return stage1;
  };
  const [mine, others] = [map(vm), map(other)];

  t.step("unmapped by both, invalidated by one: no call of the host's");
  for (const stage1 of [mine, others]) stage1.unmap(0x4000n, 4096n);
  const before = JSON.stringify(vm.hostCalls);
  vm.iommu.invalidate({ stage1: mine, iova: 0x4000n });
  vm.iommu.invalidate({ stage1: mine });
  vm.iommu.ownQueues!.fence();
  t.equal(JSON.stringify(vm.hostCalls), before, "system calls of the VMM");
  t.expect(!vm.device("00:02.0").dmaRead(0x4000n, 4).ok, "its device faults");
  vm.expectFault({ what: "not mapped", device: vm.device("00:02.0"), iova: 0x4000n, write: false });
  t.expect(
    other.device("00:02.0").dmaRead(0x4000n, 4).ok,
    "the other guest's device, with the same ASID, is not touched",
  );

  t.step("a device of nobody's");
  vm.iommu.invalidateDevice(0x77);
  let complaint = "";
  try {
    vm.iommu.ownQueues!.fence();
  } catch (error) {
    complaint = (error as Error).message;
  }
  t.expect(complaint.includes("CERROR_ILL_ACCESS at CMD_ATC_INV SID=0x77"), `the queue stops: ${complaint}`);
  vm.iommu.ownQueues!.skipCommand();

  t.step("the queues go on, each guest's own");
  other.iommu.invalidate({ stage1: others });
  other.iommu.fence();
  t.expect(!other.device("00:02.0").dmaRead(0x4000n, 4).ok, "the other guest's device faults, too");
  vm.iommu.fence();
  t.equal(vm.iommu.commandError, null, "error of the SMMU's own queue");
});

export const beforeDevices = scenario(
  "a guest's queues are there before its bus has numbered what is behind the SMMU",
  (t) => {
    const vm = t.vm({ kind: "smmuv3", host: t.host("arm-cmdqv"), assign: ["0000:00:01.0@00:03.0/00.0"] });
    const device = vm.devices[0]!;
    t.equal(device.guestId, -1, "the id before the guest has numbered the bus");
    t.equal(vm.iommu.ownQueues!.error, null, "error of the guest's own queue");
    vm.configWrite("00:03.0", 0x19, 1, 5);
    const stage1 = vm.stage1();
    stage1.map(0x4000n, vm.ram.allocate(), 4096n);
    device.configWrite16(4, 0x6);
    device.installContext(stage1);
    t.expect(device.dmaRead(0x4000n, 4).ok, "a DMA through the new mapping succeeds");
    stage1.unmap(0x4000n, 4096n);
    vm.iommu.invalidate({ stage1, iova: 0x4000n });
    vm.iommu.invalidateDevice(device.guestId);
    vm.iommu.fence();
    t.expect(!device.dmaRead(0x4000n, 4).ok, "invalidated");
  },
);
