/**
 * Compiles `folder`/index.ts (folder: a file URL ending in /) with the engine to the file `output` if a source is newer than it; returns the output's
 * path.
 */
export function buildCore(folder: URL, output: URL): Promise<string>;
