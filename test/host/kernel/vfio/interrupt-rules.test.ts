// What VFIO_DEVICE_SET_IRQS lets by and refuses.

import { describe, expect, it } from "vitest";
import { EBADF, EBUSY, EINVAL, ENOTTY, ERANGE } from "../../../../host/uapi/errno.ts";
import * as X from "../../../../host/uapi/vfio.ts";
import { machine, name } from "../machine.ts";
import { bound, RID } from "./device-user.ts";
import { RichFunction } from "./rich-function.ts";

const U32_MAX = 0xffff_ffff;

/** As `bound`, with a function of four MSI and eight MSI-X vectors. */
function rich(options: { interruptPin?: boolean } = {}) {
  const host = machine({ devices: [] });
  const physical = new RichFunction({ name: "rich", ...options });
  host.root.plug(RID, physical, host.iommus[0]!);
  host.kernel.pci.bind(name(RID), "vfio-pci");
  const user = host.user();
  const iommufd = user.iommufd();
  const vfio = user.open(host.vfio.nodeOf(name(RID))!);
  user.bind(vfio, iommufd);
  user.attach(vfio, user.ioas(iommufd));
  user.enableDevice(vfio);
  const end = () => {
    user.process.exit();
    expect(host.kernel.liveKinds).toEqual([]);
  };
  return { host, physical, user, iommufd, vfio, end };
}

describe("SET_IRQS", () => {
  const [NONE, BOOL, EVENTFD] = [X.VFIO_IRQ_SET_DATA_NONE, X.VFIO_IRQ_SET_DATA_BOOL, X.VFIO_IRQ_SET_DATA_EVENTFD];
  const [MASK, UNMASK] = [X.VFIO_IRQ_SET_ACTION_MASK, X.VFIO_IRQ_SET_ACTION_UNMASK];
  const TRIGGER = X.VFIO_IRQ_SET_ACTION_TRIGGER;
  const [INTX, MSI, MSIX] = [X.VFIO_PCI_INTX_IRQ_INDEX, X.VFIO_PCI_MSI_IRQ_INDEX, X.VFIO_PCI_MSIX_IRQ_INDEX];
  const [ERR, REQ] = [X.VFIO_PCI_ERR_IRQ_INDEX, X.VFIO_PCI_REQ_IRQ_INDEX];
  const NEGATIVE = [-1, -2, -99, -(2 ** 31)];

  type Parts = ReturnType<typeof rich>;
  const fds = (...list: number[]): Uint8Array => new Uint8Array(Int32Array.from(list).buffer);
  const set = (
    { user, vfio }: Parts,
    flags: number,
    index: number,
    [start, count]: [number, number],
    data: Uint8Array = new Uint8Array(0),
  ) => user.call(vfio, X.VFIO_DEVICE_SET_IRQS, X.vfioIrqSet, { flags, index, start, count }, data).result;
  const off = (parts: Parts, index: number) => set(parts, NONE | TRIGGER, index, [0, 0]);

  it("numbers: a range is within the vectors, whatever is in it, and never passes 2^32", () => {
    const parts = rich();
    for (const [start, count] of [
      [1, U32_MAX],
      [U32_MAX, 1],
      [U32_MAX, 0],
      [0, U32_MAX],
      [4, 0],
      [0, 5],
      [3, 2],
      [U32_MAX, U32_MAX],
    ] as [number, number][]) {
      expect([start, count, set(parts, EVENTFD | TRIGGER, MSI, [start, count], fds(-1))]).toEqual([
        start,
        count,
        -EINVAL,
      ]);
      expect(set(parts, NONE | TRIGGER, MSI, [start, count])).toBe(-EINVAL);
    }
    for (const index of [5, 6, U32_MAX]) expect(set(parts, NONE | TRIGGER, index, [0, 0])).toBe(-EINVAL);
    parts.end();
  });

  it("data: one kind, as much as the count says; two actions or none are ENOTTY, after the data was looked at", () => {
    const parts = rich();
    expect(set(parts, TRIGGER, MSI, [0, 1])).toBe(-EINVAL);
    expect(set(parts, NONE | BOOL | TRIGGER, MSI, [0, 1], fds(-1))).toBe(-EINVAL);
    expect(set(parts, EVENTFD | TRIGGER, MSI, [0, 2], fds(-1))).toBe(-EINVAL);
    expect(set(parts, BOOL | TRIGGER, MSI, [0, 2], new Uint8Array(1))).toBe(-EINVAL);
    expect(set(parts, NONE | 0x40, MSI, [0, 1])).toBe(-EINVAL);
    expect(set(parts, NONE, MSI, [0, 1])).toBe(-ENOTTY);
    expect(set(parts, NONE | TRIGGER | MASK, INTX, [0, 1])).toBe(-ENOTTY);
    expect(set(parts, NONE | MASK | UNMASK, INTX, [0, 1])).toBe(-ENOTTY);
    for (const index of [MSI, MSIX, ERR, REQ]) {
      for (const action of [MASK, UNMASK]) expect(set(parts, NONE | action, index, [0, 1])).toBe(-ENOTTY);
    }
    parts.end();
  });

  it.each([
    ["MSI", MSI],
    ["MSI-X", MSIX],
  ])("%s: any negative descriptor is none, other descriptors must be eventfds", (_name, index) => {
    const parts = rich();
    for (const fd of NEGATIVE) {
      expect(set(parts, EVENTFD | TRIGGER, index, [0, 1], fds(fd))).toBe(0);
      expect(off(parts, index)).toBe(0);
    }
    expect(set(parts, EVENTFD | TRIGGER, index, [0, 1], fds(999))).toBe(-EBADF);
    expect(set(parts, EVENTFD | TRIGGER, index, [0, 1], fds(2 ** 31 - 1))).toBe(-EBADF);
    expect(set(parts, EVENTFD | TRIGGER, index, [0, 1], fds(parts.iommufd))).toBe(-EINVAL);
    // The refused one was the first: nothing is on.
    expect(off(parts, index)).toBe(-EINVAL);
    parts.end();
  });

  it.each([
    ["MSI", MSI],
    ["MSI-X", MSIX],
  ])("%s: at least one vector is switched on (ERANGE); switched on, none is nothing to do", (_name, index) => {
    const parts = rich();
    expect(set(parts, EVENTFD | TRIGGER, index, [0, 0])).toBe(-ERANGE);
    expect(set(parts, BOOL | TRIGGER, index, [0, 0])).toBe(-EINVAL);
    expect(off(parts, index)).toBe(-EINVAL);
    expect(set(parts, EVENTFD | TRIGGER, index, [0, 1], fds(-1))).toBe(0);
    expect(set(parts, EVENTFD | TRIGGER, index, [0, 0])).toBe(0);
    expect(set(parts, EVENTFD | TRIGGER, index === MSI ? MSIX : MSI, [0, 1], fds(-1))).toBe(-EINVAL);
    expect(set(parts, EVENTFD | TRIGGER, INTX, [0, 1], fds(-1))).toBe(-EINVAL);
    expect(off(parts, index)).toBe(0);
    parts.end();
  });

  it("MSI: a block is as large as it was made; an eventfd beyond it is EINVAL, and clears what the request had set", () => {
    const parts = rich();
    const { user } = parts;
    const [first, second, other] = [user.process.eventfd(), user.process.eventfd(), user.process.eventfd()];
    const loopBack = (vector: number) => {
      expect(set(parts, NONE | TRIGGER, MSI, [vector, 1])).toBe(0);
      return [first, second, other].map((eventfd) => user.count(eventfd));
    };
    expect(set(parts, EVENTFD | TRIGGER, MSI, [0, 2], fds(first, second))).toBe(0);
    // Taking away what is not there is nothing.
    expect(set(parts, EVENTFD | TRIGGER, MSI, [2, 2], fds(-1, -1))).toBe(0);
    expect(loopBack(1)).toEqual([0, 1, 0]);
    expect(set(parts, EVENTFD | TRIGGER, MSI, [1, 2], fds(other, other))).toBe(-EINVAL);
    expect(loopBack(0)).toEqual([1, 0, 0]);
    expect(loopBack(1)).toEqual([0, 0, 0]);
    parts.end();
  });

  it("MSI-X: a bad descriptor clears what the request had set, and leaves the rest", () => {
    const parts = rich();
    const { user } = parts;
    const [first, second] = [user.process.eventfd(), user.process.eventfd()];
    expect(set(parts, EVENTFD | TRIGGER, MSIX, [0, 2], fds(first, first))).toBe(0);
    expect(set(parts, EVENTFD | TRIGGER, MSIX, [1, 3], fds(second, second, 999))).toBe(-EBADF);
    expect(set(parts, NONE | TRIGGER, MSIX, [0, 8])).toBe(0);
    expect([user.count(first), user.count(second)]).toEqual([1, 0]);
    // A vector that was not there at first can be added.
    expect(set(parts, EVENTFD | TRIGGER, MSIX, [7, 1], fds(second))).toBe(0);
    expect(set(parts, BOOL | TRIGGER, MSIX, [6, 2], Uint8Array.of(1, 1))).toBe(0);
    expect(user.count(second)).toBe(1);
    parts.end();
  });

  it("INTx: masking and unmasking need it on, one of it; a negative descriptor is on with nobody told", () => {
    const parts = rich();
    const eventfd = parts.user.process.eventfd();
    for (const action of [MASK, UNMASK]) {
      expect(set(parts, NONE | action, INTX, [0, 1])).toBe(-EINVAL);
      expect(set(parts, BOOL | action, INTX, [0, 1], Uint8Array.of(0))).toBe(-EINVAL);
      expect(set(parts, EVENTFD | action, INTX, [0, 1], fds(eventfd))).toBe(-EINVAL);
    }
    expect(set(parts, NONE | TRIGGER, INTX, [0, 1])).toBe(-EINVAL);
    for (const fd of NEGATIVE) {
      expect(set(parts, EVENTFD | TRIGGER, INTX, [0, 1], fds(fd))).toBe(0);
      expect(set(parts, EVENTFD | TRIGGER, MSI, [0, 1], fds(-1))).toBe(-EINVAL);
      expect(off(parts, INTX)).toBe(0);
    }
    expect(set(parts, EVENTFD | TRIGGER, INTX, [0, 1], fds(999))).toBe(-EBADF);
    expect(set(parts, EVENTFD | TRIGGER, INTX, [0, 1], fds(eventfd))).toBe(0);
    expect(set(parts, EVENTFD | TRIGGER, INTX, [0, 0])).toBe(-EINVAL);
    expect(set(parts, NONE | MASK, INTX, [0, 0])).toBe(-EINVAL);
    expect(set(parts, EVENTFD | MASK, INTX, [0, 1], fds(eventfd))).toBe(-ENOTTY);
    expect(set(parts, NONE | MASK, INTX, [0, 1])).toBe(0);
    expect(set(parts, NONE | UNMASK, INTX, [0, 1])).toBe(0);
    expect(off(parts, INTX)).toBe(0);
    expect(off(parts, INTX)).toBe(-EINVAL);
    parts.end();
  });

  it("INTx: of a function without a pin there is none", () => {
    const parts = rich({ interruptPin: false });
    const info = parts.user.must(parts.vfio, X.VFIO_DEVICE_GET_IRQ_INFO, X.vfioIrqInfo, { index: INTX });
    expect(info.count).toBe(0);
    expect(set(parts, EVENTFD | TRIGGER, INTX, [0, 1], fds(-1))).toBe(-EINVAL);
    parts.end();
  });

  describe("INTx unmasked by an eventfd", () => {
    function armed() {
      const parts = rich();
      const { host, user } = parts;
      const [told, unmask] = [user.process.eventfd(), user.process.eventfd()];
      expect(set(parts, EVENTFD | TRIGGER, INTX, [0, 1], fds(told))).toBe(0);
      const served = () => {
        host.run(1_000);
        return user.count(told);
      };
      const signal = (eventfd: number) => {
        const one = user.process.memory.bytes(user.scratch, 8);
        one.set([1, 0, 0, 0, 0, 0, 0, 0]);
        expect(user.process.write(eventfd, user.scratch, 8, -1n)).toBe(8);
      };
      const use = (fd: number) => set(parts, EVENTFD | UNMASK, INTX, [0, 1], fds(fd));
      return { ...parts, told, unmask, served, signal, use };
    }

    it("each signal unmasks once and is taken; an interrupt still pending comes again", () => {
      const { physical, user, unmask, served, signal, use, end } = armed();
      expect(use(unmask)).toBe(0);
      physical.level(true);
      expect(served()).toBe(1);
      expect(served()).toBe(0);
      signal(unmask);
      expect(served()).toBe(1);
      expect(user.count(unmask)).toBe(0);
      physical.level(false);
      signal(unmask);
      expect(served()).toBe(0);
      physical.level(true);
      expect(served()).toBe(1);
      end();
    });

    it("what the eventfd held when it was given counts", () => {
      const { physical, unmask, served, signal, use, end } = armed();
      physical.level(true);
      expect(served()).toBe(1);
      signal(unmask);
      expect(use(unmask)).toBe(0);
      expect(served()).toBe(1);
      end();
    });

    it("there is one at a time (EBUSY); a negative descriptor, closing it, or INTx off lets go of it", () => {
      const parts = armed();
      const { host, user, unmask, told, signal, use, end } = parts;
      expect(use(999)).toBe(-EBADF);
      expect(use(unmask)).toBe(0);
      expect(use(user.process.eventfd())).toBe(-EBUSY);
      expect(use(-2)).toBe(0);
      expect(use(-1)).toBe(0);
      signal(unmask);
      expect(user.count(unmask)).toBe(1);
      expect(use(unmask)).toBe(0);
      const before = host.kernel.live.of("eventfd");
      user.process.close(unmask);
      expect(host.kernel.live.of("eventfd")).toBe(before - 1);
      expect(use(user.process.eventfd())).toBe(0);
      expect(off(parts, INTX)).toBe(0);
      expect(set(parts, EVENTFD | TRIGGER, INTX, [0, 1], fds(told))).toBe(0);
      expect(use(user.process.eventfd())).toBe(0);
      end();
    });

    it("does nothing while user space has INTx disabled in its command register", () => {
      const { physical, user, vfio, unmask, served, signal, use, end } = armed();
      expect(use(unmask)).toBe(0);
      user.configWrite(vfio, 4, 2, 0x406);
      physical.level(true);
      signal(unmask);
      expect(served()).toBe(0);
      user.configWrite(vfio, 4, 2, 0x006);
      expect(served()).toBe(1);
      end();
    });
  });

  it("INTx: user space's own trigger and unmask do nothing while it has INTx disabled", () => {
    const parts = rich();
    const { host, physical, user, vfio } = parts;
    const told = user.process.eventfd();
    set(parts, EVENTFD | TRIGGER, INTX, [0, 1], fds(told));
    expect([set(parts, NONE | TRIGGER, INTX, [0, 1]), user.count(told)]).toEqual([0, 1]);
    user.configWrite(vfio, 4, 2, 0x406);
    expect([set(parts, NONE | TRIGGER, INTX, [0, 1]), user.count(told)]).toEqual([0, 0]);
    physical.level(true);
    expect(set(parts, NONE | UNMASK, INTX, [0, 1])).toBe(0);
    host.run(1_000);
    expect(user.count(told)).toBe(0);
    parts.end();
  });

  it.each([
    ["error", ERR],
    ["request", REQ],
  ])("%s: -1 takes the eventfd away, other negative descriptors leave it; loop-back needs one", (_name, index) => {
    const parts = rich();
    const { user } = parts;
    const eventfd = user.process.eventfd();
    const loopBack = () => [set(parts, NONE | TRIGGER, index, [0, 1]), user.count(eventfd)];
    expect(loopBack()).toEqual([-EINVAL, 0]);
    expect(off(parts, index)).toBe(-EINVAL);
    expect(set(parts, BOOL | TRIGGER, index, [0, 1], Uint8Array.of(1))).toBe(0);
    expect(set(parts, EVENTFD | TRIGGER, index, [0, 1], fds(-2))).toBe(0);
    expect(loopBack()).toEqual([-EINVAL, 0]);
    expect(set(parts, EVENTFD | TRIGGER, index, [0, 1], fds(eventfd))).toBe(0);
    for (const fd of NEGATIVE.slice(1)) expect(set(parts, EVENTFD | TRIGGER, index, [0, 1], fds(fd))).toBe(0);
    expect(set(parts, EVENTFD | TRIGGER, index, [0, 1], fds(999))).toBe(-EBADF);
    expect(loopBack()).toEqual([0, 1]);
    expect([set(parts, BOOL | TRIGGER, index, [0, 1], Uint8Array.of(0)), user.count(eventfd)]).toEqual([0, 0]);
    expect([set(parts, BOOL | TRIGGER, index, [0, 1], Uint8Array.of(1)), user.count(eventfd)]).toEqual([0, 1]);
    // No entries of these kinds is no request.
    expect(set(parts, BOOL | TRIGGER, index, [0, 0])).toBe(-EINVAL);
    expect(set(parts, EVENTFD | TRIGGER, index, [0, 0])).toBe(-EINVAL);
    expect(set(parts, EVENTFD | TRIGGER, index, [0, 1], fds(-1))).toBe(0);
    expect(loopBack()).toEqual([-EINVAL, 0]);
    set(parts, EVENTFD | TRIGGER, index, [0, 1], fds(eventfd));
    expect(off(parts, index)).toBe(0);
    expect(off(parts, index)).toBe(-EINVAL);
    parts.end();
  });

  it("GET_IRQ_INFO: MSI-X alone can be changed while it is on, where there is any", () => {
    const parts = rich();
    const flags = (index: number) =>
      parts.user.must(parts.vfio, X.VFIO_DEVICE_GET_IRQ_INFO, X.vfioIrqInfo, { index }).flags;
    expect([INTX, MSI, MSIX, ERR, REQ].map(flags)).toEqual([7, 9, 1, 9, 9]);
    parts.end();
    const edu = bound();
    const info = edu.user.must(edu.vfio, X.VFIO_DEVICE_GET_IRQ_INFO, X.vfioIrqInfo, { index: MSIX });
    expect([info.count, info.flags]).toEqual([0, 9]);
    edu.end();
  });
});
