import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Clock } from "../../../host/base/clock.ts";
import { Trace } from "../../../host/base/trace.ts";
import { happens } from "./happens.ts";

describe("the virtual clock", () => {
  it("fires nothing when time advances, all that is due when told to", () => {
    const clock = new Clock();
    const fired: string[] = [];
    clock.schedule(
      10,
      happens(() => fired.push("a")),
    );
    clock.advance(10);
    expect(fired).toEqual([]);
    expect(clock.fireDue()).toBe(1);
    expect(fired).toEqual(["a"]);
  });

  it("fires events of one instant in the order they were scheduled", () => {
    const clock = new Clock();
    const fired: number[] = [];
    for (let i = 0; i < 20; i++)
      clock.schedule(
        5,
        happens(() => fired.push(i)),
      );
    clock.advance(5);
    clock.fireDue();
    expect(fired).toEqual(Array.from({ length: 20 }, (_, i) => i));
  });

  it("fires, in the same call, what an event schedules for now", () => {
    const clock = new Clock();
    const fired: string[] = [];
    clock.schedule(
      0,
      happens(() =>
        clock.schedule(
          0,
          happens(() => fired.push("inner")),
        ),
      ),
    );
    clock.fireDue();
    expect(fired).toEqual(["inner"]);
  });

  it("does not fire a cancelled event and does not count it as the next deadline", () => {
    const clock = new Clock();
    const id = clock.schedule(
      5,
      happens(() => expect.unreachable()),
    );
    clock.schedule(
      9,
      happens(() => {}),
    );
    clock.cancel(id);
    expect(clock.nextDeadline).toBe(9);
    expect(clock.pending).toBe(1);
    clock.advance(20);
    expect(clock.fireDue()).toBe(1);
  });

  it("counts and fires only what is left of alarms that are set and cancelled over and over, far ahead", () => {
    const clock = new Clock();
    clock.schedule(
      5,
      happens(() => {}),
    );
    for (let i = 0; i < 1000; i++)
      clock.cancel(
        clock.schedule(
          1e12 - i,
          happens(() => expect.unreachable()),
        ),
      );
    expect(clock.pending).toBe(1);
    clock.advance(2e12);
    expect(clock.fireDue()).toBe(1);
  });

  it("fires what is left, in order, whichever events are cancelled", () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(50), fc.boolean()), { maxLength: 60 }), (events) => {
        const clock = new Clock();
        const fired: number[] = [];
        const ids = events.map(([delay], index) =>
          clock.schedule(
            delay,
            happens(() => fired.push(index)),
          ),
        );
        events.forEach(([, cancelled], index) => void (cancelled && clock.cancel(ids[index]!)));
        clock.advance(50);
        clock.fireDue();
        const left = events.map(([delay, cancelled], index) => ({ delay, cancelled, index }));
        const expected = left
          .filter(({ cancelled }) => !cancelled)
          .sort((a, b) => a.delay - b.delay || a.index - b.index);
        expect(fired).toEqual(expected.map(({ index }) => index));
      }),
    );
  });

  it("never comes to an event beyond 2^53 ns, where time would stand still", () => {
    const clock = new Clock();
    clock.schedule(
      2 ** 64 - 1,
      happens(() => expect.unreachable()),
    );
    expect(clock.nextDeadline).toBe(Number.POSITIVE_INFINITY);
    clock.advanceTo(2 ** 60);
    expect(clock.fireDue()).toBe(0);
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
        delays.forEach(
          (delay, index) =>
            void clock.schedule(
              delay,
              happens(() => fired.push([delay, index])),
            ),
        );
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
    clock.schedule(
      1,
      happens(() => causes.push(trace.cause)),
    );
    trace.cause = 0;
    clock.advance(1);
    clock.fireDue();
    expect(causes).toEqual([7]);
    expect(trace.cause).toBe(0);
  });
});
