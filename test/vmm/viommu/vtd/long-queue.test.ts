// A queue in which each descriptor is of every PASID of a device: no trap of the guest's does all of it, the clock goes on with it, and nothing of it is lost.

import { describe, expect, it } from "vitest";
import { GRANULARITY_GLOBAL, REG } from "../../../../host/arch/vtd/registers.ts";
import { build } from "./guest.ts";

const PASIDS = 1_000;
const PAIRS = 100;
/** Calls of the host's that one run of the queue may make: by far less than the queue asks for, and some more than one descriptor does. */
const MOST_CALLS = 20_000;

/** A device with so many PASIDs, and a queue of global invalidations, each waited for; the doorbell not yet rung. */
function prepared() {
  const unit = build({}, true);
  const driver = unit.bringUp();
  unit.plug(1);
  const whole = unit.stage1(5);
  const pasids = new Map(Array.from({ length: PASIDS }, (_, i) => [i + 1, whole] as const));
  driver.installTranslation(1, { whole, pasids, ats: false, pageRequests: false });
  unit.host.ranges.length = 0;
  const status = unit.ram.allocate();
  for (let pair = 1; pair <= PAIRS; pair++) {
    driver.descriptor("iotlb", { G: GRANULARITY_GLOBAL });
    driver.descriptor("wait", { SW: 1, STDATA: pair, STADDR: status >> 2n });
  }
  const done = () => Number(unit.ram.read64(status) & 0xffff_ffffn);
  return { ...unit, driver, done };
}

describe("a queue of a hundred invalidations of a thousand PASIDs each", () => {
  it("is done a piece at a time, in order, to its end", () => {
    const { clock, host, driver, done } = prepared();
    const ends = driver.read32(REG.IQT);
    driver.ringDoorbell();
    expect(driver.read32(REG.IQT)).not.toBe(ends);
    let before = host.ranges.length;
    expect(before).toBeLessThan(MOST_CALLS);
    let pieces = 1;
    for (; driver.read32(REG.IQH) !== driver.read32(REG.IQT); pieces++) {
      // A wait is done when all before it is.
      expect(host.ranges.length).toBeGreaterThanOrEqual(done() * (PASIDS + 1));
      clock.advanceTo(clock.nextDeadline);
      expect(clock.fireDue()).toBe(1);
      expect(host.ranges.length - before).toBeLessThan(MOST_CALLS);
      before = host.ranges.length;
    }
    expect(pieces).toBeGreaterThan(5);
    expect(done()).toBe(PAIRS);
    expect(host.ranges).toHaveLength(PAIRS * (PASIDS + 1));
    expect(clock.pending).toBe(0);
  });

  it("stops with a reset, and leaves no event behind", () => {
    const { clock, driver, viommu } = prepared();
    driver.ringDoorbell();
    expect(clock.pending).toBe(1);
    viommu.reset();
    expect(clock.pending).toBe(0);
  });
});
