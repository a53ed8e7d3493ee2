// Compiles the AArch64 core to build/cpu.wasm, if a source is newer than it. Run by the top-level build and by tests.
import { buildCore } from "../engine/build.mjs";

/** Builds what is out of date; returns the path of the WebAssembly module. */
export function buildCpu() {
  return buildCore(new URL("assembly/", import.meta.url), new URL("build/cpu.wasm", import.meta.url));
}
