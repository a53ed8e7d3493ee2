// Compiles a core: a front end's assembly/ with the engine's, by its index.ts, to one WebAssembly module.
import { mkdir, readdir, readFile, rename, stat, writeFile } from "node:fs/promises";
import { dirname, relative } from "node:path";
import { fileURLToPath } from "node:url";

const here = fileURLToPath(new URL("./", import.meta.url));

/**
 * Compiles `folder`/index.ts (folder: a file URL ending in /) to the file `output` if a source of the front end or of the engine is newer than it;
 * returns the output's path.
 */
export async function buildCore(folder, output) {
  const sources = [fileURLToPath(import.meta.url), `${here}asconfig.json`];
  for (const room of [fileURLToPath(folder), `${here}assembly/`]) {
    for (const name of await readdir(room)) if (name.endsWith(".ts")) sources.push(`${room}${name}`);
  }
  const newest = Math.max(...(await Promise.all(sources.map(async (path) => (await stat(path)).mtimeMs))));
  const path = fileURLToPath(output);
  const built = await stat(path).then(
    (it) => it.mtimeMs,
    () => 0,
  );
  if (built < newest) await compile(fileURLToPath(folder), path);
  return path;
}

async function compile(folder, output) {
  const asc = await import("assemblyscript/asc");
  const stderr = asc.createMemoryStream();
  let wasm = null;
  // names relative to the engine's room, which is also where the configuration is
  const entry = relative(here, `${folder}index.ts`);
  const { error } = await asc.main([entry, "--config", "asconfig.json", "--outFile", "core.wasm"], {
    stderr,
    stdout: asc.createMemoryStream(),
    readFile: (name) => readFile(new URL(name, import.meta.url), "utf8").catch(() => null),
    writeFile: (name, contents) => {
      if (name === "core.wasm") wasm = contents;
    },
    listFiles: () => [],
  });
  if (error || wasm === null)
    throw new Error(`${folder} does not compile: ${error?.message ?? ""}\n${stderr.toString()}`);
  await mkdir(dirname(output), { recursive: true });
  // several builds at once (test workers) each move a whole file into place
  const draft = `${output}.${process.pid}.${Math.floor(performance.now() * 1000)}`;
  await writeFile(draft, wasm);
  await rename(draft, output);
}
