import { describe, expect, it } from "vitest";
import { Clock } from "../../../../host/base/clock.ts";
import { Trace } from "../../../../host/base/trace.ts";
import { NO_PASID } from "../../../../host/devices/ports.ts";
import { type AttachHandle, AttachmentList } from "../../../../host/kernel/iommu/attachments.ts";
import { IommuCore } from "../../../../host/kernel/iommu/core.ts";
import type { IommuDevice } from "../../../../host/kernel/iommu/driver.ts";

import { MAX_HELD, MAX_OUTSTANDING, type PageRequestGroup } from "../../../../host/kernel/iommu/page-requests.ts";
import { EBUSY, EEXIST, EINVAL, ENODEV, ENOMEM, EPERM } from "../../../../host/uapi/errno.ts";
import { type FakeDomain, FakeDriver, fakeDevice, request } from "./fake-driver.ts";

function core(...devices: IommuDevice[]) {
  const iommu = new IommuCore(new Trace(new Clock()));
  const driver = new FakeDriver();
  for (const device of devices) iommu.addDevice(device, driver, "one group");
  return { iommu, driver, group: iommu.groups[0]! };
}

const attachment = (domain: FakeDomain, more: Partial<AttachHandle> = {}): AttachHandle => ({
  domain,
  onPageRequests: null,
  ...more,
});

describe("DMA ownership of a group", () => {
  const [a, b] = [fakeDevice("a"), fakeDevice("b")];
  type Step = (group: ReturnType<typeof core>["group"]) => number | undefined;
  const kernel: Step = (group) => group.useDefaultDomain();
  const mine = {};
  const yours = {};
  const claim =
    (owner: object): Step =>
    (group) =>
      group.claimDevice(owner);
  const claimGroup =
    (owner: object): Step =>
    (group) =>
      group.claim(owner);

  // iommu.c: a kernel driver finds another owner → EBUSY; a claim that finds any other user → EPERM; one owner nests by device only.
  it.each<[string, Step, Step, number]>([
    ["kernel driver, then kernel driver", kernel, kernel, 0],
    ["kernel driver, then a device claim", kernel, claim(mine), -EPERM],
    ["kernel driver, then a group claim", kernel, claimGroup(mine), -EPERM],
    ["device claim, then kernel driver", claim(mine), kernel, -EBUSY],
    ["device claim, then the same owner's", claim(mine), claim(mine), 0],
    ["device claim, then another owner's", claim(mine), claim(yours), -EPERM],
    ["device claim, then the same owner's group claim", claim(mine), claimGroup(mine), -EPERM],
    ["group claim, then kernel driver", claimGroup(mine), kernel, -EBUSY],
    ["group claim, then another owner's device claim", claimGroup(mine), claim(yours), -EPERM],
    ["group claim, then a group claim", claimGroup(mine), claimGroup(yours), -EPERM],
  ])("%s", (_name, first, second, expected) => {
    const { group, driver } = core(a, b);
    expect(first(group)).toBe(0);
    const before = [driver.where.get("a"), driver.where.get("b")];
    expect(second(group)).toBe(expected);
    expect([driver.where.get("a"), driver.where.get("b")]).toEqual(before);
  });

  it("blocks the whole group at the first claim and restores the default domain at the last release", () => {
    const { group, driver } = core(a, b);
    group.claimDevice(mine);
    group.claimDevice(mine);
    expect([driver.where.get("a"), driver.where.get("b")]).toEqual(["blocked", "blocked"]);
    group.releaseDevice();
    expect(driver.where.get("a")).toBe("blocked");
    expect(group.useDefaultDomain()).toBe(-EBUSY);
    group.releaseDevice();
    expect([driver.where.get("a"), driver.where.get("b")]).toEqual(["default", "default"]);
    expect(group.useDefaultDomain()).toBe(0);
  });

  it("cannot be claimed when a device refuses the blocking domain, and then nobody has moved", () => {
    const { group, driver } = core(a, b);
    driver.refusals.set("b blocked", -EINVAL);
    expect(group.claimDevice(mine)).toBe(-EINVAL);
    expect(group.owner).toBeNull();
    expect(driver.where.get("a")).toBe("default");
  });
});

describe("switching a group", () => {
  const [a, b, c] = [fakeDevice("a"), fakeDevice("b"), fakeDevice("c")];
  const owner = {};

  it("moves every device, and back when one refuses", () => {
    const { group, driver } = core(a, b, c);
    group.claimDevice(owner);
    const [first, second] = [driver.domain("first"), driver.domain("second")];
    expect(group.attach(attachment(first))).toBe(0);
    expect(["a", "b", "c"].map((name) => driver.where.get(name))).toEqual(["first", "first", "first"]);
    driver.refusals.set("c second", -EINVAL);
    driver.log.length = 0;
    expect(group.replace(attachment(second))).toBe(-EINVAL);
    expect(["a", "b", "c"].map((name) => driver.where.get(name))).toEqual(["first", "first", "first"]);
    // Never through the blocking domain.
    expect(driver.log.filter((line) => line.includes("blocked"))).toEqual([]);
    expect(group.handleAt(NO_PASID)!.domain).toBe(first);
  });

  it("blocks a device that cannot be moved back either: its DMA goes nowhere rather than to the wrong place", () => {
    const { group, driver } = core(a, b);
    group.claimDevice(owner);
    const [first, second] = [driver.domain("first"), driver.domain("second")];
    group.attach(attachment(first));
    driver.refusals.set("b second", -EINVAL);
    first.attach = (device) => (device === a ? -ENOMEM : 0);
    expect(group.replace(attachment(second))).toBe(-EINVAL);
    expect([driver.where.get("a"), driver.where.get("b")]).toEqual(["blocked", "first"]);
    expect(first.attachments.items.map(({ device }) => device.name)).toEqual(["b"]);
    expect(second.attachments.items).toEqual([]);
    // What comes next finds it where it is.
    driver.refusals.clear();
    expect(group.replace(attachment(second))).toBe(0);
    expect([driver.where.get("a"), driver.where.get("b")]).toEqual(["second", "second"]);
  });

  it("goes on when a device is pulled out in the middle of its reset", () => {
    const [ats, other] = [fakeDevice("ats", { hasAts: true }), fakeDevice("other")];
    const { group, driver, iommu } = core(ats, other);
    group.claimDevice(owner);
    iommu.beginReset(ats);
    iommu.removeDevice(ats);
    expect(group.attach(attachment(driver.domain("first")))).toBe(0);
    expect(driver.where.get("other")).toBe("first");
  });

  it("attaches once; later ones replace; detaching blocks", () => {
    const { group, driver } = core(a);
    group.claimDevice(owner);
    expect(group.attach(attachment(driver.domain("first")))).toBe(0);
    expect(group.attach(attachment(driver.domain("second")))).toBe(-EBUSY);
    group.detach();
    expect(driver.where.get("a")).toBe("blocked");
  });

  it("refuses another driver's domain", () => {
    const { group } = core(a);
    group.claimDevice(owner);
    expect(group.attach(attachment(new FakeDriver().domain("foreign")))).toBe(-EINVAL);
  });

  it("a released group is detached first", () => {
    const { group, driver } = core(a);
    group.claimDevice(owner);
    group.attach(attachment(driver.domain("first")));
    group.releaseDevice();
    expect(driver.where.get("a")).toBe("default");
    expect(group.handleAt(NO_PASID)).toBeNull();
  });

  it("does nothing while a device with ATS resets, and puts the device back afterwards", () => {
    const ats = fakeDevice("ats", { hasAts: true });
    const { group, driver, iommu } = core(ats);
    group.claimDevice(owner);
    const first = driver.domain("first");
    group.attach(attachment(first));
    expect(iommu.beginReset(ats)).toBe(0);
    expect(driver.where.get("ats")).toBe("blocked");
    expect(group.replace(attachment(driver.domain("second")))).toBe(-EBUSY);
    iommu.endReset(ats);
    expect(driver.where.get("ats")).toBe("first");
  });

  it("a detach during a reset holds after it", () => {
    const ats = fakeDevice("ats", { hasAts: true });
    const { group, driver, iommu } = core(ats);
    group.claimDevice(owner);
    group.attach(attachment(driver.domain("first")));
    iommu.beginReset(ats);
    group.detach();
    iommu.endReset(ats);
    expect(driver.where.get("ats")).toBe("blocked");
  });
});

describe("PASIDs of a group", () => {
  const owner = {};
  const device = () => fakeDevice("a", { maxPasids: 16 });

  it("attach once, replace what is there, detach to blocking", () => {
    const { group, driver } = core(device());
    group.claimDevice(owner);
    const [first, second] = [attachment(driver.domain("first")), attachment(driver.domain("second"))];
    expect(group.replacePasid(first, 3)).toBe(-EINVAL);
    expect(group.attachPasid(first, 3)).toBe(0);
    expect(group.attachPasid(second, 3)).toBe(-EBUSY);
    expect(group.replacePasid(second, 3)).toBe(0);
    expect(driver.where.get("a.3")).toBe("second");
    group.detachPasid(3);
    group.detachPasid(3);
    expect(driver.where.get("a.3")).toBe("blocked");
  });

  it.each([16, 2 ** 20, -1, 0, 1.5])("refuse PASID %s of a device with 16", (pasid) => {
    const { group, driver } = core(device());
    group.claimDevice(owner);
    expect(group.attachPasid(attachment(driver.domain("first")), pasid)).toBe(-EINVAL);
  });

  it("are rolled back when a second device refuses", () => {
    const { group, driver } = core(device(), fakeDevice("b", { maxPasids: 16 }));
    group.claimDevice(owner);
    driver.refusals.set("b.3 first", -EINVAL);
    expect(group.attachPasid(attachment(driver.domain("first")), 3)).toBe(-EINVAL);
    expect(driver.where.get("a.3")).toBe("blocked");
    expect(group.pasidsInUse).toBe(0);
  });
});

describe("what is attached to a domain", () => {
  it("is listed by IOMMU and by device, so that an invalidation goes through once", () => {
    const list = new AttachmentList();
    const iommus = [{}, {}];
    const devices = ["a", "b", "c"].map((label) => fakeDevice(label));
    const domain = new FakeDriver().domain("any");
    // Devices a and c are behind the first IOMMU, b behind the second.
    const add = (index: number, pasid: number) => {
      const one = { device: devices[index]!, pasid, domain, handle: null, instance: iommus[index % 2]! };
      list.add(one);
      return one;
    };
    for (const [index, pasid] of [
      [0, NO_PASID],
      [1, NO_PASID],
      [2, 3],
      [0, 4],
      [1, 5],
    ] as const)
      add(index, pasid);
    const gone = add(0, 6);
    const shown = () => list.items.map(({ device, pasid }) => `${device.name}${pasid}`);
    expect(shown()).toEqual(["a-1", "a4", "a6", "c3", "b-1", "b5"]);
    list.remove(gone);
    expect(shown()).toEqual(["a-1", "a4", "c3", "b-1", "b5"]);
    expect(() => list.remove(gone)).toThrow();
  });
});

describe("devices of the core", () => {
  it("are known once", () => {
    const device = fakeDevice("a");
    const { iommu, driver } = core(device);
    expect(iommu.addDevice(device, driver)).toBe(-EEXIST);
    iommu.removeDevice(device);
    expect(iommu.groups).toEqual([]);
    expect(iommu.reportPageRequest(device, request(1, true))).toBe(-ENODEV);
  });

  it("join a group that is owned on the group's present domain", () => {
    const { iommu, driver, group } = core(fakeDevice("a"));
    group.claimDevice({});
    group.attach(attachment(driver.domain("first")));
    iommu.addDevice(fakeDevice("late"), driver, "one group");
    expect(driver.where.get("late")).toBe("first");
  });
});

describe("page requests", () => {
  const owner = {};
  function listening(...devices: IommuDevice[]) {
    const parts = core(...devices);
    parts.group.claimDevice(owner);
    const got: PageRequestGroup[] = [];
    const take = attachment(parts.driver.domain("nested", "nested"), {
      onPageRequests: (group) => {
        got.push(group);
        return 0;
      },
    });
    parts.group.attach(take);
    return { ...parts, got };
  }

  it("are delivered as a group, in order, when its last one arrives", () => {
    const device = fakeDevice("a");
    const { iommu, got } = listening(device);
    iommu.reportPageRequest(device, request(7, false, { address: 0x1000n }));
    iommu.reportPageRequest(device, request(8, false, { address: 0x9000n }));
    iommu.reportPageRequest(device, request(7, false, { address: 0x2000n }));
    expect(got).toEqual([]);
    iommu.reportPageRequest(device, request(7, true, { address: 0x3000n }));
    expect(got.map((group) => group.requests.map(({ address }) => address))).toEqual([[0x1000n, 0x2000n, 0x3000n]]);
  });

  it("are answered once, whoever answers twice", () => {
    const device = fakeDevice("a");
    const { iommu, got, driver } = listening(device);
    iommu.reportPageRequest(device, request(7, true));
    got[0]!.respond(0);
    got[0]!.respond(1);
    expect(driver.responses).toEqual([{ device: "a", group: 7, pasid: NO_PASID, code: 0 }]);
  });

  it("that reuse a group index are two groups with an answer each", () => {
    const device = fakeDevice("a");
    const { iommu, got, driver } = listening(device);
    iommu.reportPageRequest(device, request(7, true, { address: 0x1000n }));
    iommu.reportPageRequest(device, request(7, true, { address: 0x2000n }));
    expect(got.length).toBe(2);
    got[1]!.respond(0);
    got[0]!.respond(1);
    expect(driver.responses.map(({ code }) => code)).toEqual([0, 1]);
  });

  it("never finished cost one device a bounded store and no other device anything", () => {
    const [bad, good] = [fakeDevice("bad"), fakeDevice("good", { deviceId: 2 })];
    const { iommu, got, group } = listening(bad, good);
    for (let i = 0; i < 3 * MAX_HELD; i++) iommu.reportPageRequest(bad, request(i % 512, false));
    expect(group.members[0]!.pageRequests.held).toBe(MAX_HELD);
    iommu.reportPageRequest(good, request(1, false, { address: 0x5000n }));
    iommu.reportPageRequest(good, request(1, true));
    expect(got.map(({ device, requests }) => [device.name, requests.length])).toEqual([["good", 2]]);
  });

  it("that nobody answers are bounded: a device with more than there are group indexes gets INVALID", () => {
    const device = fakeDevice("a");
    const { iommu, got, driver } = listening(device);
    for (let i = 0; i < MAX_OUTSTANDING + 10; i++) iommu.reportPageRequest(device, request(i % 512, true));
    expect(got.length).toBe(MAX_OUTSTANDING);
    expect(driver.responses.length).toBe(10);
    got[0]!.respond(0);
    expect(iommu.reportPageRequest(device, request(0, true))).toBe(0);
  });

  // io-pgfault.c, iommu_report_device_fault: the handler is looked for first, whichever request of a group it is.
  it.each([true, false])("without a handler are answered invalid at once (last: %s) and not kept", (last) => {
    const device = fakeDevice("a");
    const { iommu, driver, group } = core(device);
    expect(iommu.reportPageRequest(device, request(3, last))).toBe(-EINVAL);
    expect(driver.responses).toEqual([{ device: "a", group: 3, pasid: NO_PASID, code: 1 }]);
    expect(group.members[0]!.pageRequests.held).toBe(0);
  });

  it("of unfinished groups are dropped when some were lost (iopf_queue_discard_partial); delivered ones are not", () => {
    const [a, b] = [fakeDevice("a"), fakeDevice("b", { deviceId: 2 })];
    const { iommu, got, driver, group } = listening(a, b);
    for (const device of [a, b]) {
      iommu.reportPageRequest(device, request(7, false));
      iommu.reportPageRequest(device, request(8, true));
    }
    iommu.discardPartialRequests([a, b]);
    expect(group.members.map(({ pageRequests }) => [pageRequests.held, pageRequests.outstanding])).toEqual([
      [0, 1],
      [0, 1],
    ]);
    expect(driver.responses).toEqual([]);
    iommu.reportPageRequest(a, request(7, true));
    expect(got.at(-1)!.requests.length).toBe(1);
  });

  it("are none the worse for a replace that is rolled back", () => {
    const [a, b] = [fakeDevice("a"), fakeDevice("b", { deviceId: 2 })];
    const { iommu, got, driver, group } = listening(a, b);
    iommu.reportPageRequest(a, request(7, true));
    iommu.reportPageRequest(a, request(8, false));
    driver.refusals.set("b other", -EINVAL);
    expect(group.replace(attachment(driver.domain("other")))).toBe(-EINVAL);
    expect(driver.responses).toEqual([]);
    iommu.reportPageRequest(a, request(8, true));
    expect(got.map(({ requests }) => requests.length)).toEqual([1, 2]);
    group.detach();
    expect(driver.responses.map(({ code }) => code)).toEqual([1, 1]);
  });

  it("of one PASID end with its attachment, while those of others go on", () => {
    const device = fakeDevice("a", { maxPasids: 16 });
    const { iommu, got, driver, group } = listening(device);
    const handle = attachment(driver.domain("five"), {
      onPageRequests: (requests) => {
        got.push(requests);
        return 0;
      },
    });
    group.attachPasid(handle, 5);
    for (const pasid of [NO_PASID, 5]) {
      iommu.reportPageRequest(device, request(1, true, { pasid }));
      iommu.reportPageRequest(device, request(2, false, { pasid }));
    }
    group.detachPasid(5);
    expect(driver.responses).toEqual([{ device: "a", group: 1, pasid: 5, code: 1 }]);
    expect(driver.requestsOn.has("a")).toBe(true);
    expect(group.members[0]!.pageRequests.held).toBe(1);
    got[0]!.respond(0);
    expect(driver.responses.length).toBe(2);
  });

  it("of any PASID go to the nested domain, where the guest has the PASID table", () => {
    const device = fakeDevice("a", { maxPasids: 16 });
    const { iommu, got } = listening(device);
    iommu.reportPageRequest(device, request(3, true, { pasid: 5 }));
    expect(got.length).toBe(1);
  });

  it("unanswered are answered invalid when the attachment goes", () => {
    const device = fakeDevice("a");
    const { iommu, got, driver, group } = listening(device);
    iommu.reportPageRequest(device, request(3, true));
    iommu.reportPageRequest(device, request(4, false));
    group.detach();
    expect(driver.responses).toEqual([{ device: "a", group: 3, pasid: NO_PASID, code: 1 }]);
    expect(driver.requestsOn.has("a")).toBe(false);
    got[0]!.respond(0);
    expect(driver.responses.length).toBe(1);
    expect(group.members[0]!.pageRequests.held).toBe(0);
  });

  it("a device that cannot be switched to page requests is not attached", () => {
    const device = fakeDevice("a");
    const { group, driver } = core(device);
    group.claimDevice(owner);
    driver.refusesPageRequests = true;
    const wants = attachment(driver.domain("first"), { onPageRequests: () => 0 });
    expect(group.attach(wants)).toBeLessThan(0);
    expect(driver.where.get("a")).toBe("blocked");
  });
});
