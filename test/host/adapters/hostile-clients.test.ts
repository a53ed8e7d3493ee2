// A served host under programs that mean no good, or that end anywhere: whatever they do, nothing throws, the next program is served, and of
// those who are gone nothing is left.

import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { preloadLibrary, socketLibrary } from "../../../host/adapters/built-libraries.ts";
import { HostService } from "../../../host/adapters/host-service.ts";
import * as wire from "../../../host/adapters/hostshim-protocol.ts";
import type { ClientEntry } from "../../../host/adapters/hostshim-server.ts";
import { LinuxOutside } from "../../../host/adapters/linux-outside.ts";
import { ModelledHost } from "../../../host/adapters/modelled-host.ts";
import { loadSocketCalls } from "../../../host/adapters/socket-calls.ts";
import { Clock } from "../../../host/base/clock.ts";
import { Trace } from "../../../host/base/trace.ts";
import { builtInHosts, DEFAULT_HOST } from "../../../host/built-in-hosts.ts";
import { Host } from "../../../host/host.ts";

const EDU = "0000:00:01.0";
const possible = process.platform === "linux" && spawnSync("cc", ["--version"]).status === 0;
const sourceOf = (name: string) => fileURLToPath(new URL(`${name}.c`, import.meta.url));

let folder: string;
let service: HostService;
/** Called with every message, before it is handled; what it returns, after. */
let onMessage: () => (() => void) | undefined = () => undefined;

/** Stands between listener and server. */
function watched(server: ClientEntry): ClientEntry {
  return {
    opened: (socket) => server.opened(socket),
    message: (connection, bytes) => {
      const after = onMessage();
      server.message(connection, bytes);
      after?.();
    },
    takesMessages: (connection) => server.takesMessages(connection),
    stray: (connection) => server.stray(connection),
    drained: (connection) => server.drained(connection),
    released: (connection) => server.released(connection),
    ended: (connection) => server.ended(connection),
    close: () => server.close(),
  };
}

beforeAll(() => {
  if (!possible) return;
  folder = mkdtempSync(join(tmpdir(), "nestbox-hostile-"));
  for (const name of ["vfio-program", "hostile-program"]) {
    const built = spawnSync("cc", ["-Wall", "-O1", "-o", join(folder, name), sourceOf(name)], { encoding: "utf8" });
    expect(built.stderr).toBe("");
  }
  const clock = new Clock();
  const trace = new Trace(clock);
  clock.trace = trace;
  const outside = new LinuxOutside(() => {});
  const host = new Host(builtInHosts.find(({ name }) => name === DEFAULT_HOST)!, {
    clock,
    trace,
    vfio: { mappableBars: false },
  });
  service = new HostService(new ModelledHost(host, clock, "leap", outside, () => {}), outside, {
    library: preloadLibrary(),
    socketCalls: loadSocketCalls(socketLibrary()),
    asRoot: true,
    between: watched,
  });
  service.listen();
});
afterAll(() => {
  if (!possible) return;
  service.close();
  service.host.close();
  rmSync(folder, { recursive: true, force: true });
});

const nextTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

function start(name: string, ...words: string[]): ChildProcess {
  const env = { ...process.env, ...service.environment() };
  return spawn(join(folder, name), words, { env, stdio: ["ignore", "ignore", "pipe"] });
}

/** How a program ended: exit status or signal, and what it said. */
async function ended(child: ChildProcess): Promise<{ status: number | string | null; errors: string }> {
  let errors = "";
  child.stderr!.on("data", (chunk: Buffer) => {
    errors += chunk.toString();
  });
  const status = await new Promise<number | string | null>((resolve) => {
    child.on("close", (code, signal) => resolve(signal ?? code));
  });
  return { status, errors };
}

/** When the ends of all connections have arrived. */
async function nothingLeft(): Promise<void> {
  while (service.server.connected > 0) await nextTurn();
  expect(service.host.leftOver).toBe("");
}

/** Another program has all it needs. */
async function serves(what = "interrupts"): Promise<void> {
  expect(await ended(start("vfio-program", what, EDU))).toEqual({ status: 0, errors: "" });
}

async function works(what?: string): Promise<void> {
  await serves(what);
  await nothingLeft();
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

/** A connection that has sent something. */
function connection(...sent: Uint8Array[]): net.Socket {
  const socket = net.connect(join(service.folder, "socket"));
  socket.on("error", () => {});
  for (const bytes of sent) socket.write(bytes);
  return socket;
}

/** The next bytes that are answered; null: the connection has ended. */
function answer(socket: net.Socket): Promise<Buffer | null> {
  return new Promise((resolve) => {
    socket.once("data", resolve);
    socket.once("close", () => resolve(null));
  });
}

describe.skipIf(!possible)("a served host", () => {
  it("serves 1,000 connections at once, and the next program when they are there and when they are gone", async () => {
    const sockets = Array.from({ length: 500 }, () => connection(hello(wire.KIND_CONTROL)));
    const answers = await Promise.all(sockets.map(answer));
    expect(answers.map((bytes) => wire.helloAck.decode(bytes!.subarray(wire.HEADER_BYTES)).err)).toEqual(
      answers.map(() => 0),
    );
    const files = Array.from({ length: 500 }, (_, n) =>
      connection(hello(wire.KIND_OPEN, { ino: BigInt(1e12 + n) }, "/dev/iommu")),
    );
    await Promise.all(files.map(answer));
    const before = service.server.connected;
    await serves();
    expect(before).toBeGreaterThanOrEqual(501);
    for (const socket of [...sockets, ...files]) socket.destroy();
    await works();
  });

  it("waits for the rest of a message, however little came, and for nobody else", async () => {
    const request = wire.message(wire.IOCTL, 5, wire.ioctlRequest.encode({ ino: 1n, cmd: 0x3b81, arg: 4096n }));
    const whole = Buffer.concat([hello(wire.KIND_CONTROL), request]);
    const stalled = Array.from({ length: whole.length - 1 }, (_, n) => connection(whole.subarray(0, n + 1)));
    await serves();
    // The rest comes: all are answered.
    const answers = stalled.map((socket) => {
      return new Promise<number>((resolve) => {
        let bytes = 0;
        socket.on("data", (data) => {
          bytes += data.length;
          if (bytes === 24 + 32) resolve(bytes);
        });
      });
    });
    for (const [n, socket] of stalled.entries()) socket.write(whole.subarray(n + 1));
    expect(new Set(await Promise.all(answers))).toEqual(new Set([24 + 32]));
    for (const socket of stalled) socket.destroy();
    await works();
  });

  it("takes lengths in a request for what is there of it", async () => {
    const control = connection(hello(wire.KIND_CONTROL));
    await answer(control);
    const file = connection(hello(wire.KIND_OPEN, { ino: 4711n }, "/dev/iommu"));
    await answer(file);
    const most = 0xffff_ffff_ffff_ffffn;
    for (const [type, body] of [
      [wire.IOCTL, wire.ioctlRequest.encode({ ino: 4711n, cmd: 0x3b81, arg: most, inline_len: 0xffff_ffff })],
      [wire.IOCTL, wire.ioctlRequest.encode({ ino: 4711n, cmd: 0xffff_ffff, arg: 1n, inline_len: 0xffff_ffff })],
      [wire.READ, wire.readWrite.encode({ ino: 4711n, addr: most, count: most, pos: most })],
      [wire.READ, wire.readWrite.encode({ ino: 4711n, addr: 0n, count: most, pos: 0n })],
      [wire.WRITE, wire.readWrite.encode({ ino: 4711n, addr: most, count: most, pos: most >> 1n })],
      [wire.MMAP, wire.mmapRequest.encode({ ino: 4711n, length: most, offset: most, prot: 7, flags: 0xffff_ffff })],
    ] as const) {
      control.write(wire.message(type, 7, body));
      const bytes = (await answer(control))!;
      expect(wire.header.decode(bytes)).toMatchObject({ type: wire.RSP, seq: 7 });
      expect(bytes.readBigInt64LE(wire.HEADER_BYTES)).toBeLessThan(0n);
    }
    control.destroy();
    file.destroy();
    await works();
  });

  it("refuses descriptors that are not what they should be, as Linux does", async () => {
    expect(await ended(start("hostile-program", "wrong", EDU))).toEqual({ status: 0, errors: "" });
    await works();
  });

  it("outlives a storm of children that share its device, a third of them killed somewhere", async () => {
    expect(await ended(start("hostile-program", "storm", EDU, "150"))).toEqual({ status: 0, errors: "" });
    await works();
  });

  it.each(["before it is handled", "after it has been answered"])(
    "has nothing left of a program that is killed at any of its messages, %s",
    async (when) => {
      let messages = 0;
      onMessage = () => {
        messages++;
        return undefined;
      };
      await works("memories");
      const all = messages;
      expect(all).toBeGreaterThan(50);
      for (let last = 1; last <= all; last++) {
        let child: ChildProcess;
        messages = 0;
        onMessage = () => {
          if (++messages !== last) return undefined;
          const kill = () => void child.kill("SIGKILL");
          if (when.startsWith("after")) return kill;
          kill();
          return undefined;
        };
        child = start("vfio-program", "memories", EDU);
        const { status, errors } = await ended(child);
        // After the last message there may be nothing left to kill.
        if (messages === last && last < all - 2) expect([last, status, errors]).toEqual([last, "SIGKILL", ""]);
        await nothingLeft();
      }
      onMessage = () => undefined;
      await works();
    },
  );

  it("has nothing left of programs that are killed at the same time, all at different messages", async () => {
    const children = Array.from({ length: 40 }, () => start("vfio-program", "memories", EDU));
    let messages = 0;
    onMessage = () => {
      if (++messages % 5 === 0) children[messages / 5 - 1]?.kill("SIGKILL");
      return undefined;
    };
    await Promise.all(children.map(ended));
    onMessage = () => undefined;
    await works();
  });
});
