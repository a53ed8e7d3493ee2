// The configuration space that user space sees of an assigned function (Linux: vfio_pci_config.c). What is virtual and what may be
// written: config-permissions.ts. Some writes do more:
//
//     command              passes; memory enable and INTx disable are acted on
//     MSI flags            enable and number of messages reach the function, as far as SET_IRQS armed messages
//     PCI Express, AF      writing Initiate FLR resets the function through VFIO; it reads 0
//     power management     the power state is changed by the kernel: a function in D3hot has no registers
//
// Accesses are split into naturally aligned pieces of 1, 2 or 4 bytes, none of which crosses from one capability into another.

import { bytesOf, type Stateful, type StateReader, type StateRecord } from "../../../base/state.ts";
import {
  CAP_EXPRESS,
  CAP_MSI,
  CAP_POWER,
  COMMAND_INTX_DISABLE,
  COMMAND_MASTER,
  COMMAND_MEMORY,
  PCI_COMMAND,
  POWER_CONTROL,
  POWER_STATE,
} from "../../pci/config-access.ts";
import type { PciDevice } from "../../pci/pci-device.ts";
import {
  ADVANCED_FEATURES_CONTROL,
  CAP_ADVANCED_FEATURES,
  CONFIG_BYTES,
  ConfigPermissions,
  EXPRESS_DEVICE_CONTROL,
  INITIATE_FLR,
  MSI_ENABLE,
  MSI_FLAGS,
  MSI_VECTORS_ENABLED,
  PAYLOAD_SIZE,
  READ_REQUEST_SIZE,
} from "./config-permissions.ts";

const FUNCTION_LEVEL_RESET = 1 << 28;
const EXPRESS_DEVICE_CAPABILITIES = 4;
/** Advanced Features: function-level reset and Transactions Pending are there. */
const ADVANCED_FEATURES_FLR = 3;

/** What a write makes the device do beyond configuration space. */
export interface ConfigActions {
  /** User space switched INTx off or on in the command register. */
  disableIntx(disabled: boolean): void;
  /** True while user space has MSIs armed by SET_IRQS: only then may the enable bit be set. */
  msiArmed(): boolean;
  /** log2 of the messages armed. */
  msiVectorsLog2(): number;
  /** User space asked for a function-level reset. */
  reset(): void;
}

export class VirtualConfigSpace implements Stateful {
  readonly #device: PciDevice;
  readonly #actions: ConfigActions;
  #permissions: ConfigPermissions; // not state: follows from the function
  #values: Uint8Array;
  /** Memory decoding as user space wants it. */
  #memory = false;
  #awake = true;

  constructor(device: PciDevice, actions: ConfigActions) {
    this.#device = device;
    this.#actions = actions;
    this.#permissions = permissionsOf(device);
    this.#values = this.#permissions.initial;
    this.#begin();
  }

  /** As when the device was opened: virtual registers take what the function has. */
  reset(): void {
    this.#permissions = permissionsOf(this.#device);
    this.#values = this.#permissions.initial;
    this.#begin();
  }

  #begin(): void {
    const command = this.#half(PCI_COMMAND);
    this.#setHalf(PCI_COMMAND, command & ~(COMMAND_INTX_DISABLE | COMMAND_MASTER));
    this.#memory = (command & COMMAND_MEMORY) !== 0;
    const msi = this.#permissions.capabilities.get(CAP_MSI);
    if (msi !== undefined) this.#values[msi + MSI_FLAGS]! &= ~(MSI_ENABLE | MSI_VECTORS_ENABLED);
    this.powerChanged();
  }

  /** The function's registers can be reached: user space has memory decoding on, and the function is not in D3hot. */
  get reachable(): boolean {
    return this.#memory && this.#awake;
  }

  /** The kernel changed the function's power state, or reset it. */
  powerChanged(): void {
    this.#awake = this.#device.awake;
  }

  get intxDisabled(): boolean {
    return (this.#half(PCI_COMMAND) & COMMAND_INTX_DISABLE) !== 0;
  }

  /** Fills `into` from `offset`; the range lies within 4096 bytes. */
  read(offset: number, into: Uint8Array): void {
    for (let i = 0; i < into.length; ) {
      const size = this.#pieceAt(offset + i, into.length - i);
      const value = this.#readPiece(offset + i, size);
      for (let byte = 0; byte < size; byte++) into[i + byte] = value >>> (8 * byte);
      i += size;
    }
  }

  #readPiece(at: number, size: 1 | 2 | 4): number {
    const virtual = word(this.#permissions.virtual, at, size);
    // A function that was pulled out has nothing of its own left.
    if (this.#device.gone || virtual === 0) return this.#device.configRead(at, size);
    const values = word(this.#values, at, size);
    return virtual === ones(size) ? values : (this.#device.configRead(at, size) & ~virtual) | (values & virtual);
  }

  /** Writes in naturally aligned pieces. */
  write(offset: number, from: Uint8Array): void {
    for (let i = 0; i < from.length; ) {
      const size = this.#pieceAt(offset + i, from.length - i);
      this.#writePiece(offset + i, size, word(from, i, size));
      i += size;
    }
  }

  #pieceAt(at: number, left: number): 1 | 2 | 4 {
    const { owner } = this.#permissions;
    let most = 1;
    while (most < left && (at + most) % 4 !== 0 && owner[at + most] === owner[at]) most++;
    if (most >= 4 && at % 4 === 0) return 4;
    return most >= 2 && at % 2 === 0 ? 2 : 1;
  }

  #writePiece(at: number, size: 1 | 2 | 4, value: number): void {
    const { virtual, writable, capabilities } = this.#permissions;
    const mayWrite = word(writable, at, size);
    if (mayWrite === 0) return;
    const express = capabilities.get(CAP_EXPRESS);
    const readRequest = express === undefined ? 0 : this.#half(express + EXPRESS_DEVICE_CONTROL) & READ_REQUEST_SIZE;
    const kept = word(virtual, at, size);
    for (let i = 0; i < size; i++) {
      const mask = virtual[at + i]! & writable[at + i]!;
      this.#values[at + i] = (this.#values[at + i]! & ~mask) | ((value >>> (8 * i)) & mask);
    }
    const passed = mayWrite & ~kept;
    if (passed >>> 0 === ones(size)) {
      this.#device.configWrite(at, size, value);
    } else if (passed !== 0) {
      const physical = (this.#device.configRead(at, size) & ~passed) | (value & passed);
      this.#device.configWrite(at, size, physical >>> 0);
    }
    if (at < PCI_COMMAND + 2 && at + size > PCI_COMMAND) this.#commandWritten(at, value);
    const touched = (id: number, register: number, bytes: number) => {
      const start = capabilities.get(id);
      return start !== undefined && at < start + register + bytes && at + size > start + register;
    };
    if (touched(CAP_MSI, MSI_FLAGS, 2)) this.#msiFlagsWritten(capabilities.get(CAP_MSI)!);
    const power = capabilities.get(CAP_POWER);
    if (power !== undefined && at === power + POWER_CONTROL) this.#powerStateWritten(value & POWER_STATE);
    if (touched(CAP_EXPRESS, EXPRESS_DEVICE_CONTROL, 2)) this.#deviceControlWritten(express!, readRequest);
    if (touched(CAP_ADVANCED_FEATURES, ADVANCED_FEATURES_CONTROL, 1)) this.#advancedFeaturesWritten();
  }

  #commandWritten(at: number, value: number): void {
    if (at === PCI_COMMAND) this.#memory = (value & COMMAND_MEMORY) !== 0;
    this.#actions.disableIntx(this.intxDisabled);
  }

  /** What is enabled here is enabled in the function; addresses and data stay the kernel's. */
  #msiFlagsWritten(msi: number): void {
    let flags = this.#half(msi + MSI_FLAGS);
    if (!this.#actions.msiArmed()) flags &= ~MSI_ENABLE;
    const most = this.#actions.msiVectorsLog2();
    if ((flags & MSI_VECTORS_ENABLED) >> 4 > most) flags = (flags & ~MSI_VECTORS_ENABLED) | (most << 4);
    this.#setHalf(msi + MSI_FLAGS, flags);
    this.#device.configWrite(msi + MSI_FLAGS, 2, flags);
  }

  #powerStateWritten(state: number): void {
    this.#device.setPowerState(state);
    this.powerChanged();
  }

  #deviceControlWritten(express: number, readRequestBefore: number): void {
    const control = express + EXPRESS_DEVICE_CONTROL;
    const value = this.#half(control);
    this.#setHalf(control, value & ~INITIATE_FLR);
    if ((value & INITIATE_FLR) !== 0) {
      const capabilities = this.#device.configRead(express + EXPRESS_DEVICE_CAPABILITIES, 4);
      if ((capabilities & FUNCTION_LEVEL_RESET) !== 0) this.#actions.reset();
    }
    const readRequest = value & READ_REQUEST_SIZE;
    if (readRequest === readRequestBefore) return;
    // Requests may be smaller than user space asked for, but never smaller than the bus's payload.
    const physical = this.#device.configRead(control, 2);
    const size = Math.max(readRequest >> 12, (physical & PAYLOAD_SIZE) >> 5);
    this.#device.configWrite(control, 2, (physical & ~READ_REQUEST_SIZE) | (size << 12));
  }

  #advancedFeaturesWritten(): void {
    const start = this.#permissions.capabilities.get(CAP_ADVANCED_FEATURES)!;
    const control = start + ADVANCED_FEATURES_CONTROL;
    const asked = (this.#values[control]! & 1) !== 0;
    this.#values[control]! &= ~1;
    const offered = this.#device.configRead(start + 3, 1) & ADVANCED_FEATURES_FLR;
    if (asked && offered === ADVANCED_FEATURES_FLR) this.#actions.reset();
  }

  #half(at: number): number {
    return word(this.#values, at, 2);
  }

  #setHalf(at: number, value: number): void {
    this.#values[at] = value & 0xff;
    this.#values[at + 1] = (value >> 8) & 0xff;
  }

  /** What is virtual and what may be written follows from the function. */
  saveState(): StateRecord {
    return { values: bytesOf(this.#values), memory: this.#memory, awake: this.#awake };
  }

  restoreState(state: StateReader): void {
    state.memory("values", this.#values);
    this.#memory = state.boolean("memory");
    this.#awake = state.boolean("awake");
  }
}

function permissionsOf(device: PciDevice): ConfigPermissions {
  const image = new Uint8Array(CONFIG_BYTES);
  const view = new DataView(image.buffer);
  for (let at = 0; at < CONFIG_BYTES; at += 4) view.setUint32(at, device.configRead(at, 4) >>> 0, true);
  return new ConfigPermissions(device.function, image);
}

/** Little-endian, unsigned. */
function word(bytes: Uint8Array, at: number, size: 1 | 2 | 4): number {
  let value = 0;
  for (let i = size - 1; i >= 0; i--) value = value * 256 + bytes[at + i]!;
  return value;
}

function ones(size: 1 | 2 | 4): number {
  return size === 4 ? 0xffff_ffff : 2 ** (8 * size) - 1;
}
