// Builds the guest images of this folder into build/NAME.wasm; part of `npm run build`. An image newer than everything it is made from
// is left alone.

import { realpathSync } from "node:fs";
import { readdir, stat } from "node:fs/promises";
import { resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { makeImage } from "./make-image.mjs";

const here = fileURLToPath(new URL(".", import.meta.url));
const TOOLS = ["wit", "driver", "build.mjs", "make-image.mjs", "../package-lock.json"];

/** Name, entry file, and what differs from an ordinary image. */
const IMAGES = [
  ["hello", "hello/assembly/index.ts"],
  ["nested-dma", "nested-dma/assembly/index.ts"],
  ["edu-intx", "edu-intx/assembly/index.ts"],
  ["platform-edu", "platform-edu/assembly/index.ts"],
  ["two-iommus", "two-iommus/assembly/index.ts"],
  ["trap-bench", "trap-bench/assembly/index.ts"],
  ["error-trap", "errors/assembly/trap.ts"],
  ["error-endless-loop", "errors/assembly/endless-loop.ts"],
  ["error-pointer-past-ram", "errors/assembly/pointer-past-ram.ts"],
  ["error-mmio-to-nothing", "errors/assembly/mmio-to-nothing.ts"],
  ["error-dma-past-ram", "errors/assembly/dma-past-ram.ts"],
  ["error-exit-status", "errors/assembly/exit-status.ts"],
  ["error-core-module", "errors/core-module.wat", { component: false }],
  [
    "error-other-world",
    "errors/other-world.wat",
    { wit: new URL("errors/other-world.wit", import.meta.url), world: "elsewhere" },
  ],
];

/** Newest modification time under a file or folder, in ms. */
async function newest(path) {
  const about = await stat(path);
  if (!about.isDirectory()) return about.mtimeMs;
  let latest = about.mtimeMs;
  for (const entry of await readdir(path)) latest = Math.max(latest, await newest(resolve(path, entry)));
  return latest;
}

/** Builds what is out of date (all, with `force`), each told to `building` before; returns the images' paths by name. */
export async function buildFixtures({ force = false, building = (_name) => {} } = {}) {
  const tools = Math.max(...(await Promise.all(TOOLS.map((name) => newest(resolve(here, name))))));
  const built = {};
  for (const [name, entry, options] of IMAGES) {
    const output = resolve(here, "build", `${name}.wasm`);
    built[name] = output;
    const source = await newest(resolve(here, entry.split("/")[0]));
    const done = await stat(output).then(
      (about) => about.mtimeMs,
      () => 0,
    );
    if (!force && done > Math.max(source, tools)) continue;
    building(name);
    await makeImage(resolve(here, entry), output, options);
  }
  return built;
}

if (process.argv[1] !== undefined && pathToFileURL(realpathSync(process.argv[1])).href === import.meta.url) {
  await buildFixtures({ force: process.argv.includes("--force") });
}
