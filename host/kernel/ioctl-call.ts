// An ioctl as it enters the kernel, from a simulated process or a foreign one: one trace event, the cause of all that happens inside, and the
// place where calls are made to fail.

import type { Trace } from "../base/trace.ts";
import type { CallContext, OpenFile, UserAddress } from "./file.ts";
import { type Injector, NO_INJECTION, type Tampering } from "./inject.ts";

/** `fd`: as the caller named the file. Returns the result, or a negated errno. */
export function callIoctl(
  file: OpenFile,
  call: CallContext,
  fd: number,
  request: number,
  argument: UserAddress,
  trace: Trace,
  injector: Injector,
): number {
  return trace.on || injector !== NO_INJECTION
    ? observed(file, call, fd, request, argument, trace, injector)
    : plain(file, call, request, argument);
}

/** With somebody who watches, or makes calls fail. */
function observed(
  file: OpenFile,
  call: CallContext,
  fd: number,
  request: number,
  argument: UserAddress,
  trace: Trace,
  injector: Injector,
): number {
  const name = file.ioctlName(request);
  const injected = name === null ? 0 : injector.ioctl(name);
  const tampering = name === null ? null : (injector.tampering ?? null);
  const run = (): number => {
    if (injected < 0) return injected;
    if (tampering === null) return plain(file, call, request, argument);
    return tampered(file, call, request, BigInt.asUintN(64, BigInt(argument)), injector, tampering);
  };
  if (!trace.on) return run();
  const span = trace.open();
  const result = run();
  const fields =
    name === null ? {} : file.ioctlFields(call.shown ?? call, request, BigInt.asUintN(64, BigInt(argument)));
  trace.close(span, {
    type: "ioctl",
    process: call.name,
    fd,
    name: name ?? `0x${request.toString(16)}`,
    result,
    fields: injected < 0 || tampering !== null ? { ...fields, injected: 1 } : fields,
  });
  return result;
}

function tampered(
  file: OpenFile,
  call: CallContext,
  request: number,
  argument: bigint,
  injector: Injector,
  tampering: Tampering,
): number {
  if (tampering.kind === "drop") return 0;
  if (tampering.kind === "delay") {
    injector.passTime?.(tampering.delayNs);
    return file.ioctl(call, request, argument);
  }
  const undo = corrupt(call, argument, file.ioctlFields(call, request, argument), tampering);
  const result = file.ioctl(call, request, argument);
  undo();
  return result;
}

/** Bytes of a structure that may be corrupted: its size stands before, what is beyond may not be there. */
const [STRUCT_FROM, STRUCT_TO] = [4, 12];

/**
 * Turns one bit of the caller's memory over: of the entries or the data that the structure points to, else of the structure itself. What is
 * returned turns it back, where the call has not written there.
 */
function corrupt(
  call: CallContext,
  argument: bigint,
  fields: Record<string, bigint | number | string>,
  tampering: Tampering,
): () => void {
  const data = typeof fields.data_uptr === "bigint" ? fields.data_uptr : 0n;
  const bytes = Number(fields.data_len ?? 0) || Number(fields.entry_len ?? 0) * Number(fields.entry_num ?? 0);
  const [base, length] =
    data !== 0n && bytes > 0 ? [data, bytes] : [argument + BigInt(STRUCT_FROM), STRUCT_TO - STRUCT_FROM];
  const bit = tampering.pick(Math.min(length, 2 ** 20) * 8);
  const at = base + BigInt(bit >> 3);
  const byte = new Uint8Array(1);
  if (call.memory.read(at, byte) < 0) return () => {};
  const before = byte[0]!;
  const after = before ^ (1 << (bit & 7));
  if (call.memory.write(at, Uint8Array.of(after)) < 0) return () => {};
  return () => {
    if (call.memory.read(at, byte) >= 0 && byte[0] === after) call.memory.write(at, Uint8Array.of(before));
  };
}

function plain(file: OpenFile, call: CallContext, request: number, argument: UserAddress): number {
  if (typeof argument === "bigint") return file.ioctl(call, request, BigInt.asUintN(64, argument));
  return file.ioctlAt(call, request, argument);
}
