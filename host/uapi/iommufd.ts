// The iommufd user API of Linux 7.2 (uapi linux/iommufd.h): request numbers, structures byte for byte, constants. Layouts are
// tables (host/base/layout.ts); offsets were produced by compiling offsetof against the exported headers.
//
// Every request is _IO(';', nr): no size and no direction in the number. Every structure begins with its own size, as the caller
// knows it; what the kernel accepts is in host/kernel/iommufd/ioctl-table.ts.

import { type Layout, type LayoutField, layout, s32, u8, u16, u32, u64 } from "../base/layout.ts";

const TYPE = 0x3b00;

export const IOMMU_DESTROY = TYPE | 0x80;
export const IOMMU_IOAS_ALLOC = TYPE | 0x81;
export const IOMMU_IOAS_ALLOW_IOVAS = TYPE | 0x82;
export const IOMMU_IOAS_COPY = TYPE | 0x83;
export const IOMMU_IOAS_IOVA_RANGES = TYPE | 0x84;
export const IOMMU_IOAS_MAP = TYPE | 0x85;
export const IOMMU_IOAS_UNMAP = TYPE | 0x86;
export const IOMMU_OPTION = TYPE | 0x87;
export const IOMMU_VFIO_IOAS = TYPE | 0x88;
export const IOMMU_HWPT_ALLOC = TYPE | 0x89;
export const IOMMU_GET_HW_INFO = TYPE | 0x8a;
export const IOMMU_HWPT_SET_DIRTY_TRACKING = TYPE | 0x8b;
export const IOMMU_HWPT_GET_DIRTY_BITMAP = TYPE | 0x8c;
export const IOMMU_HWPT_INVALIDATE = TYPE | 0x8d;
export const IOMMU_FAULT_QUEUE_ALLOC = TYPE | 0x8e;
export const IOMMU_IOAS_MAP_FILE = TYPE | 0x8f;
export const IOMMU_VIOMMU_ALLOC = TYPE | 0x90;
export const IOMMU_VDEVICE_ALLOC = TYPE | 0x91;
export const IOMMU_IOAS_CHANGE_PROCESS = TYPE | 0x92;
export const IOMMU_VEVENTQ_ALLOC = TYPE | 0x93;
export const IOMMU_HW_QUEUE_ALLOC = TYPE | 0x94;

export const iommuDestroy = layout("iommu_destroy", 8, { size: u32(0), id: u32(4) });

export const iommuIoasAlloc = layout("iommu_ioas_alloc", 12, { size: u32(0), flags: u32(4), out_ioas_id: u32(8) });

export const iommuIoasAllowIovas = layout("iommu_ioas_allow_iovas", 24, {
  size: u32(0),
  ioas_id: u32(4),
  num_iovas: u32(8),
  __reserved: u32(12),
  allowed_iovas: u64(16),
});

/** One element of ALLOW_IOVAS and IOVA_RANGES. */
export const iommuIovaRange = layout("iommu_iova_range", 16, { start: u64(0), last: u64(8) });

export const iommuIoasIovaRanges = layout("iommu_ioas_iova_ranges", 32, {
  size: u32(0),
  ioas_id: u32(4),
  num_iovas: u32(8),
  __reserved: u32(12),
  allowed_iovas: u64(16),
  out_iova_alignment: u64(24),
});

export const IOMMU_IOAS_MAP_FIXED_IOVA = 1;
export const IOMMU_IOAS_MAP_WRITEABLE = 2;
export const IOMMU_IOAS_MAP_READABLE = 4;

export const iommuIoasMap = layout("iommu_ioas_map", 40, {
  size: u32(0),
  flags: u32(4),
  ioas_id: u32(8),
  __reserved: u32(12),
  user_va: u64(16),
  length: u64(24),
  iova: u64(32),
});

export const iommuIoasMapFile = layout("iommu_ioas_map_file", 40, {
  size: u32(0),
  flags: u32(4),
  ioas_id: u32(8),
  fd: s32(12),
  start: u64(16),
  length: u64(24),
  iova: u64(32),
});

export const iommuIoasCopy = layout("iommu_ioas_copy", 40, {
  size: u32(0),
  flags: u32(4),
  dst_ioas_id: u32(8),
  src_ioas_id: u32(12),
  length: u64(16),
  dst_iova: u64(24),
  src_iova: u64(32),
});

export const iommuIoasUnmap = layout("iommu_ioas_unmap", 24, {
  size: u32(0),
  ioas_id: u32(4),
  iova: u64(8),
  length: u64(16),
});

export const IOMMU_OPTION_RLIMIT_MODE = 0;
export const IOMMU_OPTION_HUGE_PAGES = 1;
export const IOMMU_OPTION_OP_SET = 0;
export const IOMMU_OPTION_OP_GET = 1;

export const iommuOption = layout("iommu_option", 24, {
  size: u32(0),
  option_id: u32(4),
  op: u16(8),
  __reserved: u16(10),
  object_id: u32(12),
  val64: u64(16),
});

export const IOMMU_VFIO_IOAS_GET = 0;
export const IOMMU_VFIO_IOAS_SET = 1;
export const IOMMU_VFIO_IOAS_CLEAR = 2;

export const iommuVfioIoas = layout("iommu_vfio_ioas", 12, {
  size: u32(0),
  ioas_id: u32(4),
  op: u16(8),
  __reserved: u16(10),
});

export const IOMMU_HWPT_ALLOC_NEST_PARENT = 1;
export const IOMMU_HWPT_ALLOC_DIRTY_TRACKING = 2;
export const IOMMU_HWPT_FAULT_ID_VALID = 4;
export const IOMMU_HWPT_ALLOC_PASID = 8;
export const IOMMU_HWPT_DATA_NONE = 0;

export const iommuHwptAlloc = layout("iommu_hwpt_alloc", 48, {
  size: u32(0),
  flags: u32(4),
  dev_id: u32(8),
  pt_id: u32(12),
  out_hwpt_id: u32(16),
  __reserved: u32(20),
  data_type: u32(24),
  data_len: u32(28),
  data_uptr: u64(32),
  fault_id: u32(40),
  __reserved2: u32(44),
});

export const IOMMU_HW_INFO_FLAG_INPUT_TYPE = 1;
export const IOMMU_HW_INFO_TYPE_NONE = 0;
export const IOMMU_HW_INFO_TYPE_DEFAULT = 0;
export const IOMMU_HW_CAP_DIRTY_TRACKING = 1;
export const IOMMU_HW_CAP_PCI_PASID_EXEC = 2;
export const IOMMU_HW_CAP_PCI_PASID_PRIV = 4;
export const IOMMU_HW_CAP_PCI_ATS_NOT_SUPPORTED = 8;

/** `data_type` is in_data_type on the way in, out_data_type on the way out. */
export const iommuHwInfo = layout("iommu_hw_info", 40, {
  size: u32(0),
  flags: u32(4),
  dev_id: u32(8),
  data_len: u32(12),
  data_uptr: u64(16),
  data_type: u32(24),
  out_max_pasid_log2: u8(28),
  __reserved0: u8(29),
  __reserved1: u8(30),
  __reserved2: u8(31),
  out_capabilities: u64(32),
});

export const IOMMU_HWPT_DIRTY_TRACKING_ENABLE = 1;

export const iommuHwptSetDirtyTracking = layout("iommu_hwpt_set_dirty_tracking", 16, {
  size: u32(0),
  flags: u32(4),
  hwpt_id: u32(8),
  __reserved: u32(12),
});

export const IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR = 1;

export const iommuHwptGetDirtyBitmap = layout("iommu_hwpt_get_dirty_bitmap", 48, {
  size: u32(0),
  hwpt_id: u32(4),
  flags: u32(8),
  __reserved: u32(12),
  iova: u64(16),
  length: u64(24),
  page_size: u64(32),
  data: u64(40),
});

export const iommuHwptInvalidate = layout("iommu_hwpt_invalidate", 32, {
  size: u32(0),
  hwpt_id: u32(4),
  data_uptr: u64(8),
  data_type: u32(16),
  entry_len: u32(20),
  entry_num: u32(24),
  __reserved: u32(28),
});

export const iommuFaultAlloc = layout("iommu_fault_alloc", 16, {
  size: u32(0),
  flags: u32(4),
  out_fault_id: u32(8),
  out_fault_fd: u32(12),
});

export const IOMMU_PGFAULT_FLAGS_PASID_VALID = 1;
export const IOMMU_PGFAULT_FLAGS_LAST_PAGE = 2;
export const IOMMUFD_PAGE_RESP_SUCCESS = 0;
export const IOMMUFD_PAGE_RESP_INVALID = 1;

/** One message read from a fault queue's file. */
export const iommuHwptPgfault = layout("iommu_hwpt_pgfault", 40, {
  flags: u32(0),
  dev_id: u32(4),
  pasid: u32(8),
  grpid: u32(12),
  perm: u32(16),
  __reserved: u32(20),
  addr: u64(24),
  length: u32(32),
  cookie: u32(36),
});

/** One answer written to a fault queue's file. */
export const iommuHwptPageResponse = layout("iommu_hwpt_page_response", 8, { cookie: u32(0), code: u32(4) });

export const iommuViommuAlloc = layout("iommu_viommu_alloc", 40, {
  size: u32(0),
  flags: u32(4),
  type: u32(8),
  dev_id: u32(12),
  hwpt_id: u32(16),
  out_viommu_id: u32(20),
  data_len: u32(24),
  __reserved: u32(28),
  data_uptr: u64(32),
});

export const iommuVdeviceAlloc = layout("iommu_vdevice_alloc", 24, {
  size: u32(0),
  viommu_id: u32(4),
  dev_id: u32(8),
  out_vdevice_id: u32(12),
  virt_id: u64(16),
});

export const iommuIoasChangeProcess = layout("iommu_ioas_change_process", 8, { size: u32(0), __reserved: u32(4) });

export const iommuVeventqAlloc = layout("iommu_veventq_alloc", 32, {
  size: u32(0),
  flags: u32(4),
  viommu_id: u32(8),
  type: u32(12),
  veventq_depth: u32(16),
  out_veventq_id: u32(20),
  out_veventq_fd: u32(24),
  __reserved: u32(28),
});

export const IOMMU_VEVENTQ_FLAG_LOST_EVENTS = 1;

/** What precedes every event read from a vEVENTQ's file. */
export const iommufdVeventHeader = layout("iommufd_vevent_header", 8, { flags: u32(0), sequence: u32(4) });

export const iommuHwQueueAlloc = layout("iommu_hw_queue_alloc", 40, {
  size: u32(0),
  flags: u32(4),
  viommu_id: u32(8),
  type: u32(12),
  index: u32(16),
  out_hw_queue_id: u32(20),
  nesting_parent_iova: u64(24),
  length: u64(32),
});

/** A request's name, structure, and the smallest size of it that is accepted (end of the fields the first version had). */
export interface IoctlDescription {
  readonly name: string;
  readonly layout: Layout<Record<string, LayoutField>>;
  readonly minimum: number;
}

function entry(name: string, structure: unknown, minimum: number): IoctlDescription {
  return { name, layout: structure as Layout<Record<string, LayoutField>>, minimum };
}

/** Every request of the interface. */
export const IOMMUFD_IOCTLS: ReadonlyMap<number, IoctlDescription> = new Map([
  [IOMMU_DESTROY, entry("IOMMU_DESTROY", iommuDestroy, 8)],
  [IOMMU_IOAS_ALLOC, entry("IOMMU_IOAS_ALLOC", iommuIoasAlloc, 12)],
  [IOMMU_IOAS_ALLOW_IOVAS, entry("IOMMU_IOAS_ALLOW_IOVAS", iommuIoasAllowIovas, 24)],
  [IOMMU_IOAS_COPY, entry("IOMMU_IOAS_COPY", iommuIoasCopy, 40)],
  [IOMMU_IOAS_IOVA_RANGES, entry("IOMMU_IOAS_IOVA_RANGES", iommuIoasIovaRanges, 32)],
  [IOMMU_IOAS_MAP, entry("IOMMU_IOAS_MAP", iommuIoasMap, 40)],
  [IOMMU_IOAS_UNMAP, entry("IOMMU_IOAS_UNMAP", iommuIoasUnmap, 24)],
  [IOMMU_OPTION, entry("IOMMU_OPTION", iommuOption, 24)],
  [IOMMU_VFIO_IOAS, entry("IOMMU_VFIO_IOAS", iommuVfioIoas, 12)],
  [IOMMU_HWPT_ALLOC, entry("IOMMU_HWPT_ALLOC", iommuHwptAlloc, 24)],
  [IOMMU_GET_HW_INFO, entry("IOMMU_GET_HW_INFO", iommuHwInfo, 32)],
  [IOMMU_HWPT_SET_DIRTY_TRACKING, entry("IOMMU_HWPT_SET_DIRTY_TRACKING", iommuHwptSetDirtyTracking, 16)],
  [IOMMU_HWPT_GET_DIRTY_BITMAP, entry("IOMMU_HWPT_GET_DIRTY_BITMAP", iommuHwptGetDirtyBitmap, 48)],
  [IOMMU_HWPT_INVALIDATE, entry("IOMMU_HWPT_INVALIDATE", iommuHwptInvalidate, 32)],
  [IOMMU_FAULT_QUEUE_ALLOC, entry("IOMMU_FAULT_QUEUE_ALLOC", iommuFaultAlloc, 16)],
  [IOMMU_IOAS_MAP_FILE, entry("IOMMU_IOAS_MAP_FILE", iommuIoasMapFile, 40)],
  [IOMMU_VIOMMU_ALLOC, entry("IOMMU_VIOMMU_ALLOC", iommuViommuAlloc, 24)],
  [IOMMU_VDEVICE_ALLOC, entry("IOMMU_VDEVICE_ALLOC", iommuVdeviceAlloc, 24)],
  [IOMMU_IOAS_CHANGE_PROCESS, entry("IOMMU_IOAS_CHANGE_PROCESS", iommuIoasChangeProcess, 8)],
  [IOMMU_VEVENTQ_ALLOC, entry("IOMMU_VEVENTQ_ALLOC", iommuVeventqAlloc, 28)],
  [IOMMU_HW_QUEUE_ALLOC, entry("IOMMU_HW_QUEUE_ALLOC", iommuHwQueueAlloc, 40)],
]);

/**
 * Name and decoded fields of a request, for traces: `bytes` are the structure's bytes after the call (short is fine, missing
 * fields read 0). null for a request that is not iommufd's own.
 */
export function describeIoctl(
  request: number,
  bytes: Uint8Array,
): { name: string; fields: Record<string, bigint | number> } | null {
  const description = IOMMUFD_IOCTLS.get(request);
  if (description === undefined) return null;
  const fields: Record<string, bigint | number> = {};
  for (const [name, value] of Object.entries(description.layout.decode(bytes))) {
    if (name !== "size" && !name.startsWith("__reserved")) fields[name] = value;
  }
  return { name: description.name, fields };
}
