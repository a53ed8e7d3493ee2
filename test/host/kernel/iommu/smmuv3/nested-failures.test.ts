// What fails on the way to a nested device, and after it: nothing is left of it, and what was there goes on.

import { describe, expect, it } from "vitest";
import { encodeCommand } from "../../../../../host/arch/smmuv3/commands.ts";
import * as R from "../../../../../host/devices/edu/registers.ts";
import { DMA_ABORTED, DMA_OK, NO_PASID } from "../../../../../host/devices/ports.ts";
import { InjectionPlan } from "../../../../../host/kernel/injection-plan.ts";
import { EFAULT, ENOENT, ENOMEM } from "../../../../../host/uapi/errno.ts";
import * as I from "../../../../../host/uapi/iommufd.ts";
import * as S from "../../../../../host/uapi/smmuv3-nesting.ts";
import * as X from "../../../../../host/uapi/vfio.ts";
import { GuestRam, RAM_GPA } from "../../guest.ts";
import { GuestContexts, GuestStage1 } from "../../guest-smmuv3.ts";
import { eduDma, eduOutcome, type Machine, machine, name, type User } from "../../machine.ts";
import { A, ASID, B, eats, GuestMachine, IOVA, must } from "./guest-machine.ts";

const DEVICES = [{ rid: A, options: { ats: true, pri: true, pasidBits: 4 } }];

/** The way to a nested device and through what one does; the first refusal, or 0. */
function story(host: Machine, user: User): number {
  const ram = new GuestRam(64 * 4096 + 0x10_0000);
  const va = user.process.memory.mapBuffer(ram.buffer, 0, ram.buffer.byteLength);
  const iommufd = user.iommufd();
  if (iommufd < 0) return iommufd;
  const alloc = user.call(iommufd, I.IOMMU_IOAS_ALLOC, I.iommuIoasAlloc, {});
  if (alloc.result < 0) return alloc.result;
  const ioas = alloc.out_ioas_id;
  const vfio = user.open(host.vfio.nodeOf(name(A))!);
  let result = vfio;
  const step = (next: () => number): number => {
    if (result >= 0) result = next();
    return result;
  };
  step(() => user.map(iommufd, ioas, va, ram.buffer.byteLength, RAM_GPA));
  const device = step(() => user.bind(vfio, iommufd));
  // A first stage of the host's first, so that its context table goes.
  const paging = step(() => user.hwpt(iommufd, device, ioas));
  step(() => user.attach(vfio, paging));
  const parent = step(() => user.hwpt(iommufd, device, ioas, { flags: I.IOMMU_HWPT_ALLOC_NEST_PARENT }));
  step(() => user.attach(vfio, parent));
  const viommu = step(() => user.viommu(iommufd, device, parent, S.IOMMU_VIOMMU_TYPE_ARM_SMMUV3));
  step(() => user.vdevice(iommufd, viommu, device, 0x10n));
  step(() => {
    const values = { viommu_id: viommu, type: S.IOMMU_VEVENTQ_TYPE_ARM_SMMUV3, veventq_depth: 4 };
    return user.call(iommufd, I.IOMMU_VEVENTQ_ALLOC, I.iommuVeventqAlloc, values).result;
  });
  const fault = step(() => {
    const reply = user.call(iommufd, I.IOMMU_FAULT_QUEUE_ALLOC, I.iommuFaultAlloc, {});
    return reply.result < 0 ? reply.result : reply.out_fault_id;
  });
  step(() => user.irq(vfio, X.VFIO_PCI_MSI_IRQ_INDEX).result);
  const contexts = new GuestContexts(ram);
  contexts.set(0, new GuestStage1(ram), { asid: ASID });
  const data = S.iommuHwptArmSmmuv3.encode({ ste0: contexts.streamEntry(), ste1: eats(1) });
  const type = S.IOMMU_HWPT_DATA_ARM_SMMUV3;
  const nested = step(() => user.hwpt(iommufd, device, viommu, { type, data, fault }));
  step(() => user.attach(vfio, nested));
  step(() => {
    const commands = [encodeCommand("TLBI_NH_ALL"), encodeCommand("CFGI_CD_ALL", { SID: 0x10 })];
    return user.invalidate(iommufd, viommu, commands, S.IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3).result;
  });
  step(() => user.attach(vfio, paging));
  return step(() => user.detach(vfio));
}

describe("failing on purpose", () => {
  it("any one allocation: the call says ENOMEM or EFAULT, and nothing is left", () => {
    for (let nth = 1; nth < 200; nth++) {
      const host = machine({ smmus: [{}], devices: DEVICES, deviations: ["smmuv3-relay-page-requests"] });
      host.assign();
      const used = host.kernel.frames.usedPages;
      const plan = new InjectionPlan([`allocation@${nth}`]);
      host.kernel.injector = plan;
      const user = host.user();
      const result = story(host, user);
      if (plan.injected === 0) {
        expect(result).toBe(0);
        expect(nth).toBeGreaterThan(25);
        return;
      }
      expect([-ENOMEM, -EFAULT]).toContain(result);
      user.process.exit();
      expect(host.kernel.liveKinds).toEqual([]);
      expect(host.kernel.frames.usedPages).toBe(used);
      // The same machine serves the next process.
      const again = host.user();
      expect(story(host, again)).toBe(0);
      again.process.exit();
      expect(host.kernel.liveKinds).toEqual([]);
    }
    throw new Error("the story never came through");
  });
});

describe("a group of two, of which one has no vDEVICE", () => {
  it("stays on the parent as a whole, with ATS and events as they were", () => {
    const options = { ats: true };
    const both = new GuestMachine({
      devices: [
        { rid: A, options },
        { rid: B, options },
      ],
      groups: [[A, B]],
    });
    const { host, user, a, parent } = both;
    const b = both.take(B);
    both.vdevice(0x10n);
    both.listen();
    const { stage, entry } = both.stage1();
    stage.map(IOVA, both.ram.page());
    for (const { vfio } of [a, b]) must(user.attach(vfio, parent));
    const nested = must(both.nested(entry, 0n));
    expect(user.attach(a.vfio, nested)).toBe(-ENOENT);
    const dma = (rid: number, address: bigint) =>
      host.root.slot(rid)!.dma.read(Number(address >> 12n), 0, new Uint8Array(4), 0, 4, NO_PASID);
    for (const rid of [A, B]) {
      expect(dma(rid, RAM_GPA)).toBe(DMA_OK);
      expect(dma(rid, IOVA)).toBe(DMA_ABORTED);
    }
    // Faults on the parent are nobody's to be told of, though A was on the nested HWPT for a moment.
    expect(both.events()).toEqual([]);
    for (const { vfio } of [a, b]) {
      const bar = user.bar0(vfio);
      bar.mmioWrite(R.TRANSLATION_MODE, 4, R.MODE_ATS, 0);
      eduDma(bar, RAM_GPA, 64, false);
      host.run(100_000);
      expect(eduOutcome(bar)).toBe(R.OUTCOME_DONE);
    }
    both.vdevice(0x11n, b);
    must(user.attach(a.vfio, nested));
    for (const rid of [A, B]) expect(dma(rid, IOVA)).toBe(DMA_OK);
    expect(both.globalErrors()).toEqual([0, 0]);
    expect(both.end()).toEqual([]);
  });
});
