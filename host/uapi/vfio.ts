// The VFIO device cdev's user API of Linux 7.2 (uapi linux/vfio.h): request numbers, structures byte for byte, constants.
//
// Every request is _IO(';', 100 + n). Structures begin with argsz, the caller's size of them, and flags.

import { type Layout, type LayoutField, layout, s32, u16, u32, u64 } from "../base/layout.ts";

const BASE = 0x3b00 + 100;

export const VFIO_DEVICE_GET_INFO = BASE + 7;
export const VFIO_DEVICE_GET_REGION_INFO = BASE + 8;
export const VFIO_DEVICE_GET_IRQ_INFO = BASE + 9;
export const VFIO_DEVICE_SET_IRQS = BASE + 10;
export const VFIO_DEVICE_RESET = BASE + 11;
export const VFIO_DEVICE_GET_PCI_HOT_RESET_INFO = BASE + 12;
export const VFIO_DEVICE_PCI_HOT_RESET = BASE + 13;
export const VFIO_DEVICE_FEATURE = BASE + 17;
export const VFIO_DEVICE_BIND_IOMMUFD = BASE + 18;
export const VFIO_DEVICE_ATTACH_IOMMUFD_PT = BASE + 19;
export const VFIO_DEVICE_DETACH_IOMMUFD_PT = BASE + 20;

export const VFIO_DEVICE_FLAGS_RESET = 1;
export const VFIO_DEVICE_FLAGS_PCI = 2;
export const VFIO_DEVICE_FLAGS_PLATFORM = 4;
export const VFIO_DEVICE_FLAGS_CAPS = 128;

export const vfioDeviceInfo = layout("vfio_device_info", 24, {
  argsz: u32(0),
  flags: u32(4),
  num_regions: u32(8),
  num_irqs: u32(12),
  cap_offset: u32(16),
  pad: u32(20),
});

export const VFIO_REGION_INFO_FLAG_READ = 1;
export const VFIO_REGION_INFO_FLAG_WRITE = 2;
export const VFIO_REGION_INFO_FLAG_MMAP = 4;
export const VFIO_REGION_INFO_FLAG_CAPS = 8;

export const vfioRegionInfo = layout("vfio_region_info", 32, {
  argsz: u32(0),
  flags: u32(4),
  index: u32(8),
  cap_offset: u32(12),
  size: u64(16),
  offset: u64(24),
});

/** Capability chains of GET_INFO and GET_REGION_INFO. */
export const vfioInfoCapHeader = layout("vfio_info_cap_header", 8, { id: u16(0), version: u16(2), next: u32(4) });
export const VFIO_REGION_INFO_CAP_SPARSE_MMAP = 1;
export const VFIO_REGION_INFO_CAP_TYPE = 2;
export const VFIO_REGION_INFO_CAP_MSIX_MAPPABLE = 3;

export const VFIO_IRQ_INFO_EVENTFD = 1;
export const VFIO_IRQ_INFO_MASKABLE = 2;
export const VFIO_IRQ_INFO_AUTOMASKED = 4;
export const VFIO_IRQ_INFO_NORESIZE = 8;

export const vfioIrqInfo = layout("vfio_irq_info", 16, {
  argsz: u32(0),
  flags: u32(4),
  index: u32(8),
  count: u32(12),
});

export const VFIO_IRQ_SET_DATA_NONE = 1;
export const VFIO_IRQ_SET_DATA_BOOL = 2;
export const VFIO_IRQ_SET_DATA_EVENTFD = 4;
export const VFIO_IRQ_SET_ACTION_MASK = 8;
export const VFIO_IRQ_SET_ACTION_UNMASK = 16;
export const VFIO_IRQ_SET_ACTION_TRIGGER = 32;
export const VFIO_IRQ_SET_DATA_TYPE_MASK = 7;
export const VFIO_IRQ_SET_ACTION_TYPE_MASK = 56;

/** Followed by `count` bytes (BOOL) or s32 eventfds (EVENTFD, -1: none). */
export const vfioIrqSet = layout("vfio_irq_set", 20, {
  argsz: u32(0),
  flags: u32(4),
  index: u32(8),
  start: u32(12),
  count: u32(16),
});

export const VFIO_PCI_BAR0_REGION_INDEX = 0;
export const VFIO_PCI_ROM_REGION_INDEX = 6;
export const VFIO_PCI_CONFIG_REGION_INDEX = 7;
export const VFIO_PCI_VGA_REGION_INDEX = 8;
export const VFIO_PCI_NUM_REGIONS = 9;

export const VFIO_PCI_INTX_IRQ_INDEX = 0;
export const VFIO_PCI_MSI_IRQ_INDEX = 1;
export const VFIO_PCI_MSIX_IRQ_INDEX = 2;
export const VFIO_PCI_ERR_IRQ_INDEX = 3;
export const VFIO_PCI_REQ_IRQ_INDEX = 4;
export const VFIO_PCI_NUM_IRQS = 5;

export const VFIO_DEVICE_BIND_FLAG_TOKEN = 1;

export const vfioDeviceBindIommufd = layout("vfio_device_bind_iommufd", 24, {
  argsz: u32(0),
  flags: u32(4),
  iommufd: s32(8),
  out_devid: u32(12),
  token_uuid_ptr: u64(16),
});

export const VFIO_DEVICE_ATTACH_PASID = 1;
export const VFIO_DEVICE_DETACH_PASID = 1;

export const vfioDeviceAttachIommufdPt = layout("vfio_device_attach_iommufd_pt", 16, {
  argsz: u32(0),
  flags: u32(4),
  pt_id: u32(8),
  pasid: u32(12),
});

export const vfioDeviceDetachIommufdPt = layout("vfio_device_detach_iommufd_pt", 12, {
  argsz: u32(0),
  flags: u32(4),
  pasid: u32(8),
});

export const VFIO_PCI_HOT_RESET_FLAG_DEV_ID = 1;
export const VFIO_PCI_HOT_RESET_FLAG_DEV_ID_OWNED = 2;

/** Followed by `count` vfio_pci_dependent_device. */
export const vfioPciHotResetInfo = layout("vfio_pci_hot_reset_info", 12, {
  argsz: u32(0),
  flags: u32(4),
  count: u32(8),
});

/** `id` is the group's, or with DEV_ID the device's in this iommufd (0 owned, -1 not owned). */
export const vfioPciDependentDevice = layout("vfio_pci_dependent_device", 8, {
  id: s32(0),
  segment: u16(4),
  busDevfn: u16(6),
});

/** Followed by `count` s32 group fds (0 for a cdev-opened device). */
export const vfioPciHotReset = layout("vfio_pci_hot_reset", 12, { argsz: u32(0), flags: u32(4), count: u32(8) });

export const VFIO_DEVICE_FEATURE_MASK = 0xffff;
export const VFIO_DEVICE_FEATURE_GET = 1 << 16;
export const VFIO_DEVICE_FEATURE_SET = 1 << 17;
export const VFIO_DEVICE_FEATURE_PROBE = 1 << 18;

export const VFIO_DEVICE_FEATURE_DMA_LOGGING_START = 6;
export const VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP = 7;
export const VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT = 8;

/** Data of DMA_LOGGING_START; `ranges` points at an array of the next. */
export const vfioDeviceFeatureDmaLoggingControl = layout("vfio_device_feature_dma_logging_control", 24, {
  page_size: u64(0),
  num_ranges: u32(8),
  __reserved: u32(12),
  ranges: u64(16),
});
export const vfioDeviceFeatureDmaLoggingRange = layout("vfio_device_feature_dma_logging_range", 16, {
  iova: u64(0),
  length: u64(8),
});
/** Data of DMA_LOGGING_REPORT. */
export const vfioDeviceFeatureDmaLoggingReport = layout("vfio_device_feature_dma_logging_report", 32, {
  iova: u64(0),
  length: u64(8),
  page_size: u64(16),
  bitmap: u64(24),
});

/** Followed by the feature's own data. */
export const vfioDeviceFeature = layout("vfio_device_feature", 8, { argsz: u32(0), flags: u32(4) });

/** A request's name and structure, for traces. */
export interface VfioIoctlDescription {
  readonly name: string;
  readonly layout: Layout<Record<string, LayoutField>> | null;
}

const entry = (name: string, structure: unknown): VfioIoctlDescription => ({
  name,
  layout: structure as Layout<Record<string, LayoutField>> | null,
});

export const VFIO_DEVICE_IOCTLS: ReadonlyMap<number, VfioIoctlDescription> = new Map([
  [VFIO_DEVICE_GET_INFO, entry("VFIO_DEVICE_GET_INFO", vfioDeviceInfo)],
  [VFIO_DEVICE_GET_REGION_INFO, entry("VFIO_DEVICE_GET_REGION_INFO", vfioRegionInfo)],
  [VFIO_DEVICE_GET_IRQ_INFO, entry("VFIO_DEVICE_GET_IRQ_INFO", vfioIrqInfo)],
  [VFIO_DEVICE_SET_IRQS, entry("VFIO_DEVICE_SET_IRQS", vfioIrqSet)],
  [VFIO_DEVICE_RESET, entry("VFIO_DEVICE_RESET", null)],
  [VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, entry("VFIO_DEVICE_GET_PCI_HOT_RESET_INFO", vfioPciHotResetInfo)],
  [VFIO_DEVICE_PCI_HOT_RESET, entry("VFIO_DEVICE_PCI_HOT_RESET", vfioPciHotReset)],
  [VFIO_DEVICE_FEATURE, entry("VFIO_DEVICE_FEATURE", vfioDeviceFeature)],
  [VFIO_DEVICE_BIND_IOMMUFD, entry("VFIO_DEVICE_BIND_IOMMUFD", vfioDeviceBindIommufd)],
  [VFIO_DEVICE_ATTACH_IOMMUFD_PT, entry("VFIO_DEVICE_ATTACH_IOMMUFD_PT", vfioDeviceAttachIommufdPt)],
  [VFIO_DEVICE_DETACH_IOMMUFD_PT, entry("VFIO_DEVICE_DETACH_IOMMUFD_PT", vfioDeviceDetachIommufdPt)],
]);
