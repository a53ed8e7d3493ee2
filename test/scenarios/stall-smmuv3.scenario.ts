// A transaction that faults and waits (Arm SMMUv3, IHI 0070 §3.12.2): only a device that is on no bus may do that. The host's hardware holds it,
// the kernel hands the fault to the VMM with a cookie, the guest finds an event with Stall = 1 under the ids of its own SMMU, and its CMD_RESUME
// goes all the way back.

import { scenario } from "nestbox";

const GUEST_ID = 0x400;
const IOVA = 0x7000n;

/** How the guest answers, and what comes of the command. */
const ANSWERS = {
  "retried, mapped": { answer: "success", maps: true, outcome: "done" },
  "retried, still not mapped": { answer: "success", maps: false, outcome: "refused" },
  aborted: { answer: "invalid", maps: true, outcome: "refused" },
} as const;

export const answered = scenario(
  "a stalled transaction answered",
  { sweep: Object.keys(ANSWERS), timeLimit: 1e9 },
  (t) => {
    const { answer, maps, outcome } = ANSWERS[t.value as keyof typeof ANSWERS];
    const vm = t.vm({ kind: "smmuv3", assign: [`edu0@0x${GUEST_ID.toString(16)}`] });
    t.expect(vm.iommu.offer.stalls === true, "an SMMU with such a device behind it says that transactions may stall");
    const device = vm.platformDevice(GUEST_ID);
    const stage1 = vm.stage1();
    device.installContext(stage1, { stalls: true });
    const { edu, interrupt } = device;
    const trace = t.watch();
    edu.start({ iova: IOVA, length: 256, direction: "from-ram", interrupt: true });
    t.advance(10_000);

    t.step("stalled");
    const [request, ...more] = vm.takePageRequests();
    vm.expectNoFault();
    t.equal(more.length, 0, "further stalled transactions: the device waits with its command");
    t.equal(request?.deviceId, GUEST_ID, "the event's StreamID is the guest's");
    t.equal(request?.address, IOVA, "its address");
    t.expect(request?.read === true && !request.write, "it is a read");

    t.step("the guest is busy for a millisecond");
    t.advance(1_000_000);
    t.expect(edu.running, "the command still runs");
    t.equal(edu.moved, 0, "bytes moved");
    t.equal(vm.takeInterrupts().includes(interrupt), false, "an interrupt of the device");

    t.step("answered");
    const page = vm.ram.allocate();
    vm.ram.write(page, Uint8Array.of(1, 2, 3, 4));
    if (maps) stage1.map(IOVA, page, 4096n);
    request!.answer(answer);
    t.advance(100_000);
    if (!maps) {
      const [again] = vm.takePageRequests();
      t.equal(again?.address, IOVA, "retried without a mapping it stalls anew");
      again!.answer("failure");
      t.advance(100_000);
    }
    t.equal(edu.outcome, outcome, "how the command ended");
    t.equal(edu.moved, outcome === "done" ? 256 : 0, "bytes moved");
    t.expect(vm.takeInterrupts().includes(interrupt), "the device says so on its wire");
    vm.expectNoFault();
    const host = trace.filter((event) => event.type === "command" && event.where === "host" && event.name === "RESUME");
    t.equal(host.length, maps ? 1 : 2, "CMD_RESUMEs of the host's kernel");
  },
);

export const several = scenario("stalled transactions are answered in any order, each by its own tag", (t) => {
  const vm = t.vm({ kind: "smmuv3", assign: [`edu0@0x${GUEST_ID.toString(16)}`] });
  const device = vm.platformDevice(GUEST_ID);
  const stage1 = vm.stage1();
  device.installContext(stage1, { stalls: true });
  const first = device.dmaRead(0x1000n, 4);
  t.expect(first.stalled && !first.ok, "an access of the device's own, at an address that is not mapped, waits");
  device.edu.start({ iova: IOVA, length: 64, direction: "to-ram" });
  t.advance(10_000);
  const [earlier, later] = vm.takePageRequests();
  t.equal(earlier?.address, 0x1000n, "the first to stall");
  t.equal(later?.address, IOVA, "the second");
  t.expect(later?.write === true, "which is a write");
  stage1.map(IOVA, vm.ram.allocate(), 4096n);
  later!.answer("success");
  t.advance(10_000);
  t.equal(device.edu.outcome, "done", "the second, answered first");
  earlier!.answer("invalid");
  t.advance(10_000);
  t.equal(vm.takePageRequests().length, 0, "stalled transactions left");
  vm.expectNoFault();
});

export const undone = scenario(
  "a device that goes while its transaction waits",
  { sweep: ["unplugged by the guest", "pulled out of the host", "reset", "guest's context taken away", "all aborted"] },
  (t) => {
    const vm = t.vm({ kind: "smmuv3", assign: [`edu0@0x${GUEST_ID.toString(16)}`] });
    const device = vm.platformDevice(GUEST_ID);
    const stage1 = vm.stage1();
    device.installContext(stage1, { stalls: true });
    device.edu.start({ iova: IOVA, length: 64, direction: "to-ram" });
    t.advance(10_000);
    const [request] = vm.takePageRequests();
    t.equal(request?.address, IOVA, "it waits");
    const page = vm.ram.allocate();

    t.step("gone");
    const trace = t.watch();
    switch (t.value) {
      case "unplugged by the guest":
        vm.unassign(device);
        break;
      case "pulled out of the host":
        vm.host.pullOut(device.hostName);
        break;
      case "reset":
        device.entry.device.reset();
        break;
      case "guest's context taken away":
        device.installContext("blocked");
        break;
      default:
        vm.iommu.command("STALL_TERM", { SID: GUEST_ID });
        vm.iommu.fence();
    }
    t.advance(10_000);
    stage1.map(IOVA, page, 4096n);
    // Too late, or in time for nobody: it must do no harm.
    request!.answer("success");
    t.advance(100_000);
    t.equal(vm.ram.read(page, 4), new Uint8Array(4), "what the device was to write never arrives");
    const ended = trace.filter(
      (event) => event.type === "command" && event.where === "host" && event.name === "RESUME",
    );
    t.equal(ended.length, 1, "CMD_RESUMEs of the host's kernel, which keeps nothing waiting");
    if (t.value !== "pulled out of the host" && t.value !== "unplugged by the guest") {
      t.expect(!device.edu.running, "its command has ended");
      device.installContext(stage1, { stalls: true });
      device.edu.start({ iova: IOVA, length: 64, direction: "to-ram" });
      t.advance(10_000);
      t.equal(device.edu.outcome, "done", "and it works again");
    }
  },
);

export const mayNot = scenario("what may not stall does not", (t) => {
  const vm = t.vm({ kind: "smmuv3", assign: ["0000:00:02.0@00:02.0"] });
  t.expect(vm.iommu.offer.stalls !== true, "an SMMU with nothing but PCI functions terminates only");
  const both = t.vm({
    kind: "smmuv3",
    host: t.host("arm"),
    assign: [`edu0@0x${GUEST_ID.toString(16)}`, "0000:00:01.0@00:01.0"],
  });
  const [edu, pci] = [both.platformDevice(GUEST_ID), both.device("00:01.0")];
  for (const device of [edu, pci]) device.installContext(both.stage1());
  t.equal(edu.dmaRead(IOVA, 4).stalled, false, "a stream for which the guest did not ask for it");
  both.expectFault({ what: "not mapped", device: edu, iova: IOVA, write: false });
  // CD.S behind S1STALLD = 0, which a driver that knows the rules never writes for a PCI function (§3.12.2.1).
  pci.installContext(both.stage1(), { stream: { S1STALLD: 0 }, descriptor: { S: 1 } } as never);
  t.equal(pci.dmaRead(IOVA, 4).ok, false, "a PCI function's access");
  // The vIOMMU keeps S1STALLD set for it, and a descriptor that stalls nevertheless is ILLEGAL: C_BAD_CD (§5.4.2).
  t.equal(
    both
      .takeFaults()
      .map(({ number, streamId, stall }) => `${number} ${streamId} ${stall}`)
      .join(),
    "10 8 false",
    "what the guest hears",
  );
  t.equal(both.takePageRequests().length, 0, "stalled transactions");
  t.equal(both.takePageRequests().length, 0, "stalled transactions");
});
