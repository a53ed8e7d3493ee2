// Runs a scenario up to one of its steps (or its end), lets a device access an address there, and gives the walk the hardware made for it.
// The scenario ends with that: what the access changed is of no consequence.

import type { TracedEvent } from "../../host/base/trace.ts";
import { NO_PASID } from "../../host/devices/ports.ts";
import type { ScenarioContext } from "../scenario/context.ts";
import { runScenario } from "../scenario/run-scenario.ts";
import type { Scenario } from "../scenario/scenario.ts";
import type { ScenarioDevice } from "../scenario/vm.ts";
import { collectWalks, type Walk } from "../view/walks.ts";
import { UsageError } from "./exit-codes.ts";
import { findHost } from "./hosts.ts";
import { parseAddress } from "./options.ts";

export interface ProbeOptions {
  /** Of several scenarios the first whose name contains this. */
  readonly filter?: string;
  readonly at?: string;
  readonly host?: string;
  readonly device?: string;
  readonly iova?: string;
  readonly pasid?: number;
  readonly write?: true;
}

export interface ProbeResult {
  readonly walks: readonly Walk[];
  /** What the guest finds in its fault queue for it. */
  readonly records: readonly string[];
}

/** Ends the scenario's body from within. */
class Probed extends Error {}

/** Throws UsageError. Runs in the worker: nothing else limits how long the scenario takes. */
export function probeScenario(file: string, scenario: Scenario, options: ProbeOptions): ProbeResult {
  if (options.device === undefined || options.iova === undefined) {
    throw new UsageError("walk --scenario needs --device (the guest's PCI address) and --iova");
  }
  const iova = parseAddress(options.iova);
  if (options.pasid !== undefined && options.pasid >= 2 ** 20)
    throw new UsageError("--pasid takes a number of 20 bits");
  const events: TracedEvent[] = [];
  const steps: string[] = [];
  let result: ProbeResult | null = null;
  const probe = (context: ScenarioContext): void => {
    const device = findDevice(context, options.device!);
    events.length = 0;
    // What the scenario left in the fault queue is not ours.
    device.vm.takeFaults();
    events.length = 0;
    const pasid = options.pasid ?? NO_PASID;
    if (options.write === true) device.dmaWrite(iova, new Uint8Array(4), pasid);
    else device.dmaRead(iova, 4, pasid);
    const { guest } = device.vm.kind;
    const records = device.vm.takeFaults().map((record) => guest.describeFault(record));
    result = { walks: collectWalks(events), records };
  };
  const outcome = runScenario(scenario, {
    seed: 0,
    defaultHost: findHost(options.host),
    findHost,
    sink: { event: (event) => events.push(event) },
    sweepValue: scenario.options.sweep?.[0],
    onStep: (name, context) => {
      steps.push(name);
      if (options.at !== name && options.at !== String(steps.length)) return;
      probe(context);
      throw new Probed();
    },
    ...(options.at === undefined ? { onEnd: probe } : {}),
  });
  if (result !== null) return result;
  if (outcome.kind === "error" || outcome.kind === "expectation") {
    throw new UsageError(`scenario ${file} ended before: ${outcome.message}`);
  }
  const names = steps.map((name, index) => `${index + 1} "${name}"`).join(", ") || "none";
  throw new UsageError(`--at ${options.at}: scenario ${file} has no such step (it has ${names})`);
}

function findDevice(context: ScenarioContext, bdf: string): ScenarioDevice {
  const devices = context.vms.flatMap((vm) => vm.devices);
  const device = devices.find(({ name }) => name === bdf || `0000:${name}` === bdf);
  if (device !== undefined) return device;
  const names = devices.map(({ name }) => name).join(", ") || "none";
  throw new UsageError(`--device ${bdf}: the scenario has no such device then (it has ${names})`);
}
