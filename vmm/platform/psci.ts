// The firmware of AArch64 machines: PSCI 1.1 (ARM DEN 0022) by HVC. What is not listed answers NOT_SUPPORTED.

import type { Stateful, StateReader, StateRecord } from "../../host/base/state.ts";
import type { ResetKind } from "../kernel-machine.ts";
import type { AArch64Core } from "../vcpu/aarch64/core.ts";

const SUCCESS = 0;
const NOT_SUPPORTED = -1;
const INVALID_PARAMETERS = -2;
const ALREADY_ON = -4;
const INVALID_ADDRESS = -9;
/** Bit of a function's number (ARM DEN 0028 §2.5): its arguments are 64 bits wide. */
const SMC64 = 0x40000000;

/** Function ids; those with a 64-bit form have it at + 0x40000000. */
const NAMES: ReadonlyMap<number, string> = new Map([
  [0x84000000, "PSCI_VERSION"],
  [0x84000002, "CPU_OFF"],
  [0x84000003, "CPU_ON"],
  [0xc4000003, "CPU_ON"],
  [0x84000004, "AFFINITY_INFO"],
  [0xc4000004, "AFFINITY_INFO"],
  [0x84000006, "MIGRATE_INFO_TYPE"],
  [0x84000008, "SYSTEM_OFF"],
  [0x84000009, "SYSTEM_RESET"],
  [0x8400000a, "PSCI_FEATURES"],
]);

export interface PsciParts {
  readonly core: Pick<AArch64Core, "x" | "xLow" | "setX" | "start">;
  /** Which CPUs run; CPU_ON and CPU_OFF change it. */
  readonly started: boolean[];
  readonly reset: (kind: ResetKind, failure: boolean) => void;
}

export class Psci implements Stateful {
  /** Calls by function, for the summary. */
  readonly calls = new Map<string, number>();
  readonly #parts: PsciParts; // not state: wiring

  constructor(parts: PsciParts) {
    this.#parts = parts;
  }

  /** Serves the HVC that `cpu` has just made: x0 is the function and then the answer. */
  call(cpu: number): void {
    const { core } = this.#parts;
    const name = NAMES.get(core.xLow(cpu, 0)) ?? "unknown";
    this.calls.set(name, (this.calls.get(name) ?? 0) + 1);
    core.setX(cpu, 0, BigInt(this.#answer(cpu, name)));
  }

  #answer(cpu: number, name: string): number {
    const { core, started, reset } = this.#parts;
    switch (name) {
      case "PSCI_VERSION":
        return 0x1_0001;
      case "CPU_OFF":
        started[cpu] = false;
        return SUCCESS;
      case "CPU_ON":
        return this.#on(cpu);
      case "AFFINITY_INFO": {
        const target = this.#target(this.#argument(cpu, 1));
        if (target < 0 || core.xLow(cpu, 2) !== 0) return INVALID_PARAMETERS;
        return started[target] === true ? 0 : 1;
      }
      case "MIGRATE_INFO_TYPE":
        return 2; // no trusted OS that would have to be moved
      case "SYSTEM_OFF":
        reset("shutdown", false);
        return SUCCESS;
      case "SYSTEM_RESET":
        reset("cold-reboot", false);
        return SUCCESS;
      case "PSCI_FEATURES":
        return NAMES.has(core.xLow(cpu, 1)) ? SUCCESS : NOT_SUPPORTED;
      default:
        return NOT_SUPPORTED;
    }
  }

  /** Argument `index` of the call: the low half of its register unless the call is one of 64 bits. */
  #argument(cpu: number, index: number): bigint {
    const { core } = this.#parts;
    return (core.xLow(cpu, 0) & SMC64) !== 0 ? core.x(cpu, index) : BigInt(core.xLow(cpu, index));
  }

  /** The CPU whose MPIDR affinity is `affinity`, −1 if there is none. */
  #target(affinity: bigint): number {
    return affinity < BigInt(this.#parts.started.length) ? Number(affinity) : -1;
  }

  #on(cpu: number): number {
    const { core, started } = this.#parts;
    const target = this.#target(this.#argument(cpu, 1));
    const entry = this.#argument(cpu, 2);
    if (target < 0) return INVALID_PARAMETERS;
    if ((entry & 3n) !== 0n) return INVALID_ADDRESS;
    if (started[target] === true) return ALREADY_ON;
    core.start(target, entry, this.#argument(cpu, 3));
    started[target] = true;
    return SUCCESS;
  }

  saveState(): StateRecord {
    return { calls: [...this.calls].map(([name, count]) => ({ name, count })) };
  }

  restoreState(state: StateReader): void {
    const calls = state.records("calls").map((call) => [call.text("name"), call.number("count")] as const);
    this.calls.clear();
    for (const [name, count] of calls) this.calls.set(name, count);
  }
}
