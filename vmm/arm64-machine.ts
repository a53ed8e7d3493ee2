// A machine that executes AArch64 kernels: a kernel machine (kernel-machine.ts) of AArch64's parts (platform/arm64-parts.ts).

import { KernelMachine, type KernelMachineOptions } from "./kernel-machine.ts";
import { Arm64Parts } from "./platform/arm64-parts.ts";

export interface Arm64MachineOptions extends KernelMachineOptions {
  /** vmm/vcpu/aarch64/build/cpu.wasm, compiled. */
  readonly core: WebAssembly.Module;
}

export class Arm64Machine extends KernelMachine<Arm64Parts> {
  constructor({ core, ...options }: Arm64MachineOptions) {
    super(options, (host) => new Arm64Parts(core, options, host));
  }
}
