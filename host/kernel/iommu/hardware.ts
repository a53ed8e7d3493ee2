// The kernel's IOMMU drivers and the hardware they found: one driver a kind of IOMMU (HardwareIommu.kind; the table is kinds.ts).

import type { Clock, ClockEvent } from "../../base/clock.ts";
import type { Stateful, StateRecord } from "../../base/state.ts";
import type { Trace } from "../../base/trace.ts";
import type { HardwareIommu } from "../../hw/iommu/port.ts";
import { ENODEV } from "../../uapi/errno.ts";
import type { HostFrames } from "../host-frames.ts";
import type { Injector } from "../inject.ts";
import type { LiveObjects } from "../live-objects.ts";
import type { IommuCore } from "./core.ts";
import type { IommuDevice, IommuDriver, ReservedRegion } from "./driver.ts";
import { driverState } from "./driver-state.ts";
import type { DriverKinds } from "./kinds.ts";

/** An interrupt of an IOMMU's own, as a message. */
export interface HardwareInterrupts {
  readonly requestMessage: ((name: string, handle: () => void) => { address: bigint; data: number } | null) | null;
  readonly defer: (event: ClockEvent) => void;
}

/** What the kernel needs of a driver to bring hardware up and to place devices behind it. */
export interface IommuHardwareDriver extends IommuDriver {
  addHardware(parts: { readonly hardware: HardwareIommu } & HardwareInterrupts): object | number;
  place(device: IommuDevice, hardware: HardwareIommu): void;
  limitsOf(hardware: HardwareIommu): { readonly ats: boolean; readonly maxPasids: number };
}

/** What a driver gets of the kernel. */
export interface IommuDriverParts {
  readonly frames: HostFrames;
  readonly clock: Clock;
  readonly trace: Trace;
  readonly live: LiveObjects;
  readonly core: IommuCore;
  readonly injector: () => Injector;
  /** What drivers report as software-managed MSI window. */
  readonly msiWindow: ReservedRegion;
  /** Names of DEVIATIONS (kinds.ts) that are on. */
  readonly deviations: ReadonlySet<string>;
}

/** Where software-managed MSI windows begin unless a host says otherwise, and how long they are (Linux: MSI_IOVA_BASE, MSI_IOVA_LENGTH). */
export const DEFAULT_MSI_WINDOW = 0x0800_0000n;
export const MSI_WINDOW_BYTES = 0x0010_0000n;

export class IommuHardware implements Stateful {
  readonly #kinds: DriverKinds;
  readonly #parts: IommuDriverParts;
  readonly #interrupts: HardwareInterrupts;
  readonly #drivers = new Map<string, IommuHardwareDriver>();
  readonly #byHardware = new Map<HardwareIommu, IommuHardwareDriver>(); // not state: wiring

  constructor(kinds: DriverKinds, parts: IommuDriverParts, interrupts: HardwareInterrupts) {
    this.#kinds = kinds;
    this.#parts = parts;
    this.#interrupts = interrupts;
  }

  /** Probes one IOMMU with the driver of its kind; 0, -ENODEV for a kind without one, or what the driver says. */
  add(hardware: HardwareIommu): number {
    if (!this.knows(hardware.kind)) return -ENODEV;
    const make = this.#kinds[hardware.kind]!;
    const driver = this.#drivers.get(hardware.kind) ?? make(this.#parts);
    this.#drivers.set(hardware.kind, driver);
    const added = driver.addHardware({ hardware, ...this.#interrupts });
    if (typeof added === "number") return added;
    this.#byHardware.set(hardware, driver);
    return 0;
  }

  /** There is a driver for this kind of IOMMU. */
  knows(kind: string): boolean {
    return Object.hasOwn(this.#kinds, kind);
  }

  driverOf(hardware: HardwareIommu): IommuHardwareDriver | null {
    return this.#byHardware.get(hardware) ?? null;
  }

  place(device: IommuDevice, hardware: HardwareIommu): void {
    this.#byHardware.get(hardware)?.place(device, hardware);
  }

  limitsOf(hardware: HardwareIommu): { readonly ats: boolean; readonly maxPasids: number } {
    return this.#byHardware.get(hardware)?.limitsOf(hardware) ?? { ats: false, maxPasids: 0 };
  }

  saveState(): StateRecord {
    return {};
  }

  restoreState(): void {}

  *stateParts(): Generator<readonly [string, Stateful]> {
    for (const [kind, driver] of this.#drivers) yield [`driver ${kind}`, driverState(driver, `driver ${kind}`)];
  }
}
