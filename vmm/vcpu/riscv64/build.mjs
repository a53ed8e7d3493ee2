// Compiles the vCPU core (assembly/, AssemblyScript) to build/hart.wasm, if a source is newer than it. Run by the top-level build and by tests.
import { mkdir, readdir, readFile, rename, stat, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";

const room = new URL("./", import.meta.url);
const output = new URL("build/hart.wasm", room);

/** Builds what is out of date; returns the path of the WebAssembly module. */
export async function buildHart() {
  const names = (await readdir(new URL("assembly/", room))).filter(
    (name) => name.endsWith(".ts") || name === "asconfig.json",
  );
  const sources = [
    fileURLToPath(import.meta.url),
    ...names.map((name) => fileURLToPath(new URL(`assembly/${name}`, room))),
  ];
  const newest = Math.max(...(await Promise.all(sources.map(async (path) => (await stat(path)).mtimeMs))));
  const built = await stat(output).then(
    (it) => it.mtimeMs,
    () => 0,
  );
  if (built < newest) await compile();
  return fileURLToPath(output);
}

async function compile() {
  const asc = await import("assemblyscript/asc");
  const stderr = asc.createMemoryStream();
  const written = new Map();
  const { error } = await asc.main(["index.ts", "--config", "asconfig.json", "--outFile", "hart.wasm"], {
    stderr,
    stdout: asc.createMemoryStream(),
    readFile: (name, base) =>
      readFile(new URL(name, new URL(`${base}/`, new URL("assembly/", room))), "utf8").catch(() => null),
    writeFile: (name, contents) => void written.set(name, contents),
    listFiles: () => [],
  });
  const wasm = written.get("hart.wasm");
  if (error || !wasm) throw new Error(`the vCPU core does not compile: ${error?.message ?? ""}\n${stderr.toString()}`);
  await mkdir(new URL("build/", room), { recursive: true });
  // several builds at once (test workers) each move a whole file into place
  const draft = new URL(`build/hart.${process.pid}.${Math.floor(performance.now() * 1000)}.wasm`, room);
  await writeFile(draft, wasm);
  await rename(draft, output);
}
