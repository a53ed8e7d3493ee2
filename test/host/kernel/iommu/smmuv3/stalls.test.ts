// Transactions that stall (IHI 0070 §3.12.2): a device that may be stalled faults under a guest's stage 1, user space reads that from the fault
// queue and answers, CMD_RESUME has the transaction made again or aborts it. Whatever happens to device, HWPT or process meanwhile, no
// transaction stays behind.

import { describe, expect, it } from "vitest";
import * as R from "../../../../../host/devices/edu/registers.ts";
import { NO_PASID } from "../../../../../host/devices/ports.ts";
import {
  ACCESS_READ,
  ACCESS_WRITE,
  STALL_ABORT,
  STALL_RETRY,
  STALLED,
  TRANSLATED,
} from "../../../../../host/hw/iommu/port.ts";
import type { Smmuv3 } from "../../../../../host/hw/iommu/smmuv3/smmu.ts";
import { DeviceAttachments } from "../../../../../host/kernel/iommu/attachments.ts";
import type { IommuDevice } from "../../../../../host/kernel/iommu/driver.ts";
import {
  attachDevice,
  type BoundDevice,
  bindDevice,
  contextOf,
  detachDevice,
  replaceDevice,
  unbindDevice,
} from "../../../../../host/kernel/iommufd/in-kernel.ts";
import * as I from "../../../../../host/uapi/iommufd.ts";
import { eduDma, eduOutcome, type MachineOptions } from "../../machine.ts";
import { A, ASID, BYPASS, GuestMachine, IOVA, must } from "./guest-machine.ts";

const STREAM = 0x200;
const GUEST_STREAM = 0x20n;

/** A device on no bus that may be stalled, bound to the guest's iommufd; its transactions are made by hand. */
function setUp(more: MachineOptions = {}) {
  const machine = new GuestMachine(more);
  const { host, user, iommufd } = machine;
  const smmu = host.iommus[0] as Smmuv3;
  const device: IommuDevice = {
    name: "platform0",
    deviceId: STREAM,
    maxPasids: 16,
    hasAts: false,
    hasPri: false,
    canStall: true,
    isVirtualFunction: false,
    attachments: new DeviceAttachments(),
    driverData: null,
  };
  const driver = host.kernel.iommuHardware.driverOf(smmu)!;
  driver.place(device, smmu);
  must(host.kernel.iommu.addDevice(device, driver));
  const context = contextOf(user.process.descriptors.lookup(iommufd));
  if (typeof context === "number") throw new Error("not an iommufd");
  const bound = bindDevice(context, device) as BoundDevice;
  context.file.put();
  const ended: [number, number][] = [];
  smmu.onStallEnded = (stream, tag, end) => {
    if (stream === STREAM) ended.push([tag, end]);
  };
  const [fault, fd] = user.faultQueue(iommufd);
  machine.vdevice(GUEST_STREAM, { rid: STREAM, vfio: -1, device: bound.id });
  /** A nested HWPT with the fault queue, attached. */
  const install = (ste0: bigint, ste1 = 0n, withQueue = true): number => {
    const own = { rid: STREAM, vfio: -1, device: bound.id };
    const hwpt = must(machine.nested(ste0, ste1, { device: own, ...(withQueue ? { fault } : {}) }));
    const attached = bound.group.attachments.has(NO_PASID);
    must((attached ? replaceDevice : attachDevice)(bound, NO_PASID, hwpt));
    return hwpt;
  };
  const access = (iova: bigint, kind = ACCESS_READ, pasid = NO_PASID): number =>
    smmu.translate(STREAM, pasid, false, kind, Number(iova >> 12n), Number(iova & 0xfffn), false, -1);
  const messages = () => {
    host.run(10_000);
    const bytes = user.readAll(fd);
    const found: ReturnType<typeof I.iommuHwptPgfault.decode>[] = [];
    for (let at = 0; at < bytes.length; at += 40) found.push(I.iommuHwptPgfault.decode(bytes, at));
    return found;
  };
  const respond = (cookie: number, code: number): number => {
    user.process.memory.bytes(user.scratch, 8).set(I.iommuHwptPageResponse.encode({ cookie, code }));
    const written = user.process.write(fd, user.scratch, 8, -1n);
    host.run(10_000);
    return written;
  };
  const leave = () => {
    detachDevice(bound, NO_PASID);
    host.run(10_000);
  };
  const end = () => {
    detachDevice(bound, NO_PASID);
    unbindDevice(bound);
    expect(machine.end()).toEqual([]);
    host.run(10_000);
    expect(smmu.stalledTransactions).toBe(0);
    expect(machine.globalErrors()).toEqual([0, 0]);
  };
  return { ...machine, machine, smmu, device, bound, ended, fault, fd, install, access, messages, respond, leave, end };
}

describe("a stalled transaction", () => {
  it("reaches the fault queue with its STAG, and SUCCESS has it made again", () => {
    const { machine, smmu, bound, install, access, messages, respond, ended, ram, end } = setUp();
    const events = machine.listen();
    const { stage, entry } = machine.stage1({ stalls: true });
    install(entry);
    expect(access(IOVA + 0x123n, ACCESS_WRITE)).toBe(STALLED);
    const tag = smmu.stallTag;
    const [message, ...more] = messages();
    expect(more).toEqual([]);
    expect(message).toMatchObject({
      flags: I.IOMMU_PGFAULT_FLAGS_LAST_PAGE,
      dev_id: bound.id,
      grpid: tag,
      perm: 2,
      addr: IOVA + 0x123n,
      cookie: 1,
    });
    // It is no event of the guest's besides (Linux: one or the other).
    expect(machine.user.readAll(events).length).toBe(0);
    stage.map(IOVA, ram.page());
    expect(respond(1, I.IOMMUFD_PAGE_RESP_SUCCESS)).toBe(8);
    expect(ended).toEqual([[tag, STALL_RETRY]]);
    expect(access(IOVA, ACCESS_WRITE)).toBe(TRANSLATED);
    end();
  });

  it("is aborted by INVALID; an answer is good once", () => {
    const { machine, install, access, messages, respond, ended, end } = setUp();
    install(machine.stage1({ stalls: true }).entry);
    expect(access(IOVA)).toBe(STALLED);
    const [message] = messages();
    expect(message!.perm).toBe(1);
    const { cookie } = message!;
    expect(respond(cookie, I.IOMMUFD_PAGE_RESP_INVALID)).toBe(8);
    expect(ended).toMatchObject([[0, STALL_ABORT]]);
    expect(respond(cookie, I.IOMMUFD_PAGE_RESP_SUCCESS)).toBeLessThan(0);
    expect(ended.length).toBe(1);
    end();
  });

  it("is aborted where nobody handles it", () => {
    const { machine, install, access, messages, ended, end } = setUp();
    install(machine.stage1({ stalls: true }).entry, 0n, false);
    expect(access(IOVA)).toBe(STALLED);
    expect(messages()).toEqual([]);
    expect(ended).toMatchObject([[0, STALL_ABORT]]);
    end();
  });

  it("of a PASID of the guest's comes with it, through the same fault queue", () => {
    const { machine, install, access, messages, respond, ended, end } = setUp();
    const { contexts } = machine.stage1({ stalls: true });
    contexts.set(3, machine.stage1().stage, { asid: ASID + 1, stalls: true });
    install(contexts.streamEntry(4), 2n);
    expect(access(IOVA, ACCESS_READ, 3)).toBe(STALLED);
    const [message] = messages();
    expect(message).toMatchObject({
      flags: I.IOMMU_PGFAULT_FLAGS_LAST_PAGE | I.IOMMU_PGFAULT_FLAGS_PASID_VALID,
      pasid: 3,
    });
    respond(message!.cookie, I.IOMMUFD_PAGE_RESP_INVALID);
    expect(ended).toMatchObject([[0, STALL_ABORT]]);
    end();
  });

  it("in stage 2 stalls as well (S2S), and user space may map the page before it answers", () => {
    const { user, iommufd, ioas, va, install, access, messages, respond, ended, end } = setUp();
    install(BYPASS);
    const beyond = 0x1_0000_0000n;
    expect(access(beyond)).toBe(STALLED);
    const [message] = messages();
    expect(message).toMatchObject({ addr: beyond });
    expect(user.map(iommufd, ioas, va, 4096, beyond)).toBe(0);
    respond(message!.cookie, I.IOMMUFD_PAGE_RESP_SUCCESS);
    expect(ended).toMatchObject([[0, STALL_RETRY]]);
    expect(access(beyond)).toBe(TRANSLATED);
    end();
  });

  it("stays within what the hardware can hold, and every one is answered", () => {
    const { machine, smmu, install, access, messages, respond, ended, end } = setUp({
      smmus: [{ features: { STALL_MAX: 4 } }],
    });
    install(machine.stage1({ stalls: true }).entry);
    for (let i = 0; i < 4; i++) expect(access(IOVA + BigInt(i) * 0x1000n)).toBe(STALLED);
    access(IOVA + 0x8000n);
    expect(smmu.stallTag).toBe(-1);
    const waiting = messages();
    expect(waiting.map(({ cookie }) => cookie)).toEqual([1, 2, 3, 4]);
    for (const { cookie } of [...waiting].reverse()) respond(cookie, I.IOMMUFD_PAGE_RESP_INVALID);
    expect(ended.map(([tag]) => tag)).toEqual(waiting.map(({ grpid }) => grpid).reverse());
    end();
  });
});

describe("with transactions stalled", () => {
  function stalled(count = 2) {
    const parts = setUp();
    const first = parts.install(parts.machine.stage1({ stalls: true }).entry);
    for (let i = 0; i < count; i++) expect(parts.access(IOVA + BigInt(i) * 0x1000n)).toBe(STALLED);
    return { ...parts, first };
  }
  const ABORTED = [
    [0, STALL_ABORT],
    [1, STALL_ABORT],
  ];

  it("a detach aborts them, read or not, and their cookies are void", () => {
    const { messages, access, leave, respond, ended, end } = stalled(1);
    const [message] = messages();
    expect(access(IOVA + 0x1000n)).toBe(STALLED);
    leave();
    expect(ended).toEqual(ABORTED);
    expect(messages()).toEqual([]);
    expect(respond(message!.cookie, I.IOMMUFD_PAGE_RESP_SUCCESS)).toBeLessThan(0);
    end();
  });

  it("a replace aborts those of the HWPT that goes, also when their interrupt is still on the way", () => {
    const { machine, install, messages, ended, end } = stalled();
    install(machine.stage1({ stalls: true }).entry);
    expect(messages()).toEqual([]);
    expect(ended).toEqual(ABORTED);
    end();
  });

  it("closing the fault queue's file leaves them, for its HWPT holds the queue; a detach aborts them", () => {
    const { host, user, fd, smmu, leave, ended, end } = stalled();
    host.run(10_000);
    expect(user.process.close(fd)).toBe(0);
    host.run(10_000);
    expect(smmu.stalledTransactions).toBe(2);
    leave();
    expect(ended).toEqual(ABORTED);
    end();
  });

  it("the end of the process aborts them", () => {
    const { messages, end, ended } = stalled();
    expect(messages().length).toBe(2);
    end();
    expect(ended).toEqual(ABORTED);
  });

  it("a device that goes away leaves none, and none that its interrupt comes too late for", () => {
    const { host, bound, device, smmu, access, ended, machine } = stalled(1);
    host.run(10_000);
    expect(access(IOVA + 0x1000n)).toBe(STALLED);
    detachDevice(bound, NO_PASID);
    unbindDevice(bound);
    host.kernel.iommu.removeDevice(device);
    host.run(10_000);
    expect(ended).toEqual(ABORTED);
    expect(smmu.stalledTransactions).toBe(0);
    expect(machine.end()).toEqual([]);
  });
});

describe("a PCI function under a context that stalls (CD.S)", () => {
  it("is refused, and takes up no place among the stalled transactions", () => {
    const { machine, smmu, user, iommufd, host, end } = setUp();
    machine.vdevice(0x10n);
    const [fault] = user.faultQueue(iommufd);
    const { entry } = machine.stage1({ stalls: true });
    machine.install(entry, 0n, { fault });
    for (let i = 0; i < 200; i++) {
      smmu.translate(A, NO_PASID, false, ACCESS_READ, Number(IOVA >> 12n) + i, 0, false, -1);
      host.run(10_000);
      expect(smmu.stalledTransactions).toBe(0);
    }
    end();
  });
});

describe("a platform device that may be stalled, assigned through vfio-platform", () => {
  it("waits while user space maps the page that it faulted on, and then its DMA is done", () => {
    const machine = new GuestMachine({ platform: [{ name: "edu0", deviceId: STREAM, canStall: true }] });
    const { host, user, iommufd, ram } = machine;
    const smmu = host.iommus[0] as Smmuv3;
    must(host.kernel.platform.bind("edu0", "vfio-platform"));
    const vfio = must(user.open(host.vfio.nodeOf("edu0")!));
    const device = must(user.bind(vfio, iommufd));
    const own = { rid: STREAM, vfio, device };
    machine.vdevice(GUEST_STREAM, own);
    const [fault, fd] = user.faultQueue(iommufd);
    const { stage, entry } = machine.stage1({ stalls: true });
    const [source, target] = [ram.page(), ram.page()];
    ram.at(source).fill(0x5a);
    machine.install(entry, 0n, { device: own, fault });
    const bar = user.bar0(vfio);
    const answer = (code: number, meanwhile = () => {}) => {
      host.run(100_000);
      expect(smmu.stalledTransactions).toBe(1);
      expect(bar.mmioRead(R.DMA_MOVED, 4)).toBe(0);
      const message = I.iommuHwptPgfault.decode(user.readAll(fd));
      expect(message.dev_id).toBe(device);
      meanwhile();
      user.process.memory.bytes(user.scratch, 8).set(I.iommuHwptPageResponse.encode({ cookie: message.cookie, code }));
      expect(user.process.write(fd, user.scratch, 8, -1n)).toBe(8);
      host.run(100_000);
      return message;
    };

    eduDma(bar, IOVA, 64, false);
    const first = answer(I.IOMMUFD_PAGE_RESP_SUCCESS, () => stage.map(IOVA, source));
    expect(first).toMatchObject({ addr: IOVA, perm: 1 });
    expect(eduOutcome(bar)).toBe(R.OUTCOME_DONE);
    eduDma(bar, IOVA + 0x1000n, 64, true);
    const second = answer(I.IOMMUFD_PAGE_RESP_SUCCESS, () => stage.map(IOVA + 0x1000n, target));
    expect(second).toMatchObject({ addr: IOVA + 0x1000n, perm: 2 });
    expect(eduOutcome(bar)).toBe(R.OUTCOME_DONE);
    expect(ram.at(target, 64)).toEqual(ram.at(source, 64));

    eduDma(bar, IOVA + 0x2000n, 64, true);
    answer(I.IOMMUFD_PAGE_RESP_INVALID);
    expect(eduOutcome(bar)).toBe(R.OUTCOME_REFUSED);

    // Stalled when its user goes: nothing waits any more.
    eduDma(bar, IOVA + 0x2000n, 64, true);
    host.run(100_000);
    expect(smmu.stalledTransactions).toBe(1);
    expect(machine.end()).toEqual([]);
    host.run(100_000);
    expect(smmu.stalledTransactions).toBe(0);
  });
});
