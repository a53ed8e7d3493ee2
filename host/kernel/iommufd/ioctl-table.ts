// The requests of an iommufd: which there are, how large their structures are, who handles them - and the checks common to all, in
// Linux's order (iommufd/main.c): VFIO's numbers, the size word, the number itself, the minimum size, the copy.

import { EBADFD, EFAULT, ENOTTY } from "../../uapi/errno.ts";
import {
  describeIoctl,
  IOMMU_DESTROY,
  IOMMU_FAULT_QUEUE_ALLOC,
  IOMMU_GET_HW_INFO,
  IOMMU_HW_QUEUE_ALLOC,
  IOMMU_HWPT_ALLOC,
  IOMMU_HWPT_GET_DIRTY_BITMAP,
  IOMMU_HWPT_INVALIDATE,
  IOMMU_HWPT_SET_DIRTY_TRACKING,
  IOMMU_IOAS_ALLOC,
  IOMMU_IOAS_ALLOW_IOVAS,
  IOMMU_IOAS_CHANGE_PROCESS,
  IOMMU_IOAS_COPY,
  IOMMU_IOAS_IOVA_RANGES,
  IOMMU_IOAS_MAP,
  IOMMU_IOAS_MAP_FILE,
  IOMMU_IOAS_UNMAP,
  IOMMU_OPTION,
  IOMMU_VDEVICE_ALLOC,
  IOMMU_VEVENTQ_ALLOC,
  IOMMU_VFIO_IOAS,
  IOMMU_VIOMMU_ALLOC,
  IOMMUFD_IOCTLS,
  iommuDestroy,
} from "../../uapi/iommufd.ts";
import type { CallContext, UserAddress } from "../file.ts";
import { IommufdCommand } from "./command.ts";
import { type IommufdContext, IommufdFile, type RequestTable } from "./context.ts";
import { getDirtyBitmap, setDirtyTracking } from "./dirty-tracking.ts";
import type { IommufdEnvironment } from "./environment.ts";
import { faultQueueAlloc } from "./fault-queue.ts";
import { getHwInfo } from "./hw-info.ts";
import { hwptAlloc, hwptInvalidate } from "./hw-pagetable.ts";
import { hwQueueAlloc } from "./hw-queue.ts";
import {
  ioasAlloc,
  ioasAllowIovas,
  ioasChangeProcess,
  ioasCopy,
  ioasIovaRanges,
  ioasMap,
  ioasMapFile,
  ioasUnmap,
  option,
} from "./ioas.ts";
import { readUser } from "./user-copy.ts";
import { vdeviceAlloc } from "./vdevice.ts";
import { veventqAlloc } from "./veventq.ts";
import { VFIO_REQUEST_NAMES, vfioIoas, vfioRequest } from "./vfio-compatibility.ts";
import { viommuAlloc } from "./viommu.ts";

type Handler = (command: IommufdCommand) => number;

const HANDLERS: ReadonlyMap<number, Handler> = new Map<number, Handler>([
  [IOMMU_DESTROY, destroy],
  [IOMMU_IOAS_ALLOC, ioasAlloc],
  [IOMMU_IOAS_ALLOW_IOVAS, ioasAllowIovas],
  [IOMMU_IOAS_COPY, ioasCopy],
  [IOMMU_IOAS_IOVA_RANGES, ioasIovaRanges],
  [IOMMU_IOAS_MAP, ioasMap],
  [IOMMU_IOAS_UNMAP, ioasUnmap],
  [IOMMU_OPTION, option],
  [IOMMU_VFIO_IOAS, vfioIoas],
  [IOMMU_HWPT_ALLOC, hwptAlloc],
  [IOMMU_GET_HW_INFO, getHwInfo],
  [IOMMU_HWPT_SET_DIRTY_TRACKING, setDirtyTracking],
  [IOMMU_HWPT_GET_DIRTY_BITMAP, getDirtyBitmap],
  [IOMMU_HWPT_INVALIDATE, hwptInvalidate],
  [IOMMU_FAULT_QUEUE_ALLOC, faultQueueAlloc],
  [IOMMU_IOAS_MAP_FILE, ioasMapFile],
  [IOMMU_VIOMMU_ALLOC, viommuAlloc],
  [IOMMU_VDEVICE_ALLOC, vdeviceAlloc],
  [IOMMU_IOAS_CHANGE_PROCESS, ioasChangeProcess],
  [IOMMU_VEVENTQ_ALLOC, veventqAlloc],
  [IOMMU_HW_QUEUE_ALLOC, hwQueueAlloc],
]);

const FIRST_NUMBER = 0x80;
const LAST_NUMBER = 0x94;

function destroy(command: IommufdCommand): number {
  return command.context.objects.destroy(iommuDestroy.decode(command.bytes).id);
}

interface Request {
  readonly request: number;
  readonly minimum: number;
  readonly bytes: number;
  readonly handle: Handler;
  /** Serves the request's calls one after another. */
  command: IommufdCommand | null;
}

/** By the low eight bits of its number. */
const REQUESTS: (Request | null)[] = new Array(256).fill(null);
for (const [request, handle] of HANDLERS) {
  const { minimum, layout } = IOMMUFD_IOCTLS.get(request)!;
  REQUESTS[request & 0xff] = { request, minimum, bytes: layout.bytes, handle, command: null };
}

const SIZE_WORD = new Uint8Array(4);

function dispatch(context: IommufdContext, call: CallContext, request: number, argument: UserAddress): number {
  const known = REQUESTS[request & 0xff]!;
  if (known !== null && known.request === request) return handle(known, context, call, argument);
  const { extraRequests } = context.environment;
  let last = LAST_NUMBER;
  if (extraRequests.size > 0) for (const extra of extraRequests.keys()) last = Math.max(last, extra & 0xff);
  const number = request & 0xff;
  if (number < FIRST_NUMBER || number > last) return vfioRequest(context, call, request, BigInt(argument));
  const extra = extraRequest(context, request);
  if (extra !== null) return handle(extra, context, call, argument);
  return readUser(call.memory, argument, SIZE_WORD, 4) < 0 ? -EFAULT : -ENOTTY;
}

function handle(known: Request, context: IommufdContext, call: CallContext, argument: UserAddress): number {
  let { command } = known;
  // A call from within a call has a command of its own.
  if (command === null || command.busy) {
    command = new IommufdCommand(known.bytes);
    known.command ??= command;
  }
  command.busy = true;
  let result = command.begin(context, call, argument, known.minimum);
  if (result === 0) {
    result = known.handle(command);
    command.finish(result);
  }
  command.busy = false;
  return result;
}

function extraRequest(context: IommufdContext, request: number): Request | null {
  const extra = context.environment.extraRequests.get(request);
  return extra === undefined
    ? null
    : { request, minimum: extra.minimum, bytes: extra.bytes, handle: extra.handle, command: null };
}

const TABLE: RequestTable = {
  dispatch,
  nameOf(context, request) {
    return (
      IOMMUFD_IOCTLS.get(request)?.name ??
      context.environment.extraRequests.get(request)?.name ??
      VFIO_REQUEST_NAMES.get(request) ??
      null
    );
  },
  fieldsOf(call, request, argument) {
    const known = IOMMUFD_IOCTLS.get(request);
    if (known === undefined) return {};
    const word = new Uint8Array(4);
    if (readUser(call.memory, argument, word) < 0) return {};
    const bytes = new Uint8Array(Math.min(known.layout.bytes, new DataView(word.buffer).getUint32(0, true)));
    if (readUser(call.memory, argument, bytes) < 0) return {};
    return describeIoctl(request, bytes)?.fields ?? {};
  },
};

/** open("/dev/iommu"); "memory" accounting for a /dev/vfio/vfio that iommufd serves. */
export function openIommufd(
  environment: IommufdEnvironment,
  path = "/dev/iommu",
  accountMode: "user" | "memory" = "user",
): IommufdFile {
  return new IommufdFile(path, environment, TABLE, accountMode);
}

/** The context behind an open file, with a reference for the caller (context.file.put() gives it back); -EBADFD if it is none. */
export function contextOf(file: unknown): IommufdContext | number {
  if (!(file instanceof IommufdFile)) return -EBADFD;
  file.get();
  return file.context;
}
