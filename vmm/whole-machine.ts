// A machine with all that it stands on, as one document: the clock and its queue, the trace's count, the host with its kernel, and the VM
// itself. For a kernel machine between two slices, for a component machine at a trap.
//
//   saveWhole(world) ─▶ record ─▶ encodeState (host/base/state-text.ts)        decodeState ─▶ restoreWhole(world, record)
//
// The world that takes a document has been put together the same way: the same description of the host, the same devices assigned to the
// same places. Whatever is outside (files, consoles, sinks of the trace) is not in it.

import { type Clock, type ClockEvent, eventKey } from "../host/base/clock.ts";
import {
  eachStateful,
  type KeepBytes,
  restoreTree,
  type Stateful,
  type StateRecord,
  saveTree,
} from "../host/base/state.ts";
import type { Trace } from "../host/base/trace.ts";

export interface WholeMachine {
  readonly clock: Clock;
  readonly trace: Trace;
  /** null: all devices are emulated. */
  readonly host: Stateful | null;
  /** KernelMachine or ComponentMachine. */
  readonly machine: Stateful;
}

/** `keep`: how large memories are taken. */
export function saveWhole(world: WholeMachine, keep?: KeepBytes): StateRecord {
  return saveTree(rootOf(world), keep);
}

/** In place. Throws StateError for a document of another world; this one is then good for nothing but disposal. */
export function restoreWhole(world: WholeMachine, record: StateRecord): void {
  const root = rootOf(world);
  world.clock.known = eventsOf(root);
  restoreTree(root, record);
}

/** The host before the VM, whose references to it are then names of what is there. */
function rootOf({ clock, trace, host, machine }: WholeMachine): Stateful {
  const parts: (readonly [string, Stateful])[] = [
    ["clock", clock],
    ["trace", trace],
  ];
  if (host !== null) parts.push(["host", host]);
  parts.push(["vm", machine]);
  return { saveState: () => ({}), restoreState: () => {}, stateParts: () => parts };
}

function eventsOf(root: Stateful): Map<string, ClockEvent> {
  const events = new Map<string, ClockEvent>();
  for (const [path, { clockEvents }] of eachStateful(root)) {
    for (const event of clockEvents ?? []) {
      const key = eventKey(event.owner, event.name);
      if (events.has(key)) throw new Error(`${path}: there are two events "${key}"`);
      events.set(key, event);
    }
  }
  return events;
}
