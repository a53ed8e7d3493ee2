// What is said of an answer that is another than the recorded one.

import * as wire from "../hostshim-protocol.ts";

const REQUESTS: Readonly<Record<number, string>> = {
  [wire.HELLO]: "HELLO",
  [wire.IOCTL]: "IOCTL",
  [wire.READ]: "READ",
  [wire.WRITE]: "WRITE",
  [wire.MMAP]: "MMAP",
  [wire.PROCSTAT]: "PROCSTAT",
  [wire.FSTAT]: "FSTAT",
};

export function describeDifference(now: Uint8Array, recorded: Uint8Array): string {
  const [ours, theirs] = [resultOf(now), resultOf(recorded)];
  if (ours !== null && theirs !== null && ours !== theirs) return `its answer is ${ours}, the recorded one ${theirs}`;
  if (now.length !== recorded.length) return `its answer has ${now.length} bytes, the recorded one ${recorded.length}`;
  const at = now.findIndex((byte, index) => byte !== recorded[index]);
  const hex = (bytes: Uint8Array) => `0x${bytes[at]!.toString(16).padStart(2, "0")}`;
  return `byte ${at} of its answer is ${hex(now)}, of the recorded one ${hex(recorded)}`;
}

/** A message of at least a header. */
export function describeRequest(message: Uint8Array): string {
  const { type } = wire.header.decode(message);
  const name = REQUESTS[type] ?? `a message of type ${type}`;
  const body = message.subarray(wire.HEADER_BYTES);
  if (type !== wire.IOCTL || body.length < wire.ioctlRequest.bytes) return name;
  const { cmd, fd } = wire.ioctlRequest.decode(body);
  return `IOCTL 0x${cmd.toString(16)} of descriptor ${fd}`;
}

function resultOf(message: Uint8Array): bigint | null {
  if (message.length < wire.HEADER_BYTES + 8 || wire.header.decode(message).type !== wire.RSP) return null;
  return new DataView(message.buffer, message.byteOffset).getBigInt64(wire.HEADER_BYTES, true);
}
