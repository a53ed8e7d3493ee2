// An ioctl as it enters the kernel, from a simulated process or a foreign one: one trace event, the cause of all that happens inside, and the
// place where calls are made to fail.

import type { Trace } from "../base/trace.ts";
import type { CallContext, OpenFile, UserAddress } from "./file.ts";
import { type Injector, NO_INJECTION } from "./inject.ts";

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
  if (!trace.on) return injected < 0 ? injected : plain(file, call, request, argument);
  const span = trace.open();
  const result = injected < 0 ? injected : plain(file, call, request, argument);
  const fields = name === null ? {} : file.ioctlFields(call, request, BigInt.asUintN(64, BigInt(argument)));
  trace.close(span, {
    type: "ioctl",
    process: call.name,
    fd,
    name: name ?? `0x${request.toString(16)}`,
    result,
    fields: injected < 0 ? { ...fields, injected: 1 } : fields,
  });
  return result;
}

function plain(file: OpenFile, call: CallContext, request: number, argument: UserAddress): number {
  if (typeof argument === "bigint") return file.ioctl(call, request, BigInt.asUintN(64, argument));
  return file.ioctlAt(call, request, argument);
}
