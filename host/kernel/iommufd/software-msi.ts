// Doorbell pages of message-signalled interrupts inside device address spaces (Linux: iommufd/driver.c, iommufd_sw_msi). A device
// whose IOMMU reports a SW_MSI window sends its messages through its own domain; iommufd gives each physical doorbell page an IOVA
// in that window, the same in every domain of the context, and maps it into the parent domain of whatever the device is attached to.

import type { Stateful, StateReader, StateRecord } from "../../base/state.ts";
import { ENOMEM, EOVERFLOW } from "../../uapi/errno.ts";
import type { Injector } from "../inject.ts";
import { IOMMU_MMIO, IOMMU_READ, IOMMU_WRITE } from "../iommu/driver.ts";
import { refillList } from "../same-objects.ts";
import type { DeviceGroup } from "./device-group.ts";
import type { HwptPaging } from "./hw-pagetable.ts";

const PAGE = 4096n;
/** One bit each in a fixed bitmap of 64 (struct iommufd_sw_msi_maps). */
const MAX_MAPS = 64;

export interface MsiMap {
  readonly id: number;
  readonly windowStart: bigint;
  readonly doorbell: bigint;
  readonly iova: bigint;
}

export class SoftwareMsi implements Stateful {
  readonly #maps: MsiMap[] = [];

  /** The map of an id. */
  map(id: number): MsiMap | undefined {
    return this.#maps[id];
  }

  /** The map of a doorbell page, made if new. */
  #mapOf(doorbell: bigint, windowStart: bigint, injector: Injector): MsiMap | number {
    const same = this.#maps.filter((map) => map.windowStart === windowStart);
    const known = same.find((map) => map.doorbell === doorbell);
    if (known !== undefined) return known;
    if (this.#maps.length >= MAX_MAPS) return -EOVERFLOW;
    if (injector.allocation("msi map")) return -ENOMEM;
    const map = {
      id: this.#maps.length,
      windowStart,
      doorbell,
      iova: windowStart + BigInt(same.length) * PAGE,
    };
    this.#maps.push(map);
    return map;
  }

  /** The IOVA at which a device of the group writes to `doorbell`; a negated errno if it cannot be mapped. */
  prepare(group: DeviceGroup, paging: HwptPaging, doorbell: bigint, injector: Injector): bigint | number {
    if (group.msiWindow === null) return doorbell;
    const map = this.#mapOf((doorbell / PAGE) * PAGE, group.msiWindow, injector);
    if (typeof map === "number") return map;
    const result = install(map, paging);
    if (result < 0) return result;
    group.requiredMsi.add(map.id);
    return map.iova + (doorbell % PAGE);
  }

  /** Maps all that a group's devices have been using into a domain that they are about to be attached to. */
  setUp(group: DeviceGroup, paging: HwptPaging): number {
    for (const map of this.#maps) {
      if (map.windowStart !== group.msiWindow || !group.requiredMsi.has(map.id)) continue;
      const result = install(map, paging);
      if (result < 0) return result;
    }
    return 0;
  }

  saveState(): StateRecord {
    return { maps: this.#maps.map(({ windowStart, doorbell, iova }) => ({ windowStart, doorbell, iova })) };
  }

  restoreState(state: StateReader): void {
    const maps = state.records("maps").map((saved, id) => ({
      id,
      windowStart: saved.bigint("windowStart"),
      doorbell: saved.bigint("doorbell"),
      iova: saved.bigint("iova"),
    }));
    refillList(this.#maps, maps);
  }
}

function install(map: MsiMap, paging: HwptPaging): number {
  if (paging.installedMsi.has(map.id)) return 0;
  const result = paging.domain.map(map.iova, map.doorbell, PAGE, IOMMU_READ | IOMMU_WRITE | IOMMU_MMIO);
  if (result === 0) paging.installedMsi.add(map.id);
  return result;
}
