// Makes a guest image: source → core module → component of the world in wit/guest.wit.
//
//     node guest-fixtures/make-image.mjs INPUT OUTPUT.wasm
//
// INPUT is AssemblyScript (.ts), WebAssembly text (.wat) or a core module (.wasm), for example one that clang and wasm-ld made. The core
// module imports its memory (env.memory) and calls the world's functions; README.md shows how from AssemblyScript and C.

import { realpathSync } from "node:fs";
import { mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { dirname, extname } from "node:path";
import { pathToFileURL } from "node:url";

const WORLD = new URL("wit/guest.wit", import.meta.url);

/** Compiles AssemblyScript to a core module that keeps its names and imports its memory. */
async function compileAssemblyScript(file) {
  const { default: asc } = await import("assemblyscript/asc");
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
    const { parse } = await import("@bytecodealliance/jco");
    return parse(await readFile(file, "utf8"));
  }
  throw new Error(`${file}: make-image takes .ts, .wat or .wasm`);
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
  const { componentEmbed, componentNew } = await import("@bytecodealliance/jco");
  const embedded = await componentEmbed({
    binary: core,
    witSource: await readFile(wit, "utf8"),
    world,
    stringEncoding: "utf8",
  });
  await replaceFile(output, await componentNew(embedded, []));
}

if (process.argv[1] !== undefined && pathToFileURL(realpathSync(process.argv[1])).href === import.meta.url) {
  const [input, output] = process.argv.slice(2);
  if (input === undefined || output === undefined) {
    console.error("usage: node guest-fixtures/make-image.mjs INPUT.ts|.wat|.wasm OUTPUT.wasm");
    process.exit(2);
  }
  try {
    await makeImage(input, output);
  } catch (error) {
    console.error(`make-image: ${error instanceof Error ? error.message : error}`);
    process.exit(1);
  }
}
