// Events and page requests on their way to user space (iommufd-semantics §8, §9).

import { describe, expect, it } from "vitest";
import { NO_PASID } from "../../../../host/devices/ports.ts";
import type { MockDevice } from "../../../../host/kernel/iommu/mock/mock-device.ts";
import { attachDevice, detachDevice, replaceDevice } from "../../../../host/kernel/iommufd/in-kernel.ts";
import type { Viommu } from "../../../../host/kernel/iommufd/viommu.ts";
import { EFAULT, EINVAL, EOPNOTSUPP, ESPIPE } from "../../../../host/uapi/errno.ts";
import * as uapi from "../../../../host/uapi/iommufd.ts";
import { POLLIN, POLLOUT } from "../../../../host/uapi/system-calls.ts";
import { type Iommufd, MockHost } from "./mock-host.ts";

const EVENT = 0xbeefbeef;
const LOST = uapi.IOMMU_VEVENTQ_FLAG_LOST_EVENTS;

function withVeventq(depth: number) {
  const host = new MockHost();
  const user = host.process();
  const bound = user.bind(host.addDevice());
  const parent = user.hwpt(bound.id, user.ioas(), uapi.IOMMU_HWPT_ALLOC_NEST_PARENT);
  const id = user.viommu(bound.id, parent);
  const queue = user.veventq(id, depth);
  const viommu = user.context.find<Viommu>(id, "viommu")!;
  const report = (value: number) => viommu.reportEvent(EVENT, Uint8Array.of(value, 0, 0, 0));
  return { host, user, viommu, queue, report };
}

/** Messages of 12 bytes, and lost-event headers of 8: [flags, sequence, value]. */
function parse(bytes: Uint8Array): [number, number, number | null][] {
  const messages: [number, number, number | null][] = [];
  for (let at = 0; at < bytes.length; ) {
    const { flags, sequence } = uapi.iommufdVeventHeader.decode(bytes, at);
    messages.push([flags, sequence, flags === LOST ? null : bytes[at + 8]!]);
    at += flags === LOST ? 8 : 12;
  }
  return messages;
}

describe("a vEVENTQ", () => {
  it("numbers its events from 0 and gives several to one read", () => {
    const { user, queue, report } = withVeventq(8);
    for (const value of [5, 6, 7]) report(value);
    expect(parse(user.read(queue.fd, 4096 - 1024).bytes)).toEqual([
      [0, 0, 5],
      [0, 1, 6],
      [0, 2, 7],
    ]);
    expect(user.read(queue.fd, 12).result).toBe(0);
  });

  it("that is full loses events, says so behind what it kept, and counts them", () => {
    const { user, queue, report } = withVeventq(2);
    for (const value of [1, 2, 3, 4, 5]) expect(report(value)).toBe(0);
    expect(parse(user.read(queue.fd, 512).bytes)).toEqual([
      [0, 0, 1],
      [0, 1, 2],
      [LOST, 4, null],
    ]);
    report(6);
    expect(parse(user.read(queue.fd, 512).bytes)).toEqual([[0, 5, 6]]);
  });

  it("drops the lost-events header when an event fits again: only the gap in the numbers is left", () => {
    const { user, queue, report } = withVeventq(1);
    for (const value of [1, 2, 3]) report(value);
    expect(parse(user.read(queue.fd, 12).bytes)).toEqual([[0, 0, 1]]);
    report(4);
    expect(parse(user.read(queue.fd, 512).bytes)).toEqual([[0, 3, 4]]);
  });

  it("reads by the rules: ESPIPE at an offset, EINVAL below a header or for a first event that does not fit", () => {
    const { user, queue, report } = withVeventq(2);
    expect(user.read(queue.fd, 7).result).toBe(-EINVAL);
    expect(user.process.read(queue.fd, user.scratch, 12, 8n)).toBe(-ESPIPE);
    report(1);
    report(2);
    expect(user.read(queue.fd, 11).result).toBe(-EINVAL);
    expect(user.read(queue.fd, 23).result).toBe(12);
    expect(user.process.read(queue.fd, 0x10n, 12, -1n)).toBe(-EFAULT);
    expect(parse(user.read(queue.fd, 12).bytes)).toEqual([[0, 1, 2]]);
  });

  it("is readable while something waits, never writable, and wakes its watcher", () => {
    const { user, queue, report } = withVeventq(1);
    let woken = 0;
    user.process.watch(queue.fd, () => woken++);
    expect(user.process.poll(queue.fd)).toBe(0);
    report(1);
    expect(user.process.poll(queue.fd)).toBe(POLLIN);
    expect(woken).toBe(1);
    expect(user.write(queue.fd, new Uint8Array(8))).toBe(-EINVAL);
  });

  it("of another type does not get the event", () => {
    const { viommu } = withVeventq(1);
    expect(viommu.reportEvent(1, new Uint8Array(4))).toBe(-EOPNOTSUPP);
  });

  it("loses what the host is told to lose", () => {
    const { host, user, queue, report } = withVeventq(4);
    let count = 0;
    host.kernel.injector = {
      ioctl: () => 0,
      allocation: () => false,
      loseEvent: () => ++count === 2,
    };
    for (const value of [1, 2, 3]) report(value);
    expect(parse(user.read(queue.fd, 512).bytes)).toEqual([
      [0, 0, 1],
      [0, 2, 3],
    ]);
  });
});

function withFaults() {
  const host = new MockHost();
  const user = host.process();
  const device = host.addDevice();
  const bound = user.bind(device);
  const ioas = user.ioas();
  const queue = user.faultQueue();
  const hwpt = user.hwpt(bound.id, ioas, uapi.IOMMU_HWPT_FAULT_ID_VALID, undefined, queue.id);
  expect(attachDevice(bound, NO_PASID, hwpt)).toBe(hwpt);
  return { host, user, device, bound, ioas, queue, hwpt };
}

function request(host: MockHost, device: MockDevice, group: number, address: bigint, last = true): number {
  return host.kernel.iommu.reportPageRequest(device, { pasid: NO_PASID, group, last, permissions: 1, address });
}

function faults(bytes: Uint8Array) {
  const all = [];
  for (let at = 0; at < bytes.length; at += 40) all.push(uapi.iommuHwptPgfault.decode(bytes, at));
  return all;
}

function answer(user: Iommufd, fd: number, ...answers: [number, number][]): number {
  const bytes = new Uint8Array(answers.length * 8);
  for (const [i, [cookie, code]] of answers.entries()) {
    uapi.iommuHwptPageResponse.patch(bytes, { cookie, code }, i * 8);
  }
  return user.write(fd, bytes);
}

describe("a fault queue", () => {
  it("delivers a group of several pages whole and in order, when its last page came, under one cookie", () => {
    const { host, user, device, bound, queue } = withFaults();
    request(host, device, 9, 0x1000n, false);
    request(host, device, 9, 0x2000n, false);
    expect(user.process.poll(queue.fd)).toBe(POLLOUT);
    request(host, device, 9, 0x3000n);
    expect(user.process.poll(queue.fd)).toBe(POLLOUT | POLLIN);
    // Less than the group: nothing of it.
    expect(user.read(queue.fd, 80).result).toBe(-EINVAL);
    const messages = faults(user.read(queue.fd, 120).bytes);
    expect(messages.map(({ addr, flags, cookie, grpid, dev_id }) => [addr, flags, cookie, grpid, dev_id])).toEqual([
      [0x1000n, 0, 1, 9, bound.id],
      [0x2000n, 0, 1, 9, bound.id],
      [0x3000n, uapi.IOMMU_PGFAULT_FLAGS_LAST_PAGE, 1, 9, bound.id],
    ]);
    expect(answer(user, queue.fd, [1, 0])).toBe(8);
    expect(host.driver.responses).toEqual([{ device, group: 9, code: 0 }]);
  });

  it("reads as many whole groups as fit", () => {
    const { host, user, device, queue } = withFaults();
    request(host, device, 1, 0x1000n);
    request(host, device, 2, 0x2000n, false);
    request(host, device, 2, 0x3000n);
    expect(user.read(queue.fd, 80).result).toBe(40);
    expect(user.read(queue.fd, 81).result).toBe(-ESPIPE);
    expect(user.read(queue.fd, 80).result).toBe(80);
    expect(user.read(queue.fd, 80).result).toBe(0);
  });

  it("takes answers up to the first bad one and says how many", () => {
    const { host, user, device, queue } = withFaults();
    for (const group of [1, 2, 3]) request(host, device, group, 0x1000n);
    user.read(queue.fd, 120);
    expect(answer(user, queue.fd, [1, 0], [99, 0], [2, 0])).toBe(8);
    expect(answer(user, queue.fd, [99, 0])).toBe(-EINVAL);
    expect(answer(user, queue.fd, [2, 7])).toBe(-EINVAL);
    expect(answer(user, queue.fd, [1, 0])).toBe(-EINVAL);
    expect(answer(user, queue.fd, [3, 1], [2, 0])).toBe(16);
    expect(host.driver.responses.map(({ group, code }) => [group, code])).toEqual([
      [1, 0],
      [3, 1],
      [2, 0],
    ]);
  });

  it("gives cookies of its own, the lowest free one, whatever group index the device reuses", () => {
    const { host, user, device, queue } = withFaults();
    request(host, device, 4, 0x1000n);
    request(host, device, 4, 0x2000n);
    expect(faults(user.read(queue.fd, 80).bytes).map(({ cookie }) => cookie)).toEqual([1, 2]);
    answer(user, queue.fd, [1, 0]);
    request(host, device, 4, 0x3000n);
    expect(faults(user.read(queue.fd, 80).bytes).map(({ cookie }) => cookie)).toEqual([1]);
  });

  it("keeps a group whose read faulted", () => {
    const { host, user, device, queue } = withFaults();
    request(host, device, 1, 0x1000n);
    expect(user.process.read(queue.fd, 0x10n, 40, -1n)).toBe(-EFAULT);
    expect(faults(user.read(queue.fd, 40).bytes).map(({ cookie }) => cookie)).toEqual([1]);
  });

  it("answers INVALID what waited or was read when the attachment goes, and not again", () => {
    const { host, user, device, bound, queue } = withFaults();
    request(host, device, 1, 0x1000n);
    user.read(queue.fd, 40);
    request(host, device, 2, 0x2000n);
    detachDevice(bound, NO_PASID);
    expect(host.driver.responses.map(({ group, code }) => [group, code]).sort()).toEqual([
      [1, 1],
      [2, 1],
    ]);
    expect(answer(user, queue.fd, [1, 0])).toBe(-EINVAL);
    expect(user.read(queue.fd, 40).result).toBe(0);
  });

  it("answers INVALID what came through the old domain when the device moves to another with the same queue", () => {
    const { host, user, device, bound, ioas, queue } = withFaults();
    request(host, device, 1, 0x1000n);
    const other = user.hwpt(bound.id, ioas, uapi.IOMMU_HWPT_FAULT_ID_VALID, undefined, queue.id);
    expect(replaceDevice(bound, NO_PASID, other)).toBe(other);
    expect(host.driver.responses.map(({ group, code }) => [group, code])).toEqual([[1, 1]]);
    request(host, device, 2, 0x1000n);
    expect(faults(user.read(queue.fd, 80).bytes).map(({ grpid }) => grpid)).toEqual([2]);
  });
});
