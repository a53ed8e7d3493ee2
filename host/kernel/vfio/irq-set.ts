// VFIO_DEVICE_SET_IRQS: what it checks for every device (Linux: vfio_main.c, vfio_set_irqs_validate_and_prepare), and how its data is read.

import { EFAULT, EINVAL } from "../../uapi/errno.ts";
import {
  VFIO_IRQ_SET_ACTION_TYPE_MASK,
  VFIO_IRQ_SET_DATA_BOOL,
  VFIO_IRQ_SET_DATA_EVENTFD,
  VFIO_IRQ_SET_DATA_NONE,
  VFIO_IRQ_SET_DATA_TYPE_MASK,
  vfioIrqSet,
} from "../../uapi/vfio.ts";
import { EventFd } from "../eventfd.ts";
import type { CallContext } from "../file.ts";
import { readBytes, readRequest } from "./user-request.ts";

export interface IrqSet {
  /** VFIO_IRQ_SET_ACTION_*: one, none or several. */
  readonly action: number;
  /** VFIO_IRQ_SET_DATA_*: exactly one. */
  readonly kind: number;
  readonly index: number;
  readonly start: number;
  readonly count: number;
  /** `count` entries of the kind. */
  readonly data: Uint8Array;
}

const DATA_BYTES: Readonly<Record<number, number>> = {
  [VFIO_IRQ_SET_DATA_NONE]: 0,
  [VFIO_IRQ_SET_DATA_BOOL]: 1,
  [VFIO_IRQ_SET_DATA_EVENTFD]: 4,
};

/** The request, or a negated errno. `indexes` there are, with `countOf` vectors each. */
export function readIrqSet(
  call: CallContext,
  argument: bigint,
  indexes: number,
  countOf: (index: number) => number,
): IrqSet | number {
  const request = readRequest(call, argument, vfioIrqSet);
  if (typeof request === "number") return request;
  const { flags, index, start, count } = request.values;
  const known = VFIO_IRQ_SET_DATA_TYPE_MASK | VFIO_IRQ_SET_ACTION_TYPE_MASK;
  if (index >= indexes || start + count >= 0xffffffff || (flags & ~known) !== 0) return -EINVAL;
  const there = countOf(index);
  if (start >= there || start + count > there) return -EINVAL;
  const kind = flags & VFIO_IRQ_SET_DATA_TYPE_MASK;
  const each = DATA_BYTES[kind];
  if (each === undefined || request.size - vfioIrqSet.bytes < count * each) return -EINVAL;
  const data = new Uint8Array(count * each);
  if (readBytes(call, argument + BigInt(vfioIrqSet.bytes), data) < 0) return -EFAULT;
  return { action: flags & VFIO_IRQ_SET_ACTION_TYPE_MASK, kind, index, start, count, data };
}

/** Eventfd of a SET_IRQS entry: null for a negative descriptor (none), or a negated errno. */
export function eventfdOf(call: CallContext, fd: number): EventFd | null | number {
  if (fd < 0) return null;
  const file = call.descriptors.lookup(fd);
  if (typeof file === "number") return file;
  return file instanceof EventFd ? file : -EINVAL;
}

/** Entry `index` of VFIO_IRQ_SET_DATA_EVENTFD. */
export function readS32(data: Uint8Array, index: number): number {
  return new DataView(data.buffer, data.byteOffset).getInt32(4 * index, true);
}
