// A guest that remaps its devices' interrupts (VT-d §5.1): an MSI names an entry of a table, the entry says which interrupt it is; what is wrong blocks the
// message and is recorded; an entry that changed is used as it was until its cache is told.

import { scenario } from "nestbox";

/** An MSI in the compatibility format: receiver 0. */
const COMPATIBLE = 0xfee0_0000n;

const remapped = scenario("remapped interrupts of an assigned device", (t) => {
  const vm = t.vm({ kind: "vtd", assign: ["0000:00:01.0@00:02.0"] });
  const device = vm.device("00:02.0");
  const driver = vm.iommu;
  const stage1 = vm.stage1();
  stage1.map(0x1000n, vm.ram.allocate(), 4096n);
  device.installContext(stage1);
  /** The device raises its MSI; the numbers that the guest takes, and what it hears of faults but for the fault's own message. */
  const raise = (address: bigint, data: number) => {
    device.enableMsi(address, data);
    device.edu.start({ iova: 0x1000n, length: 64, direction: "to-ram", interrupt: true });
    t.advance(10_000);
    const reasons = vm.takeFaults().map(({ reason, sourceId }) => [reason, sourceId]);
    return { taken: vm.takeInterrupts().filter((number) => number < 64), reasons };
  };
  const blocked = (reason: number) => ({ taken: [], reasons: [[reason, device.guestId]] });

  t.step("off: a message says itself where it goes");
  t.equal(raise(COMPATIBLE, 33), { taken: [33], reasons: [] }, "vector 33 at receiver 0");
  t.equal(raise(COMPATIBLE | 0x5000n, 33), { taken: [], reasons: [] }, "a receiver that there is not");

  t.step("on: compatibility format is blocked (25h)");
  const table = driver.remapInterrupts(8);
  t.equal(raise(COMPATIBLE, 33), blocked(0x25), "CFI = 0");

  t.step("an entry");
  const message = driver.writeInterruptEntry(table, 5, { V: 41, SVT: 1, SID: device.guestId });
  const address = BigInt(message.address);
  t.equal(raise(address, 0), { taken: [41], reasons: [] }, "entry 5 is vector 41, whatever the message's data");
  const subhandle = BigInt(message.address) - (2n << 5n) + 8n;
  t.equal(raise(subhandle, 2), { taken: [41], reasons: [] }, "handle 3, subhandle 2: the same");

  t.step("changed, and the cache not told");
  vm.ram.write64(table + 80n, 0n);
  t.equal(raise(address, 0), { taken: [41], reasons: [] }, "stale");
  driver.descriptor("interruptEntry", { G: 1, IM: 1, IIDX: 4 });
  driver.fence();
  t.equal(raise(address, 0), blocked(0x22), "two entries from 4 on are forgotten: P = 0");

  t.step("refusals");
  driver.writeInterruptEntry(table, 5, { V: 41, SVT: 1, SID: device.guestId ^ 8 });
  t.equal(raise(address, 0), blocked(0x26), "another's");
  driver.writeInterruptEntry(table, 5, { V: 41, SVT: 1, SID: device.guestId ^ 4, SQ: 1 });
  t.equal(raise(address, 0), { taken: [41], reasons: [] }, "but for bit 2 of the function");
  driver.writeInterruptEntry(table, 5, { V: 41, IM: 1 });
  t.equal(raise(address, 0), blocked(0x24), "posted: not offered");
  driver.writeInterruptEntry(table, 5, { V: 41, IM: 1, FPD: 1 });
  t.equal(raise(address, 0), { taken: [], reasons: [] }, "with FPD blocked in silence");
  t.equal(raise(BigInt(message.address) + (0x100n << 5n), 0), blocked(0x21), "beyond the table");
});

const formats = scenario("what an interrupt table's register says", (t) => {
  const vm = t.vm({ kind: "vtd", assign: ["0000:00:01.0@00:02.0"] });
  const device = vm.device("00:02.0");
  const driver = vm.iommu;
  device.installContext("bypass");
  const page = vm.ram.allocate();
  const raise = (address: bigint, data: number) => {
    device.enableMsi(address, data);
    device.edu.start({ iova: page, length: 4, direction: "to-ram", interrupt: true });
    t.advance(10_000);
    return [...vm.takeInterrupts().filter((number) => number < 64), ...vm.takeFaults().map(({ reason }) => -reason)];
  };

  t.step("compatibility format let by");
  driver.remapInterrupts(8, { compatibility: true });
  t.equal(raise(COMPATIBLE, 35), [35], "CFI = 1");

  t.step("EIME: destinations of 32 bits, and no compatibility format whatever CFI says");
  const table = driver.remapInterrupts(8, { extended: true });
  t.equal(raise(COMPATIBLE, 35), [-0x25], "25h");
  const near = driver.writeInterruptEntry(table, 1, { V: 36, DST: 0 });
  t.equal(raise(BigInt(near.address), 0), [36], "destination 0");
  // As many pages past the receivers as RAM stands.
  driver.writeInterruptEntry(table, 1, { V: 36, DST: 0x5_8000 });
  const before = vm.ram.read64(0x8000_0000n);
  t.equal(raise(BigInt(near.address), 0), [], "a receiver that there is not");
  t.equal(vm.ram.read64(0x8000_0000n), before, "guest RAM is as it was");

  t.step("a table that is not in memory");
  driver.write64(0xb8, 0x1000n | 7n);
  driver.write32(0x18, ((driver.read32(0x1c) & 0x96ff_ffff) | (1 << 24)) >>> 0);
  t.equal(raise(BigInt(near.address), 0), [-0x23], "23h");
});

export default [remapped, formats];
