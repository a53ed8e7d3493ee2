// What fuzzers of IOMMU hardware share: operations at the machine's port of an IOMMU (host/hw/iommu/port.ts) in any order, and one seed's run. A kind says
// how its registers and structures are filled, and what its registers promise.

import type { HardwareIommu } from "../../../host/hw/iommu/port.ts";
import type { Random } from "../../oracle/random.ts";

/** Operations of one seed. */
export const OPERATIONS = 400;
/** Memory accesses one operation may make. The longest is draining a command queue that fills all of memory, with a walk each. */
export const MOST_ACCESSES = 2_000_000;

export abstract class HostileHardware {
  readonly random: Random;

  constructor(random: Random) {
    this.random = random;
  }

  protected abstract readonly iommu: HardwareIommu;
  /** Pages of garbage, from frame 0 on. */
  protected abstract readonly pages: number;
  /** Device ids below this are the likely ones. */
  protected abstract readonly devices: number;
  /** Counts memory accesses from zero. */
  protected abstract begin(): void;
  protected abstract writeRegister(): void;
  protected abstract readRegister(): void;
  /** Stores one doubleword of garbage. */
  protected abstract fill(): void;
  protected abstract advance(ns: number): void;
  /** Asks something that the tables are likely to know; false: nothing is known. */
  protected askKnown(): boolean {
    return false;
  }
  /** A broken promise of the registers, or null. */
  abstract brokenPromise(): string | null;

  operate(): void {
    this.begin();
    const { random, iommu } = this;
    const deviceId = random.chance(70) ? random.below(this.devices) : random.word() & 0xff_ffff;
    const pasid = random.pick([-1, -1, 0, 1, random.below(1 << 20)]);
    const pfn = random.pick([random.below(this.pages), random.below(1 << 20), 2 ** 52 - 1, random.word() * 2 ** 20]);
    switch (random.below(16)) {
      case 0:
      case 1:
      case 2:
      case 3:
        this.writeRegister();
        return;
      case 4:
        this.readRegister();
        return;
      case 5:
      case 6:
        this.fill();
        return;
      case 7:
      case 8:
      case 9: {
        if (this.askKnown()) return;
        const access = random.pick([1, 2, 4]);
        const offset = random.below(1024) * 4;
        iommu.translate(deviceId, pasid, random.chance(50), access, pfn, offset, random.chance(30), random.word());
        return;
      }
      case 10:
        iommu.translateForDevice(deviceId, pasid, pfn, random.chance(50), random.chance(50), random.chance(50));
        return;
      case 11:
        if (random.chance(80)) iommu.pageRequest(deviceId, pasid, pfn, random.below(512), random.below(32));
        else iommu.stopMarker(deviceId, Math.max(pasid, 0));
        return;
      case 12:
        iommu.invalidationCompleted(deviceId, random.below(40));
        return;
      case 13:
        for (let count = random.below(8); count > 0; count--) iommu.step();
        return;
      case 14:
        if (random.chance(90)) iommu.drain();
        else iommu.reset();
        return;
      default:
        this.advance(random.below(1 << 20) * 1000);
    }
  }
}

/** Runs one machine; what went wrong, or null. `pause` is called after every operation. */
export function runHostile(
  hardware: HostileHardware,
  operations = OPERATIONS,
  pause: (operation: number) => void = () => {},
): string | null {
  for (let operation = 0; operation < operations; operation++) {
    try {
      hardware.operate();
    } catch (error) {
      return `operation ${operation} threw: ${error instanceof Error ? error.stack : String(error)}`;
    }
    const broken = hardware.brokenPromise();
    if (broken !== null) return `after operation ${operation}: ${broken}`;
    pause(operation);
  }
  return null;
}
