// Failing on purpose over the real driver: every allocation in turn, every system call by name, an erratum of the hardware. Whatever
// fails, nothing leaks, and what does not fail works.

import { describe, expect, it } from "vitest";
import { InjectionPlan } from "../../../host/kernel/injection-plan.ts";
import { EINVAL, ENOMEM } from "../../../host/uapi/errno.ts";
import * as I from "../../../host/uapi/iommufd.ts";
import * as X from "../../../host/uapi/vfio.ts";
import { RAM_GPA } from "./guest.ts";
import { machine, name, type User } from "./machine.ts";

const RID = 0x0108;

/** The way to a nested device, as far as it goes; the first refusal, or 0. */
function story(host: ReturnType<typeof machine>, user: User): number {
  const va = user.process.memory.mapBuffer(new ArrayBuffer(16 * 4096), 0, 16 * 4096);
  const iommufd = user.iommufd();
  if (iommufd < 0) return iommufd;
  const alloc = user.call(iommufd, I.IOMMU_IOAS_ALLOC, I.iommuIoasAlloc, {});
  if (alloc.result < 0) return alloc.result;
  const ioas = alloc.out_ioas_id;
  // Out of step, so that the second stage needs a leaf table of its own.
  const mapped = user.map(iommufd, ioas, va, 15 * 4096, RAM_GPA + 4096n);
  if (mapped < 0) return mapped;
  const vfio = user.open(host.vfio.nodeOf(name(RID))!);
  const device = user.bind(vfio, iommufd);
  if (device < 0) return device;
  const parent = user.hwpt(iommufd, device, ioas, { flags: I.IOMMU_HWPT_ALLOC_NEST_PARENT });
  if (parent < 0) return parent;
  const attached = user.attach(vfio, parent);
  if (attached < 0) return attached;
  const viommu = user.viommu(iommufd, device, parent);
  if (viommu < 0) return viommu;
  const vdevice = user.vdevice(iommufd, viommu, device, 0x10n);
  if (vdevice < 0) return vdevice;
  const { result } = user.irq(vfio, X.VFIO_PCI_MSI_IRQ_INDEX);
  if (result < 0) return result;
  const nested = user.nested(iommufd, device, viommu, { tc: 1n });
  if (nested < 0) return nested;
  const replaced = user.attach(vfio, nested);
  if (replaced < 0) return replaced;
  const second = user.map(iommufd, ioas, va, 4096, 0x40_0000_0000n);
  return second < 0 ? second : user.detach(vfio);
}

describe("failing on purpose", () => {
  it("any one allocation: the call says ENOMEM or EFAULT, and nothing is left", () => {
    let failures = 0;
    for (let nth = 1; nth < 200; nth++) {
      const host = machine();
      host.assign();
      const plan = new InjectionPlan([`allocation@${nth}`]);
      host.kernel.injector = plan;
      const user = host.user();
      const result = story(host, user);
      if (plan.injected === 0) {
        expect(result).toBe(0);
        expect(nth).toBeGreaterThan(15);
        return;
      }
      failures++;
      expect([-ENOMEM, -14]).toContain(result);
      user.process.exit();
      expect(host.kernel.liveKinds).toEqual([]);
      // The same machine serves the next process.
      const again = host.user();
      expect(story(host, again)).toBe(0);
      again.process.exit();
      expect(host.kernel.liveKinds).toEqual([]);
    }
    throw new Error(`the story never came through (${failures} failures)`);
  });

  it.each(["VFIO_DEVICE_BIND_IOMMUFD", "VFIO_DEVICE_ATTACH_IOMMUFD_PT", "VFIO_DEVICE_SET_IRQS", "IOMMU_HWPT_ALLOC"])(
    "%s by name",
    (call) => {
      const host = machine();
      host.assign();
      host.kernel.injector = new InjectionPlan([`ioctl:${call}=EIO`]);
      const user = host.user();
      expect(story(host, user)).toBe(-5);
      user.process.exit();
      expect(host.kernel.liveKinds).toEqual([]);
    },
  );

  it("runs out of memory for page tables: maps fail whole, and the tables come back", () => {
    // Enough for the kernel's queues, not for the second stage of what is mapped below.
    const host = machine({ ramPages: 130 });
    host.assign();
    const used = host.kernel.frames.usedPages;
    const user = host.user();
    const iommufd = user.iommufd();
    const ioas = user.ioas(iommufd);
    const vfio = user.open(host.vfio.nodeOf(name(RID))!);
    const device = user.bind(vfio, iommufd);
    user.attach(vfio, user.hwpt(iommufd, device, ioas, { flags: I.IOMMU_HWPT_ALLOC_NEST_PARENT }));
    const length = 128 << 20;
    const va = user.process.memory.mapBuffer(new ArrayBuffer(length), 0, length);
    expect(user.map(iommufd, ioas, va, length - 4096, RAM_GPA + 4096n)).toBe(-ENOMEM);
    expect(host.kernel.frames.pins.total).toBe(0);
    expect(user.map(iommufd, ioas, va, length, RAM_GPA)).toBe(0);
    user.process.exit();
    expect(host.kernel.liveKinds).toEqual([]);
    expect(host.kernel.frames.usedPages).toBe(used);
  });

  it("an erratum refuses read-only mappings in a nest parent, and only there", () => {
    const host = machine();
    host.assign();
    host.kernel.injector = new InjectionPlan(["erratum:read-only-stage2"]);
    const user = host.user();
    const iommufd = user.iommufd();
    const ioas = user.ioas(iommufd);
    const vfio = user.open(host.vfio.nodeOf(name(RID))!);
    const device = user.bind(vfio, iommufd);
    const va = user.process.memory.mapBuffer(new ArrayBuffer(8192), 0, 8192);
    const readOnly = (iova: bigint) =>
      user.call(iommufd, I.IOMMU_IOAS_MAP, I.iommuIoasMap, {
        flags: I.IOMMU_IOAS_MAP_FIXED_IOVA | I.IOMMU_IOAS_MAP_READABLE,
        ioas_id: ioas,
        user_va: va,
        length: 4096n,
        iova,
      }).result;
    const plain = user.hwpt(iommufd, device, ioas);
    expect(readOnly(0x1000n)).toBe(0);
    expect(user.hwpt(iommufd, device, ioas, { flags: I.IOMMU_HWPT_ALLOC_NEST_PARENT })).toBe(-EINVAL);
    user.unmap(iommufd, ioas, 0x1000n, 4096n);
    expect(user.hwpt(iommufd, device, ioas, { flags: I.IOMMU_HWPT_ALLOC_NEST_PARENT })).toBeGreaterThan(plain);
    expect(readOnly(0x1000n)).toBe(-EINVAL);
    user.process.exit();
    expect(host.kernel.liveKinds).toEqual([]);
  });
});
