// A machine that executes RISC-V kernels: a kernel machine (kernel-machine.ts) of RV64's parts (platform/rv64-parts.ts).

import { KernelMachine, type KernelMachineOptions, type KernelStop } from "./kernel-machine.ts";
import type { Aplic } from "./platform/aplic.ts";
import { Rv64Parts } from "./platform/rv64-parts.ts";
import type { Sbi } from "./platform/sbi.ts";
import type { Rv64Core } from "./vcpu/riscv64/core.ts";

export interface Rv64MachineOptions extends Omit<KernelMachineOptions, "cpus"> {
  /** vmm/vcpu/riscv64/build/hart.wasm, compiled. */
  readonly core: WebAssembly.Module;
  readonly harts: number;
}

export type Rv64Stop = KernelStop;

export class Rv64Machine extends KernelMachine<Rv64Parts> {
  constructor({ core, harts, ...options }: Rv64MachineOptions) {
    const kernelOptions = { ...options, cpus: harts };
    super(kernelOptions, (host) => new Rv64Parts(core, kernelOptions, host));
  }

  get core(): Rv64Core {
    return this.parts.core;
  }

  get aplic(): Aplic {
    return this.parts.aplic;
  }

  get sbi(): Sbi {
    return this.parts.sbi;
  }

  /** Level of PCI INTx pin 1..4 of a function: wired as the device tree's interrupt-map says. */
  setIntx(routingId: number, pin: number, asserted: boolean): void {
    this.parts.setIntx(routingId, pin, asserted);
  }
}
