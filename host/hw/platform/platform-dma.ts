// The way of a platform device's DMA (../device-dma.ts). Unlike a PCI function it may be stalled by its IOMMU: then the access is outstanding,
// and the device is told how that ends, or, if the IOMMU had no room for one more, when to try again.

import type { StateReader, StateRecord } from "../../base/state.ts";
import { STALL_RETRY, type StallEnd } from "../../base/transaction.ts";
import { DMA_ABORTED, DMA_STALLED, type DmaStatus } from "../../devices/ports.ts";
import { DeviceDma, type DeviceDmaParts } from "../device-dma.ts";
import type { HardwareIommu } from "../iommu/port.ts";

export interface PlatformDmaParts extends DeviceDmaParts {
  /** False: what the IOMMU stalls is taken for refused, as the interconnect cannot hold it. */
  readonly canStall: boolean;
  readonly stallEnded: (tag: number, end: StallEnd) => void;
}

export class PlatformDma extends DeviceDma {
  stallTag = -1; // not state: of the last transfer
  readonly #canStall: boolean;
  readonly #stallEnded: (tag: number, end: StallEnd) => void;
  /** A transfer found no room to wait in the IOMMU. */
  #turnedAway = false;

  constructor(parts: PlatformDmaParts) {
    super(parts);
    this.#canStall = parts.canStall;
    this.#stallEnded = parts.stallEnded;
  }

  protected override get mayMaster(): boolean {
    return this.plugged;
  }

  protected override stalled(iommu: HardwareIommu): DmaStatus {
    if (!this.#canStall) return DMA_ABORTED;
    this.stallTag = iommu.stallTag ?? -1;
    if (this.stallTag < 0) this.#turnedAway = true;
    return DMA_STALLED;
  }

  /** The IOMMU ended a stalled transaction of the device's. */
  ended(tag: number, end: StallEnd): void {
    if (this.plugged) this.#stallEnded(tag, end);
  }

  /** Some transaction behind the IOMMU ended: there is room for one that found none. */
  roomAgain(): void {
    if (!this.#turnedAway) return;
    this.#turnedAway = false;
    this.ended(-1, STALL_RETRY);
  }

  override saveState(): StateRecord {
    return { ...super.saveState(), turnedAway: this.#turnedAway };
  }

  override restoreState(state: StateReader): void {
    super.restoreState(state);
    this.#turnedAway = state.boolean("turnedAway");
  }
}
