// Access objects (Linux: iommufd_access): a kernel driver's software use of an IOAS - pinning pages behind IOVAs, or copying bytes -
// without a domain. Mediated devices use them, and hardware queues internally.
//
// An access must unpin what is being unmapped when told so (`unmap`), before it returns. An internal one is not told; its pins lock
// the areas instead, so that UNMAP gives EBUSY.

import type { StateReader, StateRecord } from "../../base/state.ts";
import { EFAULT, EINVAL, ENOENT, ENOMEM, EOVERFLOW, EPERM } from "../../uapi/errno.ts";
import type { CallContext, FrameRun } from "../file.ts";
import { IOMMU_READ, IOMMU_WRITE } from "../iommu/driver.ts";
import { requireText } from "../same-objects.ts";
import type { Area } from "./area.ts";
import type { IommufdContext } from "./context.ts";
import type { TableAccess } from "./io-pagetable.ts";
import type { Ioas } from "./ioas.ts";
import { U64_MAX } from "./iova-ranges.ts";
import { IommufdObject, nameOfObject } from "./object-table.ts";
import { PAGE, PAGE_BYTES } from "./user-pages.ts";

/** What the driver behind an access does. */
export interface AccessDriver {
  /** It pins pages: IOVAs are page-aligned then. */
  readonly needsPinnedPages: boolean;
  /** Unpin everything in the range before returning. */
  unmap(iova: bigint, length: bigint): void;
}

export class Access extends IommufdObject implements TableAccess {
  readonly type = "access";
  readonly context: IommufdContext;
  /** null for the internal kind. */
  readonly driver: AccessDriver | null;
  readonly alignment: bigint;
  ioas: Ioas | null = null;
  /** Where pins are undone: still the old IOAS while the access is being moved away from it. */
  pinnedIn: Ioas | null = null;

  constructor(context: IommufdContext, driver: AccessDriver | null) {
    super();
    this.context = context;
    this.driver = driver;
    this.alignment = driver === null || driver.needsPinnedPages ? PAGE_BYTES : 1n;
  }

  get internal(): boolean {
    return this.driver === null;
  }

  unmap(iova: bigint, length: bigint): void {
    this.driver?.unmap(iova, length);
  }

  override destroy(): void {
    changeIoas(this, null);
    if (!this.internal) this.context.file.put();
  }

  override saveState(): StateRecord {
    return { ...super.saveState(), ioas: nameOfObject(this.ioas), pinnedIn: nameOfObject(this.pinnedIn) };
  }

  override restoreState(state: StateReader): void {
    super.restoreState(state);
    requireText(state, "ioas", nameOfObject(this.ioas));
    requireText(state, "pinnedIn", nameOfObject(this.pinnedIn));
  }
}

/** Makes an access; its driver is a user of it until destroyAccess. -ENOMEM. */
export function createAccess(context: IommufdContext, driver: AccessDriver | null): Access | number {
  if (context.environment.injector.allocation("access")) return -ENOMEM;
  const access = new Access(context, driver);
  access.users++;
  if (!access.internal) context.file.get();
  context.objects.reserve(access);
  context.objects.finalize(access);
  return access;
}

/** The driver must have stopped using it. */
export function destroyAccess(access: Access): void {
  access.context.objects.destroyByUser(access);
}

export function attachAccess(access: Access, ioasId: number): number {
  if (access.ioas !== null) return -EINVAL;
  const ioas = access.context.find<Ioas>(ioasId, "ioas");
  return ioas === null ? -ENOENT : changeIoas(access, ioas);
}

/** Moves an attached access to another IOAS; everything it has pinned must be unpinned in its `unmap`. */
export function replaceAccess(access: Access, ioasId: number): number {
  if (access.ioas === null) return -ENOENT;
  const ioas = access.context.find<Ioas>(ioasId, "ioas");
  return ioas === null ? -ENOENT : changeIoas(access, ioas);
}

export function detachAccess(access: Access): void {
  changeIoas(access, null);
}

/** For the internal kind, which knows its IOAS. */
export function changeIoas(access: Access, ioas: Ioas | null): number {
  const old = access.ioas;
  if (old === ioas) return 0;
  if (ioas !== null) {
    const added = ioas.table.addAccess(access);
    if (added < 0) return added;
    ioas.users++;
  }
  // No new pins while the old ones go.
  access.ioas = null;
  if (old !== null) {
    access.unmap(0n, U64_MAX);
    old.table.removeAccess(access);
    old.users--;
  }
  access.ioas = ioas;
  access.pinnedIn = ioas;
  return 0;
}

/** The area's piece of [iova, last], as page indexes. */
function pieceOf(area: Area, iova: bigint, last: bigint): { first: number; last: number } {
  const from = area.start > iova ? area.start : iova;
  const to = area.last < last ? area.last : last;
  return { first: area.pageAt(from), last: area.pageAt(to) };
}

/**
 * Pins the pages behind page-aligned [iova, +length): their frames, or a negated errno with nothing pinned. -ENOENT not attached or
 * a hole, -EINVAL a page shared by two areas or an unmap going on, -EPERM the mapping does not allow it.
 */
export function pinPages(access: Access, iova: bigint, length: bigint, write: boolean): FrameRun[] | number {
  if (access.alignment !== PAGE_BYTES || length === 0n) return -EINVAL;
  const last = iova + length - 1n;
  if (last > U64_MAX) return -EOVERFLOW;
  const { ioas } = access;
  if (ioas === null) return -ENOENT;
  const pinned: Area[] = [];
  const runs: FrameRun[] = [];
  let result = 0;
  for (let next = iova; next <= last; ) {
    const area = ioas.table.areas.at(next);
    if (area === null) {
      result = -ENOENT;
      break;
    }
    result = pinIn(access, area, next, last, write);
    if (result < 0) break;
    const piece = pieceOf(area, iova, last);
    runs.push(...area.pages.runs(piece.first, piece.last));
    pinned.push(area);
    next = area.last + 1n;
  }
  if (result < 0) {
    for (const area of pinned) unpinIn(access, area, iova, last);
    return result;
  }
  return runs;
}

function pinIn(access: Access, area: Area, iova: bigint, last: bigint, write: boolean): number {
  const beginsPage = area.byteAt(iova) % PAGE_BYTES === 0n;
  const endsPage = last <= area.last || (area.byteAt(area.last) + 1n) % PAGE_BYTES === 0n;
  if (area.preventAccess || !beginsPage || !endsPage) return -EINVAL;
  if ((area.protection & (write ? IOMMU_WRITE : IOMMU_READ)) === 0) return -EPERM;
  if (write && !area.pages.writable) return -EPERM;
  if (area.pages.isDmaBuffer) return -EINVAL;
  if (access.context.environment.injector.allocation("access record")) return -ENOMEM;
  const piece = pieceOf(area, iova, last);
  const held = area.pages.hold(piece.first, piece.last);
  if (held < 0) return held;
  area.accesses++;
  if (access.internal) area.locks++;
  return 0;
}

function unpinIn(access: Access, area: Area, iova: bigint, last: bigint): void {
  const piece = pieceOf(area, iova, last);
  area.pages.release(piece.first, piece.last);
  area.accesses--;
  if (access.internal) area.locks--;
}

/** Undoes pinPages with the same range; also called from within `unmap` and while the access is being moved. */
export function unpinPages(access: Access, iova: bigint, length: bigint): void {
  const areas = access.pinnedIn?.table.contiguous(iova, iova + length - 1n) ?? null;
  if (areas === null) throw new Error("pages are unpinned that are not mapped");
  for (const area of areas) unpinIn(access, area, iova, iova + length - 1n);
}

export interface CopyOptions {
  readonly write: boolean;
  /** Always through the pages' frames, never through the process's memory. */
  readonly slow?: boolean;
}

/**
 * Copies bytes between `data` and what lies behind [iova, +data.length). `call`: the process on whose behalf it runs. Errors as
 * pinPages; -EFAULT when the memory cannot be reached.
 */
export function copyBytes(
  access: Access,
  call: CallContext,
  iova: bigint,
  data: Uint8Array,
  options: CopyOptions,
): number {
  if (data.length === 0) return -EINVAL;
  const last = iova + BigInt(data.length) - 1n;
  if (last > U64_MAX) return -EOVERFLOW;
  const { ioas } = access;
  if (ioas === null) return -ENOENT;
  let done = 0;
  for (let next = iova; next <= last; ) {
    const area = ioas.table.areas.at(next);
    if (area === null) return -ENOENT;
    if (area.preventAccess) return -EINVAL;
    if ((area.protection & (options.write ? IOMMU_WRITE : IOMMU_READ)) === 0) return -EPERM;
    const end = area.last < last ? area.last : last;
    const piece = data.subarray(done, done + Number(end - next + 1n));
    const result = copyIn(area, call, next, piece, options);
    if (result < 0) return result;
    done += piece.length;
    next = end + 1n;
  }
  return 0;
}

function copyIn(area: Area, call: CallContext, iova: bigint, data: Uint8Array, options: CopyOptions): number {
  const { pages } = area;
  if (options.write && !pages.writable) return -EPERM;
  if (pages.isDmaBuffer) return -EINVAL;
  const byte = area.byteAt(iova);
  const onePage = byte / PAGE_BYTES === (byte + BigInt(data.length) - 1n) / PAGE_BYTES;
  const own = pages.memory === call.memory && options.slow !== true;
  if (pages.origin.kind === "memory" && (own || (onePage && pages.memory.alive))) {
    // As copy_to_user would: what the process sees at that address now, whatever is pinned.
    const va = pages.addressOf(byte);
    return options.write ? pages.memory.write(va, data) : pages.memory.read(va, data);
  }
  const first = Number(byte / PAGE_BYTES);
  const last = Number((byte + BigInt(data.length) - 1n) / PAGE_BYTES);
  const held = pages.hold(first, last);
  if (held < 0) return held;
  const result = copyFrames(pages.frames, pages.runs(first, last), Number(byte % PAGE_BYTES), data, options.write);
  pages.release(first, last);
  return result;
}

function copyFrames(
  frames: CallContext["frames"],
  runs: readonly FrameRun[],
  offset: number,
  data: Uint8Array,
  write: boolean,
): number {
  let done = 0;
  let at = offset;
  for (const run of runs) {
    for (let i = 0; i < run.count && done < data.length; i++) {
      const piece = data.subarray(done, done + Math.min(PAGE - at, data.length - done));
      const result = write ? frames.write(run.frame + i, at, piece) : frames.read(run.frame + i, at, piece);
      if (result < 0) return -EFAULT;
      done += piece.length;
      at = 0;
    }
  }
  return 0;
}
