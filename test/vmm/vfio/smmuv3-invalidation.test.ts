// Invalidations of a guest's SMMUv3 over Linux's interface: the kernel counts commands before a refused one as done that it has not issued
// (arm_vsmmu_cache_invalidate), and the VMM sees to it that they are done all the same.

import { expect, it } from "vitest";
import { type CommandName, encodeCommand } from "../../../host/arch/smmuv3/commands.ts";
import { EIO } from "../../../host/uapi/errno.ts";
import { AssignedDevice } from "../../../vmm/vfio/assigned-device.ts";
import { GuestAddressSpace } from "../../../vmm/vfio/guest-address-space.ts";
import { IommufdHost } from "../../../vmm/vfio/iommufd-host.ts";
import { SMMUV3_NESTING } from "../../../vmm/viommu/smmuv3/nested-codec.ts";
import { machine, name } from "../../host/kernel/machine.ts";

const RID = 0x0108;
const RAM = 0x8000_0000n;
const HANDLE = 100;

it("a command that the host refuses leaves none before it undone", () => {
  const host = machine({ smmus: [{}] });
  host.assign();
  const process = host.kernel.createProcess("vmm");
  const space = new GuestAddressSpace(process);
  space.mapRam(RAM, new ArrayBuffer(1 << 20), 0, 1 << 20);
  const device = new AssignedDevice({
    addressSpace: space,
    path: host.vfio.nodeOf(name(RID))!,
    handle: HANDLE,
    guestName: "guest 10",
    hostName: name(RID),
    message: () => {},
    report: () => {},
    trace: host.trace,
  });
  const iommu = new IommufdHost({ addressSpace: space, codec: SMMUV3_NESTING, report: () => {} });
  const { fd, deviceId } = device;
  iommu.register({ handle: HANDLE, fd, deviceId, guestName: "guest 10", hostName: name(RID), faults: false });
  expect(iommu.attach(HANDLE, 0x10n)).toBe(0);

  const names: string[] = [];
  host.trace.addSink({
    event: (event) => {
      if (event.type === "command" && event.name !== "SYNC") names.push(event.name);
    },
  });
  const invalidate = (...commands: readonly (readonly [CommandName, Record<string, bigint | number>?])[]) => {
    const words = commands.flatMap(([command, fields = {}]) => encodeCommand(command, fields));
    names.length = 0;
    const reply = iommu.invalidate(new Uint8Array(new BigUint64Array(words).buffer), commands.length);
    return { ...reply };
  };
  invalidate(["TLBI_NH_ALL"]);
  expect(invalidate(["TLBI_NH_ALL"], ["TLBI_NH_ASID"], ["CFGI_CD_ALL", { SID: 0x99 }], ["TLBI_NH_VAA"])).toEqual({
    done: 2,
    errno: -EIO,
  });
  expect(names).toEqual(["TLBI_NH_ALL", "TLBI_NH_ASID"]);
  expect(invalidate(["CFGI_CD_ALL", { SID: 0x99 }], ["TLBI_NH_ALL"])).toEqual({ done: 0, errno: -EIO });
  expect(names).toEqual([]);
  expect(invalidate(["TLBI_NH_ALL"], ["CFGI_CD_ALL", { SID: 0x10 }])).toEqual({ done: 2, errno: 0 });
  expect(names).toEqual(["TLBI_NH_ALL", "CFGI_CD_ALL"]);
});
