// Level interrupts whose eventfds unmask what they tell of, or each other: a signal is an unmask, and the level still stands. User space may wire
// them so (vfio_virqfd_enable takes any eventfd); the interrupts come again and again, and time must go on meanwhile.

import { describe, expect, it } from "vitest";
import * as R from "../../../../host/devices/edu/registers.ts";
import * as X from "../../../../host/uapi/vfio.ts";
import { machine, name } from "../machine.ts";

const PCI = 0x0108;
const OTHER_PCI = 0x0110;
const PLATFORM = "edu0";
const TRIGGER = X.VFIO_IRQ_SET_DATA_EVENTFD | X.VFIO_IRQ_SET_ACTION_TRIGGER;
const MASK = X.VFIO_IRQ_SET_DATA_EVENTFD | X.VFIO_IRQ_SET_ACTION_MASK;
const UNMASK = X.VFIO_IRQ_SET_DATA_EVENTFD | X.VFIO_IRQ_SET_ACTION_UNMASK;
const PASSES_NS = 100_000;
/** More than come in that time, by far. */
const TOO_MANY = 20_000;

function bench() {
  const host = machine({
    devices: [{ rid: PCI }, { rid: OTHER_PCI }],
    platform: [{ name: PLATFORM, deviceId: 0x4711 }],
  });
  host.assign();
  expect(host.kernel.platform.bind(PLATFORM, "vfio-platform")).toBe(0);
  const user = host.user();
  const iommufd = user.iommufd();
  const ioas = user.ioas(iommufd);
  const open = (device: string) => {
    const vfio = user.open(host.vfio.nodeOf(device)!);
    user.bind(vfio, iommufd);
    expect(user.attach(vfio, ioas)).toBeGreaterThan(0);
    if (device !== PLATFORM) user.enableDevice(vfio);
    const region = user.bar0(vfio);
    return {
      set: (what: number, eventfd: number) => expect(user.setIrqs(vfio, what, 0, { fds: [eventfd] })).toBe(0),
      /** The device asserts its interrupt and never takes it back. */
      raise: () => region.mmioWrite(R.INTERRUPT_RAISE, 4, 1, 0),
    };
  };
  // A loop at one instant would never come back; so it ends with a failure.
  let signals = 0;
  host.trace.addSink({
    event: ({ type }) => {
      if (type === "irq" && ++signals > TOO_MANY) throw new Error("time stands still");
    },
  });
  const passes = () => {
    const before = host.clock.now;
    host.run(PASSES_NS);
    expect(host.clock.now - before).toBeGreaterThanOrEqual(PASSES_NS);
    expect(signals).toBeGreaterThan(10);
    user.process.exit();
    expect(host.kernel.liveObjects).toBe(0);
  };
  return { host, open, eventfd: () => user.process.eventfd(), passes };
}

describe("time goes on while an interrupt comes again and again", () => {
  it.each([name(PCI), PLATFORM])("%s: one eventfd is told and unmasks", (device) => {
    const { open, eventfd, passes } = bench();
    const { set, raise } = open(device);
    const both = eventfd();
    set(TRIGGER, both);
    set(UNMASK, both);
    raise();
    passes();
  });

  it("one eventfd is told, masks and unmasks", () => {
    const { open, eventfd, passes } = bench();
    const { set, raise } = open(PLATFORM);
    const all = eventfd();
    set(TRIGGER, all);
    set(MASK, all);
    set(UNMASK, all);
    raise();
    passes();
  });

  it.each([
    [name(PCI), name(OTHER_PCI)],
    [name(PCI), PLATFORM],
  ])("%s and %s: each one's eventfd unmasks the other", (first, second) => {
    const { open, eventfd, passes } = bench();
    const [one, other] = [open(first), open(second)];
    const [told, otherTold] = [eventfd(), eventfd()];
    one.set(TRIGGER, told);
    one.set(UNMASK, otherTold);
    other.set(TRIGGER, otherTold);
    other.set(UNMASK, told);
    one.raise();
    other.raise();
    passes();
  });
});
