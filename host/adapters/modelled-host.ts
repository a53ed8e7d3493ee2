// A whole modelled host for unmodified Linux programs: the nodes of its kernel, its devices for sysfs, its clock on wall time.

import type { Clock } from "../base/clock.ts";
import type { Host, InjectionPlan } from "../host.ts";
import type { OpenFile } from "../kernel/file.ts";
import { callIoctl } from "../kernel/ioctl-call.ts";
import type { PciDevice } from "../kernel/pci/pci-device.ts";
import type { PlatformDevice } from "../kernel/platform/platform-bus.ts";
import { VfioDeviceFile } from "../kernel/vfio/device-file.ts";
import { splitOffset } from "../kernel/vfio/region.ts";
import { ENODEV, ENOENT, ENOTTY } from "../uapi/errno.ts";
import type { ForeignProcess } from "./foreign-process.ts";
import { HostedFrames } from "./hosted-frames.ts";
import type { Outside } from "./outside.ts";
import {
  CONTAINER_NUMBER,
  DEVICE_MAJOR,
  describeLeftOver,
  GROUP_MAJOR,
  type HostSummary,
  IOMMUFD,
  IOMMUFD_NUMBER,
  type ServedDevice,
  type ServedHost,
} from "./served-host.ts";
import { type TimeMode, WallTime } from "./wall-time.ts";

/** Bits of a resource's flags in sysfs (Linux: ioport.h). */
const IORESOURCE_MEM = 0x200n;
const IORESOURCE_PREFETCH = 0x2000n;
const IORESOURCE_MEM_64 = 0x100000n;

export class ModelledHost implements ServedHost {
  readonly frames: HostedFrames;
  readonly #host: Host;
  readonly #time: WallTime;
  readonly #complain: (message: string) => void;
  #heldMs = 0;
  readonly #ioctls = new Map<string, number>();
  /** Requests that were said to be unknown. */
  readonly #unknown = new Set<string>();
  /** Reads and writes of a device's regions. */
  readonly #accesses = new Map<string, number>();

  readonly #plan: InjectionPlan | null;

  /** Every device without a driver is given to VFIO. `plan`: what the host is made to fail. */
  constructor(
    host: Host,
    clock: Clock,
    mode: TimeMode,
    outside: Outside,
    complain: (message: string) => void,
    plan: InjectionPlan | null = null,
  ) {
    this.#host = host;
    this.#plan = plan;
    this.frames = new HostedFrames(host.kernel.frames);
    this.#time = new WallTime(clock, mode, outside);
    this.#complain = complain;
    for (const device of [...host.kernel.pci.devices, ...host.kernel.platform.devices]) {
      if (device.driver === null && device.iommuDevice !== null) host.vfioPath(device.name);
    }
  }

  open(path: string, caller: ForeignProcess, flags: number): OpenFile | number {
    const file = this.#host.kernel.openPath(caller, path, flags);
    if (file === -ENOENT) this.#complain(`${caller.name} opens ${path}, which this host does not have`);
    return file;
  }

  ioctl(caller: ForeignProcess, file: OpenFile, fd: number, request: number, argument: bigint): number {
    const { trace, injector } = this.#host.kernel;
    const known = file.ioctlName(request);
    const name = known ?? `0x${request.toString(16)}`;
    this.#ioctls.set(name, (this.#ioctls.get(name) ?? 0) + 1);
    const result = callIoctl(file, caller, fd, request, argument, trace, injector);
    // A feature that a known request asks for and is not there is what programs probe with.
    if (result === -ENOTTY && known === null && !this.#unknown.has(name)) {
      this.#unknown.add(name);
      this.#complain(`${caller.name} asks ${name} of ${file.path}, which this host does not know (ENOTTY)`);
    }
    return result;
  }

  transfer(
    caller: ForeignProcess,
    file: OpenFile,
    va: bigint,
    length: number,
    position: bigint,
    write: boolean,
  ): number {
    const move = () => (write ? file.write(caller, va, length, position) : file.read(caller, va, length, position));
    if (!(file instanceof VfioDeviceFile)) return move();
    const { name } = file.device;
    this.#accesses.set(name, (this.#accesses.get(name) ?? 0) + 1);
    const { trace } = this.#host.kernel;
    if (!trace.on || length > 8 || position < 0n) return move();
    // What a register write sets off is its consequence, so the access comes first; what a read found is known after it.
    const bytes = new Uint8Array(8);
    const result = write ? 0 : move();
    if (result < 0) return result;
    if (!caller.memory.known(Number(va), bytes.subarray(0, length))) return write ? move() : result;
    const { index, at } = splitOffset(position);
    const previous = trace.enter({
      ...{ type: "mmio", device: name, offset: Number(at), size: length, write },
      value: new DataView(bytes.buffer).getBigUint64(0, true),
      register: `region ${index}`,
    });
    const moved = write ? move() : result;
    trace.leave(previous);
    return moved;
  }

  deviceNumber(path: string): number {
    if (path === IOMMUFD) return IOMMUFD_NUMBER;
    if (path === "/dev/vfio/vfio") return CONTAINER_NUMBER;
    const match = /^\/dev\/vfio\/(devices\/vfio)?(\d+)$/.exec(path);
    return match === null ? -ENODEV : ((match[1] === undefined ? GROUP_MAJOR : DEVICE_MAJOR) << 20) | Number(match[2]);
  }

  entering(process: ForeignProcess | null): void {
    if (process === null) this.#heldMs = this.#time.callEnds();
    else this.#time.callBegins();
  }

  heldMs(): number {
    return this.#heldMs;
  }

  handled(): void {
    this.#time.pump();
  }

  complain(message: string): void {
    this.#complain(message);
  }

  get nodes(): readonly string[] {
    return this.#host.kernel.nodes;
  }

  get devices(): readonly ServedDevice[] {
    const { pci, platform } = this.#host.kernel;
    return [
      ...pci.devices.map((device) => this.#shown(device, pciOf(device))),
      ...platform.devices.map((device) => this.#shown(device, null)),
    ];
  }

  #shown(device: PciDevice | PlatformDevice, pci: ServedDevice["pci"]): ServedDevice {
    const { name } = device;
    const driver = device.driver?.name ?? null;
    const number = driver?.startsWith("vfio-") === true ? /(\d+)$/.exec(this.#host.vfioPath(name))?.[1] : undefined;
    return {
      ...{ name, pci, driver },
      group: this.#host.groupOf(name)?.id ?? null,
      iommu: this.#host.iommuOf(name) || null,
      vfio: number === undefined ? null : Number(number),
    };
  }

  /** What a checker found: lines for the summary, and whether the run has failed for it. */
  findings: () => string[] = () => [];
  failed: () => boolean = () => false;

  summary(): HostSummary {
    const { pci, platform } = this.#host.kernel;
    const devices = [...pci.devices, ...platform.devices].map(({ name, slot }) => {
      return { name, accesses: this.#accesses.get(name) ?? 0, ...slot.dma.counters };
    });
    return {
      ioctls: Object.fromEntries([...this.#ioctls].sort(([, a], [, b]) => b - a)),
      devices: devices.filter(({ accesses, transfers, aborted, messages, faults }) => {
        return accesses + transfers + aborted + messages + faults > 0;
      }),
      findings: this.findings(),
      unusedRules: this.#plan?.unused ?? [],
    };
  }

  get leftOver(): string {
    return describeLeftOver(this.#host.liveKinds, 0);
  }

  close(): void {
    this.#time.close();
    this.#host[Symbol.dispose]();
  }
}

function pciOf(device: PciDevice): ServedDevice["pci"] {
  const config = new Uint8Array(4096);
  const view = new DataView(config.buffer);
  for (let at = 0; at < config.length; at += 4) view.setUint32(at, device.configRead(at, 4), true);
  const bars = device.function.bars.map((bar, index) => {
    if (bar === null) return { base: 0n, bytes: 0n, flags: 0n };
    const prefetchable = bar.prefetchable ? IORESOURCE_PREFETCH : 0n;
    const wide = bar.kind === "memory64" ? IORESOURCE_MEM_64 : 0n;
    return {
      base: BigInt(Math.max(0, device.function.barBase(index))),
      bytes: BigInt(bar.size),
      flags: IORESOURCE_MEM | prefetchable | wide,
    };
  });
  return { config, bars };
}
