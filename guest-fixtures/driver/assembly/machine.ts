// The machine as a guest sees it: the world's functions (../../wit/guest.wit) with 64-bit addresses put back together.

@external("nestbox:guest/mmio@0.1.0", "load8")
declare function trapLoad8(low: u32, high: u32): u32;
@external("nestbox:guest/mmio@0.1.0", "load16")
declare function trapLoad16(low: u32, high: u32): u32;
@external("nestbox:guest/mmio@0.1.0", "load32")
declare function trapLoad32(low: u32, high: u32): u32;
@external("nestbox:guest/mmio@0.1.0", "load64")
declare function trapLoad64(low: u32, high: u32): u32;
@external("nestbox:guest/mmio@0.1.0", "high-half")
declare function highHalf(): u32;
@external("nestbox:guest/mmio@0.1.0", "store8")
declare function trapStore8(low: u32, high: u32, value: u32): void;
@external("nestbox:guest/mmio@0.1.0", "store16")
declare function trapStore16(low: u32, high: u32, value: u32): void;
@external("nestbox:guest/mmio@0.1.0", "store32")
declare function trapStore32(low: u32, high: u32, value: u32): void;
@external("nestbox:guest/mmio@0.1.0", "store64")
declare function trapStore64(low: u32, high: u32, valueLow: u32, valueHigh: u32): void;
@external("nestbox:guest/platform@0.1.0", "count")
declare function platformCount(kind: u32): u32;
@external("nestbox:guest/platform@0.1.0", "base")
declare function platformBase(kind: u32, index: u32): u64;
@external("nestbox:guest/platform@0.1.0", "size")
declare function platformSize(kind: u32, index: u32): u64;

/** The wire of an IOMMU's interrupt vector; -1 none. */
@external("nestbox:guest/platform@0.1.0", "iommu-line")
export declare function iommuLine(index: u32, vector: u32): i32;
/** Index of the IOMMU that a function's DMA goes through; -1 none. */
@external("nestbox:guest/platform@0.1.0", "iommu-of")
export declare function iommuOf(requesterId: u32): i32;
/** The wire of a function's INTx pin 1 to 4; -1 none. */
@external("nestbox:guest/platform@0.1.0", "pci-line")
export declare function pciLine(requesterId: u32, pin: u32): i32;
/** Of the device whose registers a region is: its id at its IOMMU; -1 none. */
@external("nestbox:guest/platform@0.1.0", "device-id")
export declare function deviceId(kind: u32, index: u32): i32;
/** Index of that IOMMU; -1 none. */
@external("nestbox:guest/platform@0.1.0", "device-iommu")
export declare function deviceIommu(kind: u32, index: u32): i32;
/** The wire that the device drives; -1 none. */
@external("nestbox:guest/platform@0.1.0", "device-line")
export declare function deviceLine(kind: u32, index: u32): i32;
/** Lets time pass until an interrupt is pending and takes it; -1 nothing can happen any more, -2 the run is being stopped. */
@external("nestbox:guest/interrupts@0.1.0", "wait")
export declare function waitForInterrupt(): i32;
/** Takes a pending interrupt; -1 none. */
@external("nestbox:guest/interrupts@0.1.0", "poll")
export declare function pollInterrupt(): i32;
/** Virtual time in ns. */
@external("nestbox:guest/time@0.1.0", "now")
export declare function now(): u64;
/** Raises interrupt `number` in `delay` ns. */
@external("nestbox:guest/time@0.1.0", "alarm")
export declare function setAlarm(delay: u64, number: u32): void;
/** Ends the run with this status; does not return. */
@external("nestbox:guest/power@0.1.0", "exit")
export declare function exit(status: u32): void;
@external("nestbox:guest/console@0.1.0", "write")
export declare function consoleWrite(pointer: usize, length: u32): void;

/** Region kinds, in the order of the WIT enum. */
export const RAM: u32 = 0;
export const IOMMU: u32 = 1;
export const PCI_CONFIG: u32 = 2;
export const PCI_MEMORY32: u32 = 3;
export const PCI_MEMORY64: u32 = 4;
export const MSI_PAGE: u32 = 5;
export const IDENTITY: u32 = 6;
export const SMMUV3: u32 = 7;
export const PLATFORM_EDU: u32 = 8;
export const VTD: u32 = 9;

/** Guest-physical address of pointer 0. */
export const RAM_BASE: u64 = 0x80000000;

export function regionCount(kind: u32): u32 {
  return platformCount(kind);
}
export function regionBase(kind: u32, index: u32 = 0): u64 {
  return platformBase(kind, index);
}
export function regionSize(kind: u32, index: u32 = 0): u64 {
  return platformSize(kind, index);
}

/** Guest-physical address of a pointer. */
export function gpaOf(pointer: usize): u64 {
  return RAM_BASE + <u64>pointer;
}
/** Pointer to a guest-physical address in RAM. */
export function pointerTo(gpa: u64): usize {
  return <usize>(gpa - RAM_BASE);
}

export function mmioLoad8(address: u64): u32 {
  return trapLoad8(<u32>address, <u32>(address >> 32));
}
export function mmioLoad16(address: u64): u32 {
  return trapLoad16(<u32>address, <u32>(address >> 32));
}
export function mmioLoad32(address: u64): u32 {
  return trapLoad32(<u32>address, <u32>(address >> 32));
}
export function mmioLoad64(address: u64): u64 {
  const low = trapLoad64(<u32>address, <u32>(address >> 32));
  return ((<u64>highHalf()) << 32) | <u64>low;
}
export function mmioStore8(address: u64, value: u32): void {
  trapStore8(<u32>address, <u32>(address >> 32), value);
}
export function mmioStore16(address: u64, value: u32): void {
  trapStore16(<u32>address, <u32>(address >> 32), value);
}
export function mmioStore32(address: u64, value: u32): void {
  trapStore32(<u32>address, <u32>(address >> 32), value);
}
export function mmioStore64(address: u64, value: u64): void {
  trapStore64(<u32>address, <u32>(address >> 32), <u32>value, <u32>(value >> 32));
}
