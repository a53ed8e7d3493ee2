// Devices bound to an iommufd context, and what they are attached to (Linux: iommufd/device.c). This is the in-kernel interface that
// VFIO (and the selftest driver) uses; user space sees a device's id only.
//
//     bind ─→ attach(pasid, pt) ─→ replace … ─→ detach ─→ unbind
//
// `pt` is an IOAS (an automatic HWPT is found or made) or an HWPT. PASID is NO_PASID for the requester id.

import type { StateReader, StateRecord } from "../../base/state.ts";
import { NO_PASID } from "../../devices/ports.ts";
import { EBUSY, EINVAL, ENODEV, ENOENT, ENOMEM, EPERM } from "../../uapi/errno.ts";
import type { AttachHandle } from "../iommu/attachments.ts";
import type { IommuDevice, IommuDriver } from "../iommu/driver.ts";
import { requireText } from "../same-objects.ts";
import type { IommufdContext } from "./context.ts";
import { DeviceGroup, type GroupAttachment } from "./device-group.ts";
import { allocatePaging, type HwPagetable, HwptNested, HwptPaging } from "./hw-pagetable.ts";
import { Ioas } from "./ioas.ts";
import { IommufdObject, nameOfObject } from "./object-table.ts";
import type { Vdevice } from "./vdevice.ts";

export class BoundDevice extends IommufdObject {
  readonly type = "device";
  readonly context: IommufdContext;
  readonly device: IommuDevice;
  readonly driver: IommuDriver;
  readonly group: DeviceGroup;
  readonly enforcesCoherency: boolean;
  /** Its vDEVICE, in whatever vIOMMU. */
  vdevice: Vdevice | null = null;
  /** It is being unbound: no new vDEVICE. */
  unbinding = false;

  constructor(context: IommufdContext, device: IommuDevice, driver: IommuDriver, group: DeviceGroup) {
    super();
    this.context = context;
    this.device = device;
    this.driver = driver;
    this.group = group;
    this.enforcesCoherency = driver.capable(device, "ENFORCE_CACHE_COHERENCY");
  }

  override destroy(): void {
    this.group.group.releaseDevice();
    this.group.devices.delete(this);
    this.group.dropIfUnused();
    if (!this.context.environment.isTestDevice(this.device)) this.context.file.put();
  }

  override saveState(): StateRecord {
    const { name } = this.device;
    return { ...super.saveState(), device: name, unbinding: this.unbinding, vdevice: nameOfObject(this.vdevice) };
  }

  override restoreState(state: StateReader): void {
    super.restoreState(state);
    requireText(state, "device", this.device.name);
    requireText(state, "vdevice", nameOfObject(this.vdevice));
    this.unbinding = state.boolean("unbinding");
  }
}

/**
 * Puts a device (its whole group) under the context's ownership: all its DMA is blocked until it is attached. -EINVAL without an
 * IOMMU or without coherent DMA, -ENODEV without a group, -EPERM when MSIs are not isolated or somebody else owns the group.
 */
export function bindDevice(context: IommufdContext, device: IommuDevice): BoundDevice | number {
  const { iommu, injector, allowUnsafeInterrupts, isTestDevice } = context.environment;
  const driver = iommu.driverOf(device);
  if (driver === null || !driver.capable(device, "CACHE_COHERENCY")) return -EINVAL;
  const group = iommu.groupOf(device);
  if (group === null) return -ENODEV;
  const isolated = group.devices.every((member) => driver.isolatesMsi?.(member) ?? true);
  if (!isolated && !allowUnsafeInterrupts) return -EPERM;
  if (injector.allocation("device group")) return -ENOMEM;
  const claimed = group.claimDevice(context);
  if (claimed < 0) return claimed;
  if (injector.allocation("device")) {
    group.releaseDevice();
    return -ENOMEM;
  }
  const deviceGroup = DeviceGroup.of(context, group);
  const bound = new BoundDevice(context, device, driver, deviceGroup);
  deviceGroup.devices.add(bound);
  if (!isTestDevice(device)) context.file.get();
  // The driver that binds is a user until it unbinds, so DESTROY never works on a device.
  bound.users++;
  context.objects.reserve(bound);
  context.objects.finalize(bound);
  return bound;
}

/** Undoes bindDevice. Its vDEVICE is destroyed and leaves a tombstone; it must not be attached any more. */
export function unbindDevice(device: BoundDevice): void {
  device.unbinding = true;
  const { vdevice } = device;
  if (vdevice !== null) {
    vdevice.users++;
    device.context.objects.destroyByUser(vdevice, true);
  }
  device.context.objects.destroyByUser(device);
}

/** True if the context has a bound device of the group (iommufd_ctx_has_group). */
export function contextHasGroup(context: IommufdContext, group: object): boolean {
  for (const known of context.deviceGroups.keys()) if (known === group) return true;
  return false;
}

/** Attaches to the IOAS or HWPT `id`: the id of the HWPT, or a negated errno. */
export function attachDevice(device: BoundDevice, pasid: number, id: number): number {
  const attached = changePagetable(device, pasid, id, attachTo);
  if (attached > 0) device.users++;
  return attached;
}

/** Moves the whole group from what this device is attached to; on an error all stays as it was. The id of the HWPT. */
export function replaceDevice(device: BoundDevice, pasid: number, id: number): number {
  return changePagetable(device, pasid, id, replaceWith);
}

/** Detaches; the last device of the group leaves it blocked. Detaching what is not attached does nothing. */
export function detachDevice(device: BoundDevice, pasid: number): void {
  const { group, context } = device;
  const current = group.attachments.get(pasid);
  if (current === undefined || !current.devices.delete(device)) return;
  const { hwpt } = current;
  if (current.devices.size === 0) {
    group.attachments.delete(pasid);
    if (pasid === NO_PASID) group.group.detach();
    else group.group.detachPasid(pasid);
    hwpt.fault?.answerAll(current.handle);
  }
  if (pasid === NO_PASID) hwpt.paging.ioas.table.ranges.removeReserved(device.device);
  putHwpt(context, hwpt);
  device.users--;
}

/** Drops an attachment's reference; an automatic HWPT goes with the last one. */
function putHwpt(context: IommufdContext, hwpt: HwPagetable): void {
  if (hwpt instanceof HwptPaging && hwpt.automatic) context.objects.putAndTryDestroy(hwpt);
  else hwpt.users--;
}

/** Attaches or replaces: the HWPT that lost a reference by it, null if none did, or a negated errno. */
type Change = (device: BoundDevice, pasid: number, hwpt: HwPagetable) => HwPagetable | null | number;

function changePagetable(device: BoundDevice, pasid: number, id: number, change: Change): number {
  const target = device.context.objects.find(id);
  if (target === null) return -ENOENT;
  if (target instanceof Ioas) return changeToIoas(device, pasid, target, change);
  if (!(target instanceof HwptPaging || target instanceof HwptNested)) return -EINVAL;
  const old = change(device, pasid, target);
  if (typeof old === "number") return old;
  if (old !== null) putHwpt(device.context, old);
  return target.id;
}

/** Uses the IOAS's first automatic HWPT that takes the device (-EINVAL: the next one), or a new one. */
function changeToIoas(device: BoundDevice, pasid: number, ioas: Ioas, change: Change): number {
  const { context } = device;
  for (const hwpt of ioas.hwpts) {
    if (!hwpt.automatic) continue;
    const old = change(device, pasid, hwpt);
    if (old === -EINVAL) continue;
    if (typeof old === "number") return old;
    if (old !== null) putHwpt(context, old);
    return hwpt.id;
  }
  const hwpt = allocatePaging(context, ioas, device, 0, null);
  if (typeof hwpt === "number") return hwpt;
  const old = change(device, pasid, hwpt);
  if (typeof old === "number") {
    context.objects.abortAndDestroy(hwpt);
    return old;
  }
  hwpt.automatic = true;
  context.objects.finalize(hwpt);
  if (old !== null) putHwpt(context, old);
  return hwpt.id;
}

function attachTo(device: BoundDevice, pasid: number, hwpt: HwPagetable): null | number {
  const { group, context } = device;
  if (context.environment.injector.allocation("attachment")) return -ENOMEM;
  const current = group.attachments.get(pasid);
  if (current?.devices.has(device)) return -EBUSY;
  if (current !== undefined && current.hwpt !== hwpt) return -EINVAL;
  const reserve = pasid === NO_PASID;
  if (reserve) {
    const reserved = reserveRegions(device, hwpt.paging, current === undefined);
    if (reserved < 0) return reserved;
  }
  if (current === undefined) {
    const handle = makeHandle(device, pasid, hwpt);
    const result = switchTo(device, pasid, hwpt, handle, false);
    if (result < 0) {
      if (reserve) hwpt.paging.ioas.table.ranges.removeReserved(device.device);
      return result;
    }
    group.attachments.set(pasid, { hwpt, handle, devices: new Set([device]) });
  } else {
    current.devices.add(device);
  }
  hwpt.users++;
  return null;
}

/** Reserves what the device needs in the IOAS, and maps the doorbells its group uses. */
function reserveRegions(device: BoundDevice, paging: HwptPaging, first: boolean): number {
  const { group, context } = device;
  const regions = device.driver.reservedRegions(device.device);
  const result = paging.ioas.table.reserveForDevice(regions, device.device);
  if (result < 0) return result;
  const window = regions.find((region) => region.type === "SW_MSI");
  if (window !== undefined) group.msiWindow = window.start;
  if (!first) return 0;
  const installed = context.softwareMsi.setUp(group, paging);
  if (installed < 0) paging.ioas.table.ranges.removeReserved(device.device);
  return installed;
}

function replaceWith(device: BoundDevice, pasid: number, hwpt: HwPagetable): HwPagetable | null | number {
  const { group, context } = device;
  const current = group.attachments.get(pasid);
  if (current === undefined || !current.devices.has(device)) return -EINVAL;
  const old = current.hwpt;
  if (old === hwpt) return null;
  const table = hwpt.paging.ioas.table;
  const otherIoas = pasid === NO_PASID && hwpt.paging.ioas !== old.paging.ioas;
  if (pasid === NO_PASID) {
    const prepared = prepareGroup(current, group, hwpt.paging, otherIoas);
    if (prepared < 0) return prepared;
  }
  if (context.environment.injector.allocation("attachment")) {
    if (otherIoas) for (const member of current.devices) table.ranges.removeReserved(member.device);
    return -ENOMEM;
  }
  const handle = makeHandle(device, pasid, hwpt);
  const result = switchTo(device, pasid, hwpt, handle, true);
  if (result < 0) {
    if (otherIoas) for (const member of current.devices) table.ranges.removeReserved(member.device);
    return result;
  }
  old.fault?.answerAll(current.handle);
  if (otherIoas) {
    for (const member of current.devices) old.paging.ioas.table.ranges.removeReserved(member.device);
  }
  current.hwpt = hwpt;
  current.handle = handle;
  // One reference per device of the group moves over; the caller drops the last one of the old HWPT.
  hwpt.users += current.devices.size;
  old.users -= current.devices.size - 1;
  return old;
}

/** Before a group moves: reserves its devices' regions in the other IOAS, all or none, and maps its doorbells. */
function prepareGroup(current: GroupAttachment, group: DeviceGroup, paging: HwptPaging, otherIoas: boolean): number {
  const { table } = paging.ioas;
  const reserved: BoundDevice[] = [];
  let result = 0;
  if (otherIoas) {
    for (const member of current.devices) {
      result = table.reserveForDevice(member.driver.reservedRegions(member.device), member.device);
      if (result < 0) break;
      reserved.push(member);
    }
  }
  if (result === 0) result = group.context.softwareMsi.setUp(group, paging);
  if (result < 0) for (const member of reserved) table.ranges.removeReserved(member.device);
  return result;
}

function switchTo(
  device: BoundDevice,
  pasid: number,
  hwpt: HwPagetable,
  handle: AttachHandle,
  replace: boolean,
): number {
  const { group } = device.group;
  // A virtual function shares its page-request interface with the physical one: answers must not reach that.
  if (hwpt.fault !== null && device.device.isVirtualFunction && device.device.hasPri) return -EINVAL;
  const refused = checkPasid(device.group, pasid, hwpt);
  if (refused < 0) return refused;
  if (pasid === NO_PASID) return replace ? group.replace(handle) : group.attach(handle);
  return replace ? group.replacePasid(handle, pasid) : group.attachPasid(handle, pasid);
}

/** PASIDs need HWPTs allocated for PASIDs, at the requester id too. */
function checkPasid(group: DeviceGroup, pasid: number, hwpt: HwPagetable): number {
  if (pasid === NO_PASID) {
    const others = [...group.attachments.keys()].some((attached) => attached !== NO_PASID);
    return !hwpt.pasidCompatible && others ? -EINVAL : 0;
  }
  if (!hwpt.pasidCompatible) return -EINVAL;
  const requester = group.attachments.get(NO_PASID);
  return requester !== undefined && !requester.hwpt.pasidCompatible ? -EINVAL : 0;
}

function makeHandle(device: BoundDevice, pasid: number, hwpt: HwPagetable): AttachHandle {
  const { context, group } = device;
  const { fault } = hwpt;
  /** Who sent it, as user space knows it; where that device is not bound, one that is attached (Linux: always the first). */
  const nameFor = (source: IommuDevice): number => {
    for (const member of group.devices) if (member.device === source) return member.id;
    const [attached] = group.attachments.get(pasid)?.devices ?? [];
    return (attached ?? device).id;
  };
  const handle: AttachHandle = {
    domain: hwpt.domain,
    onPageRequests: fault === null ? null : (requests) => fault.deliver(requests, nameFor(requests.device), handle),
    ...(pasid === NO_PASID
      ? {
          prepareMsi: (_target: IommuDevice, doorbell: bigint) =>
            context.softwareMsi.prepare(group, hwpt.paging, doorbell, context.environment.injector),
        }
      : {}),
  };
  return handle;
}
