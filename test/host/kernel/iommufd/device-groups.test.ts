// Groups of several devices, ownership, reserved regions, PASIDs, doorbells (iommufd-semantics §4, §10): all that needs more than the
// selftests' one device in one group.

import { describe, expect, it } from "vitest";
import { NO_PASID } from "../../../../host/devices/ports.ts";
import type { IommuDevice, ReservedRegion } from "../../../../host/kernel/iommu/driver.ts";
import { MOCK_FLAGS_DEVICE_PASID, MockDevice } from "../../../../host/kernel/iommu/mock/mock-device.ts";
import { MockDriver } from "../../../../host/kernel/iommu/mock/mock-driver.ts";
import type { MockViommu } from "../../../../host/kernel/iommu/mock/mock-viommu.ts";
import type { HwptPaging } from "../../../../host/kernel/iommufd/hw-pagetable.ts";
import {
  attachDevice,
  bindDevice,
  detachDevice,
  replaceDevice,
  unbindDevice,
} from "../../../../host/kernel/iommufd/in-kernel.ts";
import type { Ioas } from "../../../../host/kernel/iommufd/ioas.ts";
import { EADDRINUSE, EBUSY, EINVAL, ENOENT, ENOMEM, EPERM } from "../../../../host/uapi/errno.ts";
import * as uapi from "../../../../host/uapi/iommufd.ts";
import { type Iommufd, MockHost } from "./mock-host.ts";

/** Refuses to be attached while told to. */
class ReluctantDevice extends MockDevice {
  refuse = false;
  attaches = 0;

  override enter(viommu: MockViommu | null, from: MockViommu | null): number {
    this.attaches++;
    return this.refuse ? -ENOMEM : super.enter(viommu, from);
  }
}

/** A driver with reserved regions per device. */
class RegionDriver extends MockDriver {
  readonly regions = new Map<IommuDevice, ReservedRegion[]>();

  override reservedRegions(device?: IommuDevice): readonly ReservedRegion[] {
    return (device && this.regions.get(device)) ?? [];
  }
}

const reluctant = (id: number, flags: number) => new ReluctantDevice(id, flags);

function pair() {
  const host = new MockHost();
  const user = host.process();
  const first = host.addDevice({ group: "pair", make: reluctant });
  const second = host.addDevice({ group: "pair", make: reluctant });
  return { host, user, first, second, one: user.bind(first), two: user.bind(second) };
}

function domainOf(host: MockHost, device: MockDevice) {
  return host.kernel.iommu.groupOf(device)?.domain;
}

describe("a group of two devices", () => {
  it("moves with the first one that attaches; the second must name the same HWPT", () => {
    const { host, user, first, second, one, two } = pair();
    const ioas = user.ioas();
    const hwpt = user.hwpt(one.id, ioas);
    const other = user.hwpt(one.id, ioas);
    expect(attachDevice(one, NO_PASID, hwpt)).toBe(hwpt);
    expect(domainOf(host, first)).toBe(user.context.find<HwptPaging>(hwpt, "hwpt-paging")?.domain);
    expect(second.attaches).toBe(first.attaches);
    expect(attachDevice(two, NO_PASID, other)).toBe(-EINVAL);
    expect(attachDevice(two, NO_PASID, hwpt)).toBe(hwpt);
    expect(attachDevice(two, NO_PASID, hwpt)).toBe(-EBUSY);
  });

  it("is blocked again only when its last device detaches, each of which refers to the HWPT", () => {
    const { host, user, first, one, two } = pair();
    const hwpt = user.hwpt(one.id, user.ioas());
    attachDevice(one, NO_PASID, hwpt);
    attachDevice(two, NO_PASID, hwpt);
    detachDevice(one, NO_PASID);
    expect(domainOf(host, first)?.kind).toBe("paging");
    expect(user.destroy(hwpt)).toBe(-EBUSY);
    detachDevice(two, NO_PASID);
    expect(domainOf(host, first)?.kind).toBe("blocked");
    expect(user.destroy(hwpt)).toBe(0);
  });

  it("is replaced as a whole, and the references of both devices move", () => {
    const { user, one, two } = pair();
    const ioas = user.ioas();
    const [before, after] = [user.hwpt(one.id, ioas), user.hwpt(one.id, ioas)];
    attachDevice(one, NO_PASID, before);
    attachDevice(two, NO_PASID, before);
    expect(replaceDevice(two, NO_PASID, after)).toBe(after);
    expect(user.destroy(before)).toBe(0);
    expect(user.destroy(after)).toBe(-EBUSY);
    detachDevice(one, NO_PASID);
    expect(user.destroy(after)).toBe(-EBUSY);
    detachDevice(two, NO_PASID);
    expect(user.destroy(after)).toBe(0);
  });

  it("goes back to the old domain when one device's driver refuses the new one", () => {
    const { host, user, first, second, one, two } = pair();
    const [left, right] = [user.ioas(), user.ioas()];
    const before = user.hwpt(one.id, left);
    const after = user.hwpt(one.id, right);
    attachDevice(one, NO_PASID, before);
    attachDevice(two, NO_PASID, before);
    second.refuse = true;
    expect(replaceDevice(one, NO_PASID, after)).toBe(-ENOMEM);
    expect(domainOf(host, first)).toBe(user.context.find<HwptPaging>(before, "hwpt-paging")?.domain);
    expect(user.destroy(after)).toBe(0);
    expect(user.destroy(before)).toBe(-EBUSY);
    second.refuse = false;
    expect(replaceDevice(one, NO_PASID, before)).toBe(before);
  });

  it("shares one automatic HWPT, which goes with the last device", () => {
    const { user, one, two } = pair();
    const ioas = user.ioas();
    const automatic = attachDevice(one, NO_PASID, ioas);
    expect(attachDevice(two, NO_PASID, ioas)).toBe(automatic);
    detachDevice(one, NO_PASID);
    expect(user.context.objects.find(automatic)).not.toBe(null);
    detachDevice(two, NO_PASID);
    expect(user.destroy(automatic)).toBe(-ENOENT);
  });

  it("is not replaced through a device that is not attached itself", () => {
    const { user, one, two } = pair();
    const ioas = user.ioas();
    const hwpt = user.hwpt(one.id, ioas);
    attachDevice(one, NO_PASID, hwpt);
    expect(replaceDevice(two, NO_PASID, ioas)).toBe(-EINVAL);
  });
});

describe("DMA ownership", () => {
  it("of a group belongs to one context: a second one is refused until the last device is unbound", () => {
    const { host, first, second, one, two } = pair();
    const stranger = host.process("stranger");
    expect(bindDevice(stranger.context, first)).toBe(-EPERM);
    unbindDevice(one);
    expect(bindDevice(stranger.context, first)).toBe(-EPERM);
    unbindDevice(two);
    const bound = bindDevice(stranger.context, first);
    expect(bound).not.toBe(-EPERM);
    // Now the first context is the stranger.
    expect(bindDevice(one.context, second)).toBe(-EPERM);
  });

  it("is not given while a kernel driver uses the group, and a kernel driver is refused while it is given", () => {
    const host = new MockHost();
    const user = host.process();
    const device = host.addDevice();
    const group = host.kernel.iommu.groupOf(device)!;
    expect(group.useDefaultDomain()).toBe(0);
    expect(bindDevice(user.context, device)).toBe(-EPERM);
    group.unuseDefaultDomain();
    const bound = user.bind(device);
    expect(group.useDefaultDomain()).toBe(-EBUSY);
    unbindDevice(bound);
    expect(group.useDefaultDomain()).toBe(0);
  });

  it("puts the whole group into the blocking domain", () => {
    const { host, first } = pair();
    expect(domainOf(host, first)?.kind).toBe("blocked");
  });

  it("is refused for devices whose messages are not isolated", () => {
    class Open extends MockDriver {
      isolatesMsi(): boolean {
        return false;
      }
    }
    const host = new MockHost();
    const device = host.addDevice({ driver: new Open() });
    expect(bindDevice(host.process().context, device)).toBe(-EPERM);
  });
});

function withRegions(...regions: ReservedRegion[][]) {
  const host = new MockHost();
  const user = host.process();
  const driver = new RegionDriver();
  const bound = regions.map((own) => {
    const device = host.addDevice({ driver, group: "shared" });
    driver.regions.set(device, own);
    return user.bind(device);
  });
  return { host, user, driver, bound };
}

function holes(user: Iommufd, ioas: number): [bigint, bigint][] {
  return user.context
    .find<Ioas>(ioas, "ioas")!
    .table.ranges.holes()
    .map(({ start, last }) => [start, last]);
}

const APERTURE: [bigint, bigint] = [1n << 24n, (1n << 31n) - 1n];
const region = (start: bigint, length: bigint, type: ReservedRegion["type"] = "RESERVED") => ({ start, length, type });

describe("reserved regions of devices", () => {
  it("are taken out of the IOAS while the device is attached, relaxable ones not", () => {
    const { user, bound } = withRegions([
      region(0x2000_0000n, 0x1000n),
      region(0x3000_0000n, 0x1000n, "DIRECT_RELAXABLE"),
    ]);
    const ioas = user.ioas();
    const hwpt = user.hwpt(bound[0]!.id, ioas);
    attachDevice(bound[0]!, NO_PASID, hwpt);
    expect(holes(user, ioas)).toEqual([
      [APERTURE[0], 0x1fff_ffffn],
      [0x2000_1000n, APERTURE[1]],
    ]);
    const ram = user.process.memory.allocate(4096);
    expect(user.map(ioas, ram, 4096, 0x2000_0000n)).toBe(-EINVAL);
    detachDevice(bound[0]!, NO_PASID);
    expect(holes(user, ioas)).toEqual([APERTURE]);
    expect(user.map(ioas, ram, 4096, 0x2000_0000n)).toBe(0);
  });

  it("fail the attach when something is mapped or allowed there, and leave nothing reserved", () => {
    const { user, bound } = withRegions([region(0x4000_0000n, 0x1000n), region(0x2000_0000n, 0x1000n)]);
    const ioas = user.ioas();
    const ram = user.process.memory.allocate(4096);
    user.map(ioas, ram, 4096, 0x2000_0000n);
    const hwpt = user.hwpt(bound[0]!.id, ioas);
    expect(attachDevice(bound[0]!, NO_PASID, hwpt)).toBe(-EADDRINUSE);
    expect(holes(user, ioas)).toEqual([APERTURE]);
  });

  it("of every device of the group are enforced on a new IOAS before the group moves there", () => {
    const { user, bound } = withRegions([region(0x2000_0000n, 0x1000n)], [region(0x3000_0000n, 0x1000n)]);
    const [left, right] = [user.ioas(), user.ioas()];
    const ram = user.process.memory.allocate(4096);
    for (const device of bound) attachDevice(device, NO_PASID, left);
    // The second device's region is in use in the new IOAS: nothing moves and nothing stays reserved there.
    user.map(right, ram, 4096, 0x3000_0000n);
    const target = user.hwpt(bound[0]!.id, right);
    expect(replaceDevice(bound[0]!, NO_PASID, target)).toBe(-EADDRINUSE);
    expect(holes(user, right)).toEqual([APERTURE]);
    expect(holes(user, left).length).toBe(3);
    user.unmap(right, 0x3000_0000n, 4096n);
    expect(replaceDevice(bound[0]!, NO_PASID, target)).toBe(target);
    expect(holes(user, right).length).toBe(3);
    expect(user.destroy(left)).toBe(0);
  });
});

describe("doorbells of message-signalled interrupts", () => {
  const WINDOW = 0x0800_0000n;
  const APLIC = 0x2800_0008n;

  function setup() {
    // The mock's aperture begins at 16 MiB: the window lies in it.
    const { host, user, bound } = withRegions([region(0x0800_0000n, 0x10_0000n, "SW_MSI")]);
    const ioas = user.ioas();
    const hwpt = user.hwpt(bound[0]!.id, ioas);
    attachDevice(bound[0]!, NO_PASID, hwpt);
    const prepare = (doorbell: bigint) => host.kernel.iommu.prepareMsi(bound[0]!.device, doorbell);
    const physical = (id: number, iova: bigint) =>
      user.context.find<HwptPaging>(id, "hwpt-paging")!.domain.iovaToPhys(iova);
    return { host, user, device: bound[0]!, ioas, hwpt, prepare, physical };
  }

  it("appear in the window, page by page, offset kept, mapped in the domain", () => {
    const { prepare, physical, hwpt } = setup();
    expect(prepare(APLIC)).toBe(WINDOW + 8n);
    expect(prepare(0x2900_0000n)).toBe(WINDOW + 0x1000n);
    expect(prepare(APLIC)).toBe(WINDOW + 8n);
    expect(physical(hwpt, WINDOW + 8n)).toBe(APLIC);
    expect(physical(hwpt, WINDOW + 0x1000n)).toBe(0x2900_0000n);
  });

  it("are at the same place in every domain the device moves to", () => {
    const { user, device, ioas, prepare, physical } = setup();
    prepare(APLIC);
    const next = user.hwpt(device.id, ioas);
    expect(physical(next, WINDOW + 8n)).toBe(null);
    expect(replaceDevice(device, NO_PASID, next)).toBe(next);
    expect(physical(next, WINDOW + 8n)).toBe(APLIC);
  });

  it("are in the parent of a nested domain, and user space cannot map over them", () => {
    const { user, device, ioas, prepare } = setup();
    prepare(APLIC);
    const ram = user.process.memory.allocate(4096);
    expect(user.map(ioas, ram, 4096, WINDOW)).toBe(-EINVAL);
    detachDevice(device, NO_PASID);
    expect(prepare(APLIC)).toBe(APLIC);
  });

  it("go with the domains they are mapped in", () => {
    const { host, user, device, prepare } = setup();
    prepare(APLIC);
    detachDevice(device, NO_PASID);
    unbindDevice(device);
    user.process.exit();
    expect(host.kernel.liveKinds).toEqual([]);
  });
});

describe("PASIDs", () => {
  function withPasids() {
    const host = new MockHost();
    const user = host.process();
    const bound = user.bind(host.addDevice({ flags: MOCK_FLAGS_DEVICE_PASID }));
    const ioas = user.ioas();
    return { user, bound, ioas, compatible: user.hwpt(bound.id, ioas, uapi.IOMMU_HWPT_ALLOC_PASID) };
  }

  it("need an HWPT allocated for them: an IOAS never does", () => {
    const { user, bound, ioas, compatible } = withPasids();
    expect(attachDevice(bound, 7, ioas)).toBe(-EINVAL);
    expect(attachDevice(bound, 7, user.hwpt(bound.id, ioas))).toBe(-EINVAL);
    expect(attachDevice(bound, 7, compatible)).toBe(compatible);
    expect(attachDevice(bound, 7, compatible)).toBe(-EBUSY);
  });

  it("keep the requester id on HWPTs allocated for PASIDs while any is attached", () => {
    const { user, bound, ioas, compatible } = withPasids();
    const plain = user.hwpt(bound.id, ioas);
    attachDevice(bound, NO_PASID, plain);
    expect(attachDevice(bound, 7, compatible)).toBe(-EINVAL);
    expect(replaceDevice(bound, NO_PASID, compatible)).toBe(compatible);
    expect(attachDevice(bound, 7, compatible)).toBe(compatible);
    expect(replaceDevice(bound, NO_PASID, plain)).toBe(-EINVAL);
    detachDevice(bound, 7);
    expect(replaceDevice(bound, NO_PASID, plain)).toBe(plain);
  });

  it("out of the device's range are refused, and detaching what is not attached does nothing", () => {
    const { user, bound, compatible } = withPasids();
    expect(attachDevice(bound, 1 << 20, compatible)).toBe(-EINVAL);
    expect(replaceDevice(bound, 7, compatible)).toBe(-EINVAL);
    detachDevice(bound, 7);
    expect(user.destroy(compatible)).toBe(0);
  });
});
