// A machine of a few lines for tests of component guests: RAM, a bus that records what the guest did, scripted interrupts.

import type { AccessSize } from "../../../../host/base/mmio.ts";
import { ComponentVcpu, type GuestOutcome, type RunGuard } from "../../../../vmm/vcpu/component/component-vcpu.ts";
import type { ComponentPlatform } from "../../../../vmm/vcpu/component/platform.ts";
import { type PreparedComponent, prepareComponent } from "../../../../vmm/vcpu/component/prepare.ts";
import type { VcpuPort } from "../../../../vmm/vcpu/port.ts";

export interface Access {
  readonly address: number;
  readonly size: AccessSize;
  readonly value?: bigint;
}

export class ScriptedMachine implements VcpuPort {
  high = 0;
  stopping = false;
  output = "";
  readonly memory: WebAssembly.Memory;
  readonly accesses: Access[] = [];
  readonly alarms: { delay: number; number: number }[] = [];
  /** What loads answer, and what `wait` and `poll` give, in order; then -1. */
  answers: bigint[] = [];
  interrupts: number[] = [];
  /** Sets `stopping` once this many accesses were done. */
  stopAfter = Number.POSITIVE_INFINITY;
  /** Called on each access; may throw, as a bug of the VMM would. */
  onAccess: () => void = () => {};

  constructor(mebibytes = 4) {
    const pages = mebibytes * 16;
    this.memory = new WebAssembly.Memory({ initial: pages, maximum: pages });
  }

  load(address: number, size: AccessSize): number {
    this.#count({ address, size });
    const value = this.answers.shift() ?? 0xffff_ffff_ffff_ffffn;
    this.high = Number((value >> 32n) & 0xffff_ffffn);
    return Number(value & (size >= 4 ? 0xffff_ffffn : (1n << BigInt(8 * size)) - 1n));
  }

  store(address: number, size: AccessSize, lo: number, hi: number): void {
    this.#count({ address, size, value: (BigInt(hi) << 32n) | BigInt(lo) });
  }

  #count(access: Access): void {
    this.accesses.push(access);
    this.onAccess();
    if (this.accesses.length >= this.stopAfter) this.stopping = true;
  }

  wait(): number {
    return this.stopping ? -2 : (this.interrupts.shift() ?? -1);
  }

  poll(): number {
    return this.interrupts.shift() ?? -1;
  }

  console(bytes: Uint8Array): void {
    this.output += new TextDecoder().decode(bytes);
  }

  readonly platform: ComponentPlatform = {
    regions: {
      ram: [{ base: 0x8000_0000, size: 4 * 2 ** 20 }],
      "pci-memory64": [{ base: 0x4_0000_0000, size: 0x4_0000_0000 }],
    },
    iommuLine: (index, vector) => (index === 0 ? 8 + vector : -1),
    iommuOf: (requesterId) => (requesterId === 0x10 ? 3 : -1),
    pciLine: (requesterId, pin) => (requesterId === 0x10 ? pin : -1),
    now: () => 12345.5,
    alarm: (delay, number) => void this.alarms.push({ delay, number }),
  };

  boot(image: PreparedComponent, guard?: RunGuard): GuestOutcome {
    const vcpu = new ComponentVcpu({ image, memory: this.memory, port: this, platform: this.platform });
    return guard === undefined ? vcpu.run() : vcpu.run(guard);
  }
}

/** Prepares an image that must be sound. */
export async function soundImage(bytes: Uint8Array): Promise<PreparedComponent> {
  const image = await prepareComponent(bytes);
  if ("error" in image) throw new Error(image.error);
  return image;
}
