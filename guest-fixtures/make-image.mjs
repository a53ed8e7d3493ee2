// Makes a guest image: source → core module → component of the world in wit/guest.wit.
//
//     nestbox make-image INPUT OUTPUT.wasm
//
// INPUT is AssemblyScript (.ts), WebAssembly text (.wat) or a core module (.wasm), for example one that clang and wasm-ld made. The core
// module imports its memory (env.memory) and calls the world's functions; README.md shows how from AssemblyScript and C.

import { mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { dirname, extname } from "node:path";

const WORLD = new URL("wit/guest.wit", import.meta.url);

/** A compiler that is an optional part of the package. */
export class MissingCompiler extends Error {}

async function assemblyScript() {
  try {
    return (await import("assemblyscript/asc")).default;
  } catch (error) {
    if (error?.code !== "ERR_MODULE_NOT_FOUND") throw error;
    const { peerDependencies } = JSON.parse(await readFile(new URL("../package.json", import.meta.url), "utf8"));
    const version = peerDependencies.assemblyscript.replace("^", "");
    throw new MissingCompiler(
      `the AssemblyScript compiler is not installed; run: npm install --save-dev assemblyscript@${version}`,
    );
  }
}

/** Compiles AssemblyScript to a core module that keeps its names and imports its memory. */
async function compileAssemblyScript(file) {
  const asc = await assemblyScript();
  const outputs = new Map();
  const { error, stderr } = await asc.main(
    [
      file,
      ...["--outFile", "image.wasm", "--optimizeLevel", "3", "--runtime", "stub", "--importMemory", "--debug"],
      // `abort` is what AssemblyScript calls when an assertion or a bounds check fails: trap there.
      ...["--use", "abort=", "--disable", "bulk-memory"],
    ],
    { writeFile: (name, contents) => void outputs.set(name, contents) },
  );
  if (error !== null) throw new Error(`${file} does not compile:\n${stderr.toString()}`);
  return outputs.get("image.wasm");
}

async function coreModule(file) {
  const kind = extname(file);
  if (kind === ".ts") return compileAssemblyScript(file);
  if (kind === ".wasm") return new Uint8Array(await readFile(file));
  if (kind === ".wat") {
    const { parse } = await import("#jco/wasm-tools");
    return parse(await readFile(file, "utf8"));
  }
  throw new Error(`${file}: expected .ts (AssemblyScript), .wat or .wasm`);
}

/** Writes a whole file or none. */
async function replaceFile(file, bytes) {
  await mkdir(dirname(file), { recursive: true });
  const partial = `${file}.${process.pid}.partial`;
  await writeFile(partial, bytes);
  await rename(partial, file);
}

/**
 * Makes `output` from `input`. `wit` and `world` default to the guest world; `component: false` stops at the core module (both only
 * serve the images that boot must refuse).
 */
export async function makeImage(input, output, { wit = WORLD, world = "guest", component = true } = {}) {
  const core = await coreModule(input);
  if (!component) return replaceFile(output, core);
  const { componentEmbed, componentNew } = await import("#jco/wasm-tools");
  const embedded = await componentEmbed({
    binary: core,
    witSource: await readFile(wit, "utf8"),
    world,
    stringEncoding: "utf8",
  });
  await replaceFile(output, await componentNew(embedded, []));
}
