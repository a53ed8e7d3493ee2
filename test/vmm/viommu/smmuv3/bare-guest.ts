// The guest's side of an SMMUv3 on the hardware model itself, without host or VMM between: guest-physical memory is the machine's only memory. What
// the driver asks for is then judged by another's reading of the specification.

import type { GpaPfn, HpaPfn } from "../../../../host/base/address.ts";
import { Clock } from "../../../../host/base/clock.ts";
import { PhysicalMemory } from "../../../../host/base/memory.ts";
import { Trace, type TracedEvent } from "../../../../host/base/trace.ts";
import { ACCESS_READ, ACCESS_WRITE, TRANSLATED } from "../../../../host/hw/iommu/port.ts";
import type { Smmuv3Options } from "../../../../host/hw/iommu/smmuv3/options.ts";
import { Smmuv3 } from "../../../../host/hw/iommu/smmuv3/smmu.ts";
import { GuestRam } from "../../../../vmm/scenario/guest-memory.ts";
import type { VcpuPort } from "../../../../vmm/vcpu/port.ts";
import { SMMUV3_GUEST } from "../../../../vmm/viommu/smmuv3/guest/guest-side.ts";
import type { GuestSmmu } from "../../../../vmm/viommu/smmuv3/guest/smmu-driver.ts";

const RAM = 0x8000_0000;
const RAM_BYTES = 32 * 2 ** 20;
const REGISTERS = 0x0301_0000;
const MESSAGES = 0x2800_0000;

export interface Access {
  readonly write?: boolean;
  readonly pasid?: number;
  readonly privileged?: boolean;
}

export class BareGuest {
  readonly clock = new Clock();
  readonly trace = new Trace(this.clock);
  readonly memory = new PhysicalMemory<HpaPfn>();
  readonly smmu: Smmuv3;
  readonly ram: GuestRam;
  readonly driver: GuestSmmu;
  /** Register stores, as [offset, value], in order. */
  readonly stores: [number, bigint][] = [];
  readonly messages: number[] = [];
  readonly wires: number[] = [];

  constructor(options: Smmuv3Options = {}) {
    this.memory.addBank((RAM / 4096) as HpaPfn, new ArrayBuffer(RAM_BYTES));
    this.memory.addStoreTarget((MESSAGES / 4096) as HpaPfn, { store32: (_, value) => void this.messages.push(value) });
    const { memory, clock, trace } = this;
    this.smmu = new Smmuv3({ name: "smmu0", memory, clock, trace }, options);
    this.smmu.onWire = (vector, asserted) => void (asserted && this.wires.push(vector));
    this.ram = new GuestRam(memory as unknown as PhysicalMemory<GpaPfn>, BigInt(RAM), BigInt(RAM_BYTES));
    this.driver = SMMUV3_GUEST.driver({
      ...{ port: this.#port(), ram: this.ram, base: REGISTERS, messageAddress: MESSAGES, firstMessage: 64 },
    });
  }

  /** The hardware works whenever the guest looks. */
  #port(): VcpuPort {
    const { smmu, stores } = this;
    const { registers } = smmu;
    return {
      get high() {
        return registers.high;
      },
      load: (address, size) => {
        smmu.drain();
        return registers.mmioRead(address - REGISTERS, size);
      },
      store: (address, size, lo, hi) => {
        stores.push([address - REGISTERS, (BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0)]);
        registers.mmioWrite(address - REGISTERS, size, lo, hi);
      },
      wait: () => -1,
      poll: () => -1,
      console: () => {},
      stopping: false,
    };
  }

  /** The address that a transaction of a stream goes to; null where it ends. */
  access(
    streamId: number,
    iova: bigint,
    { write = false, pasid = -1, privileged = false }: Access = {},
  ): bigint | null {
    const status = this.smmu.translate(
      ...([streamId, pasid, privileged, write ? ACCESS_WRITE : ACCESS_READ] as const),
      ...([Number(iova >> 12n), Number(iova & 0xfffn), false, 0] as const),
    );
    return status === TRANSLATED ? (BigInt(this.smmu.resultPfn) << 12n) | (iova & 0xfffn) : null;
  }

  /** What the trace tells while `act` runs. */
  during(act: () => void): TracedEvent[] {
    const events: TracedEvent[] = [];
    const sink = { event: (event: TracedEvent) => void events.push(event) };
    this.trace.addSink(sink);
    act();
    this.trace.removeSink(sink);
    return events;
  }
}
