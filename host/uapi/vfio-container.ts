// VFIO's group and container user API of Linux 7.2 (uapi linux/vfio.h): what /dev/vfio/$GROUP and /dev/vfio/vfio answer. Byte for
// byte; a sibling of vfio.ts, which has the device's half.

import { layout, u16, u32, u64 } from "../base/layout.ts";

const BASE = 0x3b00 + 100;

export const VFIO_GET_API_VERSION = BASE;
export const VFIO_CHECK_EXTENSION = BASE + 1;
export const VFIO_SET_IOMMU = BASE + 2;
export const VFIO_GROUP_GET_STATUS = BASE + 3;
export const VFIO_GROUP_SET_CONTAINER = BASE + 4;
export const VFIO_GROUP_UNSET_CONTAINER = BASE + 5;
export const VFIO_GROUP_GET_DEVICE_FD = BASE + 6;
export const VFIO_IOMMU_GET_INFO = BASE + 12;
export const VFIO_IOMMU_MAP_DMA = BASE + 13;
export const VFIO_IOMMU_UNMAP_DMA = BASE + 14;
export const VFIO_IOMMU_DIRTY_PAGES = BASE + 17;

/** VFIO_GET_API_VERSION's answer. */
export const VFIO_API_VERSION = 0;

/** Extensions, and types of SET_IOMMU. */
export const VFIO_TYPE1_IOMMU = 1;
export const VFIO_TYPE1v2_IOMMU = 3;
export const VFIO_DMA_CC_IOMMU = 4;
export const VFIO_NOIOMMU_IOMMU = 8;
export const VFIO_UNMAP_ALL = 9;
export const VFIO_UPDATE_VADDR = 10;

export const VFIO_GROUP_FLAGS_VIABLE = 1;
export const VFIO_GROUP_FLAGS_CONTAINER_SET = 2;

export const vfioGroupStatus = layout("vfio_group_status", 8, { argsz: u32(0), flags: u32(4) });

export const VFIO_IOMMU_INFO_PGSIZES = 1;
export const VFIO_IOMMU_INFO_CAPS = 2;

export const vfioIommuType1Info = layout("vfio_iommu_type1_info", 24, {
  argsz: u32(0),
  flags: u32(4),
  iova_pgsizes: u64(8),
  cap_offset: u32(16),
  pad: u32(20),
});

const capabilityHeader = { id: u16(0), version: u16(2), next: u32(4) } as const;
export const VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE = 1;
export const VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION = 2;
export const VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL = 3;

/** Followed by `nr_iovas` vfio_iova_range. */
export const vfioIommuType1InfoCapIovaRange = layout("vfio_iommu_type1_info_cap_iova_range", 16, {
  ...capabilityHeader,
  nr_iovas: u32(8),
  reserved: u32(12),
});
export const vfioIovaRange = layout("vfio_iova_range", 16, { start: u64(0), end: u64(8) });
export const vfioIommuType1InfoCapMigration = layout("vfio_iommu_type1_info_cap_migration", 32, {
  ...capabilityHeader,
  flags: u32(8),
  pgsize_bitmap: u64(16),
  max_dirty_bitmap_size: u64(24),
});
export const vfioIommuType1InfoDmaAvail = layout("vfio_iommu_type1_info_dma_avail", 12, {
  ...capabilityHeader,
  avail: u32(8),
});

export const VFIO_DMA_MAP_FLAG_READ = 1;
export const VFIO_DMA_MAP_FLAG_WRITE = 2;
export const VFIO_DMA_MAP_FLAG_VADDR = 4;

export const vfioIommuType1DmaMap = layout("vfio_iommu_type1_dma_map", 32, {
  argsz: u32(0),
  flags: u32(4),
  vaddr: u64(8),
  iova: u64(16),
  size: u64(24),
});

export const VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP = 1;
export const VFIO_DMA_UNMAP_FLAG_ALL = 2;
export const VFIO_DMA_UNMAP_FLAG_VADDR = 4;

/** With GET_DIRTY_BITMAP followed by a vfio_bitmap. */
export const vfioIommuType1DmaUnmap = layout("vfio_iommu_type1_dma_unmap", 24, {
  argsz: u32(0),
  flags: u32(4),
  iova: u64(8),
  size: u64(16),
});

export const vfioBitmap = layout("vfio_bitmap", 24, { pgsize: u64(0), size: u64(8), data: u64(16) });

export const VFIO_IOMMU_DIRTY_PAGES_FLAG_START = 1;
export const VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP = 2;
export const VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP = 4;

/** With GET_BITMAP followed by vfio_iommu_type1_dirty_bitmap_get. */
export const vfioIommuType1DirtyBitmap = layout("vfio_iommu_type1_dirty_bitmap", 8, { argsz: u32(0), flags: u32(4) });
export const vfioIommuType1DirtyBitmapGet = layout("vfio_iommu_type1_dirty_bitmap_get", 40, {
  iova: u64(0),
  size: u64(8),
  pgsize: u64(16),
  bitmap_size: u64(24),
  bitmap_data: u64(32),
});

/** Names, for traces and failure injection. */
export const VFIO_CONTAINER_IOCTLS: ReadonlyMap<number, string> = new Map([
  [VFIO_GET_API_VERSION, "VFIO_GET_API_VERSION"],
  [VFIO_CHECK_EXTENSION, "VFIO_CHECK_EXTENSION"],
  [VFIO_SET_IOMMU, "VFIO_SET_IOMMU"],
  [VFIO_IOMMU_GET_INFO, "VFIO_IOMMU_GET_INFO"],
  [VFIO_IOMMU_MAP_DMA, "VFIO_IOMMU_MAP_DMA"],
  [VFIO_IOMMU_UNMAP_DMA, "VFIO_IOMMU_UNMAP_DMA"],
  [VFIO_IOMMU_DIRTY_PAGES, "VFIO_IOMMU_DIRTY_PAGES"],
]);
export const VFIO_GROUP_IOCTLS: ReadonlyMap<number, string> = new Map([
  [VFIO_GROUP_GET_STATUS, "VFIO_GROUP_GET_STATUS"],
  [VFIO_GROUP_SET_CONTAINER, "VFIO_GROUP_SET_CONTAINER"],
  [VFIO_GROUP_UNSET_CONTAINER, "VFIO_GROUP_UNSET_CONTAINER"],
  [VFIO_GROUP_GET_DEVICE_FD, "VFIO_GROUP_GET_DEVICE_FD"],
]);
