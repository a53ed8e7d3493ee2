// Kernel memory, or registers of the hardware, that a driver's vIOMMU lets user space map through the iommufd itself (Linux:
// iommufd_ctx::mt_mmap; hardware queue pages). A region must be taken whole and exactly; while mapped its owner counts one more user.

import type { Stateful, StateReader, StateRecord } from "../../base/state.ts";
import { EINVAL, ENXIO, EPERM } from "../../uapi/errno.ts";
import { MAP_SHARED, PROT_EXEC } from "../../uapi/system-calls.ts";
import type { FileMapping, MmapRequest, OpenFile } from "../file.ts";
import type { ExportedRegion } from "../iommu/driver.ts";
import { mapRegisters } from "../mapped-registers.ts";
import { requireSame } from "../same-objects.ts";
import { type IommufdObject, nameOfObject } from "./object-table.ts";

interface Region {
  readonly offset: bigint;
  readonly length: bigint;
  readonly what: ExportedRegion;
  readonly owner: IommufdObject;
}

export class ExportedRegions implements Stateful {
  readonly #regions: Region[] = [];

  /** Gives `what` (whole pages) the lowest free offset, never 0; the offset, or -EINVAL. */
  export(what: ExportedRegion, owner: IommufdObject): bigint | number {
    const bytes = "memory" in what ? what.memory.length : what.registerBytes;
    if (bytes === 0 || bytes % 4096 !== 0) return -EINVAL;
    const length = BigInt(bytes);
    let offset = 4096n;
    for (const region of this.#regions) {
      if (region.offset - offset >= length) break;
      offset = region.offset + region.length;
    }
    this.#regions.push({ offset, length, what, owner });
    this.#regions.sort((a, b) => (a.offset < b.offset ? -1 : 1));
    return offset;
  }

  remove(owner: IommufdObject): void {
    for (let i = this.#regions.length - 1; i >= 0; i--) {
      if (this.#regions[i]!.owner === owner) this.#regions.splice(i, 1);
    }
  }

  map(request: MmapRequest, file: OpenFile): FileMapping | number {
    if (request.length % 4096n !== 0n || (request.flags & MAP_SHARED) === 0) return -EINVAL;
    if ((request.protection & PROT_EXEC) !== 0) return -EPERM;
    const region = this.#regions.find(({ offset, length }) => offset === request.offset && length === request.length);
    if (region === undefined) return -ENXIO;
    region.owner.users++;
    file.get();
    const mapping = mappingOf(region.what);
    return {
      ...mapping,
      close: () => {
        mapping.close();
        region.owner.users--;
        file.put();
      },
    };
  }

  /** Regions must be the same; registers in them are their device's. */
  saveState(): StateRecord {
    return {
      regions: this.#regions.map((region) => ({
        name: regionName(region),
        memory: "memory" in region.what ? region.what.memory.slice() : null,
      })),
    };
  }

  restoreState(state: StateReader): void {
    const saved = state.records("regions");
    const names = saved.map((region) => region.text("name"));
    requireSame(state, this.#regions.map(regionName), names);
    for (const [index, { what }] of this.#regions.entries()) {
      if ("memory" in what) saved[index]!.memory("memory", what.memory);
    }
  }
}

function mappingOf(what: ExportedRegion): FileMapping {
  if ("memory" in what) return { memory: what.memory, close: () => {} };
  return mapRegisters(what.registers, what.registerStart, what.registerBytes, () => true);
}

function regionName({ offset, length, owner }: Region): string {
  return `region of ${length} bytes at 0x${offset.toString(16)} of ${nameOfObject(owner)}`;
}
