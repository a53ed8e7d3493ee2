// A device asks for a page that is not there (ATS and PRI). The guest takes its time, maps the page, answers; the device translates again and
// its command completes without a fault. And one the guest refuses.

import { scenario } from "nestbox";

export default scenario.each(
  "page request answered late",
  { sweep: ["mapped", "refused"], timeLimit: 1e9 },
  (t, kind) => {
    const vm = t.vm({ kind, services: true, assign: ["0000:00:01.0@00:02.0"] });
    // Not every kind forwards page requests.
    if (!vm.iommu.offer.pageRequests) return;
    const device = vm.device("00:02.0");
    const stage1 = vm.stage1();
    device.installContext(stage1, { pageRequests: true });
    const { edu } = device;
    edu.translateFirst({ pageRequests: true });
    edu.start({ iova: 0x7000n, length: 64, direction: "to-ram" });
    t.advance(20_000);

    t.step("requested");
    const [request, ...more] = vm.takePageRequests();
    t.equal(more.length, 0, "further requests");
    t.equal(request?.deviceId, device.guestId, "the request's device id is the guest's");
    t.equal(request?.address, 0x7000n, "its address");
    t.expect(request?.last === true && request.write, "it is the last of its group, and for writing");

    t.step("the guest is busy for ten milliseconds");
    t.advance(10_000_000);
    t.expect(edu.running, "the device still waits");
    const page = vm.ram.allocate();
    if (t.value === "mapped") stage1.map(0x7000n, page, 4096n);
    request!.answer(t.value === "mapped" ? "success" : "invalid");
    t.advance(100_000);
    t.expect(!edu.running, "the device has ended its command");
    t.equal(edu.outcome, t.value === "mapped" ? "done" : "page request failed", "how the command ended");
    vm.expectNoFault();
  },
);
