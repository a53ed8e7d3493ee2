/** Compiles assembly/ to build/cpu.wasm if out of date; returns the path of the WebAssembly module. */
export function buildCpu(): Promise<string>;
