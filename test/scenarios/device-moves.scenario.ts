// Two VMs, one device moved from the first to the second: nothing of the first VM's memory is reachable for it any more.

import { scenario } from "nestbox";

export default scenario.each("two VMs, one device moved", (t, kind) => {
  const first = t.vm({ kind, assign: ["0000:00:01.0@00:02.0"] });
  const before = first.device("00:02.0");
  const secret = first.ram.allocate();
  first.ram.write(secret, new TextEncoder().encode("first VM"));
  const stage1 = first.stage1(undefined, { tag: 3 });
  stage1.map(0x1000n, secret, 4096n);
  before.installContext(stage1);
  t.expect(before.dmaRead(0x1000n, 8).ok, "the first VM's device reads its page");

  t.step("moved");
  first.unassign(before);
  t.expect(!before.dmaRead(0x1000n, 8).ok, "between the VMs the device reaches nothing");

  const second = t.vm({ kind, assign: ["0000:00:01.0@00:05.0"] });
  const after = second.device("00:05.0");
  t.expect(!after.dmaRead(0x1000n, 8).ok, "a device the second VM has not set up reaches nothing");
  second.expectFault({ what: "device not set up", device: after });

  t.step("set up by the second VM, with the first one's tag and IOVA");
  const page = second.ram.allocate();
  second.ram.write(page, new TextEncoder().encode("2nd VM.."));
  const table = second.stage1(undefined, { tag: 3 });
  table.map(0x1000n, page, 4096n);
  after.installContext(table);
  t.equal(new TextDecoder().decode(after.dmaRead(0x1000n, 8).bytes), "2nd VM..", "what the device reads");
  t.equal(new TextDecoder().decode(first.ram.read(secret, 8)), "first VM", "the first VM's page");
  first.expectNoFault();
});
