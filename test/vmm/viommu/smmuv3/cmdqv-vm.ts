// A VM whose vSMMU has command queues of the hardware's, over a whole host: an edu assigned, the guest's driver up.

import { Clock } from "../../../../host/base/clock.ts";
import { Trace, type TracedEvent } from "../../../../host/base/trace.ts";
import { parseHost } from "../../../../host/description.ts";
import { Host } from "../../../../host/host.ts";
import { ComponentMachine } from "../../../../vmm/component-machine.ts";
import { CountingCalls } from "../../../../vmm/counting-calls.ts";
import { MSI_BASE, RAM_BASE, VIOMMU_BASE } from "../../../../vmm/memory-map.ts";
import { GuestRam } from "../../../../vmm/scenario/guest-memory.ts";
import type { Smmuv3Configuration } from "../../../../vmm/viommu/smmuv3/capabilities.ts";
import { GuestSmmu } from "../../../../vmm/viommu/smmuv3/guest/smmu-driver.ts";
import type { Stage1 } from "../../../../vmm/viommu/smmuv3/guest/stage1.ts";
import { SMMUV3 } from "../../../../vmm/viommu/smmuv3/kind.ts";
import type { Smmuv3Viommu } from "../../../../vmm/viommu/smmuv3/viommu.ts";

export const MEMORY = 16 * 2 ** 20;
export const SID = 0x10;
export const OTHER_SID = 0x08;
const [A, B] = ["0000:00:01.0", "0000:00:02.0"];

export interface QueueVmOptions {
  readonly cmdqv?: object | null;
  readonly configuration?: Smmuv3Configuration;
  /** Bring the guest's driver up. */
  readonly driver?: boolean;
}

export function hostDescription(cmdqv: object | null) {
  return parseHost(
    {
      name: "arm with queues",
      iommus: [{ name: "smmu0", kind: "smmuv3", options: cmdqv === null ? {} : { cmdqv } }],
      devices: [
        { model: "edu", bdf: A, iommu: "smmu0", options: { ats: true } },
        { model: "edu", bdf: B, iommu: "smmu0" },
      ],
    },
    "test",
  );
}

export class QueueVm {
  readonly clock: Clock;
  readonly trace: Trace;
  readonly host: Host;
  readonly machine: ComponentMachine;
  readonly calls: CountingCalls;
  readonly reports: string[] = [];
  readonly ram: GuestRam;
  readonly #process: { readonly name: string };
  #driver: GuestSmmu | null = null;

  constructor({ cmdqv = {}, configuration = {}, driver = true }: QueueVmOptions = {}, beside?: QueueVm) {
    this.clock = beside?.clock ?? new Clock();
    this.trace = beside?.trace ?? new Trace(this.clock);
    this.clock.trace = this.trace;
    this.host = beside?.host ?? new Host(hostDescription(cmdqv), { clock: this.clock, trace: this.trace });
    const process = this.host.createProcess();
    this.#process = process;
    this.calls = new CountingCalls(process);
    this.machine = new ComponentMachine({
      clock: this.clock,
      trace: this.trace,
      calls: this.calls,
      memoryBytes: MEMORY,
      kind: SMMUV3,
      configuration,
      report: (line) => this.reports.push(line),
    });
    this.ram = new GuestRam(this.machine.memory, BigInt(RAM_BASE), BigInt(MEMORY));
    this.assign(beside === undefined ? A : B, SID);
    if (driver) this.bringUp();
  }

  assign(hostName: string, routingId: number): void {
    const entry = this.machine.assignment.assign({ ...this.host.assignable(hostName), routingId });
    entry.device.configWrite(4, 2, 6);
  }

  bringUp(): void {
    const { viommu, base } = this.machine.assignment.viommus[0]!;
    this.#driver = new GuestSmmu({
      port: this.machine.machine,
      ram: this.ram,
      base,
      messageAddress: MSI_BASE,
      firstMessage: 64,
      hardwareQueues: viommu.hardwareQueues === true,
    });
  }

  get driver(): GuestSmmu {
    return this.#driver!;
  }

  get viommu(): Smmuv3Viommu {
    return this.machine.assignment.viommus[0]!.viommu as Smmuv3Viommu;
  }

  stage1(tag = 1): Stage1 {
    return SMMUV3.guest.stage1(this.ram, tag);
  }

  /** The device's own DMA: read 1 byte; null where it is refused. */
  read(iova: bigint, routingId = SID): number | null {
    const bytes = new Uint8Array(1);
    const entry = this.machine.assignment.devices.find((each) => each.routingId === routingId)!;
    const dma = this.host.dmaOf(entry.request.hostName);
    const status = dma.read(Number(iova >> 12n), Number(iova & 0xfffn), bytes, 0, 1, -1);
    this.machine.machine.settle();
    return status === 0 ? bytes[0]! : null;
  }

  /** Registers of the CMDQV, by traps. */
  get(offset: number): number {
    return this.machine.machine.load(VIOMMU_BASE + 0x20000 + offset, 4) >>> 0;
  }

  put(offset: number, value: number): void {
    this.machine.machine.store(VIOMMU_BASE + 0x20000 + offset, 4, value >>> 0, 0);
  }

  put64(offset: number, value: bigint): void {
    const [lo, hi] = [Number(value & 0xffffffffn), Number(value >> 32n)];
    this.machine.machine.store(VIOMMU_BASE + 0x20000 + offset, 8, lo, hi);
  }

  /** Lets time pass, as a guest that waits. */
  pass(ns = 10_000): void {
    const until = this.clock.now + ns;
    while (this.clock.nextDeadline <= until) {
      this.clock.advanceTo(this.clock.nextDeadline);
      this.machine.machine.settle();
    }
    this.clock.advanceTo(until);
    this.machine.machine.settle();
  }

  /** Everything that happens in `act`, as the trace has it. */
  during(act: () => void): TracedEvent[] {
    const events: TracedEvent[] = [];
    const sink = { event: (event: TracedEvent) => void events.push(event) };
    this.trace.addSink(sink);
    act();
    this.trace.removeSink(sink);
    return events;
  }

  takeInterrupts(): number[] {
    const taken: number[] = [];
    for (let next = this.machine.interrupts.take(); next >= 0 && !taken.includes(next); ) {
      taken.push(next);
      next = this.machine.interrupts.take();
    }
    return taken;
  }

  /** Ends everything; what the host still holds. */
  end(): number {
    this.machine[Symbol.dispose]();
    this.host.endProcess(this.#process.name);
    return this.host.liveObjects;
  }
}
