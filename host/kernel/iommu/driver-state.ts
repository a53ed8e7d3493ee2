// State of what a driver makes (itself, a domain, its half of a vIOMMU): the contract (driver.ts) does not ask for it, so that a driver without
// hardware, for tests, needs none. A machine with such a driver cannot be saved.

import { StateError, type Stateful } from "../../base/state.ts";

/** Throws StateError, with `what`, for an object that has no state to save. */
export function driverState(object: object, what: string): Stateful {
  if (!isStateful(object)) throw new StateError(`${what}: its driver saves no state`);
  return object;
}

function isStateful(object: object): object is Stateful {
  return "saveState" in object && "restoreState" in object;
}
