// A machine's state as tests take it: through the text of a document, with the clock that its events wait in.

import { createHash } from "node:crypto";
import { type Clock, type ClockEvent, eventKey } from "../../host/base/clock.ts";
import { eachStateful, type Stateful, type StateRecord, saveTree } from "../../host/base/state.ts";
import { decodeState, encodeState } from "../../host/base/state-text.ts";

/** A machine of these parts. Its events are made known to the clock; throws if two have one name. */
export function machineOf(clock: Clock, parts: Readonly<Record<string, Stateful>>): Stateful {
  const machine: Stateful = {
    saveState: () => ({}),
    restoreState: () => {},
    stateParts: () => [...Object.entries(parts), ["clock", clock]],
  };
  const known = new Map<string, ClockEvent>();
  for (const [path, { clockEvents = [] }] of eachStateful(machine)) {
    for (const event of clockEvents) {
      const name = eventKey(event.owner, event.name);
      if (known.has(name)) throw new Error(`${path}: a second event "${name}"`);
      known.set(name, event);
    }
  }
  clock.known = known;
  return machine;
}

/** Memory as a part of a machine. */
export function memoryPart(bytes: Uint8Array): Stateful {
  return {
    saveState: () => ({ bytes: bytes.slice() }),
    restoreState: (state) => state.memory("bytes", bytes),
  };
}

/** The document's digest: states are told apart by it where a comparison of memories would take long. */
export function digest(machine: Stateful): string {
  return createHash("sha256")
    .update(encodeState(saveTree(machine)))
    .digest("hex");
}

export function saved(machine: Stateful): StateRecord {
  return decodeState(encodeState(saveTree(machine)));
}
