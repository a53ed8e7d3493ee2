// Who is who, from traces of more than one VM: object ids are an iommufd's own (include/uapi/linux/iommufd.h), so equal numbers in two
// processes, or in one after the other, are different devices.

import { describe, expect, it } from "vitest";
import type { TracedEvent } from "../../../host/base/trace.ts";
import { idsOfTrace } from "../../../vmm/view/ids.ts";

let seq = 0;
/** A device bound, attached to a vIOMMU and given the guest's id: as the kernel traces it, a call after what it caused. */
function assigned(process: string, device: string, guestId: number): TracedEvent[] {
  const bind = ++seq;
  const call = (name: string, fd: number, fields: Record<string, number>, id = ++seq): TracedEvent => ({
    ...{ seq: id, time: 0, cause: 0 },
    ...({ type: "ioctl", process, fd, name, result: 0, fields } as const),
  });
  return [
    { seq: ++seq, time: 0, cause: bind, type: "attach", device, domain: "blocked", detail: "" },
    call("VFIO_DEVICE_BIND_IOMMUFD", 4, { iommufd: 3, out_devid: 2 }, bind),
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

  it("with a VM that came back under the same numbers keep each time's device", () => {
    const rows = idsOfTrace([...assigned("vmm1", "0000:00:01.0", 0x10), ...assigned("vmm1", "0000:00:02.0", 0x10)]);
    expect(rows.map(({ hostBdf }) => hostBdf)).toEqual(["0000:00:01.0", "0000:00:02.0"]);
  });
});
