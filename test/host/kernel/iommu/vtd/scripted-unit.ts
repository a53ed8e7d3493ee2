// A remapping unit that translates nothing: registers and an invalidation queue, as the specification has them (VT-d §6.5.2, §11.4), with what a test wants
// to go wrong. What the driver tells it is kept: register writes, and descriptors in the order in which they are fetched.

import type { HpaPfn } from "../../../../../host/base/address.ts";
import type { PhysicalMemory } from "../../../../../host/base/memory.ts";
import type { AccessSize, MmioPort } from "../../../../../host/base/mmio.ts";
import { ATS_UNSUPPORTED_REQUEST, noTranslation } from "../../../../../host/devices/ports.ts";
import { type HardwareIommu, REFUSED } from "../../../../../host/hw/iommu/port.ts";

/** Offsets and bits, written out from §11.4. */
const [CAP, ECAP, GCMD, GSTS, FSTS] = [0x08, 0x10, 0x18, 0x1c, 0x34];
const [IQH, IQT, IQA, IQERCD] = [0x80, 0x88, 0x90, 0xb0];
const QIE = 1 << 26;
const [IQE, ICE, ITE] = [1 << 4, 1 << 5, 1 << 6];
/** SRTP, SFL, WBF and SIRTP act when written and show nothing but that they did. */
const ONE_SHOT = (1 << 30) | (1 << 29) | (1 << 27) | (1 << 24);

export interface Descriptor {
  /** Bits 11:9 and 3:0 of the first quadword. */
  readonly type: number;
  readonly words: readonly [bigint, bigint];
}

export class ScriptedUnit implements HardwareIommu {
  readonly name = "dmar0";
  readonly kind = "vtd";
  readonly registerBytes = 4096;
  readonly registers: MmioPort;
  resultPfn = 0 as HpaPfn;
  readonly atsTranslation = noTranslation();
  findTarget = () => undefined;
  onWire = () => {};
  /** Descriptors since the last `take`, waits left out. */
  #fetched: Descriptor[] = [];
  readonly commands: number[] = [];
  /** Called before each descriptor is executed: "bad" stops the queue with IQE, "silent" with ITE at the next wait. */
  meddle: (descriptor: Descriptor) => "bad" | "silent" | null = () => null;
  /** Source id that IQERCD blames for a time-out. */
  blamed = 0;
  /** A queue that takes nothing. */
  stuck = false;
  readonly #memory: PhysicalMemory<HpaPfn>;
  readonly #values = new Map<number, bigint>();
  #unanswered = false;

  constructor(memory: PhysicalMemory<HpaPfn>, cap: bigint, ecap: bigint) {
    this.#memory = memory;
    this.#values.set(CAP, cap).set(ECAP, ecap);
    const unit = this;
    this.registers = {
      high: 0,
      mmioRead(offset: number, size: AccessSize): number {
        const aligned = offset & ~7;
        const value = unit.#values.get(offset) ?? (unit.#values.get(aligned) ?? 0n) >> BigInt((offset - aligned) * 8);
        this.high = size === 8 ? Number((value >> 32n) & 0xffffffffn) : 0;
        return Number(value & 0xffffffffn);
      },
      mmioWrite(offset: number, size: AccessSize, lo: number, hi: number): void {
        unit.#write(offset, size === 8 ? (BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0) : BigInt(lo >>> 0));
      },
    };
  }

  register(offset: number): bigint {
    return this.#values.get(offset) ?? 0n;
  }

  /** Descriptors since the last call. */
  take(): Descriptor[] {
    return this.#fetched.splice(0);
  }

  #write(offset: number, value: bigint): void {
    if (offset === GCMD) {
      const before = Number(this.register(GSTS));
      this.commands.push(Number(value) ^ (before & ~ONE_SHOT));
      // WBFS reads 1 while flushing, and it is done at once.
      this.#values.set(GSTS, BigInt((Number(value) & ~(1 << 27)) >>> 0) | (BigInt(before) & BigInt(ONE_SHOT)));
      if ((Number(value) & QIE) === 0) this.#values.set(IQH, 0n);
      return;
    }
    if (offset === FSTS) {
      const cleared = this.register(FSTS) & ~(value & BigInt(IQE | ICE | ITE | 1));
      this.#values.set(FSTS, cleared);
      return;
    }
    this.#values.set(offset, value);
  }

  translate(): typeof REFUSED {
    return REFUSED;
  }
  translateForDevice(): typeof ATS_UNSUPPORTED_REQUEST {
    return ATS_UNSUPPORTED_REQUEST;
  }
  pageRequest(): void {}
  stopMarker(): void {}
  invalidationCompleted(): void {}
  reset(): void {}

  step(): boolean {
    const status = Number(this.register(GSTS));
    if (this.stuck || (status & QIE) === 0 || (Number(this.register(FSTS)) & (IQE | ITE)) !== 0) return false;
    const iqa = this.register(IQA);
    const bytes = (iqa & 0x800n) === 0n ? 16 : 32;
    const ring = 4096 << Number(iqa & 7n);
    const head = Number(this.register(IQH));
    if (head === Number(this.register(IQT))) return false;
    const base = (Number(iqa >> 12n) + (head >> 12)) as HpaPfn;
    const words = [0, 8].map((word) => {
      this.#memory.load64(base, (head & 4095) + word);
      return (BigInt(this.#memory.hi) << 32n) | BigInt(this.#memory.lo);
    }) as [bigint, bigint];
    const type = Number((words[0] & 0xfn) | ((words[0] >> 5n) & 0x70n));
    const descriptor: Descriptor = { type, words };
    const trouble = this.meddle(descriptor);
    if (trouble === "bad") {
      this.#values.set(FSTS, this.register(FSTS) | BigInt(IQE));
      this.#values.set(IQERCD, 4n);
      return false;
    }
    if (trouble === "silent") this.#unanswered = true;
    this.#values.set(IQH, BigInt((head + bytes) % ring));
    if (type !== 5) this.#fetched.push(descriptor);
    else if (this.#unanswered) {
      // Waits that were fetched are aborted: their status is never written.
      this.#unanswered = false;
      this.#values.set(IQERCD, BigInt(this.blamed) << 32n);
      this.#values.set(FSTS, this.register(FSTS) | BigInt(ITE));
      return false;
    } else if ((words[0] & 0x20n) !== 0n) {
      const at = words[1] & ~3n;
      this.#memory.store32(Number(at >> 12n) as HpaPfn, Number(at & 4095n), Number(words[0] >> 32n));
    }
    return true;
  }

  drain(): void {
    for (let left = 1024; left > 0 && this.step(); left--);
  }
}
