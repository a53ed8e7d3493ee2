// The instruction sets that kernels come in: a folder of the vCPU, parts of the platform, and a line here.

import { Arm64Machine } from "./arm64-machine.ts";
import type { KernelMachine, KernelMachineOptions } from "./kernel-machine.ts";
import type { Architecture } from "./platform/kernel-image.ts";
import { Rv64Machine } from "./rv64-machine.ts";

export interface ArchitectureEntry {
  /** "RISC-V", for messages. */
  readonly title: string;
  /** The compiled core, from the project's folder. */
  readonly core: string;
  /** `core`: that file, compiled. */
  create(core: WebAssembly.Module, options: KernelMachineOptions): KernelMachine;
}

export const ARCHITECTURES: Readonly<Record<Architecture, ArchitectureEntry>> = {
  riscv64: {
    title: "RISC-V",
    core: "vmm/vcpu/riscv64/build/hart.wasm",
    create: (core, { cpus, ...options }) => new Rv64Machine({ ...options, core, harts: cpus }),
  },
  arm64: {
    title: "AArch64",
    core: "vmm/vcpu/aarch64/build/cpu.wasm",
    create: (core, options) => new Arm64Machine({ ...options, core }),
  },
};
