// The wire protocol between an unmodified Linux program (through the preload shim) and the host model, version 3: messages and their
// layouts. shim/README.md describes it; shim/proto.h is its C side.

import { layout, s32, u16, u32, u64 } from "../base/layout.ts";
import type { PostedWrites } from "../kernel/file.ts";

export const PROTOCOL_VERSION = 3;
export const HEADER_BYTES = 16;
/** Nothing the shim sends is larger; more ends the connection. */
export const MAX_MESSAGE = 8192;

export const header = layout("hs_hdr", HEADER_BYTES, { len: u32(0), type: u16(4), flags: u16(6), seq: u32(8) });

export const HELLO = 1;
export const HELLO_ACK = 2;
export const IOCTL = 16;
export const READ = 17;
export const WRITE = 18;
export const MMAP = 19;
export const PROCSTAT = 20;
export const FSTAT = 21;
export const POST = 22;
export const RSP = 32;
export const EVENT = 80;

export const KIND_CONTROL = 1;
export const KIND_OPEN = 2;
export const KIND_OBJ = 3;
export const KIND_VMA = 4;
export const KIND_EVENTS = 5;

export const CAP_IPC_LOCK = 1;
export const CAP_SYS_RESOURCE = 2;
export const CAP_SYS_RAWIO = 4;

export const hello = layout("hs_hello", 64, {
  version: u32(0),
  kind: u32(4),
  pid: u32(8),
  tid: u32(12),
  uid: u32(16),
  gid: u32(20),
  cap_eff: u64(24),
  ino: u64(32),
  cookie: u64(40),
  token: u64(48),
  open_flags: u32(56),
  path_len: u32(60),
});
export const helloAck = layout("hs_hello_ack", 8, { err: s32(0) });
export const ioctlRequest = layout("hs_ioctl", 32, {
  ino: u64(0),
  arg: u64(8),
  cmd: u32(16),
  fd: s32(20),
  inline_len: u32(24),
  writable: u32(28),
});
export const readWrite = layout("hs_rw", 32, { ino: u64(0), addr: u64(8), count: u64(16), pos: u64(24) });
export const mmapRequest = layout("hs_mmap", 32, {
  ino: u64(0),
  length: u64(8),
  offset: u64(16),
  prot: u32(24),
  flags: u32(28),
});
export const procstat = layout("hs_procstat", 8, { pid: u32(0) });
export const fstat = layout("u64", 8, { ino: u64(0) });
export const event = layout("hs_event", 24, { token: u64(0), count: u64(8), slot: u32(16), op: u32(20) });
export const EVENT_SIGNAL = 0;
export const EVENT_DROP = 1;
export const EVENT_ARRIVED = 2;

/** Bytes that the body of a request has at least. */
export const REQUEST_BYTES: Readonly<Record<number, number>> = {
  [IOCTL]: ioctlRequest.bytes,
  [READ]: readWrite.bytes,
  [WRITE]: readWrite.bytes,
  [MMAP]: mmapRequest.bytes,
  [PROCSTAT]: procstat.bytes,
  [FSTAT]: fstat.bytes,
  [POST]: readWrite.bytes,
};

const response = layout("hs_rsp", 16, { ret: u64(0), n_actions: u32(8) });
const action = layout("hs_act", 8, { type: u32(0), len: u32(4) });
const fdAction = layout("hs_act_fd", 24, { token: u64(0), patch_addr: u64(8), flags: u32(16) });
const backingAction = layout("hs_act_backing", 16, { token: u64(0), file_offset: u64(8) });
const pinnedAction = layout("hs_act_pinned", 16, { vm_pin_kb: u64(0), vm_lck_kb: u64(8) });

const eventfdAction = layout("hs_act_eventfd", 24, { token: u64(0), slot: u32(8), fd: s32(12), watch: u32(16) });
const postedAction = layout("hs_act_posted", 32, {
  from: u64(0),
  to: u64(8),
  every: u32(16),
  width: u32(20),
  how: u32(24),
});
const POST_AT_ONCE = 1;
const POST_DEFERRED = 2;

const ACT_WRITE = 1;
const ACT_FD = 2;
const ACT_BACKING = 3;
const ACT_PINNED = 4;
const ACT_EVENTFD = 5;
const ACT_POSTED = 6;
const ACT_SIGNAL = 7;
const O_CLOEXEC = 0x80000;

/** Something the shim does before the call returns to the program. */
export type Action =
  /** Make a descriptor connected as `token`; its number goes to `numberAt`, or is the result. */
  | { readonly kind: "descriptor"; readonly token: bigint; readonly numberAt: bigint | null }
  /** Map the file `name` beside the socket; the mapping lives as `token`. */
  | { readonly kind: "backing"; readonly token: bigint; readonly name: string }
  | { readonly kind: "pinned"; readonly pinnedKb: bigint; readonly lockedKb: bigint }
  /** Store bytes at an address of the program. */
  | { readonly kind: "write"; readonly at: bigint; readonly bytes: Uint8Array }
  /** Writes of the file need not be waited for there, nor where that was said before. */
  | { readonly kind: "posted"; readonly writes: PostedWrites }
  /** Add to an eventfd before the call returns. */
  | { readonly kind: "signal"; readonly token: bigint; readonly slot: number; readonly count: bigint }
  /** Keep a duplicate of an eventfd. */
  | {
      readonly kind: "eventfd";
      readonly token: bigint;
      readonly slot: number;
      readonly fd: number;
      readonly watch: boolean;
    };

export function message(type: number, seq: number, body: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES + body.length);
  header.patch(bytes, { len: bytes.length, type, seq });
  bytes.set(body, HEADER_BYTES);
  return bytes;
}

export function reply(seq: number, result: number, actions: readonly Action[]): Uint8Array {
  const parts = actions.map(encodeAction);
  let length = HEADER_BYTES + response.bytes;
  for (const part of parts) length += part.length;
  const bytes = new Uint8Array(length);
  header.patch(bytes, { len: length, type: RSP, seq });
  response.patch(bytes, { ret: BigInt(result), n_actions: actions.length }, HEADER_BYTES);
  let at = HEADER_BYTES + response.bytes;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

function encodeAction(wanted: Action): Uint8Array {
  switch (wanted.kind) {
    case "descriptor":
      return pad(ACT_FD, fdAction.encode({ token: wanted.token, patch_addr: wanted.numberAt ?? 0n, flags: O_CLOEXEC }));
    case "backing": {
      const name = new TextEncoder().encode(wanted.name);
      const payload = new Uint8Array(16 + name.length);
      backingAction.patch(payload, { token: wanted.token, file_offset: 0n });
      payload.set(name, 16);
      return pad(ACT_BACKING, payload);
    }
    case "write": {
      const payload = new Uint8Array(8 + wanted.bytes.length);
      new DataView(payload.buffer).setBigUint64(0, wanted.at, true);
      payload.set(wanted.bytes, 8);
      return pad(ACT_WRITE, payload);
    }
    case "eventfd": {
      const { token, slot, fd, watch } = wanted;
      return pad(ACT_EVENTFD, eventfdAction.encode({ token, slot, fd, watch: watch ? 1 : 0 }));
    }
    case "signal": {
      const { token, slot, count } = wanted;
      return pad(ACT_SIGNAL, event.encode({ token, slot, count, op: EVENT_SIGNAL }));
    }
    case "posted": {
      const { from, to, every, width, deferrable } = wanted.writes;
      const how = deferrable ? POST_DEFERRED : POST_AT_ONCE;
      return pad(ACT_POSTED, postedAction.encode({ from, to, every, width, how }));
    }
    case "pinned":
      return pad(ACT_PINNED, pinnedAction.encode({ vm_pin_kb: wanted.pinnedKb, vm_lck_kb: wanted.lockedKb }));
  }
}

function pad(type: number, payload: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(8 + Math.ceil(payload.length / 8) * 8);
  action.patch(bytes, { type, len: payload.length });
  bytes.set(payload, 8);
  return bytes;
}
