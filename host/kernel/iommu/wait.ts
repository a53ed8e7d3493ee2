// The one way in which kernel code waits for hardware: drain that IOMMU's command queue and let virtual time pass. Nothing else
// fires meanwhile, so a wait never re-enters the caller.

import type { Clock } from "../../base/clock.ts";

/** What can be waited for. */
export interface Drainable {
  /** Processes queued commands until idle or stopped. */
  drain(): void;
}

export type WaitingCall = (hardware: Drainable, done: () => boolean, timeoutNs: number) => boolean;

/**
 * Drains `hardware` until `done()` or `timeoutNs` of virtual time have passed (1 µs a try, at most 1,000 tries with growing
 * steps). Returns false on timeout.
 */
export function waitForHardware(clock: Clock, hardware: Drainable, done: () => boolean, timeoutNs: number): boolean {
  // As a rule it is done at once.
  hardware.drain();
  if (done()) return true;
  const deadline = clock.now + timeoutNs;
  let step = 1_000;
  for (;;) {
    if (clock.now >= deadline) return false;
    clock.advance(Math.min(step, deadline - clock.now));
    step = Math.min(step * 2, Math.max(1_000, timeoutNs / 64));
    hardware.drain();
    if (done()) return true;
  }
}
