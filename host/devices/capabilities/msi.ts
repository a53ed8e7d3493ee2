// MSI with 64-bit addresses and per-vector masking (PCIe 6.0 §7.7.1). A vector raised while masked becomes pending and is sent
// when software unmasks it (§6.1.4.5).

import type { ConfigSpace } from "../config-space.ts";
import { type Capability, touched } from "./capability.ts";
import type { MessageSender } from "./message.ts";

const MESSAGE_CONTROL = 0x02;
const MESSAGE_ADDRESS = 0x04;
const MESSAGE_UPPER_ADDRESS = 0x08;
const MESSAGE_DATA = 0x0c;
const MASK_BITS = 0x10;
const PENDING_BITS = 0x14;

const ENABLE = 1;
const ADDRESS_64_BIT = 1 << 7;
const PER_VECTOR_MASKING = 1 << 8;

export class MsiCapability implements Capability {
  readonly id = 0x05;
  readonly bytes = 0x18;
  readonly #vectorsLog2: number;
  readonly #send: MessageSender;
  // not state, to the blank line: where it was placed.
  #config: ConfigSpace | null = null;
  #at = 0;

  /** `vectors`: a power of two up to 32. */
  constructor(vectors: number, send: MessageSender) {
    this.#vectorsLog2 = Math.log2(vectors);
    if (!Number.isInteger(this.#vectorsLog2) || vectors > 32) throw new RangeError("MSI has 1, 2, 4 … 32 vectors");
    this.#send = send;
  }

  place(config: ConfigSpace, at: number): void {
    this.#config = config;
    this.#at = at;
    const vectors = 2 ** this.#vectorsLog2;
    config.declare(at + MESSAGE_CONTROL, 2, {
      value: ADDRESS_64_BIT | PER_VECTOR_MASKING | (this.#vectorsLog2 << 1),
      writable: ENABLE | 0x70,
    });
    config.declare(at + MESSAGE_ADDRESS, 4, { writable: 0xfffffffc });
    config.declare(at + MESSAGE_UPPER_ADDRESS, 4, { writable: 0xffffffff });
    config.declare(at + MESSAGE_DATA, 2, { writable: 0xffff });
    config.declare(at + MASK_BITS, 4, { writable: vectors === 32 ? 0xffffffff : 2 ** vectors - 1 });
    config.declare(at + PENDING_BITS, 4, {});
  }

  get enabled(): boolean {
    return (this.#config!.get16(this.#at + MESSAGE_CONTROL) & ENABLE) !== 0;
  }

  /** Sends `vector`, or makes it pending. Vectors beyond those that software allocated share them (§6.1.4.2). */
  raise(vector: number): void {
    const config = this.#config!;
    const allocatedLog2 = Math.min((config.get16(this.#at + MESSAGE_CONTROL) >> 4) & 7, this.#vectorsLog2);
    const low = vector & ((1 << allocatedLog2) - 1);
    if (((config.get32(this.#at + MASK_BITS) >>> low) & 1) !== 0) {
      config.set32(this.#at + PENDING_BITS, config.get32(this.#at + PENDING_BITS) | (1 << low));
      return;
    }
    const data = config.get16(this.#at + MESSAGE_DATA) & ~((1 << allocatedLog2) - 1);
    this.#send(config.get32(this.#at + MESSAGE_ADDRESS), config.get32(this.#at + MESSAGE_UPPER_ADDRESS), data | low);
  }

  written(from: number, to: number): void {
    if (!touched(from, to, MASK_BITS, 4) && !touched(from, to, MESSAGE_CONTROL, 2)) return;
    if (!this.enabled) return;
    const config = this.#config!;
    const ready = config.get32(this.#at + PENDING_BITS) & ~config.get32(this.#at + MASK_BITS);
    if (ready === 0) return;
    config.set32(this.#at + PENDING_BITS, config.get32(this.#at + PENDING_BITS) & ~ready);
    for (let vector = 0; vector < 32; vector++) {
      if (((ready >>> vector) & 1) !== 0) this.raise(vector);
    }
  }
}
