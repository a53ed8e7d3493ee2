// A saved kernel with a CMDQV: queues, StreamIDs and errors of a guest's VINTF, disturbed and restored.

import { expect, it } from "vitest";
import * as S from "../../../../../host/uapi/smmuv3-nesting.ts";
import { restoreMachine, saveMachine } from "../../saved-machine.ts";
import { B, must } from "./guest-machine.ts";
import { CONFIG, CONS, GERROR, GERRORN, QueueMachine, register, SMALL, vintf } from "./queue-machine.ts";

/** Two devices named, the first queue with a command that it may not give and an event that waits, the second running. */
function story() {
  const queues = new QueueMachine(SMALL);
  const b = queues.take(B);
  const [vdeviceA, vdeviceB] = [queues.a, b].map((device, index) =>
    must(queues.user.vdevice(queues.iommufd, queues.cmdqvIommu, device.device, 0x30n + BigInt(index))),
  ) as [number, number];
  const fd = queues.user.veventq(queues.iommufd, queues.cmdqvIommu, 8, S.IOMMU_VEVENTQ_TYPE_TEGRA241_CMDQV)[1];
  const rings = [queues.ram.page(), queues.ram.page()] as const;
  const ids = rings.map((ring, index) => must(queues.queue(index, ring, 4096n)));
  for (const index of [0, 1]) queues.write(index, CONFIG, 1);
  queues.give(1, rings[1], "ATC_INV", { SID: 0x30, Size: 52 });
  queues.give(0, rings[0], "TLBI_NSNH_ALL");
  return { queues, b, vdeviceA, vdeviceB, fd, rings, ids };
}

type Story = ReturnType<typeof story>;

function go({ queues, fd, rings, vdeviceB }: Story): unknown[] {
  const seen: unknown[] = [queues.errorMaps(fd), queues.read(0, CONS), queues.read(1, CONS)];
  queues.ram.store(rings[0], 0x46n);
  queues.write(0, GERRORN, queues.read(0, GERROR));
  queues.give(1, rings[1], "ATC_INV", { SID: 0x31, Size: 52 });
  seen.push(queues.read(0, CONS), queues.read(1, CONS), queues.errorMaps(fd));
  seen.push(queues.user.destroy(queues.iommufd, vdeviceB), register(queues.host, vintf(1, 0x44)));
  queues.give(1, rings[1], "ATC_INV", { SID: 0x31, Size: 52 });
  seen.push(queues.read(1, CONS), queues.errorMaps(fd), queues.end());
  return seen;
}

/** Queues and names are made again, names in another order: ids stay what they were. */
function goOn({ queues, b, vdeviceA, vdeviceB, rings, ids }: Story): void {
  for (const id of [ids[1]!, ids[0]!, vdeviceB, vdeviceA]) must(queues.user.destroy(queues.iommufd, id));
  const name = (device: number, id: bigint) => must(queues.user.vdevice(queues.iommufd, queues.cmdqvIommu, device, id));
  // The lowest free id is given: in the order of the first time, with A's pair taken by B for a while.
  const passing = name(b.device, 0x31n);
  const other = name(queues.a.device, 0x30n);
  must(queues.user.destroy(queues.iommufd, passing));
  must(queues.user.destroy(queues.iommufd, other));
  expect([name(queues.a.device, 0x30n), name(b.device, 0x31n)]).toEqual([vdeviceA, vdeviceB]);
  for (const [index, ring] of rings.entries()) expect(queues.queue(index, ring, 4096n)).toBe(ids[index]);
  queues.write(1, CONFIG, 1);
  queues.give(1, rings[1], "SYNC");
}

it("a kernel whose guest has queues of the hardware's, disturbed and restored, goes on like its twin", () => {
  const [twin, told] = [story(), story()];
  const text = saveMachine(told.queues.host);
  const ram = told.queues.ram.bytes.slice();
  expect(saveMachine(twin.queues.host) === text).toBe(true);
  goOn(told);
  expect(saveMachine(told.queues.host) === text).toBe(false);
  told.queues.ram.bytes.set(ram);
  restoreMachine(told.queues.host, text);
  expect(saveMachine(told.queues.host) === text).toBe(true);
  expect(go(told)).toEqual(go(twin));
});
