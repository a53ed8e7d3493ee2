/** Compiles the tiny instruction set if out of date; returns the path of the WebAssembly module. */
export function buildTiny(): Promise<string>;
