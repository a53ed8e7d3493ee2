/** Compiles assembly/ to build/hart.wasm if out of date; returns the path of the WebAssembly module. */
export function buildHart(): Promise<string>;
