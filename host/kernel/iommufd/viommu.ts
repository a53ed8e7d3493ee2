// vIOMMU objects (Linux: iommufd/viommu.c): a slice of one physical IOMMU for one guest, over a nest-parent HWPT. The driver's half
// (ViommuBackend) makes nested domains, takes the guest's invalidations, and asks back through ViommuCore: which device has a guest
// id, and where events go.

import type { Stateful, StateReader, StateRecord } from "../../base/state.ts";
import { EFAULT, EINVAL, ENOENT, ENOMEM, EOPNOTSUPP } from "../../uapi/errno.ts";
import { iommuViommuAlloc } from "../../uapi/iommufd.ts";
import type {
  ExportedRegion,
  HwQueueBackend,
  IommuDevice,
  VdeviceBackendView,
  ViommuBackend,
  ViommuCore,
} from "../iommu/driver.ts";
import { driverState } from "../iommu/driver-state.ts";
import { inSavedOrder, refillMap, requireText, textsOf } from "../same-objects.ts";
import type { IommufdCommand } from "./command.ts";
import type { IommufdContext } from "./context.ts";
import type { BoundDevice } from "./device.ts";
import type { HwptPaging } from "./hw-pagetable.ts";
import type { HwQueue } from "./hw-queue.ts";
import { IommufdObject, nameOfObject } from "./object-table.ts";
import { UserDataAt, writeUser } from "./user-copy.ts";
import type { Vdevice } from "./vdevice.ts";
import type { VeventQueue } from "./veventq.ts";

export class Viommu extends IommufdObject implements ViommuCore {
  readonly type = "viommu";
  readonly context: IommufdContext;
  readonly parent: HwptPaging;
  /** The physical IOMMU; devices behind another one are refused. */
  readonly instance: object;
  /** By guest id. An id that is being set up is in `settingUp` and not found by the driver yet. */
  readonly vdevices = new Map<bigint, Vdevice>();
  /** What `findDevice` found by number since `vdevices` changed. */
  readonly #found = new Map<number, IommuDevice>(); // not state: found again
  readonly settingUp = new Set<bigint>(); // not state: within one request
  readonly eventQueues = new Map<number, VeventQueue>(); // not state: objects, which are the same
  readonly hwQueues = new Map<HwQueueBackend, HwQueue>(); // not state: objects, which are the same
  #backend: ViommuBackend | null = null;

  constructor(context: IommufdContext, parent: HwptPaging, instance: object) {
    super();
    this.context = context;
    this.parent = parent;
    this.instance = instance;
    parent.users++;
  }

  get backend(): ViommuBackend {
    return this.#backend!;
  }

  set backend(backend: ViommuBackend) {
    this.#backend = backend;
  }

  override destroy(): void {
    this.#backend?.destroy();
    this.context.regions.remove(this);
    this.parent.users--;
  }

  // --- ViommuCore ---

  /** A vDEVICE came or went. */
  vdevicesChanged(): void {
    this.#found.clear();
  }

  findDevice(virtualId: bigint | number): IommuDevice | null {
    if (typeof virtualId === "bigint") return this.vdevices.get(virtualId)?.device ?? null;
    // A guest's commands name ids as numbers, over and over.
    let device = this.#found.get(virtualId) ?? null;
    if (device === null) {
      device = this.findDevice(BigInt(virtualId));
      if (device !== null) this.#found.set(virtualId, device);
    }
    return device;
  }

  virtualIdOf(device: IommuDevice): bigint | null {
    for (const vdevice of this.vdevices.values()) if (vdevice.device === device) return vdevice.virtualId;
    return null;
  }

  eachVdevice(visit: (vdevice: VdeviceBackendView) => void): void {
    for (const vdevice of this.vdevices.values()) visit(vdevice);
  }

  reportEvent(type: number, data: Uint8Array): number {
    return this.eventQueues.get(type)?.report(data) ?? -EOPNOTSUPP;
  }

  exportRegion(region: ExportedRegion): bigint | number {
    if (this.context.environment.injector.allocation("exported region")) return -ENOMEM;
    return this.context.regions.export(region, this);
  }

  // --- state ---

  override saveState(): StateRecord {
    return {
      ...super.saveState(),
      parent: nameOfObject(this.parent),
      vdevices: [...this.vdevices.values()].map(nameOfObject),
    };
  }

  override restoreState(state: StateReader): void {
    super.restoreState(state);
    requireText(state, "parent", nameOfObject(this.parent));
    const vdevices = inSavedOrder(state, this.vdevices.values(), nameOfObject, textsOf(state, "vdevices"));
    refillMap(
      this.vdevices,
      vdevices.map((vdevice) => [vdevice.virtualId, vdevice] as const),
    );
  }

  override *stateParts(): Generator<readonly [string, Stateful]> {
    yield ["backend", driverState(this.backend, nameOfObject(this))];
  }
}

export function viommuAlloc(command: IommufdCommand): number {
  const request = iommuViommuAlloc.decode(command.bytes);
  const { call, context } = command;
  if (request.flags !== 0 || request.type === 0) return -EOPNOTSUPP;
  const device = command.find<BoundDevice>(request.dev_id, "device");
  if (device === null) return -ENOENT;
  const { driver } = device;
  if (driver.allocViommu === undefined || driver.supportsViommu?.(device.device, request.type) === false)
    return -EOPNOTSUPP;
  const parent = command.find<HwptPaging>(request.hwpt_id, "hwpt-paging");
  if (parent === null) return -ENOENT;
  if (!parent.nestParent) return -EINVAL;
  const viommu = new Viommu(context, parent, driver.instanceOf(device.device));
  const created = command.create(viommu);
  if (created < 0) {
    parent.users--;
    return created;
  }
  const data =
    request.data_len > 0 ? new UserDataAt(call.memory, request.type, request.data_uptr, request.data_len) : null;
  const backend = driver.allocViommu(device.device, request.type, parent.domain, data, viommu);
  if (typeof backend === "number") return backend;
  viommu.backend = backend;
  const { reply } = backend;
  if (reply !== undefined && data !== null) {
    const written = writeUser(call.memory, data.va, reply.subarray(0, Math.min(reply.length, data.length)));
    if (written < 0) return -EFAULT;
  }
  iommuViommuAlloc.patch(command.bytes, { out_viommu_id: viommu.id });
  return command.respond();
}
