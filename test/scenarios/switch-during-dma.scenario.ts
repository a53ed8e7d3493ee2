// A device is switched between its first stage and bypass while it writes; the page maps IOVA = GPA, so that no byte may be lost or go astray.
// Where an architecture has a device blocked in between, its write ends there.

import { scenario } from "nestbox";

export default scenario.each("switching between nested and bypass while a DMA runs", (t, kind) => {
  const vm = t.vm({ kind, assign: ["0000:00:01.0@00:02.0"] });
  const device = vm.device("00:02.0");
  const stage1 = vm.stage1();
  const source = vm.ram.allocate();
  const target = vm.ram.allocate();
  vm.ram.write(
    source,
    Uint8Array.from({ length: 4096 }, (_, i) => (i * 7) & 0xff),
  );
  for (const page of [source, target]) stage1.map(page, page, 4096n);
  device.installContext(stage1);
  const { edu } = device;
  edu.start({ iova: source, length: 4096, direction: "from-ram" });
  t.advance(70_000);

  t.step("the long write begins");
  edu.start({ iova: target, length: 4096, direction: "to-ram" });
  let switches = 0;
  while (edu.running) {
    device.installContext(switches++ % 2 === 0 ? "bypass" : stage1);
    t.advance(700);
  }
  if (vm.switchesBlock) {
    // In between nothing is set up: the write ends there.
    t.equal(edu.outcome, "refused", "how the command ended");
    return;
  }
  t.expect(switches > 20, `the device was switched ${switches} times`);
  t.equal(edu.outcome, "done", "how the command ended");
  t.equal(vm.ram.read(target, 4096), vm.ram.read(source, 4096), "the bytes");
  vm.expectNoFault();
});
