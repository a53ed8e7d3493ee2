// Page requests end to end: a device with ATS and PRI under a guest's first stage asks for a page; the request reaches user space
// through the fault queue with a cookie of the kernel's; the answer lets the device go on. A device that breaks the rules of its
// groups harms nobody else.

import { describe, expect, it } from "vitest";
import { encodeCommand } from "../../../host/arch/riscv/commands.ts";
import * as R from "../../../host/devices/edu/registers.ts";
import * as I from "../../../host/uapi/iommufd.ts";
import { GuestRam, GuestSv39, RAM_GPA } from "./guest.ts";
import { eduDma, eduOutcome, machine, name } from "./machine.ts";

const [BAD, GOOD] = [0x0108, 0x0110];
const IOVA = 0x4000_0000n;
const TC = 1n | (1n << 1n) | (1n << 2n);

interface Message {
  readonly device: number;
  readonly group: number;
  readonly last: boolean;
  readonly pasid: number | null;
  readonly perm: number;
  readonly address: bigint;
  readonly cookie: number;
}

function setUp() {
  const options = { pasidBits: 20, ats: true, pri: true, misbehaviour: true };
  const host = machine({
    devices: [
      { rid: BAD, options },
      { rid: GOOD, options },
    ],
  });
  host.assign();
  const user = host.user();
  const ram = new GuestRam();
  const va = user.process.memory.mapBuffer(ram.buffer, 0, ram.buffer.byteLength);
  const iommufd = user.iommufd();
  const ioas = user.ioas(iommufd);
  user.map(iommufd, ioas, va, ram.buffer.byteLength, RAM_GPA);
  const [faultId, faultFd] = user.faultQueue(iommufd);
  let parent = 0;
  let viommu = 0;
  const take = (rid: number, guestId: bigint) => {
    const vfio = user.open(host.vfio.nodeOf(name(rid))!);
    const device = user.bind(vfio, iommufd);
    if (parent === 0) {
      parent = user.hwpt(iommufd, device, ioas, { flags: I.IOMMU_HWPT_ALLOC_NEST_PARENT });
      viommu = user.viommu(iommufd, device, parent);
    }
    user.vdevice(iommufd, viommu, device, guestId);
    const stage = new GuestSv39(ram);
    stage.entry(IOVA);
    const words = { tc: TC, fsc: stage.fsc, ta: guestId << 12n };
    const nested = user.nested(iommufd, device, viommu, words, faultId);
    expect(user.attach(vfio, nested)).toBe(nested);
    user.enableDevice(vfio);
    const bar = user.bar0(vfio);
    bar.mmioWrite(R.TRANSLATION_MODE, 4, R.MODE_ATS | R.MODE_PRI, 0);
    return { rid, guestId, vfio, device, stage, bar, nested };
  };
  const messages = (): Message[] => {
    const bytes = user.readAll(faultFd);
    const found: Message[] = [];
    for (let at = 0; at < bytes.length; at += I.iommuHwptPgfault.bytes) {
      const { flags, dev_id, pasid, grpid, perm, addr, cookie } = I.iommuHwptPgfault.decode(bytes, at);
      found.push({
        device: dev_id,
        group: grpid,
        last: (flags & I.IOMMU_PGFAULT_FLAGS_LAST_PAGE) !== 0,
        pasid: (flags & I.IOMMU_PGFAULT_FLAGS_PASID_VALID) !== 0 ? pasid : null,
        perm,
        address: addr,
        cookie,
      });
    }
    return found;
  };
  const respond = (cookie: number, code: number): number => {
    user.process.memory.bytes(user.scratch, 8).set(I.iommuHwptPageResponse.encode({ cookie, code }));
    return user.process.write(faultFd, user.scratch, 8, -1n);
  };
  const end = () => {
    user.process.exit();
    expect(host.kernel.liveKinds).toEqual([]);
  };
  const [bad, good] = [take(BAD, 0x10n), take(GOOD, 0x20n)];
  return { host, user, ram, iommufd, viommu: () => viommu, faultId, bad, good, messages, respond, end };
}

describe("a page request", () => {
  it("reaches user space, and the answer lets the device go on with the page that was mapped meanwhile", () => {
    const { host, ram, good, messages, respond, end } = setUp();
    eduDma(good.bar, IOVA, 64, false);
    host.run(50_000);
    const [request, ...others] = messages();
    expect(others).toEqual([]);
    expect(request).toMatchObject({ device: good.device, last: true, pasid: null, address: IOVA });
    expect(request!.perm & 1).toBe(1);
    const page = ram.page();
    ram.at(page)[5] = 0x77;
    good.stage.map(IOVA, page);
    expect(respond(request!.cookie, I.IOMMUFD_PAGE_RESP_SUCCESS)).toBe(8);
    host.run(50_000);
    expect(eduOutcome(good.bar)).toBe(R.OUTCOME_DONE);
    expect(good.bar.mmioRead(R.PAGE_RESPONSES_TAKEN, 4)).toBe(1);
    // A cookie is good for one answer.
    expect(respond(request!.cookie, 0)).toBeLessThan(0);
    end();
  });

  it("answered INVALID ends the transfer", () => {
    const { host, good, messages, respond, end } = setUp();
    eduDma(good.bar, IOVA, 64, false);
    host.run(50_000);
    respond(messages()[0]!.cookie, I.IOMMUFD_PAGE_RESP_INVALID);
    host.run(50_000);
    expect(eduOutcome(good.bar)).toBe(R.OUTCOME_PAGE_REQUEST_FAILED);
    expect(good.bar.mmioRead(R.LAST_RESPONSE_CODE, 4)).toBe(1);
    end();
  });

  it("under a domain of the host's own asks for an IOVA, which user space maps before it answers", () => {
    const { host, user, iommufd, faultId, good, messages, respond, end } = setUp();
    const ioas = user.ioas(iommufd);
    const hwpt = user.hwpt(iommufd, good.device, ioas, { fault: faultId });
    expect(user.attach(good.vfio, hwpt)).toBe(hwpt);
    eduDma(good.bar, 0x7000n, 64, true);
    host.run(50_000);
    const [request] = messages();
    expect(request).toMatchObject({ device: good.device, address: 0x7000n, last: true });
    const va = user.process.memory.mapBuffer(new ArrayBuffer(4096), 0, 4096);
    expect(user.map(iommufd, ioas, va, 4096, 0x7000n)).toBe(0);
    expect(respond(request!.cookie, I.IOMMUFD_PAGE_RESP_SUCCESS)).toBe(8);
    host.run(50_000);
    expect(eduOutcome(good.bar)).toBe(R.OUTCOME_DONE);
    expect(good.bar.mmioRead(R.DMA_MOVED, 4)).toBe(64);
    // Without a fault queue the device's page requests are off again.
    const plain = user.hwpt(iommufd, good.device, ioas);
    expect(user.attach(good.vfio, plain)).toBe(plain);
    const sent = good.bar.mmioRead(R.PAGE_REQUESTS_SENT, 4);
    eduDma(good.bar, 0x9000n, 64, true);
    host.run(50_000);
    expect(good.bar.mmioRead(R.PAGE_REQUESTS_SENT, 4)).toBe(sent);
    end();
  });

  it("unanswered is answered INVALID when the device moves on", () => {
    const { host, user, good, end } = setUp();
    eduDma(good.bar, IOVA, 64, false);
    host.run(50_000);
    const before = good.bar.mmioRead(R.PAGE_RESPONSES_TAKEN, 4);
    user.detach(good.vfio);
    expect(before).toBe(0);
    host.run(50_000);
    expect(good.bar.mmioRead(R.DMA_MOVED, 4)).toBe(0);
    expect(good.bar.mmioRead(R.LAST_RESPONSE_CODE, 4)).toBe(1);
    end();
  });

  it.each([
    ["reuses a group", R.MISBEHAVE_REUSE_GROUPS],
    ["invents groups", R.MISBEHAVE_INVENT_GROUPS],
    ["never finishes one", R.MISBEHAVE_NEVER_LAST],
  ])("of a device that %s leaves the other device's alone", (_what, misbehaviour) => {
    const { host, ram, bad, good, messages, respond, end } = setUp();
    bad.bar.mmioWrite(R.MISBEHAVIOUR, 4, misbehaviour, 0);
    eduDma(bad.bar, IOVA, 4096, false);
    eduDma(good.bar, IOVA, 64, false);
    host.run(50_000);
    const page = ram.page();
    good.stage.map(IOVA, page);
    for (let round = 0; round < 8; round++) {
      for (const { device, last, cookie } of messages()) {
        if (last) expect(respond(cookie, device === good.device ? 0 : 1)).toBe(8);
      }
      host.run(50_000);
    }
    expect(eduOutcome(good.bar)).toBe(R.OUTCOME_DONE);
    expect(good.bar.mmioRead(R.PAGE_RESPONSES_TAKEN, 4)).toBe(1);
    expect(good.bar.mmioRead(R.LAST_RESPONSE_CODE, 4)).toBe(0);
    end();
  });
});

describe("translations that a device keeps", () => {
  it("go when the guest says so, and when the parent loses the page", () => {
    const { host, user, ram, iommufd, viommu, good, end } = setUp();
    const [first, second] = [ram.page(), ram.page()];
    ram.at(first).fill(1);
    ram.at(second).fill(2);
    good.stage.map(IOVA, first);
    const copy = () => {
      eduDma(good.bar, IOVA, 64, false);
      host.run(10_000);
      expect(eduOutcome(good.bar)).toBe(R.OUTCOME_DONE);
    };
    copy();
    good.stage.map(IOVA, second);
    const taken = () => good.bar.mmioRead(R.INVALIDATIONS_TAKEN, 4);
    const before = taken();
    const commands = [
      encodeCommand("IOTINVAL.VMA", { PSCV: 1, PSCID: 0x20 }),
      encodeCommand("ATS.INVAL", { RID: 0x20, S: 0, ADDR: IOVA >> 12n }),
    ];
    expect(user.invalidate(iommufd, viommu(), commands)).toEqual({ result: 0, done: 2 });
    expect(taken()).toBe(before + 1);
    copy();
    // A page of the parent goes: the device is told before the page may be used for something else.
    const ioas = 1;
    expect(user.unmap(iommufd, ioas, RAM_GPA, 1n << 20n)).toBe(0);
    expect(taken()).toBeGreaterThan(before + 1);
    eduDma(good.bar, IOVA, 64, false);
    host.run(200_000);
    expect(good.bar.mmioRead(R.DMA_MOVED, 4)).toBe(0);
    end();
  });

  it("do not outlive the first stage they came from, though ATS stays on across the switch", () => {
    const { host, user, ram, iommufd, viommu, faultId, good, end } = setUp();
    const [first, second] = [ram.page(), ram.page()];
    ram.at(first).fill(1);
    ram.at(second).fill(2);
    good.stage.map(IOVA, first);
    eduDma(good.bar, IOVA, 64, false);
    host.run(10_000);
    const other = new GuestSv39(ram);
    other.map(IOVA, second);
    // The result goes to a page that only the other first stage has.
    const target = ram.page();
    other.map(IOVA + 0x1000n, target);
    const words = { tc: TC, fsc: other.fsc, ta: 0x21n << 12n };
    const nested = user.nested(iommufd, good.device, viommu(), words, faultId);
    expect(user.attach(good.vfio, nested)).toBe(nested);
    eduDma(good.bar, IOVA, 64, false);
    host.run(10_000);
    eduDma(good.bar, IOVA + 0x1000n, 64, true);
    host.run(10_000);
    expect(ram.at(target)[0]).toBe(2);
    end();
  });

  it("a device that never completes an invalidation costs a timeout, and the reply says where", () => {
    const { user, iommufd, viommu, bad, good, end } = setUp();
    bad.bar.mmioWrite(R.MISBEHAVIOUR, 4, R.MISBEHAVE_NEVER_COMPLETE, 0);
    const vma = encodeCommand("IOTINVAL.VMA");
    const toBad = encodeCommand("ATS.INVAL", { RID: 0x10, ADDR: IOVA >> 12n });
    const toGood = encodeCommand("ATS.INVAL", { RID: 0x20, ADDR: IOVA >> 12n });
    expect(user.invalidate(iommufd, viommu(), [vma, toBad, vma])).toEqual({ result: -110, done: 1 });
    // The queue goes on.
    expect(user.invalidate(iommufd, viommu(), [vma, toGood])).toEqual({ result: 0, done: 2 });
    expect(good.bar.mmioRead(R.INVALIDATIONS_TAKEN, 4)).toBeGreaterThan(0);
    end();
  });
});
