// Kernel test machines as documents of their state.

import type { ClockEvent } from "../../../host/base/clock.ts";
import { eventKey } from "../../../host/base/clock.ts";
import {
  bytesOf,
  eachStateful,
  restoreTree,
  type Stateful,
  type StateReader,
  type StateRecord,
  saveTree,
} from "../../../host/base/state.ts";
import { decodeState, encodeState } from "../../../host/base/state-text.ts";
import type { Machine } from "./machine.ts";

/** Memory that the machine owns. */
class Banks implements Stateful {
  readonly #banks: readonly Uint8Array[];

  constructor(banks: readonly Uint8Array[]) {
    this.#banks = banks;
  }
  saveState(): StateRecord {
    return { banks: this.#banks.map((bank) => bytesOf(bank)) };
  }
  restoreState(state: StateReader): void {
    for (const [index, bytes] of state.list("banks").entries()) this.#banks[index]!.set(bytes as Uint8Array);
  }
}

/** The machine: the kernel, with time, trace, memory and hardware. */
function treeOf(host: Machine): Stateful {
  const banks = new Banks(host.memory.banks.map(({ bytes }) => bytes));
  const parts: [string, Stateful][] = [
    ["clock", host.clock],
    ["trace", host.trace],
    ["memory", banks],
    ["root complex", host.root],
    ["interconnect", host.interconnect],
    ["interrupt files", host.interruptFiles],
    ...host.iommus.map((iommu) => [iommu.name, iommu] as [string, Stateful]),
    ["kernel", host.kernel],
  ];
  return { saveState: () => ({}), restoreState: () => {}, stateParts: () => parts };
}

/** The document of a machine's state. */
export function saveMachine(host: Machine): string {
  return encodeState(saveTree(treeOf(host)));
}

/** Puts a machine into the state of a document; throws StateError for one of another set of objects. */
export function restoreMachine(host: Machine, text: string): void {
  const root = treeOf(host);
  const known = new Map<string, ClockEvent>();
  for (const [, { clockEvents }] of eachStateful(root)) {
    for (const event of clockEvents ?? []) known.set(eventKey(event.owner, event.name), event);
  }
  host.clock.known = known;
  restoreTree(root, decodeState(text));
}
