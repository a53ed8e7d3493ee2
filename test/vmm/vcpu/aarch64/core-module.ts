import { compiledCore } from "../compiled-core.ts";

export const coreModule = (): WebAssembly.Module => compiledCore("vmm/vcpu/aarch64/build/cpu.wasm");
