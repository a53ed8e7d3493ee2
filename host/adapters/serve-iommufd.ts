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
import { iommufdEnvironment, openIommufd } from "../kernel/iommufd/in-kernel.ts";
import { LiveObjects } from "../kernel/live-objects.ts";
import { ObjectNames } from "../kernel/object-names.ts";
import { EFAULT, EINVAL, ENOENT, ENOMEM } from "../uapi/errno.ts";
import { HostshimServer } from "./hostshim-server.ts";

export interface IommufdService {
  /** Ends it; what is open is dropped. */
  close(): void;
  /** One line each: calls and mean time; objects and pins still alive. */
  statistics(): string[];
}

/** Serves on a UNIX socket until closed; `ready` is called when programs can connect, with a sentence when they cannot. */
export function serveIommufd(socketPath: string, ready: (problem: string | null) => void): IommufdService {
  const live = new LiveObjects();
  const iommu = new IommuCore(new Trace(new Clock()));
  const driver = new MockDriver();
  const faults = new NthFaults();
  const environment = iommufdEnvironment(
    { iommu, live, injector: faults, names: new ObjectNames() },
    {
      extraRequests: selftestCommands(driver),
      isTestDevice: (device) => device instanceof MockDevice,
    },
  );
  const server = new HostshimServer(socketPath, {
    open(path, pid) {
      if (path === "/dev/iommu") {
        return faults.allocation("open file") ? -ENOMEM : openIommufd(environment, path);
      }
      if (/^\/proc\/.*\/fail-nth$/.test(path)) return new FailNthFile(path, faults, pid);
      return -ENOENT;
    },
    entering(process) {
      faults.current = process?.pid ?? 0;
    },
  });
  server.listen(ready);
  return {
    close: () => server.close(),
    statistics: () => {
      const { calls, totalNs } = server.statistics;
      const { user, system } = process.cpuUsage();
      const mean = calls === 0 ? 0 : totalNs / calls / 1000;
      const objects = live.entries().map(([kind, count]) => `${count} ${kind}`);
      return [
        `${calls} calls, mean server time ${mean.toFixed(1)} us (processor time ${(calls === 0 ? 0 : (user + system) / calls).toFixed(1)} us)`,
        `live objects: ${objects.length === 0 ? "none" : objects.join(", ")}; pins: ${server.frames.pins.total}`,
      ];
    },
  };
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
