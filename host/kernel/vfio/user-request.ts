// How VFIO copies its structures (Linux: the minsz pattern of drivers/vfio): the caller says in argsz how much it has; a request with
// less than the fields of its first version is EINVAL; what lies beyond the kernel's structure is ignored.

import type { Layout, LayoutField, LayoutValues } from "../../base/layout.ts";
import { EFAULT, EINVAL } from "../../uapi/errno.ts";
import type { CallContext } from "../file.ts";

export interface UserRequest<T extends Record<string, LayoutField>> {
  readonly values: LayoutValues<T>;
  /** The caller's argsz. */
  readonly size: number;
}

/** Reads a structure of which at least `minimum` bytes must be there: it, -EFAULT or -EINVAL. */
export function readRequest<T extends Record<string, LayoutField>>(
  call: CallContext,
  argument: bigint,
  layout: Layout<T>,
  minimum: number = layout.bytes,
): UserRequest<T> | number {
  const bytes = new Uint8Array(layout.bytes);
  if (readBytes(call, argument, bytes.subarray(0, minimum)) < 0) return -EFAULT;
  const size = new DataView(bytes.buffer).getUint32(0, true);
  if (size < minimum) return -EINVAL;
  // Later fields are there only if the caller says so.
  const more = Math.min(size, layout.bytes);
  if (more > minimum && readBytes(call, argument + BigInt(minimum), bytes.subarray(minimum, more)) < 0) return -EFAULT;
  return { values: layout.decode(bytes), size };
}

export function readBytes(call: CallContext, va: bigint, into: Uint8Array): number {
  if (into.length === 0) return 0;
  return va + BigInt(into.length) > 1n << 64n ? -EFAULT : call.memory.read(va, into);
}

export function writeBytes(call: CallContext, va: bigint, from: Uint8Array): number {
  if (from.length === 0) return 0;
  return va + BigInt(from.length) > 1n << 64n ? -EFAULT : call.memory.write(va, from);
}
