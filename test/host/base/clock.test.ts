import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Clock } from "../../../host/base/clock.ts";
import { Trace } from "../../../host/base/trace.ts";

describe("the virtual clock", () => {
  it("fires nothing when time advances, all that is due when told to", () => {
    const clock = new Clock();
    const fired: string[] = [];
    clock.schedule(10, () => fired.push("a"));
    clock.advance(10);
    expect(fired).toEqual([]);
    expect(clock.fireDue()).toBe(1);
    expect(fired).toEqual(["a"]);
  });

  it("fires events of one instant in the order they were scheduled", () => {
    const clock = new Clock();
    const fired: number[] = [];
    for (let i = 0; i < 20; i++) clock.schedule(5, () => fired.push(i));
    clock.advance(5);
    clock.fireDue();
    expect(fired).toEqual(Array.from({ length: 20 }, (_, i) => i));
  });

  it("fires, in the same call, what an event schedules for now", () => {
    const clock = new Clock();
    const fired: string[] = [];
    clock.schedule(0, () => clock.schedule(0, () => fired.push("inner")));
    clock.fireDue();
    expect(fired).toEqual(["inner"]);
  });

  it("does not fire a cancelled event and does not count it as the next deadline", () => {
    const clock = new Clock();
    const id = clock.schedule(5, () => expect.unreachable());
    clock.schedule(9, () => {});
    clock.cancel(id);
    expect(clock.nextDeadline).toBe(9);
    expect(clock.pending).toBe(1);
    clock.advance(20);
    expect(clock.fireDue()).toBe(1);
  });

  it("never moves back", () => {
    const clock = new Clock();
    clock.advanceTo(50);
    clock.advanceTo(20);
    expect(clock.now).toBe(50);
  });

  it("fires any mix of events by time, then by order of scheduling", () => {
    fc.assert(
      fc.property(fc.array(fc.nat(50), { maxLength: 60 }), (delays) => {
        const clock = new Clock();
        const fired: [number, number][] = [];
        delays.forEach((delay, index) => void clock.schedule(delay, () => fired.push([delay, index])));
        clock.advance(50);
        clock.fireDue();
        const expected = delays.map((delay, index) => [delay, index] as [number, number]);
        expected.sort((a, b) => a[0] - b[0] || a[1] - b[1]);
        expect(fired).toEqual(expected);
      }),
    );
  });

  it("gives an event the trace cause it was scheduled under", () => {
    const clock = new Clock();
    const trace = new Trace(clock);
    clock.trace = trace;
    const causes: number[] = [];
    trace.cause = 7;
    clock.schedule(1, () => causes.push(trace.cause));
    trace.cause = 0;
    clock.advance(1);
    clock.fireDue();
    expect(causes).toEqual([7]);
    expect(trace.cause).toBe(0);
  });
});
