// Formats of the test kind: a list of runs, registers, and the numbers of its half of the kernel's interface.

import { layout, u32, u64 } from "../../host/base/layout.ts";

/** Entries of a list: IOVA page, target page, pages, permissions; u64 each. */
export const RUN_BYTES = 32;
export const RUNS = 4096 / RUN_BYTES;
export const READ = 1;
export const WRITE = 2;

/** Registers of the hardware: DEVICE chooses whose MODE, STAGE1 and STAGE2 are written; MODE takes effect at once. */
export const HW = {
  DEVICE: 0x00,
  MODE: 0x04,
  STAGE1: 0x08,
  STAGE2: 0x10,
  /** A device, or ALL: cached translations are forgotten. */
  INVALIDATE: 0x18,
  /** Oldest refused access: its device (ALL: none waits), page and kind; writing FAULT_DEVICE drops it. */
  FAULT_DEVICE: 0x20,
  FAULT_WRITE: 0x24,
  FAULT_PAGE: 0x28,
  /** Guest queue: page of its entries (0: off), and which device a guest's id names (GUEST_ID, then GUEST_DEVICE). */
  QUEUE: 0x30,
  GUEST_ID: 0x38,
  GUEST_DEVICE: 0x3c,
} as const;
export const ALL = 0xffffffff;
export const MODE_BLOCKED = 0;
export const MODE_IDENTITY = 1;
export const MODE_STAGE2 = 2;
export const MODE_NESTED = 3;

/** The hardware's page for a guest: TAIL starts the queue's entries (u32 guest id of a device to forget, or ALL). */
export const PAGE = { TAIL: 0, HEAD: 4 } as const;
export const QUEUE_ENTRIES = 1024;

export const HW_INFO = 0x7e57_0001;
export const VIOMMU = 0x7e57_0002;
/** A vIOMMU with a queue of the guest's own. */
export const VIOMMU_QUEUES = 0x7e57_0003;
export const STAGE1 = 0x7e57_0004;
export const INVALIDATION = 0x7e57_0005;
export const EVENTS = 0x7e57_0006;
export const QUEUE = 0x7e57_0007;

/** `table` 0: blocked; all ones: bypass; else the guest-physical page of a list of runs. */
export const stage1Data = layout("trivial_stage1", 8, { table: u64(0) });
export const BYPASS = 0xffff_ffff_ffff_ffffn;
/** One device, by the guest's id, or ALL. */
export const invalidationData = layout("trivial_invalidation", 8, { device: u32(0), reserved: u32(4) });
export const eventData = layout("trivial_event", 16, { device: u32(0), write: u32(4), page: u64(8) });
export const queueReply = layout("trivial_viommu", 16, { offset: u64(0), length: u64(8) });

/** Registers of the guest-visible half. */
export const GUEST = {
  DEVICE: 0x00,
  /** u64: `table` of the chosen device's stage 1, as in stage1Data. */
  STAGE1: 0x08,
  INVALIDATE: 0x10,
  /** As the hardware's. */
  FAULT_DEVICE: 0x20,
  FAULT_WRITE: 0x24,
  FAULT_PAGE: 0x28,
  /** For the shape without nesting: DOMAIN, IOVA, GPA, LENGTH (u64, bytes), then OPERATION. */
  DOMAIN: 0x40,
  OPERATION: 0x44,
  IOVA: 0x48,
  GPA: 0x50,
  LENGTH: 0x58,
  /** Errno of the last OPERATION or QUEUE, positive. */
  STATUS: 0x60,
  /** u64: guest-physical address of the queue's page; the hardware's page then stands at QUEUE_PAGE. */
  QUEUE: 0x68,
} as const;
export const OPERATION_ENTER = 1;
export const OPERATION_MAP = 2;
export const OPERATION_UNMAP = 3;
export const GUEST_REGISTER_BYTES = 4096;
export const QUEUE_PAGE = 4096;
