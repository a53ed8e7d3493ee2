// The server under clients that keep to no protocol: each is refused or loses its connection, nothing throws, and the next one is served.

import { mkdtempSync, rmSync, statSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { socketLibrary } from "../../../host/adapters/built-libraries.ts";
import { HostshimListener } from "../../../host/adapters/hostshim-listener.ts";
import * as wire from "../../../host/adapters/hostshim-protocol.ts";
import { HostshimServer } from "../../../host/adapters/hostshim-server.ts";
import { LinuxOutside } from "../../../host/adapters/linux-outside.ts";
import { SelftestHost } from "../../../host/adapters/selftest-host.ts";
import { loadSocketCalls } from "../../../host/adapters/socket-calls.ts";
import { SeededRandom } from "../../../host/base/seeded-random.ts";
import { EBADF, EINVAL, ENOENT, ENOTTY } from "../../../host/uapi/errno.ts";

let folder: string;
let server: HostshimServer;
let listener: HostshimListener;
let socket: string;
const complaints: string[] = [];
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "nestbox-server-"));
  socket = join(folder, "socket");
  const host = new SelftestHost((line) => complaints.push(line));
  server = new HostshimServer(socket, host, host.frames, new LinuxOutside(() => {}));
  const calls = loadSocketCalls(socketLibrary());
  listener = new HostshimListener(socket, server, calls, (line) => complaints.push(line));
  expect(listener.listen()).toBe(null);
});
afterAll(() => {
  listener.close();
  rmSync(folder, { recursive: true, force: true });
});

/** A connection: what is sent, and the next message, or null when it has ended. */
class Client {
  readonly #socket: net.Socket;
  #bytes = Buffer.alloc(0);
  #ended = false;
  #wake: () => void = () => {};

  constructor() {
    this.#socket = net.connect(socket);
    this.#socket.on("data", (data) => {
      this.#bytes = Buffer.concat([this.#bytes, data]);
      this.#wake();
    });
    const end = () => {
      this.#ended = true;
      this.#wake();
    };
    for (const event of ["end", "close", "error"]) this.#socket.on(event, end);
  }

  send(bytes: Uint8Array): this {
    this.#socket.write(bytes);
    return this;
  }

  async next(): Promise<{ type: number; body: Buffer } | null> {
    for (;;) {
      if (this.#bytes.length >= wire.HEADER_BYTES) {
        const { len, type } = wire.header.decode(this.#bytes);
        if (this.#bytes.length >= len) {
          const body = this.#bytes.subarray(wire.HEADER_BYTES, len);
          this.#bytes = this.#bytes.subarray(len);
          return { type, body };
        }
      }
      if (this.#ended) return null;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  close(): void {
    this.#socket.destroy();
  }
}

function hello(kind: number, more: Parameters<typeof wire.hello.encode>[0] = {}, path = ""): Uint8Array {
  const name = Buffer.from(path);
  const body = Buffer.alloc(wire.hello.bytes + name.length);
  body.set(
    wire.hello.encode({ version: wire.PROTOCOL_VERSION, kind, pid: process.pid, path_len: name.length, ...more }),
  );
  body.set(name, wire.hello.bytes);
  return wire.message(wire.HELLO, 1, body);
}

/** What a HELLO is answered. */
async function answer(bytes: Uint8Array): Promise<number | null> {
  const client = new Client().send(bytes);
  const reply = await client.next();
  client.close();
  return reply === null ? null : wire.helloAck.decode(reply.body).err;
}

async function works(): Promise<void> {
  const control = new Client().send(hello(wire.KIND_CONTROL));
  expect(wire.helloAck.decode((await control.next())!.body).err).toBe(0);
  const file = new Client().send(hello(wire.KIND_OPEN, { ino: 77n }, "/dev/iommu"));
  expect(wire.helloAck.decode((await file.next())!.body).err).toBe(0);
  const call = wire.ioctlRequest.encode({ ino: 77n, cmd: 0x3b00, arg: 0n });
  control.send(wire.message(wire.IOCTL, 5, call));
  expect((await control.next())!.type).toBe(wire.RSP);
  control.close();
  file.close();
}

describe("the server of emulated device nodes", () => {
  it("is its user's alone", () => {
    expect(statSync(socket).mode & 0o777).toBe(0o600);
  });

  it("answers a HELLO that it cannot take with an errno", async () => {
    expect(await answer(hello(wire.KIND_CONTROL, { version: 1 }))).toBe(-EINVAL);
    expect(await answer(hello(99))).toBe(-EINVAL);
    expect(await answer(wire.message(wire.HELLO, 1, new Uint8Array(8)))).toBe(-EINVAL);
    expect(await answer(hello(wire.KIND_OBJ, { token: 12345n }))).toBe(-EBADF);
    expect(await answer(hello(wire.KIND_OPEN, { pid: 1 }, "/dev/iommu"))).toBe(-EINVAL);
    expect(await answer(hello(wire.KIND_EVENTS, { pid: 1 }))).toBe(-EINVAL);
    const control = new Client().send(hello(wire.KIND_CONTROL));
    await control.next();
    expect(await answer(hello(wire.KIND_OPEN, {}, "/dev/nothing"))).toBe(-ENOENT);
    expect(await answer(hello(wire.KIND_OPEN, { path_len: 0xffff_ffff }))).toBe(-ENOENT);
    control.close();
    await works();
  });

  it.each([
    ["a request before any HELLO", wire.message(wire.IOCTL, 1, new Uint8Array(32))],
    ["a length below a header's", wire.header.encode({ len: 3, type: wire.HELLO })],
    ["a length beyond the largest message", wire.header.encode({ len: 0x7fff_ffff, type: wire.HELLO })],
    ["an event that is nobody's", wire.message(wire.EVENT, 1, new Uint8Array(24))],
  ])("ends the connection after %s", async (_what, bytes) => {
    const client = new Client().send(bytes);
    expect(await client.next()).toBe(null);
    await works();
  });

  it("answers requests on files that there are not, and ends a connection whose request is cut short", async () => {
    const control = new Client().send(hello(wire.KIND_CONTROL));
    await control.next();
    for (const [type, bytes] of Object.entries(wire.REQUEST_BYTES)) {
      if (Number(type) === wire.POST || Number(type) === wire.PROCSTAT) continue;
      control.send(wire.message(Number(type), 9, new Uint8Array(bytes)));
      const reply = (await control.next())!;
      expect(new DataView(reply.body.buffer, reply.body.byteOffset).getBigInt64(0, true)).toBe(BigInt(-EBADF));
    }
    control.send(wire.message(wire.IOCTL, 9, new Uint8Array(4)));
    expect(await control.next()).toBe(null);
    await works();
  });

  it("closes a file that is written to by a way round the C library, and says so", async () => {
    const control = new Client().send(hello(wire.KIND_CONTROL));
    await control.next();
    const file = new Client().send(hello(wire.KIND_OPEN, { ino: 78n }, "/dev/iommu"));
    await file.next();
    complaints.length = 0;
    file.send(Uint8Array.of(1, 2, 3));
    expect(await file.next()).toBe(null);
    expect(complaints).toEqual([
      expect.stringMatching(/^\/dev\/iommu: a program writes to it by a way round the C library/),
    ]);
    control.close();
    await works();
  });

  it("takes an inode number for one file at a time, and none for 0", async () => {
    const control = new Client().send(hello(wire.KIND_CONTROL));
    await control.next();
    const file = new Client().send(hello(wire.KIND_OPEN, { ino: 79n }, "/dev/iommu"));
    await file.next();
    expect(await answer(hello(wire.KIND_OPEN, { ino: 79n }, "/dev/iommu"))).toBe(-EINVAL);
    expect(await answer(hello(wire.KIND_OPEN, {}, "/dev/iommu"))).toBe(-EINVAL);
    // The first is still there: an unknown request is refused as one, by the file.
    control.send(wire.message(wire.IOCTL, 5, wire.ioctlRequest.encode({ ino: 79n, cmd: 0x1234, arg: 0n })));
    const { body } = (await control.next())!;
    expect(new DataView(body.buffer, body.byteOffset).getBigInt64(0, true)).toBe(BigInt(-ENOTTY));
    control.close();
    file.close();
    await works();
  });

  it("has one process's eventfds on a connection", async () => {
    const control = new Client().send(hello(wire.KIND_CONTROL));
    await control.next();
    const events = new Client().send(hello(wire.KIND_EVENTS));
    expect(wire.helloAck.decode((await events.next())!.body).err).toBe(0);
    events.send(hello(wire.KIND_EVENTS));
    expect(wire.helloAck.decode((await events.next())!.body).err).toBe(-EINVAL);
    control.close();
    events.close();
    await works();
  });

  it("reads no more from a client that does not read its answers, until it does", async () => {
    const control = new Client().send(hello(wire.KIND_CONTROL));
    await control.next();
    const requests = 200_000;
    const deaf = net.connect(socket);
    deaf.write(hello(wire.KIND_CONTROL));
    const request = wire.message(wire.PROCSTAT, 9, wire.procstat.encode({ pid: 1 }));
    const flood = Buffer.alloc(requests * request.length);
    for (let n = 0; n < requests; n++) flood.set(request, n * request.length);
    deaf.write(flood);
    const before = listener.statistics.calls;
    // At each of these turns the server would read another piece of it, 64 KiB at most.
    const turns = 4 * Math.ceil(flood.length / 65536);
    for (let turn = 0; turn < turns; turn++) await control.send(request).next();
    expect(listener.statistics.calls - before - turns).toBeLessThan(requests / 2);
    // What it has been sent is answered all the same.
    let answered = 0;
    let left = Buffer.alloc(0);
    await new Promise<void>((resolve) => {
      deaf.on("data", (data) => {
        left = Buffer.concat([left, data]);
        for (; left.length >= 4 && left.length >= left.readUInt32LE(0); answered++)
          left = left.subarray(left.readUInt32LE(0));
        if (answered === requests + 1) resolve();
      });
    });
    deaf.destroy();
    control.close();
    await works();
  });

  it("outlives any bytes", async () => {
    const random = new SeededRandom(7);
    for (let round = 0; round < 200; round++) {
      const bytes = Uint8Array.from({ length: 1 + random.below(200) }, () => random.below(256));
      // Half of them with a plausible header, so that they get further.
      if (round % 2 === 0) {
        wire.header.patch(bytes.length < 16 ? new Uint8Array(16) : bytes, {
          len: Math.max(16, bytes.length),
          type: [1, 16, 17, 18, 19, 20, 21, 22, 80][random.below(9)]!,
        });
      }
      const client = new Client();
      if (round % 3 === 0) client.send(hello(wire.KIND_CONTROL));
      client.send(bytes);
      client.close();
    }
    await works();
  });
});
