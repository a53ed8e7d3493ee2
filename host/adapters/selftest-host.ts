// The iommufd of this host model for unmodified Linux programs: /dev/iommu with the selftest driver behind it, and the fail-nth file
// of Linux's fault injection (every allocation point of the model counts).

import { Clock } from "../base/clock.ts";
import { Trace } from "../base/trace.ts";
import { type CallContext, OpenFile } from "../kernel/file.ts";
import type { Injector } from "../kernel/inject.ts";
import { IommuCore } from "../kernel/iommu/core.ts";
import { MockDevice } from "../kernel/iommu/mock/mock-device.ts";
import { MockDriver } from "../kernel/iommu/mock/mock-driver.ts";
import { selftestCommands } from "../kernel/iommu/mock/selftest-commands.ts";
import type { IommufdEnvironment } from "../kernel/iommufd/environment.ts";
import { iommufdEnvironment, openIommufd } from "../kernel/iommufd/in-kernel.ts";
import { LiveObjects } from "../kernel/live-objects.ts";
import { ObjectNames } from "../kernel/object-names.ts";
import { EFAULT, EINVAL, ENODEV, ENOENT, ENOMEM } from "../uapi/errno.ts";
import { ForeignFrames } from "./foreign-frames.ts";
import type { ForeignProcess } from "./foreign-process.ts";
import {
  describeLeftOver,
  type HostSummary,
  IOMMUFD,
  IOMMUFD_NUMBER,
  type ServedDevice,
  type ServedHost,
} from "./served-host.ts";

export class SelftestHost implements ServedHost {
  readonly frames = new ForeignFrames();
  readonly #live = new LiveObjects();
  readonly #faults = new NthFaults();
  readonly #environment: IommufdEnvironment;
  readonly #complain: (message: string) => void;

  constructor(complain: (message: string) => void) {
    this.#complain = complain;
    const driver = new MockDriver();
    this.#environment = iommufdEnvironment(
      {
        iommu: new IommuCore(new Trace(new Clock())),
        live: this.#live,
        injector: this.#faults,
        names: new ObjectNames(),
      },
      { extraRequests: selftestCommands(driver), isTestDevice: (device) => device instanceof MockDevice },
    );
  }

  open(path: string, caller: ForeignProcess): OpenFile | number {
    if (path === IOMMUFD) {
      return this.#faults.allocation("open file") ? -ENOMEM : openIommufd(this.#environment, path);
    }
    if (/^\/proc\/.*\/fail-nth$/.test(path)) return new FailNthFile(path, this.#faults, caller.pid);
    return -ENOENT;
  }

  ioctl(caller: ForeignProcess, file: OpenFile, _fd: number, request: number, argument: bigint): number {
    return file.ioctl(caller, request, argument);
  }

  transfer(
    caller: ForeignProcess,
    file: OpenFile,
    va: bigint,
    length: number,
    position: bigint,
    write: boolean,
  ): number {
    return write ? file.write(caller, va, length, position) : file.read(caller, va, length, position);
  }

  deviceNumber(path: string): number {
    return path === IOMMUFD ? IOMMUFD_NUMBER : -ENODEV;
  }

  entering(process: ForeignProcess | null): void {
    this.#faults.current = process?.pid ?? 0;
  }

  heldMs(): number {
    return 0;
  }

  handled(): void {}

  complain(message: string): void {
    this.#complain(message);
  }

  get nodes(): readonly string[] {
    return [IOMMUFD];
  }

  get devices(): readonly ServedDevice[] {
    return [];
  }

  failed(): boolean {
    return false;
  }

  summary(): HostSummary {
    return { ioctls: {}, devices: [], findings: [], unusedRules: [] };
  }

  get leftOver(): string {
    return describeLeftOver(this.#live.entries(), this.frames.pins.total);
  }

  close(): void {}
}

/** Fails the nth allocation of a process's calls, once (Linux: /proc/PID/task/TID/fail-nth). */
class NthFaults implements Injector {
  /** The process whose call is being handled. */
  current = 0;
  readonly #countdowns = new Map<number, number>();

  set(pid: number, nth: number): void {
    if (nth === 0) this.#countdowns.delete(pid);
    else this.#countdowns.set(pid, nth);
  }

  remaining(pid: number): number {
    return this.#countdowns.get(pid) ?? 0;
  }

  ioctl(): number {
    return 0;
  }

  allocation(_what: string): boolean {
    const left = this.#countdowns.get(this.current);
    if (left === undefined) return false;
    this.set(this.current, left - 1);
    return left === 1;
  }

  loseEvent(): boolean {
    return false;
  }
}

class FailNthFile extends OpenFile {
  readonly path: string;
  readonly #faults: NthFaults;
  readonly #pid: number;

  constructor(path: string, faults: NthFaults, pid: number) {
    super();
    this.path = path;
    this.#faults = faults;
    this.#pid = pid;
  }

  override read(call: CallContext, va: bigint, length: number, position: bigint): number {
    const text = new TextEncoder().encode(`${this.#faults.remaining(this.#pid)}\n`);
    const from = position < 0n ? 0 : Number(position);
    const piece = text.subarray(Math.min(from, text.length), Math.min(from + length, text.length));
    return call.memory.write(va, piece) < 0 ? -EFAULT : piece.length;
  }

  override write(call: CallContext, va: bigint, length: number): number {
    const bytes = new Uint8Array(Math.min(length, 16));
    if (call.memory.read(va, bytes) < 0) return -EFAULT;
    const text = new TextDecoder().decode(bytes).trim();
    if (!/^\d+$/.test(text)) return -EINVAL;
    this.#faults.set(this.#pid, Number(text));
    return length;
  }

  protected release(): void {
    this.#faults.set(this.#pid, 0);
  }
}
