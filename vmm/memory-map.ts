// Where things stand in every machine's guest-physical address space. Guest RAM starts at 2 GiB, clear of the host's software MSI
// window, so that a component guest's pointer p is GPA 0x80000000 + p.

/** The host's software-managed MSI window (Linux: MSI_IOVA_BASE, 1 MiB); a guest's stage 1 must map it one to one. */
export const SW_MSI_BASE = 0x0800_0000;
export const SW_MSI_SIZE = 0x0010_0000;
/** Platform-level interrupt controller of RV64 machines. */
export const APLIC_BASE = 0x0d00_0000;
/** GICv2 of AArch64 machines: distributor, CPU interfaces, message frame. Clear of SW_MSI: messages that are the host's stand there. */
export const GICD_BASE = 0x0a00_0000;
export const GICC_BASE = 0x0a01_0000;
export const GICV2M_BASE = 0x0a02_0000;
export const UART_BASE = 0x1000_0000;
/** Registers of assigned platform devices, one after the other. */
export const PLATFORM_BASE = 0x1100_0000;
export const PLATFORM_SIZE = 0x1000_0000;
/** Registers of vIOMMU i: VIOMMU_BASE + i * 0x1000. */
export const VIOMMU_BASE = 0x0301_0000;
/** MSI page (component machines) or IMSIC pages (RV64 machines), one a hart. */
export const MSI_BASE = 0x2800_0000;
/** Pages that may be such: whatever stands there is nothing else. */
export const MSI_PAGES = 0x8000;
/** PCI configuration space, 1 MiB a bus. */
export const ECAM_BASE = 0x3000_0000;
export const ECAM_BUSES = 256;
/** 32-bit memory window for BARs. */
export const PCI_MEMORY32_BASE = 0x4000_0000;
export const PCI_MEMORY32_SIZE = 0x4000_0000;
export const RAM_BASE = 0x8000_0000;
/** 64-bit prefetchable memory window for BARs. */
export const PCI_MEMORY64_BASE = 0x4_0000_0000;
export const PCI_MEMORY64_SIZE = 0x4_0000_0000;
