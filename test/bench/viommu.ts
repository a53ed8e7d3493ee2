// What a guest driver waits for at its IOMMU, over the whole host model: register accesses, invalidations from the store to cqt until cqh
// has passed the fence, attaching a context, and a DMA fault until the guest's interrupt. One line a case.
//
// nsPerOp is the median of rounds without instruments. The shares come from a second pass in which every door between two rooms has a
// stopwatch: `viommu` what the guest-visible IOMMU itself takes, `vfio` the port over iommufd, `kernel` the system calls, `hardware` the
// modelled IOMMU below, `rest` the guest's own stores, the device, bus and clock. Stopwatches cost, so a share is a share of the instrumented pass.

import { REG } from "../../host/arch/riscv/registers.ts";
import { NO_PASID } from "../../host/devices/ports.ts";
import { ACCESS_READ, TRANSLATED } from "../../host/hw/iommu/port.ts";
import { RiscvDriver } from "../../host/kernel/iommu/riscv/driver.ts";
import type { SystemCalls } from "../../host/uapi/system-calls.ts";
import type { ViommuHost } from "../../vmm/viommu/host-port.ts";
import { eduDma } from "../host/kernel/machine.ts";
import { DATA, type Plugged, Vm } from "../vmm/vfio/vm.ts";
import { TC } from "../vmm/viommu/guest.ts";

const RID = 0x0108;
const GUEST_ID = 0x10;
const ROUNDS = 15;
/** CPU time: on a busy machine wall time passes before anything is compiled. */
const WARM_UP_US = 500_000;

type Room = "rest" | "viommu" | "vfio" | "kernel" | "hardware";

/** Adds up the time spent in each room; doors are nested, so entering one stops the clock of the room outside. */
class Stopwatch {
  readonly spent: Record<Room, number> = { rest: 0, viommu: 0, vfio: 0, kernel: 0, hardware: 0 };
  #room: Room = "rest";
  #since = 0;

  start(): void {
    for (const room of Object.keys(this.spent) as Room[]) this.spent[room] = 0;
    this.#room = "rest";
    this.#since = performance.now();
  }

  stop(): void {
    this.spent[this.#room] += performance.now() - this.#since;
  }

  /** A function behind a door. */
  door<A extends unknown[], T>(room: Room, inside: (...args: A) => T): (...args: A) => T {
    return (...args) => {
      const outer = this.#enter(room);
      const result = inside(...args);
      this.#enter(outer);
      return result;
    };
  }

  #enter(room: Room): Room {
    const now = performance.now();
    const outer = this.#room;
    this.spent[outer] += now - this.#since;
    this.#room = room;
    this.#since = now;
    return outer;
  }
}

function shares(watch: Stopwatch): Record<string, number> {
  const total = Object.values(watch.spent).reduce((sum, ms) => sum + ms, 0);
  return Object.fromEntries(
    Object.entries(watch.spent).map(([room, ms]) => [room, Math.round((1000 * ms) / total) / 1000]),
  );
}

/** Puts a stopwatch at the doors of a VM's rooms. Methods are replaced on the instances. */
function instrument(vm: Vm, watch: Stopwatch): void {
  const wrap = (object: object, room: Room, names: readonly string[]) => {
    const target = object as Record<string, (...args: unknown[]) => unknown>;
    for (const name of names) target[name] = watch.door(room, target[name]!.bind(object));
  };
  const ports: readonly (keyof ViommuHost)[] = ["setBlocked", "setBypass", "setNested", "invalidate", "events"];
  for (const { host, guest } of vm.iommus) {
    wrap(host, "vfio", ports);
    wrap(guest.viommu, "viommu", ["mmioWrite", "mmioRead", "service"]);
  }
  for (const { device } of vm.plugged) wrap(device, "vfio", ["service"]);
  // The kernel's interrupt handlers are entered from the interrupt files.
  for (const iommu of vm.machine.iommus) {
    const driver = vm.machine.kernel.iommuHardware.driverOf(iommu);
    if (driver instanceof RiscvDriver)
      for (const instance of driver.instances) wrap(instance, "kernel", ["handleInterrupt"]);
  }
  const calls: readonly (keyof SystemCalls)[] = ["ioctl", "read", "write"];
  wrap(vm.process, "kernel", calls);
  for (const iommu of vm.machine.iommus) wrap(iommu, "hardware", ["drain", "step", "translate"]);
}

/** With an IOTLB that holds `cached` pages. */
function ready(cached = 0): { vm: Vm; device: Plugged } {
  const vm = new Vm({ devices: [{ rid: RID }], ...(cached > 0 ? { iommus: [{ caches: cachesFor(cached) }] } : {}) });
  const device = vm.assign(RID, GUEST_ID);
  vm.guest.enableDirectory();
  vm.guest.write64(REG.cqb, ((BigInt(0x8004_0000) >> 12n) << 10n) | 11n);
  vm.guest.write32(REG.cqt, 0);
  vm.guest.write32(REG.cqcsr, 1);
  return { vm, device };
}

function cachesFor(pages: number): { devices: number; processes: number; translations: number; messages: number } {
  return { devices: 64, processes: 256, translations: 2 * pages, messages: 64 };
}

const COMMANDS = 0x8004_0000n;
const IOTINVAL = 1n | (5n << 12n) | (1n << 32n);
const IOFENCE = 2n | (3n << 12n);

/** Fills the command queue's 4096 entries with a pattern of `period` commands, the last of them a fence. */
function fillQueue(vm: Vm, period: number, command: readonly [bigint, bigint] = [IOTINVAL, 0n]): void {
  for (let i = 0; i < 4096; i++) {
    const fence = (i + 1) % period === 0;
    vm.guest.store64(COMMANDS + BigInt(16 * i), fence ? IOFENCE : command[0]);
    vm.guest.store64(COMMANDS + BigInt(16 * i + 8), fence ? 0n : command[1]);
  }
}

const CACHED_IOVA = 0x4000_0000n;
/** IOTINVAL.VMA of the page before the cached ones: AV, and ADDR[63:12] from bit 10 on. */
const IOTINVAL_PAGE = [IOTINVAL | (1n << 10n), ((CACHED_IOVA >> 12n) - 1n) << 10n] as const;

/** Has the hardware cache the translations of `count` pages under the PSCID that the commands name. */
function cachePages(vm: Vm, count: number): void {
  const pages = Array.from({ length: count }, (_, n) => [CACHED_IOVA + BigInt(n) * 4096n, DATA] as const);
  vm.guest.installContext(GUEST_ID, { tc: TC.V, ta: 5n << 12n, fsc: vm.tables(pages).fsc });
  const iommu = vm.machine.iommus[0]!;
  for (let n = 0; n < count; n++) {
    const status = iommu.translate(RID, NO_PASID, false, ACCESS_READ, Number(CACHED_IOVA >> 12n) + n, 0, false, 0);
    if (status !== TRANSLATED) throw new Error(`page ${n} does not translate`);
  }
}

interface Case {
  readonly bench: string;
  /** Operations in one call of the function. */
  readonly operations: number;
  readonly run: () => void;
}

function median(values: number[]): number {
  return values.sort((a, b) => a - b)[values.length >> 1]!;
}

/** Runs a case: until its code is compiled, plain rounds, then an instrumented one. */
function measure(vm: Vm, watch: Stopwatch | null, each: Case): number[] {
  const rounds: number[] = [];
  for (const start = process.cpuUsage(); process.cpuUsage(start).user < WARM_UP_US; ) each.run();
  for (let round = 0; round < ROUNDS; round++) {
    const from = performance.now();
    each.run();
    rounds.push(((performance.now() - from) * 1e6) / each.operations);
  }
  if (watch !== null) {
    instrument(vm, watch);
    each.run();
    watch.start();
    for (let round = 0; round < ROUNDS; round++) each.run();
    watch.stop();
  }
  return rounds;
}

function queueCase(name: string, period: number, cached = 0): { vm: Vm; case: Case } {
  const { vm } = ready(cached);
  if (cached > 0) {
    vm.guest.enableQueues({ quiet: true });
    cachePages(vm, cached);
    vm.guest.write32(REG.cqcsr, 0);
    vm.guest.write64(REG.cqb, ((COMMANDS >> 12n) << 10n) | 11n);
    vm.guest.write32(REG.cqt, 0);
    vm.guest.write32(REG.cqcsr, 1);
  }
  fillQueue(vm, period, cached > 0 ? IOTINVAL_PAGE : undefined);
  let tail = 0;
  const { viommu } = vm.guest;
  const doorbells = 4096 / period;
  return {
    vm,
    case: {
      bench: name,
      operations: doorbells,
      run: () => {
        for (let i = 0; i < doorbells; i++) {
          tail = (tail + period) & 4095;
          viommu.mmioWrite(REG.cqt, 4, tail, 0);
          if (viommu.mmioRead(REG.cqh, 4) !== tail) throw new Error("the queue did not complete");
        }
      },
    },
  };
}

function attachCase(): { vm: Vm; case: Case } {
  const { vm } = ready();
  const stage1 = vm.tables([[0x4000_0000n, DATA]]);
  const { guest } = vm;
  vm.guest.enableQueues({ quiet: true });
  const contexts = [{ tc: TC.V }, { tc: TC.V, ta: 5n << 12n, fsc: stage1.fsc }];
  return {
    vm,
    case: {
      bench: "viommu-attach-bypass-nested",
      operations: 200,
      run: () => {
        for (let i = 0; i < 200; i++) guest.installContext(GUEST_ID, contexts[i & 1]!);
      },
    },
  };
}

function faultCase(): { vm: Vm; case: Case } {
  const { vm, device } = ready();
  const { guest } = vm;
  guest.enableQueues();
  guest.installContext(GUEST_ID, { tc: TC.V, fsc: vm.tables().fsc });
  return {
    vm,
    case: {
      bench: "viommu-fault-to-interrupt",
      operations: 100,
      run: () => {
        for (let i = 0; i < 100; i++) {
          const before = guest.messages.length;
          eduDma(device.bar, 0x4000_0000n, 64, false);
          vm.run(10_000);
          if (guest.messages.length !== before + 1) throw new Error("no interrupt");
          guest.write32(REG.fqh, guest.read32(REG.fqt));
          guest.write32(REG.ipsr, 2);
        }
      },
    },
  };
}

/** Register accesses alone, without a bus: what a trap costs in this room. */
function registerCases(): readonly Case[] {
  const { viommu } = ready().vm.guest;
  const many = 1_000_000;
  let sum = 0;
  const loop = (body: (i: number) => void) => () => {
    for (let i = 0; i < many; i++) body(i);
    if (sum < 0) throw new Error("unreachable");
  };
  return [
    {
      bench: "viommu-register-read32",
      operations: many,
      run: loop(() => {
        sum += viommu.mmioRead(REG.cqh, 4);
      }),
    },
    {
      bench: "viommu-register-read64",
      operations: many,
      run: loop(() => {
        sum += viommu.mmioRead(REG.capabilities, 8) + viommu.high;
      }),
    },
    { bench: "viommu-register-write32", operations: many, run: loop((i) => viommu.mmioWrite(REG.fqh, 4, i & 1, 0)) },
    {
      bench: "viommu-register-write64",
      operations: many,
      run: loop((i) => viommu.mmioWrite(REG.msi_cfg_tbl, 8, i, 0)),
    },
  ];
}

export const about = "what a guest driver waits for at its RISC-V IOMMU, and which room takes it";
export async function bench(emit: (line: Record<string, unknown>) => void): Promise<void> {
  const line = (each: Case, rounds: number[], more: Record<string, unknown> = {}) => {
    const nsPerOp = median(rounds);
    emit({
      bench: each.bench,
      nsPerOp: Math.round(nsPerOp * 10) / 10,
      opsPerSecond: Math.round(1e9 / nsPerOp),
      ...more,
    });
  };
  for (const each of registerCases()) line(each, measure(null as never, null, each));
  const cases = [
    { ...queueCase("viommu-iotinval-iofence", 2), commands: 2 },
    { ...queueCase("viommu-iotinval-batch-512", 512), commands: 512 },
    { ...queueCase("viommu-iotinval-page-4096-cached", 2, 4096), commands: 2 },
    { ...attachCase(), commands: 2 },
    { ...faultCase(), commands: 0 },
  ];
  for (const { vm, case: each, commands } of cases) {
    const watch = new Stopwatch();
    const rounds = measure(vm, watch, each);
    line(each, rounds, { ...(commands > 0 ? { commandsPerOp: commands } : {}), shares: shares(watch) });
  }
}
