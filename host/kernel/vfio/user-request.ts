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

/**
 * Reads the first `minimum` bytes of a structure, which must be there: it, with its later fields 0, -EFAULT or -EINVAL. Later fields
 * are looked at only where a flag says so: readMore.
 */
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
  return { values: layout.decode(bytes), size };
}

/** A u32 that a flag brings in behind the fields of a structure's first version: -EINVAL when the caller's structure ends before it. */
export function readMore(call: CallContext, argument: bigint, size: number, offset: number): number {
  if (size < offset + 4) return -EINVAL;
  const bytes = new Uint8Array(4);
  if (readBytes(call, argument + BigInt(offset), bytes) < 0) return -EFAULT;
  return new DataView(bytes.buffer).getUint32(0, true);
}

export function readBytes(call: CallContext, va: bigint, into: Uint8Array): number {
  if (into.length === 0) return 0;
  return va + BigInt(into.length) > 1n << 64n ? -EFAULT : call.memory.read(va, into);
}

export function writeBytes(call: CallContext, va: bigint, from: Uint8Array): number {
  if (from.length === 0) return 0;
  return va + BigInt(from.length) > 1n << 64n ? -EFAULT : call.memory.write(va, from);
}
