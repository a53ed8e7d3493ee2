// A recorded run without a program: a script of messages as the preload library would send them, and an outside that is made up. It uses all that a recording
// can hold: processes, memory of all kinds, descriptors, drives, timers, eventfds, a delay, an end in the middle of a call.

import { readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as wire from "../../../host/adapters/hostshim-protocol.ts";
import { type ClientSocket, HostshimServer } from "../../../host/adapters/hostshim-server.ts";
import type { Outside, OutsideDescriptor, OutsideFile, OutsideProcess } from "../../../host/adapters/outside.ts";
import { RecordedEntry, RecordedOutside } from "../../../host/adapters/recording/recorded-outside.ts";
import { Clock } from "../../../host/base/clock.ts";
import { Trace } from "../../../host/base/trace.ts";
import { JsonLinesSink } from "../../../host/base/trace-json.ts";
import { parseHost } from "../../../host/description.ts";
import { type BlockStore, MemoryBlockStore } from "../../../host/devices/nvme/block-store.ts";
import { makeHost } from "../../../vmm/cli/make-host.ts";
import { beginRecording } from "../../../vmm/cli/record-host.ts";

const EDU = "0000:00:01.0";
const BASE = 0x10000;
const BYTES = 0x40000;
const MEMFD = 9;
const EVENTFD = 10;
const INODES = { iommufd: 77n, device: 78n };

const description = parseHost(
  {
    name: "pretended",
    iommus: [{ name: "iommu0", kind: "riscv" }],
    devices: [
      { model: "edu", bdf: EDU, iommu: "iommu0" },
      { model: "nvme", bdf: "0000:00:02.0", iommu: "iommu0", options: { file: "/pretended" } },
    ],
  },
  "pretended",
);

class PretendedProcess implements OutsideProcess {
  readonly memory = Buffer.alloc(BYTES, 0x5a);
  readonly file = Buffer.alloc(BYTES, 0xa5);
  #times = 0;

  read(address: number, into: Uint8Array): boolean {
    const at = address - BASE;
    if (at < 0 || at + into.length > BYTES) return false;
    into.set(this.memory.subarray(at, at + into.length));
    return true;
  }

  write(address: number, from: Uint8Array): boolean {
    const at = address - BASE;
    if (at < 0 || at + from.length > BYTES) return false;
    this.memory.set(from, at);
    return true;
  }

  /** Another one every now and then. */
  maps(): Buffer {
    const heap = ++this.#times % 3 === 0 ? "00900000-00a00000 rw-p 00000000 00:00 0 [heap]\n" : "";
    return Buffer.from(
      `00010000-00050000 rw-p 00000000 00:00 0\n00100000-00140000 rw-s 00000000 00:01 42 /memfd\n${heap}`,
    );
  }

  memlockLimit(): number {
    return Number.POSITIVE_INFINITY;
  }

  descriptor(fd: number): OutsideDescriptor | null {
    if (fd === 7) return { kind: "socket", inode: INODES.iommufd };
    if (fd === EVENTFD) return { kind: "eventfd" };
    return fd === MEMFD ? { kind: "file", identity: "00:01:42", pinnable: true } : null;
  }

  openFile(): OutsideFile {
    const { file } = this;
    return {
      read: (position, into) => file.copy(into, 0, position, position + into.length) === into.length,
      write: (position, from) => Buffer.from(from).copy(file, position) === from.length,
      size: () => BYTES,
      close: () => {},
    };
  }

  fileSize(): number {
    return BYTES;
  }

  close(): void {}
}

class PretendedOutside implements Outside {
  onWake: () => void = () => {};
  readonly process1 = new PretendedProcess();
  #now = 0;

  now(): number {
    this.#now += 12_345;
    return this.#now;
  }

  pass(ns: number): void {
    this.#now += ns;
  }

  wake(): void {}

  process(pid: number): OutsideProcess | null {
    return pid === 1 ? this.process1 : null;
  }

  openBlockFile(): BlockStore & { close(): void } {
    return Object.assign(new MemoryBlockStore(1 << 20), { close() {} });
  }

  putFile(): boolean {
    return true;
  }

  removeFile(): void {}
}

class Silent implements ClientSocket {
  send(): boolean {
    return true;
  }
  ring(): void {}
  hold(): void {}
  end(): void {}
  destroy(): void {}
}

/** A recording, and the trace of the run that it is of. */
export function pretendRun(): { readonly recording: Buffer; readonly trace: string } {
  const path = join(tmpdir(), `nestbox-pretended-${process.pid}-${Math.floor(performance.now() * 1000)}`);
  try {
    const trace = runOnce(path);
    return { recording: readFileSync(path), trace };
  } finally {
    rmSync(path, { force: true });
  }
}

function runOnce(path: string): string {
  const clock = new Clock();
  const trace = new Trace(clock);
  clock.trace = trace;
  let text = "";
  const sink = new JsonLinesSink((piece) => {
    text += piece;
  });
  trace.addSink(sink);
  const options = {
    ...{ host: description, time: "leap" as const, check: "stale" as const, seed: 3 },
    inject: ["ioctl:IOMMU_IOAS_UNMAP@1=delay/2000000", "ioctl:IOMMU_IOAS_MAP@3=ENOMEM"],
  };
  const writer = beginRecording(path, options, () => {});
  const pretended = new PretendedOutside();
  const outside = new RecordedOutside(pretended, writer);
  const host = makeHost(options, clock, trace, outside, () => {});
  const entry = new RecordedEntry(new HostshimServer("", host, host.frames, outside), writer);
  script(entry, pretended);
  const { leftOver } = host;
  entry.close();
  host.close();
  sink.end();
  if (!writer.close({ leftOver })) throw new Error("the pretended run could not be recorded");
  return text;
}

function script(entry: RecordedEntry, pretended: PretendedOutside): void {
  const connect = (kind: number, more: Parameters<typeof wire.hello.encode>[0] = {}, name = ""): number => {
    const connection = entry.opened(new Silent());
    const bytes = Buffer.alloc(wire.hello.bytes + name.length);
    bytes.set(wire.hello.encode({ version: wire.PROTOCOL_VERSION, kind, pid: 1, path_len: name.length, ...more }));
    bytes.write(name, wire.hello.bytes);
    entry.message(connection, wire.message(wire.HELLO, 1, bytes));
    return connection;
  };
  const control = connect(wire.KIND_CONTROL);
  connect(wire.KIND_CONTROL, { pid: 2 });
  const iommufd = connect(wire.KIND_OPEN, { ino: INODES.iommufd }, "/dev/iommu");
  connect(wire.KIND_OPEN, { ino: INODES.device }, "/dev/vfio/devices/vfio0");
  connect(wire.KIND_OPEN, { ino: 90n }, "/dev/nothing");
  const events = connect(wire.KIND_EVENTS);
  let seq = 1;
  const send = (type: number, body: Uint8Array, more: Uint8Array): void => {
    const message = wire.message(type, ++seq, Buffer.concat([body, more]));
    wire.header.patch(message, { len: message.length, type, seq, flags: wire.CAP_IPC_LOCK });
    entry.message(control, message);
  };
  /** `sent`: along with the request; else the server has to read it. */
  const ioctl = (ino: bigint, cmd: number, words: readonly number[], sent = true): void => {
    const argument = Buffer.alloc(4 * words.length);
    for (const [i, word] of words.entries()) argument.writeInt32LE(word | 0, 4 * i);
    pretended.process1.memory.set(argument);
    const along = sent ? argument : Buffer.alloc(0);
    const body = { ino, cmd, arg: BigInt(BASE), fd: 7, inline_len: along.length, writable: sent ? 1 : 0 };
    send(wire.IOCTL, wire.ioctlRequest.encode(body), along);
  };
  const device = (cmd: number, ...words: number[]): void => ioctl(INODES.device, 0x3b00 + 100 + cmd, words);
  const iommu = (cmd: number, ...words: number[]): void => ioctl(INODES.iommufd, 0x3b00 + cmd, words);
  const write = (region: bigint, at: number, value: bigint, bytes: number): void => {
    const content = Buffer.alloc(8);
    content.writeBigUInt64LE(value);
    const pos = (region << 40n) + BigInt(at);
    send(
      wire.WRITE,
      wire.readWrite.encode({ ino: INODES.device, addr: 0x11000n, count: BigInt(bytes), pos }),
      content.subarray(0, bytes),
    );
  };
  const read = (at: number): void =>
    send(
      wire.READ,
      wire.readWrite.encode({ ino: INODES.device, addr: 0x11000n, count: 4n, pos: BigInt(at) }),
      Buffer.alloc(0),
    );
  const dma = (iova: number, toMemory: boolean): void => {
    write(0n, 0x80, BigInt(toMemory ? 0x40000 : iova), 8);
    write(0n, 0x88, BigInt(toMemory ? iova : 0x40000), 8);
    write(0n, 0x90, 0x180n, 8);
    write(0n, 0x98, toMemory ? 7n : 5n, 8);
    pretended.pass(1_000_000);
    pretended.onWake();
    read(0x98);
  };
  device(18, 16, 0, 7, 0); // BIND_IOMMUFD
  iommu(0x81, 12, 0, 0); // IOAS_ALLOC
  device(19, 12, 0, 2); // ATTACH_IOMMUFD_PT
  ioctl(INODES.device, 0x3b00 + 108, [32, 0, 0, 0, 0, 0, 0, 0], false); // GET_REGION_INFO, not sent along
  write(7n, 4, 6n, 2);
  iommu(0x85, 40, 7, 2, 0, 0x12000, 0, 0x4000, 0, 0x100000, 0); // IOAS_MAP, private memory
  iommu(0x8f, 40, 7, 2, MEMFD, 0, 0, 0x4000, 0, 0x200000, 0); // IOAS_MAP_FILE
  iommu(0x85, 40, 7, 2, 0, 0x900000, 0, 0x1000, 0, 0x300000, 0); // IOAS_MAP, of no memory
  iommu(0x85, 40, 7, 2, 0, 0x12000, 0, 0x1000, 0, 0x400000, 0); // refused by a rule
  device(10, 24, 0x24, 1, 0, 1, EVENTFD); // SET_IRQS: MSI by eventfd
  for (const iova of [0x100000, 0x200000, 0x500000]) for (const to of [false, true]) dma(iova, to);
  iommu(0x86, 24, 2, 0x100000, 0, 0x4000, 0); // IOAS_UNMAP, delayed
  entry.released(control);
  dma(0x100000, false);
  entry.drained(events);
  iommu(0xf0, 4); // an unknown request
  device(99, 8, 0);
  send(wire.PROCSTAT, wire.procstat.encode({ pid: 1 }), Buffer.alloc(0));
  send(wire.FSTAT, wire.fstat.encode({ ino: INODES.device }), Buffer.alloc(0));
  entry.stray(iommufd);
  entry.ended(control);
}
