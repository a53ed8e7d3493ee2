// A platform device of a guest's in a scenario: its registers where the machine has them, its wire, and from its own side DMA, which an IOMMU may
// stall.

import type { DmaPort } from "../../host/devices/ports.ts";
import type { VirtualIommu } from "../assignment.ts";
import type { PlatformDeviceEntry } from "../platform-devices.ts";
import type { DefaultKind, ViommuKindName } from "../viommu/kinds.ts";
import { EduDriver } from "./edu.ts";
import { ScenarioEndpoint } from "./endpoint.ts";
import type { ScenarioVm } from "./vm.ts";

export class ScenarioPlatformDevice<K extends ViommuKindName = DefaultKind> extends ScenarioEndpoint<K> {
  readonly entry: PlatformDeviceEntry;
  readonly viommu: VirtualIommu | null;

  constructor(vm: ScenarioVm<K>, entry: PlatformDeviceEntry, viommu: VirtualIommu | null, dma: DmaPort) {
    super(vm, dma);
    this.entry = entry;
    this.viommu = viommu;
  }

  get guestId(): number {
    return this.entry.request.guestId;
  }

  /** "0x400". */
  get name(): string {
    return this.entry.device.name;
  }

  get hostName(): string {
    return this.entry.request.hostName;
  }

  get canStall(): boolean {
    return this.entry.request.canStall;
  }

  /** Number of its interrupt at the guest's controller. */
  get interrupt(): number {
    return this.vm.machine.platformLine(this.entry.wires[0] ?? -1);
  }

  /** The guest's driver for an edu device. */
  get edu(): EduDriver {
    return new EduDriver(this, this.entry.device.regions[0]!.registers, 0);
  }
}
