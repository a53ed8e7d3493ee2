// The test kind's hardware: each device has a mode and up to two lists of runs; translations are cached a page each and forgotten only when
// told. A guest's queue, once the kernel has given it a page, is read by the hardware itself.

import type { HpaPfn } from "../../host/base/address.ts";
import { ACCESS_OK } from "../../host/base/memory.ts";
import type { AccessSize, MmioPort } from "../../host/base/mmio.ts";
import {
  ATS_UNSUPPORTED_REQUEST,
  type AtsStatus,
  type AtsTarget,
  type AtsTranslation,
  noTranslation,
} from "../../host/devices/ports.ts";
import {
  ACCESS_READ,
  ACCESS_WRITE,
  type HardwareIommu,
  type IommuParts,
  REFUSED,
  TRANSLATED,
  type TranslationStatus,
} from "../../host/hw/iommu/port.ts";
import {
  ALL,
  HW,
  MODE_BLOCKED,
  MODE_IDENTITY,
  MODE_NESTED,
  PAGE,
  QUEUE_ENTRIES,
  READ,
  RUN_BYTES,
  RUNS,
  WRITE,
} from "./formats.ts";

interface DeviceState {
  mode: number;
  stage1: number;
  stage2: number;
}

interface Refusal {
  readonly device: number;
  readonly write: boolean;
  readonly page: number;
}

export class TrivialHardware implements HardwareIommu {
  readonly name: string;
  readonly kind = "trivial";
  readonly registers: MmioPort;
  readonly registerBytes = 4096;
  /** The page that a guest's queue is driven by. */
  readonly guestPage: MmioPort;
  resultPfn = 0 as HpaPfn;
  readonly atsTranslation: AtsTranslation = noTranslation();
  findTarget: (deviceId: number) => AtsTarget | undefined = () => undefined;
  onWire: (vector: number, asserted: boolean) => void = () => {};
  readonly #parts: IommuParts;
  readonly #devices = new Map<number, DeviceState>();
  readonly #cache = new Map<string, number>();
  readonly #refusals: Refusal[] = [];
  readonly #guestDevices = new Map<number, number>();
  #selected = 0;
  #guestId = 0;
  #queue = 0;
  #head = 0;

  constructor(parts: IommuParts) {
    this.name = parts.name;
    this.#parts = parts;
    this.registers = new Registers(
      (offset) => this.#read(offset),
      (offset, low, high) => this.#write(offset, low, high),
    );
    this.guestPage = new Registers(
      (offset) => (offset === PAGE.HEAD ? this.#head : 0),
      (offset, low) => {
        if (offset === PAGE.TAIL) this.#runQueue(low % QUEUE_ENTRIES);
      },
    );
  }

  translate(deviceId: number, _pasid: number, _privileged: boolean, access: number, pfn: number): TranslationStatus {
    const wanted = ((access & ACCESS_READ) === 0 ? 0 : READ) | ((access & ACCESS_WRITE) === 0 ? 0 : WRITE);
    const key = `${deviceId} ${pfn} ${wanted}`;
    const found = this.#cache.get(key) ?? this.#walk(deviceId, pfn, wanted);
    if (found < 0) {
      if (this.#refusals.length < 64)
        this.#refusals.push({ device: deviceId, write: (wanted & WRITE) !== 0, page: pfn });
      this.onWire(0, true);
      return REFUSED;
    }
    this.#cache.set(key, found);
    this.resultPfn = found as HpaPfn;
    return TRANSLATED;
  }

  translateForDevice(): AtsStatus {
    return ATS_UNSUPPORTED_REQUEST;
  }
  pageRequest(): void {}
  stopMarker(): void {}
  invalidationCompleted(): void {}
  step(): boolean {
    return false;
  }
  drain(): void {}

  reset(): void {
    this.#devices.clear();
    this.#cache.clear();
    this.#refusals.length = 0;
    this.#queue = this.#head = 0;
  }

  #walk(deviceId: number, pfn: number, wanted: number): number {
    const device = this.#devices.get(deviceId);
    if (device === undefined || device.mode === MODE_BLOCKED) return -1;
    if (device.mode === MODE_IDENTITY) return pfn;
    const gpa = device.mode === MODE_NESTED ? this.#look(device.stage1, pfn, wanted, device.stage2) : pfn;
    return gpa < 0 ? -1 : this.#look(device.stage2, gpa, wanted, 0);
  }

  /** Looks a page up in a list; `through`: the list that the list's own page is found by, 0: its page is a host page. */
  #look(list: number, page: number, wanted: number, through: number): number {
    const at = through === 0 ? list : this.#look(through, list, READ, 0);
    if (at < 0) return -1;
    const { memory } = this.#parts;
    for (let i = 0; i < RUNS; i++) {
      const [from, to, pages, permissions] = [0, 8, 16, 24].map((field) => {
        if (memory.load64(at as HpaPfn, i * RUN_BYTES + field) !== ACCESS_OK) return 0;
        return memory.hi * 2 ** 32 + memory.lo;
      }) as [number, number, number, number];
      if (pages === 0) return -1;
      if (page >= from && page < from + pages) return (permissions & wanted) === wanted ? to + (page - from) : -1;
    }
    return -1;
  }

  #forget(deviceId: number): void {
    for (const key of [...this.#cache.keys()]) {
      if (deviceId === ALL || key.startsWith(`${deviceId} `)) this.#cache.delete(key);
    }
  }

  #runQueue(tail: number): void {
    const { memory, trace } = this.#parts;
    while (this.#queue !== 0 && this.#head !== tail) {
      if (memory.load32(this.#queue as HpaPfn, this.#head * 4) !== ACCESS_OK) return;
      const guestId = memory.lo;
      const deviceId = guestId === ALL ? undefined : this.#guestDevices.get(guestId);
      if (trace.on) {
        const words = [BigInt(guestId)];
        trace.emit({
          type: "command",
          where: "host",
          iommu: this.name,
          name: "FORGET",
          words,
          text: `forget ${guestId}`,
        });
      }
      // The guest's ALL means all of its own devices.
      if (deviceId !== undefined) this.#forget(deviceId);
      else if (guestId === ALL) for (const own of this.#guestDevices.values()) this.#forget(own);
      this.#head = (this.#head + 1) % QUEUE_ENTRIES;
    }
  }

  #read(offset: number): number {
    const oldest = this.#refusals[0];
    if (offset === HW.FAULT_DEVICE) return oldest?.device ?? ALL;
    if (offset === HW.FAULT_WRITE) return oldest?.write === true ? 1 : 0;
    return offset === HW.FAULT_PAGE ? (oldest?.page ?? 0) : 0;
  }

  #write(offset: number, low: number, high: number): void {
    const device = this.#devices.get(this.#selected) ?? { mode: MODE_BLOCKED, stage1: 0, stage2: 0 };
    const wide = high * 2 ** 32 + low;
    if (offset === HW.DEVICE) this.#selected = low;
    else if (offset === HW.MODE) this.#devices.set(this.#selected, { ...device, mode: low });
    else if (offset === HW.STAGE1) this.#devices.set(this.#selected, { ...device, stage1: wide });
    else if (offset === HW.STAGE2) this.#devices.set(this.#selected, { ...device, stage2: wide });
    else if (offset === HW.INVALIDATE) this.#forget(low);
    else if (offset === HW.GUEST_ID) this.#guestId = low;
    else if (offset === HW.GUEST_DEVICE) {
      if (low === ALL) this.#guestDevices.delete(this.#guestId);
      else this.#guestDevices.set(this.#guestId, low);
    } else if (offset === HW.QUEUE) {
      this.#queue = wide;
      this.#head = 0;
    } else if (offset === HW.FAULT_DEVICE) {
      this.#refusals.shift();
      if (this.#refusals.length === 0) this.onWire(0, false);
    }
  }
}

/** Registers of 4 or 8 bytes. */
class Registers implements MmioPort {
  high = 0;
  readonly #read: (offset: number) => number;
  readonly #write: (offset: number, low: number, high: number) => void;

  constructor(read: (offset: number) => number, write: (offset: number, low: number, high: number) => void) {
    this.#read = read;
    this.#write = write;
  }

  mmioRead(offset: number, _size: AccessSize): number {
    const value = this.#read(offset);
    this.high = Math.floor(value / 2 ** 32);
    return value >>> 0;
  }

  mmioWrite(offset: number, size: AccessSize, lo: number, hi: number): void {
    this.#write(offset, lo, size === 8 ? hi : 0);
  }
}
