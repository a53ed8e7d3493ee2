import { compiledCore } from "../compiled-core.ts";

export const coreModule = (): WebAssembly.Module => compiledCore("vmm/vcpu/riscv64/build/hart.wasm");
