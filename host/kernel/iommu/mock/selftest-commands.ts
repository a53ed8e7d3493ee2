// IOMMU_TEST_CMD: what Linux's selftests ask of the mock driver through the iommufd itself (iommufd_test.h of Linux 7.2: one
// structure, `op` says which part of its union is meant). Only contexts made with these extra requests have it.

import { layout, s32, u32, u64 } from "../../../base/layout.ts";
import { NO_PASID } from "../../../devices/ports.ts";
import { EBADE, EBADFD, EFAULT, EINVAL, EIO, ENOENT, ENOMEM, EOPNOTSUPP, EOVERFLOW } from "../../../uapi/errno.ts";
import type { CallContext, FrameRun } from "../../file.ts";
import type { IommufdCommand } from "../../iommufd/command.ts";
import type { ExtraRequest } from "../../iommufd/environment.ts";
import { type HwPagetable, HwptNested, HwptPaging } from "../../iommufd/hw-pagetable.ts";
import {
  attachAccess,
  attachDevice,
  type BoundDevice,
  bindDevice,
  copyBytes,
  createAccess,
  destroyAccess,
  detachDevice,
  pinPages,
  replaceAccess,
  replaceDevice,
  unbindDevice,
  unpinPages,
} from "../../iommufd/in-kernel.ts";
import type { Ioas } from "../../iommufd/ioas.ts";
import { U64_MAX } from "../../iommufd/iova-ranges.ts";
import { IommufdObject } from "../../iommufd/object-table.ts";
import { readUser, writeUser } from "../../iommufd/user-copy.ts";
import type { IommuCore } from "../core.ts";
import { MOCK_FLAGS_DEVICE_NO_DIRTY, MOCK_FLAGS_DEVICE_PASID, MockDevice } from "./mock-device.ts";
import { MockNestedDomain, MockPagingDomain } from "./mock-domain.ts";
import type { MockDriver } from "./mock-driver.ts";
import { DMA_BUFFER_FRAMES, TestAccessFile, TestDmaBufferFile } from "./selftest-files.ts";

export const IOMMU_TEST_CMD = 0x3ba0;
const BYTES = 72;
const MINIMUM = 68;
const VEVENT_TYPE = 0xbeefbeef;
const MAX_COPY = 16n * 1024n * 1024n;

const head = layout("iommu_test_cmd", BYTES, { size: u32(0), op: u32(4), id: u32(8) });
const range = layout("iommu_test_cmd", BYTES, { start: u64(16), length: u64(24), uptr: u64(32), flags: u32(40) });
const mockDomain = layout("iommu_test_cmd", BYTES, {
  out_stdev_id: u32(16),
  out_hwpt_id: u32(20),
  out_idev_id: u32(24),
  dev_flags: u32(28),
});
const checkRefs = layout("iommu_test_cmd", BYTES, { length: u64(16), uptr: u64(24), refs: u32(32) });
const words = layout("iommu_test_cmd", BYTES, { first: u32(16), second: u32(20) });
const accessPages = layout("iommu_test_cmd", BYTES, {
  flags: u32(16),
  out_access_pages_id: u32(20),
  iova: u64(24),
  length: u64(32),
  uptr: u64(40),
});
const dirty = layout("iommu_test_cmd", BYTES, {
  flags: u32(16),
  iova: u64(24),
  length: u64(32),
  page_size: u64(40),
  uptr: u64(48),
  out_nr_dirty: u64(56),
});
const iopf = layout("iommu_test_cmd", BYTES, {
  dev_id: u32(16),
  pasid: u32(20),
  grpid: u32(24),
  perm: u32(28),
  addr: u64(32),
});
const revoke = layout("iommu_test_cmd", BYTES, { fd: s32(16), revoked: u32(20) });

const ACCESS_NEEDS_PIN = 1;
const ACCESS_WRITE = 1;
const ACCESS_SLOW_PATH = 4;

/** A mock device with its binding, as an object: DESTROY detaches and unbinds. */
class SelftestDevice extends IommufdObject {
  readonly type = "selftest";
  readonly #iommu: IommuCore;
  device: MockDevice | null = null;
  bound: BoundDevice | null = null;

  constructor(iommu: IommuCore) {
    super();
    this.#iommu = iommu;
  }

  override destroy(): void {
    if (this.bound !== null) {
      // Linux expects the test to have detached its PASIDs before; here that is nobody's obligation.
      for (const pasid of [...this.bound.group.attachments.keys()]) detachDevice(this.bound, pasid);
      unbindDevice(this.bound);
    }
    if (this.device !== null) this.#iommu.removeDevice(this.device);
  }
}

type Operation = (command: IommufdCommand, id: number) => number;

/** The request, for the environment's `extraRequests`. */
export function selftestCommands(driver: MockDriver): ReadonlyMap<number, ExtraRequest> {
  let nextDevice = 0;
  let nextFrame = DMA_BUFFER_FRAMES;

  const makeDevice: (withFlags: boolean) => Operation = (withFlags) => (command, id) => {
    const { environment } = command.context;
    const selftest = new SelftestDevice(environment.iommu);
    const created = command.create(selftest);
    if (created < 0) return created;
    const flags = withFlags ? mockDomain.decode(command.bytes).dev_flags : 0;
    if ((flags & ~(MOCK_FLAGS_DEVICE_NO_DIRTY | MOCK_FLAGS_DEVICE_PASID)) !== 0) return -EINVAL;
    if (environment.injector.allocation("mock device")) return -ENOMEM;
    const device = new MockDevice(nextDevice++, flags);
    const added = environment.iommu.addDevice(device, driver);
    if (added < 0) return added;
    selftest.device = device;
    const bound = bindDevice(command.context, device);
    if (typeof bound === "number") return bound;
    selftest.bound = bound;
    const hwptId = attachDevice(bound, NO_PASID, id);
    if (hwptId < 0) return hwptId;
    mockDomain.patch(command.bytes, {
      out_stdev_id: selftest.id,
      out_hwpt_id: hwptId,
      out_idev_id: bound.id,
    });
    return command.respond();
  };

  const getDmaBuffer: Operation = (command) => {
    const { call } = command;
    const pages = Math.ceil(words.decode(command.bytes).first / 4096);
    if (pages === 0 || pages > 512) return -EINVAL;
    if (command.context.environment.injector.allocation("dma-buf")) return -ENOMEM;
    const fd = call.descriptors.reserve();
    if (fd < 0) return fd;
    call.descriptors.install(fd, new TestDmaBufferFile(nextFrame, pages * 4096), null);
    // One number is left out: the next buffer never continues this one.
    nextFrame += pages + 1;
    return fd;
  };

  const operations: Readonly<Record<number, Operation>> = {
    1: addReserved,
    2: makeDevice(false),
    3: checkMap,
    4: checkPinCounts,
    5: createTestAccess,
    6: destroyAccessPages,
    7: pinAccessPages,
    8: accessReadWrite,
    9: (command) => (words.decode(command.bytes).first < 12 ? -EINVAL : 0),
    10: replaceDomain,
    11: replaceAccessIoas,
    12: makeDevice(true),
    13: setDirty,
    14: checkIotlb,
    15: triggerPageRequest,
    16: checkCache,
    17: triggerVevent,
    18: attachPasid,
    19: replacePasid,
    20: detachPasid,
    21: checkPasid,
    22: getDmaBuffer,
    23: revokeDmaBuffer,
  };
  return new Map([
    [
      IOMMU_TEST_CMD,
      {
        name: "IOMMU_TEST_CMD",
        bytes: BYTES,
        minimum: MINIMUM,
        handle: (command) => {
          const { op, id } = head.decode(command.bytes);
          return operations[op]?.(command, id) ?? -EOPNOTSUPP;
        },
      },
    ],
  ]);
}

// --- IOAS and domains ---

function addReserved(command: IommufdCommand, id: number): number {
  const { start, length } = range.decode(command.bytes);
  if (length === 0n) return -EINVAL;
  if (start + length - 1n > U64_MAX) return -EOVERFLOW;
  const ioas = command.find<Ioas>(id, "ioas");
  return ioas === null ? -ENOENT : ioas.table.reserve(start, start + length - 1n, null);
}

/** The mock paging domain of an HWPT, or a negated errno. */
function mockPaging(command: IommufdCommand, id: number): MockPagingDomain | number {
  const hwpt = command.find<HwptPaging>(id, "hwpt-paging");
  if (hwpt === null) return -ENOENT;
  return hwpt.domain instanceof MockPagingDomain ? hwpt.domain : -EINVAL;
}

/** Frames of the caller's own pages, as get_user_pages would find them now; nothing stays pinned. */
function framesAt(call: CallContext, va: bigint, pages: number): FrameRun[] | number {
  const runs = call.memory.pin(va, pages, false);
  if (typeof runs !== "number") for (const run of runs) call.frames.pins.unpin(run);
  return runs;
}

function* eachFrame(runs: readonly FrameRun[]): IterableIterator<number> {
  for (const run of runs) for (let i = 0; i < run.count; i++) yield run.frame + i;
}

/** Every IOMMU page of the range leads to the memory behind the same part of [uptr, …). */
function checkMap(command: IommufdCommand, id: number): number {
  const { start: iova, length, uptr } = range.decode(command.bytes);
  const domain = mockPaging(command, id);
  if (typeof domain === "number") return domain;
  const pageBytes = domain.pageSizes & -domain.pageSizes;
  if (((iova | length | uptr) & (pageBytes - 1n)) !== 0n || uptr + length > U64_MAX) return -EINVAL;
  if (length === 0n) return 0;
  const first = (uptr / 4096n) * 4096n;
  const pages = Number((uptr + length - first + 4095n) / 4096n);
  const frames = framesAt(command.call, first, pages);
  if (typeof frames === "number") return frames;
  let page = first;
  for (const frame of eachFrame(frames)) {
    for (let offset = 0n; offset < 4096n; offset += pageBytes) {
      const at = page + offset;
      if (at < uptr || at >= uptr + length) continue;
      if (domain.iovaToPhys(iova + (at - uptr)) !== BigInt(frame) * 4096n + offset) return -EINVAL;
    }
    page += 4096n;
  }
  return 0;
}

/** Every page of the range is pinned exactly `refs` times. */
function checkPinCounts(command: IommufdCommand): number {
  const { length, uptr, refs } = checkRefs.decode(command.bytes);
  if (length % 4096n !== 0n || uptr % 4096n !== 0n || uptr + length > U64_MAX) return -EINVAL;
  if (length === 0n) return 0;
  const frames = framesAt(command.call, uptr, Number(length / 4096n));
  if (typeof frames === "number") return frames;
  for (const frame of eachFrame(frames)) if (command.call.frames.pins.countOf(frame) !== refs) return -EIO;
  return 0;
}

function setDirty(command: IommufdCommand, id: number): number {
  const request = dirty.decode(command.bytes);
  const { iova, length, page_size: pageSize, uptr } = request;
  if (pageSize === 0n || length === 0n || iova % pageSize !== 0n || length % pageSize !== 0n || uptr === 0n)
    return -EINVAL;
  const count = length / pageSize;
  if (count > MAX_COPY * 8n) return -EOVERFLOW;
  const domain = mockPaging(command, id);
  if (typeof domain === "number") return domain;
  if (domain.dirty === undefined || !domain.dirty.tracking) return -EINVAL;
  const bitmap = new Uint8Array(Math.ceil(Number(count) / 8));
  if (readUser(command.call.memory, uptr, bitmap) < 0) return -EFAULT;
  let marked = 0;
  for (let i = 0; i < Number(count); i++) {
    if ((bitmap[i >> 3]! & (1 << (i & 7))) === 0) continue;
    domain.dirty.mark(iova + BigInt(i) * pageSize);
    marked++;
  }
  dirty.patch(command.bytes, { out_nr_dirty: BigInt(marked) });
  return command.respond();
}

function checkIotlb(command: IommufdCommand, id: number): number {
  const { first: index, second: value } = words.decode(command.bytes);
  const hwpt = command.find<HwptNested>(id, "hwpt-nested");
  if (hwpt === null) return -ENOENT;
  if (!(hwpt.domain instanceof MockNestedDomain)) return -EINVAL;
  return hwpt.domain.iotlb[index] === value ? 0 : -EINVAL;
}

// --- devices ---

function selftestDevice(command: IommufdCommand, id: number): BoundDevice | null {
  return command.find<SelftestDevice>(id, "selftest")?.bound ?? null;
}

function mockDevice(command: IommufdCommand, id: number): MockDevice | number {
  const bound = command.find<BoundDevice>(id, "device");
  if (bound === null) return -ENOENT;
  return bound.device instanceof MockDevice ? bound.device : -EINVAL;
}

function replaceDomain(command: IommufdCommand, id: number): number {
  const device = selftestDevice(command, id);
  if (device === null) return -ENOENT;
  const hwptId = replaceDevice(device, NO_PASID, words.decode(command.bytes).first);
  if (hwptId < 0) return hwptId;
  words.patch(command.bytes, { first: hwptId });
  return command.respond();
}

/** 0 is what user space calls the requester id. */
function pasidOf(value: number): number {
  return value === 0 ? NO_PASID : value;
}

function attachPasid(command: IommufdCommand, id: number): number {
  const device = selftestDevice(command, id);
  if (device === null) return -ENOENT;
  const { first: pasid, second: target } = words.decode(command.bytes);
  const hwptId = attachDevice(device, pasidOf(pasid), target);
  if (hwptId < 0) return hwptId;
  words.patch(command.bytes, { second: hwptId });
  const result = command.respond();
  if (result < 0) detachDevice(device, pasidOf(pasid));
  return result;
}

function replacePasid(command: IommufdCommand, id: number): number {
  const device = selftestDevice(command, id);
  if (device === null) return -ENOENT;
  const { first: pasid, second: target } = words.decode(command.bytes);
  const hwptId = replaceDevice(device, pasidOf(pasid), target);
  if (hwptId < 0) return hwptId;
  words.patch(command.bytes, { second: hwptId });
  return command.respond();
}

function detachPasid(command: IommufdCommand, id: number): number {
  const device = selftestDevice(command, id);
  if (device === null) return -ENOENT;
  detachDevice(device, pasidOf(words.decode(command.bytes).first));
  return 0;
}

function checkPasid(command: IommufdCommand, id: number): number {
  const device = selftestDevice(command, id);
  if (device === null) return -ENOENT;
  const { first: pasid, second: hwptId } = words.decode(command.bytes);
  const attached = device.group.group.handleAt(pasidOf(pasid))?.domain ?? null;
  if (hwptId === 0) return attached === null ? 0 : -EINVAL;
  const hwpt = command.context.objects.find(hwptId);
  if (hwpt === null) return -ENOENT;
  if (!(hwpt instanceof HwptPaging || hwpt instanceof HwptNested)) return -EINVAL;
  return attached === (hwpt as HwPagetable).domain ? 0 : -EINVAL;
}

function triggerPageRequest(command: IommufdCommand): number {
  const request = iopf.decode(command.bytes);
  const device = mockDevice(command, request.dev_id);
  if (typeof device === "number") return device;
  command.context.environment.iommu.reportPageRequest(device, {
    pasid: pasidOf(request.pasid),
    group: request.grpid,
    last: true,
    permissions: request.perm,
    address: request.addr,
  });
  return 0;
}

function triggerVevent(command: IommufdCommand): number {
  const device = mockDevice(command, words.decode(command.bytes).first);
  if (typeof device === "number") return device;
  if (device.viommu === null || device.virtualId === 0n) return -ENOENT;
  const event = new Uint8Array(4);
  new DataView(event.buffer).setUint32(0, Number(device.virtualId & 0xffff_ffffn), true);
  return device.viommu.core.reportEvent(VEVENT_TYPE, event);
}

function checkCache(command: IommufdCommand, id: number): number {
  const { first: index, second: value } = words.decode(command.bytes);
  const device = mockDevice(command, id);
  if (typeof device === "number") return device;
  return device.cache[index] === value ? 0 : -EINVAL;
}

// --- accesses ---

function createTestAccess(command: IommufdCommand, id: number): number {
  const { second: flags } = words.decode(command.bytes);
  const { call, context } = command;
  if ((flags & ~ACCESS_NEEDS_PIN) !== 0) return -EOPNOTSUPP;
  if (context.environment.injector.allocation("access file")) return -ENOMEM;
  const file = new TestAccessFile((flags & ACCESS_NEEDS_PIN) !== 0);
  const fd = call.descriptors.reserve();
  let result = fd < 0 ? -ENOMEM : 0;
  const access = result < 0 ? result : createAccess(context, file);
  if (typeof access === "number") {
    result = access;
  } else {
    result = attachAccess(access, id);
    if (result === 0) {
      words.patch(command.bytes, { first: fd });
      result = command.respond();
    }
    if (result === 0) file.access = access;
    else destroyAccess(access);
  }
  if (result < 0) {
    if (fd >= 0) call.descriptors.cancel(fd);
    file.put();
    return result;
  }
  call.descriptors.install(fd, file, command.address + 16n);
  return 0;
}

function accessFile(command: IommufdCommand, fd: number): TestAccessFile | null {
  const file = command.call.descriptors.lookup(fd);
  return file instanceof TestAccessFile ? file : null;
}

function replaceAccessIoas(command: IommufdCommand, fd: number): number {
  const file = accessFile(command, fd);
  if (file?.access == null) return -EBADFD;
  return replaceAccess(file.access, words.decode(command.bytes).first);
}

function pinAccessPages(command: IommufdCommand, fd: number): number {
  const { flags, iova, length, uptr } = accessPages.decode(command.bytes);
  if (length > MAX_COPY) return -ENOMEM;
  if ((flags & ~ACCESS_WRITE) !== 0) return -EOPNOTSUPP;
  const file = accessFile(command, fd);
  if (file?.access == null) return -EBADFD;
  if (!file.needsPinnedPages) return -EOPNOTSUPP;
  const runs = pinPages(file.access, iova, length, (flags & ACCESS_WRITE) !== 0);
  if (typeof runs === "number") return runs;
  let result = uptr === 0n ? 0 : checkFrames(command.call, uptr - (iova % 4096n), runs);
  if (result === 0 && command.context.environment.injector.allocation("access item")) result = -ENOMEM;
  if (result === 0) {
    accessPages.patch(command.bytes, { out_access_pages_id: file.add(iova, length) });
    result = command.respond();
    if (result < 0) file.forgetLast();
  }
  if (result < 0) unpinPages(file.access, iova, length);
  return result;
}

function checkFrames(call: CallContext, va: bigint, runs: readonly FrameRun[]): number {
  const pages = runs.reduce((sum, run) => sum + run.count, 0);
  const expected = framesAt(call, va, pages);
  if (typeof expected === "number") return expected;
  const found = eachFrame(runs);
  for (const frame of eachFrame(expected)) if (found.next().value !== frame) return -EBADE;
  return 0;
}

function destroyAccessPages(command: IommufdCommand, fd: number): number {
  const file = accessFile(command, fd);
  if (file === null) return -EBADFD;
  return file.unpinItem(words.decode(command.bytes).first) ? 0 : -ENOENT;
}

function accessReadWrite(command: IommufdCommand, fd: number): number {
  const { start: iova, length, uptr, flags } = range.decode(command.bytes);
  const { call } = command;
  if (length > MAX_COPY) return -ENOMEM;
  if ((flags & ~(ACCESS_WRITE | ACCESS_SLOW_PATH)) !== 0) return -EOPNOTSUPP;
  const file = accessFile(command, fd);
  if (file?.access == null) return -EBADFD;
  if (command.context.environment.injector.allocation("copy buffer")) return -ENOMEM;
  const data = new Uint8Array(Number(length));
  const write = (flags & ACCESS_WRITE) !== 0;
  if (write && readUser(call.memory, uptr, data) < 0) return -EFAULT;
  const copied = copyBytes(file.access, call, iova, data, { write, slow: (flags & ACCESS_SLOW_PATH) !== 0 });
  if (copied < 0) return copied;
  return !write && writeUser(call.memory, uptr, data) < 0 ? -EFAULT : 0;
}

// --- dma-bufs ---

function revokeDmaBuffer(command: IommufdCommand): number {
  const { fd, revoked } = revoke.decode(command.bytes);
  const file = command.call.descriptors.lookup(fd);
  if (typeof file === "number") return file;
  if (file.dmaBuffer === undefined) return -EINVAL;
  if (!(file instanceof TestDmaBufferFile)) return -EOPNOTSUPP;
  file.setRevoked(revoked !== 0);
  return 0;
}
