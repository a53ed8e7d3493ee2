// A RISC-V IOMMU made of the oracle's translation (test/oracle/riscv-iommu) and the few registers a driver needs, so that guest drivers
// are tried against the specification before, and apart from, any IOMMU of ours. Commands are executed when the tail is written.
// Answers are cached per device and page until an IOTINVAL or IODIR covers them, so that a driver which forgets one is caught.

import type { HpaPfn, IovaPfn } from "../../host/base/address.ts";
import { addressOf } from "../../host/base/address.ts";
import type { PhysicalMemory } from "../../host/base/memory.ts";
import { ACCESS_OK } from "../../host/base/memory.ts";
import type { AccessSize, MmioPort } from "../../host/base/mmio.ts";
import type { AtsStatus, AtsTarget, AtsTranslation } from "../../host/devices/ports.ts";
import { ATS_UNSUPPORTED_REQUEST } from "../../host/devices/ports.ts";
import {
  ACCESS_READ,
  type HardwareIommu,
  REFUSED,
  TRANSLATED,
  type TranslationStatus,
} from "../../host/hw/iommu/port.ts";
import { bits, CAPABILITY, type Implementation } from "../oracle/riscv-iommu/implementation.ts";
import type { DirectoryPointer, FaultRecord, TableWrite } from "../oracle/riscv-iommu/outcome.ts";
import type { Loaded, Tables } from "../oracle/riscv-iommu/tables.ts";
import { translate } from "../oracle/riscv-iommu/translate.ts";

const DDTP_MODES: readonly DirectoryPointer["mode"][] = ["off", "bare", "1lvl", "2lvl", "3lvl"];

export interface OracleIommuOptions {
  /** Extended device contexts (§3.1.3). */
  readonly extended?: boolean;
  /** Interrupts by wire (capabilities.IGS = WSI). */
  readonly wired?: boolean;
  /** Drops this command: returns true for those that have no effect. */
  readonly drop?: (word0: bigint) => boolean;
}

export class OracleIommu implements HardwareIommu, MmioPort {
  readonly name = "oracle";
  readonly kind = "riscv";
  readonly registers: MmioPort = this;
  readonly registerBytes = 4096;
  high = 0;
  resultPfn = 0 as HpaPfn;
  readonly atsTranslation: AtsTranslation = {
    ...{ pfn: 0, sizeLog2: 12, read: false, write: false, execute: false },
    ...{ privileged: false, global: false, untranslatedOnly: false },
  };
  findTarget: (deviceId: number) => AtsTarget | undefined = () => undefined;
  onWire: (vector: number, asserted: boolean) => void = () => {};
  readonly records: FaultRecord[] = [];
  readonly #implementation: Implementation;
  readonly #memory: PhysicalMemory<HpaPfn>;
  readonly #options: OracleIommuOptions;
  readonly #words = new Uint32Array(1024);
  /** Key: device, page, access. */
  readonly #cache = new Map<string, HpaPfn>();

  constructor(memory: PhysicalMemory<HpaPfn>, options: OracleIommuOptions = {}) {
    this.#memory = memory;
    this.#options = options;
    const capabilities =
      0x10n |
      (1n << CAPABILITY.Sv39) |
      (options.extended === true ? 1n << CAPABILITY.MSI_FLAT : 0n) |
      (options.wired === true ? 1n << 28n : 0n) |
      (56n << 32n);
    this.#implementation = {
      capabilities,
      ...{ be: false, gxl: false, beWritable: false, gxlWritable: false, rcidWidth: 0, mcidWidth: 0 },
    };
    this.#set64(0, capabilities);
  }

  translate(
    deviceId: number,
    _pasid: number,
    _privileged: boolean,
    access: number,
    pfn: number,
    offset: number,
  ): TranslationStatus {
    const key = `${deviceId} ${pfn} ${access}`;
    const cached = this.#cache.get(key);
    if (cached !== undefined) {
      this.resultPfn = cached;
      return TRANSLATED;
    }
    const ddtp = this.#get64(16);
    const outcome = translate(
      this.#implementation,
      { mode: DDTP_MODES[Number(ddtp & 15n)]!, ppn: bits(ddtp, 53n, 10n) },
      new LiveTables(this.#memory),
      {
        deviceId: BigInt(deviceId),
        processId: null,
        privileged: false,
        type: "untranslated",
        access: access === ACCESS_READ ? "read" : "write",
        noWrite: false,
        executeRequested: false,
        iova: addressOf(pfn as IovaPfn, offset),
      },
      () => 0,
    );
    if (outcome.result.kind === "translated") {
      const address = outcome.result.translation.address >> 12n;
      this.resultPfn = Number(address) as HpaPfn;
      // Without a second stage an address where nothing is, is refused by the bus with an access fault of the IOMMU's (§4.2).
      if (this.#memory.contains(this.resultPfn) || this.#memory.isStoreTarget(this.resultPfn)) {
        this.#cache.set(key, this.resultPfn);
        return TRANSLATED;
      }
      this.#report({
        ...{ cause: access === ACCESS_READ ? 5 : 7, pid: 0n, pv: false, priv: false, did: BigInt(deviceId) },
        ...{ ttyp: access === ACCESS_READ ? 2 : 3, iotval: addressOf(pfn as IovaPfn, offset), iotval2: 0n },
      });
      return REFUSED;
    }
    if (outcome.record !== null) this.#report(outcome.record);
    return REFUSED;
  }

  mmioRead(offset: number, size: AccessSize): number {
    if (size === 8) this.high = this.#words[(offset >> 2) + 1]!;
    return this.#words[offset >> 2]!;
  }

  mmioWrite(offset: number, size: AccessSize, lo: number, hi: number): void {
    if (size === 8) this.#words[(offset >> 2) + 1] = hi;
    switch (offset) {
      case 72: // cqcsr: on as soon as enabled
      case 76: // fqcsr
        this.#words[offset >> 2] = (lo & 3) | ((lo & 1) << 16);
        if ((lo & 1) !== 0) this.#words[offset === 72 ? 8 : 13] = 0;
        break;
      case 84: // ipsr: RW1C
        this.#words[21] = this.#words[21]! & ~lo;
        if ((lo & 2) !== 0 && this.#wired) this.onWire(this.#faultVector, false);
        break;
      case 32: // cqh and fqt: RO
      case 52:
        break;
      default:
        this.#words[offset >> 2] = lo;
    }
    if (offset === 36) this.drain();
  }

  step(): boolean {
    const [head, tail] = [this.#words[8]!, this.#words[9]!];
    if (head === tail || (this.#words[18]! & 0x10000) === 0) return false;
    const base = this.#get64(24);
    this.#memory.load64(Number(bits(base, 53n, 10n)) as HpaPfn, head * 16);
    const word0 = (BigInt(this.#memory.hi) << 32n) | BigInt(this.#memory.lo);
    // Over-invalidation is always legal (§4.1): whatever invalidates, invalidates all.
    const invalidates = (word0 & 127n) === 1n || (word0 & 127n) === 3n;
    if (invalidates && this.#options.drop?.(word0) !== true) this.#cache.clear();
    this.#words[8] = (head + 1) & (2 ** (Number(base & 31n) + 1) - 1);
    return true;
  }

  drain(): void {
    while (this.step());
  }

  get #wired(): boolean {
    return (this.#words[2]! & 2) !== 0;
  }
  get #faultVector(): number {
    return (this.#words[190]! >> 4) & 15;
  }

  /** Writes a fault record (§4.2) and interrupts (§6.18). */
  #report(record: FaultRecord): void {
    this.records.push(record);
    const base = this.#get64(40);
    const size = 2 ** (Number(base & 31n) + 1);
    const tail = this.#words[13]!;
    if ((this.#words[19]! & 0x10000) === 0 || (tail + 1) % size === this.#words[12]!) return;
    const pfn = Number(bits(base, 53n, 10n)) as HpaPfn;
    const word0 = BigInt(record.cause) | (BigInt(record.ttyp) << 34n) | (record.did << 40n);
    [word0, 0n, record.iotval, record.iotval2].forEach((word, i) => {
      this.#memory.store64(pfn, tail * 32 + i * 8, Number(word & 0xffff_ffffn), Number(word >> 32n));
    });
    this.#words[13] = (tail + 1) % size;
    if ((this.#words[21]! & 2) !== 0) return;
    this.#words[21] = this.#words[21]! | 2;
    if (this.#wired) {
      this.onWire(this.#faultVector, true);
    } else {
      const entry = 192 + this.#faultVector * 4;
      const pfnOfMessage = (this.#words[entry + 1]! * 2 ** 20 + (this.#words[entry]! >>> 12)) as HpaPfn;
      this.#memory.store32(pfnOfMessage, this.#words[entry]! & 0xfff, this.#words[entry + 2]!);
    }
  }

  #get64(offset: number): bigint {
    return (BigInt(this.#words[(offset >> 2) + 1]!) << 32n) | BigInt(this.#words[offset >> 2]!);
  }
  #set64(offset: number, value: bigint): void {
    this.#words[offset >> 2] = Number(value & 0xffff_ffffn);
    this.#words[(offset >> 2) + 1] = Number(value >> 32n);
  }

  translateForDevice(): AtsStatus {
    return ATS_UNSUPPORTED_REQUEST;
  }
  pageRequest(): void {}
  stopMarker(): void {}
  invalidationCompleted(): void {}
  reset(): void {}
}

/** The oracle's tables read straight from a machine's memory. No A/D updates: the driver sets both bits. */
class LiveTables implements Tables {
  readonly writes: TableWrite[] = [];
  readonly optional: TableWrite[] = [];
  readonly #memory: PhysicalMemory<HpaPfn>;

  constructor(memory: PhysicalMemory<HpaPfn>) {
    this.#memory = memory;
  }

  load(address: bigint, bytes: number): Loaded {
    const values: bigint[] = [];
    for (let at = 0n; at < BigInt(bytes); at += 8n) {
      const pfn = Number((address + at) >> 12n) as HpaPfn;
      if (this.#memory.load64(pfn, Number((address + at) & 0xfffn)) !== ACCESS_OK)
        return { injected: "access", values: [] };
      values.push((BigInt(this.#memory.hi) << 32n) | BigInt(this.#memory.lo));
    }
    return { injected: null, values };
  }

  update(): "done" | "access" {
    return "access";
  }
  permit(): void {}
}
