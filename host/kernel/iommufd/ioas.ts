// IOAS objects and their requests (Linux: iommufd/ioas.c). Checks stand in the order in which Linux makes them: user space sees it
// in which errno wins.

import type { Stateful, StateReader, StateRecord } from "../../base/state.ts";
import {
  EADDRINUSE,
  EBADF,
  EBUSY,
  EFAULT,
  EINVAL,
  EMSGSIZE,
  ENOENT,
  ENOMEM,
  EOPNOTSUPP,
  EOVERFLOW,
  EPERM,
} from "../../uapi/errno.ts";
import {
  IOMMU_IOAS_MAP_FIXED_IOVA,
  IOMMU_IOAS_MAP_READABLE,
  IOMMU_IOAS_MAP_WRITEABLE,
  IOMMU_OPTION_HUGE_PAGES,
  IOMMU_OPTION_OP_GET,
  IOMMU_OPTION_OP_SET,
  IOMMU_OPTION_RLIMIT_MODE,
  iommuIoasAlloc,
  iommuIoasAllowIovas,
  iommuIoasChangeProcess,
  iommuIoasCopy,
  iommuIoasIovaRanges,
  iommuIoasMap,
  iommuIoasMapFile,
  iommuIoasUnmap,
  iommuIovaRange,
  iommuOption,
} from "../../uapi/iommufd.ts";
import type { CallContext } from "../file.ts";
import { IOMMU_CACHE, IOMMU_READ, IOMMU_WRITE } from "../iommu/driver.ts";
import { inSavedOrder, refillList, textsOf } from "../same-objects.ts";
import type { IommufdCommand } from "./command.ts";
import type { IommufdContext } from "./context.ts";
import type { HwptPaging } from "./hw-pagetable.ts";
import { type Interval, IntervalTree } from "./interval-tree.ts";
import { IoPagetable } from "./io-pagetable.ts";
import { U64_MAX } from "./iova-ranges.ts";
import { IommufdObject, nameOfObject } from "./object-table.ts";
import { readUser, writeUser } from "./user-copy.ts";
import { type AccountMode, charge, UserPages, uncharge } from "./user-pages.ts";

export class Ioas extends IommufdObject {
  readonly type = "ioas";
  readonly table: IoPagetable;
  /** Paging HWPTs made of this IOAS, oldest first. */
  readonly hwpts: HwptPaging[] = [];
  readonly #context: IommufdContext;

  constructor(context: IommufdContext) {
    super();
    this.#context = context;
    this.table = new IoPagetable(context.environment.injector);
  }

  override destroy(): void {
    if (this.#context.compatibilityIoas === this) this.#context.compatibilityIoas = null;
    this.table.destroy();
  }

  override saveState(): StateRecord {
    return { ...super.saveState(), hwpts: this.hwpts.map(nameOfObject) };
  }

  override restoreState(state: StateReader): void {
    super.restoreState(state);
    refillList(this.hwpts, inSavedOrder(state, this.hwpts, nameOfObject, textsOf(state, "hwpts")));
    refillList(
      this.table.domains,
      this.hwpts.map(({ domain }) => domain),
    );
  }

  override *stateParts(): Generator<readonly [string, Stateful]> {
    yield ["table", this.table];
  }
}

export function ioasAlloc(command: IommufdCommand): number {
  const { flags } = iommuIoasAlloc.decode(command.bytes);
  if (flags !== 0) return -EOPNOTSUPP;
  const ioas = new Ioas(command.context);
  const created = command.create(ioas);
  if (created < 0) return created;
  iommuIoasAlloc.patch(command.bytes, { out_ioas_id: ioas.id });
  return command.respond();
}

export function ioasIovaRanges(command: IommufdCommand): number {
  const request = iommuIoasIovaRanges.decode(command.bytes);
  if (request.__reserved !== 0) return -EOPNOTSUPP;
  const ioas = command.find<Ioas>(request.ioas_id, "ioas");
  if (ioas === null) return -ENOENT;
  const holes = ioas.table.ranges.holes();
  let at = request.allowed_iovas;
  for (const hole of holes.slice(0, request.num_iovas)) {
    if (writeUser(command.call.memory, at, iommuIovaRange.encode(hole)) < 0) return -EFAULT;
    at += 16n;
  }
  iommuIoasIovaRanges.patch(command.bytes, { num_iovas: holes.length, out_iova_alignment: ioas.table.alignment });
  const result = command.respond();
  return result < 0 ? result : holes.length > request.num_iovas ? -EMSGSIZE : 0;
}

export function ioasAllowIovas(command: IommufdCommand): number {
  const request = iommuIoasAllowIovas.decode(command.bytes);
  if (request.__reserved !== 0) return -EOPNOTSUPP;
  const ioas = command.find<Ioas>(request.ioas_id, "ioas");
  if (ioas === null) return -ENOENT;
  const allowed = new IntervalTree<Interval>();
  const element = new Uint8Array(16);
  for (let i = 0; i < request.num_iovas; i++) {
    if (readUser(command.call.memory, request.allowed_iovas + BigInt(i) * 16n, element) < 0) return -EFAULT;
    const range = iommuIovaRange.decode(element);
    if (range.start >= range.last || allowed.firstIn(range.start, range.last) !== null) return -EINVAL;
    if (command.context.environment.injector.allocation("allowed range")) return -ENOMEM;
    allowed.insert(range);
  }
  return ioas.table.ranges.allow(allowed) ? 0 : -EADDRINUSE;
}

const MAP_FLAGS = IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_WRITEABLE | IOMMU_IOAS_MAP_READABLE;
const ACCESS_FLAGS = IOMMU_IOAS_MAP_WRITEABLE | IOMMU_IOAS_MAP_READABLE;

/** DMA is always coherent: user space has no way to flush caches, and devices without coherency were refused at bind. */
function protectionOf(flags: number): number {
  return (
    IOMMU_CACHE |
    ((flags & IOMMU_IOAS_MAP_WRITEABLE) !== 0 ? IOMMU_WRITE : 0) |
    ((flags & IOMMU_IOAS_MAP_READABLE) !== 0 ? IOMMU_READ : 0)
  );
}

/** Maps `length` bytes of the caller's memory from `va`: the IOVA, or a negated errno. Also VFIO's MAP_DMA. */
export function mapMemory(
  context: IommufdContext,
  ioas: Ioas,
  call: CallContext,
  va: bigint,
  length: bigint,
  iova: bigint | null,
  protection: number,
): bigint | number {
  if (va + length > U64_MAX) return -EOVERFLOW;
  if (length === 0n || length > U64_MAX - 4096n) return -EINVAL;
  const writable = (protection & IOMMU_WRITE) !== 0;
  const pages = UserPages.ofMemory(va, length, writable, call, context.environment.injector);
  if (typeof pages === "number") return pages;
  return mapPages(context, ioas, pages, va % 4096n, length, iova, protection);
}

/** Hands fresh pages over to the table, or puts them. */
function mapPages(
  context: IommufdContext,
  ioas: Ioas,
  pages: UserPages,
  startByte: bigint,
  length: bigint,
  iova: bigint | null,
  protection: number,
): bigint | number {
  if (context.accountMode === "memory" && pages.accountMode === "user") pages.accountMode = "memory";
  const at = ioas.table.map([{ pages, startByte, length }], length, iova, protection);
  if (typeof at === "number") pages.put();
  return at;
}

export function ioasMap(command: IommufdCommand): number {
  const request = iommuIoasMap.decode(command.bytes);
  if ((request.flags & ~MAP_FLAGS) !== 0 || request.__reserved !== 0) return -EOPNOTSUPP;
  if (request.iova === U64_MAX || request.length === U64_MAX) return -EOVERFLOW;
  if ((request.flags & ACCESS_FLAGS) === 0) return -EINVAL;
  const ioas = command.find<Ioas>(request.ioas_id, "ioas");
  if (ioas === null) return -ENOENT;
  const at = mapMemory(
    command.context,
    ioas,
    command.call,
    request.user_va,
    request.length,
    (request.flags & IOMMU_IOAS_MAP_FIXED_IOVA) !== 0 ? request.iova : null,
    protectionOf(request.flags),
  );
  if (typeof at === "number") return at;
  iommuIoasMap.patch(command.bytes, { iova: at });
  return command.respond();
}

export function ioasMapFile(command: IommufdCommand): number {
  const request = iommuIoasMapFile.decode(command.bytes);
  if ((request.flags & ~MAP_FLAGS) !== 0) return -EOPNOTSUPP;
  if (request.iova === U64_MAX || request.length === U64_MAX) return -EOVERFLOW;
  if ((request.flags & ACCESS_FLAGS) === 0) return -EINVAL;
  const { context, call } = command;
  const ioas = command.find<Ioas>(request.ioas_id, "ioas");
  if (ioas === null) return -ENOENT;
  const { start, length } = request;
  if (length === 0n) return -EINVAL;
  if (start + length - 1n > U64_MAX) return -EOVERFLOW;
  const file = call.descriptors.lookup(request.fd);
  if (typeof file === "number") return -EBADF;
  if (length > U64_MAX - 4096n) return -EINVAL;
  const protection = protectionOf(request.flags);
  const writable = (protection & IOMMU_WRITE) !== 0;
  const { injector } = context.environment;
  const pages =
    file.dmaBuffer === undefined
      ? UserPages.ofFile(file, start, length, writable, call, injector)
      : UserPages.ofDmaBuffer(file, file.dmaBuffer, start, length, writable, call, injector);
  if (typeof pages === "number") return pages;
  const fixed = (request.flags & IOMMU_IOAS_MAP_FIXED_IOVA) !== 0;
  const at = mapPages(context, ioas, pages, start % 4096n, length, fixed ? request.iova : null, protection);
  if (typeof at === "number") return at;
  iommuIoasMapFile.patch(command.bytes, { iova: at });
  return command.respond();
}

export function ioasCopy(command: IommufdCommand): number {
  const request = iommuIoasCopy.decode(command.bytes);
  if ((request.flags & ~MAP_FLAGS) !== 0) return -EOPNOTSUPP;
  if (request.length === U64_MAX || request.src_iova === U64_MAX || request.dst_iova === U64_MAX) return -EOVERFLOW;
  if ((request.flags & ACCESS_FLAGS) === 0) return -EINVAL;
  const source = command.find<Ioas>(request.src_ioas_id, "ioas");
  if (source === null) return -ENOENT;
  const slices = source.table.slices(request.src_iova, request.length);
  if (typeof slices === "number") return slices;
  const target = command.find<Ioas>(request.dst_ioas_id, "ioas");
  const fixed = (request.flags & IOMMU_IOAS_MAP_FIXED_IOVA) !== 0;
  const at =
    target === null
      ? -ENOENT
      : target.table.map(slices, request.length, fixed ? request.dst_iova : null, protectionOf(request.flags));
  if (typeof at === "number") {
    for (const { pages } of slices) pages.put();
    return at;
  }
  iommuIoasCopy.patch(command.bytes, { dst_iova: at });
  return command.respond();
}

export function ioasUnmap(command: IommufdCommand): number {
  const request = iommuIoasUnmap.decode(command.bytes);
  const ioas = command.find<Ioas>(request.ioas_id, "ioas");
  if (ioas === null) return -ENOENT;
  let unmapped: bigint;
  if (request.iova === 0n && request.length === U64_MAX) {
    const all = ioas.table.unmapAll();
    if (all.error < 0) return all.error;
    unmapped = all.unmapped;
  } else {
    if (request.iova === U64_MAX || request.length === U64_MAX) return -EOVERFLOW;
    const range = ioas.table.unmap(request.iova, request.length);
    if (range.error < 0) return range.error;
    if (range.unmapped === 0n) return -ENOENT;
    unmapped = range.unmapped;
  }
  iommuIoasUnmap.patch(command.bytes, { length: unmapped });
  return command.respond();
}

/** Moves the accounting of every file mapping of the context to the calling process; all or nothing. */
export function ioasChangeProcess(command: IommufdCommand): number {
  const { call, context } = command;
  if (iommuIoasChangeProcess.decode(command.bytes).__reserved !== 0) return -EOPNOTSUPP;
  const all = new Set<UserPages>();
  for (const object of context.objects) {
    if (!(object instanceof Ioas)) continue;
    for (const area of object.table.areas) {
      if (area.preventAccess) return -EBUSY;
      if (area.pages.origin.kind !== "file") return -EINVAL;
      all.add(area.pages);
    }
  }
  const charged: [AccountMode, number][] = [];
  const moving = [...all].filter((pages) => needsNewAccount(pages, call));
  for (const mode of ["none", "user", "memory"] as const) {
    const count = moving.reduce((sum, pages) => (pages.accountMode === mode ? sum + pages.pinned : sum), 0);
    if (count === 0) continue;
    const result = charge(mode, call, call.memory, call.user, count);
    if (result < 0) {
      for (const [done, pinned] of charged) uncharge(done, call.memory, call.user, pinned);
      return result;
    }
    charged.push([mode, count]);
  }
  for (const pages of moving) pages.uncharge(pages.pinned);
  for (const pages of all) {
    pages.process = call;
    pages.memory = call.memory;
    pages.user = call.user;
  }
  return 0;
}

/** Unaccounted pages stay with whoever mapped them (VmPin included), as in Linux. */
function needsNewAccount(pages: UserPages, call: CallContext): boolean {
  if (pages.accountMode === "none") return false;
  return pages.memory !== call.memory || (pages.accountMode === "user" && pages.user !== call.user);
}

export function option(command: IommufdCommand): number {
  const request = iommuOption.decode(command.bytes);
  if (request.__reserved !== 0) return -EOPNOTSUPP;
  let value = request.val64;
  if (request.option_id === IOMMU_OPTION_RLIMIT_MODE) {
    if (request.object_id !== 0) return -EOPNOTSUPP;
    if (request.op === IOMMU_OPTION_OP_GET) {
      value = command.context.accountMode === "memory" ? 1n : 0n;
    } else if (request.op === IOMMU_OPTION_OP_SET) {
      if (!command.call.capabilities.sysResource) return -EPERM;
      if (command.context.objects.occupied) return -EBUSY;
      if (value > 1n) return -EINVAL;
      command.context.accountMode = value === 1n ? "memory" : "user";
    } else {
      return -EOPNOTSUPP;
    }
  } else if (request.option_id === IOMMU_OPTION_HUGE_PAGES) {
    const ioas = command.find<Ioas>(request.object_id, "ioas");
    if (ioas === null) return -ENOENT;
    if (request.op === IOMMU_OPTION_OP_GET) {
      value = ioas.table.disableLargePages ? 0n : 1n;
    } else if (request.op === IOMMU_OPTION_OP_SET) {
      if (value > 1n) return -EINVAL;
      const result = ioas.table.setLargePages(value === 1n);
      if (result < 0) return result;
    } else {
      return -EOPNOTSUPP;
    }
  } else {
    return -EOPNOTSUPP;
  }
  // Only the value goes back, whatever the caller's size.
  const reply = iommuOption.encode({ val64: value }).subarray(16, 24);
  return writeUser(command.call.memory, command.address + 16n, reply);
}
