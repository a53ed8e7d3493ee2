/** A compiler that is an optional part of the package; the message says how to get it. */
export class MissingCompiler extends Error {}
/** Makes a guest image from AssemblyScript, WebAssembly text or a core module. */
export function makeImage(
  input: string,
  output: string,
  options?: { wit?: URL; world?: string; component?: boolean },
): Promise<void>;
