// HW_QUEUE objects (Linux: iommufd/viommu.c): a queue in guest memory that the physical IOMMU reads by physical address. Its pages
// are pinned for reading and must be contiguous; while it lives they cannot be unmapped (EBUSY).

import type { StateReader, StateRecord } from "../../base/state.ts";
import { EFAULT, EINVAL, ENOENT, ENOMEM, EOPNOTSUPP, EOVERFLOW, ERANGE } from "../../uapi/errno.ts";
import { iommuHwQueueAlloc } from "../../uapi/iommufd.ts";
import type { HwQueueBackend, HwQueueCore } from "../iommu/driver.ts";
import { requireText } from "../same-objects.ts";
import { type Access, changeIoas, createAccess, destroyAccess, pinPages, unpinPages } from "./access.ts";
import type { IommufdCommand } from "./command.ts";
import { U64_MAX } from "./iova-ranges.ts";
import { IommufdObject, nameOfObject } from "./object-table.ts";
import { PAGE_BYTES } from "./user-pages.ts";
import type { Viommu } from "./viommu.ts";

interface PinnedRange {
  readonly access: Access;
  readonly iova: bigint;
  readonly length: bigint;
  readonly physicalBase: bigint;
}

export class HwQueue extends IommufdObject implements HwQueueCore {
  readonly type = "hw-queue";
  readonly viommu: Viommu;
  pinned: PinnedRange | null = null;
  #backend: HwQueueBackend | null = null; // not state: made with it
  /** The queue it depends on. */
  earlier: HwQueue | null = null;

  constructor(viommu: Viommu) {
    super();
    this.viommu = viommu;
    viommu.users++;
  }

  setBackend(backend: HwQueueBackend): void {
    this.#backend = backend;
    this.viommu.hwQueues.set(backend, this);
  }

  dependOn(earlier: HwQueueBackend): number {
    const queue = this.viommu.hwQueues.get(earlier);
    if (queue === undefined || queue === this || this.earlier !== null) return -EINVAL;
    queue.users++;
    this.earlier = queue;
    return 0;
  }

  override destroy(): void {
    if (this.#backend !== null) {
      this.viommu.hwQueues.delete(this.#backend);
      this.#backend.destroy();
    }
    if (this.earlier !== null) this.earlier.users--;
    if (this.pinned !== null) unpinRange(this.pinned);
    this.viommu.users--;
  }

  override saveState(): StateRecord {
    return { ...super.saveState(), is: this.#what() };
  }

  override restoreState(state: StateReader): void {
    super.restoreState(state);
    requireText(state, "is", this.#what());
  }

  #what(): string {
    const where = this.pinned === null ? "nothing" : `0x${this.pinned.iova.toString(16)}`;
    return `queue of ${nameOfObject(this.viommu)} at ${where}, after ${nameOfObject(this.earlier)}`;
  }
}

function unpinRange({ access, iova, length }: PinnedRange): void {
  unpinPages(access, iova, length);
  destroyAccess(access);
}

function pinRange(viommu: Viommu, base: bigint, length: bigint): PinnedRange | number {
  const iova = (base / PAGE_BYTES) * PAGE_BYTES;
  const offset = base - iova;
  if (offset + length + PAGE_BYTES - 1n > U64_MAX) return -ERANGE;
  const whole = ((offset + length + PAGE_BYTES - 1n) / PAGE_BYTES) * PAGE_BYTES;
  const access = createAccess(viommu.context, null);
  if (typeof access === "number") return access;
  const attached = changeIoas(access, viommu.parent.ioas);
  if (attached < 0) {
    destroyAccess(access);
    return attached;
  }
  const runs = pinPages(access, iova, whole, false);
  if (typeof runs === "number") {
    destroyAccess(access);
    return runs;
  }
  const contiguous = runs.every((run, i) => i === 0 || runs[i - 1]!.frame + runs[i - 1]!.count === run.frame);
  const pinned = { access, iova, length: whole, physicalBase: BigInt(runs[0]!.frame) * PAGE_BYTES + offset };
  if (!contiguous) {
    unpinRange(pinned);
    return -EFAULT;
  }
  return pinned;
}

export function hwQueueAlloc(command: IommufdCommand): number {
  const request = iommuHwQueueAlloc.decode(command.bytes);
  if (request.flags !== 0 || request.type === 0) return -EOPNOTSUPP;
  if (request.length === 0n) return -EINVAL;
  const base = request.nesting_parent_iova;
  if (base + request.length - 1n > U64_MAX) return -EOVERFLOW;
  const viommu = command.find<Viommu>(request.viommu_id, "viommu");
  if (viommu === null) return -ENOENT;
  const { hwQueue: operations } = viommu.backend;
  if (operations === undefined || !operations.supports(request.type)) return -EOPNOTSUPP;
  if (command.context.environment.injector.allocation("page list")) return -ENOMEM;
  const queue = new HwQueue(viommu);
  const created = command.create(queue);
  if (created < 0) {
    queue.destroy();
    return created;
  }
  const pinned = pinRange(viommu, base, request.length);
  if (typeof pinned === "number") return pinned;
  queue.pinned = pinned;
  const backend = operations.init(request.index, base, request.length, pinned.physicalBase, queue);
  if (typeof backend === "number") return backend;
  queue.setBackend(backend);
  iommuHwQueueAlloc.patch(command.bytes, { out_hw_queue_id: queue.id });
  return command.respond();
}
