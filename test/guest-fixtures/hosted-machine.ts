// A component machine with devices assigned from a modelled host, as `nestbox boot` puts it together, with places to do damage: the
// VMM's system calls pass through `tamper`, and `onLine` is called for each line the guest prints.

import { expect } from "vitest";
import { Clock } from "../../host/base/clock.ts";
import { Trace, type TracedEvent } from "../../host/base/trace.ts";
import { builtInHosts } from "../../host/built-in-hosts.ts";
import type { HostDescription } from "../../host/description.ts";
import { Host } from "../../host/host.ts";
import { ComponentMachine } from "../../vmm/component-machine.ts";
import { CountingCalls } from "../../vmm/counting-calls.ts";
import { ComponentVcpu, type GuestOutcome } from "../../vmm/vcpu/component/component-vcpu.ts";
import type { PreparedComponent } from "../../vmm/vcpu/component/prepare.ts";
import type { ViommuKind } from "../../vmm/viommu/kind.ts";
import { DEFAULT_KIND, VIOMMU_KINDS } from "../../vmm/viommu/kinds.ts";

export interface HostedRun {
  readonly output: string;
  readonly outcome: GuestOutcome;
  readonly events: readonly TracedEvent[];
  readonly virtualNs: number;
}

export interface HostedOptions {
  /** Kind of the guest's IOMMU, on the built-in host that has it. Default: the default kind. */
  readonly kind?: ViommuKind;
  /** Host BDF to guest requester id. The default guest's: crossed over. */
  readonly assign?: readonly (readonly [string, number])[];
  /** Names of platform devices to their ids at the guest's IOMMU. Default none. */
  readonly platform?: readonly (readonly [string, number])[];
  /** Default: the built-in host that has the kind. */
  readonly host?: HostDescription;
  readonly memoryBytes?: number;
  /** Keeps the trace's events. */
  readonly traced?: boolean;
  /** Sees, and may change, an ioctl's structure before the kernel does. */
  readonly tamper?: (request: number, structure: DataView, memory: CountingCalls["memory"]) => void;
  readonly onLine?: (line: string, host: Host) => void;
}

const CROSSED: readonly (readonly [string, number])[] = [
  ["0000:00:01.0", 0x10],
  ["0000:00:02.0", 0x08],
];

class TamperedCalls extends CountingCalls {
  tamper: HostedOptions["tamper"];
  override ioctl(fd: number, request: number, argument: bigint): number {
    // Structures are at most 128 bytes here; VFIO's integers are no addresses.
    if (this.tamper !== undefined && argument >= 4096n) {
      const size = new DataView(this.memory.bytes(argument, 4).slice().buffer).getUint32(0, true);
      const bytes = this.memory.bytes(argument, size);
      this.tamper(request, new DataView(bytes.buffer, bytes.byteOffset, size), this.memory);
    }
    return super.ioctl(fd, request, argument);
  }
}

/** Boots the guest, takes everything down, and expects that nothing is left of it in the host. */
export function bootHosted(image: PreparedComponent, options: HostedOptions = {}): HostedRun {
  const clock = new Clock();
  const trace = new Trace(clock);
  clock.trace = trace;
  const events: TracedEvent[] = [];
  if (options.traced === true) trace.addSink({ event: (event) => void events.push(event) });
  const kind: ViommuKind = options.kind ?? VIOMMU_KINDS[DEFAULT_KIND];
  const host = new Host(options.host ?? builtInHosts.find(({ name }) => name === kind.guest.host)!, { clock, trace });
  const process = host.createProcess();
  const calls = new TamperedCalls(process);
  calls.tamper = options.tamper;
  const memoryBytes = options.memoryBytes ?? 16 * 2 ** 20;
  const machine = new ComponentMachine({ clock, trace, calls, memoryBytes, kind, report: () => {} });
  let output = "";
  machine.machine.onConsole = (bytes) => {
    const text = new TextDecoder().decode(bytes);
    output += text;
    options.onLine?.(text, host);
  };
  for (const [name, guestId] of options.platform ?? []) {
    machine.assignment.platform.assign({ ...host.assignable(name), guestId });
  }
  for (const [name, routingId] of options.assign ?? CROSSED) {
    machine.assignment.assign({ ...host.assignable(name), routingId });
  }
  const { ram: memory, machine: port, platform } = machine;
  const outcome = new ComponentVcpu({ image, memory, port, platform }).run();
  calls.tamper = undefined;
  machine[Symbol.dispose]();
  host.endProcess(process.name);
  expect(host.liveKinds).toEqual([]);
  host[Symbol.dispose]();
  return { output, outcome, events, virtualNs: clock.now };
}
