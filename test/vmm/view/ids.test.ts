// Who is who, from traces of more than one VM: object ids are an iommufd's own (include/uapi/linux/iommufd.h), so equal numbers in two
// processes, or in one after the other, are different devices.

import { describe, expect, it } from "vitest";
import type { TracedEvent } from "../../../host/base/trace.ts";
import { idsOfTrace } from "../../../vmm/view/ids.ts";

let seq = 0;
/** A device bound, attached to a vIOMMU and given the guest's id: as the kernel traces it, a call after what it caused. */
function assigned(process: string, device: string, guestId: number, claimed = [device]): TracedEvent[] {
  const bind = ++seq;
  const call = (name: string, fd: number, fields: Record<string, number | string>, id = ++seq): TracedEvent => ({
    ...{ seq: id, time: 0, cause: 0 },
    ...({ type: "ioctl", process, fd, name, result: 0, fields } as const),
  });
  return [
    // A claim blocks the whole group; the bind of a second device of it moves nothing (iommu_device_claim_dma_owner).
    ...claimed.map((name) => ({
      ...({ seq: ++seq, time: 0, cause: bind, type: "attach", device: name, group: 4 } as const),
      ...({ domain: "blocked", detail: "" } as const),
    })),
    call("VFIO_DEVICE_BIND_IOMMUFD", 4, { device, iommufd: 3, out_devid: 2 }, bind),
    call("IOMMU_VDEVICE_ALLOC", 3, { viommu_id: 5, dev_id: 2, virt_id: guestId, out_vdevice_id: 6 }),
  ];
}

describe("ids of a trace", () => {
  it("with two VMs are told apart though their iommufds number objects alike", () => {
    const rows = idsOfTrace([...assigned("vmm1", "0000:00:01.0", 0x10), ...assigned("vmm2", "0000:00:02.0", 0x18)]);
    expect(rows.map(({ guestBdf, hostBdf }) => [guestBdf, hostBdf])).toEqual([
      ["00:02.0", "0000:00:01.0"],
      ["00:03.0", "0000:00:02.0"],
    ]);
  });

  it("of two devices of one group, which are claimed together, are each device's own, with the group", () => {
    const [a, b] = ["0000:00:01.0", "0000:00:02.0"];
    const rows = idsOfTrace([...assigned("vmm1", a!, 0x10, [a!, b!]), ...assigned("vmm2", b!, 0x18, [])]);
    expect(rows.map(({ hostBdf, group }) => [hostBdf, group])).toEqual([
      [a, 4],
      [b, 4],
    ]);
  });

  it("of a user without nesting are its devices, which have no name in a guest", () => {
    const bound = assigned("qemu", "0000:00:01.0", 0x10).slice(0, -1);
    const [row, ...others] = idsOfTrace([...bound, ...assigned("vmm1", "0000:00:02.0", 0x18)]);
    expect(row).toMatchObject({
      hostBdf: "0000:00:01.0",
      group: 4,
      guestBdf: null,
      guestDeviceId: null,
      vdevice: null,
    });
    expect(others.map(({ guestBdf, vdevice }) => [guestBdf, vdevice])).toEqual([["00:03.0", 6]]);
  });

  it("with a VM that came back under the same numbers keep each time's device", () => {
    const rows = idsOfTrace([...assigned("vmm1", "0000:00:01.0", 0x10), ...assigned("vmm1", "0000:00:02.0", 0x10)]);
    expect(rows.map(({ hostBdf }) => hostBdf)).toEqual(["0000:00:01.0", "0000:00:02.0"]);
  });
});
