// Eventfds of a foreign process that the kernel holds: what is not told yet is bounded, whether or not the process listens.

import { expect, it } from "vitest";
import { ClientEvents } from "../../../host/adapters/client-events.ts";

it("a process that does not listen to what is given up has no more of its eventfds held at some point; one that listens has", () => {
  const events = new ClientEvents();
  const most = 65536;
  let held = 0;
  for (; held < 2 * most; held++) {
    const slot = events.hold(3, null);
    if (slot < 0) break;
    // The answer of the call has gone out: the duplicate is there.
    events.pending = [];
    events.release(slot);
  }
  expect(held).toBe(most);
  let told = 0;
  events.connect({ send: () => ++told > 0 });
  expect(told).toBe(most);
  expect(events.hold(3, null)).toBe(0);
});
