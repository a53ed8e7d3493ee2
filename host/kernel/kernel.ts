// The kernel of one host: what its parts share (frames, iommu core, live objects, failure points), the device nodes a process can
// open, and the processes.
//
// A part of the kernel makes itself reachable by `addNode` ("/dev/iommu" → a function that makes the open file). Everything the
// kernel hands out is counted; `liveObjects` is 0 when all processes have gone and nothing leaked.

import type { HpaPfn } from "../base/address.ts";
import type { Clock, ClockEvent } from "../base/clock.ts";
import type { PhysicalMemory } from "../base/memory.ts";
import type { Stateful, StateRecord } from "../base/state.ts";
import type { Trace } from "../base/trace.ts";
import type { InterruptFiles } from "../hw/interrupt-files.ts";
import { ENOENT } from "../uapi/errno.ts";
import type { CallContext, OpenFile } from "./file.ts";
import { HostFrames } from "./host-frames.ts";
import { type Injector, NO_INJECTION } from "./inject.ts";
import { InjectionPlan } from "./injection-plan.ts";
import { KernelInterrupts } from "./interrupts.ts";
import { IommuCore } from "./iommu/core.ts";
import { DEFAULT_MSI_WINDOW, IommuHardware, MSI_WINDOW_BYTES } from "./iommu/hardware.ts";
import { DRIVER_KINDS, type DriverKinds } from "./iommu/kinds.ts";
import { LiveObjects } from "./live-objects.ts";
import { ObjectNames } from "./object-names.ts";
import { PCI_STUB, PciBus } from "./pci/pci-bus.ts";
import { PlatformBus } from "./platform/platform-bus.ts";
import { Process, type ProcessOptions } from "./process.ts";

/** Opens a device node: the open file with one reference, or a negated errno. */
export type OpenNode = (call: CallContext, flags: number) => OpenFile | number;

export interface KernelParts {
  readonly memory: PhysicalMemory<HpaPfn>;
  /** A bank of `memory` for the kernel's own use and for processes' plain memory. */
  readonly ram: { readonly base: HpaPfn; readonly pages: number };
  readonly clock: Clock;
  readonly trace: Trace;
  /** IOMMU drivers by kind; default DRIVER_KINDS. */
  readonly drivers?: DriverKinds;
  /** Names of DEVIATIONS (iommu/kinds.ts) to turn on; default none. */
  readonly deviations?: readonly string[];
  /** Doorbells of message-signalled interrupts; null: a machine without. */
  readonly interruptFiles?: InterruptFiles | null;
  /** IOVA at which IOMMU drivers put their software-managed MSI window, a multiple of 4096. Default DEFAULT_MSI_WINDOW. */
  readonly msiWindow?: bigint;
}

export class Kernel implements Stateful {
  readonly memory: PhysicalMemory<HpaPfn>;
  readonly clock: Clock;
  readonly trace: Trace;
  readonly live = new LiveObjects();
  readonly frames: HostFrames;
  readonly iommu: IommuCore;
  readonly iommuHardware: IommuHardware;
  readonly interrupts: KernelInterrupts;
  readonly pci: PciBus;
  readonly platform: PlatformBus;
  /** What is made to fail; may be exchanged at any time. */
  injector: Injector = NO_INJECTION;
  readonly #nodes = new Map<string, OpenNode>(); // not state: follows from the drivers bound
  readonly #kept = new Map<string, Stateful>(); // not state: its parts are
  /** What state documents call its processes and their files. */
  readonly names = new ObjectNames();

  constructor(parts: KernelParts) {
    this.memory = parts.memory;
    this.clock = parts.clock;
    this.trace = parts.trace;
    this.frames = new HostFrames(parts.memory, parts.ram);
    this.iommu = new IommuCore(parts.trace);
    this.interrupts = new KernelInterrupts(parts.interruptFiles ?? null, this.live, (requester, messages) => {
      const device = this.iommu.deviceNamed(requester);
      return device === null ? null : (this.iommu.driverOf(device)?.remapMessages?.(device, messages) ?? null);
    });
    this.iommuHardware = new IommuHardware(
      parts.drivers ?? DRIVER_KINDS,
      {
        frames: this.frames,
        clock: parts.clock,
        trace: parts.trace,
        live: this.live,
        core: this.iommu,
        injector: () => this.injector,
        msiWindow: { start: parts.msiWindow ?? DEFAULT_MSI_WINDOW, length: MSI_WINDOW_BYTES, type: "SW_MSI" },
        deviations: new Set(parts.deviations),
      },
      {
        requestMessage: (name, handle) => this.interrupts.request(name, null, handle, true),
        defer: (event: ClockEvent) => {
          parts.clock.schedule(0, event);
        },
      },
    );
    this.pci = new PciBus(this.iommu, this.iommuHardware);
    this.pci.registerDriver(PCI_STUB);
    this.platform = new PlatformBus(this.iommu, this.iommuHardware);
  }

  get processes(): readonly Process[] {
    return [...this.names.processes];
  }

  /**
   * Objects that somebody still holds: processes, open files, kernel objects, DMA owners, pins, lent buffers. 0 when every process
   * has ended and nothing leaked.
   */
  get liveObjects(): number {
    return this.live.total + this.iommu.ownedGroups + this.frames.pins.total + this.frames.lentBuffers;
  }

  /** The same by kind, for `inspect` and failed tests. */
  get liveKinds(): [string, number][] {
    const more: [string, number][] = [
      ["DMA owner", this.iommu.ownedGroups],
      ["pin", this.frames.pins.total],
      ["lent buffer", this.frames.lentBuffers],
    ];
    return [...this.live.entries(), ...more.filter(([, count]) => count > 0)];
  }

  createProcess(name: string, options: ProcessOptions = {}): Process {
    const process = new Process(
      name,
      {
        frames: this.frames,
        trace: this.trace,
        live: this.live,
        failures: this,
        openPath: (call, path, flags) => this.openPath(call, path, flags),
        exited: (gone) => this.names.processes.delete(gone),
        closedInUse: (file) => this.names.closedInUse(file),
      },
      options,
    );
    this.names.processes.add(process);
    return process;
  }

  /** Opens a node for a process, one of this kernel's or a foreign one: a file with one reference, or a negated errno. */
  openPath(call: CallContext, path: string, flags: number): OpenFile | number {
    return this.#nodes.get(path)?.(call, flags) ?? -ENOENT;
  }

  /** A part of the kernel whose state is the kernel's. */
  keep(name: string, part: Stateful): void {
    this.#kept.set(name, part);
  }

  /** Makes a path openable. */
  addNode(path: string, open: OpenNode): void {
    this.#nodes.set(path, open);
  }

  /** Takes a path away; what is open stays open. */
  removeNode(path: string): void {
    this.#nodes.delete(path);
  }

  /** Paths that can be opened, sorted. */
  get nodes(): readonly string[] {
    return [...this.#nodes.keys()].sort();
  }

  // --- state ---

  /** Nodes follow from which drivers are bound. */
  saveState(): StateRecord {
    return {};
  }

  restoreState(): void {}

  /** In the order of what refers to what: attachments and page requests before the files of processes that wait for them. */
  *stateParts(): Generator<readonly [string, Stateful]> {
    yield ["frames", this.frames];
    yield ["live objects", this.live];
    yield ["iommu drivers", this.iommuHardware];
    yield ["iommu groups", this.iommu];
    yield ["pci", this.pci];
    yield ["platform", this.platform];
    yield* this.#kept;
    if (this.injector instanceof InjectionPlan) yield ["injection", this.injector];
    yield* this.names.stateParts();
  }
}
