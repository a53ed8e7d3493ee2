import { describe, expect, it } from "vitest";
import type { HpaPfn } from "../../../host/base/address.ts";
import { Clock } from "../../../host/base/clock.ts";
import { PhysicalMemory } from "../../../host/base/memory.ts";
import { Trace, type TracedEvent } from "../../../host/base/trace.ts";
import { type CallContext, OpenFile } from "../../../host/kernel/file.ts";
import { Kernel } from "../../../host/kernel/kernel.ts";
import { EAGAIN, EBADF, EFAULT, EINVAL, EMFILE, ENOENT, ENOMEM, ENOTTY } from "../../../host/uapi/errno.ts";
import { O_RDWR, POLLIN, POLLOUT } from "../../../host/uapi/system-calls.ts";

const RAM_BASE = 0x14_0000 as HpaPfn;

function boot(ramPages = 256) {
  const clock = new Clock();
  const trace = new Trace(clock);
  const memory = new PhysicalMemory<HpaPfn>();
  memory.addBank(RAM_BASE, new ArrayBuffer(ramPages * 4096));
  const kernel = new Kernel({ memory, ram: { base: RAM_BASE, pages: ramPages }, clock, trace });
  return { kernel, memory, trace };
}

class Echo extends OpenFile {
  readonly path = "/dev/echo";
  released = 0;
  override ioctlName(request: number) {
    return request === 1 ? "ECHO" : null;
  }
  override ioctl(call: CallContext, request: number, argument: bigint): number {
    if (request === 2) return -ENOTTY;
    if (request === 3) call.descriptors.lookup(0);
    return Number(argument);
  }
  override ioctlFields(_call: CallContext, _request: number, argument: bigint) {
    return { argument };
  }
  protected override release(): void {
    this.released++;
  }
}

describe("a process's memory", () => {
  it("shares a mapped buffer with the host's physical memory, at an address that is not its own", () => {
    const { kernel, memory } = boot();
    const process = kernel.createProcess("vmm");
    const buffer = new ArrayBuffer(4 * 4096);
    const va = process.memory.mapBuffer(buffer, 4096, 2 * 4096);
    process.memory.bytes(va, 8)[3] = 0x5a;
    expect(new Uint8Array(buffer)[4096 + 3]).toBe(0x5a);
    const runs = process.memory.pin(va, 2, true);
    expect(runs).toEqual([{ frame: expect.any(Number), count: 2 }]);
    const { frame } = (runs as { frame: number; count: number }[])[0]!;
    expect(BigInt(frame) << 12n).not.toBe(va);
    const byte = new Uint8Array(1);
    memory.read(frame as HpaPfn, 3, byte, 0, 1);
    expect(byte[0]).toBe(0x5a);
    kernel.frames.pins.unpin({ frame, count: 2 });
    process.exit();
    expect(kernel.liveKinds).toEqual([]);
  });

  it("leaves unmapped host memory between two buffers", () => {
    const { kernel, memory } = boot();
    const process = kernel.createProcess("vmm");
    const first = process.memory.pin(process.memory.mapBuffer(new ArrayBuffer(8192), 0, 8192), 1, true);
    const second = process.memory.pin(process.memory.mapBuffer(new ArrayBuffer(8192), 0, 8192), 1, true);
    const [a, b] = [first, second].map((runs) => (runs as { frame: number }[])[0]!.frame) as [number, number];
    expect(b).toBeGreaterThan(a + 2);
    expect(memory.contains((a + 2) as HpaPfn)).toBe(false);
    kernel.frames.pins.unpin({ frame: a, count: 1 });
    kernel.frames.pins.unpin({ frame: b, count: 1 });
    process.exit();
    expect(kernel.liveObjects).toBe(0);
  });

  it("gives zeroed pages of host RAM and takes them back", () => {
    const { kernel } = boot(4);
    const process = kernel.createProcess("vmm");
    const va = process.memory.allocate(3 * 4096);
    process.memory.bytes(va, 1)[0] = 1;
    expect(process.memory.allocate(2 * 4096)).toBe(BigInt(-ENOMEM));
    process.memory.free(va, 3 * 4096);
    const again = process.memory.allocate(4 * 4096);
    expect(process.memory.bytes(again, 4 * 4096).every((byte) => byte === 0)).toBe(true);
    process.exit();
    expect(kernel.frames.usedPages).toBe(0);
  });

  it("keeps pinned pages where they are after the process has gone", () => {
    const { kernel, memory } = boot();
    const process = kernel.createProcess("vmm");
    const va = process.memory.mapBuffer(new ArrayBuffer(4096), 0, 4096);
    const [run] = process.memory.pin(va, 1, true) as { frame: number; count: number }[];
    process.exit();
    expect(memory.contains(run!.frame as HpaPfn)).toBe(true);
    expect(kernel.liveObjects).toBe(2);
    kernel.frames.pins.unpin(run!);
    expect(memory.contains(run!.frame as HpaPfn)).toBe(false);
    expect(kernel.liveObjects).toBe(0);
  });

  it("can be unmapped in the middle; the hole faults, the rest stays", () => {
    const { kernel } = boot();
    const process = kernel.createProcess("vmm");
    const va = process.memory.allocate(3 * 4096);
    expect(process.munmap(va + 4096n, 4096)).toBe(0);
    const into = new Uint8Array(8);
    expect(process.memory.read(va + 4088n, into)).toBe(0);
    expect(process.memory.read(va + 4092n, into)).toBe(-EFAULT);
    expect(process.memory.pin(va, 3, false)).toBe(-EFAULT);
    expect(kernel.frames.pins.total).toBe(0);
    expect(process.memory.read(va + 8192n, into)).toBe(0);
    process.exit();
    expect(kernel.frames.usedPages).toBe(0);
  });

  it("is copied as doublewords where it is made of them, as bytes where not, and always what bytes would be", () => {
    const { kernel } = boot();
    const process = kernel.createProcess("vmm");
    const at = Number(process.memory.allocate(4096));
    const bytes = Uint8Array.from({ length: 1024 }, (_, n) => (n * 151 + (n >> 3)) & 0xff);
    const doublewords = new BigUint64Array(bytes.buffer);
    for (const place of [at, at + 4, at + 3]) {
      for (const length of [0, 1, 4, 8, 12, 40, 512, 520, 1024]) {
        for (const va of [place, BigInt(place)]) {
          process.memory.bytes(BigInt(place), 1032).fill(0x99);
          expect(process.memory.write(va, doublewords, length)).toBe(0);
          expect(process.memory.bytes(BigInt(place), 1032)).toEqual(
            Uint8Array.from({ length: 1032 }, (_, n) => (n < length ? bytes[n]! : 0x99)),
          );
          const back = new BigUint64Array(128);
          expect(process.memory.read(va, back, length)).toBe(0);
          expect(new Uint8Array(back.buffer)).toEqual(bytes.map((byte, n) => (n < length ? byte : 0)));
        }
      }
    }
    // the last doubleword, and one that begins in it
    expect(process.memory.read(at + 4088, new BigUint64Array(1))).toBe(0);
    expect(process.memory.read(at + 4088, new BigUint64Array(2))).toBe(-EFAULT);
    expect(process.memory.write(at + 4092, new BigUint64Array(1))).toBe(-EFAULT);
  });

  it.each([[0n], [-1n], [2n ** 47n - 4n], [2n ** 64n - 4n], [2n ** 70n]])("answers EFAULT for address %s", (va) => {
    const { kernel } = boot();
    const process = kernel.createProcess("vmm");
    expect(process.memory.read(va, new Uint8Array(8))).toBe(-EFAULT);
    expect(process.memory.write(va, new Uint8Array(8))).toBe(-EFAULT);
  });
});

describe("a process's descriptors", () => {
  it("are the lowest free numbers, and the file goes with the last reference", () => {
    const { kernel } = boot();
    const files: Echo[] = [];
    kernel.addNode("/dev/echo", () => {
      files.push(new Echo());
      return files[files.length - 1]!;
    });
    const process = kernel.createProcess("vmm");
    expect(process.open("/dev/nothing", O_RDWR)).toBe(-ENOENT);
    expect([process.open("/dev/echo", O_RDWR), process.open("/dev/echo", O_RDWR)]).toEqual([0, 1]);
    expect(process.close(0)).toBe(0);
    expect(files[0]!.released).toBe(1);
    expect(process.close(0)).toBe(-EBADF);
    expect(process.ioctl(0, 1, 0n)).toBe(-EBADF);
    expect(process.open("/dev/echo", O_RDWR)).toBe(0);
    process.exit();
    expect(files.map((file) => file.released)).toEqual([1, 1, 1]);
    expect(kernel.liveObjects).toBe(0);
  });

  it("run out at the limit", () => {
    const { kernel } = boot();
    const process = kernel.createProcess("vmm", { descriptorLimit: 2 });
    expect([process.eventfd(), process.eventfd(), process.eventfd()]).toEqual([0, 1, -EMFILE]);
  });

  it("take bad numbers without complaint", () => {
    const { kernel } = boot();
    const process = kernel.createProcess("vmm");
    for (const fd of [-1, 0.5, 7, 2 ** 31, Number.NaN]) {
      expect(process.close(fd)).toBe(-EBADF);
      expect(process.poll(fd)).toBe(-EBADF);
      expect(process.read(fd, 0n, 8, -1n)).toBe(-EBADF);
      expect(process.mmap(fd, 0n, 4096, 3, 1)).toBe(BigInt(-EBADF));
    }
  });
});

describe("an ioctl in the trace", () => {
  it("has its result and is the cause of what happens inside", () => {
    const { kernel, trace } = boot();
    const events: TracedEvent[] = [];
    trace.addSink({ event: (event) => events.push(event) });
    kernel.addNode("/dev/echo", () => {
      const file = new Echo();
      file.ioctl = () => {
        trace.emit({ type: "irq", where: "host", source: "inside", vector: 0 });
        return 5;
      };
      return file;
    });
    const process = kernel.createProcess("vmm");
    process.ioctl(process.open("/dev/echo", O_RDWR), 1, 77n);
    const ioctl = events.find((event) => event.type === "ioctl");
    const inside = events.find((event) => event.type === "irq");
    expect(ioctl).toMatchObject({ name: "ECHO", result: 5, fields: { argument: 77n }, cause: 0 });
    expect(inside!.cause).toBe(ioctl!.seq);
    expect(trace.cause).toBe(0);
  });

  it("can be made to fail by name", () => {
    const { kernel } = boot();
    kernel.addNode("/dev/echo", () => new Echo());
    kernel.injector = {
      ioctl: (name) => (name === "ECHO" ? -ENOMEM : 0),
      allocation: () => false,
      loseEvent: () => false,
    };
    const process = kernel.createProcess("vmm");
    expect(process.ioctl(process.open("/dev/echo", O_RDWR), 1, 77n)).toBe(-ENOMEM);
  });
});

describe("an eventfd", () => {
  it("counts writes, is readable while not zero, and a read takes the count", () => {
    const { kernel } = boot();
    const process = kernel.createProcess("vmm");
    const fd = process.eventfd();
    const va = process.memory.allocate(4096);
    expect(process.poll(fd)).toBe(POLLOUT);
    expect(process.read(fd, va, 8, -1n)).toBe(-EAGAIN);
    process.memory.bytes(va, 8).set([3, 0, 0, 0, 0, 0, 0, 0]);
    let woken = 0;
    process.watch(fd, () => woken++);
    expect(process.write(fd, va, 8, -1n)).toBe(8);
    expect(process.write(fd, va, 8, -1n)).toBe(8);
    expect(woken).toBe(2);
    expect(process.poll(fd)).toBe(POLLIN | POLLOUT);
    expect(process.read(fd, va, 8, -1n)).toBe(8);
    expect(process.memory.bytes(va, 1)[0]).toBe(6);
    process.memory.bytes(va, 8).fill(0xff);
    expect(process.write(fd, va, 8, -1n)).toBe(-EINVAL);
    expect(process.write(fd, va, 4, -1n)).toBe(-EINVAL);
    process.exit();
    expect(kernel.liveObjects).toBe(0);
  });
});
