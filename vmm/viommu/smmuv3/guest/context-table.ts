// A stream's context descriptors in guest RAM (IHI 0070 §5.3, §5.4), as a scenario's guest builds them: one, a linear table, or two levels with
// leaves of 4 KiB or 64 KiB. A descriptor's last doubleword written is the one with V, so that no half of it is ever valid.

import { CD, CD_BYTES, cdIndex, L1CD } from "../../../../host/arch/smmuv3/context-descriptor.ts";
import type { FirstStage, GuestMemory } from "../../guest-driver.ts";
import type { Stage1 } from "./stage1.ts";

export type DescriptorFields = Readonly<Partial<Record<keyof typeof CD.fields, bigint | number>>>;

/** STE.S1Fmt. */
export const CONTEXT_FORMATS = { linear: 0, "4K": 1, "64K": 2 } as const;
export type ContextFormat = keyof typeof CONTEXT_FORMATS;

/** What Linux writes: AttrIndx 0 not cacheable, 1 write-back, 2 Device-nGnRE, 3 write-back in the outer domain alone. */
const MAIR = 0xf404_ff44n;

export class ContextTable {
  readonly format: ContextFormat;
  /** STE.S1CDMax: log2 of the number of descriptors. */
  readonly cdMax: number;
  readonly root: bigint;
  readonly #ram: GuestMemory;

  constructor(ram: GuestMemory, format: ContextFormat, cdMax: number) {
    this.format = format;
    this.cdMax = cdMax;
    this.#ram = ram;
    const entries = 2 ** cdMax;
    // Aligned to its size (§5.2 S1ContextPtr, §5.3).
    const bytes = format === "linear" ? entries * CD_BYTES : Math.ceil(entries / (this.#leafBytes() / CD_BYTES)) * 8;
    this.root = this.#allocate(Math.max(64, bytes));
  }

  /** Writes a descriptor as it is. */
  write(ssid: number, fields: DescriptorFields): void {
    const at = this.place(ssid);
    const words = new Array<bigint>(8).fill(0n);
    for (const [name, value] of Object.entries(fields)) CD.set(words, name as keyof typeof CD.fields, BigInt(value));
    this.#ram.write64(at, 0n);
    for (let i = 7; i >= 0; i--) this.#ram.write64(at + BigInt(8 * i), words[i]!);
  }

  /** Guest-physical address of a descriptor; makes the leaf table it is in. Throws RangeError for a SubstreamID past the table. */
  place(ssid: number): bigint {
    if (ssid >= 2 ** this.cdMax) throw new RangeError(`SubstreamID ${ssid} is not in a table of 2^${this.cdMax}`);
    const found = this.#find(ssid);
    if (found !== null) return found;
    const words = [0n];
    L1CD.set(words, "V", 1n);
    L1CD.set(words, "L2Ptr", this.#allocate(this.#leafBytes()) >> 12n);
    const { level1 } = cdIndex(ssid, CONTEXT_FORMATS[this.format], this.cdMax);
    this.#ram.write64(this.root + BigInt(level1 * 8), words[0]!);
    return this.#find(ssid)!;
  }

  #find(ssid: number): bigint | null {
    const { level1, leaf } = cdIndex(ssid, CONTEXT_FORMATS[this.format], this.cdMax);
    if (level1 < 0) return this.root + BigInt(leaf * CD_BYTES);
    const entry = this.#ram.read64(this.root + BigInt(level1 * 8));
    return L1CD.get([entry], "V") === 0n ? null : (L1CD.get([entry], "L2Ptr") << 12n) + BigInt(leaf * CD_BYTES);
  }

  #leafBytes(): number {
    return this.format === "64K" ? 65536 : 4096;
  }

  #allocate(bytes: number): bigint {
    const pages = Math.ceil(bytes / 4096);
    return this.#ram.allocate(pages, BigInt(pages * 4096));
  }
}

/**
 * The descriptor of a first stage, as Linux writes it: TTB0 alone, faults recorded and aborted, or stalled. `ips`: IDR5.OAS. Nothing lets requests of one
 * SubstreamID pass untranslated: throws for "bypass".
 */
export function descriptorOf(stage: FirstStage<Stage1>, ips: number, stalls: boolean): DescriptorFields {
  if (stage === "bypass")
    throw new Error("an SMMUv3 has no bypass for a PASID: S1DSS speaks of requests without one alone (IHI 0070 §5.2)");
  if (stage === "blocked") return {};
  return {
    ...{ V: 1, AA64: 1, A: 1, R: 1, S: stalls ? 1 : 0, ASET: 1, ASID: stage.asid },
    ...{ T0SZ: stage.t0sz, TG0: stage.tg0, TTB0: stage.root >> 4n, IPS: ips, EPD1: 1 },
    ...{ IR0: 1, OR0: 1, SH0: 3, MAIR },
  };
}
