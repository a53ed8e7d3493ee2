// A machine of the command line's as the monitor sees it: the VM's parts, and the host under it.

import type { TracedEvent } from "../../host/base/trace.ts";
import { HostDescriptionError } from "../../host/description.ts";
import { InjectionSyntaxError } from "../../host/host.ts";
import type { Assignment } from "../assignment.ts";
import { guestNameOf } from "../assignment-request.ts";
import { type AskedWalk, type Journey, type MonitoredVm, VmRefusal } from "../monitor/monitor.ts";
import { parseRequest, RequestError } from "../monitor/request.ts";
import { formatBdf, UNREACHABLE } from "../pci/host-bridge.ts";
import type { IdRow } from "../view/ids.ts";
import type { Tree, VmParts } from "../view/machine-tree.ts";
import { UsageError } from "./exit-codes.ts";
import { assignmentsOf, type HostRun } from "./host-run.ts";
import { machineTree } from "./machine-tree.ts";

export interface MonitoredParts {
  readonly run: HostRun;
  readonly vm: VmParts;
  /** Where it stands beyond its virtual time. */
  readonly position: () => Readonly<Record<string, unknown>>;
  readonly quit: () => void;
  /** Told what is about to be done to the machine (a request, as JSON): it goes into a recording. */
  readonly changes: (change: string) => void;
  /** Of a replay: it cannot be changed, but stand anywhere (a kernel's). */
  readonly replay?: Journey | null;
}

/** An assigned device as every bus has it. */
interface Assigned {
  readonly guestName: string;
  readonly hostName: string;
  readonly entry:
    | { readonly pci: Assignment["devices"][number] }
    | { readonly platform: Assignment["platform"]["entries"][number] };
}

export class RunningVm implements MonitoredVm {
  readonly #parts: MonitoredParts;

  constructor(parts: MonitoredParts) {
    this.#parts = parts;
  }

  position(): Readonly<Record<string, unknown>> {
    return { virtualNs: Math.round(this.#parts.vm.machine.clock.now), ...this.#parts.position() };
  }

  tree(): Tree {
    return machineTree(this.#parts.run, this.#parts.vm) as Tree;
  }

  ids(): readonly IdRow[] {
    const { host } = this.#parts.run;
    return this.#assigned.map(({ guestName, hostName, entry }) => {
      const [device, viommu, id] =
        "pci" in entry
          ? [entry.pci.device, entry.pci.viommu, entry.pci.routingId]
          : [
              entry.platform.device,
              this.#assignment.viommus[entry.platform.viommu] ?? null,
              entry.platform.request.guestId,
            ];
      return {
        guestBdf: id === UNREACHABLE || "platform" in entry ? guestName : formatBdf(id),
        guestDeviceId: id,
        vdevice: viommu?.host?.vdeviceOf(device.handle) ?? 0,
        viommu: viommu?.host?.viommuId ?? 0,
        hostBdf: hostName,
        group: host.groupOf(hostName)?.id ?? null,
        hostDeviceId: host.deviceIdOf(hostName),
      };
    });
  }

  sheets() {
    return this.#assignment.viommus.map(({ name, iommu, viommu }) => ({
      ...{ viommu: name, host: iommu, sheet: viommu.capabilitySheet },
    }));
  }

  walk(device: string, iova: bigint, pasid: number, write: boolean): AskedWalk {
    const { host } = this.#parts.run;
    const { hostName } = this.#find(device);
    const asked = host.askTranslation(hostName, iova, write, pasid);
    if (asked === null) throw new VmRefusal(`walk: no IOMMU before ${device} can say what its tables hold`);
    const { now, walk, remembered } = asked;
    // The walk was for a DMA that nobody makes.
    const dma: TracedEvent = {
      ...{ seq: walk.length + 1, time: this.#parts.vm.machine.clock.now, cause: 0, type: "dma" },
      ...{ device: hostName, deviceId: host.deviceIdOf(hostName), iova, length: 4, write },
      ...(pasid >= 0 ? { pasid } : {}),
      ...(now === null ? {} : { spa: now }),
      result: now === null ? "aborted" : "ok",
    };
    return { events: [...walk, dma], remembered };
  }

  assign(assignment: string): void {
    this.#change({ command: "device-add", assignment });
    this.#assign(assignment);
  }

  unassign(device: string): void {
    this.#change({ command: "device-remove", device });
    this.#unassign(device);
  }

  inject(rules: readonly string[]): void {
    this.#change({ command: "inject", rule: rules });
    this.#inject(rules);
  }

  quit(): void {
    // A replay may be left at any time.
    if (this.#parts.replay === undefined) this.#parts.changes(JSON.stringify({ command: "quit" }));
    this.#parts.quit();
  }

  get journey(): Journey | null {
    return this.#parts.replay ?? null;
  }

  /** Does what a recording says that a monitor did, with what came of it then. Throws RequestError for what is no change. */
  again(change: string): void {
    const { command, arguments: given } = parseRequest(change);
    try {
      if (command === "device-add") this.#assign(given.assignment as string);
      else if (command === "device-remove") this.#unassign(given.device as string);
      else if (command === "inject") this.#inject((given.rule ?? []) as readonly string[]);
      else if (command === "quit") this.#parts.quit();
      else throw new RequestError(`${command} changes nothing`);
    } catch (error) {
      if (!(error instanceof VmRefusal)) throw error;
    }
  }

  #change(change: object): void {
    if (this.#parts.replay !== undefined) throw new VmRefusal("a replay does what the run did: nobody changes it");
    this.#parts.changes(JSON.stringify(change));
  }

  #assign(assignment: string): void {
    refusing(() => this.#parts.run.assignAll(this.#assignment, assignmentsOf([assignment])));
  }

  #unassign(device: string): void {
    const { entry } = this.#find(device);
    if ("pci" in entry) this.#assignment.unassign(entry.pci);
    else this.#assignment.platform.unassign(entry.platform);
  }

  #inject(rules: readonly string[]): void {
    refusing(() => this.#parts.run.inject(rules));
  }

  get #assignment(): Assignment {
    return this.#parts.vm.assignment;
  }

  get #assigned(): Assigned[] {
    const { devices, platform } = this.#assignment;
    return [
      ...devices.map((entry) => ({
        guestName: guestNameOf(entry.request),
        hostName: entry.request.hostName,
        entry: { pci: entry },
      })),
      ...platform.entries.map((entry) => ({
        guestName: guestNameOf(entry.request),
        hostName: entry.request.hostName,
        entry: { platform: entry },
      })),
    ];
  }

  #find(device: string): Assigned {
    const found = this.#assigned.find(
      ({ guestName, entry }) =>
        guestName === device ||
        `0000:${guestName}` === device ||
        ("pci" in entry && entry.pci.routingId !== UNREACHABLE && formatBdf(entry.pci.routingId) === device),
    );
    if (found !== undefined) return found;
    const names = this.#assigned.map(({ guestName }) => guestName).join(", ") || "none";
    throw new VmRefusal(`the guest has no assigned device ${device} (it has ${names})`);
  }
}

/** What would end a command line is an answer here. */
function refusing<T>(act: () => T): T {
  try {
    return act();
  } catch (error) {
    if (error instanceof UsageError || error instanceof HostDescriptionError || error instanceof InjectionSyntaxError)
      throw new VmRefusal(error.message);
    throw error;
  }
}
