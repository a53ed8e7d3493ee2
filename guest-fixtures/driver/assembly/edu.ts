// Driver of the `edu` device (vendor 1234, device 11e8; QEMU's docs/specs/edu): registers in BAR 0, or on no bus where the platform says; a 4 KiB
// buffer of its own, DMA between that buffer and memory.

import { check, checkEqual } from "./console";
import { deviceId, deviceIommu, deviceLine, mmioLoad32, mmioLoad64, mmioStore32, mmioStore64, regionBase, PLATFORM_EDU } from "./machine";
import { PciDevice } from "./pci";

export const EDU_VENDOR: u32 = 0x1234;
export const EDU_DEVICE: u32 = 0x11e8;
/** The device's buffer as its DMA engine addresses it. */
export const EDU_BUFFER: u64 = 0x40000;
export const EDU_BUFFER_SIZE: u64 = 4096;

const IDENTIFICATION: u64 = 0x00;
const LIVENESS: u64 = 0x04;
const FACTORIAL: u64 = 0x08;
const STATUS: u64 = 0x20;
const INTERRUPT_STATUS: u64 = 0x24;
const INTERRUPT_RAISE: u64 = 0x60;
const INTERRUPT_ACKNOWLEDGE: u64 = 0x64;
const DMA_SOURCE: u64 = 0x80;
const DMA_DESTINATION: u64 = 0x88;
const DMA_COUNT: u64 = 0x90;
const DMA_COMMAND: u64 = 0x98;
const DMA_OUTCOME: u64 = 0xa0;
const DMA_RUN: u64 = 1;
const DMA_TO_MEMORY: u64 = 2;
const DMA_INTERRUPT: u64 = 4;
/** What a finished DMA sets in the interrupt status. */
const DMA_DONE: u32 = 0x100;

/** How a command that the IOMMU refused has ended (nestbox's extension). */
export const OUTCOME_DONE: u32 = 0;
export const OUTCOME_REFUSED: u32 = 1;

/** An edu, wherever its registers are. */
export class Edu {
  constructor(readonly registers: u64, readonly name: string) {
    checkEqual(mmioLoad32(registers + IDENTIFICATION) & 0xffff, 0xed, "identification of " + name);
  }

  /** Liveness inverts what is written; the factorial unit computes. */
  selfTest(): void {
    mmioStore32(this.registers + LIVENESS, 0x12345678);
    checkEqual(mmioLoad32(this.registers + LIVENESS), 0xedcba987, "liveness of " + this.name);
    mmioStore32(this.registers + FACTORIAL, 10);
    for (let i = 0; (mmioLoad32(this.registers + STATUS) & 1) != 0; i++) check(i < 100000, "factorial never ends");
    checkEqual(mmioLoad32(this.registers + FACTORIAL), 3628800, "10! on " + this.name);
  }

  /** Starts: memory at `iova` to the device's buffer, with an interrupt at the end. */
  startRead(iova: u64, count: u64 = EDU_BUFFER_SIZE): void {
    this.start(iova, EDU_BUFFER, count, DMA_RUN | DMA_INTERRUPT);
  }

  /** Starts: the device's buffer to memory at `iova`, with an interrupt at the end. */
  startWrite(iova: u64, count: u64 = EDU_BUFFER_SIZE): void {
    this.start(EDU_BUFFER, iova, count, DMA_RUN | DMA_TO_MEMORY | DMA_INTERRUPT);
  }

  /** Memory to the device's buffer without an interrupt; returns when the device has stopped, whatever came of it. */
  readQuietly(iova: u64, count: u64 = EDU_BUFFER_SIZE): void {
    this.start(iova, EDU_BUFFER, count, DMA_RUN);
    for (let i = 0; this.running; i++) check(i < 1000000, this.name + " never ends its DMA");
  }

  /** The device's buffer to memory, likewise. */
  writeQuietly(iova: u64, count: u64 = EDU_BUFFER_SIZE): void {
    this.start(EDU_BUFFER, iova, count, DMA_RUN | DMA_TO_MEMORY);
    for (let i = 0; this.running; i++) check(i < 1000000, this.name + " never ends its DMA");
  }

  private start(source: u64, destination: u64, count: u64, command: u64): void {
    check(!this.running, this.name + " is still running a DMA");
    mmioStore64(this.registers + DMA_SOURCE, source);
    mmioStore64(this.registers + DMA_DESTINATION, destination);
    mmioStore64(this.registers + DMA_COUNT, count);
    mmioStore64(this.registers + DMA_COMMAND, command);
  }

  get running(): bool {
    return (mmioLoad64(this.registers + DMA_COMMAND) & DMA_RUN) != 0;
  }

  /** How the last command ended: OUTCOME_DONE, OUTCOME_REFUSED, … */
  get outcome(): u32 {
    return mmioLoad32(this.registers + DMA_OUTCOME);
  }

  get interruptStatus(): u32 {
    return mmioLoad32(this.registers + INTERRUPT_STATUS);
  }

  /** Raises an interrupt with these status bits. */
  raise(bits: u32): void {
    mmioStore32(this.registers + INTERRUPT_RAISE, bits);
  }

  /** Clears interrupt status bits; with none left the device is quiet. */
  quiet(bits: u32): void {
    mmioStore32(this.registers + INTERRUPT_ACKNOWLEDGE, bits);
  }

  /** Acknowledges the end of a DMA; fails if there was none. */
  acknowledge(): void {
    const status = mmioLoad32(this.registers + INTERRUPT_STATUS);
    checkEqual(status & DMA_DONE, DMA_DONE, "interrupt status of " + this.name);
    mmioStore32(this.registers + INTERRUPT_ACKNOWLEDGE, status);
    check(!this.running, this.name + " interrupted before its DMA ended");
  }
}

/** The PCI function: registers in BAR 0. */
export class EduDevice extends Edu {
  constructor(readonly pci: PciDevice) {
    super(pci.enableBar(0), pci.describe());
  }
}

/** The device on no bus: the platform says where it is, by which id its IOMMU knows it, which IOMMU that is, and its wire. */
export class PlatformEdu extends Edu {
  readonly id: u32;
  readonly iommu: i32;
  readonly line: i32;

  constructor(index: u32) {
    super(regionBase(PLATFORM_EDU, index), "edu on no bus " + index.toString());
    this.id = <u32>deviceId(PLATFORM_EDU, index);
    this.iommu = deviceIommu(PLATFORM_EDU, index);
    this.line = deviceLine(PLATFORM_EDU, index);
  }
}
