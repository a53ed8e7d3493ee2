// Who is attached to what: one record for each place of a device - its requester id, each of its PASIDs - that says which domain the
// place is on and who is called back through it. The core alone writes it (group.ts); drivers read it wherever they need to know
// whom a domain concerns: invalidations, ATS, dirty logs, page requests. Nothing else keeps a set or a count of the same.
//
//     device.attachments           by place                what the device's context has to be
//     domain.attachments           by device               whom an unmap under the domain concerns
//
// Both lead to the same records. While a place changes over, the new record is in both and the old one still in its domain's list, so
// that an invalidation in between reaches the device whichever of the two the hardware uses.

import type { Stateful, StateReader, StateRecord } from "../../base/state.ts";
import { NO_PASID } from "../../devices/ports.ts";
import { inSavedOrder, refillList, refillMap, textsOf } from "../same-objects.ts";
import type { IommuDevice, IommuDomain } from "./driver.ts";
import type { PageRequestHandler } from "./page-requests.ts";

/** What an owner attaches: a domain, and what the kernel calls back through it (Linux: iommu_attach_handle and domain cookie). */
export interface AttachHandle {
  readonly domain: IommuDomain;
  /** Takes complete page-request groups of what is attached; null: page requests are not wanted. */
  readonly onPageRequests: PageRequestHandler | null;
  /** IOVA at which the doorbell page shows inside this domain, or -errno (Linux: iommufd_sw_msi). Absent: the address itself. */
  prepareMsi?(device: IommuDevice, doorbell: bigint): bigint | number;
}

/** One place of a device and what it is on. */
export interface Attachment {
  readonly device: IommuDevice;
  /** NO_PASID: the requester id. */
  readonly pasid: number;
  readonly domain: IommuDomain;
  /** null: no owner attached it (the default and the blocking domain). */
  readonly handle: AttachHandle | null;
  /** The driver's instance in front of the device (IommuDriver.instanceOf). */
  readonly instance: object;
}

/** The places of one device. */
// Not state: attachments must be the same when a machine is restored; the order of PASIDs is the group's.
export class DeviceAttachments {
  #requester: Attachment | null = null;
  readonly #pasids = new Map<number, Attachment>();

  /** null before the core has placed the device and after it has let it go. */
  get requester(): Attachment | null {
    return this.#requester;
  }

  /** PASIDs that have a domain; the others are blocked. */
  get pasids(): ReadonlyMap<number, Attachment> {
    return this.#pasids;
  }

  at(pasid: number): Attachment | null {
    return pasid === NO_PASID ? this.#requester : (this.#pasids.get(pasid) ?? null);
  }

  /** Somebody handles page requests of some place: the device may send them. */
  get wantsPageRequests(): boolean {
    if (this.#requester?.handle?.onPageRequests) return true;
    for (const { handle } of this.#pasids.values()) if (handle?.onPageRequests) return true;
    return false;
  }

  /**
   * The attachment through which a request with this PASID comes, null if none (Linux: io-pgfault.c, find_fault_handler).
   * `userPasidTable`: as IommuDriver's.
   */
  throughWhich(pasid: number, userPasidTable: boolean): Attachment | null {
    if (pasid === NO_PASID) return this.#requester;
    const own = this.#pasids.get(pasid);
    if (own !== undefined) return own;
    // A guest that manages its own PASID table: everything goes through the nested domain at the requester id.
    return userPasidTable && this.#requester?.domain.kind === "nested" ? this.#requester : null;
  }

  /** For changeAttachment. */
  put(pasid: number, attachment: Attachment | null): void {
    if (pasid === NO_PASID) this.#requester = attachment;
    else if (attachment === null) this.#pasids.delete(pasid);
    else this.#pasids.set(pasid, attachment);
  }

  /** Puts PASIDs, the same ones, into a saved order. */
  orderPasids(pasids: readonly number[]): void {
    refillMap(
      this.#pasids,
      pasids.map((pasid) => [pasid, this.#pasids.get(pasid)!] as const),
    );
  }
}

/**
 * What is attached to a domain; domains whose translations are cached under one tag may share a list. The attachments of one device
 * stand together, and so do the devices behind one IOMMU: an invalidation goes through `items` once, by index.
 */
export class AttachmentList implements Stateful {
  readonly #items: Attachment[] = [];
  #version = 0; // not state: only compared with what somebody made of the list

  /** Another number when the list is another: for what is worked out from it. */
  get version(): number {
    return this.#version;
  }

  get items(): readonly Attachment[] {
    return this.#items;
  }

  /** For changeAttachment. */
  add(attachment: Attachment): void {
    this.#version++;
    let after = -1;
    let sameDevice = false;
    for (const [index, { device, instance }] of this.#items.entries()) {
      if (device === attachment.device) sameDevice = true;
      else if (sameDevice || instance !== attachment.instance) continue;
      after = index;
    }
    this.#items.splice(after < 0 ? this.#items.length : after + 1, 0, attachment);
  }

  /** For changeAttachment. */
  remove(attachment: Attachment): void {
    const index = this.#items.indexOf(attachment);
    if (index < 0) throw new Error(`${attachment.device.name} leaves a domain that it is not on`);
    this.#items.splice(index, 1);
    this.#version++;
  }

  /** Attachments must be the same; their order is that of the invalidations. */
  saveState(): StateRecord {
    return { items: this.#items.map(nameOf) };
  }

  restoreState(state: StateReader): void {
    this.#version++;
    refillList(this.#items, inSavedOrder(state, this.#items, nameOf, textsOf(state, "items")));
  }
}

/**
 * Puts a place of a device on `next` (null: on nothing, which is blocked), by `switchHardware`, which reads the record as it is to be.
 * If that refuses (-errno) the record is as it was. The domain that was left is told when the record no longer has the place.
 */
export function changeAttachment(
  device: IommuDevice,
  pasid: number,
  next: Attachment | null,
  switchHardware: () => number,
): number {
  const old = device.attachments.at(pasid);
  next?.domain.attachments.add(next);
  device.attachments.put(pasid, next);
  const result = switchHardware();
  if (result < 0) {
    device.attachments.put(pasid, old);
    next?.domain.attachments.remove(next);
    return result;
  }
  if (old !== null) {
    old.domain.attachments.remove(old);
    old.domain.left?.(old);
  }
  return 0;
}

function nameOf({ device, pasid }: Attachment): string {
  return `attachment of ${device.name}${pasid === NO_PASID ? "" : ` at PASID ${pasid}`}`;
}
