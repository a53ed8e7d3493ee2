// The host side of a run from the command line: makes the host, a process for the VMM, assigns devices, and counts.

import { BlockFileError } from "../../host/adapters/block-file.ts";
import { type HostDescription, HostDescriptionError } from "../../host/description.ts";
import { Host, type InjectionPlan, InjectionSyntaxError } from "../../host/host.ts";
import type { Assignment } from "../assignment.ts";
import { guestNameOf } from "../assignment-request.ts";
import {
  ASSIGNMENT_FORM,
  formatGuestPlace,
  misplaced,
  parseAssignment,
  type WrittenAssignment,
} from "../assignment-text.ts";
import { CountingCalls } from "../counting-calls.ts";
import { formatBdf, formatPlace, UNREACHABLE } from "../pci/host-bridge.ts";
import type { RunCounters } from "../summary.ts";
import { HostRefusal } from "../vfio/guest-address-space.ts";
import { VIOMMU_KINDS } from "../viommu/kinds.ts";
import { UsageError } from "./exit-codes.ts";
import { findHost } from "./hosts.ts";
import type { RunShell } from "./run-shell.ts";
import { LiveSource, type RunSource } from "./run-source.ts";
import { hostOf, type ViommuChoice, viommuOf } from "./viommu-choice.ts";

export interface HostRunOptions {
  /** A name, a file, or the description itself. Left out: one that has the kind of the guest-visible IOMMU. */
  readonly host?: string | HostDescription;
  readonly viommu?: ViommuChoice;
  readonly assign: readonly string[];
  readonly allowSharedGroup?: true;
  /** What the host is made to fail, by the rules of --inject. */
  readonly inject?: readonly string[];
  readonly seed?: number;
}

/** The default guest's: ids crossed over, so that a mix-up of guest and host ids fails. */
export const DEFAULT_ASSIGNMENTS = ["0000:00:01.0@00:02.0", "0000:00:02.0@00:01.0"];

export interface RequestedAssignment extends WrittenAssignment {
  readonly text: string;
}

/** "HOST@GUEST[/NAME]" each; errors name the text. */
export function assignmentsOf(texts: readonly string[]): RequestedAssignment[] {
  return texts.map((text) => {
    const written = parseAssignment(text);
    if (written === undefined) throw new UsageError(`--assign ${text}: ${ASSIGNMENT_FORM}`);
    return { text, ...written };
  });
}

export class HostRun {
  readonly host: Host;
  readonly calls: CountingCalls;
  readonly #shell: RunShell;
  readonly #description: HostDescription;
  readonly #viommu: ViommuChoice | undefined;
  readonly #seed: number | undefined;
  #plan: InjectionPlan | null = null;
  readonly #process: { readonly name: string };
  /** A run that ends otherwise than by `close` (an error, the wall limit) leaves no lock beside a drive's file. */
  readonly #closeFiles = (): void => this.host.closeFiles();
  /** What was counted in VMs that have ended (reboots). */
  readonly #earlier = { commands: {} as Record<string, number>, faults: 0, nestedDomains: 0, bypassDomains: 0 };

  /** `extend` may add devices to the host's description (drives of --nvme). */
  constructor(
    shell: RunShell,
    options: HostRunOptions,
    extend: (host: HostDescription) => HostDescription = (host) => host,
    source: Pick<RunSource, "openBlockFile" | "calls"> = new LiveSource(),
  ) {
    this.#shell = shell;
    const named = options.host ?? hostOf(options.viommu);
    const description = extend(typeof named === "object" ? named : findHost(named));
    this.#description = description;
    this.#viommu = options.viommu;
    try {
      this.host = new Host(description, {
        clock: shell.clock,
        trace: shell.trace,
        openBlockFile: (path, blockBytes) =>
          source.openBlockFile(path, blockBytes, (problem) => shell.message(problem)),
      });
      process.on("exit", this.#closeFiles);
      this.#seed = options.seed;
      if (options.inject !== undefined && options.inject.length > 0) this.inject(options.inject);
    } catch (error) {
      if (error instanceof InjectionSyntaxError) throw new UsageError(`--inject: ${error.message}`);
      if (error instanceof HostDescriptionError || error instanceof BlockFileError) throw new UsageError(error.message);
      throw error;
    }
    for (const problem of this.host.problems) shell.message(problem);
    const vmm = this.host.createProcess();
    this.#process = vmm;
    this.calls = new CountingCalls(source.calls(vmm));
  }

  /** Makes the host fail by these rules from now on. Throws as Host.inject. */
  inject(rules: readonly string[]): void {
    this.#plan = this.host.inject(rules, this.#seed);
  }

  /**
   * Assigns devices; a refusal or an unknown device is the user's error. Platform devices go first: whether transactions may stall is what a
   * vIOMMU says from its start.
   */
  assignAll(assignment: Assignment, requested: readonly RequestedAssignment[]): void {
    const first = requested.filter(({ place }) => "guestId" in place);
    const rest = requested.filter(({ place }) => !("guestId" in place));
    for (const { text, hostName, place, viommu } of [...first, ...rest]) {
      if (viommu !== undefined && !assignment.hasViommus) {
        throw new UsageError(`--assign ${text}: with --viommu none there is no vIOMMU "${viommu}"`);
      }
      const name = this.host.find(hostName);
      if (name === null) {
        const known = this.host.deviceNames.join(", ");
        throw new UsageError(`--assign ${text}: the host has no device ${hostName} (it has ${known})`);
      }
      this.#checkKind(text, name);
      const named = viommu === undefined ? {} : { viommu };
      const assignable = this.host.assignable(name);
      const wrong = misplaced(name, assignable.bus, place);
      if (wrong !== null) throw new UsageError(`--assign ${text}: ${wrong}`);
      const known = [...assignment.devices, ...assignment.platform.entries].map(({ request }) => request);
      if (known.some((request) => request.hostName === name)) {
        throw new UsageError(`--assign ${text}: ${name} is assigned already`);
      }
      const guest = formatGuestPlace(place);
      if (known.some((request) => guestNameOf(request) === guest)) {
        throw new UsageError(`--assign ${text}: guest ${guest} is taken by another device`);
      }
      try {
        if ("guestId" in place) assignment.platform.assign({ ...assignable, ...place, ...named });
        else assignment.assign({ ...assignable, ...place, ...named });
      } catch (error) {
        if (error instanceof HostRefusal) throw new UsageError(`--assign ${text}: ${error.message}`);
        throw error;
      }
    }
  }

  /** A guest's stage 1 is nested over its own kind: the hardware walks its tables. Kinds without nesting have any host. */
  #checkKind(text: string, hostName: string): void {
    const choice = this.#viommu;
    if (choice === undefined || choice === "none") return;
    const { nesting, guest } = viommuOf(choice).kind;
    const { name, iommus, devices } = this.#description;
    const behind = devices.find(({ bdf }) => bdf === hostName)?.iommu;
    const found = iommus.find((iommu) => iommu.name === behind)?.kind;
    if (nesting.shape === "mapped" || found === undefined || found === choice) return;
    const other = Object.hasOwn(VIOMMU_KINDS, found) ? `, or take --viommu ${found}` : "";
    throw new UsageError(
      `--assign ${text}: host ${name} has a ${found} IOMMU before ${hostName}, and a guest's ${choice} needs one of its own kind: ` +
        `run on --host ${guest.host}${other}`,
    );
  }

  counters(assignment: Assignment): RunCounters {
    const commands = { ...this.#earlier.commands };
    let { faults, nestedDomains, bypassDomains } = this.#earlier;
    for (const { viommu } of assignment.viommus) {
      const { activity } = viommu;
      for (const [name, count] of Object.entries(activity.commands)) commands[name] = (commands[name] ?? 0) + count;
      faults += activity.faults;
      nestedDomains += activity.nested;
      bypassDomains += activity.bypass;
    }
    return {
      commands,
      ioctls: this.calls.counts,
      ids: [
        ...assignment.devices.map((entry) => ({
          guestBdf: entry.routingId === UNREACHABLE ? formatPlace(entry.request) : formatBdf(entry.routingId),
          guestDeviceId: entry.routingId,
          hostBdf: entry.request.hostName,
          hostDeviceId: this.host.deviceIdOf(entry.request.hostName),
          viommu: entry.viommu?.name ?? null,
        })),
        ...assignment.platform.entries.map(({ device, request, viommu }) => ({
          guestBdf: device.name,
          guestDeviceId: request.guestId,
          hostBdf: request.hostName,
          hostDeviceId: this.host.deviceIdOf(request.hostName),
          viommu: assignment.viommus[viommu]?.name ?? null,
        })),
      ],
      nestedDomains,
      bypassDomains,
      dma: this.host.dmaCounters,
      faults,
    };
  }

  /** Disposes of a VM that another will follow on this host; what it counted stays counted. */
  retire(assignment: Assignment): void {
    const { commands, faults, nestedDomains, bypassDomains } = this.counters(assignment);
    Object.assign(this.#earlier, { commands, faults, nestedDomains, bypassDomains });
    assignment[Symbol.dispose]();
  }

  /** Nobody will look at this host again: it goes as it is. */
  abandon(): void {
    this.#closeFiles();
    process.off("exit", this.#closeFiles);
  }

  /** Disposes of the VM and its process; throws if the host then still holds something (a bug of ours). */
  close(machine: { [Symbol.dispose](): void }): void {
    for (const rule of this.#plan?.unused ?? []) this.#shell.message(`--inject ${rule}: there was no occasion for it`);
    machine[Symbol.dispose]();
    this.host.endProcess(this.#process.name);
    if (this.host.liveObjects > 0) {
      const kinds = this.host.liveKinds.map(([kind, count]) => `${count} ${kind}`).join(", ");
      throw new Error(`the host still holds ${kinds} after the VM has ended`);
    }
    process.off("exit", this.#closeFiles);
    this.host[Symbol.dispose]();
  }
}
