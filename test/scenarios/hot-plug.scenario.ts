// A device is plugged in while another's DMA runs: the first goes on, the second is a stranger until the guest sets it up, and then both work; unplugged
// and plugged in again in another place, it is a stranger again.

import { scenario } from "nestbox";

export default scenario.each("hot-plug while another device's DMA runs", (t, kind) => {
  const vm = t.vm({ kind, assign: ["0000:00:01.0@00:02.0"] });
  const first = vm.device("00:02.0");
  const stage1 = vm.stage1();
  const pages = [vm.ram.allocate(), vm.ram.allocate()] as const;
  vm.ram.write(pages[0], new Uint8Array(4096).fill(0xee));
  stage1.map(0x1000n, pages[0], 4096n);
  first.installContext(stage1);
  const { edu } = first;
  edu.start({ iova: 0x1000n, length: 4096, direction: "to-ram" });
  t.advance(10_500);
  t.expect(edu.running, "the first device's DMA runs");

  t.step("plugged in");
  let second = vm.assign("0000:00:02.0@00:03.0");
  t.expect(!second.dmaWrite(0x1000n, Uint8Array.of(1)).ok, "the new device reaches nothing");
  vm.expectFault({ what: "device not set up", device: second });
  const other = vm.stage1();
  other.map(0x1000n, pages[1], 4096n);
  second.installContext(other);
  t.expect(second.dmaWrite(0x1000n, Uint8Array.of(2)).ok, "set up, it works");
  t.equal(vm.ram.read(pages[1], 1)[0], 2, "its own page");
  t.advance(100_000);
  t.equal(edu.outcome, "done", "how the first device's command ended");
  t.equal(vm.ram.read(pages[0], 4096).lastIndexOf(0xee), -1, "what it had not written");

  t.step("moved");
  vm.unassign(second);
  t.expect(!second.dmaWrite(0x1000n, Uint8Array.of(3)).ok, "unplugged, it reaches nothing");
  second = vm.assign("0000:00:02.0@00:04.0");
  t.expect(!second.dmaWrite(0x1000n, Uint8Array.of(4)).ok, "in another place it is a stranger");
  vm.expectFault({ what: "device not set up", device: second });
  t.equal(vm.ram.read(pages[1], 1)[0], 2, "the page");
  second.installContext(other);
  t.expect(second.dmaWrite(0x1000n, Uint8Array.of(5)).ok, "set up again, it works");
  t.expect(first.dmaRead(0x1000n, 4).ok, "and so does the first");
  vm.expectNoFault();
});
