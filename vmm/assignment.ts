// A VM's IOMMU world: its guest-physical address space in the host, its vIOMMUs, and the devices behind them. Component machines, RV64
// machines and scenarios all put it together here.
//
// Devices behind different physical IOMMUs need vIOMMUs of their own (a vIOMMU is a slice of one IOMMU): a request names the IOMMU,
// as sysfs would, and devices of one name share a vIOMMU. The guest finds vIOMMU i at VIOMMU_BASE + i * 4 KiB; a device's id there is
// its routing id.
//
// Devices of one iommu group are one stream to the host: what is attached for one of them is attached for all. Behind a vIOMMU they
// would have contexts of their own, so such a group is refused, whole or in part, unless the VM is told to share it. Then all members go
// behind one vIOMMU, those that are not assigned are held (opened, known to the vIOMMU, never used), and the vIOMMU sees to it that no
// member does DMA through a context that is not its own (its kind's folder says how).

import type { GpaPfn } from "../host/base/address.ts";
import { ACCESS_FAULT, ACCESS_OK } from "../host/base/memory.ts";
import type { Stateful, StateReader, StateRecord } from "../host/base/state.ts";
import type { FunctionPorts, PciFunction } from "../host/devices/ports.ts";
import { EBUSY, ENODEV, errnoName } from "../host/uapi/errno.ts";
import type { AssignmentParts } from "./assignment-parts.ts";
import {
  type AssignmentRequest,
  groupName,
  guestNameOf,
  type HostDeviceRequest,
  nameInGroup,
  type PlatformRequest,
  streamOf,
} from "./assignment-request.ts";
import { MSI_BASE, MSI_PAGES, RAM_BASE, VIOMMU_BASE } from "./memory-map.ts";
import { formatBdf, formatPlace, UNREACHABLE } from "./pci/host-bridge.ts";
import { PlatformDevices, type PlatformViommu } from "./platform-devices.ts";
import { sameRecords } from "./same-records.ts";
import { AssignedDevice } from "./vfio/assigned-device.ts";
import { GuestAddressSpace, HostRefusal } from "./vfio/guest-address-space.ts";
import { IommufdHost } from "./vfio/iommufd-host.ts";
import type { HwInfoReply } from "./viommu/host-port.ts";
import type { GuestVisibleIommu, PluggedDevice, ViommuKind } from "./viommu/kind.ts";
import { limitedReport } from "./viommu/limited-report.ts";

/** One vIOMMU with its half of the host. */
export interface VirtualIommu {
  readonly name: string;
  readonly key: string;
  /** Host's name of the IOMMU that it is a slice of; null: emulated devices only. */
  readonly iommu: string | null;
  readonly index: number;
  readonly base: number;
  readonly viommu: GuestVisibleIommu;
  readonly host: IommufdHost | null;
  /** True once a device has stood behind it: then the guest may know it. */
  everUsed: boolean;
}

export interface AssignedEntry {
  readonly device: AssignedDevice;
  readonly request: AssignmentRequest;
  /** null: no vIOMMU, the device is attached to the second stage itself. */
  readonly viommu: VirtualIommu | null;
  /** The guest's id now; UNREACHABLE while the bus it is on has no number. */
  routingId: number;
}

/** First of the ids under which a vIOMMU knows held devices: no requester id is as large. */
export const HELD_IDS = 0x80_0000;

/** What a vIOMMU's host half must know of an opened device, on whatever bus. */
type BoundToVm = Pick<AssignedDevice, "handle" | "fd" | "deviceId" | "name" | "hostName" | "pri">;

/** A device of a shared group that nobody assigned. */
interface HeldDevice {
  readonly device: AssignedDevice;
  readonly group: number;
  readonly virtual: VirtualIommu;
  /** By which its vIOMMU knows it, HELD_IDS and above. */
  readonly id: number;
}

const INTERRUPT_PIN = 0x3d;
/** A component machine has wires for so many (component-machine.ts). */
const MOST_VIOMMUS = 60;
/** Reports of one kind in a VM's life. */
const MOST_REPORTS = 64;

export class Assignment implements Stateful {
  readonly viommus: VirtualIommu[] = [];
  readonly devices: AssignedEntry[] = [];
  /** Devices on no bus. */
  readonly platform: PlatformDevices;
  readonly #held: HeldDevice[] = [];
  #ending = false; // not state: what ends is not written down
  readonly #parts: AssignmentParts;
  readonly #space: GuestAddressSpace | null;
  readonly #reportChange: (message: string) => void;
  /** Places to which messages were lost, reported once each. */
  readonly #lostMessages = new Set<string>();
  #nextHandle = 1;

  /** Maps guest RAM as stage 2. Throws HostRefusal. */
  constructor(parts: AssignmentParts) {
    this.#parts = parts;
    this.#reportChange = limitedReport(parts.report);
    this.#space = parts.calls === null ? null : new GuestAddressSpace(parts.calls);
    this.platform = new PlatformDevices({
      machine: parts.machine,
      space: this.#space,
      wire: parts.wires.platform?.bind(parts.wires) ?? null,
      nextHandle: () => this.#nextHandle++,
      viommuFor: (device, request) => this.#platformViommu(device, request),
    });
    parts.pci.onMoved = (pciFunction, from, to) => this.#moved(pciFunction, from, to);
    const { buffer, offset, length } = parts.ram;
    try {
      this.#space?.mapRam(BigInt(RAM_BASE), buffer, offset, length);
    } catch (error) {
      this.#space?.[Symbol.dispose]();
      throw error;
    }
  }

  /** Kind of the VM's vIOMMUs. */
  get kind(): ViommuKind {
    return this.#parts.kind;
  }

  /** False: devices are attached to the second stage itself. */
  get hasViommus(): boolean {
    return this.#parts.viommu !== false;
  }

  /** The VM's stage 2 in the host. */
  get addressSpace(): GuestAddressSpace | null {
    return this.#space;
  }

  /**
   * Opens a host device, plugs it into the VM's PCI bus and behind a vIOMMU (without vIOMMUs: attaches it to the second stage). Throws
   * HostRefusal, in one line, if the host refuses or the routing id is taken; nothing is left then.
   */
  assign(request: AssignmentRequest): AssignedEntry {
    const { machine, pci, report } = this.#parts;
    const guestName = formatPlace(request);
    if (this.#space === null)
      throw new HostRefusal(`assigning host ${request.hostName}: there is no host process`, -ENODEV);
    if (request.behind === undefined && pci.functions.has(request.routingId)) {
      throw new HostRefusal(`guest ${guestName} is taken: assigning host ${request.hostName} there`, -ENODEV);
    }
    if (this.#parts.viommu !== false) {
      this.#checkGroup(request);
      this.#checkViommu(request);
    }
    const handle = this.#nextHandle++;
    this.#release(this.#held.find(({ device }) => device.hostName === request.hostName));
    let device: AssignedDevice;
    try {
      device = new AssignedDevice({
        addressSpace: this.#space,
        path: request.path,
        handle,
        guestName,
        hostName: nameInGroup(request),
        message: (pfn, offset, data) => this.#deviceMessage(device, pfn, offset, data),
        report: limitedReport(report),
        trace: machine.trace,
      });
    } catch (error) {
      this.#holdOthers();
      throw error;
    }
    const virtual =
      this.#parts.viommu === false ? null : this.#viommuFor(request.viommu ?? request.iommu, device, request);
    const routingId = pci.plugAt(request, device);
    const entry: AssignedEntry = { device, request, viommu: virtual, routingId: routingId ?? UNREACHABLE };
    this.devices.push(entry);
    // The others first: the kernel gives a group a first stage only if every member has a vDEVICE.
    let errno =
      routingId === undefined ? -ENODEV : virtual === null ? this.#space.attach(device.fd) : this.#holdOthers();
    if (errno === 0) errno = this.#plugIn(entry);
    if (errno < 0) {
      this.devices.pop();
      pci.remove(device);
      virtual?.host?.unregister(handle);
      device[Symbol.dispose]();
      this.#holdOthers();
      if (virtual !== null) this.#dropUnused(virtual);
      const where = virtual === null ? "on the second stage" : `behind ${virtual.name}`;
      throw new HostRefusal(`putting guest device ${guestName} (host ${nameInGroup(request)}) ${where}`, errno);
    }
    if (virtual !== null) virtual.everUsed = true;
    device.onReset = () => virtual?.viommu.deviceReset(entry.routingId);
    device.connect(this.#ports(device, request.behind ?? request.routingId, NO_DMA));
    machine.addService(device);
    return entry;
  }

  /** Hot-unplug: off the guest's bus, blocked, closed. */
  unassign(entry: AssignedEntry): void {
    const index = this.devices.indexOf(entry);
    if (index < 0) return;
    this.devices.splice(index, 1);
    this.#parts.machine.removeService(entry.device);
    this.#parts.pci.remove(entry.device);
    if (entry.viommu === null) {
      this.#space?.detach(entry.device.fd);
    } else {
      if (entry.routingId !== UNREACHABLE) entry.viommu.viommu.unplug(entry.routingId);
      entry.viommu.host!.unregister(entry.device.handle);
    }
    entry.device[Symbol.dispose]();
    const errno = this.#holdOthers();
    if (errno < 0) {
      this.#reportChange(
        `host ${nameInGroup(entry.request)} could not be held for its neighbours: ${errnoName(errno)}`,
      );
    }
  }

  /** Devices of shared groups that are held for the guest's sake, by their names in the host. */
  get held(): readonly string[] {
    return this.#held.map(({ device }) => device.hostName);
  }

  /** Plugs a model on the VM's own bus behind a vIOMMU, whose walks translate for it. False if the routing id is taken. */
  emulate(routingId: number, model: PciFunction, viommuKey: string): boolean {
    const virtual = this.viommus.find(({ key }) => key === viommuKey) ?? this.#addViommu(viommuKey, null, null, null);
    if (!this.#parts.pci.plug(routingId, model)) return false;
    const ats = model.atsTarget !== undefined;
    virtual.viommu.plug({
      handle: this.#nextHandle++,
      guestId: routingId,
      name: formatBdf(routingId),
      ats,
      pri: ats,
      emulated: true,
    });
    model.connect(
      this.#ports(
        model,
        routingId,
        virtual.viommu.emulatedDma(() => routingId, model.atsTarget),
      ),
    );
    return true;
  }

  /** Everything, children first. */
  [Symbol.dispose](): void {
    this.#ending = true;
    for (const entry of this.devices.slice()) this.unassign(entry);
    this.platform[Symbol.dispose]();
    for (const { host } of this.viommus) host?.[Symbol.dispose]();
    this.#space?.[Symbol.dispose]();
  }

  /** Throws HostRefusal for what could not be kept: contexts of their own for devices of one group, or two vIOMMUs for one group. */
  #checkGroup(request: AssignmentRequest): void {
    const { group, groupOthers, hostName } = request;
    if (groupOthers.length === 0) return;
    const who = `guest device ${formatPlace(request)} (host ${hostName})`;
    if (this.#parts.allowSharedGroup !== true) {
      throw new HostRefusal(
        `${who} is in ${groupName(request)}: the host cannot tell the DMA of these devices apart, so they cannot have ` +
          "contexts of their own behind a vIOMMU; --allow-shared-group (allowSharedGroup: true) makes them one stream",
        0,
      );
    }
    const { kind } = this.#parts;
    if (kind.streams !== true) {
      throw new HostRefusal(
        `${who} is in ${groupName(request)}, and the vIOMMU (${kind.title}) cannot share a group`,
        0,
      );
    }
    const key = request.viommu ?? request.iommu;
    const other = this.devices.find((entry) => entry.request.group === group && entry.viommu?.key !== key);
    if (other === undefined) return;
    throw new HostRefusal(
      `${who} is in ${groupName(request)}, which is behind vIOMMU "${other.viommu?.key}" with guest device ` +
        `${formatPlace(other.request)}: a group has one context, so it cannot be behind "${key}" too`,
      0,
    );
  }

  /** Throws HostRefusal for a vIOMMU that there cannot be: one over two IOMMUs, one too many. */
  #checkViommu(request: AssignmentRequest | PlatformRequest): void {
    const key = request.viommu ?? request.iommu;
    const known = this.viommus.find((virtual) => virtual.key === key);
    const who = `guest device ${guestNameOf(request)} (host ${request.hostName})`;
    if (known === undefined && this.viommus.length === MOST_VIOMMUS) {
      throw new HostRefusal(`${who} would need a vIOMMU more than the ${MOST_VIOMMUS} a machine can have`, 0);
    }
    // What has no stage 1 of the guest's is not tied to a slice of hardware.
    if (known === undefined || known.iommu === request.iommu || this.#parts.kind.nesting.shape === "mapped") return;
    throw new HostRefusal(
      `${who} is behind IOMMU "${request.iommu}", vIOMMU "${key}" is a slice of ${
        known.iommu === null ? "none" : `"${known.iommu}"`
      }: give it another (HOST-BDF@GUEST-BDF/NAME)`,
      0,
    );
  }

  /** Holds those members of shared groups that have assigned neighbours and are not assigned; lets go of all others. 0 or a negated errno. */
  #holdOthers(): number {
    for (const held of this.#held.slice()) {
      const needed = !this.#ending && this.devices.some(({ request }) => request.group === held.group);
      if (!needed || this.#isAssigned(held.device.hostName)) this.#release(held);
    }
    for (const { request, viommu } of this.devices) {
      if (viommu === null || this.#ending) continue;
      for (const other of request.groupOthers) {
        const known =
          this.#isAssigned(other.hostName) || this.#held.some(({ device }) => device.hostName === other.hostName);
        const errno = known ? 0 : this.#hold(other, request, viommu);
        if (errno < 0) return errno;
      }
    }
    return 0;
  }

  #isAssigned(hostName: string): boolean {
    return this.devices.some(({ request }) => request.hostName === hostName);
  }

  #hold(other: AssignmentRequest["groupOthers"][number], neighbour: AssignmentRequest, virtual: VirtualIommu): number {
    const handle = this.#nextHandle++;
    const name = `${other.hostName} (held)`;
    const path = other.path();
    if (path === null) return -EBUSY;
    let device: AssignedDevice;
    try {
      device = new AssignedDevice({
        addressSpace: this.#space!,
        path,
        handle,
        guestName: name,
        hostName: other.hostName,
        message: () => {},
        report: () => {},
        trace: this.#parts.machine.trace,
      });
    } catch (error) {
      if (error instanceof HostRefusal) return error.errno;
      throw error;
    }
    const id = HELD_IDS + handle;
    this.#register(virtual.host!, device, neighbour);
    const errno = virtual.viommu.plug({
      ...pluggedAs(device, id, name, other.hostName, streamOf(neighbour)),
      held: true,
    });
    if (errno < 0) {
      virtual.host!.unregister(handle);
      device[Symbol.dispose]();
      return errno;
    }
    this.#held.push({ device, group: neighbour.group, virtual, id });
    return 0;
  }

  #release(held: HeldDevice | undefined): void {
    if (held === undefined) return;
    this.#held.splice(this.#held.indexOf(held), 1);
    held.virtual.viommu.unplug(held.id);
    held.virtual.host!.unregister(held.device.handle);
    held.device[Symbol.dispose]();
  }

  /** Makes a device known to its vIOMMU under the requester id it has; 0 or a negated errno of the host's. */
  #plugIn({ device, request, viommu, routingId }: AssignedEntry): number {
    if (routingId === UNREACHABLE || viommu === null) return 0;
    return viommu.viommu.plug(pluggedAs(device, routingId, formatBdf(routingId), request.hostName, streamOf(request)));
  }

  /** The guest gave a bus another number: the vDEVICE goes, and comes again under the new id. */
  #moved(pciFunction: PciFunction, from: number, to: number): void {
    const entry = this.devices.find(({ device }) => device === pciFunction);
    if (entry === undefined) return;
    if (from !== UNREACHABLE) entry.viommu?.viommu.unplug(from);
    entry.routingId = to;
    const errno = this.#plugIn(entry);
    if (errno < 0) {
      const name = `guest device ${formatBdf(to)} (host ${entry.request.hostName})`;
      this.#reportChange(
        `${name} has a new requester id, but ${entry.viommu?.name} does not take it: ${errnoName(errno)}`,
      );
    }
  }

  #ports(pciFunction: PciFunction, routingId: number, dma: FunctionPorts["dma"]): FunctionPorts {
    const { machine, wires } = this.#parts;
    const pin = pciFunction.configRead(INTERRUPT_PIN, 1);
    return {
      dma,
      clock: machine.clock,
      interrupt: { intx: (asserted) => pin >= 1 && pin <= 4 && wires.intx(routingId, pin, asserted) },
    };
  }

  /** Takes a device's message through its first stage, if it has one, to the interrupt controller; a refused one is lost, as on hardware. */
  #deviceMessage(device: AssignedDevice, pfn: number, offset: number, data: number): void {
    const entry = this.devices.find((candidate) => candidate.device === device);
    if (entry === undefined) return;
    if (entry.viommu?.viommu.takesMessage?.(entry.routingId, pfn, offset, data) === true) return;
    const page = entry.viommu === null ? pfn : entry.viommu.viommu.messagePage(entry.routingId, pfn);
    if (page >= 0 && this.#parts.memory.store32(page as GpaPfn, offset, data) === ACCESS_OK) return;
    const address = `0x${(pfn * 4096 + offset).toString(16)}`;
    const place = `${device.name} ${address}`;
    // The guest chooses address and rate: neither the reports nor this set grow with them.
    if (this.#lostMessages.has(place) || this.#lostMessages.size >= MOST_REPORTS) return;
    this.#lostMessages.add(place);
    this.#parts.report(
      `an interrupt of guest device ${device.name} was lost: its message address ${address} leads nowhere`,
    );
  }

  /** The vIOMMU of a platform device, which is alone in its iommu group. Throws HostRefusal. */
  #platformViommu(device: BoundToVm, request: PlatformRequest): PlatformViommu | null {
    if (this.#parts.viommu === false) return null;
    this.#checkViommu(request);
    const virtual = this.#viommuFor(request.viommu ?? request.iommu, device, request, request.canStall);
    const usedBefore = virtual.everUsed;
    virtual.everUsed = true;
    return {
      ...virtual,
      leave: (unused) => {
        virtual.host?.unregister(device.handle);
        if (!unused) return;
        virtual.everUsed = usedBefore;
        this.#dropUnused(virtual);
      },
    };
  }

  #register(host: IommufdHost, device: BoundToVm, request: HostDeviceRequest, canStall = false): void {
    const stream = streamOf(request);
    host.register({
      handle: device.handle,
      fd: device.fd,
      deviceId: device.deviceId,
      guestName: device.name,
      hostName: device.hostName,
      faults: device.pri || canStall,
      ...(stream === undefined ? {} : { stream }),
    });
  }

  #viommuFor(key: string, device: BoundToVm, request: HostDeviceRequest, canStall = false): VirtualIommu {
    const known = this.viommus.find((virtual) => virtual.key === key);
    const host =
      known?.host ??
      new IommufdHost({
        addressSpace: this.#space!,
        codec: this.#parts.kind.nesting,
        report: this.#parts.report,
        hardwareQueues: this.#parts.configuration.hardwareQueues !== false,
      });
    this.#register(host, device, request, canStall);
    if (known !== undefined) return known;
    const info = host.hwInfo(device.handle);
    const hardware = typeof info === "number" ? null : info;
    return this.#addViommu(key, request.iommu, host, hardware, canStall, host.queueInfo(device.handle));
  }

  /** Takes a vIOMMU away that was made for a device which then was refused: the newest, and nothing ever stood behind it. */
  #dropUnused(virtual: VirtualIommu): void {
    if (virtual !== this.viommus.at(-1) || virtual.everUsed) return;
    this.viommus.pop();
    this.#parts.machine.removeService(virtual.viommu);
    const { kind, machine } = this.#parts;
    // Its registers, and what it has mapped behind them.
    const end = virtual.base + (kind.addressBytes ?? kind.registerBytes);
    for (const { base } of [...machine.bus.ranges]) if (base >= virtual.base && base < end) machine.bus.release(base);
    virtual.host?.[Symbol.dispose]();
  }

  #addViommu(
    key: string,
    iommu: string | null,
    host: IommufdHost | null,
    hardware: HwInfoReply | null,
    stalls = false,
    queues: Uint8Array | null = null,
  ): VirtualIommu {
    const { machine, memory, wires, kind, configuration, report } = this.#parts;
    const index = this.viommus.length;
    const name = `viommu${index}`;
    const base = VIOMMU_BASE + index * (kind.addressBytes ?? kind.registerBytes);
    const viommu = kind.create({
      name,
      memory,
      host,
      hardware,
      queues,
      interrupt: {
        wire: (vector, asserted) => wires.viommu(index, vector, asserted),
        message: (pfn, offset, data) => memory.store32(pfn, offset, data),
        receiver: (number, vector) =>
          number < MSI_PAGES ? memory.store32((MSI_BASE / 4096 + number) as GpaPfn, 0, vector) : ACCESS_FAULT,
      },
      mapPage: (offset, page, { bytes = 4096, name: part = "page", registerName } = {}) => {
        if (page === null) machine.bus.release(base + offset);
        else {
          const range = { name: `${name}-${part}`, base: base + offset, size: bytes, port: page };
          machine.bus.claim(registerName === undefined ? range : { ...range, registerName });
        }
      },
      clock: machine.clock,
      trace: machine.trace,
      stalls,
      configuration,
      report,
    });
    machine.addService(viommu);
    const registerName = (offset: number) => kind.registerName(offset);
    machine.bus.claim({ name, base, size: kind.registerBytes, port: viommu, registerName });
    const virtual = { name, key, iommu, index, base, viommu, host, everUsed: host === null };
    this.viommus.push(virtual);
    return virtual;
  }

  /** Who is assigned to where, by name: devices and vIOMMUs come and go by calls of the host's, so a document finds those it names, or is refused. */
  saveState(): StateRecord {
    return {
      viommus: this.viommus.map(({ name, key, everUsed }) => ({ name, key, everUsed })),
      devices: this.devices.map(({ device, request, routingId }) => ({
        guest: formatPlace(request),
        host: request.hostName,
        handle: device.handle,
        routingId,
      })),
      held: this.#held.map(({ device, id }) => ({ host: device.hostName, handle: device.handle, id })),
      lostMessages: [...this.#lostMessages],
      nextHandle: this.#nextHandle,
    };
  }

  restoreState(state: StateReader): void {
    const viommus = sameRecords(
      state,
      "viommus",
      this.viommus.map(({ name, key }) => ({ name, key })),
    );
    const devices = sameRecords(
      state,
      "devices",
      this.devices.map(({ device, request }) => ({
        guest: formatPlace(request),
        host: request.hostName,
        handle: device.handle,
      })),
    );
    sameRecords(
      state,
      "held",
      this.#held.map(({ device, id }) => ({ host: device.hostName, handle: device.handle, id })),
    );
    this.viommus.forEach((virtual, index) => {
      virtual.everUsed = viommus[index]!.boolean("everUsed");
    });
    this.devices.forEach((entry, index) => {
      entry.routingId = devices[index]!.number("routingId");
    });
    const lost = state.list("lostMessages");
    this.#lostMessages.clear();
    for (const place of lost) this.#lostMessages.add(String(place));
    this.#nextHandle = state.number("nextHandle");
  }

  /** Assigned devices are parts of the bus that they are plugged into. */
  *stateParts(): Generator<readonly [string, Stateful]> {
    if (this.#space !== null) yield ["address space", this.#space];
    for (const { device } of this.#held) yield [`held ${device.hostName}`, device];
    yield ["platform devices", this.platform];
    for (const { name, viommu, host } of this.viommus) {
      if (host !== null) yield [`${name} host`, host];
      yield [name, viommu];
    }
  }
}

function pluggedAs(
  device: AssignedDevice,
  guestId: number,
  name: string,
  hostName: string,
  stream: string | undefined,
): PluggedDevice {
  return {
    handle: device.handle,
    guestId,
    name,
    hostName,
    ats: device.ats,
    pri: device.pri,
    emulated: false,
    ...(stream === undefined ? {} : { stream, allowDma: (allowed: boolean) => device.allowDma(allowed) }),
  };
}

/** An assigned device's DMA never passes through the VMM. */
const NO_DMA: FunctionPorts["dma"] = { read: () => 1, write: () => 1 };
