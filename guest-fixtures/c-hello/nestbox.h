/* The world of component guests (../wit/guest.wit) for C. Every function is an import of the core module; 64-bit addresses cross as
   two halves, low half first. */
#ifndef NESTBOX_H
#define NESTBOX_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef int s32;

#define NESTBOX_IMPORT(space, function) \
  __attribute__((import_module("nestbox:guest/" space "@0.1.0"), import_name(function))) extern

NESTBOX_IMPORT("mmio", "load8") u32 nestbox_load8(u32 address_low, u32 address_high);
NESTBOX_IMPORT("mmio", "load16") u32 nestbox_load16(u32 address_low, u32 address_high);
NESTBOX_IMPORT("mmio", "load32") u32 nestbox_load32(u32 address_low, u32 address_high);
NESTBOX_IMPORT("mmio", "load64") u32 nestbox_load64(u32 address_low, u32 address_high);
NESTBOX_IMPORT("mmio", "high-half") u32 nestbox_high_half(void);
NESTBOX_IMPORT("mmio", "store8") void nestbox_store8(u32 address_low, u32 address_high, u32 value);
NESTBOX_IMPORT("mmio", "store16") void nestbox_store16(u32 address_low, u32 address_high, u32 value);
NESTBOX_IMPORT("mmio", "store32") void nestbox_store32(u32 address_low, u32 address_high, u32 value);
NESTBOX_IMPORT("mmio", "store64")
void nestbox_store64(u32 address_low, u32 address_high, u32 value_low, u32 value_high);
/* -1: nothing can ever happen again; -2: the run is being stopped. */
NESTBOX_IMPORT("interrupts", "wait") s32 nestbox_wait(void);
NESTBOX_IMPORT("interrupts", "poll") s32 nestbox_poll(void);
NESTBOX_IMPORT("console", "write") void nestbox_write(const char *bytes, u32 length);
NESTBOX_IMPORT("platform", "count") u32 nestbox_count(u32 kind);
NESTBOX_IMPORT("platform", "base") u64 nestbox_base(u32 kind, u32 index);
NESTBOX_IMPORT("platform", "size") u64 nestbox_size(u32 kind, u32 index);
NESTBOX_IMPORT("platform", "iommu-line") s32 nestbox_iommu_line(u32 index, u32 vector);
NESTBOX_IMPORT("platform", "iommu-of") s32 nestbox_iommu_of(u32 requester_id);
NESTBOX_IMPORT("platform", "pci-line") s32 nestbox_pci_line(u32 requester_id, u32 pin);
NESTBOX_IMPORT("platform", "device-id") s32 nestbox_device_id(u32 kind, u32 index);
NESTBOX_IMPORT("platform", "device-iommu") s32 nestbox_device_iommu(u32 kind, u32 index);
NESTBOX_IMPORT("platform", "device-line") s32 nestbox_device_line(u32 kind, u32 index);
NESTBOX_IMPORT("time", "now") u64 nestbox_now(void);
NESTBOX_IMPORT("time", "alarm") void nestbox_alarm(u64 delay_ns, u32 number);
NESTBOX_IMPORT("power", "exit") _Noreturn void nestbox_exit(u32 status);

enum { RAM, IOMMU, PCI_CONFIG, PCI_MEMORY32, PCI_MEMORY64, MSI_PAGE, IDENTITY, SMMUV3, PLATFORM_EDU };

/* Guest-physical address of a pointer. Make what devices read or write `volatile`. */
static inline u64 gpa_of(const volatile void *pointer) { return 0x80000000ull + (u32)pointer; }

static inline u32 mmio_read32(u64 address) { return nestbox_load32((u32)address, (u32)(address >> 32)); }
static inline void mmio_write32(u64 address, u32 value) {
  nestbox_store32((u32)address, (u32)(address >> 32), value);
}
static inline u64 mmio_read64(u64 address) {
  u32 low = nestbox_load64((u32)address, (u32)(address >> 32));
  return (u64)nestbox_high_half() << 32 | low;
}
static inline void mmio_write64(u64 address, u64 value) {
  nestbox_store64((u32)address, (u32)(address >> 32), (u32)value, (u32)(value >> 32));
}

#endif
