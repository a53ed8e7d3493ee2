// What must hold of iommufd's objects between any two system calls; recomputed from the objects themselves, slowly.

import { MockPagingDomain } from "../../../../host/kernel/iommu/mock/mock-domain.ts";
import { Access } from "../../../../host/kernel/iommufd/access.ts";
import type { IommufdContext } from "../../../../host/kernel/iommufd/context.ts";
import { BoundDevice } from "../../../../host/kernel/iommufd/device.ts";
import { EventQueue } from "../../../../host/kernel/iommufd/event-file.ts";
import { FaultQueue } from "../../../../host/kernel/iommufd/fault-queue.ts";
import { HwptNested, HwptPaging } from "../../../../host/kernel/iommufd/hw-pagetable.ts";
import { HwQueue } from "../../../../host/kernel/iommufd/hw-queue.ts";
import { Ioas } from "../../../../host/kernel/iommufd/ioas.ts";
import type { IommufdObject } from "../../../../host/kernel/iommufd/object-table.ts";
import type { UserPages } from "../../../../host/kernel/iommufd/user-pages.ts";
import { Vdevice } from "../../../../host/kernel/iommufd/vdevice.ts";
import { VeventQueue } from "../../../../host/kernel/iommufd/veventq.ts";
import { Viommu } from "../../../../host/kernel/iommufd/viommu.ts";
import type { Kernel } from "../../../../host/kernel/kernel.ts";

/** Violations, as sentences; empty when all is well. `mappings`: live mappings of exported regions, by owner. */
export function violations(
  kernel: Kernel,
  contexts: readonly IommufdContext[],
  mappings: ReadonlyMap<IommufdObject, number> = new Map(),
): string[] {
  const found: string[] = [];
  const pages = new Set<UserPages>();
  for (const context of contexts) {
    checkCounts(context, mappings, found);
    for (const object of context.objects) {
      if (object instanceof Ioas) for (const area of object.table.areas) pages.add(area.pages);
      if (object instanceof HwptPaging) checkDomain(context, object, found);
    }
  }
  let pinned = 0;
  for (const one of pages) pinned += one.pinned;
  if (kernel.frames.pins.total !== pinned) {
    found.push(`${kernel.frames.pins.total} pins, but the mappings account for ${pinned}`);
  }
  return found;
}

/** Every object's user count is exactly the references that others hold, plus the table's own. */
function checkCounts(context: IommufdContext, mappings: ReadonlyMap<IommufdObject, number>, found: string[]): void {
  const expected = new Map<IommufdObject, number>();
  const refer = (object: IommufdObject, count = 1) => expected.set(object, (expected.get(object) ?? 0) + count);
  for (const object of context.objects) {
    refer(object);
    refer(object, mappings.get(object) ?? 0);
    if (object instanceof HwptPaging) refer(object.ioas);
    if (object instanceof HwptNested) refer(object.viommu ?? object.paging);
    if ((object instanceof HwptPaging || object instanceof HwptNested) && object.fault !== null) refer(object.fault);
    if (object instanceof Viommu) refer(object.parent);
    if (object instanceof Vdevice || object instanceof VeventQueue || object instanceof HwQueue) refer(object.viommu);
    if (object instanceof HwQueue && object.earlier !== null) refer(object.earlier);
    if (object instanceof EventQueue && object.file !== null) refer(object);
    if (object instanceof BoundDevice || object instanceof Access) refer(object);
    if (object instanceof Access && object.ioas !== null) refer(object.ioas);
  }
  const attached = new Set(
    [...context.deviceGroups.values()].flatMap((group) => [...group.attachments.values()].map((one) => one.handle)),
  );
  for (const object of context.objects) {
    if (
      object instanceof Vdevice &&
      (object.bound.vdevice !== object || context.objects.find(object.bound.id) !== object.bound)
    ) {
      found.push(`vdevice ${object.id} stands for a device that is not bound`);
    }
    if (object instanceof Viommu) {
      for (const [virtualId, vdevice] of object.vdevices) {
        if (context.objects.find(vdevice.id) === vdevice && vdevice.virtualId === virtualId) continue;
        found.push(`viommu ${object.id} still knows guest id ${virtualId}, whose vdevice is gone`);
      }
      if (object.settingUp.size > 0) found.push(`viommu ${object.id} is still setting up a vdevice`);
    }
    if (object instanceof FaultQueue) {
      for (const handle of object.concerned) {
        if (!attached.has(handle)) found.push(`fault queue ${object.id} holds requests of what is not attached`);
      }
    }
  }
  for (const group of context.deviceGroups.values()) {
    for (const { hwpt, devices } of group.attachments.values()) {
      for (const device of devices) {
        refer(hwpt);
        refer(device);
      }
    }
  }
  for (const object of context.objects) {
    const wanted = expected.get(object) ?? 0;
    if (object.users !== wanted) {
      found.push(`${object.type} ${object.id} has ${object.users} users, ${wanted} references exist`);
    }
  }
}

/** A domain that does not show its mappings: every page of every area, and the pages around it. */
function checkPages({ id, ioas, domain }: HwptPaging, found: string[]): void {
  for (const area of ioas.table.areas) {
    if (!area.filled) found.push(`an area at 0x${area.start.toString(16)} is not in the domains of its IOAS`);
    for (let at = area.start; at <= area.last; at += 4096n) {
      const page = area.pageAt(at);
      const [first] = area.pages.revoked ? [] : area.pages.runs(page, page);
      const physical = first === undefined ? null : BigInt(first.frame) * 4096n + (area.byteAt(at) % 4096n);
      if (domain.iovaToPhys(at) !== physical)
        found.push(`hwpt ${id} maps 0x${at.toString(16)} to another page than the area's`);
    }
    for (const beside of [area.start - 4096n, area.last + 1n]) {
      if (ioas.table.areas.at(beside) !== null || beside < 0n) continue;
      if (domain.iovaToPhys(beside) !== null)
        found.push(`hwpt ${id} maps 0x${beside.toString(16)}, where the IOAS has nothing`);
    }
  }
}

/** Whatever a domain maps is an area's page or a doorbell, and all of every area is mapped. */
function checkDomain(context: IommufdContext, hwpt: HwptPaging, found: string[]): void {
  const { domain } = hwpt;
  if (!(domain instanceof MockPagingDomain)) {
    checkPages(hwpt, found);
    return;
  }
  const { table } = hwpt.ioas;
  let mapped = 0n;
  domain.eachRun((run) => {
    mapped += run.last - run.start + 1n;
    for (let at = run.start; at <= run.last; ) {
      const area = table.areas.at(at);
      if (area === null) {
        const doorbell = [...hwpt.installedMsi]
          .map((id) => context.softwareMsi.map(id))
          .find((map) => map?.iova === at);
        if (doorbell === undefined || run.physical + (at - run.start) !== doorbell.doorbell) {
          found.push(`hwpt ${hwpt.id} maps 0x${at.toString(16)}, where the IOAS has nothing`);
          return;
        }
        mapped -= 4096n;
        at += 4096n;
        continue;
      }
      const page = area.pageAt(at);
      const [first] = area.pages.revoked ? [] : area.pages.runs(page, page);
      const physical = first === undefined ? null : BigInt(first.frame) * 4096n + (area.byteAt(at) % 4096n);
      if (physical !== run.physical + (at - run.start)) {
        found.push(`hwpt ${hwpt.id} maps 0x${at.toString(16)} to another page than the area's`);
        return;
      }
      const pageEnd = at + 4096n - (area.byteAt(at) % 4096n);
      at = pageEnd > area.last ? area.last + 1n : pageEnd;
    }
  });
  let wanted = 0n;
  for (const area of table.areas) {
    if (!area.filled) found.push(`an area at 0x${area.start.toString(16)} is not in the domains of its IOAS`);
    if (!area.pages.revoked) wanted += area.length;
  }
  if (mapped !== wanted) found.push(`hwpt ${hwpt.id} maps ${mapped} bytes of ${wanted}`);
}
