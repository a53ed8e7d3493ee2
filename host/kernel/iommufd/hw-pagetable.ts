// HWPT objects: an IOMMU domain with an id (Linux: iommufd/hw_pagetable.c). A paging HWPT belongs to an IOAS and carries its
// mappings; a nested one is user space's own stage 1 over a paging parent, made directly on the parent or on a vIOMMU.

import type { Stateful, StateReader, StateRecord } from "../../base/state.ts";
import { EINVAL, ENOENT, ENOMEM, EOPNOTSUPP } from "../../uapi/errno.ts";
import {
  IOMMU_HWPT_ALLOC_DIRTY_TRACKING,
  IOMMU_HWPT_ALLOC_NEST_PARENT,
  IOMMU_HWPT_ALLOC_PASID,
  IOMMU_HWPT_DATA_NONE,
  IOMMU_HWPT_FAULT_ID_VALID,
  iommuHwptAlloc,
  iommuHwptInvalidate,
} from "../../uapi/iommufd.ts";
import type { IommuDomain, NestedDomain, PagingDomain, UserData } from "../iommu/driver.ts";
import { driverState } from "../iommu/driver-state.ts";
import { numbersOf, refillSet, requireText } from "../same-objects.ts";
import type { IommufdCommand } from "./command.ts";
import type { IommufdContext } from "./context.ts";
import type { BoundDevice } from "./device.ts";
import type { FaultQueue } from "./fault-queue.ts";
import { Ioas } from "./ioas.ts";
import { IommufdObject, nameOfObject } from "./object-table.ts";
import { addressAt, MAX_ENTRY_LENGTH, UserBatch, UserDataAt } from "./user-copy.ts";
import { Viommu } from "./viommu.ts";

abstract class HwptBase extends IommufdObject {
  /** Where page requests that come through the domain go; a reference. */
  fault: FaultQueue | null = null;
  /** Allocated with ALLOC_PASID: may be used together with PASIDs. */
  readonly pasidCompatible: boolean;

  constructor(flags: number) {
    super();
    this.pasidCompatible = (flags & IOMMU_HWPT_ALLOC_PASID) !== 0;
  }

  abstract readonly domain: IommuDomain;
  /** The paging HWPT behind: itself, or a nested one's parent. */
  abstract readonly paging: HwptPaging;

  protected freeDomain(): void {
    this.domain.free();
    if (this.fault !== null) this.fault.users--;
  }

  override saveState(): StateRecord {
    return { ...super.saveState(), of: this.of, fault: nameOfObject(this.fault) };
  }

  override restoreState(state: StateReader): void {
    super.restoreState(state);
    requireText(state, "of", this.of);
    requireText(state, "fault", nameOfObject(this.fault));
  }

  override *stateParts(): Generator<readonly [string, Stateful]> {
    yield ["domain", driverState(this.domain, nameOfObject(this))];
  }

  /** Name of what it was allocated on. */
  protected abstract readonly of: string;
}

export class HwptPaging extends HwptBase {
  readonly type = "hwpt-paging";
  readonly domain: PagingDomain;
  readonly ioas: Ioas;
  readonly nestParent: boolean;
  /** Made by attaching a device to the IOAS itself; goes with its last device. */
  automatic = false;
  /** Doorbell pages mapped into the domain. */
  readonly installedMsi = new Set<number>();

  constructor(ioas: Ioas, domain: PagingDomain, flags: number) {
    super(flags);
    this.ioas = ioas;
    this.domain = domain;
    this.nestParent = (flags & IOMMU_HWPT_ALLOC_NEST_PARENT) !== 0;
    ioas.users++;
  }

  get paging(): HwptPaging {
    return this;
  }

  /** Fills the domain with the IOAS's mappings and joins its list. */
  join(): number {
    const result = this.ioas.table.addDomain(this.domain);
    if (result === 0) this.ioas.hwpts.push(this);
    return result;
  }

  override destroy(): void {
    const index = this.ioas.hwpts.indexOf(this);
    if (index >= 0) {
      this.ioas.hwpts.splice(index, 1);
      this.ioas.table.removeDomain(this.domain);
    }
    this.freeDomain();
    this.ioas.users--;
  }

  protected get of(): string {
    return nameOfObject(this.ioas);
  }

  override saveState(): StateRecord {
    return { ...super.saveState(), automatic: this.automatic, installedMsi: [...this.installedMsi] };
  }

  override restoreState(state: StateReader): void {
    super.restoreState(state);
    this.automatic = state.boolean("automatic");
    refillSet(this.installedMsi, numbersOf(state, "installedMsi"));
  }
}

export class HwptNested extends HwptBase {
  readonly type = "hwpt-nested";
  readonly domain: NestedDomain;
  readonly paging: HwptPaging;
  readonly viommu: Viommu | null;

  /** Refers to the vIOMMU if there is one (which refers to the parent), else to the parent. */
  constructor(parent: HwptPaging, viommu: Viommu | null, domain: NestedDomain, flags: number) {
    super(flags);
    this.domain = domain;
    this.paging = parent;
    this.viommu = viommu;
    (viommu ?? parent).users++;
  }

  override destroy(): void {
    this.freeDomain();
    (this.viommu ?? this.paging).users--;
  }

  protected get of(): string {
    return nameOfObject(this.viommu ?? this.paging);
  }
}

export type HwPagetable = HwptPaging | HwptNested;

const PAGING_FLAGS =
  IOMMU_HWPT_ALLOC_NEST_PARENT | IOMMU_HWPT_ALLOC_DIRTY_TRACKING | IOMMU_HWPT_FAULT_ID_VALID | IOMMU_HWPT_ALLOC_PASID;

/** Makes a paging HWPT of an IOAS for a device: its id is reserved, its domain filled. A negated errno leaves nothing. */
export function allocatePaging(
  context: IommufdContext,
  ioas: Ioas,
  device: BoundDevice,
  flags: number,
  data: UserData | null,
): HwptPaging | number {
  if ((flags & ~PAGING_FLAGS) !== 0) return -EOPNOTSUPP;
  if ((flags & IOMMU_HWPT_ALLOC_DIRTY_TRACKING) !== 0 && !device.driver.capable(device.device, "DIRTY_TRACKING"))
    return -EOPNOTSUPP;
  if ((flags & IOMMU_HWPT_FAULT_ID_VALID) !== 0 && (flags & IOMMU_HWPT_ALLOC_NEST_PARENT) !== 0) return -EOPNOTSUPP;
  const { injector } = context.environment;
  if (injector.allocation("hwpt-paging") || injector.allocation("domain")) return -ENOMEM;
  const domain = device.driver.allocPaging(device.device, flags & ~IOMMU_HWPT_FAULT_ID_VALID, data);
  if (typeof domain === "number") return domain;
  const hwpt = new HwptPaging(ioas, domain, flags);
  context.objects.reserve(hwpt);
  // A device that can enforce coherency gets a domain that does; its driver would be at fault if it did not.
  const joined = device.enforcesCoherency && !domain.enforcesCoherency ? -EINVAL : hwpt.join();
  if (joined < 0) {
    context.objects.abortAndDestroy(hwpt);
    return joined;
  }
  return hwpt;
}

const NESTED_FLAGS = IOMMU_HWPT_FAULT_ID_VALID | IOMMU_HWPT_ALLOC_PASID;

function allocateNested(
  command: IommufdCommand,
  device: BoundDevice,
  on: HwptPaging | Viommu,
  flags: number,
  data: UserDataAt,
): HwptNested | number {
  const { injector } = command.context.environment;
  const driverFlags = flags & ~IOMMU_HWPT_FAULT_ID_VALID;
  let parent: HwptPaging;
  let domain: NestedDomain | number;
  if (on instanceof Viommu) {
    if (on.instance !== device.driver.instanceOf(device.device)) return -EINVAL;
    if ((flags & ~NESTED_FLAGS) !== 0 || data.length === 0) return -EOPNOTSUPP;
    if (injector.allocation("hwpt-nested") || injector.allocation("domain")) return -ENOMEM;
    parent = on.parent;
    domain = on.backend.allocNested(device.device, driverFlags, data);
  } else {
    if ((flags & ~NESTED_FLAGS) !== 0 || data.length === 0 || device.driver.allocNested === undefined)
      return -EOPNOTSUPP;
    if (on.automatic || !on.nestParent || on.domain.owner !== device.driver) return -EINVAL;
    if (injector.allocation("hwpt-nested") || injector.allocation("domain")) return -ENOMEM;
    parent = on;
    domain = device.driver.allocNested(device.device, on.domain, driverFlags, data);
  }
  if (typeof domain === "number") return domain;
  const hwpt = new HwptNested(parent, on instanceof Viommu ? on : null, domain, flags);
  command.context.objects.reserve(hwpt);
  return hwpt;
}

export function hwptAlloc(command: IommufdCommand): number {
  const request = iommuHwptAlloc.decode(command.bytes);
  const { context, call } = command;
  if (request.__reserved !== 0) return -EOPNOTSUPP;
  if ((request.data_type === IOMMU_HWPT_DATA_NONE) !== (request.data_len === 0)) return -EINVAL;
  const device = command.find<BoundDevice>(request.dev_id, "device");
  if (device === null) return -ENOENT;
  const on = context.objects.find(request.pt_id);
  const data = new UserDataAt(call.memory, request.data_type, request.data_uptr, request.data_len);
  let hwpt: HwPagetable | number;
  if (on instanceof Ioas) {
    hwpt = allocatePaging(context, on, device, request.flags, data.length > 0 ? data : null);
  } else if (on instanceof HwptPaging || on instanceof Viommu) {
    hwpt = allocateNested(command, device, on, request.flags, data);
  } else {
    hwpt = -EINVAL;
  }
  if (typeof hwpt === "number") return hwpt;
  let result = 0;
  if ((request.flags & IOMMU_HWPT_FAULT_ID_VALID) !== 0) {
    const fault = command.find<FaultQueue>(request.fault_id, "fault-queue");
    if (fault === null) {
      result = -ENOENT;
    } else {
      hwpt.fault = fault;
      fault.users++;
    }
  }
  if (result === 0) {
    iommuHwptAlloc.patch(command.bytes, { out_hwpt_id: hwpt.id });
    result = command.respond();
  }
  if (result < 0) context.objects.abortAndDestroy(hwpt);
  else context.objects.finalize(hwpt);
  return result;
}

/** Bounds what one call can cost, with MAX_ENTRY_LENGTH. */
const MAX_ENTRIES = 1 << 19;
/** Words of the request. */
const HWPT_ID = iommuHwptInvalidate.fields.hwpt_id.offset / 4;
const DATA_UPTR = iommuHwptInvalidate.fields.data_uptr.offset;
const DATA_TYPE = iommuHwptInvalidate.fields.data_type.offset / 4;
const ENTRY_LEN = iommuHwptInvalidate.fields.entry_len.offset / 4;
const ENTRY_NUM = iommuHwptInvalidate.fields.entry_num.offset / 4;
const RESERVED = iommuHwptInvalidate.fields.__reserved.offset / 4;

/** Serves calls one after another. */
const BATCH = new UserBatch();

/** On the way of every fence of a guest: nothing is allocated, fields are read where they stand. */
export function hwptInvalidate(command: IommufdCommand): number {
  const { words, call } = command;
  const target = command.context.objects.find(words[HWPT_ID]!);
  const entryLength = words[ENTRY_LEN]!;
  const entries = words[ENTRY_NUM]!;
  const address = addressAt(words, DATA_UPTR);
  let done = 0;
  let result: number;
  if (words[RESERVED]! !== 0) {
    result = -EOPNOTSUPP;
  } else if (
    entries !== 0 &&
    (address === 0 || entryLength === 0 || entryLength > MAX_ENTRY_LENGTH || entries > MAX_ENTRIES)
  ) {
    result = -EINVAL;
  } else if (target === null) {
    result = -ENOENT;
  } else {
    // A call from within a call has one of its own.
    const batch = BATCH.busy ? new UserBatch() : BATCH;
    batch.begin(call.memory, words[DATA_TYPE]!, address, entryLength, entries);
    result = invalidateIn(target, batch);
    done = batch.done;
    batch.end();
  }
  // How many were done always goes back, also with an error.
  words[ENTRY_NUM] = done;
  const responded = command.respond();
  return responded < 0 ? responded : result;
}

function invalidateIn(target: IommufdObject, batch: UserBatch): number {
  if (target instanceof Viommu) return target.backend.invalidate?.(batch) ?? -EOPNOTSUPP;
  if (target instanceof HwptNested) return target.domain.invalidate?.(batch) ?? -EOPNOTSUPP;
  return -EINVAL;
}
