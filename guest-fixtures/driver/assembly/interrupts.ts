// Collects interrupts until the awaited one comes, and keeps what came meanwhile: a fault and its device's completion may come in
// either order.

import { fail } from "./console";
import { pollInterrupt, waitForInterrupt } from "./machine";

const arrived = new StaticArray<bool>(1024);
const handlers = new Map<u32, (number: u32) => void>();

/**
 * Calls `handler` whenever interrupt `number` is taken, at once: a level-triggered source must be quieted before anything else is
 * waited for, or it comes again and hides the higher numbers.
 */
export function onArrival(number: u32, handler: (number: u32) => void): void {
  handlers.set(number, handler);
}

function note(number: u32): void {
  arrived[number] = true;
  if (handlers.has(number)) handlers.get(number)(number);
}

/** Waits for interrupt `number` and takes it; fails if it can never come. */
export function awaitInterrupt(number: u32, what: string): void {
  while (!arrived[number]) {
    const next = waitForInterrupt();
    if (next < 0) {
      fail(what + ": interrupt " + number.toString() + " never came");
      return;
    }
    note(next);
  }
  arrived[number] = false;
}

/** True if interrupt `number` is there now; takes it. */
export function takeInterrupt(number: u32): bool {
  for (let next = pollInterrupt(); next >= 0; next = pollInterrupt()) {
    note(next);
    if (<u32>next == number) break;
  }
  const there = arrived[number];
  arrived[number] = false;
  return there;
}
