// What an RV64 guest pays for a fence of its IOMMU: it stores commands, writes cqt and reads cqh until the fence is behind it, over the whole
// host model. One operation is one fence; `commandsPerOp` are done in it. Machines are put together as `nestbox boot` does.

import { REG } from "../../host/arch/riscv/registers.ts";
import { Clock } from "../../host/base/clock.ts";
import { Trace } from "../../host/base/trace.ts";
import { builtInHosts, DEFAULT_HOST } from "../../host/built-in-hosts.ts";
import { Host } from "../../host/host.ts";
import { CountingCalls } from "../../vmm/counting-calls.ts";
import { RAM_BASE } from "../../vmm/memory-map.ts";
import { Rv64Machine } from "../../vmm/rv64-machine.ts";
import { DEFAULT_KIND, VIOMMU_KINDS } from "../../vmm/viommu/kinds.ts";
import { Program, T0, T1 } from "../vmm/rv64-program.ts";
import { coreModule } from "../vmm/vcpu/riscv64/core-module.ts";
import { addi, b, i, load, r, sd, store } from "../vmm/vcpu/riscv64/encode.ts";

/** Rounds are short, a fraction of a millisecond, so that most of them are not interrupted by whatever else the machine does. */
const ROUNDS = 1001;
const ROUND_INSTRUCTIONS = 10_000;
/** CPU time: on a busy machine wall time passes before anything is compiled. */
const WARM_UP_US = 1_000_000;
const GUEST_ID = 0x10;
const QUEUE = RAM_BASE + 0x40_0000;
const DIRECTORY = RAM_BASE + 0x50_0000;
/** Entries of the command queue, log2. */
const QUEUE_LOG2 = 12;

const IOFENCE = 2n | (3n << 12n);
/** PSCID 5. */
const IOTINVAL_VMA = 1n | (5n << 12n) | (1n << 32n);
const IODIR_INVAL_DDT = 3n | (1n << 33n) | (BigInt(GUEST_ID) << 40n);
/** fence ow,ow */
const FENCE = 0x0550000f;

// Registers of the program: queue, IOMMU, tail, command, fence, mask of the tail.
const [S0, S1, S2, S3, S4, S5] = [8, 9, 18, 19, 20, 21];
const T2 = 7;

/** Fences for ever, `commands` - 1 times `command` and a fence each. */
function program(viommu: number, command: bigint, commands: number): Program {
  const guest = new Program().li(S0, QUEUE).li(S1, viommu).li(S2, 0).li(S3, command).li(S4, IOFENCE);
  guest.li(S5, 2 ** QUEUE_LOG2 - 1);
  const put = (register: number) =>
    guest.emit(
      i(0x13, 1, T2, S2, 4),
      r(0x33, 0, 0, T2, T2, S0),
      sd(register, T2, 0),
      sd(0, T2, 8),
      addi(S2, S2, 1),
      r(0x33, 7, 0, S2, S2, S5),
    );
  const again = guest.here;
  guest.li(T1, commands - 1);
  const next = guest.here;
  put(S3)
    .emit(addi(T1, T1, -1))
    .branchZero(T1, false, next);
  put(S4).emit(FENCE, store(2, S1, S2, REG.cqt));
  guest.emit(load(2, T0, S1, REG.cqh), b(1, T0, S2, -4));
  return guest.jump(again);
}

function measure(command: bigint, commands: number): number {
  const clock = new Clock();
  const trace = new Trace(clock);
  clock.trace = trace;
  const host = new Host(builtInHosts.find(({ name }) => name === DEFAULT_HOST)!, { clock, trace });
  const calls = new CountingCalls(host.createProcess());
  const rv64 = new Rv64Machine({
    core: coreModule(),
    clock,
    trace,
    memoryBytes: 16 << 20,
    harts: 1,
    sliceInstructions: Math.max(ROUND_INSTRUCTIONS, 100 * commands),
  });
  const world = { kind: VIOMMU_KINDS[DEFAULT_KIND], configuration: {}, calls, report: () => {} };
  const assignment = rv64.iommuWorld(world);
  const refusal = assignment.assign({ ...host.assignable("0000:00:01.0"), routingId: GUEST_ID });
  if (typeof refusal === "string") throw new Error(refusal);
  const { viommu, base } = assignment.viommus[0]!;
  // What a driver does once: an empty directory, the queue on.
  viommu.mmioWrite(REG.ddtp, 8, ((DIRECTORY / 4096) << 10) | 3, Math.floor(DIRECTORY / 2 ** 34));
  viommu.mmioWrite(REG.cqb, 8, ((QUEUE / 4096) << 10) | (QUEUE_LOG2 - 1), Math.floor(QUEUE / 2 ** 34));
  viommu.mmioWrite(REG.cqcsr, 4, 1, 0);
  const { kernel } = program(base, command, commands);
  rv64.load({ kernel, initrd: null, bootArguments: "", viommus: [], seed: new Uint8Array(32) });
  const round = (): number => {
    const before = viommu.commandsExecuted;
    const start = performance.now();
    const { kind } = rv64.run();
    if (kind !== "slice") throw new Error(`the guest stopped: ${kind}`);
    return ((performance.now() - start) * 1e6 * commands) / (viommu.commandsExecuted - before);
  };
  for (const start = process.cpuUsage(); process.cpuUsage(start).user < WARM_UP_US; ) round();
  const rounds = Array.from({ length: ROUNDS }, round);
  return rounds.sort((x, y) => x - y)[ROUNDS >> 1]!;
}

export const about = "what an RV64 guest pays for a fence of its IOMMU";
export async function bench(emit: (line: Record<string, unknown>) => void): Promise<void> {
  for (const [name, command, commands] of [
    ["fence-rv64-iotinval-vma", IOTINVAL_VMA, 2],
    ["fence-rv64-iodir-inval-ddt", IODIR_INVAL_DDT, 2],
    ["fence-rv64-batch-512", IOTINVAL_VMA, 512],
  ] as const) {
    const nsPerOp = measure(command, commands);
    emit({
      bench: name,
      nsPerOp: Math.round(nsPerOp * 10) / 10,
      opsPerSecond: Math.round(1e9 / nsPerOp),
      commandsPerOp: commands,
      commandsPerSecond: Math.round((commands * 1e9) / nsPerOp),
    });
  }
}
