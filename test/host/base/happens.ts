// A clock event of a test's own.

import type { ClockEvent } from "../../../host/base/clock.ts";

export function happens(fire: () => unknown): ClockEvent {
  return { owner: "test", name: "happens", fire: () => void fire() };
}
