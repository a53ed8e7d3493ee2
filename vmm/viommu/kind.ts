// A kind of guest-visible IOMMU, as the rest of the VMM sees it. What an architecture says stands in that kind's folder behind the
// interfaces here and beside this file; `kinds.ts` is the table of the kinds there are. Shared rooms name none.
//
//   kind.create(…)   the device on the VM's bus           GuestVisibleIommu
//   kind.nesting     its stage 1 towards iommufd          nested-codec.ts
//   kind.guest       its guest's driver, for scenarios guest-driver.ts
//   kind.node        how a platform describes it          platform-node.ts
//   kind.explainer   its walks, faults, tables in words   explainer.ts

import type { GpaPfn } from "../../host/base/address.ts";
import type { AccessStatus, MemoryPort } from "../../host/base/memory.ts";
import type { MmioPort } from "../../host/base/mmio.ts";
import type { Stateful } from "../../host/base/state.ts";
import type { Trace } from "../../host/base/trace.ts";
import type { AtsTarget, DeviceClock, DmaPort } from "../../host/devices/ports.ts";
import type { Explainer } from "./explainer.ts";
import type { GuestSide } from "./guest-driver.ts";
import type { DeviceHandle, HwInfoReply, ViommuHost } from "./host-port.ts";
import type { NestedCodec } from "./nested-codec.ts";
import type { PlatformNode } from "./platform-node.ts";

/** Where a device's DMA goes. Always exactly one of these. */
export type Disposition = "blocked" | "bypass" | "nested";

/** A device as whoever plugs it in describes it. */
export interface PluggedDevice {
  /** Handle towards the host port; for an emulated device any number no assigned one has. */
  readonly handle: DeviceHandle;
  /** The id by which the guest's IOMMU knows it. */
  readonly guestId: number;
  /** For messages and traces: "00:02.0". */
  readonly name: string;
  /** Host's name of an assigned device, for messages. */
  readonly hostName?: string;
  /** The device and its host can do ATS, and page requests. */
  readonly ats: boolean;
  readonly pri: boolean;
  /** Its transactions can wait for the guest to answer their faults (a platform device's; a PCI function's never can). */
  readonly canStall?: boolean;
  /** Set for a model on the VM's own bus: translated here, the host knows nothing of it. */
  readonly emulated: boolean;
  /** Devices that the host cannot tell apart name the same: "iommu group 3 (0000:00:01.0, 0000:00:02.0)". Left out: alone. */
  readonly stream?: string;
  /** A member of a stream that is not the guest's: held so that nobody else uses it. It has no stage 1 and no faults. */
  readonly held?: boolean;
  /** Keeps the device from DMA, or lets it again. Called only for members of a stream. */
  readonly allowDma?: (allowed: boolean) => void;
}

/** A plugged device as it stands, for `inspect` and scenarios. */
export interface PluggedState {
  readonly device: PluggedDevice;
  readonly disposition: Disposition;
  /** While blocked: the architecture's number for what a transaction of the device would be refused with. */
  readonly cause: number;
  /** 0, or the errno with which the host refused what the guest set up last. */
  readonly refusal: number;
}

/** Where a vIOMMU's own interrupts go; the machine implements it. */
export interface ViommuInterruptPort {
  /** Level of wire `vector`. */
  wire(vector: number, asserted: boolean): void;
  /** A message: a 32-bit store of `data` at guest-physical pfn << 12 | offset. ACCESS_FAULT if nothing is there. */
  message(pfn: GpaPfn, offset: number, data: number): AccessStatus;
  /** Interrupt `vector` at the machine's receiver of messages `number` (0 the first): for kinds that remap interrupts. ACCESS_FAULT if there is none. */
  receiver?(number: number, vector: number): AccessStatus;
}

/** One field of a capability register, and why the guest's value is what it is. */
export interface CapabilityRow {
  /** Register it belongs to; absent where the kind has only one. */
  readonly register?: string;
  readonly name: string;
  readonly high: number;
  readonly low: number;
  /** Value in the hardware's register; null where there is no hardware (emulated devices only). */
  readonly host: number | null;
  readonly guest: number;
  /** Why the guest's value is what it is. */
  readonly rule: string;
}

/** What a vIOMMU promises its guest. */
export interface CapabilitySheet {
  /** Capability registers as the guest reads them, by the specification's names. */
  readonly registers: Readonly<Record<string, bigint>>;
  readonly rows: readonly CapabilityRow[];
}

/** What a vIOMMU has done so far. */
export interface ViommuActivity {
  /** The guest's commands by the specification's names. */
  readonly commands: Readonly<Record<string, number>>;
  /** Fault records (events) written for the guest. */
  readonly faults: number;
  /** Stage 1s installed, and bypasses. */
  readonly nested: number;
  readonly bypass: number;
}

/** What a machine may say of a vIOMMU of any kind. */
export interface CommonConfiguration {
  /** How it signals its own interrupts. Default: both, where the kind has both. */
  readonly interrupts?: "msi" | "wired" | "both";
  /** Offer ATS and page requests. Default true (where the host has them). */
  readonly ats?: boolean;
  /** Offer PASIDs. Default true (where the host has them). */
  readonly pasid?: boolean;
  /** Give the guest command queues that the hardware executes. Default true (where host and kind have them). */
  readonly hardwareQueues?: boolean;
}

/** What is mapped behind a vIOMMU's registers. Default: a page of 4 KiB. */
export interface MappedPage {
  readonly bytes?: number;
  /** For traces. */
  readonly name?: string;
  readonly registerName?: (offset: number) => string;
}

export interface ViommuOptions<Configuration extends CommonConfiguration = CommonConfiguration> {
  /** For traces and messages: "viommu0". */
  readonly name: string;
  /** Guest-physical memory. */
  readonly memory: MemoryPort<GpaPfn>;
  /** The host's side of assigned devices; null if all devices are emulated. */
  readonly host: ViommuHost | null;
  /** GET_HW_INFO of the devices behind it; null without a host, or where the host does not say. */
  readonly hardware: HwInfoReply | null;
  /** GET_HW_INFO data of the queues that the hardware has for a guest (HardwareQueueFormat.infoType); null or absent: none. */
  readonly queues?: Uint8Array | null;
  readonly interrupt: ViommuInterruptPort;
  /**
   * Maps a page of the host's hardware into the vIOMMU's address range, behind its registers (`ViommuKind.addressBytes`): the guest's accesses go
   * straight there, nothing here sees them. null takes away what begins there. Absent: the machine cannot. A kind may also put registers of its own there.
   */
  readonly mapPage?: (offset: number, page: MmioPort | null, more?: MappedPage) => void;
  readonly clock: DeviceClock;
  readonly trace: Trace;
  /** A device that can stall will be behind it (`PluggedDevice.canStall`): what a guest reads at its start must say so. */
  readonly stalls?: boolean;
  readonly configuration?: Configuration;
  /** Told, in one line each, of what a person who runs the VM should know (refusals, events for nobody). */
  readonly report?: (message: string) => void;
}

/** The device itself: registers on the bus, and a machine's service for what the host has to report. Nothing here throws. */
export interface GuestVisibleIommu extends MmioPort, Stateful {
  readonly name: string;
  /** Set while host events wait for `service`; `cause` is the trace event that flagged it. */
  readonly flagged: boolean;
  readonly cause: number;
  service(): void;
  /** Plugs a device in; its DMA goes where the guest says from then on. 0 or a negated errno of the host's. */
  plug(device: PluggedDevice): number;
  /** Unplugs a device: its DMA is blocked, its page requests are void. */
  unplug(guestId: number): number;
  /** A function-level reset of one device: its page requests are void, its stage 1 stands. */
  deviceReset(guestId: number): void;
  /** As at power-on. */
  reset(): void;
  /**
   * Where a message of an assigned device goes: its guest-physical page after the device's first stage, for a store by the device.
   * -1 if that refuses it (the hardware has said so in a fault record of its own).
   */
  messagePage(guestId: number, pfn: number): number;
  /**
   * A message of an assigned device that its IOMMU takes itself, because it remaps interrupts: true, delivered or refused with a fault record; false:
   * it is one that `messagePage` knows. Left out: so are all.
   */
  takesMessage?(guestId: number, pfn: number, offset: number, data: number): boolean;
  /** DMA port for an emulated device that was plugged in; `deviceId` gives its id of the moment (the guest may renumber). */
  emulatedDma(deviceId: () => number, target?: AtsTarget): DmaPort;
  readonly capabilitySheet: CapabilitySheet;
  readonly activity: ViommuActivity;
  /** Commands executed so far: what a machine counts as work (cheap, unlike `activity`). */
  readonly commandsExecuted: number;
  /** The guest has command queues of the hardware's: the platform describes them (`PlatformNode.companion`). */
  readonly hardwareQueues?: boolean;
  readonly plugged: Iterable<PluggedState>;
}

export interface ViommuKind<Configuration extends CommonConfiguration = CommonConfiguration> {
  /** As on the command line: "riscv". */
  readonly name: string;
  /** As the specification calls it: "RISC-V IOMMU". */
  readonly title: string;
  /** Bytes of register space. */
  readonly registerBytes: number;
  /** Bytes of guest-physical address space, where there are pages of the hardware's behind the registers. Default `registerBytes`. */
  readonly addressBytes?: number;
  /** Name of the register at an offset, for traces. */
  registerName(offset: number): string;
  readonly nesting: NestedCodec;
  /**
   * Its vIOMMUs keep the promise of a stream (`PluggedDevice.stream`, iommu groups of several devices): one stage 1 for all of it, devices
   * without one of their own kept from DMA, all blocked while those of its devices differ. Left out: such devices are refused.
   */
  readonly streams?: true;
  readonly node: PlatformNode;
  readonly guest: GuestSide;
  readonly explainer: Explainer;
  create(options: ViommuOptions<Configuration>): GuestVisibleIommu;
}
