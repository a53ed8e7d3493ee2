// Hosts for tests of the guest-visible IOMMU: one that records and agrees, and what tests make of it (refusing, odd, silent).

import type {
  DeviceHandle,
  HostEvent,
  HwInfoReply,
  InvalidationReply,
  ViommuHost,
} from "../../../vmm/viommu/host-port.ts";

export interface HostCall {
  readonly call: string;
  readonly device: DeviceHandle;
  readonly data?: Uint8Array;
  readonly pasid?: number;
  readonly pageRequests?: boolean;
}

/** Does as asked and writes down what it was asked. Tests replace single methods to make it hostile. */
export class RecordingHost implements ViommuHost {
  onEvents: (() => void) | null = null;
  readonly calls: HostCall[] = [];
  /** One array of [dword 0, dword 1] pairs a batch. */
  readonly batches: [bigint, bigint][][] = [];
  readonly responses: { cookie: number; code: number }[] = [];
  readonly waiting: HostEvent[] = [];
  /** errno to give for a call by name, e.g. `refuse.setNested = -22`. */
  refuse: Partial<Record<string, number>> = {};
  /** What the next invalidate answers, instead of "all done". */
  nextReply: InvalidationReply | null = null;

  hwInfo(): HwInfoReply | number {
    return -95;
  }
  attach(device: DeviceHandle, guestId: bigint): number {
    return this.#record("attach", device, Uint8Array.of(Number(guestId & 0xffn)));
  }
  detach(device: DeviceHandle): number {
    return this.#record("detach", device);
  }
  setBlocked(device: DeviceHandle, pasid?: number): number {
    return this.#record("setBlocked", device, undefined, pasid);
  }
  setBypass(device: DeviceHandle, pasid?: number): number {
    return this.#record("setBypass", device, undefined, pasid);
  }
  setNested(device: DeviceHandle, data: Uint8Array, pasid?: number, pageRequests?: boolean): number {
    return this.#record("setNested", device, data.slice(), pasid, pageRequests);
  }
  invalidate(batch: Uint8Array, count: number): InvalidationReply {
    const view = new DataView(batch.buffer, batch.byteOffset, batch.byteLength);
    const commands: [bigint, bigint][] = [];
    for (let i = 0; i < count; i++) {
      commands.push([view.getBigUint64(16 * i, true), view.getBigUint64(16 * i + 8, true)]);
    }
    this.batches.push(commands);
    const reply = this.nextReply ?? { done: count, errno: 0 };
    this.nextReply = null;
    return reply;
  }
  respond(cookie: number, code: number): number {
    this.responses.push({ cookie, code });
    return 0;
  }
  events(): readonly HostEvent[] {
    return this.waiting.splice(0);
  }

  /** Hands an event over as the host's kernel would: it waits, and the flag is set. */
  deliver(event: HostEvent): void {
    this.waiting.push(event);
    this.onEvents?.();
  }

  /** Names of the calls made for a device, without attach. */
  done(device: DeviceHandle): string[] {
    return this.calls.filter((call) => call.device === device && call.call !== "attach").map(({ call }) => call);
  }

  #record(call: string, device: DeviceHandle, data?: Uint8Array, pasid?: number, pageRequests?: boolean): number {
    this.calls.push({
      ...{ call, device },
      ...(data === undefined ? {} : { data }),
      ...(pasid === undefined ? {} : { pasid }),
      ...(pageRequests === undefined ? {} : { pageRequests }),
    });
    return this.refuse[call] ?? 0;
  }
}
