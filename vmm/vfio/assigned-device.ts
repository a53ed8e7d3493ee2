// A host's PCI function in the guest: opened through its VFIO cdev, bound to the VM's iommufd, plugged into the VM's PCI host bridge as
// a PciFunction. Its DMA goes through the host's hardware, never through here; registers and interrupts do pass:
//
//   guest MMIO ─▶ BAR window ─▶ AssignedBarRegisters ─▶ mapped VFIO region (or pread/pwrite where it cannot be mapped)
//                                     └─ MSI-X table and pending bits are kept here
//   host interrupt ─▶ eventfd ─▶ service() ─▶ message through the device's first stage ─▶ interrupt controller; or INTx

import type { Stateful, StateReader, StateRecord } from "../../host/base/state.ts";
import type { Trace } from "../../host/base/trace.ts";
import type { BarDescription, FunctionPorts, PciFunction } from "../../host/devices/ports.ts";
import { ENODEV } from "../../host/uapi/errno.ts";
import {
  IOMMU_GET_HW_INFO,
  IOMMU_HW_CAP_PCI_PASID_EXEC,
  IOMMU_HW_CAP_PCI_PASID_PRIV,
  iommuHwInfo,
} from "../../host/uapi/iommufd.ts";
import { O_RDWR } from "../../host/uapi/system-calls.ts";
import {
  VFIO_DEVICE_BIND_IOMMUFD,
  VFIO_DEVICE_GET_REGION_INFO,
  VFIO_DEVICE_RESET,
  VFIO_PCI_BAR0_REGION_INDEX,
  VFIO_PCI_CONFIG_REGION_INDEX,
  VFIO_REGION_INFO_FLAG_MMAP,
  vfioDeviceBindIommufd,
  vfioRegionInfo,
} from "../../host/uapi/vfio.ts";
import type { DeviceHandle } from "../viommu/host-port.ts";
import { type AssignedBar, AssignedConfigSpace, type PasidSupport } from "./assigned-config-space.ts";
import { AssignedInterrupts, type InterruptKind } from "./assigned-interrupts.ts";
import { type GuestAddressSpace, HostRefusal } from "./guest-address-space.ts";
import { KernelCalls } from "./kernel-calls.ts";
import { MsixTable, OverlaidRegisters, RegionAccess } from "./region-access.ts";

export interface AssignedDeviceOptions {
  readonly addressSpace: GuestAddressSpace;
  /** Path of the cdev: "/dev/vfio/devices/vfio0". */
  readonly path: string;
  /** Names the device towards the vIOMMU's host port. */
  readonly handle: DeviceHandle;
  /** "00:02.0" in the guest, "0000:00:01.0" in the host: for messages and traces. */
  readonly guestName: string;
  readonly hostName: string;
  /**
   * A message of this device: `pfn`, `offset` are the guest's MSI address, before the device's first stage. The machine takes it
   * through the vIOMMU (GuestVisibleIommu.messagePage) and stores `data` there.
   */
  readonly message: (pfn: number, offset: number, data: number) => void;
  readonly report: (message: string) => void;
  readonly trace: Trace;
}

interface Region {
  readonly size: bigint;
  readonly offset: bigint;
  readonly flags: number;
}

/** A BAR with the region behind it: asked for once, for the second answer could be a refusal. */
type RegionBar = AssignedBar & { readonly region: Region };

const CONFIG_BYTES = 4096;
const MSI_ENABLE = 1;
const MSIX_ENABLE = 1 << 15;
const MSIX_FUNCTION_MASK = 1 << 14;
const COMMAND_INTX_DISABLE = 1 << 10;
const INTERRUPT_PIN = 0x3d;

export class AssignedDevice implements PciFunction, Stateful {
  readonly name: string;
  readonly hostName: string;
  readonly handle: DeviceHandle;
  readonly bars: readonly (BarDescription | null)[];
  /** Descriptor of the cdev, and iommufd's id of the device. */
  readonly fd: number;
  readonly deviceId: number;
  readonly config: AssignedConfigSpace;
  /** Called after a function-level reset that the guest asked for. */
  onReset: () => void = () => {}; // not state: wiring
  readonly #calls: KernelCalls;
  readonly #interrupts: AssignedInterrupts;
  readonly #msixTable: MsixTable | null;
  readonly #message: (pfn: number, offset: number, data: number) => void;
  readonly #report: (message: string) => void;
  readonly #trace: Trace;
  readonly #hasPin: boolean;
  #intx: ((asserted: boolean) => void) | null = null; // not state: wiring
  #intxAsserted = false;
  #disposed = false; // not state: what is closed is not written down

  /** Opens and binds the device. Throws HostRefusal with the call's name and both names. */
  constructor(options: AssignedDeviceOptions) {
    this.name = options.guestName;
    this.hostName = options.hostName;
    this.handle = options.handle;
    this.#message = options.message;
    this.#report = options.report;
    this.#trace = options.trace;
    const { system } = options.addressSpace.calls;
    const refusal = (call: string, errno: number) =>
      new HostRefusal(`${call} for guest device ${options.guestName} (host ${options.hostName})`, errno);
    this.fd = system.open(options.path, O_RDWR);
    if (this.fd < 0) throw refusal(`open ${options.path}`, this.fd);
    this.#calls = new KernelCalls(system, CONFIG_BYTES);
    const bound = this.#calls.ioctl(this.fd, VFIO_DEVICE_BIND_IOMMUFD, vfioDeviceBindIommufd, {
      iommufd: options.addressSpace.iommufd,
    });
    if (bound.result < 0) {
      this.#release();
      throw refusal("VFIO_DEVICE_BIND_IOMMUFD", bound.result);
    }
    this.deviceId = bound.out.out_devid;
    const pasid = this.#pasidSupport(options.addressSpace.iommufd);
    if (typeof pasid === "number") {
      this.#release();
      throw refusal("IOMMU_GET_HW_INFO", pasid);
    }
    const region = this.#region(VFIO_PCI_CONFIG_REGION_INDEX);
    const image = typeof region === "number" ? region : this.#calls.read(this.fd, CONFIG_BYTES, region.offset);
    if (typeof region === "number" || typeof image === "number" || image.length < 64) {
      this.#release();
      throw refusal("reading configuration space", typeof image === "number" ? image : -ENODEV);
    }
    const configAccess = new RegionAccess(this.#calls, this.fd, region.offset);
    const copy = image.slice();
    const bars = this.#describeBars(copy);
    if (typeof bars === "number") {
      this.#release();
      throw refusal("VFIO_DEVICE_GET_REGION_INFO of a BAR", bars);
    }
    this.config = new AssignedConfigSpace(
      {
        image: copy,
        read: (offset, size) => configAccess.mmioRead(offset, size),
        write: (offset, size, value) => configAccess.mmioWrite(offset, size, value, 0),
      },
      bars,
      pasid,
    );
    this.#hasPin = copy[INTERRUPT_PIN] !== 0;
    const refused = (call: string, errno: number): void =>
      this.#report(new HostRefusal(`${call} for guest device ${this.name} (host ${this.hostName})`, errno).message);
    this.#interrupts = new AssignedInterrupts(this.#calls, this.fd, refused, options.trace);
    this.#interrupts.onFired = (kind, vector) => this.#fired(kind, vector);
    const { msix } = this.config;
    this.#msixTable = msix === null ? null : new MsixTable(msix.vectors);
    if (this.#msixTable !== null) {
      this.#msixTable.onUnmasked = (vector) => {
        if (this.#msixSending) this.#sendMsix(vector);
      };
    }
    this.config.onReset = () => this.reset();
    this.config.onInterruptControl = () => this.#interruptControl();
    this.bars = [0, 1, 2, 3, 4, 5].map((index) => {
      const bar = bars.find((entry) => entry.index === index);
      return bar === undefined ? null : this.#openBar(bar);
    });
  }

  get ats(): boolean {
    return this.config.hasAts;
  }

  get pri(): boolean {
    return this.config.hasPri;
  }

  /** True while an interrupt waits for `service`. */
  get flagged(): boolean {
    return this.#interrupts.flagged;
  }

  /** Trace event that flagged it. */
  get cause(): number {
    return this.#interrupts.cause;
  }

  service(): void {
    this.#interrupts.service();
  }

  /** Keeps the device from DMA, whatever the guest has written into its command register, or lets it again. */
  allowDma(allowed: boolean): void {
    this.config.allowBusMaster(allowed);
  }

  connect(ports: FunctionPorts): void {
    this.#intx = (asserted) => ports.interrupt.intx(asserted);
    this.#interruptControl();
  }

  configRead(offset: number, size: 1 | 2 | 4): number {
    return this.config.read(offset, size);
  }

  configWrite(offset: number, size: 1 | 2 | 4, value: number): void {
    this.config.write(offset, size, value);
  }

  barBase(index: number): number {
    return this.config.barBase(index);
  }

  /** Function-level reset: the host's device, and everything kept for the guest. */
  reset(): void {
    this.#interrupts.disable();
    this.#lowerIntx();
    const result = this.#calls.system.ioctl(this.fd, VFIO_DEVICE_RESET, 0n);
    if (result < 0) {
      const what = `VFIO_DEVICE_RESET for guest device ${this.name} (host ${this.hostName})`;
      this.#report(new HostRefusal(what, result).message);
    }
    this.config.reset();
    this.#msixTable?.reset();
    this.onReset();
    this.#interruptControl();
  }

  /** Closes the device: its interrupts, mappings, and the binding. The vIOMMU has detached it before. */
  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#interrupts.disable();
    this.#release();
  }

  #release(): void {
    this.#calls.system.close(this.fd);
    this.#calls[Symbol.dispose]();
  }

  /** The PASIDs that host and device can do together, null for none, or the errno of the call. */
  #pasidSupport(iommufd: number): PasidSupport | null | number {
    const { result, out } = this.#calls.ioctl(iommufd, IOMMU_GET_HW_INFO, iommuHwInfo, { dev_id: this.deviceId });
    if (result < 0) return result;
    if (out.out_max_pasid_log2 === 0) return null;
    const has = (capability: number) => (out.out_capabilities & BigInt(capability)) !== 0n;
    return {
      width: Math.min(out.out_max_pasid_log2, 20),
      execute: has(IOMMU_HW_CAP_PCI_PASID_EXEC),
      privileged: has(IOMMU_HW_CAP_PCI_PASID_PRIV),
    };
  }

  /** A region, -ENODEV if the device has none there, or the errno of the call. */
  #region(index: number): Region | number {
    const { result, out } = this.#calls.ioctl(this.fd, VFIO_DEVICE_GET_REGION_INFO, vfioRegionInfo, { index });
    if (result < 0) return result;
    return out.size === 0n ? -ENODEV : { size: out.size, offset: out.offset, flags: out.flags };
  }

  /** The memory BARs there are, or the errno with which the host refused to tell of one. */
  #describeBars(image: Uint8Array): RegionBar[] | number {
    const bars: RegionBar[] = [];
    for (let index = 0; index < 6; index++) {
      const region = this.#region(VFIO_PCI_BAR0_REGION_INDEX + index);
      const flags = image[0x10 + 4 * index]!;
      // I/O ports have no place on this machine.
      if (typeof region === "number" && region !== -ENODEV) return region;
      if (typeof region === "number" || (flags & 1) !== 0) continue;
      const is64 = (flags & 6) === 4;
      bars.push({ index, size: Number(region.size), is64, prefetchable: (flags & 8) !== 0, region });
      if (is64) index++;
    }
    return bars;
  }

  #openBar(bar: RegionBar): BarDescription {
    const { region } = bar;
    const mapped =
      (region.flags & VFIO_REGION_INFO_FLAG_MMAP) !== 0
        ? this.#calls.system.mmapRegion(this.fd, region.offset, bar.size)
        : -ENODEV;
    const direct = typeof mapped === "number" ? new RegionAccess(this.#calls, this.fd, region.offset) : mapped;
    const registers = new OverlaidRegisters(direct, () => this.#touched());
    const { msix } = this.config;
    if (msix !== null && this.#msixTable !== null) {
      if (msix.tableBar === bar.index) registers.overlay(msix.tableOffset, 16 * msix.vectors, this.#msixTable.table);
      if (msix.pendingBar === bar.index) {
        registers.overlay(msix.pendingOffset, Math.ceil(msix.vectors / 64) * 8, this.#msixTable.pending);
      }
    }
    return {
      size: bar.size,
      kind: bar.is64 ? "memory64" : "memory32",
      prefetchable: bar.prefetchable,
      registers,
    };
  }

  /** The guest touched the device while INTx is up: it goes down, and comes again if the device still asserts it. */
  #touched(): void {
    if (!this.#intxAsserted) return;
    this.#lowerIntx();
    this.#interrupts.unmask();
  }

  #lowerIntx(): void {
    if (this.#intxAsserted) this.#intx?.(false);
    this.#intxAsserted = false;
  }

  get #msixSending(): boolean {
    const { msix } = this.config;
    if (msix === null) return false;
    const control = this.config.get16(msix.at + 2);
    return (control & MSIX_ENABLE) !== 0 && (control & MSIX_FUNCTION_MASK) === 0;
  }

  /** Which kind of interrupt the guest has enabled now: MSI-X before MSI before INTx. */
  #wantedKind(): { kind: InterruptKind; vectors: number } {
    const { msi, msix } = this.config;
    if (msix !== null && (this.config.get16(msix.at + 2) & MSIX_ENABLE) !== 0) {
      return { kind: "msix", vectors: Math.min(msix.vectors, this.#interrupts.count("msix")) };
    }
    if (msi !== null && (this.config.get16(msi.at + 2) & MSI_ENABLE) !== 0) {
      const allocated = 1 << ((this.config.get16(msi.at + 2) >> 4) & 7);
      return { kind: "msi", vectors: Math.min(allocated, msi.vectors, this.#interrupts.count("msi")) };
    }
    const pin = this.#hasPin && this.#intx !== null && (this.config.command & COMMAND_INTX_DISABLE) === 0;
    return pin && this.#interrupts.count("intx") > 0 ? { kind: "intx", vectors: 1 } : { kind: "none", vectors: 0 };
  }

  #interruptControl(): void {
    const { kind, vectors } = this.#wantedKind();
    if (kind !== this.#interrupts.kind) {
      this.#lowerIntx();
      this.#interrupts.enable(kind, vectors);
    }
    if (kind === "msix" && this.#msixSending) {
      this.#msixTable!.eachReady((vector) => this.#sendMsix(vector));
    }
    if (kind === "msi") this.#sendPendingMsi();
  }

  #fired(kind: InterruptKind, vector: number): void {
    if (this.#trace.on) {
      const source = `${this.name} ${kind}`;
      this.#trace.emit({ type: "irq", where: "vfio", source, vector });
    }
    if (kind === "intx") {
      this.#intxAsserted = true;
      this.#intx?.(true);
    } else if (kind === "msi") {
      this.#raiseMsi(vector);
    } else if (kind === "msix") {
      const table = this.#msixTable!;
      if (!this.#msixSending || table.masked(vector)) table.setPending(vector);
      else this.#sendMsix(vector);
    }
  }

  #sendMsix(vector: number): void {
    const table = this.#msixTable!;
    table.clearPending(vector);
    this.#send(table.addressLow(vector), table.addressHigh(vector), table.data(vector));
  }

  #raiseMsi(vector: number): void {
    const msi = this.config.msi!;
    const { config } = this;
    const data = msi.wide ? msi.at + 12 : msi.at + 8;
    if (msi.maskable && ((config.get32(data + 4) >>> vector) & 1) === 1) {
      config.set32(data + 8, (config.get32(data + 8) | (1 << vector)) >>> 0);
      return;
    }
    const allocated = 1 << Math.min((config.get16(msi.at + 2) >> 4) & 7, 5);
    const low = (config.get16(data) & ~(allocated - 1)) | (vector & (allocated - 1));
    this.#send(config.get32(msi.at + 4), msi.wide ? config.get32(msi.at + 8) : 0, low);
  }

  #sendPendingMsi(): void {
    const msi = this.config.msi!;
    if (!msi.maskable) return;
    const pendingAt = (msi.wide ? msi.at + 12 : msi.at + 8) + 8;
    const ready = this.config.get32(pendingAt) & ~this.config.get32(pendingAt - 4);
    if (ready === 0) return;
    this.config.set32(pendingAt, (this.config.get32(pendingAt) & ~ready) >>> 0);
    for (let vector = 0; vector < 32; vector++) if (((ready >>> vector) & 1) === 1) this.#raiseMsi(vector);
  }

  #send(low: number, high: number, data: number): void {
    this.#message((high >>> 0) * 0x10_0000 + (low >>> 12), low & 0xfff, data >>> 0);
  }

  saveState(): StateRecord {
    return { intxAsserted: this.#intxAsserted };
  }

  restoreState(state: StateReader): void {
    this.#intxAsserted = state.boolean("intxAsserted");
  }

  *stateParts(): Generator<readonly [string, Stateful]> {
    yield ["config", this.config];
    yield ["interrupts", this.#interrupts];
    if (this.#msixTable !== null) yield ["msix", this.#msixTable];
  }
}
