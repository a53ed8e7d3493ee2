// The guest's driver for an edu device in a scenario: starts DMA commands through the registers of BAR 0, as a guest would, so that
// they run in virtual time, burst by burst (host/devices/README.md has the registers).

import type { MmioPort } from "../../host/base/mmio.ts";
import * as R from "../../host/devices/edu/registers.ts";
import type { Host } from "../../host/host.ts";

export interface EduTransfer {
  readonly iova: bigint;
  /** Bytes, up to 4096. */
  readonly length: number;
  /** "to-ram": the device writes; "from-ram": it reads. */
  readonly direction: "to-ram" | "from-ram";
  /** Offset in the device's own 4 KiB buffer. Default 0. */
  readonly bufferOffset?: number;
  /** An interrupt at the end. */
  readonly interrupt?: boolean;
}

/** What the driver needs of a scenario's device. */
export interface EduDevice {
  readonly vm: { readonly host: Host; settle(): void };
  readonly name: string;
  readonly hostName: string;
}

export class EduDriver {
  readonly #device: EduDevice;
  readonly #registers: MmioPort;
  readonly #features: number;

  /** `features` as registers.ts has them. */
  constructor(device: EduDevice, registers: MmioPort, features: number) {
    this.#device = device;
    this.#registers = registers;
    this.#features = features;
  }

  read32(register: number): number {
    const value = this.#registers.mmioRead(register, 4);
    this.#device.vm.settle();
    return value;
  }

  write32(register: number, value: number): void {
    this.#registers.mmioWrite(register, 4, value >>> 0, 0);
    this.#device.vm.settle();
  }

  write64(register: number, value: bigint): void {
    this.#registers.mmioWrite(register, 8, Number(value & 0xffffffffn), Number((value >> 32n) & 0xffffffffn));
    this.#device.vm.settle();
  }

  /** Starts a transfer; it takes 1 µs of virtual time a 64-byte burst. */
  start(transfer: EduTransfer): void {
    const buffer = BigInt(R.BUFFER + (transfer.bufferOffset ?? 0));
    const toRam = transfer.direction === "to-ram";
    this.write64(R.DMA_SOURCE, toRam ? buffer : transfer.iova);
    this.write64(R.DMA_DESTINATION, toRam ? transfer.iova : buffer);
    this.write64(R.DMA_COUNT, BigInt(transfer.length));
    const interrupt = transfer.interrupt === true ? R.COMMAND_INTERRUPT : 0;
    this.write64(R.DMA_COMMAND, BigInt(R.COMMAND_RUN | (toRam ? R.COMMAND_TO_RAM : 0) | interrupt));
  }

  get running(): boolean {
    return (this.read32(R.DMA_COMMAND) & R.COMMAND_RUN) !== 0;
  }

  /** Bytes the last command moved. */
  get moved(): number {
    return this.read32(R.DMA_MOVED);
  }

  /** How the last command ended, as a name. */
  get outcome():
    | "done"
    | "refused"
    | "out of buffer"
    | "no PASID"
    | "translation refused"
    | "no permission"
    | "page request failed"
    | "reset" {
    const names = [
      "done",
      "refused",
      "out of buffer",
      "no PASID",
      "translation refused",
      "no permission",
      "page request failed",
      "reset",
    ] as const;
    return names[this.read32(R.DMA_OUTCOME)] ?? "refused";
  }

  /** ATS: translate first; with `pageRequests` also ask for pages that are missing (PRI). Throws if the device cannot. */
  translateFirst(options: boolean | { readonly pageRequests?: boolean } = {}): void {
    const pageRequests = typeof options === "boolean" ? options : options.pageRequests === true;
    this.#need(R.FEATURE_ATS, "ATS", "ats: true");
    if (pageRequests) this.#need(R.FEATURE_PRI, "page requests", "ats and pri: true");
    this.write32(R.TRANSLATION_MODE, R.MODE_ATS | (pageRequests ? R.MODE_PRI : 0));
  }

  /** Requests carry this PASID from now on; null: none. Throws if the device has no PASIDs, or none so wide. */
  usePasid(pasid: number | null): void {
    if (pasid === null) {
      if (this.#has(R.FEATURE_PASID)) this.write32(R.PASID, 0);
      return;
    }
    this.#need(R.FEATURE_PASID, "PASIDs", "pasidBits");
    const { pasidBits } = this.#device.vm.host.translationServicesOf(this.#device.hostName);
    if (!Number.isInteger(pasid) || pasid < 0 || pasid >= 2 ** pasidBits) {
      throw new RangeError(
        `device ${this.#device.name}: PASID ${pasid} is none of its own, which are 0 to ${2 ** pasidBits - 1}`,
      );
    }
    this.write32(R.PASID, (R.PASID_VALID | pasid) >>> 0);
  }

  /** Makes the device break the rules (R.MISBEHAVE_… bits). Throws unless the device's host description allows it. */
  misbehave(bits: number): void {
    this.#need(R.FEATURE_MISBEHAVIOUR, "misbehaviour", "misbehaviour: true");
    this.write32(R.MISBEHAVIOUR, bits);
  }

  #has(feature: number): boolean {
    return (this.#features & feature) !== 0;
  }

  #need(feature: number, what: string, option: string): void {
    if (this.#has(feature)) return;
    const { name, hostName } = this.#device;
    throw new Error(
      `guest device ${name} (host ${hostName}) has no ${what}: in the host's description, an edu needs ${option}`,
    );
  }
}
