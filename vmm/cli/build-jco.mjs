// Bundles the two parts of jco that nestbox needs, so that a package installs neither jco's other parts nor what those need (hundreds of
// megabytes): the transpiler, which turns a component into JavaScript and core modules, and wasm-tools, which turns a core module into a
// component. package.json's "imports" map #jco/… to what is made here, in the project and in the package alike.
import { copyFile, mkdir, readFile, rename, stat, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const root = fileURLToPath(new URL("../..", import.meta.url));
const output = join(root, "dist", "jco");

const PARTS = {
  component: 'export { generate } from "@bytecodealliance/jco/component";',
  "wasm-tools": 'export { componentEmbed, componentNew, parse } from "@bytecodealliance/jco-transpile/wasm-tools";',
};
const MODULES = [
  "js-component-bindgen-component.core.wasm",
  "js-component-bindgen-component.core2.wasm",
  "wasm-tools.core.wasm",
  "wasm-tools.core2.wasm",
];

export async function buildJco() {
  const jco = await packageFolder(root, "@bytecodealliance/jco");
  const transpile = await packageFolder(jco, "@bytecodealliance/jco-transpile");
  const versions = await Promise.all([jco, transpile].map(nameAndVersion));
  const stamp = `// ${versions.join(", ")}: Apache-2.0 WITH LLVM-exception, see LICENSE beside this file`;
  if (await isMade(join(output, "component.js"), stamp)) return;
  await mkdir(output, { recursive: true });
  for (const name of MODULES) await copyFile(join(transpile, "vendor", name), join(output, name));
  await copyFile(join(transpile, "LICENSE"), join(output, "LICENSE"));
  // The stamp is in the first file: it comes last.
  for (const name of Object.keys(PARTS).reverse()) {
    const { outputFiles } = await build({
      stdin: { contents: PARTS[name], resolveDir: jco },
      bundle: true,
      write: false,
      format: "esm",
      // The browser's WASI: neither part has a use for files, processes or workers, so none is within reach.
      platform: "browser",
      external: ["node:*"],
      target: "es2022",
      banner: { js: stamp },
    });
    const file = join(output, `${name}.js`);
    await writeFile(`${file}.${process.pid}`, outputFiles[0].text);
    await rename(`${file}.${process.pid}`, file);
  }
}

/** True for a file of these versions that is newer than this script. */
async function isMade(file, stamp) {
  const text = await readFile(file, "utf8").catch(() => "");
  return text.startsWith(stamp) && (await stat(file)).mtimeMs > (await stat(fileURLToPath(import.meta.url))).mtimeMs;
}

/** Where `name` is installed, as seen from a package's folder. */
async function packageFolder(from, name) {
  const { resolve } = createRequire(join(from, "package.json"));
  const folders = resolve.paths(name).map((folder) => join(folder, name));
  for (const folder of folders) if (await readFile(join(folder, "package.json")).catch(() => null)) return folder;
  throw new Error(`${name} is not installed`);
}

async function nameAndVersion(folder) {
  const { name, version } = JSON.parse(await readFile(join(folder, "package.json"), "utf8"));
  return `${name} ${version}`;
}
