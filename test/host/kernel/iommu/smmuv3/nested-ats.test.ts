// ATS under a nested domain: the device's switch follows the guest's EATS, its cache is the guest's to invalidate, and the host drops it where
// the guest cannot know. Page requests: denied, as Linux does, unless the kernel deviates.

import { describe, expect, it } from "vitest";
import { encodeCommand } from "../../../../../host/arch/smmuv3/commands.ts";
import * as R from "../../../../../host/devices/edu/registers.ts";
import * as I from "../../../../../host/uapi/iommufd.ts";
import { RAM_GPA } from "../../guest.ts";
import { eduDma, eduOutcome, type MachineOptions } from "../../machine.ts";
import { A, ABORT, ASID, BYPASS, eats, GuestMachine, IOVA, must } from "./guest-machine.ts";

const GUEST_STREAM = 0x10n;
/** PCIe 6.0 §9.3.7.9, §10.5: extended capabilities with an enable bit 15 and 0 in the word behind their first doubleword. */
const ATS_CAPABILITY = 0x000f;
const PRI_CAPABILITY = 0x0013;

function setUp(more: MachineOptions = {}) {
  const options = { pasidBits: 4, ats: true, pri: true };
  const machine = new GuestMachine({ devices: [{ rid: A, options }], ...more });
  const { user, a, host } = machine;
  machine.vdevice(GUEST_STREAM);
  const bar = user.bar0(a.vfio);
  bar.mmioWrite(R.TRANSLATION_MODE, 4, R.MODE_ATS | R.MODE_PRI, 0);
  const transfer = (address: bigint, toRam = false): number => {
    eduDma(bar, address, 64, toRam);
    host.run(200_000);
    return eduOutcome(bar);
  };
  const capability = (id: number): number => {
    let at = 0x100;
    while ((host.root.configRead(A, at, 4) & 0xffff) !== id) at = host.root.configRead(A, at, 4) >>> 20;
    return at;
  };
  return {
    machine,
    ...machine,
    bar,
    transfer,
    atsOn: () => (host.root.configRead(A, capability(ATS_CAPABILITY) + 6, 2) & 0x8000) !== 0,
    priOn: () => (host.root.configRead(A, capability(PRI_CAPABILITY) + 4, 2) & 1) !== 0,
    taken: () => bar.mmioRead(R.INVALIDATIONS_TAKEN, 4),
  };
}

describe("the device's ATS", () => {
  it("follows EATS of a guest's entry with stage 1; of one without the host decides, also where nothing passes", () => {
    const { machine, atsOn } = setUp();
    const { entry } = machine.stage1();
    const steps: [bigint, bigint, boolean][] = [
      [entry, 0n, false],
      [entry, eats(1), true],
      [entry, 0n, false],
      [BYPASS, 0n, true],
      [entry, 0n, false],
      // With Config 0 the entry has EATS 0, and the device asks in vain (Linux has this as it is).
      [ABORT, 0n, true],
      [0n, 0n, true],
    ];
    for (const [ste0, ste1, on] of steps) {
      machine.install(ste0, ste1);
      expect(atsOn()).toBe(on);
    }
    expect(machine.end()).toEqual([]);
  });

  it("gives it translations through both stages, which the guest's ATC_INV takes back", () => {
    const { machine, ram, transfer, taken, bar } = setUp();
    const { stage, entry } = machine.stage1();
    const [first, second] = [ram.page(), ram.page()];
    ram.at(first).fill(1);
    ram.at(second).fill(2);
    stage.map(IOVA, first);
    machine.install(entry, eats(1));
    expect(transfer(IOVA)).toBe(R.OUTCOME_DONE);
    stage.map(IOVA, second);
    machine.command("TLBI_NH_VA", { ASID, Address: IOVA >> 12n });
    const before = taken();
    expect(transfer(IOVA)).toBe(R.OUTCOME_DONE);
    expect(machine.command("ATC_INV", { SID: GUEST_STREAM, Address: IOVA >> 12n })).toEqual({ result: 0, done: 1 });
    expect(taken()).toBe(before + 1);
    // Back into a page that shows which one was read last.
    expect(transfer(IOVA)).toBe(R.OUTCOME_DONE);
    stage.map(IOVA + 0x1000n, first);
    expect(bar.mmioRead(R.DMA_MOVED, 4)).toBe(64);
    expect(transfer(IOVA + 0x1000n, true)).toBe(R.OUTCOME_DONE);
    expect(ram.at(first)[0]).toBe(2);
    expect(machine.globalErrors()).toEqual([0, 0]);
    expect(machine.end()).toEqual([]);
  });

  it("loses what it holds when a page goes from the parent, and when the guest's entry changes under it", () => {
    const { machine, ram, user, iommufd, ioas, transfer, taken } = setUp();
    const { stage, entry } = machine.stage1();
    stage.map(IOVA, ram.page());
    machine.install(entry, eats(1));
    expect(transfer(IOVA)).toBe(R.OUTCOME_DONE);
    let before = taken();
    machine.install(machine.stage1({ asid: ASID + 1 }).entry, eats(1));
    expect(taken()).toBeGreaterThan(before);
    expect(transfer(IOVA)).not.toBe(R.OUTCOME_DONE);
    machine.install(entry, eats(1));
    expect(transfer(IOVA)).toBe(R.OUTCOME_DONE);
    before = taken();
    expect(user.unmap(iommufd, ioas, RAM_GPA, 1n << 20n)).toBe(0);
    expect(taken()).toBeGreaterThan(before);
    expect(transfer(IOVA)).not.toBe(R.OUTCOME_DONE);
    expect(machine.end()).toEqual([]);
  });

  it("that does not answer an ATC_INV costs a time-out, of which the caller is not told; the queue goes on", () => {
    const options = { ats: true, misbehaviour: true };
    const { machine, bar, taken } = setUp({ devices: [{ rid: A, options }] });
    machine.install(machine.stage1().entry, eats(1));
    bar.mmioWrite(R.MISBEHAVIOUR, 4, R.MISBEHAVE_NEVER_COMPLETE, 0);
    const [before] = machine.globalErrors();
    const invalidate = encodeCommand("ATC_INV", { SID: GUEST_STREAM, Size: 52 });
    const all = encodeCommand("TLBI_NH_ALL");
    expect(machine.invalidate([all, invalidate, all])).toEqual({ result: 0, done: 3 });
    const [error, acknowledged] = machine.globalErrors();
    expect(error).not.toBe(before);
    expect(acknowledged).toBe(error);
    bar.mmioWrite(R.MISBEHAVIOUR, 4, 0, 0);
    const asked = taken();
    expect(machine.invalidate([invalidate])).toEqual({ result: 0, done: 1 });
    expect(taken()).toBe(asked + 1);
    expect(machine.globalErrors()).toEqual([error, error]);
    expect(machine.end()).toEqual([]);
  });
});

describe("page requests of a PCI function", () => {
  const messageOf = ({ user }: GuestMachine, fd: number) => {
    const bytes = user.readAll(fd);
    return bytes.length === 0 ? null : I.iommuHwptPgfault.decode(bytes);
  };
  const respond = ({ user }: GuestMachine, fd: number, cookie: number, code: number): number => {
    user.process.memory.bytes(user.scratch, 8).set(I.iommuHwptPageResponse.encode({ cookie, code }));
    return user.process.write(fd, user.scratch, 8, -1n);
  };

  it("are not turned on, whatever HWPT it is attached to: Linux would deny them all", () => {
    const { machine, user, iommufd, transfer, priOn, bar } = setUp();
    const [fault, fd] = user.faultQueue(iommufd);
    machine.install(machine.stage1().entry, eats(1), { fault });
    expect(priOn()).toBe(false);
    expect(transfer(IOVA)).toBe(R.OUTCOME_PAGE_REQUEST_FAILED);
    expect(bar.mmioRead(R.PAGE_REQUESTS_SENT, 4)).toBe(0);
    expect(messageOf(machine, fd)).toBeNull();
    expect(machine.end()).toEqual([]);
  });

  it("are denied if it sends some", () => {
    const { machine, transfer, bar, host, a } = setUp();
    machine.install(machine.stage1().entry, eats(1));
    // As firmware might have left it: PRI_CTL.E.
    let at = 0x100;
    while ((host.root.configRead(a.rid, at, 4) & 0xffff) !== PRI_CAPABILITY)
      at = host.root.configRead(a.rid, at, 4) >>> 20;
    host.root.configWrite(a.rid, at + 12, 4, 8);
    host.root.configWrite(a.rid, at + 4, 2, 1);
    expect(transfer(IOVA)).toBe(R.OUTCOME_PAGE_REQUEST_FAILED);
    expect(bar.mmioRead(R.PAGE_REQUESTS_SENT, 4)).toBe(1);
    // Response Failure.
    expect(bar.mmioRead(R.LAST_RESPONSE_CODE, 4) & 0xf).toBe(0xf);
    expect(machine.end()).toEqual([]);
  });

  it("reach the fault queue where the kernel deviates, and the answer lets the device go on", () => {
    const { machine, user, iommufd, ram, bar, host, priOn, a, transfer } = setUp({
      deviations: ["smmuv3-relay-page-requests"],
    });
    const [fault, fd] = user.faultQueue(iommufd);
    const { stage, entry } = machine.stage1();
    // Without a fault queue, and without ATS, it is not to ask.
    machine.install(entry, eats(1));
    expect(priOn()).toBe(false);
    machine.install(entry, 0n, { fault });
    expect(priOn()).toBe(false);
    machine.install(entry, eats(1), { fault });
    expect(priOn()).toBe(true);

    transfer(IOVA, true);
    expect(bar.mmioRead(R.DMA_MOVED, 4)).toBe(0);
    const request = messageOf(machine, fd)!;
    expect(request).toMatchObject({ flags: I.IOMMU_PGFAULT_FLAGS_LAST_PAGE, dev_id: a.device, addr: IOVA });
    stage.map(IOVA, ram.page());
    expect(respond(machine, fd, request.cookie, I.IOMMUFD_PAGE_RESP_SUCCESS)).toBe(8);
    host.run(200_000);
    expect(eduOutcome(bar)).toBe(R.OUTCOME_DONE);

    transfer(IOVA + 0x1000n);
    expect(respond(machine, fd, messageOf(machine, fd)!.cookie, I.IOMMUFD_PAGE_RESP_INVALID)).toBe(8);
    host.run(200_000);
    expect(eduOutcome(bar)).toBe(R.OUTCOME_PAGE_REQUEST_FAILED);

    // Off again before it could ask in vain.
    must(user.attach(a.vfio, machine.parent));
    expect(priOn()).toBe(false);
    expect(machine.end()).toEqual([]);
  });
});
