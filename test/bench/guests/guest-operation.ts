// What the bare-metal guests of `bench -- qemu` share: an operation, how it is repeated, and the IOMMU's command queue.

import { REG } from "../../../host/arch/riscv/registers.ts";
import { VIOMMU_BASE } from "../../../vmm/memory-map.ts";
import { Program } from "../../vmm/rv64-program.ts";
import { addi, b } from "../../vmm/vcpu/riscv64/encode.ts";

/** Memory that the guests' files do not fill: the queue of commands. */
export const COMMAND_QUEUE = 0x8040_0000;
export const QUEUE_LOG2 = 12;

export const IOFENCE = 2n | (3n << 12n);
/** PSCID 5. */
export const IOTINVAL_VMA = 1n | (5n << 12n) | (1n << 32n);
/** fence ow,ow */
export const FENCE = 0x0550000f;

// Registers of the programs: queue or memory, IOMMU, tail, command, fence, mask, repetitions left.
export const [S0, S1, S2, S3, S4, S5, S6] = [8, 9, 18, 19, 20, 21, 22] as const;
export const [T2, T3] = [7, 28] as const;

/** Repeats `body` `count` times, and shuts down. */
export function repeated(start: Program, count: number, body: (program: Program) => void): Program {
  start.li(S6, count);
  const again = start.here;
  body(start);
  start.emit(addi(S6, S6, -1), b(0, S6, 0, 8));
  return start.jump(again).reset();
}

/** Puts the IOMMU into use, its command queue on. `directory`: ddtp. What it leads to is there by then. */
export function withCommandQueue(directory: bigint, guest = new Program()): Program {
  return guest
    .store(8, VIOMMU_BASE + REG.ddtp, directory)
    .store(8, VIOMMU_BASE + REG.cqb, (BigInt(COMMAND_QUEUE >>> 12) << 10n) | BigInt(QUEUE_LOG2 - 1))
    .store(4, VIOMMU_BASE + REG.cqcsr, 1);
}

export interface GuestOperation {
  /** By what it is asked for. */
  readonly work: string;
  readonly name: string;
  /** What a rate counts. */
  readonly unit: string;
  /** As the file of a guest that does it `count` times. */
  readonly guest: (count: number) => Program;
  /** A count to begin with: some tenths of a second, or more. */
  readonly count: number;
  /** Units in one. */
  readonly units: number;
  /** The machine has an NVMe drive, 00:10.0. */
  readonly drive?: true;
}
