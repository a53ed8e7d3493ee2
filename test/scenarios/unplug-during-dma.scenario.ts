// A device is unplugged in the middle of a long DMA: what it wrote before stays, nothing comes after, and the host is clean.

import { scenario } from "nestbox";

export default scenario.each("unplug during DMA", { sweep: ["guest", "screwdriver"] }, (t, kind) => {
  const vm = t.vm({ kind, assign: ["0000:00:01.0@00:02.0"] });
  const device = vm.device("00:02.0");
  const stage1 = vm.stage1();
  const page = vm.ram.allocate();
  vm.ram.write(page, new Uint8Array(4096).fill(0xee));
  stage1.map(0x1000n, page, 4096n);
  device.installContext(stage1);
  const model = device.edu;
  model.start({ iova: 0x1000n, length: 4096, direction: "to-ram" });
  t.advance(10_500); // ten of 64 bursts, one per microsecond

  t.step("unplugged");
  const written = vm.ram.read(page, 4096).lastIndexOf(0) + 1;
  t.equal(written, 640, "bytes written when the device goes");
  if (t.value === "guest") vm.unassign(device);
  else vm.host.pullOut(device.hostName);
  t.advance(100_000);
  t.equal(vm.ram.read(page, 4096).lastIndexOf(0) + 1, 640, "bytes written in the end");
  vm.expectNoFault();
});
