// The oracle of `nestbox fuzz attachments`: who is attached to what, what a device may therefore reach, and what becomes of its page
// requests. Written from the rules (iommufd's documentation and Linux's behaviour: a group moves as a whole, an attach is all or
// nothing, requests end with the attachment they came through), slowly and with nothing of the kernel's; it knows no caches, no
// contexts and no order of steps.

export const NO_PASID = -1;
export const INVALID = 1;

/** Where drivers differ. */
export interface Rules {
  /** A paging HWPT is one IOMMU's: devices behind another need another. */
  readonly onePerIommu: boolean;
  /** A nest parent may log. */
  readonly parentsLog: boolean;
  /** ATS under the host's domains is on where page requests are, or wherever device and IOMMU have it. */
  readonly ats: "asked" | "where there is";
  /** Page requests are on as the device's context says, as somebody wants them (and are heard even if sent without leave), or never. */
  readonly requests: "device's context" | "wanted" | "never";
}

/** Names one page of one owner's memory. */
export type PageName = string;

export interface Ioas {
  readonly id: number;
  /** Page-frame number of the IOVA → the page mapped there. */
  readonly pages: Map<number, PageName>;
  /** The HWPT that attaching to the IOAS itself made, by IOMMU (all of them: 0); goes with its last user. */
  readonly automatic: Map<number, Hwpt>;
}

export interface Hwpt {
  id: number;
  readonly ioas: Ioas;
  /** Which IOMMU it was made for. */
  readonly iommu: number;
  readonly forPasids: boolean;
  readonly nestParent: boolean;
  readonly logs: boolean;
  readonly queue: Queue | null;
  /** IOVAs (frames) written by devices and not yet reported. */
  readonly written: Set<number>;
  /** null: a paging HWPT. */
  readonly nested: Nested | null;
}

export interface Nested {
  readonly viommu: Viommu;
  /** First stage: IOVA frame → guest-physical frame. */
  readonly stage: "blocked" | "bypass" | ReadonlyMap<number, number>;
  readonly ats: boolean;
  readonly pri: boolean;
}

export interface Viommu {
  readonly id: number;
  readonly parent: Hwpt;
  readonly iommu: number;
}

export interface Slot {
  hwpt: Hwpt;
  /** Devices that were attached by name; all of the group are moved. */
  readonly devices: Set<Device>;
  /** What page requests come through: another one after each switch. */
  through: object;
}

export interface Group {
  readonly members: Device[];
  readonly slots: Map<number, Slot>;
}

export interface Device {
  readonly rid: number;
  readonly iommu: number;
  readonly rules: Rules;
  readonly group: Group;
  readonly ats: boolean;
  readonly pri: boolean;
  readonly pasid: boolean;
  /** On the bus. */
  plugged: boolean;
  /** In its group: the kernel took it, and has not let it go. */
  known: boolean;
  /** Could not be put back after a reset: nothing at its requester id until the group moves. */
  stranded: boolean;
  owner: object | null;
  boundId: number;
  viommu: Viommu | null;
  /** Page requests of unfinished groups. */
  partial: { readonly through: object; readonly pasid: number; readonly group: number; readonly address: number }[];
  /** PRG Responses that must have reached it since the last look. */
  due: { group: number; code: number }[];
}

export interface Asked {
  readonly device: Device;
  readonly through: object;
  readonly pasid: number;
  readonly group: number;
  readonly addresses: readonly number[];
  /** Object ids under which it may be reported. */
  readonly names: readonly number[];
  answered: boolean;
}

export interface Queue {
  readonly id: number;
  readonly fd: number;
  delivered: Asked[];
  readonly awaiting: Map<number, Asked>;
}

export const ownerOf = (group: Group): object | null =>
  group.members.find(({ owner }) => owner !== null)?.owner ?? null;

/** Where a DMA write through (pasid, frame) lands: a page, null if nowhere. Not for groups that nobody owns. */
export function reach(device: Device, pasid: number, frame: number): PageName | null {
  const found = path(device, pasid, frame);
  return found === null ? null : (found.paging.ioas.pages.get(found.at) ?? null);
}

/** The paging HWPT that is asked last, and for which frame. */
function path(device: Device, pasid: number, frame: number): { paging: Hwpt; at: number } | null {
  if (!device.plugged || !device.known) return null;
  if (pasid === NO_PASID && device.stranded) return null;
  const slot = device.group.slots.get(pasid);
  if (slot === undefined || (pasid !== NO_PASID && !device.pasid)) return null;
  const { hwpt } = slot;
  if (hwpt.nested === null) return { paging: hwpt, at: frame };
  const { stage, viommu } = hwpt.nested;
  if (stage === "blocked") return null;
  const at = stage === "bypass" ? frame : stage.get(frame);
  return at === undefined ? null : { paging: viommu.parent, at };
}

/** A write has landed. */
export function wrote(device: Device, pasid: number, frame: number): void {
  const found = path(device, pasid, frame);
  if (found?.paging.logs) found.paging.written.add(found.at);
}

/** Whether attaching (or replacing what is attached) at this place works, if no allocation fails. */
export function mayAttach(device: Device, pasid: number, hwpt: Hwpt, replacing: boolean): boolean {
  const { slots, members } = device.group;
  const slot = slots.get(pasid);
  if (slot !== undefined && slot.hwpt === hwpt) return true;
  if (slot !== undefined && !replacing) return false;
  if (pasid === NO_PASID) {
    if (!hwpt.forPasids && [...slots.keys()].some((other) => other !== NO_PASID)) return false;
  } else {
    if (!hwpt.forPasids || slots.get(NO_PASID)?.hwpt.forPasids === false) return false;
  }
  return members.every((member) => !member.known || (pasid !== NO_PASID && !member.pasid) || takes(member, hwpt));
}

/** The device's IOMMU can have it on this HWPT. */
export function takes(device: Device, { nested, iommu }: Hwpt): boolean {
  if (nested === null) return !device.rules.onePerIommu || iommu === device.iommu;
  if (nested.viommu.iommu !== device.iommu) return false;
  // A first stage is invalidated by the guest's own names for its devices: each must have one.
  return typeof nested.stage === "string" || device.viommu === nested.viommu;
}

export function attached(device: Device, pasid: number, hwpt: Hwpt): void {
  const { slots, members } = device.group;
  const slot = slots.get(pasid);
  if (slot === undefined) {
    slots.set(pasid, { hwpt, devices: new Set([device]), through: {} });
  } else {
    slot.devices.add(device);
    if (slot.hwpt === hwpt) return;
    const gone = slot.through;
    const old = slot.hwpt;
    slot.hwpt = hwpt;
    slot.through = {};
    endThrough(members, old.queue, gone);
  }
  if (pasid === NO_PASID) for (const member of members) member.stranded = false;
}

export function detached(device: Device, pasid: number): void {
  const { slots, members } = device.group;
  const slot = slots.get(pasid);
  if (slot === undefined || !slot.devices.delete(device) || slot.devices.size > 0) return;
  slots.delete(pasid);
  endThrough(members, slot.hwpt.queue, slot.through);
  if (pasid === NO_PASID) for (const member of members) member.stranded = false;
}

/** Users of an HWPT besides its id. */
export function isAttached(groups: readonly Group[], hwpt: Hwpt): boolean {
  return groups.some(({ slots }) => [...slots.values()].some((slot) => slot.hwpt === hwpt));
}

// --- address translation services ---

/** Page requests may be sent: under a guest's context as the guest says, else while somebody takes them. */
export function requestsOn(device: Device): boolean {
  if (!device.plugged || !device.known || !device.pri || !device.ats) return false;
  const { requests } = device.rules;
  if (requests === "never") return false;
  const requester = device.stranded ? undefined : device.group.slots.get(NO_PASID);
  if (requests === "device's context" && requester?.hwpt.nested != null) {
    const { stage, ats, pri } = requester.hwpt.nested;
    return stage !== "blocked" && ats && pri;
  }
  if (requests === "wanted" && !translationsOn(device)) return false;
  if (requester !== undefined && requester.hwpt.queue !== null) return true;
  if (!device.pasid) return false;
  return [...device.group.slots].some(([pasid, { hwpt }]) => pasid !== NO_PASID && hwpt.queue !== null);
}

export function translationsOn(device: Device): boolean {
  if (!device.plugged || !device.known || !device.ats) return false;
  const requester = device.stranded ? undefined : device.group.slots.get(NO_PASID);
  const nested = requester?.hwpt.nested ?? null;
  if (device.rules.ats === "asked") {
    return nested === null ? requestsOn(device) : nested.stage !== "blocked" && nested.ats;
  }
  // A guest's word counts where the guest has a first stage.
  if (nested !== null) return typeof nested.stage === "string" || nested.ats;
  return requester !== undefined || (device.pasid && device.group.slots.size > (device.stranded ? 1 : 0));
}

// --- page requests ---

/** Through which slot a request comes. */
function slotFor(device: Device, pasid: number): Slot | undefined {
  const { slots } = device.group;
  const requester = device.stranded ? undefined : slots.get(NO_PASID);
  if (pasid === NO_PASID) return requester;
  if (device.pasid && slots.has(pasid)) return slots.get(pasid);
  // The guest has the PASID table: its requests are the guest's, whatever the PASID.
  return requester?.hwpt.nested != null ? requester : undefined;
}

/** The device asks for a page. `lost`: whoever takes it has no memory for it. */
export function asks(
  device: Device,
  pasid: number,
  group: number,
  last: boolean,
  address: number,
  lost: boolean,
): void {
  const refuse = () => {
    if (last) device.due.push({ group, code: INVALID });
  };
  // Without leave the IOMMU answers itself (RISC-V IOMMU §3.7); a device behind nothing's context is told Response Failure. Where nobody
  // asks whether it has leave, what counts is who takes it.
  const heard = device.rules.requests === "wanted" ? device.known : requestsOn(device);
  if (!heard) {
    if (last) device.due.push({ group, code: -1 });
    return;
  }
  const slot = slotFor(device, pasid);
  const queue = slot?.hwpt.queue ?? null;
  if (slot === undefined || queue === null) {
    refuse();
    return;
  }
  const { through } = slot;
  if (!last) {
    device.partial.push({ through, pasid, group, address });
    return;
  }
  const own = device.partial.filter((one) => one.through === through && one.pasid === pasid && one.group === group);
  device.partial = device.partial.filter((one) => !own.includes(one));
  if (lost) {
    refuse();
    return;
  }
  const names = device.owner !== null ? [device.boundId] : [...slot.devices].map(({ boundId }) => boundId);
  const addresses = [...own.map((one) => one.address), address];
  queue.delivered.push({ device, through, pasid, group, addresses, names, answered: false });
}

/** Requests were lost: whatever is unfinished behind that IOMMU is void. */
export function overflowed(devices: readonly Device[], iommu: number): void {
  for (const device of devices) if (device.iommu === iommu) device.partial = [];
}

export function answer(asked: Asked, code: number): void {
  if (asked.answered) return;
  asked.answered = true;
  if (asked.device.plugged) asked.device.due.push({ group: asked.group, code });
}

/** A slot changed hands: what came through it ends, and is forgotten. */
function endThrough(members: readonly Device[], queue: Queue | null, through: object): void {
  for (const member of members) member.partial = member.partial.filter((one) => one.through !== through);
  if (queue === null) return;
  const gone = [...queue.delivered, ...queue.awaiting.values()].filter((one) => one.through === through);
  for (const one of gone) answer(one, INVALID);
  queue.delivered = queue.delivered.filter((one) => !gone.includes(one));
  for (const [cookie, one] of [...queue.awaiting]) if (gone.includes(one)) queue.awaiting.delete(cookie);
}

/** A device leaves, or is reset: its requests end; whoever has read them may still answer, to nobody. */
export function endRequestsOf(device: Device, queues: readonly Queue[]): void {
  device.partial = [];
  for (const { delivered, awaiting } of queues) {
    for (const one of [...delivered, ...awaiting.values()]) if (one.device === device) answer(one, INVALID);
  }
}
