// Regions to machine code: WebAssembly's engine does it, at first fast and simply. V8 does it again with all it knows, beside the guest, when a function
// has run for so many bytes of its code; that takes ten times as long, and by default it comes to that after a fraction of a millisecond, which is right
// for a program of a few hundred functions and wrong for us, who hand it a new one every few milliseconds: most of them never run for as long as
// that takes.

/** Bytes of code, V8's measure. */
const REGION_BUDGET = 100_000_000;
const USUAL_BUDGET = 1_800_000;

/** Null where there is no such setting: another engine, a browser. */
const setFlags = globalThis.process?.getBuiltinModule?.("node:v8")?.setFlagsFromString ?? null;

/** The module `bytes` is; throws RangeError where the engine refuses (a browser's main thread compiles small ones only). */
export function compileRegion(bytes: Uint8Array<ArrayBuffer>): WebAssembly.Module {
  setFlags?.(`--wasm-tiering-budget=${REGION_BUDGET}`);
  try {
    return new WebAssembly.Module(bytes);
  } finally {
    setFlags?.(`--wasm-tiering-budget=${USUAL_BUDGET}`);
  }
}
