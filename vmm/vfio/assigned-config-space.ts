// Configuration space of an assigned device as the guest sees it (PCIe 6.0 §7.5): the host's, except for what belongs to the guest's
// own bus. Each byte has an owner:
//
//   host      passed through: identification, status, most capabilities (VFIO has its own idea of what a write may change)
//   guest     kept here: BARs, interrupt line, MSI and MSI-X state, ATS and PRI control, the PASID capability (VFIO hides the host's)
//   both      the command register: kept here, and passed to the host, which turns decoding and bus mastering on and off
//   absent    expansion ROM, bridges to what the guest must not see
//
// Capabilities are found once, when the device is opened; the capability lists themselves are the host's, but for PASID, which is made
// from what iommufd says of the device (as QEMU does) and stands where VFIO left an empty header, or at the list's end.

import type { Stateful, StateReader, StateRecord } from "../../host/base/state.ts";
import { ConfigSpace } from "../../host/devices/config-space.ts";

const COMMAND = 0x04;
const STATUS = 0x06;
const FIRST_BAR = 0x10;
const ROM_BAR = 0x30;
const CAPABILITIES_POINTER = 0x34;
const INTERRUPT_LINE = 0x3c;
const STATUS_CAPABILITIES = 1 << 4;
const COMMAND_MEMORY = 1 << 1;
const COMMAND_BUS_MASTER = 1 << 2;

const CAPABILITY_POWER = 0x01;
const CAPABILITY_MSI = 0x05;
const CAPABILITY_EXPRESS = 0x10;
const CAPABILITY_MSIX = 0x11;
const EXTENDED_ATS = 0x0f;
const EXTENDED_PRI = 0x13;
const EXTENDED_PASID = 0x1b;

const POWER_CONTROL = 0x04;
const POWER_STATE = 3;
const D3HOT = 3;

const DEVICE_CONTROL = 0x08;
const DEVICE_CONTROL_FLR = 1 << 15;
const DEVICE_CAPABILITIES_FLR = 1 << 28;

const DEVICE_CONTROL_2 = 0x28;
const CACHE_LINE_SIZE = 0x0c;
const FIRST_EXTENDED = 0x100;
const PASID_BYTES = 8;
/** Where the PASID capability goes when there is no empty header for it: the last place of the 4096 bytes. */
const LAST_PLACE = 0x1000 - PASID_BYTES;
const PASID_EXECUTE = 1 << 1;
const PASID_PRIVILEGED = 1 << 2;

/** What PASIDs the device may use (IOMMU_GET_HW_INFO). */
export interface PasidSupport {
  /** Bits of a PASID, 1 to 20. */
  readonly width: number;
  readonly execute: boolean;
  readonly privileged: boolean;
}

/** Access to the host's configuration space of the device. */
export interface HostConfig {
  /** All of it (256 or 4096 bytes), read once. */
  readonly image: Uint8Array;
  read(offset: number, size: 1 | 2 | 4): number;
  write(offset: number, size: 1 | 2 | 4, value: number): void;
}

/** A BAR as VFIO describes it. */
export interface AssignedBar {
  readonly index: number;
  readonly size: number;
  readonly is64: boolean;
  readonly prefetchable: boolean;
}

export interface MsixLayout {
  readonly at: number;
  readonly vectors: number;
  readonly tableBar: number;
  readonly tableOffset: number;
  readonly pendingBar: number;
  readonly pendingOffset: number;
}

export interface MsiLayout {
  readonly at: number;
  readonly vectors: number;
  readonly wide: boolean;
  readonly maskable: boolean;
}

export class AssignedConfigSpace implements Stateful {
  readonly msi: MsiLayout | null;
  readonly msix: MsixLayout | null;
  /** Offset of the PCI Express capability, 0: none; and whether the function can be reset. */
  readonly express: number;
  readonly canReset: boolean;
  readonly hasAts: boolean;
  readonly hasPri: boolean;
  /** A function-level reset was asked for. */
  onReset: () => void = () => {}; // not state: wiring
  /** MSI, MSI-X or INTx control changed. */
  onInterruptControl: () => void = () => {}; // not state: wiring
  readonly #config = new ConfigSpace();
  /** 1: the byte is kept here. */
  readonly #kept = new Uint8Array(4096); // not state: decided when the device is opened
  readonly #host: HostConfig;
  readonly #length: number;
  readonly #bars: readonly AssignedBar[];
  #busMasterAllowed = true;
  /** Offset of the power management capability, 0: none; the host changes the state, here is what it was last. */
  readonly #power: number;
  #asleep = false;

  constructor(host: HostConfig, bars: readonly AssignedBar[], pasid: PasidSupport | null = null) {
    this.#host = host;
    this.#length = host.image.length;
    this.#bars = bars;
    const image = host.image;
    const word = (offset: number) => (image[offset]! | (image[offset + 1]! << 8)) >>> 0;
    const capabilities = (word(STATUS) & STATUS_CAPABILITIES) !== 0 ? capabilityList(image) : new Map<number, number>();
    const extended = extendedCapabilityList(image);
    this.express = capabilities.get(CAPABILITY_EXPRESS) ?? 0;
    this.#power = capabilities.get(CAPABILITY_POWER) ?? 0;
    this.canReset = this.express !== 0 && ((word(this.express + 6) << 16) & DEVICE_CAPABILITIES_FLR) !== 0;
    this.hasAts = extended.has(EXTENDED_ATS);
    this.hasPri = extended.has(EXTENDED_PRI);
    this.#keep(COMMAND, 2, { writable: 0x0546 });
    for (let bar = 0; bar < 6; bar++) this.#keep(FIRST_BAR + 4 * bar, 4, {});
    for (const bar of bars) this.#declareBar(bar);
    this.#keep(ROM_BAR, 4, {});
    this.#keep(INTERRUPT_LINE, 1, { writable: 0xff });
    this.msi = this.#declareMsi(capabilities.get(CAPABILITY_MSI) ?? 0);
    this.msix = this.#declareMsix(capabilities.get(CAPABILITY_MSIX) ?? 0);
    if (pasid !== null && this.express !== 0) this.#declarePasid(pasid, extended);
    // Whether ATS, page requests and PASIDs are used is decided by the guest's device context and the host's kernel; the guest's
    // enable bits live here.
    this.#declareControl(extended.get(EXTENDED_ATS), 0x06, 2, 0x801f);
    this.#declareControl(extended.get(EXTENDED_PRI), 0x04, 2, 0x0003);
    const pri = extended.get(EXTENDED_PRI);
    if (pri !== undefined) this.#keep(pri + 0x0c, 4, { writable: 0xffffffff });
  }

  get command(): number {
    return this.#config.get16(COMMAND);
  }

  get32(offset: number): number {
    return this.#config.get32(offset);
  }

  get16(offset: number): number {
    return this.#config.get16(offset);
  }

  /** Stores into a kept register from our own side (pending bits). */
  set32(offset: number, value: number): void {
    this.#config.set32(offset, value);
  }

  /** Base that a BAR decodes at, -1 if decoding is off or the function is in D3hot. */
  barBase(index: number): number {
    const bar = this.#bars.find((entry) => entry.index === index);
    if (bar === undefined || this.#asleep || (this.command & COMMAND_MEMORY) === 0) return -1;
    const low = this.#config.get32(FIRST_BAR + 4 * index) & ~0xf;
    const high = bar.is64 ? this.#config.get32(FIRST_BAR + 4 * (index + 1)) : 0;
    return high * 2 ** 32 + (low >>> 0);
  }

  read(offset: number, size: 1 | 2 | 4): number {
    if (!ConfigSpace.accepts(offset, size)) return allOnes(size);
    if (offset + size > this.#length) return 0;
    const hosted = this.#hostedBytes(offset, size);
    if (hosted === 0) return this.#config.read(offset, size);
    const fromHost = this.#host.read(offset, size);
    if (hosted === size) return fromHost;
    // A mixed access: byte by byte.
    let value = 0;
    for (let i = size - 1; i >= 0; i--) {
      const byte = this.#kept[offset + i] === 1 ? this.#config.get8(offset + i) : (fromHost >>> (8 * i)) & 0xff;
      value = value * 256 + byte;
    }
    return value;
  }

  write(offset: number, size: 1 | 2 | 4, value: number): void {
    if (!ConfigSpace.accepts(offset, size) || offset + size > this.#length) return;
    if (this.canReset && covers(offset, size, this.express + DEVICE_CONTROL)) {
      const shift = 8 * (this.express + DEVICE_CONTROL - offset);
      const control = shift >= 0 ? value >>> shift : value << -shift;
      if ((control & DEVICE_CONTROL_FLR) !== 0) {
        this.onReset();
        return;
      }
    }
    const hosted = this.#hostedBytes(offset, size);
    if (hosted === size) {
      this.#host.write(offset, size, value);
      if (this.#power !== 0 && covers(offset, size, this.#power + POWER_CONTROL)) this.#powerWritten();
      return;
    }
    if (hosted !== 0) {
      for (let i = 0; i < size; i++) {
        if (this.#kept[offset + i] === 0) this.#host.write(offset + i, 1, (value >>> (8 * i)) & 0xff);
      }
    }
    this.#config.write(offset, size, value);
    if (covers(offset, size, COMMAND)) {
      this.#writeHostCommand();
      this.onInterruptControl();
    }
    if (this.#inInterruptCapability(offset, size)) this.onInterruptControl();
  }

  /** Whether the host's function gets the Bus Master Enable that the guest has written, or 0 whatever that is. */
  allowBusMaster(allowed: boolean): void {
    if (allowed === this.#busMasterAllowed) return;
    this.#busMasterAllowed = allowed;
    this.#writeHostCommand();
  }

  #writeHostCommand(): void {
    this.#host.write(COMMAND, 2, this.#busMasterAllowed ? this.command : this.command & ~COMMAND_BUS_MASTER);
  }

  /**
   * Registers at their reset values, after a reset of the host's function: what the guest then reads is what that function does. The
   * host's kernel has put back what the function had before - bus mastering among it -, so what was passed to it is taken back.
   */
  reset(): void {
    this.#config.reset();
    this.#asleep = false;
    this.#writeHostCommand();
    this.#host.write(CACHE_LINE_SIZE, 1, this.#host.image[CACHE_LINE_SIZE]!);
    if (this.express === 0) return;
    for (const control of [DEVICE_CONTROL, DEVICE_CONTROL_2]) {
      const at = this.express + control;
      this.#host.write(at, 2, this.#imageWord(at));
    }
  }

  #powerWritten(): void {
    this.#asleep = (this.#host.read(this.#power + POWER_CONTROL, 2) & POWER_STATE) === D3HOT;
  }

  #hostedBytes(offset: number, size: number): number {
    let hosted = 0;
    for (let i = 0; i < size; i++) if (this.#kept[offset + i] === 0) hosted++;
    return hosted;
  }

  #keep(offset: number, size: 1 | 2 | 4, register: { value?: number; writable?: number }): void {
    this.#config.declare(offset, size, register);
    this.#kept.fill(1, offset, offset + size);
  }

  #declareBar(bar: AssignedBar): void {
    const at = FIRST_BAR + 4 * bar.index;
    const flags = (bar.is64 ? 4 : 0) | (bar.prefetchable ? 8 : 0);
    const mask = bar.size >= 2 ** 32 ? 0 : -bar.size;
    this.#keep(at, 4, { value: flags, writable: mask & ~0xf });
    if (bar.is64) this.#keep(at + 4, 4, { writable: bar.size > 2 ** 32 ? -(bar.size / 2 ** 32) : 0xffffffff });
  }

  #declareMsi(at: number): MsiLayout | null {
    if (at === 0) return null;
    const control = this.#imageWord(at + 2);
    const wide = (control & 0x80) !== 0;
    const maskable = (control & 0x100) !== 0;
    const vectors = 1 << Math.min((control >> 1) & 7, 5);
    this.#keep(at + 2, 2, { value: control & 0x18e, writable: 0x71 });
    this.#keep(at + 4, 4, { writable: 0xfffffffc });
    const data = wide ? at + 12 : at + 8;
    if (wide) this.#keep(at + 8, 4, { writable: 0xffffffff });
    this.#keep(data, 2, { writable: 0xffff });
    if (maskable) {
      this.#keep(data + 4, 4, { writable: vectors === 32 ? 0xffffffff : 2 ** vectors - 1 });
      this.#keep(data + 8, 4, {});
    }
    return { at, vectors, wide, maskable };
  }

  #declareMsix(at: number): MsixLayout | null {
    if (at === 0) return null;
    const control = this.#imageWord(at + 2);
    this.#keep(at + 2, 2, { value: control & 0x7ff, writable: 0xc000 });
    const table = this.#imageLong(at + 4);
    const pending = this.#imageLong(at + 8);
    return {
      at,
      vectors: (control & 0x7ff) + 1,
      tableBar: table & 7,
      tableOffset: (table & ~7) >>> 0,
      pendingBar: pending & 7,
      pendingOffset: (pending & ~7) >>> 0,
    };
  }

  /** Nothing is added where there is no room: no capability of VFIO's is written over. */
  #declarePasid(pasid: PasidSupport, extended: ReadonlyMap<number, number>): void {
    if (this.#length < 4096) return;
    const features = (pasid.execute ? PASID_EXECUTE : 0) | (pasid.privileged ? PASID_PRIVILEGED : 0);
    const places = [...extended.values()];
    const first = this.#imageLong(FIRST_EXTENDED);
    const follows = (first >>> 20) & 0xffc;
    let at = FIRST_EXTENDED;
    let next = 0;
    if ((first & 0xffff) === 0 && (follows === 0 || follows >= FIRST_EXTENDED + PASID_BYTES)) {
      next = follows;
    } else {
      at = LAST_PLACE;
      const last = places.length === 0 ? FIRST_EXTENDED : places.find((place) => this.#nextOf(place) === 0);
      if (last === undefined || places.some((place) => place + 4 > LAST_PLACE)) return;
      this.#keep(last, 4, { value: ((this.#imageLong(last) & 0xf_ffff) | (at << 20)) >>> 0 });
    }
    this.#keep(at, 4, { value: (EXTENDED_PASID | (1 << 16) | (next << 20)) >>> 0 });
    this.#keep(at + 4, 2, { value: features | (pasid.width << 8) });
    this.#keep(at + 6, 2, { writable: 1 | features });
  }

  #nextOf(extended: number): number {
    return (this.#imageLong(extended) >>> 20) & 0xffc;
  }

  #declareControl(at: number | undefined, offset: number, size: 2, writable: number): void {
    if (at !== undefined) this.#keep(at + offset, size, { writable });
  }

  #inInterruptCapability(offset: number, size: number): boolean {
    const { msi, msix } = this;
    if (msi !== null && offset < msi.at + 0x18 && offset + size > msi.at) return true;
    return msix !== null && offset < msix.at + 4 && offset + size > msix.at;
  }

  #imageWord(offset: number): number {
    return this.#host.image[offset]! | (this.#host.image[offset + 1]! << 8);
  }

  #imageLong(offset: number): number {
    return (this.#imageWord(offset) | (this.#imageWord(offset + 2) << 16)) >>> 0;
  }

  saveState(): StateRecord {
    return { busMasterAllowed: this.#busMasterAllowed, asleep: this.#asleep };
  }

  /** The host's half is the host's: nothing is written to it. */
  restoreState(state: StateReader): void {
    this.#busMasterAllowed = state.boolean("busMasterAllowed");
    this.#asleep = state.boolean("asleep");
  }

  *stateParts(): Generator<readonly [string, Stateful]> {
    yield ["registers", this.#config];
  }
}

function allOnes(size: number): number {
  return size === 4 ? 0xffffffff : 2 ** (8 * size) - 1;
}

function covers(offset: number, size: number, register: number): boolean {
  return offset <= register + 1 && offset + size > register;
}

/** Capability id → offset; a list that loops or leaves the header ends there. */
function capabilityList(image: Uint8Array): Map<number, number> {
  const found = new Map<number, number>();
  let at = image[CAPABILITIES_POINTER]! & 0xfc;
  for (let steps = 0; steps < 48 && at >= 0x40; steps++) {
    if (!found.has(image[at]!)) found.set(image[at]!, at);
    at = image[at + 1]! & 0xfc;
  }
  return found;
}

function extendedCapabilityList(image: Uint8Array): Map<number, number> {
  const found = new Map<number, number>();
  let at = image.length >= 4096 ? 0x100 : 0;
  for (let steps = 0; steps < 1024 && at >= 0x100 && at + 4 <= image.length; steps++) {
    const id = image[at]! | (image[at + 1]! << 8);
    const next = ((image[at + 2]! >> 4) | (image[at + 3]! << 4)) & 0xffc;
    if (id !== 0 && id !== 0xffff && !found.has(id)) found.set(id, at);
    at = next;
  }
  return found;
}
