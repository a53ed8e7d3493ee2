// Which pages of guest RAM did devices write? Dirty tracking in the second stage, while the guest's own first stage is nested over it.

import { scenario } from "nestbox";

export default scenario("dirty tracking of guest RAM while nested DMA runs", (t) => {
  const vm = t.vm({ assign: ["0000:00:01.0@00:02.0"] });
  const device = vm.device("00:02.0");
  const stage1 = vm.stage1();
  const pages = [vm.ram.allocate(), vm.ram.allocate(), vm.ram.allocate()];
  pages.forEach((page, index) => {
    stage1.map(BigInt(0x10_0000 + index * 4096), page, 4096n);
  });
  device.installContext(stage1);
  const space = vm.machine.assignment.addressSpace!;
  t.expect(space.canTrackDirty, "the host can track");
  t.equal(space.setDirtyTracking(true), 0, "turning it on");

  const dirty = (): bigint[] => {
    const found: bigint[] = [];
    t.equal(
      space.readDirty(vm.ram.base, vm.ram.bytes, (page) => found.push(page)),
      0,
      "reading the bitmap",
    );
    return found;
  };
  t.step("nothing written since");
  t.equal(dirty().length, 0, "dirty pages");
  t.step("one page read, one written");
  device.dmaRead(0x10_0000n, 64);
  device.dmaWrite(0x10_1000n, new Uint8Array(64));
  const found = dirty();
  t.expect(found.includes(pages[1]!), "the written page is dirty");
  t.expect(
    !found.includes(pages[0]!) || found.length > 1,
    "a page that was only read is dirty at most as part of a larger leaf",
  );
  t.equal(dirty().length, 0, "reading clears");
  t.equal(space.setDirtyTracking(false), 0, "turning it off");
});
