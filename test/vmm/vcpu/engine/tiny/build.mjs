// Compiles the tiny instruction set with the engine.
import { buildCore } from "../../../../../vmm/vcpu/engine/build.mjs";

/** Builds what is out of date; returns the path of the WebAssembly module. */
export function buildTiny() {
  return buildCore(new URL("assembly/", import.meta.url), new URL("build/tiny.wasm", import.meta.url));
}
